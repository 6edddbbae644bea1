"""GPJax: marginal likelihood of a Gaussian process on scikit-learn's diabetes data."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

gpx = pytest.importorskip("gpjax")
datasets = pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def loss(posterior, data):
    return -gpx.objectives.conjugate_mll(posterior, data)


@pytest.fixture
def problem():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    x, y = x[::4], y[::4, None]  # every fourth patient
    x, y = (jnp.asarray((array - array.mean(0)) / array.std(0)) for array in (x, y))
    kernel = gpx.kernels.RBF(lengthscale=jnp.ones(10))  # one length scale for each feature
    prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Constant(), kernel=kernel)
    return {
        "model": prior * gpx.likelihoods.Gaussian(),
        "objective": loss,
        "train_data": gpx.Dataset(X=x, y=y),
        "verbose": False,
    }


def fit(problem, optimizer):
    posterior, _ = gpx.fit(**problem, optim=optimizer, num_iters=100)
    return loss(posterior, problem["train_data"])


def test_losses(problem, compare_losses):
    """BFGS reaches no less."""
    by_lbfgs, _, by_rprop, _ = compare_losses(functools.partial(fit, problem), optax.adam(0.01))
    best, _ = gpx.fit_scipy(**problem)
    assert max(by_lbfgs, by_rprop) < loss(best, problem["train_data"]) + 0.01

"""GPJax: marginal likelihood of a Gaussian process on scikit-learn's diabetes data."""

import jax
import jax.numpy as jnp
import pytest

import optax_rprop

gpx = pytest.importorskip("gpjax")
datasets = pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def loss(posterior, data):
    return -gpx.objectives.conjugate_mll(posterior, data)


def test_fit_reaches_what_bfgs_reaches():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    x, y = x[::4], y[::4, None]  # every fourth patient
    x, y = (jnp.asarray((array - array.mean(0)) / array.std(0)) for array in (x, y))
    data = gpx.Dataset(X=x, y=y)
    kernel = gpx.kernels.RBF(lengthscale=jnp.ones(10))  # one length scale for each feature
    prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Constant(), kernel=kernel)
    problem = {
        "model": prior * gpx.likelihoods.Gaussian(),
        "objective": loss,
        "train_data": data,
        "verbose": False,
    }
    best, _ = gpx.fit_scipy(**problem)
    rprop, _ = gpx.fit(**problem, optim=optax_rprop.rprop(), num_iters=100)
    assert loss(rprop, data) < loss(best, data) + 0.01

"""GPJax: marginal likelihood of a Gaussian process on scikit-learn's diabetes data."""

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop

gpx = pytest.importorskip("gpjax")
datasets = pytest.importorskip("sklearn.datasets")
pytestmark = pytest.mark.usefixtures("x64")


@jax.jit
def loss(posterior, data):
    return -gpx.objectives.conjugate_mll(posterior, data)


@pytest.fixture
def data():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    x, y = x[::4], y[::4, None]  # every fourth patient
    x, y = ((array - array.mean(0)) / array.std(0) for array in (x, y))
    return gpx.Dataset(X=jnp.asarray(x), y=jnp.asarray(y))


@pytest.fixture
def posterior():
    kernel = gpx.kernels.RBF(lengthscale=jnp.ones(10))  # one length scale for each feature
    prior = gpx.gps.Prior(mean_function=gpx.mean_functions.Constant(), kernel=kernel)
    return prior * gpx.likelihoods.Gaussian()


def fit(posterior, data, optimizer, steps=100):
    fitted, _ = gpx.fit(
        model=posterior,
        objective=loss,
        train_data=data,
        optim=optimizer,
        num_iters=steps,
        verbose=False,
    )
    return fitted


def test_fit_reaches_what_bfgs_reaches(posterior, data):
    best, _ = gpx.fit_scipy(model=posterior, objective=loss, train_data=data, verbose=False)
    adam = fit(posterior, data, optax.adam(0.01))
    rprop = fit(posterior, data, optax_rprop.rprop())
    assert loss(rprop, data) < loss(best, data) + 0.01
    assert loss(adam, data) > loss(best, data) + 1

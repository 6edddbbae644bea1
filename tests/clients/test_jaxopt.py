"""jaxopt: ridge regression on scikit-learn's diabetes data by OptaxSolver."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

jaxopt = pytest.importorskip("jaxopt")
datasets = pytest.importorskip("sklearn.datasets")
linear_model = pytest.importorskip("sklearn.linear_model")
PENALTY = 0.1


@pytest.fixture
def data():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    x, y = ((array - array.mean(0)) / array.std(0) for array in (x, y))
    return jnp.asarray(x), jnp.asarray(y)


@pytest.fixture
def expected(data):
    alpha = PENALTY * len(data[1])
    return linear_model.Ridge(alpha, fit_intercept=False).fit(*data).coef_


def fit(data, optimizer, steps=200):
    solver = jaxopt.OptaxSolver(
        jaxopt.objective.ridge_regression, optimizer, maxiter=steps, tol=0.0
    )
    return solver.run(jnp.zeros(10), l2reg=PENALTY, data=data).params


def test_optax_solver(data, expected):
    adam = fit(data, optax.adam(0.001))
    rprop = fit(data, optax_rprop.rprop())
    np.testing.assert_allclose(rprop, expected, atol=1e-4)
    assert np.abs(adam - expected).max() > 1e-2


def test_bounds(data):
    """Non-negative least squares, as scikit-learn solves it."""
    expected = linear_model.LinearRegression(fit_intercept=False, positive=True).fit(*data).coef_
    solver = jaxopt.OptaxSolver(
        jaxopt.objective.least_squares, optax_rprop.rprop(lower=0.0), maxiter=300, tol=0.0
    )
    params = solver.run(jnp.zeros(10), data=data).params
    np.testing.assert_allclose(params, expected, atol=1e-4)
    assert (params == 0).tolist() == (expected == 0).tolist()

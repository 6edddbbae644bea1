"""Problems with known minima, from Optimistix's tests and from Hock and Schittkowski."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from optax_rprop.optimistix import RpropMinimiser

ROOT = np.random.default_rng(17).normal(size=(20, 20))


def bowl(tree):
    y, _ = ravel_pytree(tree)
    return jnp.sum((ROOT @ y) ** 2)


# Functions, minima and starts that Optimistix tests its minimisers with.
OPTIMISTIX = {
    "bowl": (bowl, 0.0, ({"a": 0.05 * np.ones((2, 3, 3))}, 0.05 * np.ones(2))),
    "himmelblau": (
        lambda y: (y[0] ** 2 + y[1] - 11) ** 2 + (y[0] + y[1] ** 2 - 7) ** 2,
        0.0,
        [2.0, 2.5],
    ),
    "matyas": (lambda y: 0.26 * (y[0] ** 2 + y[1] ** 2) - 0.48 * y[0] * y[1], 0.0, [6.0, 6.0]),
    "beale": (
        lambda y: sum(
            (c - y[0] + y[0] * y[1] ** k) ** 2 for k, c in enumerate((1.5, 2.25, 2.625), 1)
        ),
        0.0,
        [2.0, 0.0],
    ),
    "minimum -1": (lambda y: y**2 - 1, -1.0, 1.0),
}


@pytest.mark.parametrize("name", OPTIMISTIX)
def test_optimistix(name):
    fn, minimum, start = OPTIMISTIX[name]
    solution = optimistix.minimise(
        lambda y, args: fn(y),
        RpropMinimiser(1e-8, 1e-8),
        jax.tree.map(jnp.asarray, start),
        max_steps=10_000,
    )
    np.testing.assert_allclose(fn(solution.value), minimum, atol=1e-12)


# Hock & Schittkowski 1981: function, start, lower, upper, minimum. At the minimum of 45
# all upper bounds are active.
HOCK_SCHITTKOWSKI = {
    5: (
        lambda x: jnp.sin(x[0] + x[1]) + (x[0] - x[1]) ** 2 - 1.5 * x[0] + 2.5 * x[1] + 1,
        [0.0, 0.0],
        [-1.5, -3.0],
        [4.0, 3.0],
        -np.sqrt(3) / 2 - np.pi / 3,
    ),
    45: (
        lambda x: 2 - jnp.prod(x) / 120,
        [0.5, 0.5, 0.5, 0.5, 0.5],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [1.0, 2.0, 3.0, 4.0, 5.0],
        1.0,
    ),
    110: (
        lambda x: jnp.sum(jnp.log(x - 2) ** 2 + jnp.log(10 - x) ** 2) - jnp.prod(x) ** 0.2,
        10 * [9.0],
        10 * [2.001],
        10 * [9.999],
        -45.77846971,
    ),
}


@pytest.mark.parametrize("number", HOCK_SCHITTKOWSKI)
def test_bounded_as_l_bfgs_b(number):
    fn, start, lower, upper, minimum = HOCK_SCHITTKOWSKI[number]
    start, lower, upper = map(np.array, (start, lower, upper))
    solver = RpropMinimiser(1e-7, 1e-7, lower=lower, upper=upper)
    solution = optimistix.minimise(
        lambda x, args: fn(x), solver, jnp.asarray(start), max_steps=20_000
    )
    value = np.asarray(solution.value)
    theirs = scipy.optimize.minimize(
        jax.jit(jax.value_and_grad(fn)),
        start,
        jac=True,
        bounds=scipy.optimize.Bounds(lower, upper),
        method="L-BFGS-B",
        options={"ftol": 0.0, "gtol": 1e-12, "maxiter": 1000},
    )
    np.testing.assert_allclose(theirs.fun, minimum, atol=1e-7)
    assert np.all((value >= lower) & (value <= upper))
    np.testing.assert_allclose(value, theirs.x, atol=1e-5)
    on_bound = (theirs.x == lower) | (theirs.x == upper)
    np.testing.assert_array_equal(value[on_bound], theirs.x[on_bound])

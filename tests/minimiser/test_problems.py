"""Problems with known minima, from Optimistix's tests, CUTEst, and Hock and Schittkowski.

A success must be one, and where steps run out Optimistix must say so.
"""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree
from optimistix import RESULTS

from helpers.streams import OPTIMIZERS as RULES
from optax_rprop.optimistix import RpropMinimiser


def bowl(tree, matrix):
    y, _ = ravel_pytree(tree)
    return y @ matrix @ y


def himmelblau(tree, consts):
    x, y = tree
    return (x**2 + y - consts[0]) ** 2 + (x + y**2 - consts[1]) ** 2


def matyas(tree, consts):
    x, y = tree
    return consts[0] * (x**2 + y**2) - consts[1] * x * y


def beale(tree, consts):
    x, y = tree
    return sum((c - x + x * y**k) ** 2 for k, c in enumerate(consts, 1))


def square_minus_one(y, args):
    return jnp.sum(y**2) - 1.0


def numbers(*values):
    return [jnp.array(value) for value in values]


def optimistix_problems():
    """Functions, minima and starts that Optimistix tests its minimisers with."""
    root = np.random.default_rng(17).normal(size=(20, 20))
    tree = ({"a": 0.05 * np.ones((2, 3, 3))}, 0.05 * np.ones(2))
    return {
        "bowl": (bowl, 0.0, tree, root.T @ root),
        "himmelblau": (himmelblau, 0.0, [2.0, 2.5], [11.0, 7.0]),
        "matyas": (matyas, 0.0, [6.0, 6.0], [0.26, 0.48]),
        "beale": (beale, 0.0, [2.0, 0.0], [1.5, 2.25, 2.625]),
        "minimum -1": (square_minus_one, -1.0, 1.0, None),
    }


@pytest.mark.parametrize(
    ("name", "rule"),
    [(name, "irprop_minus") for name in optimistix_problems()]
    + [("beale", rule) for rule in RULES if rule != "irprop_minus"],
)
def test_optimistix(name, rule):
    fn, minimum, start, args = jax.tree.map(
        lambda x: x if callable(x) else jnp.asarray(x), optimistix_problems()[name]
    )
    momentum = 0.8 if rule == "irprop_minus" else None
    solver = RpropMinimiser(1e-8, 1e-8, rule=rule, momentum=momentum)
    solution = optimistix.minimise(fn, solver, start, args, max_steps=10_000, throw=False)
    reached = fn(solution.value, args)
    np.testing.assert_allclose(reached, minimum, rtol=1e-4, atol=1e-4)
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(reached, minimum, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7])
def test_rosenbrock_is_no_success_before_its_time(tolerance):
    """A curved valley, 50 times longer than wide, where small updates mean little."""

    def rosenbrock(y, args):
        return (1 - y[0]) ** 2 + 100 * (y[1] - y[0] ** 2) ** 2

    start = jnp.array([-1.2, 1.0])
    solution = optimistix.minimise(
        rosenbrock, RpropMinimiser(0.0, tolerance), start, max_steps=20_000
    )
    assert np.abs(solution.value - 1).max() < tolerance


# Minima from the collection's files, in the digits that they give, or, where these are others',
# from NIST (the names that end in LS) and More, Garbow & Hillstrom (BIGGS6's second).
SOLVED = {
    "BIGGS6": 5.65565e-3,
    "BOXBODLS": 1168.0088766,
    "BROWNBS": 0.0,
    "HUMPS": 0.0,
    "OSBORNEB": 4.01377e-2,
    "ROSENBR": 0.0,
    "ZANGWIL2": -18.2,
}
UNSOLVED = ("PALMER1C",)


@pytest.fixture(scope="module")
def collection():
    if find_spec("sif2jax") is None:
        pytest.skip("sif2jax has the CUTEst collection")
    from cutest import collection  # of the benchmark

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return {problem.name: problem for problem in collection.problems(quadratic=False)}


@pytest.mark.parametrize("name", [*SOLVED, *UNSOLVED])
def test_cutest(name, collection):
    problem = collection[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        fn, start, args = problem.objective, problem.y0, problem.args
        max_steps = 4000 if name in SOLVED else 1000
        solution = optimistix.minimise(
            fn, RpropMinimiser(1e-6, 1e-6), start, args, max_steps=max_steps, throw=False
        )
        first, last = (float(jax.jit(fn)(y, args)) for y in (start, solution.value))
    if name in SOLVED:
        assert solution.result == RESULTS.successful
        assert last - SOLVED[name] < 1e-8 * (first - SOLVED[name]) + 1e-5 * abs(SOLVED[name])
    else:
        assert solution.result == RESULTS.nonlinear_max_steps_reached
        assert last < first


# Hock & Schittkowski 1981: function, start, lower, upper, minimum. At the minimum of 2, 3 and
# 45 bounds are active.
INF = np.inf
HOCK_SCHITTKOWSKI = {
    2: (
        lambda x: 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2,
        [-2.0, 1.5],
        [-INF, 1.5],
        [INF, INF],
        None,  # Rprop finds the second of its two minima
    ),
    3: (
        lambda x: x[1] + 1e-5 * (x[1] - x[0]) ** 2,
        [10.0, 1.0],
        [-INF, 0.0],
        [INF, INF],
        0.0,
    ),
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
    if minimum is not None:
        np.testing.assert_allclose(theirs.fun, minimum, atol=1e-7)
    assert np.all((value >= lower) & (value <= upper))
    np.testing.assert_allclose(value, theirs.x, atol=1e-5)
    on_bound = (theirs.x == lower) | (theirs.x == upper)
    np.testing.assert_array_equal(value[on_bound], theirs.x[on_bound])

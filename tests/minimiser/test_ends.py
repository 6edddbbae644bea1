"""It ends, in float32 too, and success is true."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser


def solve(fn, start, tolerance=1e-5, max_steps=2000, args=None, **bounds):
    solver = RpropMinimiser(tolerance, tolerance, **bounds)
    return optimistix.minimise(fn, solver, start, args, max_steps=max_steps, throw=False)


def rotated(count, n, condition, dtype):
    """Matrices, minima and starts."""
    random = np.random.default_rng(n + 3)
    rotations = np.linalg.qr(random.normal(size=(count, n, n)))[0]
    matrices = np.sqrt(np.geomspace(1, condition, n))[:, None] * rotations
    numbers = matrices, random.normal(size=(count, n)) * 2, random.normal(size=(count, n)) * 2
    return [jnp.asarray(x, dtype) for x in numbers]


@pytest.mark.parametrize(
    ("condition", "n", "tolerance", "count"),
    [
        *itertools.product([10, 100, 1e4], [2, 5, 20], [1e-3], [8]),
        *((1e6, 2, 1e-3, 8), (1e6, 20, 1e-3, 8), (1e5, 2, 1e-5, 100)),
    ],
)
def test_rotated_quadratics_in_float32(condition, n, tolerance, count):
    """Each ends; up to a condition of 1e4 in success; none is off by more than the tolerance.

    In the last three, steps are lost in rounding far from the minimum.
    """
    with jax.enable_x64(False):
        matrices, targets, starts = rotated(count, n, condition, "float32")

        def one(matrix, target, start):
            def fn(y, args):
                return jnp.sum((matrix @ (y - target)) ** 2)

            return solve(fn, start, tolerance)

        solutions = eqx.filter_jit(jax.vmap(one))(matrices, targets, starts)
        success = np.asarray(solutions.result == RESULTS.successful)
        ended = success | np.asarray(solutions.result == RESULTS.stagnation)
        steps = solutions.stats["num_steps"]
    assert ended.all(), steps
    assert success.all() or (condition > 1e4 and success.sum() >= 6), steps
    error = abs(np.asarray(solutions.value - targets))
    assert (error <= tolerance * (1 + abs(np.asarray(targets))))[success].all(), error


def test_few_evaluations():
    """In float64: a condition of 1e4 in ten dimensions, half of them with quartics."""
    matrices, targets, starts = rotated(8, 10, 1e4, float)
    quartics = jnp.array([0.0, 0.1] * 4)

    def one(matrix, target, start, quartic):
        def fn(y, args):
            z = matrix @ (y - target)
            return jnp.sum(z**2 + quartic * z**4)

        return solve(fn, start)

    solutions = eqx.filter_jit(jax.vmap(one))(matrices, targets, starts, quartics)
    assert (solutions.result == RESULTS.successful).all()
    steps = np.asarray(solutions.stats["num_steps"])
    assert np.median(steps) < 120, steps
    np.testing.assert_allclose(solutions.value, targets, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gradient_that_reaches_rounding_at_once_ends_soon(dtype):
    """Of linear regressions with two columns."""
    random = np.random.default_rng(0)
    x, target = (random.normal(size=shape).astype(dtype) for shape in ((20, 30, 2), (20, 30)))

    def one(x, target):
        return solve(lambda y, args: ((x @ y - target) ** 2).mean(), jnp.zeros(2, dtype))

    with jax.enable_x64(dtype == "float64"):
        solutions = eqx.filter_jit(jax.vmap(one))(x, target)
        assert (solutions.result == RESULTS.successful).all()
        steps = np.asarray(solutions.stats["num_steps"])
    assert np.median(steps) < 40, steps


@pytest.mark.parametrize("inside", ["bounds", "domain"])
def test_where_weights_are_pushed_to_prove_a_minimum(inside):
    """Never out of bounds; and back from where fn is not finite."""
    points, targets = [], 0.001 * np.arange(4, dtype=np.float32) * (inside == "bounds")

    def fn(y, args):
        jax.debug.callback(points.append, y)
        loss = jnp.sum((y[0] - targets) ** 2) + 3 * y[1] ** 2
        return loss if inside == "bounds" else jnp.where(y[1] > y[0] + 1e-4, jnp.nan, loss)

    with jax.enable_x64(False):
        bounds = {"lower": jnp.array([0.0, 0.5])} if inside == "bounds" else {}
        solution = solve(fn, jnp.array([2.0, 1.0]), 1e-3, **bounds)
        jax.effects_barrier()
        points = np.array(points)
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, [targets.mean(), 0.5 * bool(bounds)], atol=1e-3)
    if bounds:
        assert (points >= [0, 0.5]).all()
    else:
        assert (points[-15:, 1] > points[-15:, 0] + 1e-4).any()


def test_no_nan_of_its_own():
    """Also where a weight and its tolerance are 0, and rounding asks for a proof."""
    targets = np.linspace(1, 2, 7, dtype=np.float32) ** 2

    def fn(y, args):
        return jnp.sum((y[0] - targets) ** 2) + (y[1] + 1) ** 2

    with jax.enable_x64(False), jax.debug_nans(True):
        solver = RpropMinimiser(1e-3, 0.0, lower=0.0)
        solution = optimistix.minimise(fn, solver, jnp.array([3.0, 1.0]))
    assert solution.state.progress.num_returns == 2
    np.testing.assert_allclose(solution.value, [targets.mean(), 0], rtol=1e-3)


def test_a_start_without_a_slope_ends_at_once():
    start = jnp.array([3.0, -1.0])
    solution = solve(lambda y, args: jnp.sum((y - start) ** 2), start)
    assert solution.result == RESULTS.successful
    assert solution.stats["num_steps"] <= 2
    np.testing.assert_array_equal(solution.value, start)


def test_weights_that_run_away_end_in_stagnation():
    """The minimum is at infinity, where the loss is flat."""

    def fn(y, args):
        return 1 + 1 / (1 + y[0] ** 2) + (y[1] - 1) ** 2

    solution = solve(fn, jnp.array([1.0, 0.0]), 1e-3)
    assert solution.result == RESULTS.stagnation
    assert solution.stats["num_steps"] < 500
    assert solution.value[0] > 1e3
    np.testing.assert_allclose(solution.value[1], 1.0, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_loss_that_falls_for_ever_ends_in_stagnation(dtype):
    """A logistic regression of classes that a line separates."""
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(dtype)

    def fn(y, args):
        return jnp.logaddexp(0, -jnp.sign(x[:, 0] - x[:, 1]) * (x @ y)).mean()

    solution = solve(fn, jnp.array([0.1, 0.1], dtype))
    assert solution.result == RESULTS.stagnation
    assert solution.state.f < 1e-9


def test_a_tolerance_below_rounding_ends():
    """With a large constant, float32 losses do not tell the last steps apart."""
    with jax.enable_x64(False):
        target = jnp.linspace(1.0, 2.0, 20)
        root = jnp.asarray(np.random.default_rng(0).normal(size=(20, 20)), "float32")
        solution = solve(
            lambda y, args: 1e4 + jnp.sum((root @ (y - target)) ** 2), jnp.zeros(20), 1e-8
        )
        steps = int(solution.stats["num_steps"])
    assert solution.result != RESULTS.nonlinear_max_steps_reached, steps


@pytest.mark.parametrize(
    "edge",
    [lambda y: y[1] ** 1.5, lambda y: jnp.sqrt(y[1]), lambda y: 0 * jnp.log(y[1] * (1 + y[0]))],
    ids=["gradient of one", "steep", "gradients of both"],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_sizes_that_an_edge_made_small_are_no_success(edge, dtype):
    """The minimum is at the edge, at [3, 0]."""

    def fn(y, args):
        return (y[0] - 3) ** 2 + y[1] + edge(y)

    solution = solve(fn, jnp.array([1.0, 2.0], dtype))
    assert solution.result in (RESULTS.successful, RESULTS.stagnation)
    if solution.result == RESULTS.successful:
        np.testing.assert_allclose(solution.value, [3.0, 0.0], atol=1e-4)


def test_memory_follows_the_number_of_weights():
    for n, rows in ((1, 10), (12, 24), (100, 100)):
        solution = solve(lambda y, args: jnp.sum((y - 1) ** 2), jnp.zeros(n))
        assert solution.state.rprop.sy.shape == (rows, rows)

"""It ends, in float32 too, and success is true."""

import functools

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


@pytest.mark.parametrize("n", [2, 5, 20])
def test_rotated_quadratics_in_float32(n):
    """Each ends; up to a condition of 1e4 in success; none is off by more than the tolerance.

    Beyond, steps are lost in rounding far from the minimum.
    """

    @jax.jit
    @jax.vmap
    def solve_one(matrix, target, start, tolerance):
        return solve(lambda y, args: jnp.sum((matrix @ (y - target)) ** 2), start, tolerance)

    cases = [(condition, 1e-3) for condition in (10, 100, 1e4, 1e6)] + [(1e5, 1e-5)] * (n == 2)
    for condition, tolerance in cases:
        with jax.enable_x64(False):
            matrices, targets, starts = rotated(200, n, condition, "float32")
            tolerances = jnp.full(200, tolerance, "float32")
            solutions = solve_one(matrices, targets, starts, tolerances)
            success = np.asarray(solutions.result == RESULTS.successful)
            ended = success | np.asarray(solutions.result == RESULTS.stagnation)
            steps = solutions.stats["num_steps"]
        assert ended.all(), (condition, steps)
        assert success.all() or (condition > 1e4 and success.mean() >= 0.75), (condition, steps)
        error = abs(np.asarray(solutions.value - targets))
        is_near = error <= tolerance * (1 + abs(np.asarray(targets)))
        assert is_near[success].all(), (condition, error)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-8)])
def test_a_minimum_that_is_met_at_once(dtype, tolerance):
    """The last step is a long one, and all that follow are lost in rounding."""
    random = np.random.default_rng(0)
    scales, target, start = random.uniform(1, 2, (100, 2)), *random.normal(size=(2, 100, 2))

    def one(scale, target, start):
        return solve(lambda y, args: jnp.sum((y / scale - target) ** 2), start, tolerance)

    with jax.enable_x64(dtype == "float64"):
        given = [jnp.asarray(x, dtype) for x in (scales, target, start)]
        solutions = jax.jit(jax.vmap(one))(*given)
        assert (solutions.result == RESULTS.successful).all()
        assert solutions.stats["num_steps"].max() <= 60
        error = abs(solutions.value - given[0] * given[1])
        assert (error <= tolerance * (1 + abs(given[0] * given[1]))).all()


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
        solution = optimistix.minimise(fn, solver, jnp.array([2.0, 1.0]))
    assert solution.state.progress.num_returns == 3
    np.testing.assert_allclose(solution.value, [targets.mean(), 0], rtol=1e-3)


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


@pytest.mark.parametrize(("n", "rows"), [(1, 10), (12, 24), (100, 100)])
def test_memory_follows_the_number_of_weights(n, rows):
    given = {"args": None, "options": {}, "aux_struct": None, "tags": frozenset()}
    init = functools.partial(RpropMinimiser(1e-3, 1e-3).init, None, **given)
    state = jax.eval_shape(lambda y: init(y, f_struct=y[0]), jnp.zeros(n))
    assert state.rprop.sy.shape == (rows, rows)

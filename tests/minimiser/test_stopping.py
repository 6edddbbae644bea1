"""When it stops, and what success promises."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser


def solve(fn, start, tolerance=1e-6, max_steps=2000, args=None, **bounds):
    solver = RpropMinimiser(0.0, tolerance, **bounds)
    start = jnp.asarray(start)
    return optimistix.minimise(fn, solver, start, args, max_steps=max_steps, throw=False)


def assert_successful(solutions, *columns):
    failed = np.array(columns).T[solutions.result != RESULTS.successful]
    assert not failed.size, f"no success with {failed}"


def test_each_weight_is_within_the_tolerance():
    target = np.random.default_rng(0).normal(scale=5, size=30)
    curvature = np.logspace(-6, 6, 30)

    def solve_to(tolerance):
        return solve(
            lambda y, args: jnp.sum(curvature * (y - target) ** 2), np.zeros(30), tolerance
        )

    tolerances = jnp.array([1e-2, 1e-6, 1e-12])
    solutions = eqx.filter_vmap(solve_to)(tolerances)
    assert_successful(solutions, tolerances)
    for value, tolerance in zip(solutions.value, tolerances, strict=True):
        np.testing.assert_allclose(value, target, atol=tolerance)


def test_in_a_box():
    """Inside, on a bound, and with the minimum outside: then exactly on the bound. A start
    outside the box is moved inside."""
    targets, starts = jnp.array([*itertools.product([0.3, 1.0, 0.0, 7.0, -7.0], [0.5, 0.0, 3.0])]).T
    solutions = eqx.filter_vmap(
        lambda target, start: solve(
            lambda y, args: (y - args) ** 2, start, args=target, lower=0.0, upper=1.0
        )
    )(targets, starts)
    assert_successful(solutions, targets, starts)
    value, nearest = solutions.value, np.clip(targets, 0, 1)
    assert ((value >= 0) & (value <= 1)).all()
    np.testing.assert_allclose(value, nearest, atol=1e-6)
    outside = abs(targets) > 1
    np.testing.assert_array_equal(value[outside], nearest[outside])


def test_the_edge_of_the_domain_as_a_bound():
    def fn(y, args):
        return jnp.where(y[0] > 1, jnp.nan, (y[1] - 5) ** 2 - y[0])

    solution = solve(fn, np.zeros(2), upper=np.array([1.0, np.inf]))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, [1, 5], atol=1e-6)


def test_tolerances_that_do_not_fit():
    for given in ((-1e-3, 0.0), (0.0, np.nan), ({"a": 1.0, "b": -1.0}, 0.0)):
        with pytest.raises(ValueError, match=r"^[ra]tol.*must lie in \[0, inf\)"):
            RpropMinimiser(*given)
    start = {"a": jnp.ones(2), "b": jnp.ones(())}
    for rtol, message in (
        ({"a": 1e-3}, r"rtol has no value for parameter \['b'\]"),
        ({"a": 1e-3, "b": 1e-3, "c": 1e-3}, r"rtol\['c'\] belongs to none of the parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            optimistix.minimise(lambda y, args: y["b"] ** 2, RpropMinimiser(rtol, 1e-3), start)
    with pytest.raises(ValueError, match=r"^lower=1\.0 is above upper=0"):
        RpropMinimiser(1e-3, 1e-3, lower=1.0, upper=0.0)


def test_each_weight_has_its_own_tolerance():
    """A loose one ends early."""
    target = {"small": 3e-7, "large": jnp.array([1e5, 2e5])}

    @jax.jit  # one program for all
    def solve_to(rtol, atol, is_quadratic):
        def of(x):
            return jnp.where(is_quadratic, x**2, jnp.cosh(x))

        def fn(y, args):
            return of(y["small"] / 3e-7 - 1) + jnp.sum(of(y["large"] / target["large"] - 1))

        start = {"small": jnp.array(1e-7), "large": jnp.array([1e4, 1e4])}
        solver = RpropMinimiser(rtol, atol)
        return optimistix.minimise(fn, solver, start, max_steps=2000, throw=False)

    none, relative = {"small": 0.0, "large": 0.0}, {"small": 1e-5, "large": 1e-5}
    tight = {"small": 1e-12, "large": np.array([1e-6, 1.0])}
    loose = {"small": 1e-12, "large": np.array([100.0, 100.0])}
    exact = {"small": 0.0, "large": np.zeros(2)}
    for rtol, atol in ((none, tight), (relative, exact), ({"small": 1e-5, "large": 0.0}, tight)):
        solution = solve_to(rtol, atol, True)
        assert solution.result == RESULTS.successful
        np.testing.assert_allclose(solution.value["small"], 3e-7, rtol=1e-5)
        np.testing.assert_allclose(solution.value["large"], target["large"], rtol=1e-5)
    # Of a quadratic, the last step reaches rounding, and the weights are pushed and come back.
    steps = [int(solve_to(none, x, False).stats["num_steps"]) for x in (tight, loose)]
    assert steps[1] < steps[0]


def test_rosenbrock_in_ten_dimensions():
    def rosenbrock(y, args):
        return jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)

    solution = solve(rosenbrock, jnp.tile(jnp.array([-1.2, 1.0]), 5), max_steps=2500)
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, 1.0, atol=2e-6)


def test_no_false_success():
    """In rotated quadratics of a condition up to 1e6, from starts of any scale."""
    random, n, count = np.random.default_rng(7), 5, 60
    rotations = np.linalg.qr(random.normal(size=(count, n, n)))[0]
    curvatures = 10 ** (random.uniform(0, 6, (count, 1)) * random.uniform(size=(count, n)))
    scales = 10 ** random.uniform(-2, 2, (2, count, 1))
    targets, starts = scales * random.normal(size=(2, count, n))

    def solve_one(matrix, target, start):
        return solve(
            lambda y, args: jnp.sum((args @ (y - target)) ** 2), start, max_steps=5000, args=matrix
        )

    matrices = np.sqrt(curvatures)[:, :, None] * rotations.swapaxes(1, 2)
    solutions = eqx.filter_jit(jax.vmap(solve_one))(*map(jnp.array, (matrices, targets, starts)))
    success = np.asarray(solutions.result == RESULTS.successful)
    assert success.sum() > 0.8 * count
    np.testing.assert_allclose(solutions.value[success], targets[success], rtol=0, atol=1e-6)


def test_forward_mode():
    """Of a function without a reverse-mode derivative."""

    def fn(y, args):
        return jax.lax.while_loop(lambda c: c[1] < 3, lambda c: (c[0] * 0.5, c[1] + 1), (y, 0))[0]

    def loss(y, args):
        return jnp.sum((fn(y, args) - 1) ** 2)

    solver, start = RpropMinimiser(1e-6, 1e-6), jnp.zeros(2)
    forward = {"autodiff_mode": "fwd"}
    solution = optimistix.minimise(loss, solver, start, options=forward, max_steps=1000)
    np.testing.assert_allclose(solution.value, 8.0, atol=1e-5)


def test_a_tolerance_below_rounding_is_met_as_far_as_the_type_goes():
    """Near 1e4, float32 numbers are 1e-3 apart; beside them a small weight is as accurate."""
    target = np.append(np.linspace(1e4, 2e4, 20), 1e-3).astype("float32")

    @jax.jit
    def solve_one(is_flat):
        def fn(y, args):
            flat = (y - target * np.float32(1 + 1e-7)) ** 4
            kink = jnp.where(y > target, y - target, target - y)  # never without a slope
            return jnp.sum(jnp.where(is_flat, flat, kink))

        return solve(fn, np.full(21, 1.0, "float32"), 1e-9)

    with jax.enable_x64(False):
        for is_flat in (True, False):
            np.testing.assert_allclose(solve_one(is_flat).value, target, rtol=1e-5)

"""When it stops, in float32 too, and what success promises."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser


def solve(fn, start, atol=1e-6, rtol=0.0, max_steps=2000, args=None, **bounds):
    solver, start = RpropMinimiser(rtol, atol, **bounds), jnp.asarray(start)
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
    def solve_to(rtol, atol):
        def fn(y, args):
            ratios = jax.tree.map(jnp.divide, y, target)
            return jnp.cosh(ratios["small"] - 1) + jnp.sum(jnp.cosh(ratios["large"] - 1))

        start = {"small": jnp.array(1e-7), "large": jnp.array([1e4, 1e4])}
        solver = RpropMinimiser(rtol, atol)
        return optimistix.minimise(fn, solver, start, max_steps=2000, throw=False)

    none, relative = {"small": 0.0, "large": 0.0}, {"small": 1e-5, "large": 1e-5}
    tight = {"small": 1e-12, "large": np.array([1e-6, 1.0])}
    loose = {"small": 1e-12, "large": np.array([100.0, 100.0])}
    exact = {"small": 0.0, "large": np.zeros(2)}
    given = (none, tight), (relative, exact), ({"small": 1e-5, "large": 0.0}, tight)
    solutions = [solve_to(rtol, atol) for rtol, atol in given]
    for solution in solutions:
        assert solution.result == RESULTS.successful
        for value, expected in zip(*map(jax.tree.leaves, (solution.value, target)), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert solve_to(none, loose).stats["num_steps"] < solutions[0].stats["num_steps"]


def rotated(count, n, condition, dtype="float64", scale=2):
    """Matrices, minima and starts."""
    random = np.random.default_rng(n + 3)
    rotations = np.linalg.qr(random.normal(size=(count, n, n)))[0]
    matrices = np.sqrt(np.geomspace(1, condition, n))[:, None] * rotations
    targets, starts = scale * random.normal(size=(2, count, n))
    return [jnp.asarray(x, dtype) for x in (matrices, targets, starts)]


@pytest.mark.parametrize(
    ("n", "dtype", "tolerance"),
    [(2, "float32", 1e-3), (5, "float32", 1e-3), (20, "float32", 1e-3), (5, "float64", 1e-6)],
)
def test_rotated_quadratics(n, dtype, tolerance):
    """Each ends; up to a condition of 1e4 in success; none is off by more than the tolerance.

    Beyond, steps are lost in rounding far from the minimum. And from where they ended, on the
    floor of the valley, gradients are rounding from the first.
    """
    relative = 1.0 if dtype == "float32" else 0.0

    @jax.jit
    @jax.vmap
    def solve_one(matrix, target, start, tolerance):
        def fn(y, args):
            return jnp.sum((matrix @ (y - target)) ** 2)

        return solve(fn, start, tolerance, relative * tolerance)

    count = 100 if n == 20 else 200
    cases = [(condition, tolerance) for condition in (10, 100, 1e4, 1e6)] + [(1e5, 1e-5)] * (n == 2)
    random, is_wide = np.random.default_rng(0), dtype == "float64"
    scale = 10 ** random.uniform(-2, 2, (2, count, 1)) if is_wide else 2  # in float64 of any
    for condition, tolerance in cases:
        with jax.enable_x64(is_wide):
            matrices, targets, starts = rotated(count, n, condition, dtype, scale)
        for again in range(1 if is_wide or n != 5 else 2):
            with jax.enable_x64(is_wide):
                solutions = solve_one(matrices, targets, starts, jnp.full(count, tolerance, dtype))
                success = np.asarray(solutions.result == RESULTS.successful)
                ended = success | np.asarray(solutions.result == RESULTS.stagnation)
                steps = solutions.stats["num_steps"]
            assert ended.all(), (condition, steps)
            may_stagnate = condition > 1e4 or again
            assert success.all() or (may_stagnate and success.mean() >= 0.75), (condition, steps)
            error = abs(np.asarray(solutions.value - targets))
            is_near = error <= tolerance * (1 + relative * abs(np.asarray(targets)))
            assert is_near[success].all(), (condition, error)
            starts = solutions.value


@pytest.mark.parametrize(
    ("n", "apart", "tolerance"), [(5, 1e-3, 1e-3), (5, 1e-4, 1e-5), (10, 1e-2, 1e-2)]
)
def test_columns_that_are_nearly_alike(n, apart, tolerance):
    """Of least squares: one flat direction, which the first pairs do not feel."""
    random = np.random.default_rng(0)
    columns, weights = random.normal(size=(60, 50, n)), random.normal(size=(60, n))
    columns[..., -1] = columns[..., -2] + apart * random.normal(size=(60, 50))
    labels = np.einsum("crn,cn->cr", columns, weights)

    def one(x, target):
        return solve(lambda y, args: jnp.mean((x @ y - target) ** 2), np.zeros(n), *2 * [tolerance])

    solutions = jax.jit(jax.vmap(one))(columns, labels)
    success = np.asarray(solutions.result == RESULTS.successful)
    assert success.mean() > 0.9
    error = abs(solutions.value - weights) / (tolerance * (1 + abs(weights)))
    assert (error.max(1)[success] <= 1).all(), error.max(1)


def test_kinks_across_the_axes():
    """Where one holds up the weights, that is no success; where they cross at a minimum, it is."""
    random = np.random.default_rng(0)
    starts = np.tile([[0.0, 5.0], [1.0, 4.0], [3.0, -2.0]], (10, 1)) + random.normal(size=(30, 2))

    def across(y, args):
        return jnp.abs(y[0] + y[1] - 2) + 3 * jnp.abs(y[0] - y[1])

    def highest(y, args):
        return jnp.abs(y[0] - y[1]) + jnp.maximum(jnp.abs(y[0]), 2 * jnp.abs(y[1]))

    for fn, minimum in ((across, 1.0), (highest, 0.0)):
        solutions = jax.jit(jax.vmap(lambda start, fn=fn: solve(fn, start, 1e-5)))(starts)
        success = np.asarray(solutions.result == RESULTS.successful)
        ended = success | np.asarray(solutions.result == RESULTS.stagnation)
        assert ended.all()
        np.testing.assert_allclose(solutions.value[success], minimum, atol=1e-5)
    assert success.mean() > 0.9  # of the second


def test_a_run_in_a_circle_ends():
    """Where a value falls by rounding alone, and no other gain is made."""
    slopes, targets = jnp.array([1.48, 0.35]), jnp.array([0.92, -1.88])

    def fn(y, args):
        return jnp.sum(slopes * jnp.abs(y - targets))

    solution = solve(fn, jnp.array([-0.57, 0.54]), 1e-5, 1e-5)
    assert solution.stats["num_steps"] < 500


def test_few_evaluations():
    """In float64: a condition of 1e4 in ten dimensions, half of them with quartics."""
    matrices, targets, starts = rotated(8, 10, 1e4)
    quartics = jnp.array([0.0, 0.1] * 4)

    def one(matrix, target, start, quartic):
        def fn(y, args):
            z = matrix @ (y - target)
            return jnp.sum(z**2 + quartic * z**4)

        return solve(fn, start, 1e-5, 1e-5)

    solutions = eqx.filter_jit(jax.vmap(one))(matrices, targets, starts, quartics)
    assert (solutions.result == RESULTS.successful).all()
    steps = np.asarray(solutions.stats["num_steps"])
    assert np.median(steps) < 120, steps
    np.testing.assert_allclose(solutions.value, targets, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tight"), [("float32", 1e-5), ("float64", 1e-8)])
def test_a_minimum_that_is_met_at_once(dtype, tight):
    """The last step is a long one, and all that follow are lost in rounding.

    Of quadratics along the axes, and of linear regressions with two columns.
    """
    random = np.random.default_rng(2)
    columns, labels = random.normal(size=(100, 30, 2)), random.normal(size=(100, 30))
    starts = random.normal(size=(100, 2))
    along_axes = np.eye(30, 2) / random.uniform(1, 2, (100, 1, 2))

    @jax.jit
    @jax.vmap
    def solve_one(x, target, start, tolerance):
        def fn(y, args):
            return jnp.sum((x @ y - target) ** 2)

        return solve(fn, start, tolerance, tolerance)

    for x, target, start, tolerance, most in (
        (along_axes, labels * (np.arange(30) < 2), starts, tight, 60),
        (columns, labels, 0 * starts, 1e-5, 120),
    ):
        with jax.enable_x64(dtype == "float64"):
            given = x, target, start, np.full(100, tolerance)
            solutions = solve_one(*(jnp.asarray(numbers, dtype) for numbers in given))
            assert (solutions.result == RESULTS.successful).all()
            steps = np.asarray(solutions.stats["num_steps"])
        assert np.median(steps) < 40, steps
        assert steps.max() <= most, steps
        expected = (np.linalg.pinv(x) @ target[..., None])[..., 0]
        error = abs(np.asarray(solutions.value) - expected)
        assert (error <= tolerance * (1 + abs(expected))).all()


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
        solution = solve(fn, jnp.array([2.0, 1.0]), 1e-3, 1e-3, **bounds)
        jax.effects_barrier()
        points = np.array(points)
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, [targets.mean(), 0.5 * bool(bounds)], atol=1e-3)
    if bounds:
        assert (points >= [0, 0.5]).all()
    else:
        assert (points[-15:, 1] > points[-15:, 0] + 1e-4).any()


def test_each_leaf_is_pushed_by_itself():
    """Else weights that are alike would never be pushed along the valley between them."""
    points, targets = [], 0.001 * np.arange(4, dtype=np.float32)

    def fn(y, args):
        jax.debug.callback(lambda *y: points.append(y), *y)
        return sum(jnp.sum((weight - targets) ** 2) for weight in y)

    with jax.enable_x64(False):
        start = jnp.array(2.0), jnp.array(2.0)
        solution = optimistix.minimise(fn, RpropMinimiser(1e-3, 1e-3), start)
        jax.effects_barrier()
    assert solution.result == RESULTS.successful
    assert any(a != b for a, b in points)


def test_to_be_taken_back_is_no_return():
    """Where every push leaves the domain, nothing proves that there is a minimum."""
    targets = 0.001 * np.arange(4, dtype=np.float32)

    def fn(y, args):
        away = abs(y[0] - targets.mean())
        leaves = (away > 1e-5) & (away < 0.05)
        return jnp.where(leaves, jnp.nan, jnp.sum((y[0] - targets) ** 2))

    with jax.enable_x64(False):
        solution = solve(fn, jnp.array([2.0]), 1e-3, 1e-3)
    assert abs(solution.value[0] - targets.mean()) < 1e-5
    assert solution.result == RESULTS.stagnation


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


def test_a_tolerance_below_rounding_ends():
    """With a large constant, float32 losses do not tell the last steps apart."""
    with jax.enable_x64(False):
        matrices, targets, _ = rotated(1, 20, 1e4, "float32")
        solution = solve(
            lambda y, args: 1e4 + jnp.sum((matrices[0] @ (y - targets[0])) ** 2),
            jnp.zeros(20),
            1e-8,
        )
    assert solution.result != RESULTS.nonlinear_max_steps_reached


def test_pushes_with_a_long_way_back():
    """Means and deviations of normal distributions: by a push, many deviations off."""
    random = np.random.default_rng(0)
    noise, means = np.tile([-1.0, 1.0], 5), 10 ** random.uniform(1, 3, 24)
    deviations = 10 ** random.uniform(-2, 0, 24)

    def fn(y, data):
        return jnp.sum((data - y[0]) ** 2 * jnp.exp(-2 * y[1]) / 2 + y[1])

    with jax.enable_x64(False):
        fit = jax.vmap(lambda data: solve(fn, jnp.zeros(2), 1e-3, 1e-3, args=data).value)
        values = jax.jit(fit)(jnp.array(means + deviations * noise[:, None], "float32").T)
    expected = np.stack([means, np.log(deviations)], 1)
    np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("n", "rows"), [(1, 10), (12, 24), (100, 100)])
def test_memory_follows_the_number_of_weights(n, rows):
    given = {"args": None, "options": {}, "aux_struct": None, "tags": frozenset()}
    init = functools.partial(RpropMinimiser(1e-3, 1e-3).init, None, **given)
    state = jax.eval_shape(lambda y: init(y, f_struct=y[0]), jnp.zeros(n))
    assert state.rprop.sy.shape == (rows, rows)

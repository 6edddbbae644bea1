"""When it stops, what success promises, and what is refused."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser

# One that never rests, one that does, one that undoes.
RULES = ("rprop_minus", "irprop_minus", "irprop_plus")
UNDO = ("rprop_plus", "irprop_plus")  # these have no momentum


def solve(fn, start, tolerance=1e-6, max_steps=1000, args=None, **options):
    if options.get("rule") in UNDO:
        options["momentum"] = None
    solver = RpropMinimiser(0.0, tolerance, **options)
    start = jnp.asarray(start)
    return optimistix.minimise(fn, solver, start, args, max_steps=max_steps, throw=False)


def batch(rows):
    """Numbers to solve for side by side, in one program: an array for each column of the rows."""
    return jnp.array(list(rows)).T


def assert_successful(solutions, *columns):
    failed = np.array(columns).T[solutions.result != RESULTS.successful]
    assert not failed.size, f"no success with {failed}"


@pytest.mark.parametrize("rule", RULES)
def test_each_weight_is_within_the_tolerance(rule):
    target = np.random.default_rng(0).normal(scale=5, size=30)
    curvature = np.logspace(-6, 6, 30)

    def solve_with(tolerance, first):
        return solve(
            lambda y, args: jnp.sum(curvature * (y - target) ** 2),
            np.zeros(30),
            tolerance,
            1000,
            rule=rule,
            learning_rate=first,
        )

    tolerances, firsts = batch(itertools.product([1e-2, 1e-6, 1e-12], [0.1, 1.0, 1e3]))
    solutions = eqx.filter_vmap(solve_with)(tolerances, firsts)
    assert_successful(solutions, tolerances, firsts)
    for value, tolerance, first in zip(solutions.value, tolerances, firsts, strict=True):
        np.testing.assert_allclose(value, target, atol=tolerance, err_msg=f"from {first}")


def test_kinks_are_bracketed():
    solution = solve(lambda y, args: jnp.sum(jnp.abs(y - 0.123)), np.array([2.0, -1.0, 0.5]))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, 0.123, atol=1e-6)


def test_large_weights_do_not_run_into_a_ceiling():
    solution = solve(lambda y, args: jnp.sum((y - 5e4) ** 2), np.zeros(2))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, 5e4, atol=1e-6)
    assert solution.stats["num_steps"] < 400  # 690 with max_step_size=50


@pytest.mark.parametrize("rule", RULES)
def test_in_a_box(rule):
    """Inside, on a bound, and with the minimum outside: then exactly on the bound."""

    def solve_for(target, first):
        return solve(
            lambda y, args: (y - args) ** 2,
            0.5,
            args=target,
            lower=0.0,
            upper=1.0,
            learning_rate=first,
            rule=rule,
        )

    targets, firsts = batch(itertools.product([0.3, 1.0, 0.0, 7.0, -7.0], [0.01, 2.0, 1e3]))
    solutions = eqx.filter_vmap(solve_for)(targets, firsts)
    assert_successful(solutions, targets, firsts)
    value, nearest = solutions.value, np.clip(targets, 0, 1)
    assert ((value >= 0) & (value <= 1)).all()
    np.testing.assert_allclose(value, nearest, atol=1e-6)
    outside = abs(targets) > 1
    np.testing.assert_array_equal(value[outside], nearest[outside])


def test_weights_that_fn_ignores_do_not_count():
    def fn(y, args):
        return (y[0] - 1) ** 2 + jax.lax.stop_gradient(y[1]) ** 2 + 0 * y[2]

    solution = solve(fn, np.zeros(3))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.value, [1, 0, 0], atol=1e-6)


def test_no_success_where_there_is_no_minimum():
    for fn in (lambda y, args: -y, lambda y, args: -(y**3), lambda y, args: -jnp.exp(y)):
        solution = solve(fn, 1.0, max_steps=2000)
        assert solution.result == RESULTS.nonlinear_max_steps_reached


def test_steps_that_run_out_are_an_error():
    def fn(y, args):
        return (y - 1) ** 2

    with pytest.raises(Exception, match="maximum number of steps"):
        optimistix.minimise(fn, RpropMinimiser(1e-6, 1e-6), jnp.array(0.0), max_steps=10)


@pytest.mark.parametrize("rule", [*RULES, "rprop_plus"])
def test_steps_out_of_the_domain_come_back(rule):
    firsts = jnp.array([0.01, 2.0, 100.0])
    solutions = eqx.filter_vmap(
        lambda first: solve(
            lambda y, args: jnp.sum(y - jnp.log(y)),
            np.array([3.0, 0.4]),
            rule=rule,
            learning_rate=first,
        )
    )(firsts)
    assert_successful(solutions, firsts)
    np.testing.assert_allclose(solutions.value, 1.0, atol=1e-6)


def test_the_edge_of_the_domain_is_no_minimum():
    """The way of the first weight ends at 1; the second, at 5, must not be given up with it."""

    def fn(y, args):
        return jnp.where(y[0] > 1, jnp.nan, (y[1] - 5) ** 2 - y[0])

    solution = solve(fn, np.zeros(2), max_steps=2000)
    assert solution.result == RESULTS.nonlinear_max_steps_reached
    with_a_bound = solve(fn, np.zeros(2), upper=np.array([1.0, np.inf]))
    assert with_a_bound.result == RESULTS.successful
    np.testing.assert_allclose(with_a_bound.value, [1, 5], atol=1e-6)


def good_above_1(y, bad):
    return jnp.where(y > 1, (y - 2) ** 2, bad)


@pytest.mark.parametrize("rule", RULES)
def test_a_start_where_fn_is_not_finite(rule):
    bad = jnp.array([jnp.nan, jnp.inf, -jnp.inf])
    solutions = eqx.filter_vmap(lambda bad: solve(good_above_1, 0.0, args=bad, rule=rule))(bad)
    np.testing.assert_array_equal(solutions.result == RESULTS.nonfinite, True)


def test_a_start_where_fn_is_not_finite_is_an_error():
    """What Optimistix makes of that result, whatever the rule."""
    with pytest.raises(Exception, match="Nonfinite"):
        optimistix.minimise(
            good_above_1, RpropMinimiser(1e-6, 1e-6), jnp.array(0.0), jnp.array(jnp.nan)
        )


@pytest.mark.parametrize("learning_rate", [None, 0.1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_that_is_not_finite(learning_rate, bad):
    """Also where fn ignores that weight; of a batch, that member alone."""

    def solve_from(start):
        return solve(lambda y, args: (y[0] - 1) ** 2, start, learning_rate=learning_rate)

    solutions = jax.vmap(solve_from)(jnp.array([[0.0, 0.0], [bad, 0.0], [0.0, bad]]))
    np.testing.assert_array_equal(solutions.result == RESULTS.nonfinite, [False, True, True])
    np.testing.assert_array_equal(solutions.result == RESULTS.successful, [True, False, False])
    np.testing.assert_allclose(solutions.value[0], [1.0, 0.0], atol=1e-6)


def test_a_start_where_the_gradient_is_nan():
    solution = solve(lambda y, args: jnp.sqrt(y[0] ** 2) + y[1] ** 2, np.array([0.0, 1.0]))
    assert np.isnan(jax.grad(lambda y: jnp.sqrt(y**2))(0.0))
    assert solution.result == RESULTS.nonfinite


@pytest.mark.parametrize(
    ("tolerance", "error", "message"),
    [
        (-1e-3, ValueError, "atol=-0.001 must be a finite number at least 0: the accuracy"),
        (np.inf, ValueError, "atol=inf must be a finite number at least 0"),
        (np.nan, ValueError, "atol=nan must be a finite number at least 0"),
        ({"a": 1.0, "b": -1.0}, ValueError, r"atol\['b'\]=-1 must be a finite number at least 0"),
        ("1e-3", TypeError, "atol='1e-3' must be a real number or an array"),
        ({"a": "1e-3"}, TypeError, r"atol\['a'\]='1e-3' must be a real number"),
        (lambda step: 1e-3, TypeError, "atol=<function .* must be a real number"),
    ],
)
def test_a_tolerance_that_is_none(tolerance, error, message):
    with pytest.raises(error, match=message):
        RpropMinimiser(0.0, tolerance)


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        ({"a": 1e-3}, r"rtol has no value for parameter \['b'\]"),
        ({"c": 1e-3}, r"rtol\['c'\] belongs to no parameter"),
        ({"a": 1e-3, "b": 1e-3, "c": 1e-3}, r"rtol\['c'\] belongs to no parameter"),
        ({"a": np.ones(3), "b": 1e-3}, r"rtol\['a'\] has shape \(3,\), which does not broadcast"),
    ],
)
def test_a_tolerance_that_does_not_fit(tolerance, message):
    solver = RpropMinimiser(tolerance, 1e-3)
    start = {"a": jnp.ones(2), "b": jnp.ones(())}
    with pytest.raises(ValueError, match=message):
        optimistix.minimise(lambda y, args: y["b"] ** 2, solver, start)


def test_each_weight_has_its_own_tolerance():
    """A loose one ends early: the small weight is done at once, far from where 0.1 would stop."""
    target = {"small": 3e-7, "large": jnp.array([1e5, 2e5])}

    def fn(y, args):
        return (y["small"] / 3e-7 - 1) ** 2 + jnp.sum((y["large"] / target["large"] - 1) ** 2)

    def solve_to(rtol, atol):
        start = {"small": jnp.array(1e-7), "large": jnp.array([1e4, 1e4])}
        return optimistix.minimise(
            fn,
            RpropMinimiser(rtol, atol, learning_rate={"small": 1e-8, "large": 1.0}),
            start,
            max_steps=2000,
        )

    tight = {"small": 1e-12, "large": np.array([1e-6, 1.0])}
    for rtol, atol in ((0.0, tight), (1e-5, 0.0), ({"small": 1e-5, "large": 0.0}, tight)):
        solution = solve_to(rtol, atol)
        assert solution.result == RESULTS.successful
        np.testing.assert_allclose(solution.value["small"], 3e-7, rtol=1e-5)
        np.testing.assert_allclose(solution.value["large"], target["large"], rtol=1e-5)
    loose = solve_to(0.0, {"small": 1e-12, "large": 100.0})
    assert loose.stats["num_steps"] < solution.stats["num_steps"]


@pytest.mark.parametrize(("n", "most_steps"), [(2, 1500), (10, 2500)])
def test_rosenbrock_in_time(n, most_steps):
    def rosenbrock(y, args):
        return jnp.sum(100 * (y[1:] - y[:-1] ** 2) ** 2 + (1 - y[:-1]) ** 2)

    start = jnp.tile(jnp.array([-1.2, 1.0]), n // 2)
    solution = optimistix.minimise(
        rosenbrock, RpropMinimiser(1e-6, 1e-6), start, max_steps=most_steps
    )
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
    with pytest.raises(ValueError, match=r"[Rr]everse-mode"):
        optimistix.minimise(loss, solver, start, max_steps=1000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lower": 0.0}, r"unknown key 'lower'.*Bounds.*RpropMinimiser\(\.\.\., lower=0\.0\)"),
        ({"autodiff_mode": "forward"}, r"options\['autodiff_mode'\]='forward' must be 'bwd' or"),
    ],
)
def test_unknown_options(options, message):
    with pytest.raises(ValueError, match=message):
        optimistix.minimise(
            lambda y, args: y**2, RpropMinimiser(1e-3, 1e-3), jnp.array(1.0), options=options
        )


@pytest.mark.parametrize(
    "fn",
    [
        lambda y, args: jnp.sum((y - args * np.float32(1 + 1e-7)) ** 4),
        lambda y, args: jnp.sum(jnp.where(y > args, y - args, args - y)),
    ],
    ids=["flat", "never without a slope"],
)
def test_a_tolerance_below_rounding_is_met_as_far_as_the_type_goes(fn):
    """Near 1e4, float32 numbers are 1e-3 apart; beside them a small weight is as accurate."""
    target = np.append(np.linspace(1e4, 2e4, 20), 1e-3).astype("float32")
    with jax.enable_x64(False):
        solution = solve(
            lambda y, args: fn(y, target), np.full(21, 1.0, "float32"), 1e-9, max_steps=1000
        )
        assert solution.result == RESULTS.successful
        np.testing.assert_allclose(solution.value, target, rtol=1e-5)


@pytest.mark.parametrize("kind", [int, np.int64, np.array], ids=lambda kind: kind.__name__)
def test_integers_beyond_32_bits(kind):
    with jax.enable_x64(False):
        solver = RpropMinimiser(0, kind(2**40), lower=kind(-5 * 10**9), max_step_size=kind(2**31))
        optimistix.minimise(lambda y, args: y**2, solver, jnp.float32(1.0), throw=False)
        low = RpropMinimiser(1e-3, 1e-3, upper=kind(-5 * 10**9))
        with pytest.raises(Exception, match="y0 must lie between"):
            optimistix.minimise(lambda y, args: y**2, low, jnp.float32(-4e9))


@pytest.mark.parametrize("start", [-0.1, 1.1, [0.5, 7.0]])
def test_start_outside_the_box(start):
    with pytest.raises(Exception, match="y0 must lie between lower and upper"):
        solve(lambda y, args: jnp.sum(y**2), start, lower=0.0, upper=1.0)


def test_the_leaf_that_starts_outside_the_box_is_named():
    start = {"a": None, "b": jnp.zeros(()), "c": jnp.zeros(()), "d": jnp.zeros(())}
    solver = RpropMinimiser(1e-6, 1e-6, lower={"c": 1.0, "d": 1.0})
    with pytest.raises(
        Exception, match=r"y0\['c'\] must lie .*: jnp\.clip\(y0\['c'\], lower, upper\)"
    ):
        optimistix.minimise(lambda y, args: y["b"] ** 2 + y["c"] + y["d"], solver, start)


@pytest.mark.parametrize("name", ["learning_rate", "max_step_size"])
@pytest.mark.parametrize("size", [2.0**-20, 1e-8, jnp.array([1.0, 2.0**-20])])
def test_step_sizes_that_would_count_as_done_at_the_start(name, size):
    """OptaxMinimiser would call such a start a success."""
    with pytest.raises(Exception, match=r"learning_rate and max_step_size must be above \(rtol"):
        solve(lambda y, args: jnp.sum(y**2), np.ones(2), tolerance=2.0**-4, **{name: size})


def test_a_first_step_that_rounding_loses():
    with jax.enable_x64(False), pytest.raises(Exception, match=r"rounding of y0, 2\.4e-07 \* abs"):
        solve(lambda y, args: jnp.sum(y**2), np.float32([1e4, 1.0]), learning_rate=1e-3)


def test_a_tolerance_of_nan_that_is_traced():
    def minimise(tolerance):
        return solve(lambda y, args: y**2, 1.0, tolerance=tolerance).value

    with pytest.raises(Exception, match=r"must be above \(rtol"):
        jax.jit(minimise)(jnp.nan)


def test_the_default_first_step_has_the_scale_of_the_start():
    """A thousandth of it, and 1e-5: where the second evaluation is."""
    start = np.array([1e3, -1.0, 0.0])
    solution = solve(lambda y, args: jnp.sum((y - 7) ** 2), start, max_steps=2)
    # To float64's rounding: the literals are decimal.
    np.testing.assert_allclose(solution.value, [998.99999, -0.99899, 1e-5], rtol=1e-14)


@pytest.mark.parametrize("learning_rate", [None, 1e-3])
def test_a_ceiling_below_the_default_first_step(learning_rate):
    solution = solve(
        lambda y, args: jnp.sum((y - 1) ** 2),
        np.array([3.0, 1.5]),
        max_steps=4000,
        learning_rate=learning_rate,
        max_step_size=1e-3,
    )
    assert solution.result == RESULTS.successful
    assert solution.stats["num_steps"] > 600  # a move is at most three times as long
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta_minus": 1.5}, "eta_minus"),
        ({"max_step_size": 2.0**32}, "max_step_size"),
        ({"rule": "Rprop"}, "rule='Rprop' is unknown; use one of .*'irprop_minus'.*'rprop'"),
        ({"rule": "irprop_plus"}, "needs a rule that undoes no step.* or momentum=None"),
        ({"lower": 1.0, "upper": 0.0}, "lower"),
        ({"learning_rate": 1e3, "max_step_size": 50.0}, "learning_rate"),
    ],
)
def test_options_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        RpropMinimiser(1e-6, 1e-6, **options)

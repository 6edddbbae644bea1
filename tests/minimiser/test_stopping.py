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


def solve(fn, start, tolerance=1e-6, max_steps=256, args=None, **options):
    solver = RpropMinimiser(tolerance, **options)
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
        optimistix.minimise(fn, RpropMinimiser(1e-6), jnp.array(0.0), max_steps=10)


@pytest.mark.parametrize("rule", ["rprop_plus", "irprop_plus"])
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
        optimistix.minimise(good_above_1, RpropMinimiser(1e-6), jnp.array(0.0), jnp.array(jnp.nan))


@pytest.mark.parametrize("rule", ["rprop_minus", "irprop_minus", "shark_irprop_minus"])
def test_rules_that_undo_nothing_end_where_fn_is_not_finite(rule):
    solution = solve(
        lambda y, args: jnp.sum(y - jnp.log(y)), np.full(2, 3.0), rule=rule, learning_rate=3.0
    )
    assert solution.result == RESULTS.nonfinite
    assert solution.stats["num_steps"] == 2


def test_a_start_where_the_gradient_is_nan():
    """It cannot move, and says no success."""
    solution = solve(lambda y, args: jnp.sqrt(y[0] ** 2) + y[1] ** 2, np.array([0.0, 1.0]))
    assert np.isnan(jax.grad(lambda y: jnp.sqrt(y**2))(0.0))
    assert solution.result == RESULTS.nonlinear_max_steps_reached


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, float("nan")])
def test_tolerance_must_be_above_0(tolerance):
    with pytest.raises(ValueError, match=r"tolerance=.* must be above 0"):
        RpropMinimiser(tolerance)


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


@pytest.mark.parametrize("start", [-0.1, 1.1, [0.5, 7.0]])
def test_start_outside_the_box(start):
    with pytest.raises(Exception, match="y0 must lie between lower and upper"):
        solve(lambda y, args: jnp.sum(y**2), start, lower=0.0, upper=1.0)


@pytest.mark.parametrize("name", ["learning_rate", "max_step_size"])
@pytest.mark.parametrize("size", [2.0**-14, 1e-7, jnp.array([1.0, 2.0**-14])])
def test_step_sizes_that_would_count_as_done_at_the_start(name, size):
    """OptaxMinimiser would call such a start a success."""
    with pytest.raises(Exception, match="learning_rate and max_step_size must be above tolerance"):
        solve(lambda y, args: jnp.sum(y**2), np.ones(2), tolerance=2.0**-4, **{name: size})


def test_a_tolerance_of_nan_that_is_traced():
    with pytest.raises(Exception, match="must be above tolerance"):
        solve(lambda y, args: y**2, 1.0, tolerance=jnp.array(jnp.nan))


def test_the_default_first_step_has_the_scale_of_the_start():
    """A hundredth of it, and 1e-4: where the second evaluation is."""
    start = np.array([1e3, -1.0, 0.0])
    solution = solve(lambda y, args: jnp.sum((y - 7) ** 2), start, max_steps=2)
    # To float64's rounding: the literals are decimal.
    np.testing.assert_allclose(solution.value, [989.9999, -0.9899, 0.0001], rtol=1e-15)


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
    assert solution.stats["num_steps"] > 2000
    np.testing.assert_allclose(solution.value, 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta_minus": 1.5}, "eta_minus"),
        ({"max_step_size": 2.0**32}, "max_step_size"),
        ({"rule": "rprop"}, "rprop"),
        ({"lower": 1.0, "upper": 0.0}, "lower"),
        ({"learning_rate": 1e3, "max_step_size": 50.0}, "learning_rate"),
    ],
)
def test_options_are_refused_at_construction(options, message):
    with pytest.raises((KeyError, ValueError), match=message):
        RpropMinimiser(1e-6, **options)

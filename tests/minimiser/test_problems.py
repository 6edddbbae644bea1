"""Problems whose ends are known: two weights, from Optimistix's tests, from Hock & Schittkowski."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser

COLUMNS = np.random.default_rng(0).normal(size=(20, 2))
LABELS = np.sign(COLUMNS[:, 0] - COLUMNS[:, 1])


class Problem(NamedTuple):
    """Of two weights."""

    fn: Callable
    start: list
    result: Any  # STUCK for anything but success; None at an edge, where both are right
    value: list | None = None  # where all is well
    atol: float = 1e-6  # of the solver and of the value
    rtol: float = 0.0
    also: Callable = lambda solution: True  # what must hold besides


def beale(y):
    powers = enumerate((1.5, 2.25, 2.625), 1)
    return sum((c - y[0] + y[0] * y[1] ** k) ** 2 for k, c in powers)


def rosenbrock(y):
    return 100 * (y[1] - y[0] ** 2) ** 2 + (1 - y[0]) ** 2


def bowl_above_1(bad):
    return lambda y: jnp.where(y[0] > 1, (y[0] - 2) ** 2 + y[1] ** 2, bad)


def to_the_edge(edge):
    """The minimum is at the edge, at [3, 0]."""
    return lambda y: (y[0] - 3) ** 2 + y[1] + edge(y)


DONE, STUCK, BAD = RESULTS.successful, RESULTS.stagnation, RESULTS.nonfinite
PROBLEMS = {
    "kinks": Problem(lambda y: jnp.sum(abs(y - 0.123)), [2.0, -1.0], DONE, [0.123, 0.123]),
    "a weight that fn ignores": Problem(
        lambda y: (y[0] - 1) ** 2 + 0 * y[1], [0.0, 0.0], DONE, [1.0, 0.0]
    ),
    "a weight without gradient": Problem(
        lambda y: (y[0] - 1) ** 2 + jax.lax.stop_gradient(y[1]) ** 2, [0.0, 2.0], DONE, [1.0, 2.0]
    ),
    "rosenbrock": Problem(rosenbrock, [-1.2, 1.0], DONE, [1.0, 1.0]),
    "beale": Problem(beale, [2.0, 0.0], DONE, [3.0, 0.5], 1e-8),
    "below zero": Problem(lambda y: jnp.sum(y**2) - 1, [1.0, 0.5], DONE, [0.0, 0.0], 1e-8),
    "at the minimum": Problem(
        lambda y: (y[0] - 3) ** 2 + (y[1] + 1) ** 2,
        *([3.0, -1.0], DONE, [3.0, -1.0]),
        also=lambda end: end.stats["num_steps"] <= 2 and end.value.tolist() == [3.0, -1.0],
    ),
    "out of the domain": Problem(lambda y: jnp.sum(y - jnp.log(y)), [3.0, 0.4], DONE, [1.0, 1.0]),
    "far out of it": Problem(lambda y: jnp.sum(y - jnp.log(y)), [100.0, 1e-3], DONE, [1.0, 1.0]),
    # The way of the first weight ends at 1, at whose edge the second is not called done.
    "an edge is no minimum": Problem(
        lambda y: jnp.where(y[0] > 1, jnp.nan, (y[1] - 5) ** 2 - y[0]), [0.0, 0.0], STUCK
    ),
    # Far away, all steps of Rprop are small beside the tolerance; but no gradient changes sign.
    "a slope": Problem(lambda y: -jnp.sum(y), [1.0, 1.0], STUCK, None, 1e-5, 1e-5),
    "a saddle": Problem(lambda y: y[0] ** 2 - y[1] ** 2, [1.0, 2.0], STUCK, None, 1e-5, 1e-5),
    "an exponential": Problem(lambda y: -jnp.sum(jnp.exp(y)), [1.0, 1.0], STUCK),
    # The minimum is at infinity, where the loss is flat.
    "a weight runs away": Problem(
        lambda y: 1 + 1 / (1 + y[0] ** 2) + (y[1] - 1) ** 2,
        *([1.0, 0.0], STUCK, None, 1e-3, 1e-3),
        lambda end: (
            end.stats["num_steps"] < 500 and end.value[0] > 1e3 and abs(end.value[1] - 1) <= 1e-3
        ),
    ),
    # A logistic regression of classes that a line separates.
    "falls for ever": Problem(
        lambda y: jnp.logaddexp(0, -LABELS.astype(y.dtype) * (COLUMNS.astype(y.dtype) @ y)).mean(),
        *([0.1, 0.1], STUCK, None, 1e-5, 1e-5),
        lambda end: end.state.f < 1e-9,
    ),
    **{
        f"starts at {bad}": Problem(bowl_above_1(bad), [0.0, 0.0], BAD)
        for bad in (np.nan, np.inf, -np.inf)
    },
    # Also of the weight that fn ignores.
    **{
        f"starts from {start}": Problem(lambda y: (y[0] - 1) ** 2, start, BAD)
        for bad in (np.nan, np.inf)
        for start in ([bad, 0.0], [0.0, bad])
    },
    # A pair across it makes all steps far too short.
    "behind a wall": Problem(
        lambda y: jnp.sum(jnp.exp(-50 * (y - 1)) + y / 20),
        *([30.0, 30.0], DONE, [1 + np.log(1000) / 50] * 2),
    ),
    "starts at an infinite gradient": Problem(
        lambda y: jnp.sum((jnp.sqrt(y) - 2) ** 2), [0.0, 1.0], BAD
    ),
    "starts without a gradient": Problem(
        lambda y: jnp.sqrt(y[0] ** 2) + y[1] ** 2, [0.0, 1.0], BAD
    ),
    # Step sizes that an edge made small are no success.
    "an edge with a gradient of one": Problem(
        to_the_edge(lambda y: y[1] ** 1.5), [1.0, 2.0], None, [3.0, 0.0], 1e-5, 1e-5
    ),
    "a steep edge": Problem(
        to_the_edge(lambda y: jnp.sqrt(y[1])), [1.0, 2.0], None, [3.0, 0.0], 1e-5, 1e-5
    ),
    "an edge with gradients of both": Problem(
        to_the_edge(lambda y: 0 * jnp.log(y[1] * (1 + y[0]))),
        *([1.0, 2.0], None, [3.0, 0.0], 1e-5, 1e-5),
    ),
}


def any_problem(y, args):
    """All of them in one function: one program."""
    return jax.lax.switch(args, [problem.fn for problem in PROBLEMS.values()], y)


@jax.jit
def run(number, start, rtol, atol):
    solver = RpropMinimiser(rtol, atol)
    return optimistix.minimise(any_problem, solver, start, number, max_steps=2000, throw=False)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_weights(dtype):
    for number, (name, problem) in enumerate(PROBLEMS.items()):
        in_both = "edge" in name or name in ("falls for ever", "kinks")
        if dtype == "float32" and not in_both:
            continue
        with jax.enable_x64(dtype == "float64"):
            start = jnp.asarray(problem.start, dtype)
            solution = run(number, start, problem.rtol, problem.atol)
        is_done = solution.result == DONE
        if problem.result is STUCK:
            assert not is_done, name
        elif problem.result is not None:
            assert solution.result == problem.result, name
        if is_done:
            accuracy = {"rtol": problem.rtol, "atol": problem.atol}
            np.testing.assert_allclose(solution.value, problem.value, **accuracy, err_msg=name)
        assert problem.also(solution), name


# Hock & Schittkowski 1981: function, start, lower, upper, minimum and where it is. At the minimum
# of 45 all upper bounds are active.
HOCK_SCHITTKOWSKI = {
    45: (
        lambda x: 2 - jnp.prod(x) / 120,
        *([0.5] * 5, [0.0] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]),
        *(1.0, [1.0, 2.0, 3.0, 4.0, 5.0]),
    ),
    110: (
        lambda x: jnp.sum(jnp.log(x - 2) ** 2 + jnp.log(10 - x) ** 2) - jnp.prod(x) ** 0.2,
        *([9.0] * 10, [2.001] * 10, [9.999] * 10),
        *(-45.77846971, [9.350266] * 10),
    ),
}


@pytest.mark.parametrize("number", HOCK_SCHITTKOWSKI)
def test_bounded(number):
    fn, start, *given, minimum, place = HOCK_SCHITTKOWSKI[number]
    lower, upper, place = map(np.array, (*given, place))
    solver = RpropMinimiser(1e-7, 1e-7, lower=lower, upper=upper)
    start = jnp.array(start)
    value = optimistix.minimise(lambda x, args: fn(x), solver, start, max_steps=20_000).value
    assert np.all((value >= lower) & (value <= upper))
    np.testing.assert_allclose(fn(value), minimum, atol=1e-7)
    np.testing.assert_allclose(value, place, atol=1e-5)
    np.testing.assert_array_equal(value[place == upper], upper[place == upper])


def test_a_bound_beyond_32_bits():
    solver = RpropMinimiser(1e-4, 1e-4, upper=np.array([3 * 10**9]))
    solution = optimistix.minimise(lambda y, args: jnp.sum((y - 7) ** 2), solver, jnp.array([5.0]))
    np.testing.assert_allclose(solution.value, 7, rtol=1e-4)

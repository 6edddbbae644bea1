"""Momentum with a step size of its own: against a slow reference, by hand, and at its work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import lbfgs, reference_momentum, streams
from optax_rprop import _momentum

MAKE = optax_rprop.rprop_momentum
TIGHT = {
    "learning_rate": 0.3,
    "eta_minus": 0.7,
    "eta_plus": 1.5,
    "min_step_size": 0.1,
    "max_step_size": 1.5,
    "momentum": 0.5,
}
# So small a largest step size that averages meet it, also where a move is cut.
BOX = {"learning_rate": 0.2, "max_step_size": 0.5, "lower": -3.5, "upper": 3.2}
# Between 2 and 4, one subtraction brings a weight back to the bit, however steps were rounded.
DOMAIN = {"learning_rate": 0.05, "undo_nonfinite": True, "lower": 2.0, "upper": 3.9}


def path(optimizer, params, gradients, losses=None):
    """Weights, step sizes, signs, averages and factors after each step, in one scan.

    As the reference's, averages are of what is added to the weights.
    """

    losses = np.zeros(len(gradients)) if losses is None else losses
    rows = jnp.asarray(losses, float), gradients
    weights, states = streams.trace(optimizer, params, lambda _, row: row, rows)
    sizes, signs = optax_rprop.step_sizes(states), optax_rprop.prev_signs(states)
    average = jax.tree.map(jnp.negative, states[0].average)
    return jax.device_get((weights, sizes, signs, average, states[0].factor))


def assert_follows(found, expected, rounding):
    """Factors, signs and step sizes are those of the reference; the rest but for rounding.

    XLA may round a product and a sum at once, and the move comes from the new average: a few
    units in the last place in each step, of the largest number that a weight has had.
    """
    np.testing.assert_array_equal(found[4], expected[4])
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_allclose(found[1].astype(float), expected[1].astype(float), rtol=rounding)
    for part in (0, 3):
        got, wanted = found[part].astype(float), expected[part].astype(float)
        largest = np.maximum.accumulate(np.abs(expected[0].astype(float)).max(1))[:, None]
        assert (np.abs(got - wanted) <= rounding * largest).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "step_dtype", "given", "rounding"),
    [
        ("float32", None, {}, 1e-5),
        ("float32", None, TIGHT, 1e-5),
        ("float64", None, {"momentum": 0.75}, 1e-13),
        ("float64", None, BOX, 1e-13),
        ("float64", None, DOMAIN, 1e-13),
        ("bfloat16", None, TIGHT, 2e-2),
        ("float16", None, TIGHT, 1e-2),
        ("float32", "bfloat16", TIGHT, 1e-2),
    ],
)
def test_follows_the_reference(dtype, step_dtype, given, rounding):
    gradients = streams.gradients(300, 24, jnp.dtype(dtype), (-3, 3), special=False)
    gradients[::11, 3], gradients[5::29, 4], gradients[7::13, 7] = np.nan, np.inf, 0
    losses = np.where(np.arange(300) % 37 == 36, np.inf, 1.0)
    low, high = (2.1, 3.8) if given is DOMAIN else (-3, 3)
    values = np.linspace(low, high, 24).astype(gradients.dtype)
    expected = reference_momentum.run(values, gradients, losses, step_dtype=step_dtype, **given)
    found = path(MAKE(step_dtype=step_dtype, **given), jnp.asarray(values), gradients, losses)
    assert_follows(found, expected, rounding)
    assert len(set(expected[4])) > 3


@pytest.mark.parametrize("rule", ["irprop_minus", "rprop_minus", "shark_irprop_minus"])
def test_without_a_slope_it_is_the_rule(rule):
    """At first, and wherever a gradient that is not finite leaves none: the same bits."""
    gradients = streams.gradients(200, 8, np.float32, (-3, 3))
    gradients[1:, 5] = np.resize([np.nan, np.inf], 199)
    rule_alone = streams.make(rule)(0.1)
    plain = streams.run(rule_alone, jnp.ones(8), gradients)
    transformation = optax_rprop.scale_by_rprop(0.1, rule=rule, momentum=0.8)
    found = path(optax.chain(transformation, optax.scale(-1)), jnp.ones(8), gradients)
    for got, wanted in zip(found, plain, strict=False):
        streams.assert_same_bits(got, wanted)
    np.testing.assert_array_equal(found[4], 1 / 16)


def nan_now_and_then(scale, dtype, period):
    """Weights on a quadratic of that scale; a fifth has a NaN once in a period."""
    # Small weights on a steep one: the slopes are far smaller than the gradients.
    hessian = jnp.asarray(2.0**16 * lbfgs.rotated(1000, 4), dtype)

    def loss_and_gradient(params, count):
        gradient = hessian @ params[:4] * jnp.asarray(scale, dtype)
        fifth = jnp.where(count % period == period - 1, jnp.nan, 0).astype(dtype)
        return 0.0, jnp.append(gradient, fifth)

    start = jnp.full(5, 2.0**-16, dtype)
    path, states = streams.trace(MAKE(), start, loss_and_gradient, jnp.arange(500))
    return jax.device_get((2.0**16 * path, states[0]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "power", "period"), [("float32", 20, 2), ("float32", 100, 10), ("float64", 660, 10)]
)
def test_no_scale_of_the_loss_matters(dtype, power, period):
    """To the bit for powers of two; also after a NaN, without momentum in that step alone."""
    plain, along = nan_now_and_then(1.0, dtype, period)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((plain, along)))
    before, after = along.factor[period - 2 :: period], along.factor[period - 1 :: period]
    np.testing.assert_array_equal(before, after)
    assert along.factor.max() == 2
    assert np.abs(plain[-1, :4]).max() < 1e-4
    for scale in (2.0**-power, 2.0**power):
        scaled, _ = nan_now_and_then(scale, dtype, period)
        streams.assert_same_bits(scaled[:200], plain[:200])


@pytest.mark.parametrize(
    ("slope", "factor", "next_factor", "scale", "next_scale"),
    [
        (1.0, 0.25, 0.5, 1.0, 1.0),
        (1.0, 2.0, 2.0, 1.0, 1.0),  # its greatest
        (-1.0, 2.0**-10, 2.0**-10, 1.0, 1.0),  # its least
        (2.0**31, 0.25, 0.5, 1.0, 1.0),
        (-(2.0**31), 0.25, 0.125, 1.0, 1.0),
        (2.0**33, 0.25, 0.5, 1.0, 2.0**-32),  # near overflow
        (-(2.0**33), 0.25, 0.125, 2.0**64, 2.0**32),
        (2.0**-31, 0.25, 0.5, 1.0, 1.0),
        (2.0**-33, 0.25, 0.5, 1.0, 2.0**32),  # near underflow
        (0.0, 0.25, 0.25, 2.0**16, 2.0**32),
        (np.inf, 0.25, 0.25, 2.0**96, 2.0**32),
        (np.nan, 0.25, 0.25, 2.0**96, 2.0**32),
        (np.inf, 0.25, 0.25, 2.0**-16, 2.0**-32),  # its least
        (2.0**-40, 0.25, 0.5, 2.0**80, 2.0**96),  # its greatest
    ],
)
def test_a_slope_moves_the_factor_and_the_scale(slope, factor, next_factor, scale, next_scale):
    """Beside a slope, the scale that it was summed with, which keeps the next one in range."""
    numbers = (jnp.float32(number) for number in (slope, factor, scale))
    coefficient = next_factor if 0 < slope < np.inf else 0
    assert _momentum.adapt(*numbers) == (coefficient, next_factor, next_scale)


def test_slopes_are_summed_in_float32():
    """Of 1,000 products of 6,000, which in float16 is more than there is."""
    params = jnp.ones(1000, jnp.float16)
    found = path(MAKE(0.1), params, np.full((2, 1000), 60_000, np.float16))
    np.testing.assert_array_equal(found[4], np.float32([1 / 16, 1 / 8]))
    for dtype in (jnp.float16, jnp.bfloat16):
        along = MAKE().init(params.astype(dtype))[0]
        assert along.factor.dtype == along.slope_scale.dtype == jnp.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_follows_the_reference_from_a_bound(dtype):
    """Outwards, to and fro, and in; the largest step size counts there as well."""
    gradients = np.ones((24, 4))
    gradients[5:, 1] = gradients[15:, 2] = gradients[2:4, 3] = -1
    values = np.zeros(4, jnp.dtype(dtype))
    for largest in (2.0**31, 0.05):
        given = {"lower": 0.0, "max_step_size": largest}
        expected = reference_momentum.run(values, gradients.astype(values.dtype), **given)
        found = path(MAKE(**given), jnp.asarray(values), gradients.astype(values.dtype))
        rounding = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
        np.testing.assert_array_equal(found[2], expected[2])
        for part in (0, 1, 3):
            got, wanted = (np.asarray(its[part], float) for its in (found, expected))
            np.testing.assert_allclose(got, wanted, rtol=rounding, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_converged_waits_for_the_average(dtype):
    optimizer = MAKE(0.01, undo_nonfinite=True)
    params = jnp.zeros(2, dtype)
    state = optimizer.update(params + 1, optimizer.init(params), params)[1]
    for average, done in ((1.0, False), (0.1, True), (-1.0, False)):
        average, factor = jnp.array([0.0, average], dtype), jnp.float32(0.25)
        own = state[0]._replace(average=average, factor=factor)
        assert optax_rprop.converged((own,), 0.1) == done


def test_at_rest_on_a_bound():
    """A weight without a gradient, which momentum alone pushes there, does not delay the end."""
    rows = np.zeros(80, np.float32), np.float32([[1, 1]] * 20 + [[0, 1]] * 60)
    optimizer = MAKE(0.1, lower=np.float32([0.9, -1e9]))
    _, states = streams.trace(optimizer, jnp.ones(2), lambda _, row: row, rows)
    state = jax.tree.map(lambda leaf: leaf[-1], states)
    first = jax.tree.map(lambda leaf: leaf[:1] if jnp.shape(leaf) else leaf, state)
    assert state[0].average[0] > 0
    assert optax_rprop.converged(first, 1e-3)
    assert not optax_rprop.converged(state, 1e-3)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


SCALES, NARROW = 10.0 ** np.arange(-6, 7), lbfgs.rotated(1e4, 10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "start", "end", "evaluations"),
    [
        (rosenbrock, [-1.2, 1.0], 1.0, 1200),
        (rosenbrock, [-1.2] * 10, 1.0, 1200),
        (lambda x: x @ NARROW @ x, [1.0] * 10, 0.0, 4000),
        (lambda x: jnp.sum(((x - 3 * SCALES) / SCALES) ** 2), SCALES, 3 * SCALES, 180),
    ],
    ids=["Rosenbrock", "ten-dimensional", "quadratic", "thirteen scales"],
)
def test_narrow_valleys(loss, start, end, evaluations):
    """Within 1e-5 of the minimum, without arguments, and `converged` in the end."""
    loss_and_gradient, rows = jax.value_and_grad(lambda x, _: loss(x)), jnp.arange(15_000)
    path, states = streams.trace(MAKE(), jnp.array(start), loss_and_gradient, rows)
    done = jax.vmap(lambda state: optax_rprop.converged(state, 1e-9))(states)
    assert done.any()
    path, end = np.asarray(path), np.asarray(end)
    is_far = np.any(abs(path - end) > 1e-5 * np.maximum(1, abs(end)), axis=1)
    assert not is_far[evaluations - 1 : done.argmax()].any()


def test_an_average_in_bfloat16_decays():
    optimizer = optax_rprop.scale_by_rprop(1.0, momentum=0.999, step_dtype="bfloat16")
    state = optimizer.init(jnp.zeros(1))
    state = state._replace(average=jnp.ones(1, jnp.bfloat16))
    update = jax.jit(optimizer.update)
    for _ in range(1000):
        state = update(jnp.zeros(1), state)[1]
    assert 0 < state.average < 0.01


def test_a_decay_that_no_step_can_use():
    """One that rounds to 1 still decays, as much as its type can say; a traced NaN is 0.8."""

    @jax.jit
    def path_with(momentum):
        return path(MAKE(0.1, momentum=momentum), jnp.zeros(3), jnp.ones((50, 3)))[0]

    eps = float(jnp.finfo(jnp.float32).eps)
    for momentum, used in ((1.0, 1 - eps), (2.0, 1 - eps), (0.0, eps), (-1.0, eps), (np.nan, 0.8)):
        streams.assert_same_bits(path_with(momentum), path_with(used))
    for momentum in (1 - 1e-9, jnp.float32(1)):
        found = path(MAKE(0.1, momentum=momentum), jnp.zeros(3), jnp.ones((50, 3)))[0]
        streams.assert_same_bits(found, path_with(1 - eps))

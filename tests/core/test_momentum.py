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
# Between 2 and 4, one subtraction brings a weight back to the bit, however steps were rounded.
DOMAIN = {"learning_rate": 0.05, "undo_nonfinite": True, "lower": 2.0, "upper": 3.9}


def path(optimizer, params, gradients, losses=None):
    """Weights, step sizes, signs, averages and factors after each step, in one scan.

    As the reference's, averages are of what is added to the weights.
    """

    def step(carry, given):
        params, state = carry
        gradient, loss = given
        updates, state = optimizer.update(gradient, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        own = state[0]
        sizes, signs = optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
        average = jax.tree.map(jnp.negative, own.average)
        return (params, state), (params, sizes, signs, average, own.factor)

    losses = np.zeros(len(gradients)) if losses is None else losses
    given = gradients, jnp.asarray(losses, float)
    start = params, optimizer.init(params)
    return jax.device_get(jax.jit(lambda start: jax.lax.scan(step, start, given)[1])(start))


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
        ("float64", None, {"learning_rate": 0.2, "lower": -3.5, "upper": 3.2}, 1e-13),
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


def test_first_five_moves():
    """By hand, with a decay of 1/2 and step sizes that double and halve.

    gradient  rule's step  factor    move        average
       1          1         1/16     1           1/2
       1          2         1/8      2 + 1/16    1.28125
       1          4         1/4      4.3203125   2.80078125
      -1         -2         1/8     -2           0.400390625
      -1         -2         1/16    -2          -0.7998046875
    """
    optimizer = MAKE(1.0, 0.5, 2.0, momentum=0.5)
    weights, _, _, averages, factors = path(optimizer, jnp.zeros(()), np.float32([1, 1, 1, -1, -1]))
    moves = -np.diff(weights, prepend=np.float32(0))
    np.testing.assert_allclose(moves, [1, 2.0625, 4.3203125, -2, -2], rtol=1e-6)
    found = [0.5, 1.28125, 2.80078125, 0.400390625, -0.7998046875]
    np.testing.assert_allclose(-averages, found, rtol=1e-6)
    np.testing.assert_array_equal(factors, [1 / 16, 1 / 8, 1 / 4, 1 / 8, 1 / 16])


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
    hessian, optimizer = jnp.asarray(2.0**16 * lbfgs.rotated(1000, 4), dtype), MAKE()

    def step(carry, count):
        params, state = carry
        gradient = hessian @ params[:4] * jnp.asarray(scale, dtype)
        fifth = jnp.where(count % period == period - 1, jnp.nan, 0).astype(dtype)
        updates, state = optimizer.update(jnp.append(gradient, fifth), state)
        params = optax.apply_updates(params, updates)
        return (params, state), (2.0**16 * params, state[0])

    params = jnp.full(5, 2.0**-16, dtype)
    _, trace = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(500))
    return jax.device_get(trace)


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


@pytest.mark.parametrize("largest", [2.0**31, 0.5])
@pytest.mark.parametrize("bounds", [{}, {"lower": 0.0}])
def test_the_average_has_a_limit(largest, bounds):
    """Down a slope without end, and where a move is cut at the end of it."""
    params = jnp.linspace(100, 101, 20)
    optimizer = MAKE(0.25, max_step_size=largest, **bounds)
    weights, _, _, averages, _ = path(optimizer, params, np.ones((2000, 20), np.float32))
    assert np.isfinite(weights).all()
    assert np.abs(averages).max() <= largest
    assert np.abs(averages).max() == largest or bounds


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
    gradients = np.float32([[1, 1]] * 20 + [[0, 1]] * 60)
    optimizer = MAKE(0.1, lower=np.float32([0.9, -1e9]))
    params = jnp.ones(2)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = params + updates
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
    optimizer, start = MAKE(), jnp.array(start)

    def not_done(carry):
        return (carry[2] < 20_000) & ~optax_rprop.converged(carry[1], 1e-9)

    def step(carry):
        params, state, count, last = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        far = jnp.any(jnp.abs(params - end) > 1e-5 * jnp.maximum(1, jnp.abs(jnp.asarray(end))))
        return optax.apply_updates(params, updates), state, count + 1, jnp.where(far, count, last)

    carry = start, optimizer.init(start), 0, 0
    _, _, count, last_far = jax.jit(lambda c: jax.lax.while_loop(not_done, step, c))(carry)
    assert last_far < evaluations
    assert count < 20_000


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

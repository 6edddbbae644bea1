"""Momentum with a step size of its own: against a slow reference, by hand, and at its work."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_rprop
from helpers import reference_momentum, streams
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


def path(optimizer, params, gradients, steps=None):
    """Weights, step sizes, signs, averages and factors after each step, in one scan.

    `gradients` has a row for each step, or is a function of the parameters. As the reference's,
    averages are of what is added to the weights.
    """

    def step(carry, row):
        params, state = carry
        gradient = gradients(params) if callable(gradients) else row
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        along = optax.tree_utils.tree_get(state, "along")
        sizes, signs = optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
        average = jax.tree.map(jnp.negative, along.average)
        return (params, state), (params, sizes, signs, average, along.factor)

    rows = jnp.arange(steps) if callable(gradients) else gradients
    start = params, optimizer.init(params)
    return jax.device_get(jax.jit(lambda start: jax.lax.scan(step, start, rows)[1])(start))


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
    low, high = (2.1, 3.8) if given is DOMAIN else (-3, 3)
    values = np.linspace(low, high, 24).astype(gradients.dtype)
    expected = reference_momentum.run(values, gradients, step_dtype=step_dtype, **given)
    found = path(MAKE(step_dtype=step_dtype, **given), jnp.asarray(values), gradients)
    assert_follows(found, expected, rounding)
    assert len(set(expected[4])) > 3


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.usefixtures("x64")
def test_follows_the_reference_through_a_valley():
    def gradient(x):  # of one arithmetic for both, since a path amplifies what is rounded
        slope = 400 * x[0] * (x[0] ** 2 - x[1])
        return slope - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)

    start = np.array([-1.2, 1.0])
    expected = reference_momentum.run(start, lambda x: np.array(gradient(x)), steps=100)
    found = path(MAKE(), jnp.asarray(start), lambda x: jnp.stack(gradient(x)), 100)
    np.testing.assert_array_equal(found[4], expected[4])
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-9)
    assert np.abs(expected[0] - start).max() > 0.5


def test_first_five_moves():
    """By hand, with a decay of 1/2 and step sizes that double and halve.

    gradient  rule's step  factor    move        average
       1          1         1/16     1           1/2
       1          2         1/8      2 + 1/16    1.28125
       1          4         1/4      4.3203125   2.80078125
      -1          0         1/8      0           1.400390625
      -1         -2         1/16    -2          -0.2998046875
    """
    optimizer = MAKE(1.0, 0.5, 2.0, momentum=0.5)
    weights, _, _, averages, factors = path(optimizer, jnp.zeros(()), np.float32([1, 1, 1, -1, -1]))
    moves = -np.diff(weights, prepend=np.float32(0))
    np.testing.assert_allclose(moves, [1, 2.0625, 4.3203125, 0, -2], rtol=1e-6)
    found = [0.5, 1.28125, 2.80078125, 1.400390625, -0.2998046875]
    np.testing.assert_allclose(-averages, found, rtol=1e-6)
    np.testing.assert_array_equal(factors, [1 / 16, 1 / 8, 1 / 4, 1 / 8, 1 / 16])


@pytest.mark.parametrize("rule", ["irprop_minus", "rprop_minus", "shark_irprop_minus"])
def test_without_a_slope_it_is_the_rule(rule):
    """At first, and wherever a gradient that is not finite leaves none: the same bits."""
    gradients = streams.gradients(200, 8, np.float32, (-3, 3))
    gradients[1:, 5] = np.resize([np.nan, np.inf], 199)
    rule_alone = getattr(optax_rprop, rule)(0.1)
    plain = streams.run(rule_alone, jnp.ones(8), gradients)
    transformation = optax_rprop.scale_by_rprop(0.1, rule=rule, momentum=0.8)
    found = path(optax.chain(transformation, optax.scale(-1)), jnp.ones(8), gradients)
    for got, wanted in zip(found, plain, strict=False):
        streams.assert_same_bits(got, wanted)
    np.testing.assert_array_equal(found[4], 1 / 16)


def quadratic(weights, condition):
    """The matrix of a rotated one."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((weights, weights)))
    return basis @ np.diag(np.geomspace(1, condition, weights)) @ basis.T


def nan_now_and_then(scale, dtype, period):
    """Weights on a quadratic of that scale; a fifth has a NaN once in a period."""
    # Small weights on a steep one: the slopes are far smaller than the gradients.
    hessian, optimizer = jnp.asarray(2.0**16 * quadratic(4, 1000), dtype), MAKE()

    def step(carry, count):
        params, state = carry
        gradient = hessian @ params[:4] * jnp.asarray(scale, dtype)
        fifth = jnp.where(count % period == period - 1, jnp.nan, 0).astype(dtype)
        updates, state = optimizer.update(jnp.append(gradient, fifth), state)
        params = optax.apply_updates(params, updates)
        return (params, state), (2.0**16 * params, state[0].along)

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


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_any_scale_of_the_loss(scale):
    """What the gradient is multiplied by rounds it: no sign of the first steps depends on it."""
    (scaled, _), (plain, _) = (nan_now_and_then(x, "float32", 10) for x in (scale, 1.0))
    np.testing.assert_allclose(scaled[:60], plain[:60], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("slope", "scale", "next_scale"),
    [
        (1.0, 1.0, 1.0),
        (2.0**31, 1.0, 1.0),
        (-(2.0**31), 1.0, 1.0),
        (2.0**33, 1.0, 2.0**-32),  # near overflow
        (-(2.0**33), 2.0**64, 2.0**32),
        (2.0**-31, 1.0, 1.0),
        (2.0**-33, 1.0, 2.0**32),  # near underflow
        (0.0, 2.0**16, 2.0**32),
        (np.inf, 2.0**96, 2.0**32),
        (np.nan, 2.0**96, 2.0**32),
        (np.inf, 2.0**-16, 2.0**-32),  # its least
        (2.0**-40, 2.0**80, 2.0**96),  # its greatest
    ],
)
def test_the_scale_keeps_slopes_in_range(slope, scale, next_scale):
    """Beside a slope, the scale that it was summed with; a finite one moves the factor."""
    numbers = (jnp.float32(number) for number in (slope, 0.25, scale))
    coefficient, factor, found = _momentum.adapt(*numbers)
    assert found == next_scale
    sign = np.sign(slope) if np.isfinite(slope) else 0
    assert (coefficient, factor) == {1: (0.5, 0.5), -1: (0.0, 0.125), 0: (0.0, 0.25)}[sign]


def test_goes_on_after_a_slope_that_overflowed():
    """The loss becomes 1e37 times as large: one step without momentum, then it grows again."""
    optimizer = optax_rprop.rprop_momentum(1.0, momentum=0.5)
    state = optimizer.init(jnp.zeros(4))
    for step in range(8):
        _, state = optimizer.update(jnp.full(4, 1e37 if step > 2 else 1.0), state)
        factor = [1, 2, 4, 4, 8, 16, 32, 32][step] / 16
        assert state[0].along.factor == factor, step


def test_slopes_are_summed_in_float32():
    """Of 1,000 products of 6,000, which in float16 is more than there is."""
    params = jnp.ones(1000, jnp.float16)
    found = path(MAKE(0.1), params, np.full((2, 1000), 60_000, np.float16))
    np.testing.assert_array_equal(found[4], np.float32([1 / 16, 1 / 8]))
    for dtype in (jnp.float16, jnp.bfloat16):
        along = MAKE().init(params.astype(dtype))[0].along
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


@pytest.mark.parametrize("rule", ["rprop_plus", "irprop_plus"])
def test_rules_that_undo_are_refused(rule):
    message = f"momentum=0.8 needs a rule that undoes no step, and rule='{rule}' does"
    with pytest.raises(ValueError, match=message):
        optax_rprop.scale_by_rprop(rule=rule, momentum=0.8)


@pytest.mark.parametrize("wrap", [lambda made: made, optax.inject_hyperparams])
@pytest.mark.parametrize("momentum", [0.0, 1.0, np.nan])
def test_a_decay_that_is_an_array_is_read_in_init(momentum, wrap):
    optimizer = wrap(MAKE)(0.1, momentum=jnp.float32(momentum))
    with pytest.raises(ValueError, match=f"momentum={momentum:g} must be a number above 0"):
        optimizer.init(jnp.zeros(2))


def test_a_decay_that_is_traced_becomes_the_default():
    def path_with(momentum):
        return path(MAKE(0.1, momentum=momentum), jnp.zeros(3), jnp.ones((5, 3)))[0]

    for momentum in (0.0, 1.0, -1.0, np.nan):
        streams.assert_same_bits(jax.jit(path_with)(momentum), jax.jit(path_with)(0.8))


@pytest.mark.parametrize(
    ("momentum", "error", "message"),
    [
        (0.0, ValueError, "momentum=0 must be a number above 0 and below 1.*default is 0.8"),
        (1, ValueError, "momentum=1 must be a number above 0 and below 1"),
        (np.nan, ValueError, "momentum=nan must be a number above 0"),
        (np.array([0.5, 0.9]), ValueError, "momentum=.* must be one number for all parameters"),
        ("0.8", TypeError, "momentum='0.8' must be a number"),
    ],
)
def test_bad_momentum(momentum, error, message):
    with pytest.raises(error, match=message):
        MAKE(momentum=momentum)


@pytest.mark.parametrize("transform", [lambda init: init, jax.jit], ids=["eager", "jit"])
def test_first_steps_in_proportion(transform):
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), "rows")
    split = NamedSharding(mesh, PartitionSpec("rows"))
    params = {
        "sharded": jax.device_put(jnp.array([0.0, -200.0]), split),
        "complex": jnp.array([3 - 4000j, 0j]),
        "bfloat16": jnp.array([0, 8], jnp.bfloat16),
        "float16": jnp.array([1e-7, 60_000], jnp.float16),
        "number": jnp.float32(1e12),
    }
    sizes = optax_rprop.step_sizes(transform(MAKE().init)(params))
    expected = {
        "sharded": [1e-5, 0.20001],
        "complex": [0.00301 + 4.00001j, 1e-5 + 1e-5j],
        "bfloat16": [1e-5, 0.00801],
        "float16": [1e-5, 60.00001],
        "number": 1e9,
    }
    for name, wanted in expected.items():
        rtol = 1e-2 if name == "bfloat16" else 1e-4 if name == "float16" else 1e-6
        found = np.asarray(sizes[name]).astype(np.asarray(wanted).dtype)
        np.testing.assert_allclose(found, wanted, rtol=rtol)
    assert transform is jax.jit or sizes["sharded"].sharding.is_equivalent_to(split, 1)


def test_twelve_steps_are_quick():
    optimizer = MAKE()
    state, ones, sizes = optimizer.init(jnp.ones(1)), jnp.ones(1), []
    for _ in range(15):
        _, state = optimizer.update(ones, state)
        sizes.append(optax_rprop.step_sizes(state)[0])
    assert state[0].num_steps == 12
    grown = np.divide(sizes[1:], sizes[:-1])
    np.testing.assert_allclose(grown, [2.0] * 11 + [1.2] * 3, rtol=1e-6)


def released(target, pushed, **bounds):
    """How many steps bring a weight from 0 near a target, after some towards -1."""
    optimizer = MAKE(**bounds)

    def step(carry, count):
        weight, state = carry
        gradient = weight - jnp.where(count < pushed, -1, target)
        updates, state = optimizer.update(gradient, state, weight)
        return (weight + updates, state), weight + updates

    start = jnp.zeros_like(target)
    _, weights = jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(pushed + 300))
    near = np.abs(np.asarray(weights[pushed:]) / np.asarray(target) - 1) < 1e-3
    assert near.any(0).all()
    return near.argmax(0)


@pytest.mark.usefixtures("x64")
def test_a_start_on_a_bound_is_quick_too():
    """Released after the quick steps, a weight is about as fast as one that was never held."""
    targets = jnp.geomspace(1, 1000, 61)
    free, held = released(targets, 0), released(targets, 20, lower=0.0)
    assert held.mean() < 1.1 * free.mean()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_follows_the_reference_from_a_bound(dtype):
    """Outwards, to and fro, and in; the largest step size counts there as well."""
    gradients = np.ones((24, 4))
    gradients[5:, 1] = gradients[15:, 2] = gradients[2:4, 3] = -1
    values = np.zeros(4, jnp.dtype(dtype))
    for largest in (2.0**31, 1e-4):
        given = {"lower": 0.0, "max_step_size": largest}
        expected = reference_momentum.run(values, gradients.astype(values.dtype), **given)
        found = path(MAKE(**given), jnp.asarray(values), gradients.astype(values.dtype))
        rounding = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 2e-2}[dtype]
        np.testing.assert_array_equal(found[2], expected[2])
        for part in (0, 1, 3):
            got, wanted = (np.asarray(its[part], float) for its in (found, expected))
            np.testing.assert_allclose(got, wanted, rtol=rounding, atol=1e-9)
        sizes = np.asarray(expected[1], float)[:, 0]
        np.testing.assert_allclose(sizes[-1], min(1e-5 * 1.5**12, largest), rtol=0.1)


def test_converged_waits_for_the_average():
    optimizer = MAKE(0.01)
    state = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)))[1]
    for average, done in ((1.0, False), (0.1, True), (-1.0, False)):
        average, factor = jnp.array([0.0, average]), jnp.float32(0.25)
        along = state[0].along._replace(average=average, factor=factor)
        assert optax_rprop.converged((state[0]._replace(along=along),), 0.1) == done


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
    assert state[0].along.average[0] > 0
    assert optax_rprop.converged(first, 1e-3)
    assert not optax_rprop.converged(state, 1e-3)


SCALES = 10.0 ** np.arange(-6, 7)


def thirteen(x):
    return jnp.sum(((x - 3 * SCALES) / SCALES) ** 2)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "start", "end", "evaluations"),
    [
        (rosenbrock, [-1.2, 1.0], 1.0, 1200),
        (rosenbrock, [-1.2] * 10, 1.0, 1200),
        (lambda x: x @ quadratic(10, 1e4) @ x, [1.0] * 10, 0.0, 4000),
        (thirteen, SCALES, 3 * SCALES, 180),
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


@pytest.mark.usefixtures("x64")
def test_leaves_have_one_factor():
    """As one array of all: but for the order of a sum."""
    matrix = jnp.asarray(quadratic(6, 100))
    whole = path(MAKE(), jnp.ones(6), lambda x: matrix @ x, 200)

    def gradient(tree):
        rows = matrix @ jnp.concatenate([tree["a"], tree["b"].ravel()])
        return {"a": rows[:2], "b": rows[2:].reshape(2, 2)}

    leaves = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}
    split = path(MAKE(), leaves, gradient, 200)
    np.testing.assert_array_equal(split[4], whole[4])
    joined = np.concatenate([split[0]["a"], split[0]["b"].reshape(-1, 4)], axis=1)
    np.testing.assert_allclose(joined, whole[0], rtol=1e-6, atol=1e-12)


def test_converged_is_false_while_the_start_is_quick():
    """The first step size of a weight at 0 is below most tolerances."""
    optimizer = optax_rprop.rprop_momentum()
    params = jnp.zeros(2)
    state = optimizer.init(params)
    for step in range(13):
        assert bool(optax_rprop.converged(state, 1e9)) == (step == 12)
        _, state = optimizer.update(jnp.ones(2), state, params)

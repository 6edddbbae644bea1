"""At the edges: of a box, of a type's range, of a domain; and numbers that round away."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams

nan = np.nan
KINDS = [
    *((rule, None) for rule in streams.OPTIMIZERS),
    *(("irprop_minus", 0.8), ("rprop_minus", 0.8)),
]
EVERY_KIND = pytest.mark.parametrize(("rule", "momentum"), KINDS)


def make(rule="irprop_minus", momentum=None, first=1.0, **options):
    transformation = optax_rprop.scale_by_rprop(first, rule=rule, momentum=momentum, **options)
    return optax.chain(transformation, optax.scale(-1))


def run(*arguments):
    """The parameters after each step."""
    return streams.run(*arguments)[0]


@pytest.mark.usefixtures("x64")
@EVERY_KIND
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_bounds_hold_on_the_way_back(rule, momentum, dtype):
    """Many start on a bound; the way back is a difference, whose rounded sum can miss it."""
    random = np.random.default_rng(0)
    lower = (random.choice([-1, 1], 500) * 10 ** random.uniform(-3, 1, 500)).astype(dtype)
    upper = (lower.astype(float) + 10 ** random.uniform(-2, 1, 500)).astype(dtype)
    upper = np.maximum(lower, upper)
    inside = lower.astype(float) + random.random(500) * (upper - lower).astype(float)
    inside = np.clip(inside.astype(dtype), lower, upper)
    start = np.where(random.random(500) < 0.7, lower, inside).astype(dtype)
    gradients = random.choice([-1, 1], (30, 500)).astype(dtype)
    gradients[random.random((30, 500)) < 0.0005] = nan
    losses = np.where(random.random(30) < 0.3, nan, random.random(30))
    optimizer = make(rule, momentum, lower=lower, upper=upper, undo_nonfinite=True)
    path = np.asarray(run(optimizer, jnp.asarray(start), jnp.asarray(gradients), losses))
    assert ((lower <= path) & (path <= upper)).all()


def finite_point(loss, start, optimizer, steps):
    """The last point where everything was finite."""
    _, state = streams.minimize(optimizer, loss, start, steps)
    return optax.tree_utils.tree_get(state, "finite_params")


UNDOING = {
    "rprop_momentum": optax_rprop.rprop_momentum(undo_nonfinite=True),
    "irprop_minus": optax_rprop.irprop_minus(undo_nonfinite=True),
}
BOTH = pytest.mark.parametrize("optimizer", UNDOING.values(), ids=UNDOING)


@BOTH
def test_a_weight_at_an_edge_that_only_the_loss_shows(optimizer):
    """Its gradient is finite outside; the other weight goes on, in one leaf and in two."""

    def loss(x, y):
        return x + 0 * jnp.log(x) + (y - 3) ** 2

    start = jnp.array([0.3, 0.0])
    at = jax.jit(lambda: finite_point(lambda x: loss(*x), start, optimizer, 1500))()
    np.testing.assert_allclose(at, [0, 3], atol=0.05)
    at = jax.jit(lambda: finite_point(lambda x: loss(*x), (*start,), optimizer, 1500))()
    np.testing.assert_allclose(at, [0, 3], atol=0.05)


def walled(problem, x):
    """Quadratics and logarithms of them along the axes, inside walls that no gradient shows."""
    distance = (x - problem["target"]) ** 2
    curved = jnp.where(problem["is_quadratic"], distance, jnp.log1p(distance))
    across = jnp.sum(jnp.log(problem["room"] - problem["walls"] @ x))
    along = jnp.sum(jnp.log(1 - x * problem["inverse_edge"]))
    return jnp.sum(problem["curvature"] * curved) + 0 * (across + along)


def walled_problems(count, weights, walls):
    random = np.random.default_rng(0)
    shape = count, weights
    target = 3 * random.normal(size=shape)
    edge = target * random.uniform(0.05, 0.9, shape)
    has_edge = random.random(shape) < random.uniform(0.1, 0.9, (count, 1))
    return {
        "target": np.float32(target),
        "is_quadratic": random.random(shape) < 0.5,
        "curvature": np.float32(10 ** random.uniform(-2, 2, shape)),
        "inverse_edge": np.float32(np.where(has_edge, 1 / edge, 0)),
        "walls": np.float32(random.normal(size=(count, walls, weights))),
        "room": np.float32(random.uniform(0.3, 3, (count, walls))),
    }


def part_left(problem, x):
    """Of the way of each weight from 0, along its axis, to a wall or to its minimum."""

    def one(index):
        rest = problem["target"][index] - x[index]

        def is_inside(part):
            return jnp.isfinite(walled(problem, x.at[index].add(part * rest)))

        def halve(_, ends):
            middle = (ends[0] + ends[1]) / 2
            inside = is_inside(middle)
            return jnp.where(inside, middle, ends[0]), jnp.where(inside, ends[1], middle)

        free = jax.lax.fori_loop(0, 30, halve, (jnp.float32(0), jnp.float32(1)))[0]
        left = jnp.abs(jnp.where(is_inside(1.0), 1, free) * rest)
        return left / (jnp.abs(x[index]) + left)

    return jax.vmap(one)(jnp.arange(x.size))


@BOTH
@pytest.mark.parametrize(("weights", "walls"), [(5, 0), (2, 2)])
def test_every_weight_goes_as_far_as_it_can(optimizer, weights, walls):
    """Within 1% of its way; so do 1,000 problems of each kind instead of 50."""

    def run(problem):
        loss = functools.partial(walled, problem)
        start = jnp.zeros_like(problem["target"])
        return part_left(problem, finite_point(loss, start, optimizer, 1500))

    assert (jax.jit(jax.vmap(run))(walled_problems(50, weights, walls)) < 0.01).all()


@EVERY_KIND
@pytest.mark.parametrize("first", [1.0, 6e4])
def test_float16_never_becomes_infinite(rule, momentum, first):
    """From infinity no difference leads back; here the least loss is at the largest number."""

    def loss_and_gradient(x):
        return jax.value_and_grad(lambda x: -jnp.log1p(x))(x)

    optimizer = make(rule, momentum, first, max_step_size=2.0**31, undo_nonfinite=True)

    def step(carry, _):
        x, state = carry
        value, gradient = loss_and_gradient(x)
        updates, state = optimizer.update(gradient, state, x, value=value)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    start = jnp.float16(10)
    path = jax.jit(lambda: jax.lax.scan(step, (start, optimizer.init(start)), length=200)[1])()
    assert np.isfinite(path).all()
    assert path[-1] > 60_000


@EVERY_KIND
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_float16_gradients_of_float32_weights(rule, momentum, size):
    """The way back has their type: its parts stay finite, and lead back to where all is well."""
    first = 65_000.0 if size > 1 else 0.1
    optimizer = make(rule, momentum, first, max_step_size=1e5, undo_nonfinite=True)

    def step(carry, _):
        x, state = carry
        is_inside = x > 0
        gradient = jnp.where(is_inside, 1, nan).astype(jnp.float16)
        updates, state = optimizer.update(gradient, state, x, value=0.0)
        return (x + updates.astype(x.dtype), state), is_inside

    start = jnp.float32(size)
    scan = jax.jit(lambda start: jax.lax.scan(step, (start, optimizer.init(start)), length=2000))
    (x, _), inside = scan(start)
    assert np.isfinite(x)
    assert inside[-10:].any()


@pytest.mark.parametrize(("momentum", "limit"), [(0.99999999, 1 - 2**-23), (0.0, 2**-23)])
def test_a_momentum_that_rounds_to_1(momentum, limit):
    """It stays the nearest decay that there is, also where it is traced."""
    gradients = jnp.array([[1.0], [1.0], [-1.0], [1.0]])

    @jax.jit
    def path(momentum):
        return run(make(momentum=momentum), jnp.zeros(1), gradients, jnp.zeros(4))

    np.testing.assert_array_equal(path(momentum), path(limit))


def test_an_average_in_bfloat16_decays():
    optimizer = optax_rprop.scale_by_rprop(1.0, momentum=0.999, step_dtype="bfloat16")
    state = optimizer.init(jnp.zeros(1))
    state = state._replace(average=jnp.ones(1, jnp.bfloat16))
    update = jax.jit(optimizer.update)
    for _ in range(1000):
        state = update(jnp.zeros(1), state)[1]
    assert 0 < state.average < 0.01


@pytest.mark.parametrize("mask", [True, np.array([True, False]), jnp.array([True])])
def test_a_mask_is_no_bound(mask):
    with pytest.raises(TypeError, match="must be a number or an array"):
        optax_rprop.rprop(0.1, lower={"w": mask})


@pytest.mark.parametrize("power", [-60, 60, 100])
def test_the_scale_of_the_loss_makes_no_difference(power):
    """Within the limits that the documentation names: as long as gradients stay there."""
    hessian = jnp.float32([1.0, 10.0, 100.0, 1000.0])
    optimizer = optax_rprop.rprop_momentum()

    @jax.jit
    def path(scale):
        def step(carry, _):
            params, state = carry
            gradient = scale * hessian * params
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(params, updates), state), (params, gradient)

        return jax.lax.scan(step, (jnp.ones(4), optimizer.init(jnp.ones(4))), length=200)[1]

    (found, gradients), (expected, _) = path(2.0**power), path(1.0)
    is_out = ((gradients != 0) & (abs(gradients) < 1e-37)).any(axis=1)
    steps = int(is_out.argmax()) if is_out.any() else 200
    assert steps > 150
    np.testing.assert_array_equal(found[: steps + 1], expected[: steps + 1])

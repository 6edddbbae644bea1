"""At the edges: of a box, of a type's range, of a domain; and numbers that round away."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams

nan = np.nan
# Rules differ in the step of a leaf alone; all are in test_all_options.
KINDS = [("irprop_minus", None), ("irprop_plus", None), ("rprop_minus", 0.8)]
EVERY_KIND = pytest.mark.parametrize(("rule", "momentum"), KINDS)


def make(rule="irprop_minus", momentum=None, first=1.0, **options):
    transformation = optax_rprop.scale_by_rprop(first, rule=rule, momentum=momentum, **options)
    return optax.chain(transformation, optax.scale(-1))


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
    bound = np.where(random.random(500) < 0.5, lower, upper)
    start = np.where(random.random(500) < 0.7, bound, inside).astype(dtype)
    gradients = random.choice([-1, 1], (30, 500)).astype(dtype)
    gradients[random.random((30, 500)) < 0.0005] = nan
    losses = np.where(random.random(30) < 0.3, nan, random.random(30))
    optimizer = make(rule, momentum, lower=lower, upper=upper, undo_nonfinite=True)
    path, _, _ = streams.run(optimizer, jnp.asarray(start), jnp.asarray(gradients), losses)
    path = np.asarray(path)
    assert ((lower <= path) & (path <= upper)).all()


@pytest.mark.parametrize("name", ["rprop_momentum", "irprop_minus"])
def test_a_weight_at_an_edge_that_only_the_loss_shows(name):
    """Its gradient is finite outside; the other weight goes on, in one leaf and in two."""

    def loss(weights):
        x, y = weights
        return x + 0 * jnp.log(x) + (y - 3) ** 2

    for start in (jnp.array([0.3, 0.0]), (jnp.array(0.3), jnp.array(0.0))):
        optimizer = streams.make(name)(undo_nonfinite=True)
        _, state = streams.minimize(optimizer, loss, start, 1500)
        at = optax.tree_utils.tree_get(state, "finite_params")
        np.testing.assert_allclose(at, [0, 3], atol=0.05)


@EVERY_KIND
@pytest.mark.parametrize("first", [1.0, 6e4])
def test_float16_never_becomes_infinite(rule, momentum, first):
    """From infinity no difference leads back; here the least loss is at the largest number."""
    optimizer = make(rule, momentum, first, max_step_size=2.0**31, undo_nonfinite=True)

    def step(carry, _):
        x, state = carry
        value, gradient = jax.value_and_grad(lambda x: -jnp.log1p(x))(x)
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


def test_an_average_in_bfloat16_decays():
    optimizer = optax_rprop.scale_by_rprop(1.0, momentum=0.999, step_dtype="bfloat16")
    state = optimizer.init(jnp.zeros(1))
    state = state._replace(average=jnp.ones(1, jnp.bfloat16))
    update = jax.jit(optimizer.update)
    for _ in range(1000):
        state = update(jnp.zeros(1), state)[1]
    assert 0 < state.average < 0.01

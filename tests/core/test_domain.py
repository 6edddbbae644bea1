"""Domain errors: back to the last finite point. Each rule is in test_all_options."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference, streams

nan = np.nan
# Rules differ in the step of a leaf alone.
KINDS = [("irprop_minus", None), ("irprop_plus", None), ("rprop_minus", 0.8)]
EVERY_KIND = pytest.mark.parametrize(("rule", "momentum"), KINDS)


def make(rule, momentum, first, **options):
    given = {"rule": rule, "momentum": momentum, "undo_nonfinite": True, **options}
    return optax.chain(optax_rprop.scale_by_rprop(first, **given), optax.scale(-1))


def test_turns_follow_the_reference():
    """After losses that are not finite: a turn ends after 32 steps, or where nothing moved."""
    losses = np.zeros(200)
    losses[[3, 5, 7, 9, 120, 122]] = nan, np.inf, -np.inf, nan, np.inf, -np.inf
    gradients = streams.gradients(200, 24, np.float32, (-3, 3), special=False)
    gradients[70:73] = 0
    given = {"learning_rate": 0.5, "eta_plus": 1.02, "undo_nonfinite": True}
    start = np.zeros(24, np.float32)
    expected = reference.run("irprop_minus", start, gradients, losses, **given)
    found = streams.run(optax_rprop.rprop(**given), jnp.asarray(start), gradients, losses)
    for got, wanted in zip(found, expected, strict=True):
        streams.assert_same_bits(got, wanted)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_bounds_hold_on_the_way_back(dtype):
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
    optimizer = optax_rprop.rprop(1.0, lower=lower, upper=upper, undo_nonfinite=True)
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
    optimizer = make(rule, momentum, first, max_step_size=2.0**31)
    loss_and_gradient = jax.value_and_grad(lambda x, _: -jnp.log1p(x))
    path, _ = streams.trace(optimizer, jnp.float16(10), loss_and_gradient, jnp.arange(200))
    assert np.isfinite(path).all()
    assert path[-1] > 60_000


@EVERY_KIND
@pytest.mark.parametrize(("size", "edge"), [(1e-9, 0), (1.0, 0), (1e9, 1e9 - 1e6)])
def test_float16_gradients_of_float32_weights(rule, momentum, size, edge):
    """The way back has their type: its parts stay finite, and lead back to where all is well.

    Beside 1e9, a step of 65,504 is rounded to one that is longer than float16 can tell.
    """
    optimizer = make(rule, momentum, 65_000.0 if size > 1 else 0.1, max_step_size=1e5)

    def loss_and_gradient(x, _):
        return 0.0, jnp.where(x > edge, 1, nan).astype(jnp.float16)

    with jax.numpy_dtype_promotion("standard"):
        path, _ = streams.trace(optimizer, jnp.float32(size), loss_and_gradient, jnp.arange(2000))
    assert np.isfinite(path[-1])
    assert (path[-10:] > edge).any()


@pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus", "rprop_momentum"])
def test_a_weight_at_its_edge(name):
    """It does not stop the others, and `converged` is not true: but behind a wall of 1 / x."""

    def at_the_edge(x, _):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1])

    def inside(x, _):
        return at_the_edge(x, _) + 1 / x[1]

    optimizer, start = streams.make(name)(undo_nonfinite=True), jnp.float32([0.0, 0.5])
    for loss, ends in ((at_the_edge, False), (inside, True)):
        path, states = streams.trace(optimizer, start, jax.value_and_grad(loss), jnp.arange(2000))
        done = jax.vmap(lambda state: optax_rprop.converged(state, 1e-4))(states)
        assert done.any() == ends
        np.testing.assert_allclose(path[400:, 0], 3, atol=1e-4)
        if ends:
            # At the point before the step, where the gradient was taken.
            np.testing.assert_allclose(path[done.argmax() - 1], [3, 2 ** (2 / 3)], atol=2e-3)
        else:
            assert (path[-2:, 1] >= 0).any()


def test_a_gradient_may_be_a_number():
    optimizer = optax_rprop.rprop_momentum(0.1, undo_nonfinite=True)
    updates, _ = optimizer.update(1.0, optimizer.init(0.5), 0.5)
    np.testing.assert_array_equal(updates, np.float32(-0.1))


def test_a_traced_factor_that_is_infinite_changes_nothing():
    def step(eta_minus):
        optimizer = optax_rprop.rprop(0.1, eta_minus, undo_nonfinite=True)
        params = jnp.ones(2)
        state = optimizer.init(params)
        for gradient in ([1.0, 1.0], [-1.0, np.nan], [1.0, 1.0], [-1.0, 1.0]):
            _, state = optimizer.update(jnp.array(gradient), state, params)
        return state

    for leaf in jax.tree.leaves(jax.jit(step)(jnp.inf)):
        assert np.isfinite(leaf).all()

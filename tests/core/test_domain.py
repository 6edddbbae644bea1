"""Domain errors: back to the last finite point, exactly, for every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference, streams

# One that needs the loss, and one with momentum. Each rule is in test_all_options.
RULES = pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus"])
WITH_MOMENTUM = pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus", "rprop_momentum"])
nan, inf = np.nan, np.inf


def minimize(loss, params, steps, name, **options):
    """The parameters after each step."""
    optimizer = streams.make(name)(**options)

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = (params, optimizer.init(params))
    return jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[1])(start)


def root(x):
    """Least at x = 0.04; NaN, with a NaN gradient, where x < 0."""
    return (jnp.sqrt(x) - 0.2) ** 2


@WITH_MOMENTUM
def test_square_root(name):
    path = minimize(root, jnp.float32(1.0), 400, name, undo_nonfinite=True)
    assert (path < 0).any()
    assert minimize(root, jnp.float32(1.0), 400, name)[-1] < 0  # for good
    np.testing.assert_allclose(path[-1], 0.04, atol=1e-5)  # ten of the smallest steps


@RULES
def test_a_weight_with_a_nan_gradient_is_at_fault(name):
    """All go back; it shrinks, forgets its sign and rests; the other keeps both."""
    optimizer = streams.make(name)(1.0, undo_nonfinite=True)
    gradients = np.float32([[1, -1], [1, -1], [nan, -1], [1, -1], [1, -1]])
    weights, step_sizes, signs = streams.run(optimizer, jnp.zeros(2), gradients)
    np.testing.assert_array_equal(weights[2], weights[0])
    np.testing.assert_array_equal(step_sizes[2], step_sizes[1] * np.float32([0.5, 1]))
    np.testing.assert_array_equal(signs[2], [0, -1])
    assert weights[3, 0] == weights[2, 0]  # rests
    assert weights[3, 1] > weights[2, 1]
    assert weights[4, 0] == weights[3, 0] - step_sizes[1, 0] / 2


@RULES
@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_blames_all_that_moved(name, loss):
    optimizer = streams.make(name)(1.0, undo_nonfinite=True)
    gradients = np.float32([[1, 0], [1, 0], [1, 0]])
    weights, step_sizes, signs = streams.run(optimizer, jnp.zeros(2), gradients, [1, loss, 1])
    np.testing.assert_array_equal(weights[:, 0], [-1, 0, -0.5])
    np.testing.assert_array_equal(step_sizes, [[1, 1], [0.5, 1], [0.5, 1]])
    np.testing.assert_array_equal(signs[:, 0], [1, 0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.usefixtures("x64")
def test_comes_back_to_the_bit(dtype):
    """However small the weights beside the step, which is far larger here."""
    random = np.random.default_rng(0)
    start = jnp.asarray(random.choice([-1, 1], 200) * 10.0 ** random.uniform(-7, 0, 200), dtype)
    optimizer = optax_rprop.rprop(1.3, undo_nonfinite=True)
    gradients = np.full((12, 200), nan).astype(dtype)
    gradients[0] = np.where(random.random(200) < 0.5, 1, -1)
    weights, _, _ = streams.run(optimizer, start, jnp.asarray(gradients))
    assert (np.asarray(weights[0]) != np.asarray(start)).all()
    streams.assert_same_bits(weights[-1], start)


def test_turns_follow_the_reference():
    """After losses that are not finite: a turn ends after 32 steps, or where nothing moved."""
    losses = np.zeros(200)
    losses[[3, 5, 7, 9, 120, 122]] = nan
    gradients = streams.gradients(200, 24, np.float32, (-3, 3), special=False)
    gradients[70:73] = 0
    given = {"learning_rate": 0.5, "eta_plus": 1.02, "undo_nonfinite": True}
    start = np.zeros(24, np.float32)
    expected = reference.run("irprop_minus", start, gradients, losses, **given)
    found = streams.run(optax_rprop.rprop(**given), jnp.asarray(start), gradients, losses)
    for got, wanted in zip(found, expected, strict=True):
        streams.assert_same_bits(got, wanted)


@WITH_MOMENTUM
def test_a_weight_at_its_edge_does_not_stop_the_others(name):
    """b falls towards 0, below which its root is NaN; a goes on to 3."""

    def loss(x):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1])

    path = minimize(loss, jnp.float32([0.0, 1.0]), 400, name, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1, 0], 3, atol=1e-4)
    assert path[-1, 1] >= 0 or path[-2, 1] >= 0


def test_converged_is_not_true_at_an_edge():
    """But where a wall of 1 / x keeps the minimum away from it."""

    def at_the_edge(x):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1])

    def inside(x):
        return at_the_edge(x) + 1 / x[1]

    optimizer = optax_rprop.rprop(undo_nonfinite=True)
    for loss, ends in ((at_the_edge, False), (inside, True)):

        def step(carry, _, loss=loss):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradient, state, params, value=value)
            moved = optax.apply_updates(params, updates)
            return (moved, state), (params, optax_rprop.converged(state, 1e-4))

        start = jnp.float32([0.0, 0.5])
        _, (path, done) = jax.lax.scan(step, (start, optimizer.init(start)), length=2000)
        assert done.any() == ends
        if ends:
            np.testing.assert_allclose(path[done.argmax()], [3, 2 ** (2 / 3)], atol=2e-3)

"""Domain errors: back to the last finite point, exactly, for every rule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import optax_rprop
from helpers import streams

EVERY_RULE = pytest.mark.parametrize("name", streams.OPTIMIZERS)
WITH_MOMENTUM = pytest.mark.parametrize("name", streams.WITH_MOMENTUM)
nan, inf = np.nan, np.inf


def minimize(loss, params, steps, name, value_and_grad=jax.value_and_grad, **options):
    """The parameters after each step."""
    optimizer = streams.make(name)(**options)

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(loss)(params)
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


@EVERY_RULE
@pytest.mark.parametrize("start", [3.0, np.float32([3.0, 2.0])], ids=["one", "two"])
def test_logarithm(name, start):
    """Its derivative at a negative number is finite: the loss alone says that all go back."""

    def loss(x):
        return jnp.sum(x - jnp.log(x))

    path = minimize(loss, jnp.float32(start), 300, name, learning_rate=2.0, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1], 1, atol=1e-3)  # where the loss is one float32 within 5e-4
    dead = minimize(loss, jnp.float32(6.0), 300, name, learning_rate=4.0)
    assert dead[-1] < -1
    path = minimize(loss, jnp.float32(6.0), 300, name, learning_rate=4.0, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1], 1, atol=1e-3)


@WITH_MOMENTUM
def test_a_bound_at_the_edge_of_the_domain(name):
    """A step cut at 0, where x log x has no value, is taken back as any other."""

    def loss(x):
        return x * jnp.log(x) + 0.9 * x

    given = {"learning_rate": 0.3, "undo_nonfinite": True, "lower": 0.0}
    path = minimize(loss, jnp.float32(1.0), 300, name, **given)
    assert (np.asarray(path) == 0).any()
    np.testing.assert_allclose(path[-1], np.exp(-1.9), atol=1e-3)  # a flat minimum in float32


def trace(optimizer, start, gradients, losses=None):
    """The weights, step sizes and signs after each step."""
    return streams.run(optimizer, jnp.asarray(start), np.asarray(gradients, start.dtype), losses)


@EVERY_RULE
def test_a_weight_with_a_nan_gradient_is_at_fault(name):
    """All go back; it shrinks, forgets its sign and rests; the other keeps both."""
    optimizer = streams.make(name)(1.0, undo_nonfinite=True)
    gradients = [[1, -1], [1, -1], [nan, -1], [1, -1], [1, -1]]
    weights, step_sizes, signs = trace(optimizer, np.zeros(2, np.float32), gradients)
    np.testing.assert_array_equal(weights[2], weights[0])
    np.testing.assert_array_equal(step_sizes[2], step_sizes[1] * np.float32([0.5, 1]))
    np.testing.assert_array_equal(signs[2], [0, -1])
    assert weights[3, 0] == weights[2, 0]  # rests
    assert weights[3, 1] > weights[2, 1]
    assert weights[4, 0] == weights[3, 0] - step_sizes[1, 0] / 2


@EVERY_RULE
@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_blames_all_that_moved(name, loss):
    optimizer = streams.make(name)(1.0, undo_nonfinite=True)
    gradients = [[1, 0], [1, 0], [1, 0]]
    weights, step_sizes, signs = trace(optimizer, np.zeros(2, np.float32), gradients, [1, loss, 1])
    np.testing.assert_array_equal(weights[:, 0], [-1, 0, -0.5])
    np.testing.assert_array_equal(step_sizes, [[1, 1], [0.5, 1], [0.5, 1]])
    np.testing.assert_array_equal(signs[:, 0], [1, 0, 1])


def test_an_infinite_gradient_has_a_sign():
    """It is no domain error: the loss is finite."""
    optimizer = optax_rprop.rprop(1.0, undo_nonfinite=True)
    weights, _, _ = trace(optimizer, np.zeros(1, np.float32), [[inf], [-inf]], [1, 2])
    np.testing.assert_array_equal(weights[:, 0], [-1, -1])


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


def test_a_weight_goes_back_as_another_leaves_the_domain():
    """The point between the two was never evaluated, and is NaN."""

    def loss(x):
        barrier = -1e-3 * jnp.log(0.5 - jnp.abs(x[1] - x[0]))
        return 30 * (x[0] - 0.2) ** 2 + (x[1] - 1) ** 2 + barrier

    start = jnp.zeros(2)
    path = minimize(loss, start, 500, "irprop_plus", learning_rate=0.6, undo_nonfinite=True)
    assert np.isfinite(jax.vmap(loss)(path[-50:])).any()
    best = scipy.optimize.minimize(loss, [0.2, 0.6], method="Nelder-Mead")
    assert loss(path[-1]) < best.fun + 0.01


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

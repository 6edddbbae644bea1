"""Gradient streams, and the optimizers run on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import optax_rprop

OPTIMIZERS = ("irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus", "shark_irprop_minus")
WITH_MOMENTUM = (*OPTIMIZERS, "rprop_momentum")


@functools.wraps(optax_rprop.irprop_minus, assigned=())
def shark_irprop_minus(learning_rate=0.01, *numbers, **given):
    """The one published rule that has no function of its own."""
    steps = optax_rprop.scale_by_rprop(learning_rate, *numbers, rule="shark_irprop_minus", **given)
    return optax.chain(steps, optax.scale(-1))


def make(name):
    """The function that makes the optimizer of a rule."""
    return shark_irprop_minus if name == "shark_irprop_minus" else getattr(optax_rprop, name)


def gradients(steps, weights, dtype, exponents=(-36, 36), special=True, seed=0):
    """Of shape (steps, weights): of both signs, of magnitudes from 10**low to 10**high.

    With `special`, one in ten each is zero, NaN and infinite.
    """
    random = np.random.default_rng(seed)
    shape = (steps, weights)
    # A weight keeps its sign for a few steps, so that step sizes reach both limits.
    signs = np.where(random.random(shape) < random.uniform(0.05, 0.9, weights), -1.0, 1.0)
    stream = np.cumprod(signs, axis=0) * 10.0 ** random.uniform(*exponents, shape)
    if special:
        kinds = random.random(shape)
        stream[kinds < 0.3] = np.inf * np.sign(stream[kinds < 0.3])
        stream[kinds < 0.2] = np.nan
        stream[kinds < 0.1] = 0
    return stream.astype(dtype)


def trace(optimizer, params, loss_and_gradient, rows):
    """The weights and the states after each step, stacked, in one compiled scan.

    `loss_and_gradient` is a function of the weights and of a row.
    """

    def step(carry, row):
        params, state = carry
        value, gradient = loss_and_gradient(params, row)
        updates, state = optimizer.update(gradient, state, params, value=value)
        after = optax.apply_updates(params, updates), state
        return after, after

    start = params, optimizer.init(params)
    return jax.jit(lambda start, rows: jax.lax.scan(step, start, rows)[1])(start, rows)


def run(optimizer, params, gradients, losses=None):
    """The weights, step sizes and signs after each step along given gradients."""
    losses = jnp.asarray(np.zeros(len(gradients)) if losses is None else losses, float)
    weights, states = trace(optimizer, params, lambda _, row: row, (losses, gradients))
    return weights, optax_rprop.step_sizes(states), optax_rprop.prev_signs(states)


def minimize(optimizer, loss, params, steps):
    """The weights and the state after so many steps, with `value`."""
    loss_and_gradient = jax.value_and_grad(loss)
    path = trace(optimizer, params, lambda x, _: loss_and_gradient(x), jnp.arange(steps))
    return jax.tree.map(lambda rows: rows[-1], path)


def bits(array):
    """The bits of real numbers, as unsigned integers, which any file can hold."""
    return array.view(f"u{array.itemsize}")


def assert_same_bits(actual, expected):
    """Arrays that are equal to the last bit, signs of zeros and NaNs too."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    different = np.flatnonzero(bits(actual) != bits(expected))
    assert not different.size, (
        f"{different.size} of {actual.size} differ, the first at {different[0]}: "
        f"{actual.flat[different[0]]} for {expected.flat[different[0]]}"
    )

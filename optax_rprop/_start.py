"""A start without a learning rate: small first steps, which grow quickly.

The first step size is 0.001 * abs(w) + 1e-5 for a weight w; in the first dozen steps, a
step size doubles where the gradient keeps its sign. Small is safe, and a dozen doublings
reach any scale. A weight that a bound holds meanwhile would be slow when it is released:
its step size grows by 1.5 in each of these steps. By 2, it would often leave too far.
"""

import jax
import jax.numpy as jnp

_QUICK_STEPS = 12
_QUICK_GROWTH = 2.0
_GROWTH_AT_REST = 1.5


def first_step_size(parameter: jax.Array) -> jax.Array:
    """Of an array of weights."""
    return 0.001 * abs(parameter) + 1e-5


def eta_plus(eta_plus: jax.Array, num_steps: jax.Array) -> jax.Array:
    """The factor of growth after so many steps."""
    return jnp.where(num_steps < _QUICK_STEPS, jnp.maximum(eta_plus, _QUICK_GROWTH), eta_plus)


def growth_at_rest(num_steps: jax.Array) -> jax.Array:
    """The factor of growth where a bound holds a weight."""
    return jnp.where(num_steps < _QUICK_STEPS, _GROWTH_AT_REST, 1)


def is_over(num_steps: jax.Array) -> jax.Array:
    """Whether step sizes have grown to the scale of the problem."""
    return num_steps >= _QUICK_STEPS


def count(num_steps: jax.Array) -> jax.Array:
    """One step more; it stops where nothing depends on it, and cannot overflow."""
    return jnp.minimum(num_steps + 1, _QUICK_STEPS)

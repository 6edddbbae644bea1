"""Momentum with a step size of its own: a way through narrow valleys.

Rprop sees each weight alone; a valley that lies across the axes takes it thousands of steps.
So there is one direction more, the average a of past moves, and its factor f adapts as a
step size does, by the sign of the slope along it. With s the step of Rprop's rule, all of
them subtracted from the weights, g the gradient and m the decay, `momentum`:

    q = <g, a>                       over all weights of all leaves
    f <- min(2 f, 2)                 where q > 0: a leads downhill
    f <- max(f / 2, 2**-10)          where q < 0
    c = f                            where q > 0, else 0
    move = s + c a
    a <- m a + (1 - m) move

at first with a = 0 and f = 1/16. The average is of the moves, not of the rule's steps alone,
so that it keeps itself going. What decides are still signs, of each gradient and of the slope;
one evaluation is one step, and no scale of the loss or of a weight makes a difference.

This is this library's own. Related: restarts where a momentum leads uphill (O'Donoghue and
Candes 2015); rates that adapt to the agreement with an average (Jacobs 1988).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing

DEFAULT_DECAY = 0.8
# Powers of two, which no type rounds.
FIRST_FACTOR, _LEAST_FACTOR, _GREATEST_FACTOR = 2.0**-4, 2.0**-10, 2.0


def slope_dtype(packed: Any) -> jnp.dtype:
    """The type that a slope is summed in: the widest of the state's, but at least float32."""
    dtypes = [jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(packed)]
    # Not jnp.promote_types, which raises where JAX is told to promote no types.
    return jnp.dtype(jnp.float64 if jnp.dtype(jnp.float64) in dtypes else jnp.float32)


def usable(decay: jax.Array) -> jax.Array:
    """A decay that leaves a number of every average: a traced one is not checked."""
    return jnp.where((decay > 0) & (decay < 1), decay, DEFAULT_DECAY)


def slope(gradient: jax.Array, average: jax.Array, scale: jax.Array) -> jax.Array:
    """One array's part of the slope along the average, times a scale."""
    return jnp.sum(gradient.astype(scale.dtype) * scale * average.astype(scale.dtype))


@jax.jit  # for steps outside jit: a `lax.cond` alone would be compiled anew in each
def adapt(
    slope: jax.Array, factor: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The coefficient of the average in this step, the new factor, and the next slope's scale.

    The scale, a power of two, keeps the sum away from overflow and underflow, whatever the
    scale of the loss. A slope that is not finite counts as none, so that in a step where any
    gradient is NaN or infinite there is no momentum.
    """
    size = lax.abs(slope)
    finite = size < jnp.inf
    coefficient, factor = lax.cond(
        # Control flow, not a select: XLA would compute the whole slope again in every leaf.
        (slope > 0) & finite,
        lambda: (jnp.minimum(2 * factor, _GREATEST_FACTOR),) * 2,
        lambda: (
            lax.full_like(factor, 0),
            jnp.where((slope < 0) & finite, shrink(factor), factor),
        ),
    )
    change = jnp.where(size > 2.0**32, 2.0**-32, jnp.where(size < 2.0**-32, 2.0**32, 1))
    change = jnp.where(slope == 0, 2.0**16, jnp.where(finite, change, 2.0**-64))
    # No smaller than overflow asks for: a NaN lowers it too, and the next slope must not vanish.
    scale = jnp.clip(scale * change.astype(scale.dtype), 2.0**-32, 2.0**96)
    return coefficient, factor, scale


def shrink(factor: jax.Array) -> jax.Array:
    """The factor where the average leads uphill."""
    return jnp.maximum(factor / 2, _LEAST_FACTOR)


def move(
    step: jax.Array,
    average: jax.Array,
    coefficient: jax.Array,
    decay: jax.Array,
    largest: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The whole move, and the new average, which stays within a limit.

    The move comes from the new average: from the old one, which is written over, XLA would
    have to make a copy first. So it is step + coefficient * average of an old average that
    leads to the new one, where that is rounded or meets its limit.
    """
    old = _packing.to_compute_dtype(average)
    coefficient, decay = coefficient.astype(old.dtype), decay.astype(old.dtype)
    kept = decay + (1 - decay) * coefficient
    new = _within(kept * old + (1 - decay) * step, largest).astype(average.dtype)
    return decay / kept * step + coefficient / kept * _packing.to_compute_dtype(new), new


def average_of(
    cut_move: jax.Array, average: jax.Array, decay: jax.Array, largest: jax.Array
) -> jax.Array:
    """The new average, after a move that was cut."""
    old = _packing.to_compute_dtype(average)
    decay, cut_move = decay.astype(old.dtype), cut_move.astype(old.dtype)
    new = decay * old + (1 - decay) * cut_move
    return _within(new, largest).astype(average.dtype)


def _within(average: jax.Array, largest: jax.Array) -> jax.Array:
    # Selects: after a clamp, XLA would compute the average again, from a copy of the old one.
    bound = lax.select(average > 0, largest, -largest)
    return lax.select(lax.abs(average) > largest, bound, average)

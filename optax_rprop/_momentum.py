"""Momentum with a step size of its own: a way through narrow valleys.

`rprop_momentum` has the mathematics. Here steps and averages are subtracted from the weights: an
average leads downhill where its slope, the product with the gradient, is above 0. It is of the
moves, not of the rule's steps alone, so that it keeps itself going.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from optax_rprop import _hyperparameters, _packing
from optax_rprop._dtypes import over_shards, parts
from optax_rprop._leaf import Leaf, Move

DEFAULT_DECAY = 0.8
# Powers of two, which no type rounds.
FIRST_FACTOR, _LEAST_FACTOR, _GREATEST_FACTOR = 2.0**-4, 2.0**-10, 2.0


class Along(NamedTuple):
    """What a step along the average needs: scalars."""

    factor: jax.Array  # 0 where the average leads uphill
    decay: jax.Array


def init(packed: Any) -> dict[str, Any]:
    """The fields of the state, at first. Scalars have its widest type, but at least float32."""
    dtypes = [jnp.finfo(leaf.dtype).dtype for leaf in jax.tree.leaves(packed)]
    dtype = jnp.float64 if jnp.dtype(jnp.float64) in dtypes else jnp.float32
    return {
        "average": jax.tree.map(jnp.zeros_like, packed),
        "factor": jnp.asarray(FIRST_FACTOR, dtype),
        "slope_scale": jnp.asarray(1, dtype),
    }


def reduce(leaves: list[Leaf], state: Any, decay: ArrayLike) -> tuple[Along, Any]:
    """The step along the average, and the state with its next scalars."""
    slopes = [_slope(leaf.gradient, leaf.state.average, state.slope_scale) for leaf in leaves]
    slopes = [over_shards(lax.psum, slope, state.factor) for slope in slopes]
    slope = sum(slopes, start=jnp.zeros_like(state.factor))
    active, factor, scale = adapt(slope, state.factor, state.slope_scale)
    decay = _hyperparameters.real(decay, factor)
    # A number may round to 1, and a traced one be 0; an average in bfloat16 would never decay.
    eps = max([float(jnp.finfo(leaf.state.average.dtype).eps) for leaf in leaves], default=0.5)
    decay = jnp.where(decay == decay, jnp.clip(decay, eps, 1 - eps), DEFAULT_DECAY)
    return Along(active, decay), state._replace(factor=factor, slope_scale=scale)


@jax.jit  # traced once per shape
def _slope(gradient: jax.Array, average: jax.Array, scale: jax.Array) -> jax.Array:
    """One leaf's part of the slope along the average, times a scale."""
    products = (
        jnp.sum(gradient.astype(scale.dtype) * scale * average.astype(scale.dtype))
        for gradient, average in parts((gradient, average))
    )
    return sum(products, start=jnp.zeros_like(scale))


@jax.jit  # for steps outside jit: a `lax.cond` alone would be compiled anew in each
def adapt(
    slope: jax.Array, factor: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The factor in this step, 0 where it is not used; the new factor; the next slope's scale.

    The scale, a power of two, keeps the sum away from overflow and underflow, whatever the
    scale of the loss. A slope that is not finite counts as none, so that in a step where any
    gradient is NaN or infinite there is no momentum.
    """
    size = lax.abs(slope)
    finite = size < jnp.inf
    active, factor = lax.cond(
        # Control flow, not a select: XLA would compute the whole slope again in every leaf.
        (slope > 0) & finite,
        lambda: (jnp.minimum(2 * factor, _GREATEST_FACTOR),) * 2,
        lambda: (lax.full_like(factor, 0), jnp.where((slope < 0) & finite, shrink(factor), factor)),
    )
    change = jnp.where(size > 2.0**32, 2.0**-32, jnp.where(size < 2.0**-32, 2.0**32, 1))
    change = jnp.where(slope == 0, 2.0**16, jnp.where(finite, change, 2.0**-64))
    # No smaller than overflow asks for: a NaN lowers it too, and the next slope must not vanish.
    scale = jnp.clip(scale * change.astype(scale.dtype), 2.0**-32, 2.0**96)
    return active, factor, scale


def shrink(factor: jax.Array) -> jax.Array:
    """The factor where the average leads uphill."""
    return jnp.maximum(factor / 2, _LEAST_FACTOR)


def step(leaf: Leaf, move: Move, along: Along) -> Move:
    """With so much of the average, and the new average, which stays within a limit.

    The move comes from the new average: from the old one, which is written over, XLA would
    have to make a copy first. So it is step + factor * average of an old average that
    leads to the new one, where that is rounded or meets its limit.
    """
    old = leaf.state.average
    factor, decay = (number.astype(old.dtype) for number in along)
    kept = decay + (1 - decay) * factor
    new = _within(kept * old + (1 - decay) * move.step, leaf)
    whole = decay / kept * move.step + factor / kept * new
    return Move(whole, move.state._replace(average=new))


def after_box(leaf: Leaf, move: Move, whole: jax.Array, along: Along) -> Move:
    """The average is of the moves that were made, where the box cut a whole one."""
    old = leaf.state.average
    decay, made = along.decay.astype(old.dtype), move.step.astype(old.dtype)
    average = _within(decay * old + (1 - decay) * made, leaf)
    average = jnp.where(move.step != whole, average, move.state.average)
    return move._replace(state=move.state._replace(average=average))


def _within(average: jax.Array, leaf: Leaf) -> jax.Array:
    # Selects: after a clamp, XLA would compute the average again, from a copy of the old one.
    largest = leaf.hyperparams.max_step_size
    bound = lax.select(average > 0, largest, -largest)
    average = lax.select(lax.abs(average) > largest, bound, average)
    return _packing.round_to(average, leaf.dtype)

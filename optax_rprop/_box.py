"""Box constraints: steps cut short so that a weight never leaves its bounds."""

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing


def stay_inside(
    parameter: jax.Array,
    lower: jax.Array,
    upper: jax.Array,
    old: jax.Array,
    new: jax.Array,
    step: jax.Array,
    undoes: bool,
) -> tuple[jax.Array, jax.Array]:
    """Cuts a step at the bounds, to the last bit of the rounded new weight.

    Where the weight would leave [lower, upper], the step becomes the largest whose
    rounded difference with the weight stays inside. Its step size does not grow. Where it
    still moves, its sign is remembered, so that a reversal shrinks it as any other; where
    it rests on the bound, the weight is idle, and later leaves by a step of that size.

    Args:
      parameter: the weights, real.
      lower: bounds of the same shape and type.
      upper: likewise.
      old: the packed state before the step.
      new: the packed state after it.
      step: what will be subtracted from the weights, in the gradient's type.
      undoes: whether the rule takes steps back. A step that was cut is then stored as
        its own length, in which it can be taken back.

    Returns:
      The packed state and the step.
    """
    with jax.numpy_dtype_promotion("standard"):
        sum_dtype = jnp.promote_types(parameter.dtype, step.dtype)

    def moved_by(step: jax.Array) -> jax.Array:
        # The arithmetic of optax.apply_updates.
        moved = parameter.astype(sum_dtype) - step.astype(sum_dtype)
        return moved.astype(parameter.dtype)

    moved = moved_by(step)
    # Also where a step too small to count would leave: the weight rests on the bound.
    below = (moved < lower) | ((parameter <= lower) & (step > 0))
    above = (moved > upper) | ((parameter >= upper) & (step < 0))
    target = lax.select(below, lower, lax.select(above, upper, moved))
    cut = (parameter.astype(sum_dtype) - target.astype(sum_dtype)).astype(step.dtype)
    # That difference is rounded, so its sum can miss the bound; its neighbour cannot.
    largest = lax.full_like(cut, jnp.finfo(cut.dtype).max)
    cut = jnp.where(moved_by(cut) < lower, _neighbour(cut, -largest), cut)
    cut = jnp.where(moved_by(cut) > upper, _neighbour(cut, largest), cut)
    if undoes:
        cut = _packing.storable(cut, new.dtype)

    old, after = _packing.widen(old), _packing.widen(new)
    size = lax.min(_packing.step_size(old), _packing.step_size(after))
    forward = _packing.signed_step(after)
    moves = ((cut > 0) & (forward > 0)) | ((cut < 0) & (forward < 0))
    if undoes:
        length = _packing.representable(lax.abs(cut).astype(size.dtype))
        size = lax.select(moves, length, size)
    kept = _packing.pack(size, forward > 0, moves, (cut == 0) & (forward != 0))
    outside = below | above
    return lax.select(outside, kept.astype(new.dtype), new), lax.select(outside, cut, step)


@jax.custom_jvp
def _neighbour(number: jax.Array, towards: jax.Array) -> jax.Array:
    return lax.nextafter(number, towards)


@_neighbour.defjvp
def _neighbour_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # A matter of rounding: a small change of the number is one of its neighbour.
    return _neighbour(*primals), tangents[0]

"""Box constraints: updates cut short so that a weight never leaves its bounds."""

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
    update: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Cuts an update at the bounds, to the last bit of the rounded new weight.

    Where the weight would leave [lower, upper], the update becomes the largest
    whose rounded sum with the weight stays inside, the sign is forgotten and
    the step size does not grow: the first step off a bound is a small one.

    Args:
      parameter: the weights, real.
      lower: bounds of the same shape and type.
      upper: likewise.
      old: the packed state before the step.
      new: the packed state after it.
      update: what will be subtracted from the weights, in the gradient's type.

    Returns:
      The packed state and the update.
    """
    with jax.numpy_dtype_promotion("standard"):
        sum_dtype = jnp.promote_types(parameter.dtype, update.dtype)

    def moved_by(update: jax.Array) -> jax.Array:
        # The arithmetic of optax.apply_updates.
        moved = parameter.astype(sum_dtype) - update.astype(sum_dtype)
        return moved.astype(parameter.dtype)

    moved = moved_by(update)
    below, above = moved < lower, moved > upper
    target = lax.select(below, lower, lax.select(above, upper, moved))
    cut = (parameter.astype(sum_dtype) - target.astype(sum_dtype)).astype(update.dtype)
    # That difference is rounded, so its sum can miss the bound; its neighbour cannot.
    infinity = lax.full_like(cut, jnp.inf)
    cut = jnp.where(moved_by(cut) < lower, _neighbour(cut, -infinity), cut)
    cut = jnp.where(moved_by(cut) > upper, _neighbour(cut, infinity), cut)
    step_size = lax.min(_packing.step_size(old), _packing.step_size(new))
    new = lax.select(below | above, _packing.without_sign(step_size), new)
    return new, lax.select(below | above, cut, update)


@jax.custom_jvp
def _neighbour(number: jax.Array, towards: jax.Array) -> jax.Array:
    return lax.nextafter(number, towards)


@_neighbour.defjvp
def _neighbour_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # A matter of rounding: a small change of the number is one of its neighbour.
    return _neighbour(*primals), tangents[0]

"""Box constraints: steps cut short so that a weight never leaves its bounds.

Where a weight would leave [lower, upper], the step becomes the largest whose rounded
difference with the weight stays inside. Its step size does not grow, except where a bound
holds a weight in the first steps of a start without a learning rate. Where it still moves,
its sign is remembered, so that a reversal shrinks it as any other; where it rests on the
bound, its sign is forgotten, and later it leaves by a step of that size. A rule that undoes
remembers the length of the cut step as the step size, so that it can take that back.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing
from optax_rprop._rules import Factors


class Cut(NamedTuple):
    """A step that stays inside, and where it was cut: masks."""

    step: jax.Array  # the whole step where it was not cut
    at_lower: jax.Array
    at_upper: jax.Array

    @property
    def is_cut(self) -> jax.Array:
        return self.at_lower | self.at_upper


def shorten(parameter: jax.Array, step: jax.Array, lower: jax.Array, upper: jax.Array) -> Cut:
    """How far a step may go, to the last bit of the rounded new weight."""
    with jax.numpy_dtype_promotion("standard"):
        sum_dtype = jnp.promote_types(parameter.dtype, step.dtype)

    def moved_by(step: jax.Array) -> jax.Array:
        # The arithmetic of optax.apply_updates.
        moved = parameter.astype(sum_dtype) - step.astype(sum_dtype)
        return moved.astype(parameter.dtype)

    moved = moved_by(step)
    # Also where a step too small to count would leave: the weight rests on the bound.
    at_lower = (moved < lower) | ((parameter <= lower) & (step > 0))
    at_upper = (moved > upper) | ((parameter >= upper) & (step < 0))
    target = lax.select(at_lower, lower, lax.select(at_upper, upper, moved))
    cut = (parameter.astype(sum_dtype) - target.astype(sum_dtype)).astype(step.dtype)
    # That difference is rounded, so its sum can miss the bound; its neighbour cannot.
    largest = lax.full_like(cut, jnp.finfo(cut.dtype).max)
    cut = jnp.where(moved_by(cut) < lower, _neighbour(cut, -largest), cut)
    cut = jnp.where(moved_by(cut) > upper, _neighbour(cut, largest), cut)
    return Cut(lax.select(at_lower | at_upper, cut, step), at_lower, at_upper)


def remember(
    old: jax.Array,
    new: jax.Array,
    cut: Cut,
    factors: Factors,
    undoes: bool,
    growth: jax.Array | None = None,
) -> jax.Array:
    """The packed state after steps that were cut, `new` after a whole one.

    With a `growth`, the step size of a weight that a bound holds grows by it.
    """
    before, after = _packing.to_compute_dtype(old), _packing.to_compute_dtype(new)
    step_size = lax.min(_packing.step_size(before), _packing.step_size(after))
    forward = _packing.signed_step(after)  # the rule's own step
    moves = ((cut.step > 0) & (forward > 0)) | ((cut.step < 0) & (forward < 0))
    if undoes:
        length = _packing.clip_to_range(lax.abs(cut.step).astype(step_size.dtype))
        moves &= length >= factors.min_step_size
        step_size = lax.select(moves, length, step_size)
    outwards = (cut.at_lower & (forward > 0)) | (cut.at_upper & (forward < 0))
    # A momentum moves a weight whose own gradient is zero, too.
    at_rest = _packing.is_at_rest(after) | ((cut.step == 0) & outwards)
    if growth is not None:
        grown = lax.min(step_size * growth.astype(step_size.dtype), factors.max_step_size)
        step_size = lax.select(cut.step == 0, grown, step_size)
    packed = _packing.pack(step_size, forward > 0, moves, at_rest)
    return lax.select(cut.is_cut, packed.astype(new.dtype), new)


@jax.custom_jvp
def _neighbour(number: jax.Array, towards: jax.Array) -> jax.Array:
    return lax.nextafter(number, towards)


@_neighbour.defjvp
def _neighbour_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    # A matter of rounding: a small change of the number is one of its neighbour.
    return _neighbour(*primals), tangents[0]

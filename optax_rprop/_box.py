"""Box constraints: steps cut short so that a weight never leaves its bounds.

Where a weight would leave [lower, upper], the step becomes the largest whose rounded
difference with the weight stays inside, and its step size does not grow. Where it still
moves, its sign is remembered, so that a reversal shrinks it as any other; where it rests on
the bound, its sign is forgotten, and later it leaves by a step of that size. A rule that
undoes remembers the length of the cut step as the step size, so that it can take that back.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing
from optax_rprop._leaf import Leaf, Move
from optax_rprop._packing import Memory


def clip_step(
    step: jax.Array, parameter: jax.Array, lower: jax.Array, upper: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """How far a step may go, to the last bit of the rounded new weight; where a bound cut it."""
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
    return lax.select(at_lower | at_upper, cut, step), at_lower, at_upper


def is_free(
    gradient: jax.Array, parameter: jax.Array, lower: jax.Array, upper: jax.Array
) -> jax.Array:
    """Not held by a bound, which a cut step may miss by the rounding of a difference."""
    eps = float(jnp.finfo(parameter.dtype).eps)
    lower, upper = lower + eps * abs(lower), upper - eps * abs(upper)
    return ~((parameter <= lower) & (gradient > 0) | (parameter >= upper) & (gradient < 0))


def step(leaf: Leaf, move: Move, undoes: bool) -> Move:
    """A move that stays inside."""
    given, new = leaf.hyperparams, move.state.memory
    step, at_lower, at_upper = clip_step(move.step, leaf.parameter, given.lower, given.upper)
    step = _packing.round_down(step, leaf.dtype) if undoes else step
    size = lax.min(leaf.state.memory.step_size, new.step_size)
    moves = ((step > 0) & (new.sign > 0)) | ((step < 0) & (new.sign < 0))
    if undoes:
        length = _packing.clip_to_range(lax.abs(step).astype(size.dtype))
        moves &= length >= given.min_step_size
        size = lax.select(moves, length, size)
    outwards = (at_lower & (new.sign > 0)) | (at_upper & (new.sign < 0))
    # A momentum moves a weight whose own gradient is zero, too.
    at_rest = ((new.sign == 0) & new.at_rest) | ((step == 0) & outwards)
    shorter = Memory(size, lax.select(moves, new.sign, lax.full_like(size, 0)), at_rest)
    is_cut = at_lower | at_upper
    memory = jax.tree.map(functools.partial(lax.select, is_cut), shorter, new)
    return Move(step, move.state._replace(memory=memory))


# A matter of rounding: a small change of the number is one of its neighbour.
_neighbour = jax.custom_jvp(lax.nextafter)
_neighbour.defjvp(lambda primals, tangents: (_neighbour(*primals), tangents[0]))

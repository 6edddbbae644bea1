"""How far a move of L-BFGS may go, and what becomes of it: by slopes alone.

A weight may move `cap` times its step size by Rprop. The state's `cap` grows fourfold where it held
back a move that still leads downhill, and halves where a move went back. Where nine tenths of the
slope are left, `stretch` makes the next move four times as long. Neither grows where the slope
became more than twice as steep: beyond a wall there are others, and each move would be longer than
the last. Where no pair counts, both grow sixteenfold even there.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Tried within wide limits on half of the CUTEst problems; none decides much.
_TRIES = 4  # gradients along one move
_TRIES_IF_SHRUNK = 2  # where `cap` has shrunk before: the pairs mislead
_LARGE_GRADIENT = 1e-3  # of the first: later, rounding or a lack of curvature mislead as well
_TRIES_BEYOND = 8  # of Rprop
_TO_A_BOUND = 0.9  # of a move that one cut, where the loss is not finite: it may be the edge
_STEEP = 0.9  # of the first slope, at a move's end: if uphill it was too far, if downhill too short
FIRST_CAP, _LARGEST_CAP = 10.0, 1e15
_GROWTH, _GROWTH_WITHOUT_PAIRS = 4.0, 16.0
_STEEPER = 2.0  # times the slope before
_MOST_STRETCH = 1e15  # where a move is still too short, the pairs are forgotten


class Verdict(NamedTuple):
    """On the last move, by the gradient at its end: scalars."""

    is_rejected: jax.Array
    gives_up: jax.Array
    num_tries: jax.Array
    portion: jax.Array  # of the move, to go back to
    leads_on: jax.Array  # at the first try, its end still leads downhill
    is_short: jax.Array  # and nearly as steeply as where it began
    is_steeper: jax.Array  # than there, by far


def judge(
    before: jax.Array, after: jax.Array, largest: jax.Array, is_cut: Callable, old: Any, finite: Any
) -> Verdict:
    """By the slopes along the last move; one of Rprop's is rejected only where not finite.

    `largest` is the largest gradient, where the first one was about 1; `is_cut` tells whether the
    move ended at a bound.
    """
    rprop_moved = old.countdown > 0

    def by_slopes() -> Verdict:
        is_first = ~rprop_moved & (old.num_tries == 0)
        is_short = is_first & (after < -_STEEP * abs(before))
        # After pairs that mislead, such as those across a wall, moves may stay far too short.
        nowhere = ~rprop_moved & (before >= 0) | is_short & (old.stretch >= _MOST_STRETCH)
        is_rejected = nowhere | ~rprop_moved & (after > _STEEP * abs(before))
        num_tries = jnp.where(is_rejected, old.num_tries + 1, 0)
        few_tries = (old.cap < FIRST_CAP) & (largest > _LARGE_GRADIENT)
        most_tries = jnp.where(few_tries, _TRIES_IF_SHRUNK, _TRIES)
        gives_up = is_rejected & (nowhere | (num_tries >= most_tries))
        secant = jnp.clip(before / jnp.where(before < after, before - after, -1), 0.1, 0.5)
        leads_on, is_steeper = is_first & (after < 0), after < _STEEPER * before
        return Verdict(is_rejected, gives_up, num_tries, secant, leads_on, is_short, is_steeper)

    def not_finite() -> Verdict:
        num_tries = old.num_tries + 1
        # Where a weight that is tiny beside its move was at the edge of the domain, rounding may
        # keep it outside, however small the part. So in the end back beyond the move's start.
        goes_beyond = (num_tries >= _TRIES_BEYOND) & (num_tries < 5 * _TRIES_BEYOND)
        beyond = jnp.where(num_tries == _TRIES_BEYOND, -1, 4)
        near = jnp.where((num_tries == 1) & is_cut(), _TO_A_BOUND, 0.1)
        portion = jnp.where(rprop_moved & goes_beyond, beyond, near).astype(before.dtype)
        yes, no = jnp.ones_like(rprop_moved), jnp.zeros_like(rprop_moved)
        return Verdict(yes, ~rprop_moved & (num_tries >= _TRIES), num_tries, portion, no, no, no)

    return lax.cond(finite, by_slopes, not_finite)


def limit(
    old: Any, verdict: Verdict, most: jax.Array, is_known: jax.Array
) -> tuple[jax.Array, ...]:
    """After a move that was accepted: the part of the direction to go, cap, stretch, is_capped.

    `most` is how many times its step size a weight would move at most, `is_known` whether any
    pair counts.
    """
    growth = jnp.where(verdict.is_steeper, 1, _GROWTH)
    growth = jnp.where(is_known, growth, _GROWTH_WITHOUT_PAIRS).astype(old.cap.dtype)
    grown = jnp.minimum(growth * old.cap, _LARGEST_CAP)
    shrunk = jnp.maximum(old.cap / 2, FIRST_CAP / 8)
    cap = jnp.where(verdict.leads_on & old.is_capped, grown, old.cap)
    cap = jnp.where(old.countdown > 0, FIRST_CAP, jnp.where(old.num_tries > 0, shrunk, cap))
    stretch = jnp.where(verdict.is_short, growth * old.stretch, 1)
    room = cap / jnp.where(most > 0, most, 1)
    return jnp.minimum(stretch, room), cap, stretch, room < stretch

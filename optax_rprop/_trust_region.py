"""How far a move of L-BFGS may go, and what becomes of it: by slopes alone.

A weight may move `cap` times its step size by Rprop. The state's `cap` grows fourfold where it held
back a move that still leads downhill, and halves where a move went back. Where a move leaves the
slope as it was, `stretch` makes the next one four times as long. Both grow sixteenfold where no
pair counts, and not at all where the slope became more than twice as steep: beyond a wall there are
others, and each move would be longer than the last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Tried within wide limits on half of the CUTEst problems; none decides much.
_TRIES = 4  # gradients along one move
_TRIES_IF_SHRUNK = 2  # where `cap` has shrunk before: the pairs mislead
_LARGE = 1e-3  # a gradient, of the first: later, rounding or a lack of curvature mislead as well
_TRIES_BEYOND = 8  # of Rprop
_TO_A_BOUND = 0.9  # of a move that one cut, where the loss is not finite: it may be the edge
_STEEP = 0.9  # a slope of this part of the first one, at the end of a move: too far, or too short
FIRST_CAP, _LARGEST_CAP = 10.0, 1e15
_GROWTH, _GROWTH_WITHOUT_PAIRS = 4.0, 16.0
_STEEPER = 2.0  # times the slope before
_MOST_STRETCH = 1e15  # where it is as short again, the pairs are forgotten


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
    before: jax.Array,
    after: jax.Array,
    largest: jax.Array,
    is_cut: Callable,
    old: Any,
    finite: jax.Array,
) -> Verdict:
    """By the slopes along the last move; one of Rprop's is rejected only where not finite.

    `largest` is the largest gradient, where the first one was 1; `is_cut` tells whether the move
    ended at a bound.
    """
    measures = old.countdown > 0
    few_tries = (old.cap < FIRST_CAP) & (largest > _LARGE)

    def verdict(finite: bool) -> Verdict:
        is_first = ~measures & (old.num_tries == 0)
        is_short = is_first & (after < -_STEEP * abs(before))
        # After pairs that mislead, such as those across a wall, moves may stay far too short.
        nowhere = (before >= 0) | (is_short & (old.stretch >= _MOST_STRETCH))
        nowhere &= ~measures & jnp.asarray(finite)
        overshot = ~measures & (after > _STEEP * abs(before))
        is_rejected = nowhere | overshot if finite else jnp.ones_like(measures)
        num_tries = jnp.where(is_rejected, old.num_tries + 1, 0)
        most_tries = jnp.where(few_tries & finite, _TRIES_IF_SHRUNK, _TRIES)
        # Where a weight that is tiny beside its move was at the edge of the domain, rounding may
        # keep it outside, however small the part. So in the end back beyond the move's start.
        goes_beyond = (num_tries >= _TRIES_BEYOND) & (num_tries < 5 * _TRIES_BEYOND)
        beyond = jnp.where(num_tries == _TRIES_BEYOND, -1, 4)
        near = 0.1 if finite else jnp.where((num_tries == 1) & is_cut(), _TO_A_BOUND, 0.1)
        back = jnp.where(measures & goes_beyond, beyond, near)
        secant = jnp.clip(before / jnp.where(before < after, before - after, -1), 0.1, 0.5)
        return Verdict(
            is_rejected,
            is_rejected & ~measures & (nowhere | (num_tries >= most_tries)),
            num_tries,
            secant if finite else back.astype(secant.dtype),
            is_first & (after < 0),
            is_short,
            after < _STEEPER * before,
        )

    return lax.cond(finite, lambda: verdict(True), lambda: verdict(False))


def limit(
    old: Any, verdict: Verdict, begins: jax.Array, most: jax.Array, is_known: jax.Array
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
    cap = jnp.where(begins, FIRST_CAP, jnp.where(old.num_tries > 0, shrunk, cap))
    stretch = jnp.where(verdict.is_short, growth * old.stretch, 1)
    room = cap / jnp.where(most > 0, most, 1)
    return jnp.minimum(stretch, room), cap, stretch, room < stretch

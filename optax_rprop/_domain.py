"""Domain errors: back to the last point at which everything was finite.

The root of a negative number, a failed Cholesky factor, an integration that blows up: the
loss is not finite there, or a gradient is NaN. The state keeps the last point without such
an error, and an error takes all weights back to it, again and again where the sum is rounded
and misses it. Culprits shrink their step size and forget their sign; the others keep both.
Culprits are the weights that moved and have a NaN gradient; if there is none, all that moved.

A weight whose own gradient was NaN skips the next step, so that the others get on: a
weight may be nearer to its edge than its smallest step size. And of a culprit, `unshrunk`
remembers the step size that it would have without errors, shrunk by reversals alone: a step
size that errors made small brackets no minimum. It is negative for one that skips.

Where only the loss shows an error, all that moved are culprits, and one at its edge would hold
up the others. So, from the first such error on, they take turns: in a turn, a culprit moves
with a probability of its step size / `unshrunk`, or 1/16 if that is more. Those that moved
without the one at fault grow again, and soon move always. A turn ends with the next such error,
after 32 steps, or where nothing moved.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from optax_rprop import _box, _momentum, _rules
from optax_rprop._dtypes import finite_cast, over_shards, parts
from optax_rprop._leaf import Leaf, Move
from optax_rprop._packing import Memory
from optax_rprop._state import SCALARS

_TURN, _LEAST_SHARE = 32, 1 / 16  # steps; of the turns in which a culprit moves


class Verdict(NamedTuple):
    """On the point where the gradient was taken: scalars."""

    is_rejected: jax.Array  # all weights go back
    only_nan: jax.Array  # culprits are, of those that moved, the ones with a NaN gradient
    in_turns: jax.Array  # culprits move in some turns alone


def init(params: Any, packed: Any) -> dict[str, Any]:
    """The fields of the state, at first."""
    return {
        # Others with the same numbers: the parameters may be donated.
        "finite_params": jax.tree.map(lambda x: jnp.array(x, jnp.result_type(x)), params),
        "unshrunk": jax.tree.map(jnp.zeros_like, packed),
        "clock": jnp.zeros((), jnp.int32),
    }


def reduce(
    leaves: list[Leaf], value: jax.Array | None, old: Any, new: Any
) -> tuple[list[Leaf], Verdict, Any]:
    """The leaves, by what they draw, the verdict, and the state with the scalars after it."""
    worst = [_severity(leaf.gradient, leaf.parameter, leaf.state.finite_params) for leaf in leaves]
    worst = [over_shards(lax.pmax, severity, old.clock) for severity in worst]
    if value is not None:
        worst.append(jnp.where(jnp.isfinite(value), 0, 2))
    sizes = [np.size(leaf.gradient) * (1 + jnp.iscomplexobj(leaf.gradient)) for leaf in leaves]
    numbers = list(np.cumsum([0, *sizes], dtype=np.uint32)[:-1])  # of the first weight of each
    verdict, clock, draws = _judge(worst, old.clock, numbers)
    leaves = [leaf._replace(draw=draw) for leaf, draw in zip(leaves, draws, strict=True)]
    if old.factor is not None:
        old = old._replace(factor=_momentum.shrink(old.factor))
    choose = functools.partial(jax.tree.map, functools.partial(jnp.where, verdict.is_rejected))
    scalars = {name: choose(getattr(old, name), getattr(new, name)) for name in SCALARS}
    return leaves, verdict, new._replace(**scalars)._replace(clock=clock)


@jax.jit  # traced once per shape
def _severity(gradient: jax.Array, parameter: jax.Array, finite: jax.Array) -> jax.Array:
    """Of one leaf: 1 where a weight moved, plus 2 if its gradient is NaN."""
    severities = (
        jnp.where(gradient == gradient, 0, 2) + (parameter != finite).astype(int)
        for gradient, parameter, finite in parts((gradient, parameter, finite))
    )
    return jnp.max(jnp.stack([jnp.max(one, initial=0) for one in severities]))


@jax.jit
def _judge(severities: list, clock: jax.Array, numbers: list) -> tuple[Verdict, jax.Array, list]:
    """The verdict, the new clock, and what each leaf draws by in this turn."""
    worst = jnp.max(jnp.stack([*severities, jnp.array(0)]))
    next_turn = (clock // _TURN + 1) * _TURN
    numbers = [lax.full_like(clock, number, np.uint32) for number in numbers]

    def verdict(clock: jax.Array) -> tuple[Verdict, jax.Array, list]:
        turn = clock // _TURN
        draws = [number + turn.astype(np.uint32) for number in numbers]
        return Verdict(worst >= 2, worst == 3, turn > 0), clock, draws

    return lax.cond(
        # Out of control flow: else XLA would ask all leaves again in every leaf, and, by their
        # numbers, compile one program for each.
        worst >= 2,
        lambda: verdict(jnp.where(worst == 2, next_turn, clock)),
        lambda: verdict(jnp.where(clock == 0, 0, jnp.where(worst == 0, next_turn, clock + 1))),
    )


def step(leaf: Leaf, move: Move, verdict: Verdict) -> Move:
    """Back to the finite point, or on."""
    return jax.tree.map(
        lambda back, on: jnp.where(verdict.is_rejected, back.astype(on.dtype), on),
        _back(leaf, verdict),
        _on(leaf, move, verdict.in_turns),
    )


def _back(leaf: Leaf, verdict: Verdict) -> Move:
    old, given = leaf.state, leaf.hyperparams
    is_nan, moved = leaf.gradient != leaf.gradient, leaf.parameter != old.finite_params
    culprit = moved & (is_nan | ~verdict.only_nan)
    shrunk = lax.max(old.memory.step_size * given.eta_minus, given.min_step_size)
    blamed = Memory(shrunk, jnp.zeros_like(shrunk), jnp.zeros_like(culprit))
    unshrunk = lax.max(lax.abs(old.unshrunk), old.memory.step_size)
    way, dtype = leaf.parameter - old.finite_params, leaf.gradient.dtype
    back = finite_cast(way, dtype)
    if dtype != way.dtype:  # a way that is rounded to zero would lead nowhere, for ever
        least = jnp.sign(way).astype(dtype) * jnp.finfo(dtype).smallest_subnormal
        back = jnp.where(back == 0, least, back)
    if given.lower is not None:
        back, *_ = _box.clip_step(back, leaf.parameter, given.lower, given.upper)
    return Move(
        back,
        old._replace(
            memory=jax.tree.map(functools.partial(jnp.where, culprit), blamed, old.memory),
            average=jax.tree.map(jnp.zeros_like, old.average),
            unshrunk=jnp.where(culprit, jnp.where(is_nan, -unshrunk, unshrunk), old.unshrunk),
        ),
    )


def _on(leaf: Leaf, move: Move, in_turns: jax.Array) -> Move:
    old, new = leaf.state, move.state
    unshrunk = lax.abs(old.unshrunk)
    skips = (old.unshrunk < 0) | (old.memory.step_size < _shares(leaf, in_turns) * unshrunk)
    unless_it_skips = functools.partial(jnp.where, skips)
    memory = jax.tree.map(unless_it_skips, old.memory, new.memory)
    is_reversed = _rules.sign_of(leaf.gradient, unshrunk.dtype) * old.memory.sign < 0
    unshrunk *= jnp.where(is_reversed & ~skips, leaf.hyperparams.eta_minus, 1)
    return Move(
        jnp.where(skips, 0, move.step),
        new._replace(
            memory=memory,
            average=jax.tree.map(unless_it_skips, old.average, new.average),
            finite_params=leaf.parameter.astype(old.finite_params.dtype),
            unshrunk=jnp.where(memory.step_size >= unshrunk, 0, unshrunk),
        ),
    )


def _shares(leaf: Leaf, in_turns: jax.Array) -> jax.Array:
    """Of `unshrunk`, what a step size must have for its weight to move in this turn: drawn."""
    shape = leaf.gradient.shape
    number, stride = jnp.asarray(leaf.draw), 1
    for axis in reversed(range(len(shape))):  # no arange, which a sharded array would gather
        number += lax.broadcasted_iota(np.uint32, shape, axis) * np.uint32(stride % 2**32)
        stride *= shape[axis]
    for _ in range(2):  # a hash: no generator's state to keep, and no more to read
        number = (number ^ (number >> 16)) * np.uint32(0x45D9F3B)
    share = (number >> 24).astype(leaf.state.unshrunk.dtype) / 256
    return jnp.where(in_turns & (share >= _LEAST_SHARE), share, 0)

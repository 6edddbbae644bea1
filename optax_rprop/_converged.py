"""When to stop: every weight at rest, its step size small, or the minimum near."""

from __future__ import annotations  # help() then shows the names of types, not their unions

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_rprop import _checks, _hyperparameters, _lbfgs, _leaf
from optax_rprop._dtypes import by_parts, parts, reals
from optax_rprop._hyperparameters import PerWeight
from optax_rprop._leaf import LeafState
from optax_rprop._rprop_lbfgs import ScaleByRpropLbfgsState
from optax_rprop._state import ScaleByRpropState, find, split

# Chosen on every second of 1,080 random problems: of a tolerance, the distance at which
# `rprop_lbfgs` is done, and how far the flattest pair may let it still be.
NEAR, FLAT = 0.01, 0.3


def converged(opt_state: optax.OptState, tolerance: PerWeight) -> jax.Array:
    """Returns True once every weight has converged to within `tolerance`.

    A weight has converged if, at its last gradient, before the update, any of these held:

    - its step size was at or below the tolerance. Step sizes shrink only where a gradient
      changes sign;
    - its gradient was exactly zero, as for a pixel that is always 0, or under stop_gradient;
    - a bound held it, its gradient pushing outwards.

    Signs change around a minimum, but also across a narrow valley, far from its end: the
    tolerance is a step size, not an error. In valleys take one 1,000 times smaller than the
    accuracy that is wanted, or `rprop_lbfgs`. With momentum, the move along the average must
    be as small. A NaN gradient is not zero, but a step size stays as small as it was. Do not test
    for small updates instead: irprop_minus emits zero wherever a sign changed, sooner or later
    for all weights at once.

    Of `rprop_lbfgs` the tolerance is an error: while L-BFGS is at work, the whole quasi-Newton
    step must be within 1/100 of it in every weight, at this point and, less strictly, at those
    before. Where Rprop took over again, the test is as above; before L-BFGS has begun, only
    weights at rest have converged.

    Args:
      opt_state: a state that holds one Rprop state or several, at any depth; all count.
      tolerance: a number, at least 0, in the units of the parameters; or an array, or a pytree
        prefix of the parameters, where they differ in scale. It must be smaller than every
        first step size, or the test passes immediately (not of `rprop_lbfgs`), and not smaller
        than `min_step_size`, or it may never pass.

    Returns:
      A boolean scalar, to be used inside jit and in the condition of a while_loop too.

    Raises:
      ValueError: if the tolerance is below 0 or NaN, or does not fit the parameters; or if
        `opt_state` holds no Rprop state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax_rprop.rprop(0.1)
      >>> def not_done(carry):
      ...     return ~optax_rprop.converged(carry[1], 1e-5)
      >>> def step(carry):
      ...     params, opt_state = carry
      ...     updates, opt_state = optimizer.update(2 * (params - 3), opt_state)
      ...     return optax.apply_updates(params, updates), opt_state
      >>> start = jnp.zeros(2)
      >>> params, _ = jax.lax.while_loop(not_done, step, (start, optimizer.init(start)))
      >>> bool(jnp.all(jnp.abs(params - 3) < 1e-4))
      True
    """
    _checks.check_numbers(tolerance=tolerance)
    states = find(opt_state, (ScaleByRpropLbfgsState, ScaleByRpropState))
    rprops = [s.rprop if isinstance(s, ScaleByRpropLbfgsState) else s for s in states]
    # Of all states together: a part of the tolerance may belong to any of them.
    paths, leaves, treedef = _hyperparameters.flatten([rprop.packed for rprop in rprops])
    paths = [path[1:] for path in paths]
    own = _hyperparameters.broadcast_prefix("tolerance", tolerance, paths, leaves)
    own = [None if leaf is None else limit for leaf, limit in zip(leaves, own, strict=True)]
    done = []
    for state, rprop, limits in zip(states, rprops, treedef.unflatten(own), strict=True):
        left = largest_step(rprop, limits)
        is_done = left <= 1
        if isinstance(state, ScaleByRpropLbfgsState):
            # Step sizes say nothing before it has begun.
            begins = jnp.asarray(state.num_failures) == 0
            distance, flatness = distance_left(state, limits)
            near = (distance <= NEAR) & (flatness <= FLAT)
            by_rprop = jnp.where(begins, left == 0, is_done)
            is_done = jnp.where(jnp.asarray(state.countdown) > 0, by_rprop, near)
        done.append(is_done)
    return jnp.all(jnp.array(done, dtype=bool))


def largest_step(state: ScaleByRpropState, tolerance: Any) -> jax.Array:
    """The largest of Rprop's step sizes, in tolerances; 0 where every weight is at rest."""
    treedef = jax.tree.structure(state.packed)
    leaves, limits = split(state, treedef), treedef.flatten_up_to(tolerance)
    largest = jnp.zeros(())
    for leaf, limit in zip(leaves, limits, strict=True):
        one = _largest_step(leaf._replace(finite_params=None), limit, state.factor)
        largest = jnp.maximum(largest, one.astype(largest.dtype))
    return largest


@jax.jit
def distance_left(state: ScaleByRpropLbfgsState, tolerance: Any) -> tuple[jax.Array, jax.Array]:
    """How far the weights are from a minimum, in tolerances, by two estimates.

    The first is the farthest of the last steps that L-BFGS would have made without its trust
    region; infinite while Rprop is at work. The second is how far the flattest of the pairs
    would lead if every weight's gradient pointed along it: a direction as flat may not have
    been felt.

    `tolerance` is a tree like the parameters, of numbers or arrays.
    """
    sy, next_row = state.sy, state.next_row
    limits = jax.tree.map(
        lambda far, limit: by_parts(functools.partial(_hyperparameters.broadcast, limit), far),
        *(state.distance, tolerance),
    )
    trees = state.distance, state.gradient, state.moves, limits
    farthest = jnp.zeros((), sy.dtype)
    lengths = along = jnp.zeros(len(sy), sy.dtype)
    for distance, gradient, move, limit in zip(*map(reals, trees), strict=True):
        ratio = jnp.where(distance > 0, distance / limit, 0)  # 0 where a bound holds it
        farthest = jnp.maximum(farthest, jnp.max(ratio, initial=0).astype(sy.dtype))
        axes = tuple(range(1, move.ndim))
        wide = limit[None]
        squares = jnp.where(wide > 0, move / jnp.where(wide > 0, wide, 1), 0) ** 2
        lengths += jnp.sum(squares, axes).astype(sy.dtype)
        # No sum of signed products, which the search has made small along the moves it made.
        slope = jnp.where(distance > 0, gradient, 0)[None]
        along += jnp.sum(abs(move * slope), axes).astype(sy.dtype)
    age = (next_row - 1 - jnp.arange(len(sy), dtype=next_row.dtype)) % len(sy)
    flatness = along / jnp.diag(sy) * jnp.sqrt(lengths)
    return farthest, jnp.max(jnp.where(age < state.num_pairs, flatness, 0))


def largest_slope(state: ScaleByRpropLbfgsState) -> jax.Array:
    """The largest gradient of a weight that no bound holds; 1 at the first step."""
    both = zip(reals(state.distance), reals(state.gradient), strict=True)
    return _lbfgs.largest([jnp.where(far > 0, abs(g), 0) for far, g in both], state.cap)


@jax.jit
def _largest_step(
    leaf: LeafState, tolerance: jax.typing.ArrayLike, factor: jax.Array | None
) -> jax.Array:
    """The largest step size of a leaf, in tolerances; a weight at rest makes none.

    A step size that is small by domain errors alone counts as it was before; and so does a
    move along the average.
    """

    def of_part(leaf: LeafState) -> jax.Array:
        leaf = _leaf.unpack(leaf)
        memory = leaf.memory
        size = memory.step_size
        if leaf.unshrunk is not None:
            size = jnp.maximum(size, lax.abs(leaf.unshrunk))
        size = jnp.where(memory.at_rest, 0, size)
        if factor is not None:
            size = jnp.maximum(size, lax.abs(leaf.average) * factor.astype(size.dtype))
        limit = _hyperparameters.broadcast(tolerance, size)
        # A weight at rest has converged even where the tolerance is 0.
        return jnp.max(size / jnp.where(size > 0, limit, 1), initial=0)

    return functools.reduce(jnp.maximum, map(of_part, parts(leaf)))

"""Domain errors: back to the last point at which everything was finite.

The root of a negative number, a failed Cholesky factor, an integration that blows up: the
loss is not finite there, or a gradient is NaN. The state keeps the last point without such
an error, and an error takes all weights back to it. Weights at fault shrink their step size
and forget their sign; the others keep both. At fault are the weights that moved and have a
NaN gradient; if there is none, all that moved.

A weight whose own gradient was NaN skips the next step, so that the others get on: a
weight may be nearer to its edge than its smallest step size. And a weight at fault is
marked with the step size that it would have without errors, shrunk by reversals alone: a
step size that errors made small brackets no minimum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _momentum, _packing, _rules
from optax_rprop._rules import Factors
from optax_rprop._state import LeafState

# A return is an addition, whose rounding may miss the point: again, until its bits are met.
_MOST_RETURNS = 8


class Verdict(NamedTuple):
    """What all weights together say of the point where the gradient was taken: scalars."""

    goes_back: jax.Array  # the point is not used: all weights go back
    blames: jax.Array  # some weights are at fault
    blames_nan: jax.Array  # of those that moved, the ones with a NaN gradient


def severity(
    gradient: jax.Array, parameter: jax.Array, finite: jax.Array, returns: jax.Array
) -> jax.Array:
    """Of one array of weights: 2 if one is at fault by its own NaN, 1 if its point is not used."""
    is_nan, moved = gradient != gradient, parameter != finite
    new_error = jnp.where(is_nan & moved, 2, is_nan.astype(int))
    return jnp.max(jnp.where(returns > 0, moved.astype(int), new_error), initial=0)


@jax.jit
def judge(
    severities: list[jax.Array], value: jax.Array | None, returns: jax.Array
) -> tuple[Verdict, jax.Array]:
    """The verdict on a point, and how many steps may go back from then on."""
    worst = jnp.max(jnp.stack(severities), initial=0) if severities else jnp.array(0)
    returning = returns > 0
    if value is not None:
        worst = jnp.maximum(worst, (~jnp.isfinite(value) & ~returning).astype(worst.dtype))
    goes_back = worst > 0
    more = jnp.where(returning, returns - 1, _MOST_RETURNS)
    verdict = Verdict(goes_back, blames=goes_back & ~returning, blames_nan=worst == 2)
    return verdict, jnp.where(goes_back, more, 0).astype(returns.dtype)


def step(
    verdict: Verdict,
    gradient: jax.Array,
    parameter: jax.Array,
    factors: Factors,
    old: LeafState,
    rule_step: jax.Array,
    new: LeafState,
) -> tuple[jax.Array, LeafState]:
    """The step of an array of weights, and its state: back to the finite point, or on to `new`."""
    back = _go_back(verdict, gradient, parameter, factors, old)
    on = _go_on(gradient, parameter, factors, old, rule_step, new)
    return jax.tree.map(
        lambda back, on: jnp.where(verdict.goes_back, back.astype(on.dtype), on), back, on
    )


def _go_back(
    verdict: Verdict, gradient: jax.Array, parameter: jax.Array, factors: Factors, old: LeafState
) -> tuple[jax.Array, LeafState]:
    is_nan, moved = gradient != gradient, parameter != old.finite
    at_fault = verdict.blames & moved & (is_nan | ~verdict.blames_nan)
    mark = _packing.to_compute_dtype(old.mark)
    step_size = _packing.step_size(_packing.to_compute_dtype(old.packed))
    unshrunk = lax.max(lax.abs(mark), step_size)
    return parameter - old.finite, old._replace(
        packed=jnp.where(at_fault, _shrink(old.packed, factors), old.packed),
        average=jax.tree.map(jnp.zeros_like, old.average),
        mark=jnp.where(at_fault, jnp.where(is_nan, -unshrunk, unshrunk), mark),
    )


def _go_on(
    gradient: jax.Array,
    parameter: jax.Array,
    factors: Factors,
    old: LeafState,
    rule_step: jax.Array,
    new: LeafState,
) -> tuple[jax.Array, LeafState]:
    mark = _packing.to_compute_dtype(old.mark)
    skips = mark < 0

    def unless_it_skips(before: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.where(skips, before, after)

    change = _rules.compare(gradient, _packing.to_compute_dtype(old.packed))
    unshrunk = lax.abs(mark) * jnp.where(change.reversed, factors.eta_minus, 1)
    caught_up = _packing.step_size(_packing.to_compute_dtype(new.packed)) >= unshrunk
    return jnp.where(skips, 0, rule_step), new._replace(
        packed=unless_it_skips(old.packed, new.packed),
        average=jax.tree.map(unless_it_skips, old.average, new.average),
        finite=parameter.astype(old.finite.dtype),
        mark=jnp.where(caught_up, 0, unshrunk).astype(old.mark.dtype),
    )


def factor(verdict: Verdict, old: jax.Array, new: jax.Array) -> jax.Array:
    """The factor of a momentum, whose average an error makes 0."""
    return jnp.where(verdict.goes_back, jnp.where(verdict.blames, _momentum.shrink(old), old), new)


def _shrink(packed: jax.Array, factors: Factors) -> jax.Array:
    """Step sizes times eta_minus, without a sign."""
    old = _packing.to_compute_dtype(packed)
    step_size = lax.max(_packing.step_size(old) * factors.eta_minus, factors.min_step_size)
    step_size = _packing.round_to(step_size, packed.dtype)
    return _packing.pack_initial(step_size).astype(packed.dtype)

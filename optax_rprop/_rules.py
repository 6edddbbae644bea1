"""The published rules, on plain arrays of one real floating-point type.

A step has three stages. The first two are every rule's: the gradient's sign is compared
with the remembered one, and the step size D of each weight adapts to the answer:

    D <- min(D * eta_plus,  max)   where the gradient kept its sign,
    D <- max(D * eta_minus, min)   where it reversed,
    D <- D                         where its sign or the remembered one is missing.

In the third the weight moves. Where the gradient did not reverse, by D against its sign,
which is then remembered; a gradient that is zero or NaN has none, and the weight stays.
Where it reversed, the rules differ:

    rprop_minus          steps, by the smaller D         remembers the new sign
    irprop_minus         stays                           forgets the sign
    rprop_plus           takes its last step back        forgets the sign
    irprop_plus          does so if the loss rose        forgets the sign
    shark_irprop_minus   steps, by the smaller D         forgets the sign

Riedmiller & Braun 1993 (rprop_plus), Riedmiller 1994 (rprop_minus), Igel & Huesken 2000
and 2003 (both irprop); Shark and OpenCV call the last one iRprop-.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing


class Factors(NamedTuple):
    """How step sizes change: arrays of the weights' shape and the state's type."""

    eta_minus: jax.Array
    eta_plus: jax.Array
    min_step_size: jax.Array
    max_step_size: jax.Array


class Turn(NamedTuple):
    """How a gradient stands to the one before it, weight by weight: masks."""

    rising: jax.Array  # it is above 0
    moving: jax.Array  # it has a sign: it is neither 0 nor NaN
    idle: jax.Array  # it is exactly 0
    reversed: jax.Array  # its sign is the opposite of the remembered one


class Steps(NamedTuple):
    """The steps that a rule chooses from: what is subtracted from the weights."""

    forward: jax.Array  # sign(gradient) * D
    remembered: jax.Array  # the same, but 0 where the sign is forgotten
    last: jax.Array  # the step before, 0 where its sign was forgotten


def compare(gradient: jax.Array, old: jax.Array, left_domain: jax.Array | None) -> Turn:
    """Compares the gradient's sign with the remembered one.

    Signs are compared, never multiplied as gradients: a product underflows. Where the
    last step `left_domain`, the gradient has no sign and counts as reversed.
    """
    had_sign = _packing.has_sign(old)
    # One comparison a mask: from abs(gradient) > 0, XLA's TPU compiler makes a second pass.
    rising, falling, idle = gradient > 0, gradient < 0, gradient == 0
    if left_domain is not None:
        rising, falling, idle = (mask & ~left_domain for mask in (rising, falling, idle))
    moving = rising | falling
    reversed_ = moving & had_sign & (rising != (old > 0))
    if left_domain is not None:
        reversed_ |= left_domain & had_sign
    return Turn(rising, moving, idle, reversed_)


def adapt(old: jax.Array, turn: Turn, factors: Factors) -> jax.Array:
    """The new step sizes: the old ones, where a sign is remembered times a factor."""
    factor = lax.select(turn.moving, factors.eta_plus, lax.full_like(old, 1))
    factor = lax.select(turn.reversed, factors.eta_minus, factor)
    step_size = lax.max(factors.min_step_size, _packing.step_size(old, times=factor))
    return lax.min(factors.max_step_size, step_size)


def compare_losses(value: jax.Array, prev_value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the loss is above the last finite one, strictly; and which is that from now on."""
    return value > prev_value, jnp.where(jnp.isfinite(value), value, prev_value)


def as_remembered(turn: Turn, steps: Steps, rose: jax.Array) -> jax.Array:
    del turn, rose
    return steps.remembered


def forward(turn: Turn, steps: Steps, rose: jax.Array) -> jax.Array:
    del turn, rose
    return steps.forward


def back(turn: Turn, steps: Steps, rose: jax.Array) -> jax.Array:
    del rose
    return lax.select(turn.reversed, -steps.last, steps.remembered)


def back_if_the_loss_rose(turn: Turn, steps: Steps, rose: jax.Array) -> jax.Array:
    return lax.select(turn.reversed & rose, -steps.last, steps.remembered)


class Rule(NamedTuple):
    """What is a rule's own."""

    step: Callable[[Turn, Steps, jax.Array], jax.Array]
    remembers_reversals: bool = False
    undoes: bool = False
    needs_value: bool = False


RULES = {
    "rprop_minus": Rule(as_remembered, remembers_reversals=True),
    "irprop_minus": Rule(as_remembered),
    "rprop_plus": Rule(back, undoes=True),
    "irprop_plus": Rule(back_if_the_loss_rose, undoes=True, needs_value=True),
    "shark_irprop_minus": Rule(forward),
}


def apply(
    rule: Rule,
    packed: jax.Array,
    gradient: jax.Array,
    factors: Factors,
    rose: jax.Array,
    left_domain: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """One step of a rule for every weight of an array.

    Args:
      rule: one of `RULES`.
      packed: the step sizes and signs, real, of any shape.
      gradient: of the same shape, real, of any floating-point type.
      factors: how the step sizes change.
      rose: boolean scalar, whether the loss rose.
      left_domain: a mask, where the last step is to be undone whatever the loss.

    Returns:
      The new step sizes and signs, and the step, which the caller subtracts.
    """
    old = _packing.widen(packed)
    factors = Factors(*map(_packing.widen, factors))
    turn = compare(gradient, old, left_domain)
    step_size = _packing.rounded(adapt(old, turn, factors), packed.dtype)

    remembered = turn.moving if rule.remembers_reversals else turn.moving & ~turn.reversed
    new = _packing.pack(step_size, turn.rising, remembered, turn.idle).astype(packed.dtype)
    signed = lax.select(turn.rising, step_size, -step_size)
    zero = lax.full_like(step_size, 0)
    steps = Steps(
        forward=lax.select(turn.moving, signed, zero),
        # From the new state, which XLA has just written: computed again from the gradient
        # and the old state, a step takes more than twice as long on a CPU. A rule that
        # undoes reads the old state anyway.
        remembered=lax.select(remembered, signed, zero)
        if rule.undoes
        else _packing.widen(_packing.signed_step(new)),
        last=_packing.signed_step(old),
    )
    if left_domain is not None:
        rose = rose | left_domain
    return new, rule.step(turn, steps, rose)

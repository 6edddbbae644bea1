"""The published rules, on plain arrays of one real floating-point type.

Every rule first adapts the step size D of each weight,

    D <- min(D * eta_plus,  max)   where the gradient kept its sign,
    D <- max(D * eta_minus, min)   where the gradient reversed,
    D <- D                         where its sign or the remembered one is missing,

and steps by D against the gradient. A gradient that is zero or NaN has no sign:
the weight stays. The rules differ in what they do where the gradient reversed:

    rprop_minus          steps, by the smaller D        remembers the new sign
    irprop_minus         stays                          forgets the sign
    rprop_plus           undoes its last step           forgets the sign
    irprop_plus          undoes it if the loss rose     forgets the sign
    shark_irprop_minus   steps, by the smaller D        forgets the sign

D and the remembered sign are one packed float per weight: see `_packing`.
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


class Step(NamedTuple):
    """What a rule decides on, weight by weight."""

    old: jax.Array  # the packed state before this step
    forward: jax.Array  # sign(gradient) * D, with D adapted; meaningless unless moving
    forget: jax.Array  # D packed without a sign
    moving: jax.Array  # the gradient has a sign
    reversed: jax.Array  # and it is the opposite of the remembered one
    rose: jax.Array  # the loss is above the previous one


# A rule's answer: the new packed state, and the update that the caller subtracts;
# None for the update that is the new state's own, its step size times its sign.
Moved = tuple[jax.Array, jax.Array | None]


def rprop_minus(step: Step) -> Moved:
    """Riedmiller 1994."""
    return lax.select(step.moving, step.forward, step.forget), None


def irprop_minus(step: Step) -> Moved:
    """Igel & Huesken 2000."""
    return lax.select(step.moving & ~step.reversed, step.forward, step.forget), None


def irprop_plus(step: Step) -> Moved:
    """Igel & Huesken 2000."""
    new, _ = irprop_minus(step)
    zero = lax.full_like(step.old, 0)
    # The last step was the old step size times the old sign: the old state itself.
    undone = jnp.where(step.rose, -step.old, zero)
    return new, lax.select(step.reversed, undone, lax.select(step.moving, step.forward, zero))


def rprop_plus(step: Step) -> Moved:
    """Riedmiller & Braun 1993."""
    return irprop_plus(step._replace(rose=jnp.ones_like(step.rose)))


def shark_irprop_minus(step: Step) -> Moved:
    """What Shark and OpenCV call iRprop-."""
    new, _ = irprop_minus(step)
    return new, lax.select(step.moving, step.forward, lax.full_like(step.old, 0))


RULES: dict[str, Callable[[Step], Moved]] = {
    rule.__name__: rule
    for rule in (rprop_minus, irprop_minus, rprop_plus, irprop_plus, shark_irprop_minus)
}
UNDOING_RULES = ("rprop_plus", "irprop_plus")


def apply_rule(
    rule: str,
    packed: jax.Array,
    gradient: jax.Array,
    factors: Factors,
    rose: jax.Array,
    undo_nan: bool,
) -> tuple[jax.Array, jax.Array]:
    """One step of `rule` for every weight of an array.

    Args:
      rule: a key of `RULES`.
      packed: the packed state, real, of any shape.
      gradient: of the same shape, real, of any floating-point type.
      factors: how its step sizes change.
      rose: boolean scalar, whether the loss rose; `irprop_plus` alone reads it.
      undo_nan: whether a NaN gradient is a reversal, undone whatever the loss.

    Returns:
      The new packed state, and the update in the type that it was computed in.
    """
    dtype = packed.dtype
    if dtype == jnp.bfloat16:  # where XLA on a CPU converts before and after every operation
        packed = packed.astype(jnp.float32)
        factors = Factors(*(factor.astype(jnp.float32) for factor in factors))
    moving = lax.abs(gradient) > 0  # false for NaN
    rising = gradient > 0
    had_sign = _packing.has_sign(packed)
    # Signs are compared, never multiplied as gradients: a product underflows.
    reversed_ = moving & had_sign & ((packed > 0) != rising)
    if undo_nan:
        is_nan = gradient != gradient
        reversed_ |= is_nan & had_sign
        rose |= is_nan
    factor = lax.select(moving, factors.eta_plus, lax.full_like(packed, 1))
    factor = lax.select(reversed_, factors.eta_minus, factor)
    # A step size without a sign is not adapted, but unpacked by the same exact product.
    unscale = lax.full_like(packed, _packing.unscale(packed.dtype))
    factor = lax.select(had_sign, factor, unscale)
    step_size = lax.max(factors.min_step_size, lax.abs(packed) * factor)
    step_size = lax.min(factors.max_step_size, step_size)
    if dtype == jnp.bfloat16:
        # The only number that is not exact. A conversion instead, XLA might leave out.
        step_size = lax.reduce_precision(step_size, exponent_bits=8, mantissa_bits=7)
    # Selected, not multiplied: the derivative of a product with NaN is NaN.
    forward = lax.select(rising, step_size, -step_size)
    forget = _packing.without_sign(step_size)
    new, update = RULES[rule](Step(packed, forward, forget, moving, reversed_, rose))
    new = new.astype(dtype)
    if update is None:
        # From the new state, which XLA has just written: computed again from the
        # gradient and the old state, a step takes more than twice as long on a CPU.
        update = _packing.signed_step(new)
    return new, update

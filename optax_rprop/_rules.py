"""The published rules, on plain arrays of one real floating-point type.

A step compares the gradient's sign with the remembered one, weight by weight, and adapts
the step size D to the answer:

    D <- min(D * eta_plus,  max)   where the gradient kept its sign,
    D <- max(D * eta_minus, min)   where it reversed,
    D <- D                         where it has no sign, or none is remembered.

Then the weight moves. Where the gradient did not reverse, by D against its sign, which is
remembered; a gradient that is zero or NaN has no sign, and its weight stays. Where the
gradient reversed, the rules differ: see `RULES`.

Riedmiller & Braun 1993 (rprop_plus), Riedmiller 1994 (rprop_minus), Igel & Huesken 2000
and 2003 (both irprop); Shark and OpenCV call shark_irprop_minus iRprop-.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing


class Rule(NamedTuple):
    """What happens to a weight whose gradient reversed; it stays if nothing is said."""

    steps: bool = False  # it steps, by the smaller D
    remembers: bool = False  # the new sign is remembered
    undoes: bool = False  # it takes its last step back
    needs_value: bool = False  # it does so only if the loss rose


RULES = {
    "rprop_minus": Rule(steps=True, remembers=True),
    "irprop_minus": Rule(),
    "rprop_plus": Rule(undoes=True),
    "irprop_plus": Rule(undoes=True, needs_value=True),
    "shark_irprop_minus": Rule(steps=True),
}
RULES["rprop"] = RULES["irprop_minus"]  # as the optimizers are called


class Factors(NamedTuple):
    """How step sizes change: arrays of the weights' shape, in the type of computation."""

    eta_minus: jax.Array
    eta_plus: jax.Array
    min_step_size: jax.Array
    max_step_size: jax.Array


class SignChange(NamedTuple):
    """A gradient's sign beside the remembered one, weight by weight: masks."""

    positive: jax.Array
    is_zero: jax.Array
    has_sign: jax.Array  # it is neither 0 nor NaN
    kept: jax.Array  # it has the remembered sign
    reversed: jax.Array  # it has the opposite of the remembered sign


def compare(gradient: jax.Array, old: jax.Array) -> SignChange:
    """Compares signs; a product of gradients would underflow."""
    had_sign = _packing.has_sign(old)
    # One comparison a mask: from abs(gradient) > 0, XLA's TPU compiler makes a second pass.
    positive, negative, is_zero = gradient > 0, gradient < 0, gradient == 0
    has_sign = positive | negative
    both, other = has_sign & had_sign, positive != (old > 0)
    return SignChange(positive, is_zero, has_sign, kept=both & ~other, reversed=both & other)


def adapt(old: jax.Array, change: SignChange, factors: Factors) -> jax.Array:
    """The new step sizes."""
    factor = lax.select(change.kept, factors.eta_plus, lax.full_like(old, 1))
    factor = lax.select(change.reversed, factors.eta_minus, factor)
    step_size = lax.max(factors.min_step_size, _packing.step_size(old, times=factor))
    return lax.min(factors.max_step_size, step_size)


def compare_losses(value: jax.Array, prev_value: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether the loss is above the last finite one, strictly; and which is that from now on."""
    return value > prev_value, jnp.where(jnp.isfinite(value), value, prev_value)


def step(
    rule: Rule, packed: jax.Array, gradient: jax.Array, factors: Factors, rose: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step of a rule, for arrays of one shape: the new packed state, and the step.

    The step is to be subtracted. `rose` is a boolean scalar, whether the loss rose.
    """
    old = _packing.to_compute_dtype(packed)
    change = compare(gradient, old)
    step_size = _packing.round_to(adapt(old, change, factors), packed.dtype)

    remembered = change.has_sign if rule.remembers else change.has_sign & ~change.reversed
    new = _packing.pack(step_size, change.positive, remembered, at_rest=change.is_zero)
    new = new.astype(packed.dtype)
    if rule.steps == rule.remembers and not rule.undoes:
        # From the new state, which XLA has just written: computed again from the gradient
        # and the old state, a step takes more than twice as long on a CPU.
        return new, _packing.to_compute_dtype(_packing.signed_step(new))
    moves = change.has_sign if rule.steps else remembered
    signed = lax.select(change.positive, step_size, -step_size)
    forward = lax.select(moves, signed, lax.full_like(signed, 0))
    if not rule.undoes:
        return new, forward
    goes_back = change.reversed & rose if rule.needs_value else change.reversed
    return new, lax.select(goes_back, -_packing.signed_step(old), forward)

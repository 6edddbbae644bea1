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

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _packing
from optax_rprop._leaf import Leaf, Move
from optax_rprop._packing import Memory


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


def sign_of(gradient: jax.Array, dtype: Any) -> jax.Array:
    """-1, 1, or 0 for zero and NaN. A product of gradients, instead of signs, would underflow."""
    return (gradient > 0).astype(dtype) - (gradient < 0).astype(dtype)


def init() -> dict[str, Any]:
    """The field of the state of a rule that needs the loss: above the first loss."""
    return {"prev_value": jnp.asarray(float(jnp.finfo(jnp.result_type(float)).max), float)}


def reduce(value: jax.Array, state: Any) -> tuple[jax.Array, Any]:
    """Whether the loss is above the last finite one, strictly; and the state with this one."""
    value = value.astype(state.prev_value.dtype)
    prev_value = jnp.where(jnp.isfinite(value), value, state.prev_value)
    return value > state.prev_value, state._replace(prev_value=prev_value)


def step(leaf: Leaf, rule: Rule, loss_rose: Any) -> Move:
    """One step of a rule. `loss_rose` is a boolean scalar."""
    old, given = leaf.state.memory, leaf.hyperparams
    sign = sign_of(leaf.gradient, old.sign.dtype)
    kept, is_reversed = sign * old.sign > 0, sign * old.sign < 0

    factor = lax.select(kept, given.eta_plus, lax.full_like(old.step_size, 1))
    factor = lax.select(is_reversed, given.eta_minus, factor)
    step_size = lax.max(given.min_step_size, old.step_size * factor)
    step_size = _packing.round_to(lax.min(given.max_step_size, step_size), leaf.dtype)

    unless_reversed = lax.select(is_reversed, lax.full_like(sign, 0), sign)
    new = Memory(step_size, sign if rule.remembers else unless_reversed, leaf.gradient == 0)
    step = (sign if rule.steps else unless_reversed) * step_size
    if rule.undoes:
        goes_back = is_reversed & loss_rose if rule.needs_value else is_reversed
        step = lax.select(goes_back, -old.sign * old.step_size, step)
    return Move(step, leaf.state._replace(memory=new))

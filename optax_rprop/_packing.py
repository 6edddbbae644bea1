"""One float per weight: how a step size and a sign share one number.

Rprop remembers two things of a weight: its step size D > 0 and the sign of its previous
gradient, which is -1, +1 or none. One float holds both: its magnitude is the step size
and its sign is the gradient's. "No sign" is told by magnitude: the step size is then
stored times a power of two that lifts it above every step size there can be. A power of
two only shifts the exponent, so no bit of D is lost. The sign that this leaves unused
says why there is none: the weight is at rest, that is, its gradient was exactly zero or
pushed it against a bound; or not. In float32 and bfloat16 the power is 2**96:

    step size   previous sign    stored as
    0.01        +1               0.01
    0.01        -1               -0.01
    0.01        none             0.01 * 2**96 = 7.9e26
    0.01        none, at rest    -0.01 * 2**96

Reading back, a magnitude above 2**32 means "no sign". For the two kinds not to meet, a
step size stays in [2**-62, 2**31]: times 2**96 that is [2**34, 2**127], inside the range
of float32. float64 has room for more: its power is 2**512 and its smallest step size
2**-478.

A bfloat16 state is widened to float32 for the step and rounded once, at its end: a CPU
has no bfloat16 arithmetic and would convert before and after every operation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LARGEST_STEP_SIZE = 2.0**31
_NO_SIGN_ABOVE = 2.0**32


class Memory(NamedTuple):
    """What Rprop remembers of every weight: arrays of one shape."""

    step_size: jax.Array
    sign: jax.Array  # of the previous gradient: -1, 1, or 0 for none
    at_rest: jax.Array  # why there is none: that gradient was zero, or pushed against a bound


def smallest_step_size(dtype: jax.typing.DTypeLike) -> float:
    """The smallest step size that a state of this real `dtype` can hold."""
    return 2.0**-478 if dtype == jnp.float64 else 2.0**-62


def _no_sign_scale(dtype: jax.typing.DTypeLike) -> float:
    return 2.0**512 if dtype == jnp.float64 else 2.0**96


def state_dtype(dtype: jax.typing.DTypeLike, step_dtype: jax.typing.DTypeLike | None = None):
    """The type of the state of a parameter: its own, or float32 where that has too little range."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return dtype
    if step_dtype is not None:
        return step_dtype
    return dtype if dtype in (jnp.bfloat16, jnp.float32, jnp.float64) else jnp.dtype(jnp.float32)


def check_step_dtype(step_dtype: jax.typing.DTypeLike | None) -> jnp.dtype | None:
    """The type of a name. In another, step sizes would be lost."""
    if step_dtype is None or jnp.dtype(step_dtype).name in ("bfloat16", "float32", "float64"):
        return step_dtype if step_dtype is None else jnp.dtype(step_dtype)
    raise ValueError(f"{step_dtype=} cannot hold step sizes; use bfloat16, float32 or float64.")


def clip_to_range(step_size: jax.Array) -> jax.Array:
    """`step_size` moved into the range of its type; NaN becomes the smallest."""
    smallest = smallest_step_size(step_size.dtype)
    # Comparisons, not lax.clamp, which would let a NaN through.
    step_size = jnp.where(step_size > smallest, step_size, smallest)
    return jnp.where(step_size < LARGEST_STEP_SIZE, step_size, LARGEST_STEP_SIZE)


def to_compute_dtype(array: jax.Array) -> jax.Array:
    """In the type that steps are computed in."""
    return array.astype(jnp.float32) if array.dtype == jnp.bfloat16 else array


def round_to(step_size: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Step sizes rounded to what a state of type `dtype` holds, still in their own type."""
    held = jnp.finfo(dtype)
    if held.nmant >= jnp.finfo(step_size.dtype).nmant:
        return step_size
    # A conversion to `dtype` and back instead, XLA might leave out.
    return lax.reduce_precision(step_size, exponent_bits=held.nexp, mantissa_bits=held.nmant)


def round_down(step: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """The longest step, no longer than `step`, whose length a state of type `dtype` holds; or 0."""
    shorter = round_to(step * (1 - float(jnp.finfo(dtype).eps)), dtype)
    nearest = round_to(step, dtype)
    nearest = jnp.where(lax.abs(nearest) > lax.abs(step), shorter, nearest)
    return jnp.where(lax.abs(nearest) < smallest_step_size(dtype), 0, nearest)


def pack_initial(step_size: jax.Array) -> jax.Array:
    """Packs step sizes that no gradient has met yet: without a sign, and not at rest."""
    return step_size * _no_sign_scale(step_size.dtype)


def pack_number(step_size: jax.typing.ArrayLike, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """The same for one known number of any type, in NumPy, without a program."""
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # float32 for float64 without jax_enable_x64
    real = jnp.finfo(dtype).dtype
    number = np.real(np.asarray(step_size)).astype(jax.dtypes.canonicalize_dtype(float))
    held = min(max(float(number.astype(real)), smallest_step_size(real)), LARGEST_STEP_SIZE)
    packed = held * _no_sign_scale(real)  # exact
    return np.asarray(complex(packed, packed) if dtype != real else packed, dtype)


def pack(memory: Memory, dtype: jax.typing.DTypeLike) -> jax.Array:
    """One number for each weight, in a state of this type."""
    size = memory.step_size
    scale = lax.full_like(size, _no_sign_scale(size.dtype))
    unsigned = size * lax.select(memory.at_rest, -scale, scale)
    return lax.select(memory.sign == 0, unsigned, memory.sign * size).astype(dtype)


def unpack(packed: jax.Array) -> Memory:
    """The inverse, in the type that steps are computed in. Exact."""
    packed = to_compute_dtype(packed)
    has_sign, one = lax.abs(packed) <= _NO_SIGN_ABOVE, lax.full_like(packed, 1)
    scale = lax.select(has_sign, one, one / _no_sign_scale(packed.dtype))
    sign = lax.select(has_sign, lax.sign(packed), lax.full_like(packed, 0))
    return Memory(lax.abs(packed) * scale, sign, at_rest=packed < -_NO_SIGN_ABOVE)


def signed_step(packed: jax.Array) -> jax.Array:
    """Step size times remembered sign: zero where no sign is remembered."""
    packed = to_compute_dtype(packed)
    return lax.select(lax.abs(packed) <= _NO_SIGN_ABOVE, packed, lax.full_like(packed, 0))

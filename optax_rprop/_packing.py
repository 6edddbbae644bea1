"""One float per weight: how a step size and a sign share one number.

Rprop remembers two things of a weight: its step size D > 0 and the sign of its
previous gradient, which is -1, +1 or none. One float holds both: its magnitude
is the step size and its sign is the gradient's. "No sign" is told by magnitude:
the step size is then stored times a power of two that lifts it above every step
size there can be. A power of two only shifts the exponent, so no bit of D is
lost. In float32 and bfloat16 that power is 2**96:

    step size   previous sign   stored as
    0.01        +1              0.01
    0.01        -1              -0.01
    0.01        none            0.01 * 2**96 = 7.9e26

Reading back, any magnitude above 2**32 means "no sign". For the two kinds not
to meet, a step size stays in [2**-62, 2**31]: times 2**96 that is
[2**34, 2**127], inside the range of float32. float64 has room for more: its
power is 2**512 and its smallest step size 2**-478.
"""

import jax
import jax.numpy as jnp
from jax import lax

LARGEST_STEP_SIZE = 2.0**31
_NO_SIGN_ABOVE = 2.0**32


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


def representable(step_size: jax.Array) -> jax.Array:
    """`step_size` moved into the range of its type; NaN becomes the smallest."""
    smallest = smallest_step_size(step_size.dtype)
    # Comparisons, not lax.clamp, which would let a NaN through.
    step_size = jnp.where(step_size > smallest, step_size, smallest)
    return jnp.where(step_size < LARGEST_STEP_SIZE, step_size, LARGEST_STEP_SIZE)


def has_sign(packed: jax.Array) -> jax.Array:
    """Whether a previous sign is remembered."""
    return lax.abs(packed) <= _NO_SIGN_ABOVE


def unscale(dtype: jax.typing.DTypeLike) -> float:
    """What a magnitude without a sign is multiplied with to give its step size."""
    return 1 / _no_sign_scale(dtype)


def without_sign(step_size: jax.Array) -> jax.Array:
    """Packs step sizes that remember no sign."""
    return step_size * _no_sign_scale(step_size.dtype)


def step_size(packed: jax.Array) -> jax.Array:
    """Unpacks the step sizes."""
    magnitude = lax.abs(packed)
    return lax.select(has_sign(packed), magnitude, magnitude * unscale(packed.dtype))


def signed_step(packed: jax.Array) -> jax.Array:
    """Step size times remembered sign: zero where no sign is remembered."""
    return lax.select(has_sign(packed), packed, lax.full_like(packed, 0))

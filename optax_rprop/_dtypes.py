"""Numbers of all types: complex as two independent reals, as in PyTorch, and small ones finite."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def is_complex(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.complexfloating)


def by_parts(function: Callable, *arrays: jax.Array):
    """`function` of real arrays; for complex ones, of their real and imaginary parts.

    A real array beside complex ones belongs to both parts. The results, a pytree
    of real arrays, are put together again as complex ones.
    """
    if not any(map(is_complex, arrays)):
        return function(*arrays)
    real = function(*(lax.real(a) if is_complex(a) else a for a in arrays))
    imag = function(*(lax.imag(a) if is_complex(a) else a for a in arrays))
    return jax.tree.map(lax.complex, real, imag)


def finite_cast(update: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """An update in another type; in float16 and below it does not become infinite."""
    largest = float(jnp.finfo(dtype).max)
    if largest < float(jnp.finfo(jnp.bfloat16).max):
        update = jnp.clip(update, -largest, largest)
    return update.astype(dtype)

"""Numbers of all types: complex as two independent reals, as in PyTorch, and small ones finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def is_complex(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.complexfloating)


def parts(tree: Any) -> tuple[Any, ...]:
    """A tree of real arrays alone; or twice, with the real and with the imaginary parts.

    A real array beside complex ones belongs to both.
    """
    if not any(map(is_complex, jax.tree.leaves(tree))):
        return (tree,)
    return tuple(
        jax.tree.map(lambda array, part=part: part(array) if is_complex(array) else array, tree)
        for part in (lax.real, lax.imag)
    )


def by_parts(function: Callable, *trees: Any) -> Any:
    """`function` of trees of real arrays; of complex ones, of either part.

    The results, a pytree of real arrays, are put together again as complex ones.
    """
    results = [function(*part) for part in parts(trees)]
    return results[0] if len(results) == 1 else jax.tree.map(lax.complex, *results)


def finite_cast(update: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """An update in another type; in float16 and below it does not become infinite."""
    largest = float(jnp.finfo(dtype).max)
    if largest < float(jnp.finfo(jnp.bfloat16).max):
        update = jnp.clip(update, -largest, largest)
    return update.astype(dtype)

"""Types and devices: complex numbers as two reals, small types kept finite, sums over shards."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def widen(dtype: jax.typing.DTypeLike) -> jax.typing.DTypeLike:
    """The type, or float32 for a smaller one."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def parts(tree: Any) -> tuple[Any, ...]:
    """A tree of real arrays alone; or twice, with the real and with the imaginary parts.

    A real array beside complex ones belongs to both.
    """
    if not any(map(jnp.iscomplexobj, jax.tree.leaves(tree))):
        return (tree,)
    return tuple(
        jax.tree.map(lambda x, part=part: part(x) if jnp.iscomplexobj(x) else x, tree)
        for part in (lax.real, lax.imag)
    )


def over_shards(reduce: Callable, number: jax.Array, scalar: jax.Array) -> jax.Array:
    """A number of some weights, and of their other shards inside `jax.shard_map`.

    Along the mesh axes where it varies, and a scalar of the state does not: where that does
    too, each device has an optimizer of its own.
    """
    axes = _varying(number) - _varying(scalar)
    return reduce(number, tuple(axes)) if axes else number


def _varying(array: jax.Array) -> frozenset:
    """The axes of a manual mesh; none where JAX does not say, which then refuses to mix them."""
    axes = getattr(_type_of(array), "vma", None)  # until JAX 0.9
    manual = getattr(_type_of(array), "manual_axis_type", None)
    return axes or getattr(manual, "varying", frozenset())


def on_all_devices(array: jax.Array) -> dict[str, Any]:
    """How a product over sharded axes lies, where the types of mesh axes make JAX ask for it."""
    mesh = getattr(getattr(_type_of(array), "sharding", None), "mesh", None)
    is_explicit = any("Explicit" in str(kind) for kind in getattr(mesh, "axis_types", None) or ())
    return {"out_sharding": jax.sharding.PartitionSpec()} if is_explicit else {}


_type_of = getattr(jax, "typeof", lambda array: None)  # since JAX 0.6


def by_parts(function: Callable, *trees: Any) -> Any:
    """`function` of trees of real arrays; of complex ones, of either part.

    The results, a pytree of real arrays, are put together again as complex ones.
    """
    results = [function(*part) for part in parts(trees)]
    return results[0] if len(results) == 1 else jax.tree.map(lax.complex, *results)


def has_small_range(dtype: jax.typing.DTypeLike) -> bool:
    """Whether steps may overflow it: float16 and below."""
    return bool(jnp.finfo(dtype).max < jnp.finfo(jnp.bfloat16).max)


def finite_cast(update: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """An update in another type; in float16 and below it does not become infinite."""
    if has_small_range(dtype):
        largest = float(jnp.finfo(dtype).max)
        update = jnp.clip(update, -largest, largest)
    return update.astype(dtype)


def inverse_power_of_two(number: jax.Array) -> jax.Array:
    """Of about this size; 0 for 0 and what is not finite."""
    lowest = jnp.finfo(number.dtype).minexp  # below it, powers are rounded to 0
    exponent = jnp.clip(-jnp.frexp(number)[1], lowest, -lowest)
    power = jnp.ldexp(jnp.ones_like(number), exponent)
    return jnp.where((number > 0) & (number < jnp.inf), power, 0)


def reals(tree: Any) -> list[jax.Array]:
    """The leaves of a tree, complex ones as two."""
    return [part for leaf in jax.tree.leaves(tree) for part in parts(leaf)]


def like(reals: list[jax.Array], tree: Any) -> Any:
    """The inverse: a tree of these, complex where the leaves of another one are."""
    rest = iter(reals)
    return jax.tree.map(
        lambda leaf: lax.complex(next(rest), next(rest)) if jnp.iscomplexobj(leaf) else next(rest),
        tree,
    )

"""Hyperparameters, from what an optimizer is given to arrays of one leaf's shape and type.

Each is a number, an array that broadcasts to every parameter, or a pytree prefix of the
parameters that ends in numbers or arrays.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from optax_rprop import _packing
from optax_rprop._dtypes import has_small_range
from optax_rprop._leaf import Hyperparams

PerWeight: TypeAlias = ArrayLike | optax.Params


def flatten(tree: Any) -> tuple[list[tuple], list, Any]:
    """The leaves of a tree, among which every None: their paths, themselves, the structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return [path for path, _ in leaves], [leaf for _, leaf in leaves], treedef


def without_integers(tree: Any) -> Any:
    """With floats for Python's and NumPy's integers: JAX would refuse or wrap one like 2**31."""

    def of_leaf(number: Any) -> Any:
        if isinstance(number, np.ndarray | jax.Array) and np.issubdtype(number.dtype, np.integer):
            return number.astype(float)
        return float(number) if type(number) is int or isinstance(number, np.integer) else number

    return jax.tree.map(of_leaf, tree)


def per_leaf(hyperparams: Hyperparams, paths: list[tuple], leaves: list) -> list[Hyperparams]:
    """Each leaf's own hyperparameters, for every leaf of a tree, after `flatten`."""
    columns = (
        broadcast_prefix(name, value, paths, leaves)
        for name, value in hyperparams._asdict().items()
    )
    return list(map(Hyperparams, *columns))


def broadcast_prefix(name: str, value: Any, paths: list[tuple], leaves: list) -> list:
    """The part of one hyperparameter that belongs to each leaf; None where it has none."""
    if value is None or (jax.tree_util.all_leaves([value]) and np.shape(value) == ()):
        return [value] * len(leaves)
    values = dict(jax.tree_util.tree_flatten_with_path(value)[0])
    prefixes = [
        next((path[:n] for n in range(len(path) + 1) if path[:n] in values), None) for path in paths
    ]
    unused, places = values.keys() - prefixes, list(map(jax.tree_util.keystr, paths))
    if leaves and unused:
        place = jax.tree_util.keystr(next(path for path in values if path in unused))
        raise ValueError(f"{name}{place} belongs to none of the parameters: {places[:10]}.")
    for place, prefix, leaf in zip(places, prefixes, leaves, strict=True):
        if prefix is None and leaf is not None and name not in ("lower", "upper"):
            raise ValueError(f"{name} has no value for parameter {place}.")
    return [None if prefix is None else values[prefix] for prefix in prefixes]


# Inside the compiled step of a leaf: arrays of its shape, and of the type of its state.


def cast(hyperparams: Hyperparams, packed: jax.Array, parameter: jax.Array | None) -> Hyperparams:
    """Those of one leaf, in the type that steps are computed in; its bounds in the parameter's."""
    factors = [_factor(x, packed) for x in (hyperparams.eta_minus, hyperparams.eta_plus)]
    limits = [step_size(x, packed) for x in (hyperparams.min_step_size, hyperparams.max_step_size)]
    box = (None, None)
    in_a_box = hyperparams.lower is not None or hyperparams.upper is not None
    # In float16 a sum may become infinite, from where no difference leads back.
    if parameter is not None and (in_a_box or has_small_range(parameter.dtype)):
        box = bounds(hyperparams, parameter)
    return Hyperparams._make((None, *map(_packing.to_compute_dtype, factors + limits), *box))


def bounds(hyperparams: Hyperparams, parameter: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arrays of the shape and the type of a real parameter; finite where there is none."""
    return _bound(hyperparams.lower, parameter, -1), _bound(hyperparams.upper, parameter, 1)


def step_size(number: ArrayLike, packed: jax.Array) -> jax.Array:
    """A hyperparameter as a step size that the state can hold."""
    return broadcast(_packing.clip_to_range(real(number, packed)), packed)


def _factor(number: ArrayLike, packed: jax.Array) -> jax.Array:
    number = real(number, packed)
    return broadcast(jnp.where(jnp.isfinite(number), number, 1), packed)  # a traced NaN: no change


def _bound(number: ArrayLike | None, parameter: jax.Array, side: int) -> jax.Array:
    largest = float(jnp.finfo(parameter.dtype).max)
    number = jnp.real(jnp.asarray(side * largest if number is None else number))
    return broadcast(jnp.clip(number, -largest, largest), parameter)


def real(number: ArrayLike, array: jax.Array) -> jax.Array:
    """A hyperparameter in the type of a real array."""
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    return jnp.real(jnp.asarray(number)).astype(array.dtype)


def broadcast(number: ArrayLike, array: jax.Array) -> jax.Array:
    """A hyperparameter in the type and the shape of a real array."""
    number = real(number, array)
    if number.ndim == 0:
        return lax.full_like(array, number)
    # Plus zero: the sum takes the array's sharding where mesh axes are explicit.
    return jnp.broadcast_to(number, array.shape) + lax.full_like(array, 0)

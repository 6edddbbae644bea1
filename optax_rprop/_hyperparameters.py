"""Hyperparameters, from what an optimizer is given to arrays of one leaf's shape and type.

Each is a number, an array that broadcasts to every parameter, or a pytree prefix of the
parameters that ends in numbers or arrays.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from optax_rprop import _checks, _packing
from optax_rprop._rules import Factors

PerWeight: TypeAlias = ArrayLike | optax.Params


class Hyperparams(NamedTuple):
    """An optimizer's hyperparameters, as given; or those of one leaf, each one number or array."""

    learning_rate: Any
    eta_minus: Any
    eta_plus: Any
    min_step_size: Any
    max_step_size: Any
    lower: Any = None
    upper: Any = None


def as_floats(numbers: Any) -> Any:
    """A tree with floats for integers: of more than 32 bits, JAX would wrap them or refuse them."""

    def as_float(number: Any) -> Any:
        if isinstance(number, int):
            return float(number)
        if isinstance(number, (np.ndarray, np.integer)) and number.dtype.kind in "iu":
            return number.astype(float)
        return number

    return jax.tree.map(as_float, numbers)


def flatten(tree: Any) -> tuple[list[tuple], list, Any]:
    """The leaves of a tree, among which every None: their paths, themselves, the structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)
    return [path for path, _ in leaves], [leaf for _, leaf in leaves], treedef


def per_leaf(hyperparams: Hyperparams, paths: list[tuple], leaves: list) -> list[Hyperparams]:
    """Each leaf's own hyperparameters, for every leaf of a tree, after `flatten`.

    A leaf without a bound has None. Raises ValueError where a key or a shape does not fit.
    """
    optional = ["lower", "upper"] + ["learning_rate"] * (hyperparams.learning_rate is None)
    columns = (
        broadcast_prefix(name, value, paths, leaves, name in optional)
        for name, value in hyperparams._asdict().items()
    )
    return list(map(Hyperparams, *columns))


def broadcast_prefix(
    name: str, value: Any, paths: list[tuple], leaves: list, optional: bool = False
) -> list:
    """The part of one hyperparameter that belongs to each leaf of a tree, after `flatten`.

    None where it has none, for a leaf that is None or a hyperparameter that is `optional`.
    """
    if jax.tree_util.all_leaves([value]) and np.shape(value) == ():
        return [value] * len(leaves)
    values = dict(jax.tree_util.tree_flatten_with_path(value)[0])
    prefixes = [
        next((path[:n] for n in range(len(path) + 1) if path[:n] in values), None) for path in paths
    ]
    used = set(prefixes)
    unused = next((path for path in values if path not in used), None)
    if leaves and unused is not None:
        named = [path for path, leaf in zip(paths, leaves, strict=True) if leaf is not None]
        _checks.refuse_unused_value(name, unused, named)
    _checks.check_length(name, value, paths)
    for prefix, path, leaf in zip(prefixes, paths, leaves, strict=True):
        if prefix is not None and leaf is not None:
            _checks.check_broadcasts(name, prefix, values[prefix], path, leaf)
        elif prefix is None and leaf is not None and not optional:
            _checks.refuse_missing_value(name, value, path)
    return [None if prefix is None else values[prefix] for prefix in prefixes]


# Inside the compiled step of a leaf: arrays of its shape, and of the type of its state.


def factors(own: Hyperparams, packed: jax.Array) -> Factors:
    """What a rule multiplies step sizes by, and where they end, in the type of computation."""
    factors = Factors(
        eta_minus=_factor(own.eta_minus, packed),
        eta_plus=_factor(own.eta_plus, packed),
        min_step_size=step_size(own.min_step_size, packed),
        max_step_size=step_size(own.max_step_size, packed),
    )
    return Factors(*map(_packing.to_compute_dtype, factors))


def step_size(number: ArrayLike, packed: jax.Array) -> jax.Array:
    """A hyperparameter as a step size that the state can hold."""
    return broadcast(_packing.clip_to_range(real(number, packed)), packed)


def _factor(number: ArrayLike, packed: jax.Array) -> jax.Array:
    number = real(number, packed)
    return broadcast(jnp.where(number == number, number, 1), packed)  # a traced NaN: no change


def bounds(own: Hyperparams, parameter: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A lower and an upper bound for each weight, finite where it has none."""
    largest = float(jnp.finfo(parameter.dtype).max)

    def bound(number: ArrayLike | None, otherwise: float) -> jax.Array:
        number = jnp.real(jnp.asarray(otherwise if number is None else number))
        return broadcast(jnp.clip(number, -largest, largest), parameter)

    return bound(own.lower, -largest), bound(own.upper, largest)


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

"""Hyperparameters: what may be given, for which weight, and each leaf's own values in its type.

Each is a number, an array that broadcasts to every parameter, or a pytree prefix of the
parameters that ends in numbers or arrays. Values are checked where they are known: Python
and NumPy numbers when an optimizer is made, JAX arrays and pytrees when `init` sees them,
tracers never. (optax.inject_hyperparams makes the optimizer anew in every step, from JAX
arrays; reading those back would stall the device.)
"""

import functools
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from optax_rprop import _packing
from optax_rprop._rules import Factors

# A number, an array, or a pytree prefix of the parameters that ends in those.
PerWeight: TypeAlias = ArrayLike | optax.Params

NUMBERS = (int, float, complex, np.ndarray, np.generic)
_A_STEP = "at most 2**31: it is an absolute step, in the parameters' units"
_RANGES = {
    "learning_rate": (
        lambda x: (x > 0) & (x <= _packing.LARGEST_STEP_SIZE),
        f"must be above 0 and {_A_STEP}; the default is 0.01.",
    ),
    "eta_minus": (
        lambda x: (x > 0) & (x < 1),
        "must lie strictly between 0 and 1: it shrinks a step size where the gradient changed "
        "sign; the default is 0.5.",
    ),
    "eta_plus": (
        lambda x: (x > 1) & (x < np.inf),
        "must be a finite number above 1: it grows a step size where the gradient kept its sign; "
        "the default is 1.2.",
    ),
    "min_step_size": (
        lambda x: (x >= 0) & (x <= _packing.LARGEST_STEP_SIZE),
        f"must be at least 0 and {_A_STEP}; the default is 1e-6.",
    ),
    "max_step_size": (
        lambda x: (x > 0) & (x <= _packing.LARGEST_STEP_SIZE),
        f"must be above 0 and {_A_STEP}; the default is 50.",
    ),
    "lower": (lambda x: x < np.inf, "must be a number; leave it out, or give None, for no bound."),
    "upper": (lambda x: x > -np.inf, "must be a number; leave it out, or give None, for no bound."),
}
_LIMITS = "the first step size must lie in [min_step_size, max_step_size]; move it, or widen them."
_FIRST_STEP = (
    "It is the first step size, and all later ones follow the gradient's signs, so a schedule "
    "would change nothing; schedule max_step_size, through optax.inject_hyperparams."
)
_NUMBERS_ALONE = (
    "Pass a schedule through optax.inject_hyperparams, and of a module its arrays alone: "
    "eqx.filter(module, eqx.is_inexact_array)."
)
_ORDERED = (
    ("min_step_size", "max_step_size", "lower the one or raise the other."),
    ("learning_rate", "max_step_size", _LIMITS),
    ("min_step_size", "learning_rate", _LIMITS),
    ("lower", "upper", "lower the one or raise the other."),
)


def given(**hyperparameters: PerWeight | None) -> dict[str, Any]:
    """What an optimizer was given, by name, checked as far as it is known.

    Raises:
      TypeError: for a function.
      ValueError: for a number out of range.
    """
    for name, tree in hyperparameters.items():
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            if callable(value):
                remedy = _FIRST_STEP if name == "learning_rate" else _NUMBERS_ALONE
                raise TypeError(
                    f"{name}{jax.tree_util.keystr(path)}={value!r} is a function; it must be a "
                    f"number or an array. {remedy}"
                )
    check({name: x for name, x in hyperparameters.items() if isinstance(x, NUMBERS)}, _RANGES)
    return {name: jax.tree.map(_as_float, tree) for name, tree in hyperparameters.items()}


def check(numbers: dict[str, Any], ranges: dict[str, tuple], where: str = "") -> None:
    """Raises ValueError for a number outside the range that `ranges` has for its name."""
    # In NumPy from the first: inside jit, an operation on a JAX array is traced.
    arrays = {name: np.asarray(number) for name, number in numbers.items()}
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    known = {name: np.real(array).astype(np.float64) for name, array in arrays.items()}
    for name, number in known.items():
        if np.any(np.imag(arrays[name])):
            raise ValueError(f"{name}{where}={arrays[name]} must be real.")
        holds, demand = ranges[name]
        if not np.all(holds(number)):
            raise ValueError(f"{name}{where}={number[~holds(number)].flat[0]:g} {demand}")
    for small, large, remedy in _ORDERED:
        if small in known and large in known:
            low, high = np.broadcast_arrays(known[small], known[large])
            if np.any(low > high):
                low, high = low[low > high][0], high[low > high][0]
                raise ValueError(
                    f"{small}{where}={low:g} is above {large}{where}={high:g}; {remedy}"
                )


def check_leaf(path: tuple, parameter: Any, state_dtype: Any, own: dict[str, Any]) -> None:
    """In `init`, for one parameter with its own values.

    Raises:
      ValueError: for a number out of range or lost to rounding in the state's type, or a
        parameter outside its bounds.
    """
    where = jax.tree_util.keystr(path)
    known = {name: value for name, value in own.items() if is_known(value)}
    check(known, _RANGES, where)
    for name in ("eta_minus", "eta_plus"):
        factor = np.real(np.asarray(known.get(name, 0)))
        if np.any(factor.astype(state_dtype) == 1):
            raise ValueError(
                f"{name}={factor.flat[0]:g} rounds to 1 in a {np.dtype(state_dtype).name} state, "
                "where step sizes would never change; take it further from 1, or pass "
                "step_dtype='float32'."
            )
    if is_known(parameter):
        start = real_parts(parameter)
        low, high = (
            np.broadcast_to(np.asarray(np.real(known.get(name, end)), start.dtype), start.shape)
            for name, end in (("lower", -np.inf), ("upper", np.inf))
        )
        outside = (start < low) | (start > high)
        if outside.any():
            raise ValueError(
                f"parameter {name_of(path)} starts at {float(start[outside][0]):g}, outside "
                f"lower={float(low[outside][0]):g} and upper={float(high[outside][0]):g}; start "
                "inside: jnp.clip(parameter, lower, upper)."
            )


def is_known(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not isinstance(value, jax.core.Tracer) and value.is_fully_addressable
    return isinstance(value, NUMBERS)


def real_parts(array: Any) -> np.ndarray:
    """The numbers in a known array, the parts of complex ones side by side."""
    parts = np.asarray(array)
    return np.stack([np.real(parts), np.imag(parts)]) if np.iscomplexobj(parts) else parts


def name_of(path: tuple) -> str:
    """A leaf's place in its tree, for a message."""
    return jax.tree_util.keystr(path) or "(the only leaf)"


def flatten(tree: Any) -> tuple[list[tuple[tuple, Any]], Any]:
    """The leaves of a tree with their paths, and its structure: a None is a leaf."""
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda leaf: leaf is None)


def per_leaf(name: str, value: Any, tree: Any, optional: bool = False) -> list:
    """The part of a hyperparameter that belongs to each leaf of a tree.

    Args:
      name: the argument, for errors.
      value: a number or an array for every leaf of `tree`, or a prefix of it.
      tree: the parameters, or a tree of their shapes, whose None are leaves too.
      optional: whether a leaf may have no value; its element is then None.

    Returns:
      A list with an element for each leaf of `tree`, which broadcasts to it.

    Raises:
      ValueError: where a key or a shape does not fit; it names the leaf.
    """
    leaves, _ = flatten(tree)
    if jax.tree_util.all_leaves([value]) and np.shape(value) == ():
        return [value] * len(leaves)
    values = dict(jax.tree_util.tree_flatten_with_path(value)[0])
    used, found = set(), []
    for path, leaf in leaves:
        start = next((path[:n] for n in range(len(path) + 1) if path[:n] in values), None)
        used.add(start)
        if start is None:
            if not optional and leaf is not None:
                raise ValueError(
                    f"{name} has no value for parameter {name_of(path)}; a prefix of the "
                    "parameters must reach each. (A list or a tuple is a pytree, not an array.)"
                )
        elif leaf is not None and not _broadcasts(np.shape(values[start]), np.shape(leaf)):
            raise ValueError(
                f"{name}{jax.tree_util.keystr(start)} has shape {np.shape(values[start])}, which "
                f"does not broadcast to parameter {name_of(path)} of shape {np.shape(leaf)}."
            )
        found.append(None if start is None else values[start])
    for path in values.keys() - used if leaves else ():
        raise ValueError(
            f"{name}{jax.tree_util.keystr(path)} belongs to no parameter; the parameters are "
            f"{', '.join(name_of(path) for path, _ in leaves)}. (Inside optax.masked and the "
            "like, give it for those alone that are handed on.)"
        )
    return found


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _as_float(number: Any) -> Any:
    """A Python or NumPy integer as a float: of more than 32 bits, JAX would wrap or refuse it."""
    if isinstance(number, int):
        return float(number)
    if isinstance(number, (np.ndarray, np.integer)) and np.issubdtype(number.dtype, np.integer):
        return number.astype(float)
    return number


def real(number: ArrayLike, dtype: jax.typing.DTypeLike) -> jax.Array:
    """A hyperparameter in the real type that belongs to `dtype`."""
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    return jnp.real(jnp.asarray(number)).astype(jnp.finfo(dtype).dtype)


def as_step_size(number: ArrayLike, dtype: jax.typing.DTypeLike) -> jax.Array:
    """A hyperparameter as a step size that a state of type `dtype` can hold."""
    return _packing.representable(real(number, dtype))


def _as_factor(number: ArrayLike, dtype: jax.typing.DTypeLike) -> jax.Array:
    number = real(number, dtype)
    return jnp.where(number == number, number, 1)  # a traced NaN changes nothing


@functools.partial(jax.jit, static_argnames="dtype")
def _cast(given: Factors, dtype: jax.typing.DTypeLike) -> Factors:
    """Prefixes of factors and limits in a state's type: once, for all leaves of that type."""
    casts = (_as_factor, _as_factor, as_step_size, as_step_size)
    return Factors(
        *(
            jax.tree.map(functools.partial(cast, dtype=dtype), tree)
            for cast, tree in zip(casts, given, strict=True)
        )
    )


def factors(given: dict[str, Any], tree: Any, dtypes: list) -> list[Factors | None]:
    """The factors and limits of each leaf, whose state has the type in `dtypes`, or is None."""
    numbers = Factors(*(given[name] for name in Factors._fields))
    of_type: dict[Any, list] = {None: [None] * len(dtypes)}
    for dtype in {dtype for dtype in dtypes if dtype is not None}:
        columns = zip(Factors._fields, _cast(numbers, dtype), strict=True)
        of_type[dtype] = list(map(Factors, *(per_leaf(*column, tree) for column in columns)))
    return [of_type[dtype][leaf] for leaf, dtype in enumerate(dtypes)]


def own(given: dict[str, Any], tree: Any) -> list[dict[str, Any]]:
    """What is given for each leaf, by name; nothing where a leaf has no bound."""
    columns = {
        name: per_leaf(name, value, tree, optional=name in ("lower", "upper"))
        for name, value in given.items()
    }
    return [
        {name: value for name, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*columns.values(), strict=True)
    ]


def bound(number: ArrayLike | None, otherwise: float, array: jax.Array) -> jax.Array:
    """A bound for each weight of an array; `otherwise`, if it has none, or an infinite one."""
    largest = float(jnp.finfo(array.dtype).max)
    number = otherwise * largest if number is None else number
    return spread(real(jnp.clip(jnp.real(number), -largest, largest), array.dtype), array)


def spread(number: jax.Array, array: jax.Array) -> jax.Array:
    """A hyperparameter, a number or an array, in the shape of an array of weights."""
    if number.ndim == 0:
        return jax.lax.full_like(array, number, dtype=number.dtype)
    return jnp.broadcast_to(number, array.shape)

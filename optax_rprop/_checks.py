"""Checks of what JAX would accept, and go on with to a wrong result.

Python and NumPy numbers are checked when an optimizer is made. JAX arrays are read for their
order alone, since that may stall a device; tracers cannot be: the compiled step clips them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from optax_rprop import _packing

_NUMBERS = (int, float, np.ndarray, np.generic)
_LARGEST = _packing.LARGEST_STEP_SIZE
_INTERVALS = {  # as in mathematics, where "[" and "]" belong to it; a NaN is in none
    "learning_rate": ("(", 0, _LARGEST, "]"),
    "eta_minus": ("(", 0, 1, ")"),
    "eta_plus": ("(", 1, np.inf, ")"),
    "min_step_size": ("[", 0, _LARGEST, "]"),
    "max_step_size": ("(", 0, _LARGEST, "]"),
    "lower": ("[", -np.inf, np.inf, ")"),
    "upper": ("(", -np.inf, np.inf, "]"),
    "momentum": ("(", 0, 1, ")"),
    "tolerance": ("[", 0, np.inf, ")"),
    "rtol": ("[", 0, np.inf, ")"),
    "atol": ("[", 0, np.inf, ")"),
}
_ORDERED = (
    ("min_step_size", "learning_rate"),
    ("learning_rate", "max_step_size"),
    ("min_step_size", "max_step_size"),
    ("lower", "upper"),
)


def check_numbers(**trees: Any) -> None:
    """For numbers, arrays and pytree prefixes of them, by their arguments' names."""
    for name, tree in trees.items():
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            place = name + jax.tree_util.keystr(path)
            if callable(value):
                raise TypeError(
                    f"{place}={value!r} must be a number or an array; for a schedule use "
                    "optax.inject_hyperparams. One of learning_rate changes only the first step."
                )
            if np.dtype(bool) == getattr(value, "dtype", type(value)):  # a mask: True would be 1
                raise TypeError(f"{place}={value!r} must be a number or an array of numbers.")
            if isinstance(value, _NUMBERS):
                begin, low, high, end = _INTERVALS[name]
                above = value >= low if begin == "[" else value > low
                if not np.all(above & (value <= high if end == "]" else value < high)):
                    raise ValueError(f"{place}={value} must lie in {begin}{low:g}, {high:g}{end}.")
    # In each step, optax.inject_hyperparams makes JAX arrays of them; `init` has seen their order.
    check_order(**{k: tree for k, tree in trees.items() if not isinstance(tree, jax.Array)})


def check_order(**numbers: Any) -> None:
    """For those of one leaf, by their arguments' names."""
    known: dict[str, Any] = {k: v for k, v in numbers.items() if _is_known(v)}
    for small, large in _ORDERED:
        if {small, large} <= known.keys() and np.any(np.greater(known[small], known[large])):
            raise ValueError(f"{small}={known[small]} is above {large}={known[large]}.")


def _is_known(number: Any) -> bool:
    if isinstance(number, jax.Array) and not isinstance(number, Tracer):
        return number.is_fully_addressable
    return isinstance(number, _NUMBERS)


def check_state(state: Any, kind: type, options: Mapping[str, bool]) -> None:
    """That it is of this kind, with the fields of these options and no others."""
    if not isinstance(state, kind):
        raise TypeError(f"state must be the {kind.__name__} that init made, not {type(state)}.")
    for field, option in options.items():
        if option != (getattr(state, field) is not None):
            raise ValueError(
                f"state.{field} must {'not ' * option}be None: init was called with other options."
            )


def check_arguments(params: Any, needs_params: bool, value: Any, needs_value: bool) -> None:
    """What an option needs beside the gradients."""
    if needs_params and params is None:
        raise ValueError("bounds and undo_nonfinite need params: update(gradients, state, params).")
    if needs_value and (value is None or np.shape(value) != ()):
        raise ValueError(
            f"value={value} must be the loss, one number: update(gradients, state, params, "
            "value=loss). Where a library does not pass it on, use rprop."
        )


def check_parameter(path: tuple, parameter: Any) -> None:
    """That it has gradients: optax.apply_updates would round each step of an integer to 0."""
    if parameter is not None and not jnp.issubdtype(jnp.result_type(parameter), jnp.inexact):
        raise TypeError(
            f"parameter{jax.tree_util.keystr(path)} has type {jnp.result_type(parameter)}; it "
            "must be floating-point or complex. Keep it out: eqx.is_inexact_array, optax.masked."
        )


def check_fit(path: tuple, gradient: Any, **others: Any) -> None:
    """That a gradient has the shape of what is beside it, and both are real or both complex."""
    if gradient is None:
        return
    for name, other in others.items():
        if other is not None and (
            np.shape(gradient) != np.shape(other)
            or jnp.iscomplexobj(gradient) != jnp.iscomplexobj(other)
        ):
            ours, theirs = (f"{jnp.result_type(x)}{np.shape(x)}" for x in (gradient, other))
            raise ValueError(f"gradient{jax.tree_util.keystr(path)} is {ours}, {name} {theirs}.")

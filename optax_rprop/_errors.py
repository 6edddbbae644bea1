"""What JAX would say cryptically, or not at all: the argument, its value, the remedy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_rprop import _packing
from optax_rprop._hyperparameters import is_known, name_of, real_parts

_STEP_DTYPES = ("bfloat16", "float32", "float64")


def check_step_dtype(dtype: jnp.dtype) -> None:
    """Raises ValueError for a type that cannot hold step sizes."""
    if dtype.name not in _STEP_DTYPES:
        raise ValueError(
            f"step_dtype={dtype.name} cannot hold step sizes; use one of {', '.join(_STEP_DTYPES)}."
        )


def check_undo(undo_nonfinite: bool, rule: str, undoes: bool) -> None:
    """Raises ValueError for an option that the rule would ignore."""
    if undo_nonfinite and not undoes:
        raise ValueError(
            f"undo_nonfinite=True needs a rule that undoes steps, and rule={rule!r} does not; use "
            "rprop_plus or irprop_plus."
        )


def check_parameter(path: tuple, parameter: Any) -> None:
    """Raises TypeError for a leaf that has no gradient."""
    dtype = getattr(parameter, "dtype", None) or np.asarray(parameter).dtype
    if not jnp.issubdtype(dtype, jnp.inexact) or float(jnp.finfo(dtype).min) >= 0:
        raise TypeError(
            f"parameter {name_of(path)} has dtype {dtype}; it must be floating-point, with a sign, "
            "or complex. Convert it with .astype(float), keep it out with optax.masked or "
            "optax.partition, or hand over eqx.filter(module, eqx.is_inexact_array) alone."
        )


def check_alike(path: tuple, name: str, leaf: Any, other_name: str, other: Any) -> None:
    """Raises ValueError or TypeError unless both have one shape and both are real or complex."""
    if np.shape(leaf) != np.shape(other):
        raise ValueError(
            f"{name} {name_of(path)} has shape {np.shape(leaf)}, but {other_name} has shape "
            f"{np.shape(other)} there; they must be equal."
        )
    dtype, other_dtype = jnp.result_type(leaf), jnp.result_type(other)
    if not jnp.issubdtype(dtype, jnp.inexact) or (
        jnp.issubdtype(dtype, jnp.complexfloating)
        != jnp.issubdtype(other_dtype, jnp.complexfloating)
    ):
        raise TypeError(
            f"{name} {name_of(path)} has dtype {dtype}, but {other_name} has dtype {other_dtype} "
            "there; both must be floating-point, or both complex."
        )


def check_state(state: Any, kind: type) -> None:
    """Raises TypeError for anything but a state of the transformation, in its own types."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state is a {type(state).__module__}.{type(state).__name__}, not the "
            f"optax_rprop.{kind.__name__} that init made: call update(gradients, state, params). "
            "(An optimizer's state is a tuple, a part for each of its transformations: "
            "(that one, optax.EmptyState()) for Rprop's.)"
        )


def check_packed(path: tuple, dtype: Any) -> None:
    """Raises TypeError for a type that cannot hold a packed state."""
    if _packing.state_dtype(dtype) != dtype:
        raise TypeError(
            f"the state of {name_of(path)} has dtype {dtype}, in which step sizes are lost; keep "
            "the types that init made."
        )


def check_value(value: Any, prev_value: Any) -> None:
    """Raises where irprop_plus lacks the loss or its memory of the last one.

    ValueError, and TypeError for a loss that is no number, such as the pair of has_aux=True.
    """
    if value is None:
        raise ValueError(
            "value=None, but irprop_plus compares losses: call "
            "update(gradients, state, params, value=loss), through wrappers that pass value on. "
            "rprop_plus(undo_nonfinite=True) undoes steps without it."
        )
    check_loss(value)
    if prev_value is None:
        raise ValueError(
            "prev_value=None: this state is not one of irprop_plus; make it with "
            "irprop_plus(...).init, or pass prev_value to ScaleByRpropState.from_step_sizes."
        )


def check_loss(value: Any) -> None:
    """Raises TypeError unless `value` is one real number."""
    if not jax.tree_util.all_leaves([value]) or np.shape(value) != () or np.iscomplexobj(value):
        raise TypeError(
            f"value={value!r} must be one real number, the loss: take its mean or sum; where "
            "has_aux=True made it a pair, pass its first part."
        )


def check_params(params: Any) -> None:
    """Raises ValueError where bounds lack the parameters."""
    if params is None:
        raise ValueError(
            "params=None, but lower and upper bound the parameters: call "
            "update(gradients, state, params)."
        )


def check_step_sizes(path: tuple, step_sizes: jax.Array) -> None:
    """Raises ValueError for a step size that no state can have."""
    if is_known(step_sizes):
        parts = real_parts(step_sizes).astype(np.float64)
        bad = ~((parts > 0) & (parts <= _packing.LARGEST_STEP_SIZE))
        if bad.any():
            raise ValueError(
                f"step_sizes {name_of(path)} holds {float(parts[bad][0]):g}; a step size "
                "must be above 0 and at most 2**31."
            )


def check_tolerance(tolerance: Any) -> None:
    """Raises ValueError for a tolerance that no step size can meet."""
    if np.shape(tolerance) != () or (is_known(tolerance) and not np.asarray(tolerance) > 0):
        raise ValueError(
            f"tolerance={tolerance!r} must be one number above 0: the step size, in the "
            "parameters' units, at which to stop."
        )


def check_found(found: list, opt_state: Any) -> None:
    """Raises ValueError unless there is a state of Rprop among the parts of `opt_state`."""
    if not found:
        raise ValueError(
            f"found no Rprop state in this {type(opt_state).__name__}; pass the state that the "
            "init or update of an Rprop optimizer returned."
        )


def the_only(found: list, opt_state: Any) -> Any:
    """The one element of `found`. Raises ValueError if it holds none, or several."""
    check_found(found, opt_state)
    if len(found) > 1:
        raise ValueError(
            f"found {len(found)} Rprop states in this {type(opt_state).__name__}; pass the part "
            "that holds the one meant, such as opt_state.inner_states[label] of optax.partition."
        )
    return found[0]

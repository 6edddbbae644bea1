"""What is refused, and every error's words: the argument, its value, the remedy.

Values are checked where they are known: Python and NumPy numbers when an
optimizer is made, JAX arrays and pytrees when `init` sees them, tracers never.
(optax.inject_hyperparams makes the optimizer anew in every step, from JAX
arrays; reading those back would stall the device.)
"""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from optax_rprop import _kernel, _packing

NUMBERS = (int, float, np.ndarray, np.generic)
ARRAYS = (*NUMBERS, jax.Array)
_STEP_DTYPES = ("bfloat16", "float32", "float64")

_AN_ABSOLUTE_STEP = "at most 2**31: it is an absolute step, in the parameters' units"
_DEMANDS = {
    "learning_rate": (
        lambda x: (x > 0) & (x <= _packing.LARGEST_STEP_SIZE),
        f"must be above 0 and {_AN_ABSOLUTE_STEP}; the default is 0.01.",
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
        f"must be at least 0 and {_AN_ABSOLUTE_STEP}; the default is 1e-6.",
    ),
    "max_step_size": (
        lambda x: (x > 0) & (x <= _packing.LARGEST_STEP_SIZE),
        f"must be above 0 and {_AN_ABSOLUTE_STEP}; the default is 50.",
    ),
    "lower": (lambda x: x < np.inf, "must be a number, or -inf for no bound."),
    "upper": (lambda x: x > -np.inf, "must be a number, or inf for no bound."),
}
_LIMITS = "the first step size must lie in [min_step_size, max_step_size]; move it, or widen them."
_ORDERED = (
    ("min_step_size", "max_step_size", "lower the one or raise the other."),
    ("learning_rate", "max_step_size", _LIMITS),
    ("min_step_size", "learning_rate", _LIMITS),
    ("lower", "upper", "lower the one or raise the other."),
)


def name_of(path: tuple) -> str:
    """A leaf's place in its tree, for a message."""
    return jax.tree_util.keystr(path) or "(the only leaf)"


def is_concrete(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not isinstance(value, jax.core.Tracer) and value.is_fully_addressable
    return isinstance(value, NUMBERS)


def _real_parts(array: jax.Array) -> np.ndarray:
    """The numbers in an array, the parts of complex ones side by side."""
    parts = np.asarray(array)
    return np.stack([np.real(parts), np.imag(parts)]) if np.iscomplexobj(parts) else parts


def check_options(rule: str, undo_nonfinite: bool) -> None:
    """Raises ValueError for an unknown rule or an option that cannot be had."""
    if not isinstance(rule, str) or rule not in _kernel.RULES:
        raise ValueError(f"rule={rule!r} is unknown; choose one of {', '.join(_kernel.RULES)}.")
    if not isinstance(undo_nonfinite, (bool, np.bool_)):
        raise TypeError(f"undo_nonfinite={undo_nonfinite!r} must be True or False.")
    if undo_nonfinite and rule not in _kernel.UNDOING_RULES:
        raise ValueError(
            f"undo_nonfinite=True needs a rule that undoes steps, and rule={rule!r} does not; "
            f"use {' or '.join(_kernel.UNDOING_RULES)}."
        )


def the_step_dtype(step_dtype: Any) -> Any:
    """The type that is meant, or None. Raises ValueError for one that cannot hold step sizes."""
    if step_dtype is None:
        return None
    try:
        dtype = jnp.dtype(step_dtype)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in _STEP_DTYPES:
        raise ValueError(
            f"step_dtype={repr(step_dtype) if dtype is None else dtype.name} cannot hold step "
            f"sizes; use one of {', '.join(_STEP_DTYPES)}."
        )
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError("step_dtype=float64 needs jax_enable_x64; set it, or use float32.")
    return dtype


def check_hyperparameters(**hyperparameters: Any) -> None:
    """At construction, by argument name.

    Raises:
      TypeError: for what is no number, array or pytree of them.
      ValueError: for a number out of range.
    """
    for name, tree in hyperparameters.items():
        if tree is None:
            raise TypeError(f"{name}=None must be a number or an array.")
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            full_name = name + jax.tree_util.keystr(path)
            if name.startswith("eta") and (path or np.shape(value) != ()):
                raise ValueError(f"{name}={tree!r} must be one number for all parameters.")
            if name == "learning_rate" and callable(value):
                raise TypeError(
                    f"{full_name}={value!r} is a schedule and would do nothing after the first "
                    "step: learning_rate is the first step size, and all later ones follow the "
                    "gradient's signs. Pass a number; to bound the steps over time, schedule "
                    "max_step_size through optax.inject_hyperparams."
                )
            if not isinstance(value, ARRAYS):
                remedy = " Pass a schedule through optax.inject_hyperparams." * callable(value)
                raise TypeError(f"{full_name}={value!r} must be a number or an array." + remedy)
    numbers = {name: x for name, x in hyperparameters.items() if isinstance(x, NUMBERS)}
    check_values(numbers, _DEMANDS)


def check_leaf(
    path: tuple, parameter: jax.Array, state_dtype: Any, hyperparameters: dict[str, Any]
) -> None:
    """In `init`, for one parameter with its own hyperparameters.

    Raises:
      ValueError: for a hyperparameter out of range or lost to rounding in the
        state's type, or a parameter outside its bounds.
    """
    where = jax.tree_util.keystr(path)
    known = {name: x for name, x in hyperparameters.items() if is_concrete(x)}
    check_values(known, _DEMANDS, where)
    for name in ("eta_minus", "eta_plus"):
        factor = np.real(np.asarray(known.get(name, 0)))
        if factor.astype(state_dtype) == 1:
            raise ValueError(
                f"{name}={factor:g} rounds to 1 in a {np.dtype(state_dtype).name} state, where "
                "step sizes would never change; take it further from 1, or pass "
                "step_dtype='float32'."
            )
    if is_concrete(parameter) and {"lower", "upper"} <= known.keys():
        parts = _real_parts(parameter)
        lower, upper = (
            np.real(np.asarray(known[name])).astype(parts.dtype) for name in ("lower", "upper")
        )
        outside = (parts < lower) | (parts > upper)
        if outside.any():
            start, low, high = (
                float(np.broadcast_to(x, outside.shape)[outside][0]) for x in (parts, lower, upper)
            )
            raise ValueError(
                f"parameter {name_of(path)} starts at {start:g}, outside lower={low:g} and "
                f"upper={high:g}; start inside: jnp.clip(parameter, lower, upper)."
            )


def check_values(numbers: dict[str, Any], demands: dict[str, Any], where: str = "") -> None:
    """Raises ValueError for a number that does not hold what `demands` says of its name."""
    # In NumPy from the first: inside jit, an operation on a JAX array is traced.
    arrays = {name: np.asarray(x) for name, x in numbers.items()}
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    known = {name: np.real(array).astype(np.float64) for name, array in arrays.items()}
    for name, number in known.items():
        if np.any(np.imag(arrays[name])):
            raise ValueError(f"{name}{where}={arrays[name]} must be real.")
        holds, demand = demands[name]
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


def check_parameter(path: tuple, dtype: Any, step_dtype: Any = None) -> None:
    """Raises TypeError for what has no gradient, ValueError where step_dtype does not apply."""
    if step_dtype is not None and jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"step_dtype={step_dtype.name} is for real parameters, and {name_of(path)} is "
            f"{dtype}, whose state has its own type; leave step_dtype out."
        )
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"parameter {name_of(path)} has dtype {dtype}; it must be floating-point or complex. "
            "Make it so with .astype(float), or keep it out with optax.masked or optax.partition."
        )
    if float(jnp.finfo(dtype).min) >= 0:
        raise TypeError(f"parameter {name_of(path)} has dtype {dtype}, which has no sign.")


def check_same_tree(name: str, tree: Any, other_name: str, other: Any) -> None:
    """Raises ValueError unless both trees have the same structure and shapes."""
    if jax.tree.structure(tree) != jax.tree.structure(other):
        paths, others = (
            {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(t)[0]}
            for t in (tree, other)
        )
        sides = ((name, sorted(paths - others)), (other_name, sorted(others - paths)))
        only = "".join(f" only {side} has {leaves};" for side, leaves in sides if leaves)
        raise ValueError(
            f"{name} and {other_name} are different trees:{only} "
            f"{jax.tree.structure(tree)} against {jax.tree.structure(other)}."
        )
    for (path, leaf), other_leaf in zip(
        jax.tree_util.tree_flatten_with_path(tree)[0], jax.tree.leaves(other), strict=True
    ):
        if np.shape(leaf) != np.shape(other_leaf):
            raise ValueError(
                f"{name} {name_of(path)} has shape {np.shape(leaf)}, but {other_name} has shape "
                f"{np.shape(other_leaf)} there; they must be equal."
            )


def _check_alike(name: str, tree: Any, other_name: str, other: Any) -> None:
    """The same structure and shapes, and leaf by leaf both real or both complex."""
    check_same_tree(name, tree, other_name, other)
    for (path, leaf), other_leaf in zip(
        jax.tree_util.tree_flatten_with_path(tree)[0], jax.tree.leaves(other), strict=True
    ):
        kinds = jnp.result_type(leaf), jnp.result_type(other_leaf)
        if not jnp.issubdtype(kinds[0], jnp.inexact):
            raise TypeError(
                f"{name} {name_of(path)} has dtype {kinds[0]}; it must be floating-point or "
                "complex."
            )
        is_complex, should_be = (jnp.issubdtype(kind, jnp.complexfloating) for kind in kinds)
        if is_complex != should_be:
            raise TypeError(
                f"{name} {name_of(path)} has dtype {kinds[0]}, but {other_name} has dtype "
                f"{kinds[1]} there; both must be real or both complex."
            )


def check_gradients(updates: Any, state: Any) -> None:
    """Raises ValueError or TypeError unless these are gradients of the state's parameters."""
    _check_alike("the gradient", updates, "the state", state)


def check_state(state: Any, kind: type) -> None:
    """Raises TypeError for anything but a state of the transformation."""
    if not isinstance(state, kind):
        given = f"{type(state).__module__}.{type(state).__name__}"
        raise TypeError(
            f"state is a {given}, not the optax_rprop.{kind.__name__} that init made: call "
            "update(gradients, state, params). (An optimizer's state is a tuple, a part for each "
            "of its transformations: (that one, optax.EmptyState()) for Rprop's.)"
        )


def check_packed(packed: list) -> None:
    """Raises TypeError for arrays of a type that cannot hold a packed state."""
    for dtype in {leaf.dtype for leaf in packed}:
        if _packing.state_dtype(dtype) != dtype:
            raise TypeError(
                f"the state holds {dtype} arrays, in which step sizes are lost; keep the types "
                "that init made."
            )


def check_value(value: Any, prev_value: Any) -> None:
    """Raises ValueError where irprop_plus lacks the loss or its memory of the last one.

    Also TypeError for a loss that is no number, such as the pair that has_aux=True gives.
    """
    if value is None:
        raise ValueError(
            "value=None, but irprop_plus compares losses: call "
            "update(gradients, state, params, value=loss), through wrappers that pass value on; "
            "rprop_plus and irprop_minus need none."
        )
    if not isinstance(value, ARRAYS):
        raise TypeError(
            f"value={value!r} must be one number, the loss; where has_aux=True made it a pair, "
            "pass its first part."
        )
    if np.shape(value) != () or np.iscomplexobj(value):
        raise ValueError(
            f"value has shape {np.shape(value)} and dtype {jnp.result_type(value)}; irprop_plus "
            "needs one real number, the loss: take its mean or sum."
        )
    if prev_value is None:
        raise ValueError(
            "prev_value=None: this state is not one of irprop_plus; make it with "
            "irprop_plus(...).init, or pass prev_value to ScaleByRpropState.from_step_sizes."
        )


def check_params(params: Any, updates: Any) -> None:
    """Raises ValueError where bounds lack the parameters, or have others."""
    if params is None:
        raise ValueError(
            "params=None, but lower and upper bound the parameters: call "
            "update(gradients, state, params)."
        )
    _check_alike("params", params, "the gradient", updates)


def check_parts(path: tuple, step_sizes: jax.Array, prev_signs: jax.Array) -> None:
    """Raises TypeError or ValueError for step sizes and signs that no state can have."""
    if not jnp.issubdtype(step_sizes.dtype, jnp.inexact):
        raise TypeError(
            f"step_sizes {name_of(path)} has dtype {step_sizes.dtype}; it must be floating-point "
            "or complex, as the parameters are."
        )
    both = (step_sizes, prev_signs)
    are_complex = [jnp.issubdtype(part.dtype, jnp.complexfloating) for part in both]
    if are_complex == [False, True]:
        raise TypeError(
            f"prev_signs {name_of(path)} is complex and step_sizes is not; both belong to the "
            "same parameter."
        )
    if is_concrete(step_sizes):
        parts = _real_parts(step_sizes).astype(np.float64)
        bad = ~((parts > 0) & (parts <= _packing.LARGEST_STEP_SIZE))
        if bad.any():
            raise ValueError(
                f"step_sizes {name_of(path)} holds {float(parts[bad][0]):g}; a step size "
                "must be above 0 and at most 2**31."
            )


def check_tolerance(tolerance: Any) -> None:
    """Raises TypeError, ValueError for what no step size can be compared with."""
    if not isinstance(tolerance, ARRAYS):
        raise TypeError(
            f"tolerance is a {type(tolerance).__name__}, not a number: call "
            "converged(opt_state, tolerance)."
        )
    if np.shape(tolerance) != () or (is_concrete(tolerance) and not np.asarray(tolerance) > 0):
        raise ValueError(
            f"tolerance={tolerance!r} must be one number above 0: the step size, in the "
            "parameters' units, at which to stop."
        )


def the_only_state(found: list, opt_state: Any) -> Any:
    """The one element of `found`. Raises ValueError if it holds none, or several."""
    if len(found) != 1:
        remedy = (
            "the part that holds the one meant, such as opt_state.inner_states[label] of "
            "optax.partition."
            if found
            else "the state that the init or update of an Rprop optimizer returned."
        )
        raise ValueError(
            f"found {len(found)} Rprop states in this {type(opt_state).__name__}, not one; pass "
            + remedy
        )
    return found[0]

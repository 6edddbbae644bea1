"""Every check, and every error message: the argument, its value, what to do.

There is a check where JAX would say something cryptic, or nothing. Values are checked where
they are known: Python and NumPy numbers when an optimizer is made, JAX arrays and pytrees
when `init` sees them, tracers never. (optax.inject_hyperparams makes the optimizer anew in
every step, from JAX arrays; reading those back would stall the device.)
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from optax_rprop import _packing

NUMBERS = (int, float, complex, np.ndarray, np.generic)
_STEP_DTYPES = ("bfloat16", "float32", "float64")
_UNITS = "step size, in the units of the parameters"
_NO_BOUND = "no bound is None, in an array {}inf"
_ONE_TREE = "both must have the tree that init was given: call init again if the parameters changed"
_MOST_NAMES = 10  # of parameters, in one message


# Hyperparameters


class Interval(NamedTuple):
    """The numbers that an argument may be, what it does, and its default."""

    low: float
    high: float
    ends: str  # "[" and "]" where the end is one of them, "(" and ")" where it is not
    hint: str
    default: float | None = None

    def holds(self, number: np.ndarray) -> np.ndarray:
        above = number >= self.low if self.ends[0] == "[" else number > self.low
        below = number <= self.high if self.ends[1] == "]" else number < self.high
        return above & below

    def __str__(self) -> str:
        finite = self.ends[1] == ")" and self.high == np.inf and self.low > -np.inf
        words = []
        if (self.low, self.ends[0]) != (-np.inf, "["):
            words.append(f"{'at least' if self.ends[0] == '[' else 'above'} {self.low:g}")
        if not finite and (self.high, self.ends[1]) != (np.inf, "]"):
            high = "2**31" if self.high == _packing.LARGEST_STEP_SIZE else f"{self.high:g}"
            words.append(f"{'at most' if self.ends[1] == ']' else 'below'} {high}")
        default = "" if self.default is None else f"; the default is {self.default:g}"
        return f"a {'finite ' * finite}number {' and '.join(words)}: {self.hint}{default}"


INTERVALS = {
    "learning_rate": Interval(0, _packing.LARGEST_STEP_SIZE, "(]", f"it is the first {_UNITS}"),
    "eta_minus": Interval(
        0, 1, "()", "it shrinks a step size where the gradient changed sign", 0.5
    ),
    "eta_plus": Interval(
        1, np.inf, "()", "it grows a step size where the gradient kept its sign", 1.2
    ),
    "min_step_size": Interval(0, _packing.LARGEST_STEP_SIZE, "[]", f"it is the smallest {_UNITS}"),
    "max_step_size": Interval(0, _packing.LARGEST_STEP_SIZE, "(]", f"it is the largest {_UNITS}"),
    "lower": Interval(-np.inf, np.inf, "[)", _NO_BOUND.format("-")),
    "upper": Interval(-np.inf, np.inf, "(]", _NO_BOUND.format("")),
    "momentum": Interval(0, 1, "()", "it is the decay of the average of past moves", 0.8),
    "step_sizes": Interval(0, _packing.LARGEST_STEP_SIZE, "(]", f"each is a {_UNITS}"),
    "tolerance": Interval(0, np.inf, "()", "the step size, in the parameters' units, to stop at"),
    "rtol": Interval(0, np.inf, "[)", "the accuracy that is wanted, as a part of each parameter"),
    "atol": Interval(0, np.inf, "[)", "the accuracy that is wanted, in the parameters' units"),
}
GAIN_INTERVALS = {
    "learning_rate": Interval(0, np.inf, "[)", "it may also be a schedule"),
    "decay": Interval(0, 1, "[)", "it is the memory of squared gradients", 0.9),
    "eps": Interval(0, np.inf, "[)", "it is added to the squared gradients' average", 1e-8),
    "increase": Interval(0, np.inf, "()", "it is added to a gain", 0.05),
    "decrease": Interval(0, 1, "()", "it multiplies a gain", 0.8),
    "average_decay": Interval(0, 1, "[)", "it is the average's memory", 0.9),
    "min_gain": Interval(0, 1, "(]", "gains start at 1", 0.1),
    "max_gain": Interval(1, np.inf, "[)", "gains start at 1", 10.0),
}
# The option that each field of the state belongs to.
_OPTIONS = {
    "prev_value": "the loss of irprop_plus",
    "along": "momentum",
    "num_steps": "learning_rate=None",
    "domain": "undo_nonfinite=True",
}
_FIRST_STEP = "the first step size must lie in [min_step_size, max_step_size]"
_ORDERED = (
    ("min_step_size", "max_step_size", "decrease min_step_size or increase max_step_size"),
    ("learning_rate", "max_step_size", f"{_FIRST_STEP}; move it, or widen them"),
    ("min_step_size", "learning_rate", f"{_FIRST_STEP}; move it, or widen them"),
    ("lower", "upper", "decrease lower or increase upper"),
)


def check_hyperparams(trees: Mapping[str, Any]) -> None:
    """When an optimizer is made: raises TypeError for what is no number, ValueError as below."""
    for name, tree in trees.items():
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            place = name + jax.tree_util.keystr(path)
            if callable(value):
                raise TypeError(
                    f"{place}={value!r} is a function; it must be a number or an array. "
                    + (
                        "It is the first step size, and all later ones follow the gradient's "
                        "signs, so a schedule would change nothing; schedule max_step_size, "
                        "through optax.inject_hyperparams."
                        if name == "learning_rate"
                        else "Pass a schedule through optax.inject_hyperparams, and of a module "
                        "its arrays alone: eqx.filter(module, eqx.is_inexact_array)."
                    )
                )
            if not _is_numeric(value):
                raise TypeError(f"{place}={value!r} must be a number or an array of numbers.")
            if path and isinstance(value, NUMBERS):
                if isinstance(tree, (tuple, list)) and name == "eta_minus" and len(tree) == 2:
                    check_pair_of_factors(tree)
                check_values({name: value}, where=jax.tree_util.keystr(path))
    check_values({name: tree for name, tree in trees.items() if isinstance(tree, NUMBERS)})


def check_pair_of_factors(pair: Any) -> None:
    """Raises ValueError for PyTorch's `etas` in the place of eta_minus."""
    if all(isinstance(factor, (int, float)) for factor in pair) and pair[0] < 1 < pair[1]:
        raise ValueError(
            f"eta_minus={pair!r} is a pair; PyTorch's etas are two arguments here: "
            f"eta_minus={pair[0]}, eta_plus={pair[1]}."
        )


def check_values(
    values: Mapping[str, Any], where: str = "", intervals: Mapping[str, Interval] = INTERVALS
) -> None:
    """Raises ValueError for a number outside its interval, or two in the wrong order."""
    # In NumPy from the first: inside jit, an operation on a JAX array is traced.
    arrays = {name: np.asarray(value) for name, value in values.items()}
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    known = {name: np.real(array).astype(np.float64) for name, array in arrays.items()}
    for name, number in known.items():
        if np.any(np.imag(arrays[name])):
            raise ValueError(f"{name}{where}={arrays[name]} must be real.")
        bad = ~intervals[name].holds(number)
        if np.any(bad):
            raise ValueError(f"{name}{where}={number[bad].flat[0]:g} must be {intervals[name]}.")
    for small, large, remedy in _ORDERED:
        if small in known and large in known:
            low, high = np.broadcast_arrays(known[small], known[large])
            if np.any(low > high):
                low, high = low[low > high][0], high[low > high][0]
                raise ValueError(
                    f"{small}{where}={low:g} is above {large}{where}={high:g}; {remedy}."
                )


def check_scalars(
    numbers: Mapping[str, Any], intervals: Mapping[str, Interval] = INTERVALS
) -> None:
    """Raises TypeError for what is no number, ValueError for more than one or one out of range."""
    for name, value in numbers.items():
        if not isinstance(value, (*NUMBERS, jax.Array)):
            raise TypeError(
                f"{name}={value!r} must be a number; one for all parameters, or a schedule "
                "through optax.inject_hyperparams."
            )
        if np.shape(value) != ():
            raise ValueError(f"{name}={value!r} must be one number for all parameters.")
    numbers = {name: x for name, x in numbers.items() if not isinstance(x, jax.Array)}
    check_values(numbers, intervals=intervals)


def check_known(numbers: Mapping[str, Any], intervals: Mapping[str, Interval] = INTERVALS) -> None:
    """In `init`, for numbers that may be JAX arrays. Raises ValueError for one out of range."""
    known = {name: value for name, value in numbers.items() if is_known(value)}
    check_values(known, intervals=intervals)


def check_leaf(path: tuple, parameter: Any, state_dtype: Any, own: Mapping[str, Any]) -> None:
    """In `init`, for one parameter and its own hyperparameters.

    Raises ValueError for a number out of range or lost to rounding in the state's type, and
    for a parameter outside its bounds.
    """
    known = {name: value for name, value in own.items() if is_known(value)}
    check_values(known, where=jax.tree_util.keystr(path))
    for name in ("eta_minus", "eta_plus"):
        factors = np.atleast_1d(np.real(np.asarray(known.get(name, 0))))
        lost = factors[factors.astype(state_dtype) == 1]
        if lost.size:
            raise ValueError(
                f"{name}={float(lost[0])} rounds to 1 in a {np.dtype(state_dtype).name} state, "
                "where step sizes would never change; take it further from 1, or a wider "
                "step_dtype."
            )
    if is_known(parameter) and {"lower", "upper"} & known.keys():
        start = real_parts(parameter)
        with np.errstate(over="ignore"):  # infinite where the type of the parameter ends
            low, high = (
                np.broadcast_to(np.asarray(np.real(known.get(name, end)), start.dtype), start.shape)
                for name, end in (("lower", -np.inf), ("upper", np.inf))
            )
        outside = ~((start >= low) & (start <= high))  # a NaN too
        if outside.any():
            raise ValueError(
                f"parameter {name_of(path)} starts at {float(start[outside][0]):g}, outside "
                f"lower={float(low[outside][0]):g} and upper={float(high[outside][0]):g}; start "
                "inside: jnp.clip(parameter, lower, upper)."
            )


def refuse_missing_value(name: str, value: Any, path: tuple) -> NoReturn:
    """For a hyperparameter whose prefix does not reach a parameter."""
    if value is None:
        raise ValueError(f"{name}=None is not a number; leave it out for the default.")
    raise ValueError(
        f"{name} has no value for parameter {name_of(path)}; a prefix of the parameters must "
        "reach each."
    )


def refuse_unused_value(name: str, path: tuple, paths: Sequence[tuple]) -> NoReturn:
    """For a part of a prefix that belongs to no parameter."""
    parameter = next((path[:n] for n in range(len(path)) if path[:n] in paths), None)
    if parameter is not None:
        raise ValueError(
            f"{name}{jax.tree_util.keystr(parameter)} is a pytree (a dict, a list or a tuple), "
            "where the parameter is one array; use a number or jnp.array."
        )
    names = [*map(name_of, paths[:_MOST_NAMES]), *["..."] * (len(paths) > _MOST_NAMES)]
    raise ValueError(
        f"{name}{jax.tree_util.keystr(path)} belongs to no parameter; the parameters are "
        f"{', '.join(names)}. Give one number for all, or a tree like the one that init was given. "
        "(Wrappers such as optax.masked may have changed it.)"
    )


def check_length(name: str, value: Any, paths: Sequence[tuple]) -> None:
    """Raises ValueError for a list that is shorter than that of the parameters."""
    indices = [path[0].idx for path in paths if path and hasattr(path[0], "idx")]
    if isinstance(value, (list, tuple)) and len(value) <= max(indices, default=-1):
        raise ValueError(
            f"{name} is a {type(value).__name__} of {len(value)}, for {max(indices) + 1} "
            "parameters; give each a value (a bound may be None)."
        )


def check_broadcasts(name: str, start: tuple, value: Any, path: tuple, leaf: Any) -> None:
    """Raises ValueError for an array that does not broadcast to its parameter."""
    shape, target = np.shape(value), np.shape(leaf)
    try:
        broadcasts = np.broadcast_shapes(shape, target) == target
    except ValueError:
        broadcasts = False
    if not broadcasts:
        raise ValueError(
            f"{name}{jax.tree_util.keystr(start)} has shape {shape}, which does not broadcast to "
            f"parameter {name_of(path)} of shape {target}."
        )


def check_step_dtype(step_dtype: Any) -> jnp.dtype:
    """The type of a name or a type. Raises ValueError for one that cannot hold step sizes."""
    try:
        dtype = jnp.dtype(step_dtype)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in _STEP_DTYPES:
        raise ValueError(
            f"step_dtype={dtype.name if dtype else repr(step_dtype)} cannot hold step sizes; use "
            f"one of {', '.join(_STEP_DTYPES)}."
        )
    return dtype


def check_flag(name: str, value: Any, words: str = "True or False") -> None:
    """Raises TypeError for anything but True and False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={value!r} must be {words}.")


def check_momentum(momentum: Any, rule: str, undoes: bool) -> None:
    """Raises ValueError for a decay that is none, or a rule that takes steps back."""
    check_scalars({"momentum": momentum})
    if undoes:
        raise ValueError(
            f"momentum={momentum!r} needs a rule that undoes no step, and rule={rule!r} does; "
            "use 'irprop_minus', or momentum=None."
        )


def check_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError for options that the minimiser does not know."""
    for name, value in options.items():
        if name != "autodiff_mode":
            raise ValueError(
                f"options has the unknown key {name!r}; the only one is 'autodiff_mode'. Bounds "
                "and other settings are arguments of the solver: RpropMinimiser(..., lower=0.0)."
            )
        if value not in ("bwd", "fwd"):
            raise ValueError(f"options['autodiff_mode']={value!r} must be 'bwd' or 'fwd'.")


def check_rule(rule: Any, rules: Collection[str]) -> None:
    """Raises ValueError for a rule that does not exist."""
    if not isinstance(rule, str) or rule not in rules:
        raise ValueError(
            f"rule={rule!r} is unknown; use one of {', '.join(map(repr, rules))}. (Momentum is an "
            "argument: momentum=0.8.)"
        )


def check_start(y0: Any) -> None:
    """Raises ValueError where the minimiser has nothing to start from."""
    if y0 is None:
        raise ValueError("y0=None; it must be a pytree of arrays.")


def check_norm(norm: Any) -> None:
    """Raises TypeError for a number: the minimiser's third argument is not its step size."""
    if not callable(norm):
        raise TypeError(f"norm={norm!r} must be a function; give learning_rate by its name.")


def messages_of_start(path: tuple, rounding: float, margin: int) -> list[str]:
    """For a start of the minimiser: out of bounds, a step lost in its weight, or a small one."""
    name = "y0" + jax.tree_util.keystr(path)
    step = "learning_rate and max_step_size must be above"
    return [
        f"{name} must lie between lower and upper; start inside: jnp.clip({name}, lower, upper).",
        f"{step} the rounding of {name}, {rounding:.2g} * abs({name}): smaller steps are lost.",
        f"{step} (rtol * abs({name}) + atol) / {margin}, or the start counts as a minimum; "
        "increase them, or decrease rtol and atol.",
    ]


# Parameters, gradients and losses


def check_parameter(path: tuple, parameter: Any) -> None:
    """Raises TypeError for a leaf that has no gradient."""
    dtype = getattr(parameter, "dtype", None) or np.asarray(parameter).dtype
    try:
        has_gradient = jnp.issubdtype(dtype, jnp.inexact) and float(jnp.finfo(dtype).min) < 0
    except TypeError:  # another library's type
        has_gradient = False
    if not has_gradient:
        raise TypeError(
            f"parameter {name_of(path)} has dtype {dtype}; it must be an array of JAX or NumPy, "
            "floating-point (signed) or complex. Convert it with jnp.asarray(parameter, float), "
            "keep it out with optax.masked or optax.partition, or hand over "
            "eqx.filter(module, eqx.is_inexact_array) alone."
        )


def check_finite(path: tuple, parameter: Any) -> None:
    """Raises ValueError for a known parameter to which undo_nonfinite could not go back."""
    if is_known(parameter):
        numbers = real_parts(parameter)
        bad = numbers[~np.isfinite(numbers)]
        if bad.size:
            raise ValueError(
                f"parameter {name_of(path)} is {bad[0]:g} at the start; "
                "undo_nonfinite=True goes back to the last finite point, so the first must be "
                "finite."
            )


def check_alike(path: tuple, name: str, leaf: Any, other_name: str, other: Any) -> None:
    """Raises ValueError or TypeError unless both have one shape and both are real or complex."""
    if callable(leaf):
        raise TypeError(f"{name} {name_of(path)} is a function, {leaf!r}; call it first.")
    if not jax.tree_util.all_leaves([leaf, other]):
        kind, other_kind = map(_node_type, map(jax.tree.structure, (leaf, other)))
        raise ValueError(
            f"{name} {name_of(path)} is {kind}, but {other_name} is {other_kind} there; "
            f"{_ONE_TREE}."
        )
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


def check_gradients(gradients: Any, packed: Any) -> None:
    """Raises ValueError for no gradients at all. A leaf that is None leaves its parameter alone."""
    if gradients is None and jax.tree.leaves(packed):
        raise ValueError("the gradients are None; call update(gradients, state, params).")


def check_params(params: Any, options: Collection[str]) -> None:
    """Raises ValueError where options lack the parameters that they need."""
    if params is None and options:
        raise ValueError(
            f"params=None, but the parameters are needed for {' and '.join(options)}: call "
            "update(gradients, state, params)."
        )


def check_loss(value: Any, name: str = "value") -> None:
    """Raises ValueError where irprop_plus lacks the loss, TypeError unless it is one number."""
    if value is None:
        raise ValueError(
            "value=None, but irprop_plus compares losses: call "
            "update(gradients, state, params, value=loss). Where a library calls update and does "
            "not pass value on, use rprop, or rprop(undo_nonfinite=True) against domain errors."
        )
    is_number = isinstance(value, (*NUMBERS, jax.Array))
    if not is_number or np.shape(value) != () or np.iscomplexobj(value):
        raise TypeError(
            f"{name}={value!r} must be one real number, the loss: take its mean or sum; where "
            "has_aux=True made it a pair, pass its first part."
        )


def leaves_of(
    tree: Any, name: str, treedef: Any, of: str = "the gradients", remedy: str = _ONE_TREE
) -> list:
    """What a tree has beside each leaf of the gradients, whose structure is `treedef`.

    Raises ValueError where the two differ: JAX's own message would print a packed state.
    """
    try:
        return treedef.flatten_up_to(tree)
    except ValueError:
        raise ValueError(f"{_difference(tree, name, treedef, of)}; {remedy}.") from None


def _difference(tree: Any, name: str, treedef: Any, of: str) -> str:
    def paths(tree: Any) -> list[tuple]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)
        return [path for path, _ in leaves]

    ours, theirs = map(_node_type, (treedef, jax.tree.structure(tree)))
    if ours != theirs:
        return f"{of} are {ours}, but {name} is {theirs}"
    ours, theirs = paths(treedef.unflatten(range(treedef.num_leaves))), paths(tree)
    for path in theirs:
        if any(path == other[: len(path)] for other in ours if other != path):
            return f"{of} have a pytree or a list at {name_of(path)}, where {name} has one array"
        if path not in ours:
            return f"{name} has {name_of(path)}, which {of} lack"
    for path in ours:
        if path not in theirs:
            return f"{of} have {name_of(path)}, which {name} lacks"
    return f"{of} are {treedef}, but {name} is {jax.tree.structure(tree)}"


def _node_type(treedef: Any) -> str:
    node = treedef.node_data()
    return f"a {node[0].__name__}" if node else "an array"


# States


def check_state(state: Any, kind: type) -> None:
    """Raises TypeError for anything but a state of this kind."""
    if not isinstance(state, kind):
        _refuse_state(state, f"optax_rprop.{kind.__name__}")


def check_chain_state(state: Any, kind: type) -> None:
    """Raises TypeError for anything but a tuple of a state of this kind and an empty one."""
    if not (isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], kind)):
        _refuse_state(state, f"tuple (optax_rprop.{kind.__name__}, optax.EmptyState)")


def _refuse_state(state: Any, made: str) -> NoReturn:
    def kind(part: Any) -> str:
        package = type(part).__module__.split(".")[0]
        return type(part).__name__ if package == "builtins" else f"{package}.{type(part).__name__}"

    given = "None" if state is None else f"of type {kind(state)}"
    if type(state) is tuple:
        given = f"the tuple ({', '.join(map(kind, state))})"
    raise TypeError(
        f"state is {given}, not the {made} that init made; pass that, or the second result of "
        "update."
    )


def check_fields(state: Any, needed: Mapping[str, bool]) -> None:
    """Raises ValueError where an option lacks its field of the state, or a field its option."""
    for field, option in needed.items():
        has = getattr(state, field) is not None
        if option != has and (option or field != "prev_value"):  # the published rules share states
            state_made, made = ("with", "without") if has else ("without", "with")
            raise ValueError(
                f"the state was made {state_made} {_OPTIONS[field]} (its field {field}), and this "
                f"optimizer {made}; use the state that its init made."
            )


def check_fit(path: tuple, gradient: Any, packed: Any, parameter: Any) -> None:
    """Raises where a gradient does not fit its state or its parameter, or the state was cast."""
    check_alike(path, "the gradient", gradient, "the state", packed)
    if _packing.state_dtype(packed.dtype) != packed.dtype:
        raise TypeError(
            f"the state of {name_of(path)} has dtype {packed.dtype}, in which step sizes are lost; "
            "keep the types that init made."
        )
    if parameter is not None:
        check_alike(path, "params", parameter, "the gradient", gradient)


def check_step_sizes(path: tuple, step_sizes: jax.Array) -> None:
    """Raises TypeError for integers, ValueError for a step size that no state can have."""
    if not jnp.issubdtype(step_sizes.dtype, jnp.inexact):
        raise TypeError(
            f"step_sizes {name_of(path)} has dtype {step_sizes.dtype}; it must be floating-point "
            "or complex."
        )
    if is_known(step_sizes):
        parts = {"step_sizes": real_parts(step_sizes)}
        check_values(parts, where=jax.tree_util.keystr(path))


def check_tolerance(name: str, tolerance: Any) -> None:
    """Raises TypeError for what is no number, ValueError for one that no step size can meet."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tolerance)
    for path, value in leaves or [((), tolerance)]:
        where = jax.tree_util.keystr(path)
        if not _is_numeric(value) or np.iscomplexobj(value):
            raise TypeError(f"{name}{where}={value!r} must be a real number or an array of them.")
        if is_known(value):
            check_values({name: value}, where)


def check_found(found: list, opt_state: Any, one: bool) -> None:
    """Raises ValueError unless there is a state of Rprop in `opt_state`, or exactly one."""
    kind = type(opt_state).__name__
    if not found:
        raise ValueError(
            f"found no Rprop state in this {kind}; opt_state, the first argument, must be what the "
            "init or update of an Rprop optimizer returned."
        )
    if one and len(found) > 1:
        raise ValueError(
            f"found {len(found)} Rprop states in this {kind}; pass the part that holds the one "
            "meant, such as opt_state.inner_states[label] of optax.partition."
        )


# What the checks ask


def is_known(value: Any) -> bool:
    """Whether the numbers in it can be read without waiting for a device of another process."""
    if isinstance(value, jax.Array):
        return not isinstance(value, jax.core.Tracer) and value.is_fully_addressable
    return isinstance(value, NUMBERS)


def _is_numeric(value: Any) -> bool:
    """Whether it is a number or an array of numbers, or becomes one in JAX."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind not in "OSUb"
    is_number = isinstance(value, (int, float, complex)) and not isinstance(value, bool)
    return is_number or isinstance(value, jax.Array) or hasattr(value, "__jax_array__")


def real_parts(array: Any) -> np.ndarray:
    """The numbers in a known array, the parts of complex ones side by side."""
    parts = np.asarray(array)
    return np.stack([np.real(parts), np.imag(parts)]) if np.iscomplexobj(parts) else parts


def name_of(path: tuple) -> str:
    """A leaf's place in its tree, for a message."""
    return jax.tree_util.keystr(path) or "(the only leaf)"

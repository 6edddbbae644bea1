"""Rprop as an Optax gradient transformation: pytrees, types and extra arguments."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from optax_rprop import _box, _checks, _kernel, _packing
from optax_rprop._dtypes import by_parts, finite_cast
from optax_rprop._prefix import per_leaf
from optax_rprop._state import ScaleByRpropState


def scale_by_rprop(
    learning_rate: Any = 0.01,
    eta_minus: jax.typing.ArrayLike = 0.5,
    eta_plus: jax.typing.ArrayLike = 1.2,
    min_step_size: Any = 1e-6,
    max_step_size: Any = 50.0,
    *,
    rule: str = "irprop_minus",
    step_dtype: Any = None,
    lower: Any = None,
    upper: Any = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Scales the sign of each gradient by an adaptive step size: Rprop without the descent.

    Emits D * sign(gradient), as optax.scale_by_rprop is meant to; follow it with
    `optax.scale(-1)` to descend, and with nothing that changes the updates if the
    rule undoes steps or the parameters are bounded: it counts on what it emitted.
    The optimizers of this package are that chain; see them for the mathematics.

    A derivative taken through an update is right where step sizes are of ordinary
    scale; where no sign is remembered it passes through a factor of 2**-96
    (2**-512 in float64), and what is below the type's range after that is lost.

    Args:
      learning_rate: the first step size; see `irprop_minus` for it and the next four.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      rule: "rprop_minus", "irprop_minus", "rprop_plus" or "irprop_plus", as the
        optimizers of these names; or "shark_irprop_minus", what Shark and OpenCV
        call iRprop-: on a change of sign it steps back by the smaller step size, as
        "rprop_minus" does, and then forgets the sign, as "irprop_minus" does.
      step_dtype: the type of real parameters' step sizes: bfloat16, float32 or float64.
      lower: bounds below the parameters: a number, an array or a pytree prefix. They
        are rounded to the parameters' types. An update that would take a weight out
        of the box is cut to the largest whose rounded sum with it stays inside; its
        step size then does not grow, and its sign is forgotten, so that the first
        step off a bound is no larger than the last that was not cut. `update` needs
        `params`. The real and imaginary parts of a complex parameter have the same
        bounds. A parameter that starts outside is an error where `init` can read it;
        under a transformation such as jit, the first update moves it inside, as far
        as the rounded sum of one update can.
      upper: bounds above the parameters, likewise.
      undo_nonfinite: for "rprop_plus" and "irprop_plus": a NaN gradient is a reversal
        that is undone, and a loss that is not finite is a rise; where the loss alone
        is NaN, as for log of a negative number, see `irprop_plus`. A step that was cut
        at a bound is forgotten and cannot be undone: keep bounds inside the domain.

    Returns:
      A gradient transformation with a `ScaleByRpropState`. Its `update` takes
      `value`, the loss, for "irprop_plus", and ignores further keywords.

    Raises:
      TypeError: see `irprop_minus`.
      ValueError: likewise; for an unknown rule, and for undo_nonfinite with a rule
        that undoes nothing.

    Example:
      >>> import jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax.chain(optax_rprop.scale_by_rprop(0.5), optax.scale(-1))
      >>> opt_state = optimizer.init(jnp.zeros(3))
      >>> updates, opt_state = optimizer.update(jnp.array([1e-9, -2.0, 0.0]), opt_state)
      >>> print(updates)
      [-0.5  0.5 -0. ]
    """
    step_dtype = _checks.the_step_dtype(step_dtype)
    bounded = lower is not None or upper is not None
    per_weight = {
        "learning_rate": learning_rate,
        "min_step_size": min_step_size,
        "max_step_size": max_step_size,
    }
    if bounded:
        per_weight["lower"] = -jnp.inf if lower is None else lower
        per_weight["upper"] = jnp.inf if upper is None else upper
    _checks.check_options(rule, undo_nonfinite)
    _checks.check_hyperparameters(eta_minus=eta_minus, eta_plus=eta_plus, **per_weight)
    eta_minus, eta_plus, per_weight = jax.tree.map(_as_float, (eta_minus, eta_plus, per_weight))

    def own_values(tree: Any, *names: str) -> list[tuple]:
        """For each leaf of `tree`, its own values of the hyperparameters named."""
        return list(zip(*(per_leaf(name, per_weight[name], tree) for name in names), strict=True))

    def init(params: Any) -> Any:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        packed = []
        for (path, leaf), values in zip(leaves, own_values(params, *per_weight), strict=True):
            parameter = jnp.asarray(leaf)
            _checks.check_parameter(path, parameter.dtype, step_dtype)
            dtype = _packing.state_dtype(parameter.dtype, step_dtype)
            own = dict(zip(per_weight, values, strict=True), eta_minus=eta_minus, eta_plus=eta_plus)
            _checks.check_leaf(path, parameter, dtype, own)
            packed.append(_init_leaf(parameter, own["learning_rate"], dtype))
        prev_value = _infinity_beside(params) if rule == "irprop_plus" else None
        return ScaleByRpropState(treedef.unflatten(packed), prev_value)

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        del extra_args
        _checks.check_state(state, ScaleByRpropState)
        _checks.check_gradients(updates, state.signed_step_sizes)
        rose, prev_value = False, state.prev_value
        if rule == "irprop_plus":
            _checks.check_value(value, prev_value)
            rose, prev_value = _compare_values(value, prev_value, undo_nonfinite)
        gradients, treedef = jax.tree.flatten(updates)
        packed = treedef.flatten_up_to(state.signed_step_sizes)
        _checks.check_packed(packed)
        limits = own_values(updates, "min_step_size", "max_step_size")
        boxes: list[tuple | None] = [None] * len(gradients)
        if bounded:
            _checks.check_params(params, updates)
            bounds = own_values(updates, "lower", "upper")
            boxes = list(zip(treedef.flatten_up_to(params), bounds, strict=True))
        shared = {}  # made once for all leaves alike, not in each: a fifth of the compile time
        moved = []
        for old, gradient, own, box in zip(packed, gradients, limits, boxes, strict=True):
            alike = (old.dtype, *map(id, own))
            if alike not in shared:
                shared[alike] = _factors(eta_minus, eta_plus, *own, dtype=old.dtype)
            factors = shared[alike]
            moved.append(_update_leaf(old, gradient, factors, rose, box, rule, undo_nonfinite))
        new = treedef.unflatten([new for new, _ in moved])
        steps = treedef.unflatten([step for _, step in moved])
        return steps, ScaleByRpropState(new, prev_value)

    return optax.GradientTransformationExtraArgs(init, update)


def _as_float(number: Any) -> Any:
    """A Python or NumPy integer as a float: of more than 32 bits, JAX would wrap or refuse it."""
    if isinstance(number, int):
        return float(number)
    if isinstance(number, (np.ndarray, np.integer)) and np.issubdtype(number.dtype, np.integer):
        return number.astype(float)
    return number


def _real(hyperparameter: Any, dtype: Any) -> jax.Array:
    # optax.inject_hyperparams makes every number complex beside complex parameters.
    return jnp.real(jnp.asarray(hyperparameter)).astype(jnp.finfo(dtype).dtype)


def _spread(hyperparameter: jax.Array, array: jax.Array) -> jax.Array:
    """A hyperparameter, a number or an array, in the shape of an array of weights."""
    if hyperparameter.ndim == 0:
        return jax.lax.full_like(array, hyperparameter, dtype=hyperparameter.dtype)
    return jnp.broadcast_to(hyperparameter, array.shape)


def _init_leaf(parameter: jax.Array, learning_rate: Any, dtype: Any) -> jax.Array:
    first = _packing.without_sign(_packing.representable(_real(learning_rate, dtype)))
    # Added to zeros of the parameter's own, so that the state takes its sharding.
    zeros = jnp.zeros_like(parameter, dtype=dtype)
    return by_parts(lambda part: part + _spread(first, part), zeros)


def _infinity_beside(params: Any) -> jax.Array:
    """A scalar +inf, on all the devices of sharded parameters: it is there after a step too."""
    infinity = jnp.full((), jnp.inf, dtype=float)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, jax.sharding.NamedSharding):
                everywhere = jax.sharding.PartitionSpec()
                return jax.device_put(
                    infinity, jax.sharding.NamedSharding(sharding.mesh, everywhere)
                )
    return infinity


@functools.partial(jax.jit, static_argnames="dtype")
def _factors(eta_minus, eta_plus, min_step_size, max_step_size, dtype):
    """The factors for a state of type `dtype`, from hyperparameters that may be traced."""
    # A traced factor can be NaN: it then changes nothing.
    etas = (_real(eta, dtype) for eta in (eta_minus, eta_plus))
    etas = (jnp.where(eta == eta, eta, 1) for eta in etas)
    limits = (_packing.representable(_real(x, dtype)) for x in (min_step_size, max_step_size))
    return _kernel.Factors(*etas, *limits)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _update_leaf(packed, gradient, factors, rose, box, rule, undo_nan):
    """One step of one leaf: the new packed state and the update. Traced once per shape."""
    factors = _kernel.Factors(*(_spread(factor, packed) for factor in factors))

    def move(packed: Any, gradient: Any, parameter: Any = None):
        new, update = _kernel.apply_rule(rule, packed, gradient, factors, rose, undo_nan)
        update = finite_cast(update, gradient.dtype)
        if box is None:
            return new, update
        lower, upper = (_spread(_real(bound, parameter.dtype), parameter) for bound in box[1])
        return _box.stay_inside(parameter, lower, upper, packed, new, update)

    return by_parts(move, packed, gradient, *(() if box is None else box[:1]))


def _compare_values(value, prev_value, nonfinite_rises: bool):
    """Whether the loss rose, strictly, and the last finite loss."""
    value = jnp.asarray(value, dtype=prev_value.dtype)
    finite = jnp.isfinite(value)
    rose = value > prev_value
    if nonfinite_rises:
        rose |= ~finite
    return rose, jnp.where(finite, value, prev_value)

"""Rprop as an Optax gradient transformation: pytrees, types and extra arguments."""

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import optax

from optax_rprop import _box, _errors, _hyperparameters, _packing, _rules
from optax_rprop._dtypes import by_parts, finite_cast
from optax_rprop._hyperparameters import PerWeight
from optax_rprop._state import ScaleByRpropState


def scale_by_rprop(
    learning_rate: PerWeight = 0.01,
    eta_minus: PerWeight = 0.5,
    eta_plus: PerWeight = 1.2,
    min_step_size: PerWeight = 1e-6,
    max_step_size: PerWeight = 50.0,
    *,
    rule: str = "irprop_minus",
    step_dtype: jax.typing.DTypeLike | None = None,
    lower: PerWeight | None = None,
    upper: PerWeight | None = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Scales the sign of each gradient by an adaptive step size: Rprop without the descent.

    Emits D * sign(gradient); follow it with `optax.scale(-1)` to descend, and with nothing
    that changes the updates if the rule undoes steps or the parameters are bounded: it
    counts on what it emitted. Each optimizer of this package is that chain; see
    `irprop_minus` for the mathematics and the arguments.

    A derivative taken through an update is right at ordinary scales. A tiny one, below 1e-9
    or so in float32, may underflow to zero.

    Args:
      learning_rate: the first step size.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      rule: the name of the optimizer whose rule this is.
      step_dtype: the type of real parameters' step sizes.
      lower: bounds below the parameters.
      upper: bounds above the parameters.
      undo_nonfinite: for "rprop_plus" and "irprop_plus": whether to undo a step to where the
        loss or a gradient is not finite.

    Returns:
      A gradient transformation with a `ScaleByRpropState`.

    Raises:
      TypeError: see `irprop_minus`.
      ValueError: likewise; and for undo_nonfinite with a rule that undoes nothing.

    Example:
      >>> import jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax.chain(optax_rprop.scale_by_rprop(0.5), optax.scale(-1))
      >>> opt_state = optimizer.init(jnp.zeros(3))
      >>> updates, opt_state = optimizer.update(jnp.array([1e-9, -2.0, 0.0]), opt_state)
      >>> print(updates)
      [-0.5  0.5 -0. ]
    """
    the_rule = _rules.RULES[rule]
    bounded = lower is not None or upper is not None
    _errors.check_undo(undo_nonfinite, rule, the_rule.undoes)
    if step_dtype is not None:
        step_dtype = jnp.dtype(step_dtype)
        _errors.check_step_dtype(step_dtype)
    given = _hyperparameters.given(
        learning_rate=learning_rate,
        eta_minus=eta_minus,
        eta_plus=eta_plus,
        min_step_size=min_step_size,
        max_step_size=max_step_size,
        lower=lower,
        upper=upper,
    )

    def init(params: optax.Params) -> Any:
        leaves, treedef = _hyperparameters.flatten(params)
        packed = []
        for (path, leaf), own in zip(leaves, _hyperparameters.own(given, params), strict=True):
            if leaf is not None:
                _errors.check_parameter(path, leaf)
                dtype = _packing.state_dtype(jnp.result_type(leaf), step_dtype)
                _hyperparameters.check_leaf(path, leaf, dtype, own)
                # From zeros of the parameter's own, so that the state takes its sharding.
                leaf = _init_leaf(jnp.zeros_like(leaf, dtype=dtype), own["learning_rate"])
            packed.append(leaf)
        prev_value = _largest_beside(params) if the_rule.needs_value else None
        return ScaleByRpropState(treedef.unflatten(packed), prev_value)

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: jax.typing.ArrayLike | None = None,
        **extra_args: object,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        _errors.check_state(state, ScaleByRpropState)
        rose, finite, prev_value = False, True, state.prev_value
        if the_rule.needs_value:
            _errors.check_value(value, prev_value)
            rose, prev_value = _rules.compare_losses(
                jnp.asarray(value, prev_value.dtype), prev_value
            )
        if undo_nonfinite and value is not None:
            _errors.check_loss(value)
            finite = jnp.isfinite(jnp.asarray(value, float))

        leaves, treedef = _hyperparameters.flatten(updates)
        packed = treedef.flatten_up_to(state.packed)
        dtypes = []
        for (path, gradient), old in zip(leaves, packed, strict=True):
            if gradient is not None:
                _errors.check_alike(path, "the gradient", gradient, "the state", old)
                _errors.check_packed(path, old.dtype)
            dtypes.append(None if gradient is None else old.dtype)
        factors = _hyperparameters.factors(given, updates, dtypes)
        bounds = parameters = [None] * len(leaves)
        if bounded:
            _errors.check_params(params)
            ends = {"lower": given["lower"], "upper": given["upper"]}
            bounds = _hyperparameters.own(ends, updates)
            parameters = treedef.flatten_up_to(params)

        steps, new = [], []
        for (path, gradient), old, own, parameter, of_leaf in zip(
            leaves, packed, factors, parameters, bounds, strict=True
        ):
            if gradient is not None:  # beside a None, the parameter is left alone
                box = None
                if of_leaf:
                    _errors.check_alike(path, "params", parameter, "the gradient", gradient)
                    box = parameter, of_leaf.get("lower"), of_leaf.get("upper")
                old, gradient = _update_leaf(
                    old, gradient, own, box, rose, finite, the_rule, undo_nonfinite
                )
            steps.append(gradient)
            new.append(old)
        return treedef.unflatten(steps), ScaleByRpropState(treedef.unflatten(new), prev_value)

    return optax.GradientTransformationExtraArgs(init, update)


@jax.jit
def _init_leaf(zeros: jax.Array, learning_rate: jax.typing.ArrayLike) -> jax.Array:
    """The packed state of one leaf. Compiled once per shape."""
    first = _packing.fresh(_hyperparameters.as_step_size(learning_rate, zeros.dtype))
    return by_parts(lambda part: part + _hyperparameters.spread(first, part), zeros)


def _largest_beside(params: Any) -> jax.Array:
    """The largest finite number, a scalar on all the devices of sharded parameters."""
    largest = jnp.asarray(jnp.finfo(jnp.result_type(float)).max, float)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, jax.sharding.NamedSharding):
                everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
                return jax.device_put(largest, everywhere)
    return largest


@functools.partial(jax.jit, static_argnames=("rule", "undo_nonfinite"))
def _update_leaf(packed, gradient, factors, box, rose, finite, rule, undo_nonfinite):
    """One step of one leaf: the new packed state and the update. Traced once per shape."""
    factors = _rules.Factors(*(_hyperparameters.spread(factor, packed) for factor in factors))

    def move(packed: jax.Array, gradient: jax.Array, parameter: jax.Array | None = None):
        left_domain = (gradient != gradient) | ~finite if undo_nonfinite else None
        new, step = _rules.apply(rule, packed, gradient, factors, rose, left_domain)
        step = finite_cast(step, gradient.dtype)
        if parameter is None:
            return new, step
        lower = _hyperparameters.bound(box[1], -1, parameter)
        upper = _hyperparameters.bound(box[2], 1, parameter)
        return _box.stay_inside(parameter, lower, upper, packed, new, step, rule.undoes)

    return by_parts(move, packed, gradient, *(() if box is None else box[:1]))

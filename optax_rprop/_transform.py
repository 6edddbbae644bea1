"""Rprop as an Optax gradient transformation: pytrees, types and extra arguments."""

from __future__ import annotations  # help() then shows the names of types, not their unions

import functools
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax

from optax_rprop import (
    _box,
    _checks,
    _domain,
    _hyperparameters,
    _momentum,
    _packing,
    _rules,
    _start,
)
from optax_rprop._domain import Verdict
from optax_rprop._dtypes import by_parts, finite_cast, parts
from optax_rprop._hyperparameters import Hyperparams, PerWeight
from optax_rprop._state import DomainState, LeafState, MomentumState, ScaleByRpropState, join, split


class Leaf(NamedTuple):
    """What a step reads of one leaf of the parameters."""

    gradient: Any
    parameter: Any
    hyperparams: Hyperparams
    state: LeafState


class Shared(NamedTuple):
    """What is the same for all leaves in a step: scalars; without its option, one is None."""

    rose: Any = False
    num_steps: Any = None
    decay: Any = None
    coefficient: Any = None
    verdict: Verdict | None = None


def scale_by_rprop(
    learning_rate: PerWeight | None = 0.01,
    eta_minus: PerWeight = 0.5,
    eta_plus: PerWeight = 1.2,
    min_step_size: PerWeight = 1e-6,
    max_step_size: PerWeight = 50.0,
    *,
    rule: str = "irprop_minus",
    momentum: jax.typing.ArrayLike | None = None,
    step_dtype: jax.typing.DTypeLike | None = None,
    lower: PerWeight | None = None,
    upper: PerWeight | None = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Scales the sign of each gradient by an adaptive step size: Rprop without the descent.

    Emits D * sign(gradient). Each optimizer of this package is a chain of it and of
    `optax.scale(-1)`; nothing else may follow it, since rules that undo steps, bounds and
    `undo_nonfinite` assume that updates are applied unchanged. See `irprop_minus`.

    A derivative taken through an update is right at ordinary scales. A tiny one, below 1e-9
    or so in float32, may underflow to zero.

    Args:
      learning_rate: the first step size; None for one in proportion to each weight, and a
        quick start: see `rprop_momentum`.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      rule: `"rprop_minus"`, `"irprop_minus"` (also `"rprop"`), `"rprop_plus"`, `"irprop_plus"` or
        `"shark_irprop_minus"`: as the optimizer of that name.
      momentum: the decay of the average of past moves, for a rule that undoes nothing; None
        for none: see `rprop_momentum`.
      step_dtype: the type of real parameters' step sizes.
      lower: bounds below the parameters.
      upper: bounds above the parameters.
      undo_nonfinite: whether to go back where the loss or a gradient is not finite.

    Returns:
      A gradient transformation with a `ScaleByRpropState`.

    Raises:
      ValueError: for an unknown rule; for others, see `irprop_minus`.

    Example:
      >>> import jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax.chain(optax_rprop.scale_by_rprop(0.5), optax.scale(-1))
      >>> opt_state = optimizer.init(jnp.zeros(3))
      >>> updates, opt_state = optimizer.update(jnp.array([1e-9, -2.0, 0.0]), opt_state)
      >>> print(updates)
      [-0.5  0.5 -0. ]
    """
    _checks.check_rule(rule, _rules.RULES)
    the_rule = _rules.RULES[rule]
    if momentum is not None:
        _checks.check_momentum(momentum, rule, the_rule.undoes)
    if step_dtype is not None:
        step_dtype = _checks.check_step_dtype(step_dtype)
    _checks.check_flag("undo_nonfinite", undo_nonfinite)
    hyperparams = Hyperparams(
        learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, lower, upper
    )
    _checks.check_hyperparams(hyperparams._asdict())
    hyperparams = _hyperparameters.as_floats(hyperparams)
    with_params = {"lower": lower, "upper": upper, "undo_nonfinite": undo_nonfinite or None}
    needs_params = [name for name, option in with_params.items() if option is not None]
    needed = {
        "prev_value": the_rule.needs_value,
        "along": momentum is not None,
        "num_steps": learning_rate is None,
        "domain": undo_nonfinite,
    }

    def init(params: optax.Params) -> Any:
        paths, leaves, treedef = _hyperparameters.flatten(params)
        owns = _hyperparameters.per_leaf(hyperparams, paths, leaves)
        packed = treedef.unflatten(
            None if leaf is None else _init_leaf(path, leaf, own, step_dtype)
            for path, leaf, own in zip(paths, leaves, owns, strict=True)
        )
        state = ScaleByRpropState(packed)
        if the_rule.needs_value:
            largest = float(jnp.finfo(jnp.result_type(float)).max)
            state = state._replace(prev_value=_scalar_beside(params, largest, float))
        if learning_rate is None:
            state = state._replace(num_steps=_scalar_beside(params, 0, jnp.int32))
        if momentum is not None:
            _checks.check_known({"momentum": momentum})
            dtype = _momentum.slope_dtype(packed)
            factor = _scalar_beside(params, _momentum.FIRST_FACTOR, dtype)
            average = jax.tree.map(jnp.zeros_like, packed)
            state = state._replace(
                along=MomentumState(average, factor, _scalar_beside(params, 1, dtype))
            )
        if undo_nonfinite:
            for path, leaf in zip(paths, leaves, strict=True):
                _checks.check_finite(path, leaf)
            marks = jax.tree.map(jnp.zeros_like, packed)
            returns = _scalar_beside(params, 0, jnp.int32)
            state = state._replace(domain=DomainState(jax.tree.map(_copy, params), marks, returns))
        return state

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        value: jax.typing.ArrayLike | None = None,
        **extra_args: object,
    ) -> tuple[optax.Updates, Any]:
        del extra_args
        _checks.check_state(state, ScaleByRpropState)
        if the_rule.needs_value or (undo_nonfinite and value is not None):
            _checks.check_loss(value)
            value = jnp.asarray(value, float)
        _checks.check_params(params, needs_params)
        _checks.check_fields(state, needed)
        _checks.check_gradients(updates, state.packed)

        paths, gradients, treedef = _hyperparameters.flatten(updates)
        parameters = [None] * len(paths)
        if needs_params:
            parameters = _checks.leaves_of(params, "params", treedef)
        owns = _hyperparameters.per_leaf(hyperparams, paths, gradients)
        leaves = list(map(Leaf, gradients, parameters, owns, split(state, treedef)))
        for path, leaf in zip(paths, leaves, strict=True):
            if leaf.gradient is not None:
                _checks.check_fit(path, leaf.gradient, leaf.state.packed, leaf.parameter)

        shared, state = ask_all(leaves, state, value)
        moved = [  # where the gradient is None, the parameter is left alone
            (None, leaf.state) if leaf.gradient is None else _update_leaf(leaf, shared, the_rule)
            for leaf in leaves
        ]
        steps = treedef.unflatten([step for step, _ in moved])
        return steps, join(state, treedef, [leaf_state for _, leaf_state in moved])

    def ask_all(leaves: list[Leaf], state: Any, value: Any) -> tuple[Shared, Any]:
        """What a step asks of all leaves together; the state with its next scalars."""
        leaves = [leaf for leaf in leaves if leaf.gradient is not None]
        shared = Shared(num_steps=state.num_steps)
        prev_value, along, domain = state.prev_value, state.along, state.domain
        if the_rule.needs_value:
            rose, prev_value = _rules.compare_losses(value.astype(prev_value.dtype), prev_value)
            shared = shared._replace(rose=rose)
        if momentum is not None:
            slopes = [_slope(leaf, along.slope_scale) for leaf in leaves]
            slope = sum(slopes, start=jnp.zeros_like(along.factor))
            coefficient, factor, scale = _momentum.adapt(slope, along.factor, along.slope_scale)
            decay = _momentum.usable(_hyperparameters.real(momentum, along.factor))
            shared = shared._replace(coefficient=coefficient, decay=decay)
            along = along._replace(factor=factor, slope_scale=scale)
        if undo_nonfinite:
            severities = [_severity(leaf, domain.returns) for leaf in leaves]
            verdict, returns = _domain.judge(severities, value, domain.returns)
            shared = shared._replace(verdict=verdict)
            domain = domain._replace(returns=returns)
            if the_rule.needs_value:
                prev_value = jnp.where(verdict.goes_back, state.prev_value, prev_value)
            if momentum is not None:
                factor = _domain.factor(verdict, state.along.factor, along.factor)
                along = along._replace(factor=factor)
        num_steps = _start.count(state.num_steps) if learning_rate is None else None
        return shared, ScaleByRpropState(state.packed, prev_value, domain, along, num_steps)

    return optax.GradientTransformationExtraArgs(init, update)


def _init_leaf(path: tuple, parameter: Any, own: Hyperparams, step_dtype: Any) -> jax.Array:
    """The packed state of one leaf."""
    _checks.check_parameter(path, parameter)
    dtype = _packing.state_dtype(jnp.result_type(parameter), step_dtype)
    _checks.check_leaf(path, parameter, dtype, own._asdict())
    first = own.learning_rate
    if first is not None and _checks.is_known(first) and np.shape(first) == ():
        # Nothing is compiled but the program that fills any array of this shape and sharding.
        return jnp.full_like(parameter, _packing.pack_number(first, dtype), dtype=dtype)
    zeros = jnp.zeros_like(parameter, dtype=dtype)
    return _pack_first(zeros, zeros if _is_abstract(parameter) else parameter, own)


@jax.jit
def _pack_first(zeros: jax.Array, parameter: jax.Array, own: Hyperparams) -> jax.Array:
    """The first step sizes, packed. Compiled once per shape."""

    def pack(zeros: jax.Array, parameter: jax.Array) -> jax.Array:
        if own.learning_rate is None:
            first = _start.first_step_size(parameter.astype(zeros.dtype))
        else:
            first = _hyperparameters.step_size(own.learning_rate, zeros)
        first = jnp.maximum(first, _hyperparameters.step_size(own.min_step_size, zeros))
        first = jnp.minimum(first, _hyperparameters.step_size(own.max_step_size, zeros))
        first = _packing.clip_to_range(first)  # of a weight that is NaN
        # Zeros of the parameter's own: the sum takes their sharding.
        return zeros + _packing.pack_initial(first)

    return by_parts(pack, zeros, parameter)


def _copy(parameter: Any) -> jax.Array:
    """Another array with the same numbers."""
    if _is_abstract(parameter):
        return jnp.zeros_like(parameter)
    return jnp.array(parameter, jnp.result_type(parameter))


def _is_abstract(parameter: Any) -> bool:
    """Whether it is a shape and a type, without numbers."""
    return isinstance(parameter, jax.ShapeDtypeStruct)


def _scalar_beside(params: Any, number: Any, dtype: Any) -> jax.Array:
    """A scalar, on all the devices of sharded parameters."""
    scalar = jnp.asarray(number, dtype)
    for leaf in jax.tree.leaves(params):
        if isinstance(leaf, jax.Array) and not isinstance(leaf, jax.core.Tracer):
            sharding = leaf.sharding
            if isinstance(sharding, jax.sharding.NamedSharding):
                everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
                return jax.device_put(scalar, everywhere)
    return scalar


@jax.jit
def _slope(leaf: Leaf, scale: jax.Array) -> jax.Array:
    """One leaf's part of the slope along the average. Traced once per shape."""
    trees = parts((leaf.gradient, leaf.state.average))
    return functools.reduce(jnp.add, [_momentum.slope(g, a, scale) for g, a in trees])


@jax.jit
def _severity(leaf: Leaf, returns: jax.Array) -> jax.Array:
    """What one leaf says of the point where its gradient was taken. Traced once per shape."""
    trees = parts((leaf.gradient, leaf.parameter, leaf.state.finite))
    return functools.reduce(jnp.maximum, [_domain.severity(*t, returns=returns) for t in trees])


@functools.partial(jax.jit, static_argnames="rule")
def _update_leaf(leaf: Leaf, shared: Shared, rule: _rules.Rule) -> tuple[jax.Array, LeafState]:
    """The step of one leaf, to be subtracted, and its new state. Traced once per shape."""
    own = leaf.hyperparams

    def update_part(
        gradient: jax.Array, parameter: Any, old: LeafState
    ) -> tuple[jax.Array, LeafState]:
        factors = _hyperparameters.factors(own, old.packed)
        growth = None
        if shared.num_steps is not None:
            eta_plus = _start.eta_plus(factors.eta_plus, shared.num_steps)
            factors = factors._replace(eta_plus=eta_plus)
            growth = _start.growth_at_rest(shared.num_steps)
        packed, step = _rules.step(rule, old.packed, gradient, factors, shared.rose)
        average, decay, largest = old.average, shared.decay, factors.max_step_size
        if shared.coefficient is not None:
            step, average = _momentum.move(step, average, shared.coefficient, decay, largest)
        step = finite_cast(step, gradient.dtype)
        if own.lower is not None or own.upper is not None:
            cut = _box.shorten(parameter, step, *_hyperparameters.bounds(own, parameter))
            if rule.undoes:
                cut = cut._replace(step=_packing.round_down(cut.step, packed.dtype))
            packed = _box.remember(old.packed, packed, cut, factors, rule.undoes, growth)
            step = cut.step
            if shared.coefficient is not None:
                at_bound = _momentum.average_of(cut.step, old.average, decay, largest)
                average = jnp.where(cut.is_cut, at_bound, average)
        new = old._replace(packed=packed, average=average)
        if shared.verdict is None:
            return step, new
        return _domain.step(shared.verdict, gradient, parameter, factors, old, step, new)

    return by_parts(update_part, leaf.gradient, leaf.parameter, leaf.state)

"""Rprop as an Optax gradient transformation: pytrees, types and extra arguments."""

from __future__ import annotations  # help() then shows the names of types, not their unions

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from optax_rprop import _box, _checks, _domain, _hyperparameters, _leaf, _momentum, _packing, _rules
from optax_rprop._dtypes import by_parts, finite_cast
from optax_rprop._hyperparameters import PerWeight
from optax_rprop._leaf import Hyperparams, Leaf, LeafState, Move
from optax_rprop._start import first_step_size, measure_weights
from optax_rprop._state import SCALARS, ScaleByRpropState, join, split


def scale_by_rprop(
    learning_rate: PerWeight | None,
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
      learning_rate: the first step size; None for one in proportion to each weight: see
        `rprop_momentum`.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      rule: `"rprop_minus"`, `"irprop_minus"` (also `"rprop"`), `"rprop_plus"` or `"irprop_plus"`,
        as the optimizer of that name; or `"shark_irprop_minus"`, which after a reversal steps by
        the smaller step size, and remembers no sign.
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
    if rule not in _rules.RULES:
        raise ValueError(f"{rule=} must be one of {', '.join(_rules.RULES)}.")
    the_rule = _rules.RULES[rule]
    if momentum is not None and the_rule.undoes:
        raise ValueError(f"{momentum=} needs a rule that undoes no step, and {rule=} does.")
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size, lower, upper
    hyperparams = Hyperparams(*_hyperparameters.without_integers(numbers))
    _checks.check_numbers(**hyperparams._asdict(), momentum=momentum)
    step_dtype = _packing.check_step_dtype(step_dtype)
    needs_params = undo_nonfinite or lower is not None or upper is not None
    options = {
        "prev_value": the_rule.needs_value,
        "factor": momentum is not None,
        "unshrunk": undo_nonfinite,
    }

    def init(params: optax.Params) -> Any:
        params = jax.tree.map(_zeros_if_abstract, params)
        paths, parameters, treedef = _hyperparameters.flatten(params)
        for path, parameter in zip(paths, parameters, strict=True):
            _checks.check_parameter(path, parameter)
        given = _hyperparameters.per_leaf(hyperparams, paths, parameters)
        for own in given:
            _checks.check_order(**own._asdict())
        start = measure_weights(params) if learning_rate is None else None
        first = functools.partial(_initial_state, step_dtype=step_dtype, start=start)
        packed = treedef.unflatten(map(first, parameters, given))
        state = ScaleByRpropState(packed)
        if the_rule.needs_value:
            state = state._replace(**_rules.init())
        if momentum is not None:
            state = state._replace(**_momentum.init(packed))
        if undo_nonfinite:
            state = state._replace(**_domain.init(params, packed))
        return state._replace(**beside(params, {name: getattr(state, name) for name in SCALARS}))

    def update(updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any) -> Any:
        _checks.check_state(state, ScaleByRpropState, options)
        _checks.check_arguments(params, needs_params, value, the_rule.needs_value)
        paths, gradients, treedef = _hyperparameters.flatten(updates)
        parameters = treedef.flatten_up_to(params) if needs_params else [None] * len(paths)
        given = _hyperparameters.per_leaf(hyperparams, paths, gradients)
        leaves = list(map(Leaf, gradients, parameters, given, split(state, treedef)))
        for path, leaf in zip(paths, leaves, strict=True):
            _checks.check_fit(path, leaf.gradient, state=leaf.state.memory, params=leaf.parameter)

        # What a step must know of all leaves together, and the state with its next scalars.
        moving = [leaf for leaf in leaves if leaf.gradient is not None]
        value = None if value is None else jnp.asarray(value, float)
        loss_rose, along, verdict, new = False, None, None, state
        if the_rule.needs_value:
            loss_rose, new = _rules.reduce(value, new)
        if momentum is not None:
            along, new = _momentum.reduce(moving, new, momentum)
        if undo_nonfinite:
            moving, verdict, new = _domain.reduce(moving, value, state, new)
        moved = iter([_move(leaf, loss_rose, along, verdict, the_rule) for leaf in moving])
        moves = [  # where the gradient is None, the parameter is left alone
            Move(None, leaf.state) if leaf.gradient is None else next(moved) for leaf in leaves
        ]
        steps = treedef.unflatten([move.step for move in moves])
        return steps, join(new, treedef, [move.state for move in moves])

    return optax.GradientTransformationExtraArgs(init, update)


@functools.partial(jax.jit, static_argnames="rule")
def _move(leaf: Leaf, loss_rose: Any, along: Any, verdict: Any, rule: _rules.Rule) -> Move:
    """The move of one leaf, layer upon layer. Traced once per shape."""
    draw = iter((leaf.draw, leaf.draw + np.uint32(leaf.gradient.size % 2**32)))  # real, imaginary

    def move_part(gradient: jax.Array, parameter: Any, old: LeafState) -> Move:
        hyperparams = _hyperparameters.cast(leaf.hyperparams, old.memory, parameter)
        unpacked = _leaf.unpack(old)
        part = Leaf(gradient, parameter, hyperparams, unpacked, next(draw), old.memory.dtype)
        move = _rules.step(part, rule, loss_rose)
        in_a_box, with_domain = hyperparams.lower is not None, verdict is not None
        if not (rule.undoes or in_a_box or with_domain):
            # The same step, from the packed state, which XLA has just written: computed again
            # from gradient and old state, it takes more than twice as long on a CPU.
            packed = _packing.pack(move.state.memory, part.dtype)
            step = _packing.signed_step(packed)
            if rule.steps and not rule.remembers:  # selects: a product of signs takes a loop more
                size = _packing.unpack(packed).step_size
                step = jnp.where(gradient > 0, size, jnp.where(gradient < 0, -size, 0))
            move = move._replace(step=step)
        if along is not None:
            move = _momentum.step(part, move, along)
        move = move._replace(step=finite_cast(move.step, gradient.dtype))
        if in_a_box:
            whole, move = move.step, _box.step(part, move, rule.undoes)
            if along is not None:
                move = _momentum.after_box(part, move, whole, along)
        if with_domain:
            move = _domain.step(part, move, verdict)
        return move._replace(state=_leaf.pack(move.state, old))

    return by_parts(move_part, leaf.gradient, leaf.parameter, leaf.state)


def _zeros_if_abstract(parameter: Any) -> Any:
    return jnp.zeros_like(parameter) if isinstance(parameter, jax.ShapeDtypeStruct) else parameter


def _initial_state(parameter: Any, given: Hyperparams, step_dtype: Any, start: Any) -> Any:
    """The packed state of one leaf."""
    if parameter is None:
        return None
    dtype = _packing.state_dtype(jnp.result_type(parameter), step_dtype)
    first, *limits = given.learning_rate, given.min_step_size, given.max_step_size
    if all(isinstance(number, (float, np.floating)) for number in (first, *limits)):
        # Nothing is compiled but the program that fills any array of this shape and sharding.
        return jnp.full_like(parameter, _packing.pack_number(first, dtype), dtype=dtype)
    return _pack_first(jnp.zeros_like(parameter, dtype=dtype), parameter, given, start)


@jax.jit
def _pack_first(
    zeros: jax.Array, parameter: jax.Array, given: Hyperparams, start: Any
) -> jax.Array:
    """The first step sizes, packed. Compiled once per shape."""

    def pack(zeros: jax.Array, parameter: jax.Array) -> jax.Array:
        if given.learning_rate is None:
            lower, upper = (
                bound.astype(zeros.dtype) for bound in _hyperparameters.bounds(given, parameter)
            )
            first = first_step_size(parameter.astype(zeros.dtype), upper - lower, start)
        else:
            first = _hyperparameters.step_size(given.learning_rate, zeros)
        first = jnp.maximum(first, _hyperparameters.step_size(given.min_step_size, zeros))
        first = jnp.minimum(first, _hyperparameters.step_size(given.max_step_size, zeros))
        first = _packing.clip_to_range(first)  # of a weight that is NaN
        # Zeros of the parameter's own: the sum takes their sharding.
        return zeros + _packing.pack_initial(first)

    return by_parts(pack, zeros, parameter)


def beside(params: Any, scalars: Any) -> Any:
    """A tree of scalars, on all the devices of sharded parameters."""
    for leaf in jax.tree.leaves(params):
        mesh = getattr(getattr(leaf, "sharding", None), "mesh", None)
        if isinstance(mesh, Mesh):  # that of a tracer names no devices
            return jax.device_put(scalars, NamedSharding(mesh, PartitionSpec()))
    return scalars

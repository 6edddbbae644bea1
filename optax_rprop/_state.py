"""The optimizer's state, and how to read it inside any other state."""

from __future__ import annotations  # help() then shows the names of types, not their unions

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_rprop import _checks, _hyperparameters, _packing, _start
from optax_rprop._dtypes import by_parts, is_complex
from optax_rprop._hyperparameters import PerWeight


class MomentumState(NamedTuple):
    """What `momentum` keeps.

    Attributes:
      average: a pytree shaped like the parameters, of the step sizes' types: the average of
        past moves, in the parameters' units. It has the sign of a gradient: opposite to the
        moves.
      factor: a scalar of at least float32, the step size along the average.
      slope_scale: likewise, the power of two by which the next slope is scaled.
    """

    average: optax.Params
    factor: jax.Array
    slope_scale: jax.Array


class DomainState(NamedTuple):
    """What `undo_nonfinite` keeps.

    Attributes:
      finite_params: the parameters at the last point where everything was finite.
      marks: a pytree shaped like the parameters, of the step sizes' types: the step size that a
        weight would have without domain errors, negative if the weight skips the next step;
        0 for a weight that no error affected.
      returns: an int32 scalar, how many more steps may be used to go back to `finite_params`.
    """

    finite_params: optax.Params
    marks: optax.Params
    returns: jax.Array


class ScaleByRpropState(NamedTuple):
    """Step sizes and previous signs, one float per weight.

    Attributes:
      packed: a pytree shaped like the parameters. Each leaf holds the step size and the
        previous gradient's sign of every weight in one number of its own encoding: read it
        through `step_sizes` and `prev_signs`. Never cast it, nor load a float64 one without
        jax_enable_x64, where JAX would cast it.
      prev_value: a scalar of the default float type, the last finite loss; the largest number
        of that type before the first. Only for `irprop_plus`, otherwise None.
      domain: a `DomainState`. Only with `undo_nonfinite`, otherwise None.
      along: a `MomentumState`. Only with `momentum`, otherwise None.
      num_steps: an int32 scalar, the number of steps so far, up to the 12 of the quick start.
        Only if `learning_rate` is None, otherwise None.

    It has the properties `step_sizes` and `prev_signs`, as the functions of these names.
    """

    packed: optax.Params
    prev_value: jax.Array | None = None
    domain: DomainState | None = None
    along: MomentumState | None = None
    num_steps: jax.Array | None = None

    def __repr__(self) -> str:
        """Without the packed numbers, which would be taken for step sizes."""
        rest = [f"{name}={part}" for name, part in self._asdict().items() if name != "packed"]
        packed = "packed=<one float a weight: read it with step_sizes and prev_signs>"
        return f"{type(self).__name__}({', '.join([packed, *rest])})"

    @property
    def step_sizes(self) -> optax.Params:
        """The step sizes: see `optax_rprop.step_sizes`."""
        return jax.tree.map(_sizes, self.packed)

    @property
    def prev_signs(self) -> optax.Params:
        """The remembered signs: see `optax_rprop.prev_signs`."""
        return jax.tree.map(_signs, self.packed)

    @classmethod
    def from_step_sizes(
        cls,
        step_sizes: optax.Params,
        prev_signs: optax.Params,
        prev_value: jax.typing.ArrayLike | None = None,
    ) -> ScaleByRpropState:
        """Makes a state: for a warm start, or to go on from another library's.

        Args:
          step_sizes: a pytree of arrays, floating-point or complex, in the parameters' units.
            The state has the types of these arrays, except float32 for float16.
          prev_signs: a pytree of the same structure and shapes; any real numbers, of which the
            signs count (a previous gradient will do). 0 and NaN mean none.
          prev_value: the previous loss, for `irprop_plus`.

        Returns:
          The state of `scale_by_rprop`. Each optimizer is a chain of that and a
          change of sign, whose state is `(state, optax.EmptyState())`.

        Raises:
          TypeError: for step sizes that are neither floating-point nor complex, signs of
            another kind, or a prev_value that is no scalar.
          ValueError: where the two trees do not match, or a step size is not above 0
            and at most 2**31.

        Example:
          >>> import jax.numpy as jnp, optax_rprop
          >>> state = optax_rprop.ScaleByRpropState.from_step_sizes(
          ...     jnp.array([0.1, 0.2]), jnp.array([-1, 0]))
          >>> state.step_sizes, state.prev_signs
          (Array([0.1, 0.2], dtype=float32), Array([-1,  0], dtype=int8))
        """
        if prev_value is not None:
            _checks.check_loss(prev_value, "prev_value")
            prev_value = jnp.asarray(prev_value, dtype=float)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(step_sizes)
        one_tree = "both must have the tree of the parameters"
        signs = _checks.leaves_of(prev_signs, "prev_signs", treedef, "step_sizes", one_tree)
        packed = [_pack(*leaf, sign) for leaf, sign in zip(leaves, signs, strict=True)]
        return cls(treedef.unflatten(packed), prev_value)


class LeafState(NamedTuple):
    """What a state holds of one leaf of the parameters; None where an option is off."""

    packed: Any
    average: Any
    finite: Any
    mark: Any


def split(state: ScaleByRpropState, treedef: Any) -> list[LeafState]:
    """The parts of a state that belong to each leaf of a tree."""
    domain, along = state.domain, state.along
    trees = LeafState(
        state.packed,
        along and along.average,
        domain and domain.finite_params,
        domain and domain.marks,
    )
    columns = (
        [None] * treedef.num_leaves
        if tree is None
        else _checks.leaves_of(tree, "the state", treedef)
        for tree in trees
    )
    return list(map(LeafState, *columns))


def join(state: ScaleByRpropState, treedef: Any, leaves: list[LeafState]) -> ScaleByRpropState:
    """The state with other parts: the inverse of `split`."""
    packed, average, finite, marks = (
        treedef.unflatten([getattr(leaf, field) for leaf in leaves]) for field in LeafState._fields
    )
    return state._replace(
        packed=packed,
        domain=state.domain and state.domain._replace(finite_params=finite, marks=marks),
        along=state.along and state.along._replace(average=average),
    )


# Compiled as a whole, these read an array in one program, not in six.
@jax.jit
def _sizes(packed: jax.Array) -> jax.Array:
    return by_parts(_packing.step_size, packed)


@jax.jit
def _signs(packed: jax.Array) -> jax.Array:
    signs = by_parts(lambda part: lax.sign(_packing.signed_step(part)), packed)
    return signs if is_complex(signs) else signs.astype(jnp.int8)


def _pack(path: tuple, step_size: jax.typing.ArrayLike, sign: jax.typing.ArrayLike) -> jax.Array:
    step_size, sign = jnp.asarray(step_size), jnp.asarray(sign)
    if not jnp.issubdtype(sign.dtype, jnp.inexact):
        sign = sign.astype(float)
    _checks.check_step_sizes(path, step_size)
    _checks.check_alike(path, "step_sizes", step_size, "prev_signs", sign)

    return _pack_signs(step_size.astype(_packing.state_dtype(step_size.dtype)), sign)


@jax.jit
def _pack_signs(step_size: jax.Array, sign: jax.Array) -> jax.Array:
    def pack(step_size: jax.Array, sign: jax.Array) -> jax.Array:
        has_sign = (sign > 0) | (sign < 0)
        at_rest = lax.full_like(has_sign, False)
        return _packing.pack(_packing.clip_to_range(step_size), sign > 0, has_sign, at_rest)

    return by_parts(pack, step_size, sign)


def _find(opt_state: optax.OptState, one: bool = False) -> list[ScaleByRpropState]:
    """The states of Rprop, at any depth; at least one, or exactly one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, ScaleByRpropState))
    found = [node for node in nodes if isinstance(node, ScaleByRpropState)]
    _checks.check_found(found, opt_state, one)
    return found


def step_sizes(opt_state: optax.OptState) -> optax.Params:
    """The step sizes inside any optimizer state.

    Args:
      opt_state: a state that holds one Rprop state at any depth: that of a chain, of
        `optax.masked`, `optax.inject_hyperparams` or `flax.nnx.Optimizer`, for instance.

    Returns:
      A pytree shaped like the parameters, of the state's floating-point types,
      in the parameters' units. A complex leaf holds a step size for either part.

    Raises:
      ValueError: if `opt_state` holds no Rprop state, or several.

    Example:
      >>> import jax.numpy as jnp, optax_rprop
      >>> opt_state = optax_rprop.rprop(0.1).init({"w": jnp.zeros(2)})
      >>> optax_rprop.step_sizes(opt_state)
      {'w': Array([0.1, 0.1], dtype=float32)}
    """
    return _find(opt_state, one=True)[0].step_sizes


def prev_signs(opt_state: optax.OptState) -> optax.Params:
    """The remembered gradient signs inside any optimizer state.

    As `step_sizes`, but of int8: -1, 1, or 0 where no sign is remembered (at the start,
    after a zero gradient, after most reversals). A complex leaf gives a complex array.

    Example:
      >>> import jax.numpy as jnp, optax_rprop
      >>> opt_state = optax_rprop.rprop(0.1).init({"w": jnp.zeros(2)})
      >>> optax_rprop.prev_signs(opt_state)
      {'w': Array([0, 0], dtype=int8)}
    """
    return _find(opt_state, one=True)[0].prev_signs


def converged(opt_state: optax.OptState, tolerance: PerWeight) -> jax.Array:
    """Returns True once every weight has converged to within `tolerance`.

    A weight has converged if, at its last gradient, any of these held:

    - its step size was at or below the tolerance. Step sizes shrink only where a gradient
      changes sign;
    - its gradient was exactly zero, as for a pixel that is always 0, or under stop_gradient;
    - a bound held it, its gradient pushing outwards.

    Signs change around a minimum, but also across a narrow valley, far from its end: the
    tolerance is a step size, not an error. In valleys take one 1,000 times smaller than the
    accuracy that is wanted, or `optax_rprop.optimistix.RpropMinimiser`, which tests for 100
    steps. With momentum, the move along the average must be as small. If `learning_rate` is
    None, this is False in the first 12 steps. A NaN gradient meets none of the three. Do not
    test for small updates instead: irprop_minus emits zero wherever a sign changed, sooner or
    later for all weights at once.

    Args:
      opt_state: a state that holds one Rprop state or several, at any depth; all count.
      tolerance: a number above 0, in the units of the parameters; or an array, or a pytree
        prefix of the parameters, where they differ in scale. It must be smaller than every
        given first step size, or the test passes immediately, and not smaller than
        `min_step_size`, or it may never pass.

    Returns:
      A boolean scalar, to be used inside jit and in the condition of a while_loop too.

    Raises:
      TypeError: if the tolerance is not a number.
      ValueError: if it is not above 0, or does not fit the parameters; or if `opt_state`
        holds no Rprop state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax_rprop.rprop(0.1)
      >>> def not_done(carry):
      ...     return ~optax_rprop.converged(carry[1], 1e-5)
      >>> def step(carry):
      ...     params, opt_state = carry
      ...     updates, opt_state = optimizer.update(2 * (params - 3), opt_state)
      ...     return optax.apply_updates(params, updates), opt_state
      >>> start = jnp.zeros(2)
      >>> params, _ = jax.lax.while_loop(not_done, step, (start, optimizer.init(start)))
      >>> bool(jnp.all(jnp.abs(params - 3) < 1e-4))
      True
    """
    states = _find(opt_state)
    _checks.check_tolerance("tolerance", tolerance)
    return all_done(states, _hyperparameters.as_floats(tolerance))


def all_done(states: list[ScaleByRpropState], tolerance: PerWeight) -> jax.Array:
    """The test of `converged`, of a tolerance that may be 0."""
    leaves = []
    for state in states:
        paths, _, treedef = _hyperparameters.flatten(state.packed)
        factor = state.along and state.along.factor
        leaves += [(p, leaf, factor) for p, leaf in zip(paths, split(state, treedef), strict=True)]
    # Of all states together: a part of the tolerance may belong to any of them.
    paths, arrays = [path for path, _, _ in leaves], [leaf.packed for _, leaf, _ in leaves]
    tolerances = _hyperparameters.broadcast_prefix("tolerance", tolerance, paths, arrays)
    done = [
        _is_done(leaf._replace(finite=None), own, factor)
        for (_, leaf, factor), own in zip(leaves, tolerances, strict=True)
        if leaf.packed is not None
    ]
    counts = [state.num_steps for state in states if state.num_steps is not None]
    started = [_start.is_over(jnp.asarray(count)) for count in counts]  # in Flax, no arrays
    return jnp.all(jnp.array(done + started, dtype=bool))


@jax.jit
def _is_done(
    leaf: LeafState, tolerance: jax.typing.ArrayLike, factor: jax.Array | None
) -> jax.Array:
    """Whether every weight of a leaf is at rest, or its step size at or below a tolerance.

    A step size that is small by domain errors alone does not count; and a move along the
    average has to be as small.
    """

    def not_done(leaf: LeafState) -> jax.Array:
        limit = _hyperparameters.broadcast(tolerance, leaf.packed)
        small = _packing.step_size(leaf.packed) <= limit
        if leaf.mark is not None:
            small &= lax.abs(leaf.mark) <= limit
        done = small | _packing.is_at_rest(leaf.packed)
        if factor is not None:
            done &= lax.abs(leaf.average) * factor.astype(limit.dtype) <= limit
        return jnp.any(~done).astype(limit.dtype)

    return by_parts(not_done, leaf) == 0

"""The optimizer's state, and how to read it inside any other state."""

from __future__ import annotations  # help() then shows the names of types, not their unions

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_rprop import _packing, _rules
from optax_rprop._dtypes import by_parts
from optax_rprop._leaf import LeafState
from optax_rprop._packing import Memory


class ScaleByRpropState(NamedTuple):
    """Step sizes and previous signs, one float per weight; and what options need.

    Attributes:
      packed: a pytree shaped like the parameters. Each leaf holds the step size and the
        previous gradient's sign of every weight in one number of its own encoding: read it
        through `step_sizes` and `prev_signs`. Never cast it, nor load a float64 one without
        jax_enable_x64, where JAX would cast it.
      average: with `momentum`, a pytree like `packed`: the average of past moves, in the
        parameters' units. It has the sign of a gradient: opposite to the moves.
      finite_params: with `undo_nonfinite`, the parameters at the last point where everything was
        finite.
      unshrunk: with `undo_nonfinite`, a pytree like `packed`: the step size that a weight would
        have without domain errors, negative if the weight skips the next step; 0 for a weight
        that no error affected.
      prev_value: for `irprop_plus`, a scalar of the default float type, the last finite loss; the
        largest number of that type before the first.
      factor: with `momentum`, a scalar of at least float32, the step size along the average.
      slope_scale: likewise, the power of two by which the next slope is scaled.
      clock: with `undo_nonfinite`, an int32 scalar: 32 times the number of the turn, plus its
        steps; 0 before the first error that only the loss shows.

    What no option needs is None.
    """

    packed: optax.Params
    average: optax.Params | None = None
    finite_params: optax.Params | None = None
    unshrunk: optax.Params | None = None
    prev_value: jax.Array | None = None
    factor: jax.Array | None = None
    slope_scale: jax.Array | None = None
    clock: jax.Array | None = None

    def __repr__(self) -> str:
        """Without the packed numbers, which would be taken for step sizes."""
        rest = [f"{name}={part}" for name, part in self._asdict().items() if name != "packed"]
        packed = "packed=<one float a weight: read it with step_sizes and prev_signs>"
        return f"{type(self).__name__}({', '.join([packed, *rest])})"

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
            The state has the types of these arrays, except float32 for float16. One out of
            range is moved into it.
          prev_signs: a pytree of the same structure and shapes; any real numbers, of which the
            signs count (a previous gradient will do). 0 and NaN mean none.
          prev_value: the previous loss, for `irprop_plus`.

        Returns:
          The state of `scale_by_rprop`. Each optimizer is a chain of that and a
          change of sign, whose state is `(state, optax.EmptyState())`.

        Example:
          >>> import jax.numpy as jnp, optax_rprop
          >>> state = optax_rprop.ScaleByRpropState.from_step_sizes(
          ...     jnp.array([0.1, 0.2]), jnp.array([-1, 0]))
          >>> optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
          (Array([0.1, 0.2], dtype=float32), Array([-1,  0], dtype=int8))
        """
        if prev_value is not None:
            prev_value = jnp.asarray(prev_value, dtype=float)
        return cls(jax.tree.map(_pack_signs, step_sizes, prev_signs), prev_value=prev_value)


SCALARS = ScaleByRpropState._fields[len(LeafState._fields) :]


def split(state: ScaleByRpropState, treedef: Any) -> list[LeafState]:
    """What it has of each leaf of a tree."""
    trees = state[: len(LeafState._fields)]
    absent = [None] * treedef.num_leaves
    columns = (absent if tree is None else treedef.flatten_up_to(tree) for tree in trees)
    return list(map(LeafState, *columns))


def join(state: ScaleByRpropState, treedef: Any, leaves: list[LeafState]) -> ScaleByRpropState:
    """The state with other parts: the inverse of `split`."""
    count = len(LeafState._fields)
    trees: Any = (
        None if tree is None else treedef.unflatten([leaf[n] for leaf in leaves])
        for n, tree in enumerate(state[:count])
    )
    return ScaleByRpropState(*trees, *state[count:])


# Compiled as a whole, these read an array in one program, not in six.
@jax.jit
def _sizes(packed: jax.Array) -> jax.Array:
    return by_parts(lambda part: _packing.unpack(part).step_size.astype(part.dtype), packed)


@jax.jit
def _signs(packed: jax.Array) -> jax.Array:
    signs = by_parts(lambda part: _packing.unpack(part).sign, packed)
    return signs if jnp.iscomplexobj(signs) else signs.astype(jnp.int8)


@jax.jit
def _pack_signs(step_size: jax.Array, sign: jax.Array) -> jax.Array:
    def pack(step_size: jax.Array, sign: jax.Array) -> jax.Array:
        if not jnp.issubdtype(sign.dtype, jnp.inexact):
            sign = sign.astype(step_size.dtype)
        sign = _rules.sign_of(sign, step_size.dtype)
        memory = Memory(_packing.clip_to_range(step_size), sign, lax.full_like(sign, False, bool))
        return _packing.pack(memory, step_size.dtype)

    return by_parts(pack, step_size.astype(_packing.state_dtype(step_size.dtype)), sign)


def find(opt_state: optax.OptState, kinds: Any = ScaleByRpropState) -> list:
    """The states of some kinds, at any depth, but not inside each other; at least one."""
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kinds))
    found = [node for node in nodes if isinstance(node, kinds)]
    if not found:
        raise ValueError("opt_state holds no state of Rprop.")
    return found


def _packed(opt_state: optax.OptState) -> optax.Params:
    """Of the one state that there is."""
    found = find(opt_state)
    if len(found) > 1:
        raise ValueError(f"opt_state holds {len(found)} states of Rprop; pass a part with one.")
    return found[0].packed


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
    return jax.tree.map(_sizes, _packed(opt_state))


def prev_signs(opt_state: optax.OptState) -> optax.Params:
    """The remembered gradient signs inside any optimizer state.

    As `step_sizes`, but of int8: -1, 1, or 0 where no sign is remembered (at the start,
    after a zero gradient, after most reversals). A complex leaf gives a complex array.

    Example:
      >>> import jax.numpy as jnp, optax_rprop
      >>> optimizer = optax_rprop.rprop()
      >>> _, opt_state = optimizer.update(jnp.array([-3e-9, 0]), optimizer.init(jnp.ones(2)))
      >>> optax_rprop.prev_signs(opt_state)
      Array([-1,  0], dtype=int8)
    """
    return jax.tree.map(_signs, _packed(opt_state))

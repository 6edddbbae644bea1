"""One leaf of the parameters in one step: what the step reads of it, and what it makes.

A step is a row of layers: the published rule, which makes a move; momentum, the box, domain
errors, which take the move so far and return another: `step(leaf, move, ...) -> Move`. What a
layer must know of all leaves together, its `reduce` has found before, as scalars.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from optax_rprop import _packing


class Hyperparams(NamedTuple):
    """The papers' five, and a box: as given; of one leaf; in a step, arrays of its shape."""

    learning_rate: Any
    eta_minus: Any
    eta_plus: Any
    min_step_size: Any
    max_step_size: Any
    lower: Any = None
    upper: Any = None


class LeafState(NamedTuple):
    """The first fields of `ScaleByRpropState`, with a number for every weight, of one leaf."""

    memory: Any  # packed; inside a step, a `_packing.Memory`
    average: Any
    finite_params: Any
    unshrunk: Any


class Leaf(NamedTuple):
    """What a step reads."""

    gradient: Any
    parameter: Any  # None where no option needs it
    hyperparams: Hyperparams
    state: LeafState
    draw: Any = np.uint32(0)  # what its first weight draws by, see `_domain`
    dtype: Any = None  # of the state, to which step sizes and averages are rounded


class Move(NamedTuple):
    """What a step makes: the step, to be subtracted, and the state after it."""

    step: Any
    state: LeafState


def unpack(state: LeafState) -> LeafState:
    """For a step, in the type that steps are computed in."""
    average, unshrunk = jax.tree.map(_packing.to_compute_dtype, (state.average, state.unshrunk))
    return LeafState(_packing.unpack(state.memory), average, state.finite_params, unshrunk)


def pack(state: LeafState, old: LeafState) -> LeafState:
    """After it, in the types of the old state."""
    packed = state._replace(memory=_packing.pack(state.memory, old.memory.dtype))
    return jax.tree.map(lambda array, before: array.astype(before.dtype), packed, old)

"""L-BFGS from Rprop's own steps, with gradients alone.

In each step one of three is at work: Rprop with momentum, while `countdown` is above 0; L-BFGS;
or the way back along the last move. `rprop_lbfgs` has the method, `_lbfgs` its mathematics, and
`_trust_region` judges moves and limits them. From a point of Rprop's that is not finite, at first
those weights alone go back that moved and whose gradients are not finite.

Here moves are added to the weights, and everything is a list of real arrays: the leaves of the
parameters, a complex one as two. Gradients and changes are scaled by a power of two, chosen at
the first gradient, so that no loss is too large or too small for sums of products.
"""

from __future__ import annotations  # help() then shows the names of types, not their unions

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from optax_rprop import _box, _checks, _hyperparameters, _lbfgs, _packing, _trust_region
from optax_rprop._dtypes import by_parts, finite_cast, inverse_power_of_two, like, reals, widen
from optax_rprop._hyperparameters import PerWeight
from optax_rprop._lbfgs import Arrays, Pairs, Products, each
from optax_rprop._leaf import Hyperparams
from optax_rprop._state import ScaleByRpropState
from optax_rprop._transform import beside, scale_by_rprop
from optax_rprop._trust_region import Verdict

# As those of `_trust_region`, tried on half of the CUTEst problems; none decides much.
_STEPS = 8  # of Rprop, and twice as many after each failure
_AFTER_ERROR = 0.25  # times Rprop's step sizes, after a point that is not finite
_TRIES_APART = 16  # to bring those back alone whose gradients are not finite
_MOST_DISTANCES = 100.0  # Rprop's first steps after a failure, as many times the way that is left
ROUNDING = 2.0**12  # times eps: a gradient of this part of the first one may be rounding
_MOST_DOUBLINGS = 20
_FORGET = 0.01  # a distance is no less than this part of the one at the point before


class ScaleByRpropLbfgsState(NamedTuple):
    """What Rprop remembers, the last move, and the pairs of L-BFGS.

    Trees are shaped like the parameters and of their types, but float32 for smaller ones.

    Attributes:
      rprop: the state of Rprop with momentum.
      gradient: the gradient where the last move began, times `gradient_scale`.
      move: the last move, or the part of it that was not taken back.
      moves: the moves of the pairs, in leaves of shape `(memory_size, *shape)`.
      changes: the changes of the gradient along them, likewise.
      diagonal: the diagonal that L-BFGS begins with.
      distance: how far each weight is from the minimum, as far as the last steps of L-BFGS can
        tell; 0 for one that a bound holds; infinite while Rprop is at work, where a step did not
        lower the slope, and for one whose gradient has never changed.
      sy: the inner products of moves and later changes, `(memory_size, memory_size)`; those with
        earlier ones mean nothing.
      ydy: those of changes and changes, times the diagonal.
      next_row: an int32 scalar, the row of the next pair.
      num_pairs: likewise, how many there are.
      countdown: likewise, of gradients until L-BFGS begins; 0 while it is at work.
      num_failures: likewise, of L-BFGS.
      num_tries: likewise, of gradients along the last move that were rejected.
      cap: a scalar of at least float32: the most step sizes that a weight may move.
      stretch: likewise, the factor of the next move.
      is_capped: a boolean scalar, whether the last move was held back by `cap`.
      gradient_scale: as `cap`, a power of two; 0 before the first gradient.

    Example:
      >>> import jax.numpy as jnp, optax_rprop
      >>> state = optax_rprop.scale_by_rprop_lbfgs(memory_size=3).init(jnp.ones(2))
      >>> state.moves.shape, int(state.num_pairs)
      ((3, 2), 0)
    """

    rprop: ScaleByRpropState
    gradient: optax.Params
    move: optax.Params
    moves: optax.Params
    changes: optax.Params
    diagonal: optax.Params
    distance: optax.Params
    sy: jax.Array
    ydy: jax.Array
    next_row: jax.Array
    num_pairs: jax.Array
    countdown: jax.Array
    num_failures: jax.Array
    num_tries: jax.Array
    cap: jax.Array
    stretch: jax.Array
    is_capped: jax.Array
    gradient_scale: jax.Array


_TREES = ScaleByRpropLbfgsState._fields[1:7]


def scale_by_rprop_lbfgs(
    memory_size: int = 10, *, lower: PerWeight | None = None, upper: PerWeight | None = None
) -> optax.GradientTransformationExtraArgs:
    """Turns gradients into the steps of `rprop_lbfgs`, which are to be subtracted.

    Args:
      memory_size: how many pairs are kept.
      lower: bounds below the parameters.
      upper: bounds above the parameters.

    Returns:
      A gradient transformation with a `ScaleByRpropLbfgsState`. See `rprop_lbfgs`.

    Example:
      >>> import jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax.chain(optax_rprop.scale_by_rprop_lbfgs(), optax.scale(-1))
      >>> opt_state = optimizer.init(jnp.ones(2))
      >>> updates, opt_state = optimizer.update(jnp.array([3.0, -3e-9]), opt_state)
      >>> print(updates)
      [-0.1  0.1]
    """
    if not isinstance(memory_size, int | np.integer) or memory_size < 1:
        raise ValueError(
            f"{memory_size=} must be a whole number, at least 1. There is no learning rate, and "
            "optax.inject_hyperparams needs static_args='memory_size'."
        )
    lower, upper = _hyperparameters.without_integers((lower, upper))
    first = _rprop(lower, upper)
    in_a_box = lower is not None or upper is not None

    def init(params: optax.Params) -> Any:
        def zeros(*rows: int) -> Any:
            def leaf(parameter: Any) -> jax.Array:
                dtype = widen(jnp.result_type(parameter))
                row = jnp.zeros_like(parameter, dtype=dtype)
                # A sum, so that rows have the sharding of the parameter.
                return jnp.zeros((*rows, *[1] * row.ndim), dtype) + row[None] if rows else row

            return jax.tree.map(leaf, params)

        rprop: Any = first.init(params)
        far = jax.tree.map(lambda leaf: by_parts(lambda part: part + jnp.inf, leaf), zeros())
        trees = zeros(), zeros(), zeros(memory_size), zeros(memory_size), zeros(), far
        counts = [jnp.asarray(n, jnp.int32) for n in (0, 0, _STEPS + 1, 0, 0)]
        numbers = _trust_region.FIRST_CAP, 1, 0
        cap, stretch, scale = (jnp.asarray(x, rprop.factor.dtype) for x in numbers)
        square = jnp.zeros((memory_size, memory_size), rprop.factor.dtype)
        # Another square: one that is donated must not come twice.
        scalars = square, square + 0, *counts, cap, stretch, jnp.asarray(False), scale
        return ScaleByRpropLbfgsState._make((rprop, *trees, *beside(params, scalars)))

    def update(updates: Any, state: Any, params: Any = None, *, value: Any = None, **_: Any) -> Any:
        _checks.check_state(state, ScaleByRpropLbfgsState, {})
        _checks.check_arguments(params, in_a_box, value, False)
        if in_a_box:  # beside a gradient that is None, the parameter may be a function
            params = jax.tree.map(lambda p, g: None if g is None else p, params, updates)
        else:
            params = None
        value_is_finite = True if value is None else jnp.isfinite(jnp.asarray(value, float))
        return _update(updates, state, params, lower, upper, value_is_finite)

    return optax.GradientTransformationExtraArgs(init, update)


def _rprop(lower: Any, upper: Any) -> optax.GradientTransformationExtraArgs:
    limits = 0.0, _packing.LARGEST_STEP_SIZE
    return scale_by_rprop(None, 0.5, 1.2, *limits, momentum=0.8, lower=lower, upper=upper)


@jax.jit  # outside of jit, one program for all optimizers of these shapes
def _update(
    updates: optax.Updates, state: Any, params: Any, lower: Any, upper: Any, value_is_finite: Any
) -> tuple[optax.Updates, Any]:
    """Makes lists of real arrays of the trees, and trees of the lists."""
    paths, gradients, treedef = _hyperparameters.flatten(updates)
    if all(gradient is None for gradient in gradients):
        return updates, state
    moves = treedef.flatten_up_to(state.move)
    for path, gradient, move in zip(paths, gradients, moves, strict=True):
        _checks.check_fit(path, gradient, state=move)

    def moving(tree: Any) -> list:  # where the gradient is None, the parameter is left alone
        both = zip(treedef.flatten_up_to(tree), gradients, strict=True)
        return [None if gradient is None else leaf for leaf, gradient in both]

    def as_tree(arrays: list, tree: Any) -> Any:  # the others are those of a tree
        both = zip(treedef.flatten_up_to(tree), like(arrays, moving(tree)), strict=True)
        return treedef.unflatten([old if new is None else new for old, new in both])

    box = None
    if lower is not None or upper is not None:
        given = Hyperparams(None, None, None, None, None, lower, upper)
        own = _hyperparameters.per_leaf(given, paths, gradients)
        box = [
            (part, *_hyperparameters.bounds(bounds, part))
            for bounds, parameter in zip(own, moving(params), strict=True)
            for part in reals(parameter)
        ]
    old = state._replace(**{name: reals(moving(getattr(state, name))) for name in _TREES})
    packed = reals(moving(state.rprop.packed))

    def step_sizes() -> Arrays:
        return each(lambda p, m: _packing.unpack(p).step_size.astype(m.dtype), packed, old.move)

    def rprop() -> dict[str, Any]:
        steps, new = _rprop(lower, upper).update(updates, state.rprop, params)
        move = each(lambda step, m: -step.astype(m.dtype), reals(steps), old.move)
        return {"move": move, "rprop": new}

    def forget(times: Arrays) -> Any:
        new = as_tree(each(_forget, packed, old.distance, times), state.rprop.packed)
        average = jax.tree.map(jnp.zeros_like, state.rprop.average)
        return state.rprop._replace(packed=new, average=average)

    steps, new = _step(reals(gradients), old, box, value_is_finite, step_sizes, rprop, forget)
    trees = {name: as_tree(getattr(new, name), getattr(state, name)) for name in _TREES}
    return treedef.unflatten(like(steps, gradients)), new._replace(**trees)


def _step(
    gradients: Arrays,
    old: Any,  # a ScaleByRpropLbfgsState, with lists for trees
    box: list | None,
    value_is_finite: jax.Array,
    step_sizes: Callable,
    rprop: Callable,
    forget: Callable,
) -> tuple[Arrays, Any]:
    """The steps, to be subtracted, and the new state."""
    largest = _lbfgs.largest(each(jnp.abs, gradients), old.cap)
    scale = lax.cond(
        # Scalars come out of control flow: after selects, XLA would compute them in every leaf.
        old.gradient_scale == 0,
        lambda: inverse_power_of_two(largest),
        lambda: old.gradient_scale,
    )
    gradient = each(lambda g, m: g.astype(m.dtype) * scale.astype(m.dtype), gradients, old.move)
    free, downhill = None, gradient
    if box is not None:
        free = each(lambda g, b: _box.is_free(g, *b), gradient, box)
        downhill = each(lambda g, f: jnp.where(f, g, 0), gradient, free)

    # The newest pair, and all inner products.
    change = each(jnp.subtract, gradient, old.gradient)
    pairs = Pairs(old.moves, old.changes, old.next_row, old.num_pairs)
    pairs = _lbfgs.write(pairs, old.move, change)
    products = _lbfgs.multiply(pairs, old.sy, old.ydy, change, old.diagonal, downhill)
    # Of the last move: the slope at its end, and by how much it has grown.
    after, curvature = products.sg[old.next_row], products.sy[old.next_row, old.next_row]
    if box is not None:  # of all weights: one that is held now may have moved
        after = _lbfgs.total(each(lambda m, g: jnp.sum(m * g), old.move, gradient), old.cap)
    relative = largest * scale  # to the first gradient
    is_finite = value_is_finite & (relative < jnp.inf)

    def is_cut() -> Any:  # by a bound
        if box is None:
            return False
        ends_there = each(lambda m, b: ~_box.is_free(-m, *b), old.move, box)
        return _lbfgs.largest(ends_there, old.cap) > 0

    verdict = _trust_region.judge(after - curvature, after, relative, is_cut, old, is_finite)
    is_pair = ~verdict.is_rejected & (curvature > 0)
    counts = _lbfgs.which_count(pairs, is_pair)

    # Each makes the next state, with the move before bounds cut it; no branch takes the rings.
    same = old._replace(gradient=None, moves=None, changes=None, ydy=products.ydy)

    def back() -> Any:
        distance = each(lambda d: jnp.where(verdict.gives_up, jnp.inf, d), old.distance)
        in_rounding = relative <= ROUNDING * float(jnp.finfo(relative.dtype).eps)
        times = _times(gradients, old, verdict, step_sizes, in_rounding)
        way = each(functools.partial(_way_back, old, verdict), old.move, times)
        return same._replace(move=way, rprop=forget(times), distance=distance)

    def by_lbfgs() -> Any:
        arrays = gradient, downhill, free, step_sizes()
        return _by_lbfgs(same, pairs, counts, products, verdict, arrays)

    left = jnp.maximum(old.countdown - 1, 0)
    whose = jnp.where(verdict.is_rejected, 0, jnp.where(left > 0, 1, 2))  # turn it is
    turn = lax.switch(whose, (back, lambda: same._replace(**rprop()), by_lbfgs))

    steps = each(lambda move, g: finite_cast(-move, g.dtype), turn.move, gradients)
    if box is not None:
        steps = each(lambda step, b: _box.clip_step(step, *b)[0], steps, box)
    made = each(lambda step, move: -step.astype(move.dtype), steps, turn.move)
    if free is not None:  # no pair is made of the rounding by which a weight misses its bound
        made = each(lambda m, f: jnp.where(f | verdict.is_rejected, m, 0), made, free)

    again = 1 + _STEPS * 2 ** (1 + jnp.minimum(old.num_failures, _MOST_DOUBLINGS))
    countdown = jnp.where(verdict.is_rejected, old.countdown, left)
    return steps, turn._replace(
        gradient=each(functools.partial(jnp.where, verdict.is_rejected), old.gradient, gradient),
        move=each(lambda m, last: jnp.where(verdict.is_rejected, last + m, m), made, old.move),
        moves=pairs.moves,
        changes=pairs.changes,
        sy=products.sy,
        next_row=(pairs.next_row + is_pair.astype(jnp.int32)) % len(old.sy),
        num_pairs=jnp.where(verdict.gives_up, 0, pairs.num_pairs + is_pair.astype(jnp.int32)),
        countdown=jnp.where(verdict.gives_up, again, countdown),
        num_failures=old.num_failures + verdict.gives_up.astype(jnp.int32),
        num_tries=jnp.where(verdict.gives_up, 0, verdict.num_tries),
        gradient_scale=jnp.where(verdict.is_rejected, old.gradient_scale, scale),
    )


def _by_lbfgs(
    old: Any, pairs: Pairs, counts: jax.Array, products: Products, verdict: Verdict, arrays: tuple
) -> Any:
    """The state with the direction of L-BFGS, within the trust region."""
    gradient, downhill, free, sizes = arrays
    diagonal, products = lax.cond(
        old.countdown > 0,  # L-BFGS begins
        lambda: _lbfgs.begin(pairs, counts, products, downhill),
        lambda: (old.diagonal, products),
    )
    of_free = products
    if free is not None:
        counts, of_free = lax.cond(
            _lbfgs.largest(each(jnp.logical_not, free), old.cap) > 0,
            lambda: _lbfgs.among(free, pairs, counts, products, diagonal),
            lambda: (counts, products),
        )
    whole = _lbfgs.direction(pairs, counts, of_free, diagonal, downhill)
    is_known, is_curved = jnp.any(counts), each(lambda d, g: (d > 0) | (g == 0), diagonal, gradient)
    follows = each(lambda d, curved: is_known & curved & jnp.isfinite(d), whole, is_curved)
    if free is not None:  # the others to their bounds, if they are not there to the last bit
        follows = each(jnp.logical_and, follows, free)
    direction = each(
        lambda yes, d, g, size: jnp.where(yes, d, -jnp.sign(g) * size),
        *(follows, whole, gradient, sizes),
    )
    # In step sizes; a weight that does not follow moves by one.
    lengths = each(lambda yes, d, size: jnp.where(yes, abs(d) / size, 1), follows, whole, sizes)
    most = _lbfgs.largest(lengths, old.cap)
    part, cap, stretch, is_capped = _trust_region.limit(old, verdict, most, is_known)

    # Two steps, lest one mislead; none where the slope stays as it was, so that they are far too
    # short. Older ones fade faster than L-BFGS converges: else it would go on in rounding errors.
    def far(d: jax.Array, curved: jax.Array, before: jax.Array, last: jax.Array) -> jax.Array:
        least = jnp.maximum(abs(last), _FORGET * jnp.where(before < jnp.inf, before, 0))
        now = jnp.where(curved & jnp.isfinite(d) & ~verdict.is_short, abs(d), jnp.inf)
        return jnp.where(is_known, jnp.maximum(now, least), before)

    distance = each(far, whole, is_curved, old.distance, old.move)
    if free is not None:
        distance = each(lambda d, f: jnp.where(is_known & ~f, 0, d), distance, free)
    move = each(lambda d: part.astype(d.dtype) * d, direction)
    new = old._replace(move=move, diagonal=diagonal, distance=distance, ydy=products.ydy)
    return new._replace(cap=cap, stretch=stretch, is_capped=is_capped)


def _way_back(old: Any, verdict: Verdict, move: jax.Array, times: jax.Array) -> jax.Array:
    """To a part of the last move; one of Rprop's that has no part in an error stays at first."""
    back = verdict.portion.astype(move.dtype) * move - move
    stays = (old.countdown > 0) & (times == 0)
    return jnp.where(stays, jnp.where(verdict.num_tries < _TRIES_APART, 0, -move), back)


def _times(
    gradients: Arrays, old: Any, verdict: Verdict, step_sizes: Callable, in_rounding: jax.Array
) -> Arrays:
    """The part of its step size that a weight keeps, without a sign, after a rejected move.

    0 keeps all of it, and the sign. To blame for a point that is not finite are, of the weights
    that moved, those whose gradients are not finite, or else all. Where L-BFGS gives up at a
    minimum, in rounding, Rprop must not throw the weights off it: all its steps are as short as the
    way of the farthest weight asks for, by its secant.
    """
    rprop_moved = old.countdown > 0

    def largest() -> jax.Array:
        def of_leaf(g: jax.Array, m: jax.Array, d: jax.Array, far: jax.Array, size: jax.Array):
            way = jnp.where(far > 0, d * abs(g).astype(d.dtype) / size, 0)
            return jnp.where(rprop_moved, (~jnp.isfinite(g) & (m != 0)).astype(way.dtype), way)

        trees = gradients, old.move, old.diagonal, old.distance, step_sizes()
        return _lbfgs.largest(each(of_leaf, *trees), old.cap)

    # Out of control flow: else XLA would ask all leaves again in every leaf.
    worst = lax.cond(rprop_moved | verdict.gives_up, largest, lambda: jnp.zeros_like(old.cap))
    part = jnp.minimum(_MOST_DISTANCES * worst * old.gradient_scale, 1)
    after_failure = jnp.where(verdict.gives_up, jnp.where(in_rounding, part, 1), 0)

    def times(gradient: jax.Array, move: jax.Array) -> jax.Array:
        is_culprit = (~jnp.isfinite(gradient) | (worst == 0)) & (move != 0)
        after_error = jnp.where(is_culprit, _AFTER_ERROR, 0.0)
        return jnp.where(rprop_moved, after_error, after_failure).astype(move.dtype)

    return each(times, gradients, old.move)


def _forget(packed: jax.Array, distance: jax.Array, times: jax.Array) -> jax.Array:
    """Rprop's step size and sign, where it is to begin again.

    By steps that do not throw the weights far off a minimum that may be near.
    """
    size = _packing.unpack(packed).step_size
    near = jnp.where(distance > 0, _MOST_DISTANCES * distance, jnp.inf).astype(size.dtype)
    size = _packing.clip_to_range(jnp.minimum(size, near) * times.astype(size.dtype))
    return jnp.where(times > 0, _packing.pack_initial(size).astype(packed.dtype), packed)

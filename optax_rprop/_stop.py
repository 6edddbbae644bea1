"""When `RpropMinimiser` stops: L-BFGS arrived, Rprop is quiet, or nothing is gained any more.

L-BFGS arrives where its whole step is far within the tolerance and the gradient fell tenfold. But
that step is too short where no pair has felt how flat a valley is. So the weights are pushed off,
and L-BFGS has to come back to where it was: three times where the gradient may be rounding. Each
time that it comes to another place, it must converge tenfold farther before the next push.

A kink keeps its gradient. There, the steps of L-BFGS must stay short, or Rprop's step sizes small
for many steps; and the gradient must be a sum of its changes there.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _lbfgs, _packing
from optax_rprop._converged import FLAT, NEAR, distance_left, largest_slope, largest_step
from optax_rprop._dtypes import by_parts, parts, reals, widen
from optax_rprop._rprop_lbfgs import ROUNDING

# How far weights are pushed, and how near to where it was L-BFGS must come back: in tolerances.
_PUSH, _AGREE, _RETURNS = 30, 0.3, 3
_NEAR_IN_ROUNDING = 0.1  # which keeps the steps of L-BFGS longer than NEAR
_FELT = 2.0**6  # times eps: a gradient of this part of what whole weights make may be rounding
_CLOSER = 0.1  # times the gradient before, on arrival; and times the way, after each that was none
_KINK, _NEAR_STEPS = 1e-3, 3  # of the steepest gradient, which a kink keeps; points near it
_REST, _RIDGE = 1e-3, 1e-4  # of a gradient's square: that its changes leave over; of each change's
# Rprop's step sizes come down to a valley's width long before its end. So they must be smaller
# than the tolerance by the first, in so many steps in a row, with gradients of both signs.
_MARGIN, _QUIET_STEPS = 2**16, 50
_IDLE_STEPS = 100  # where nothing was gained in so many, it is for good
_DRIFT = 0.75  # power of eps: the part of a value by which a run in a circle may fall by rounding


class Progress(NamedTuple):
    """What the stop remembers: trees like the weights, and scalars."""

    start: Any  # the second point, which is within bounds
    arrival: Any  # where L-BFGS arrived before it was pushed; at first, infinite
    arrival_value: jax.Array
    slope: jax.Array  # the largest, at the last point that was not near
    steepest: jax.Array  # the largest of these up to now
    best: jax.Array  # the least value
    least_left: jax.Array  # the least distance, of L-BFGS and of Rprop, in tolerances
    signs: Any  # of gradients since all step sizes were small: 1 above 0, 2 below, 3 both
    is_pushed: Any = False  # off the arrival, in this step
    is_recalled: Any = False  # to the arrival, from outside of the domain, or at the end
    is_done: Any = False
    is_near: Any = False  # within the tolerance, as far as L-BFGS can tell
    is_idle: Any = False
    in_doubt: Any = False  # a gradient was as small as the rounding of weights makes
    num_returns: Any = 0  # to one point, up to now
    needed_returns: Any = 1  # how many it takes, by the gradient where it was pushed first
    num_strays: Any = 0  # to another point than it was pushed from
    num_steps: Any = 0
    near_steps: Any = 0  # how many, up to now, L-BFGS was near
    quiet_steps: Any = 0  # how many, up to now, all step sizes were small
    idle_steps: Any = 0  # since the last gain


def begin(y: Any, f: jax.Array, rprop: Any) -> Progress:
    """Before the first step."""
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), y)
    inf = jnp.full_like(rprop.cap, jnp.inf)
    best, left = jnp.full_like(f, jnp.inf), jnp.stack([inf, inf])
    signs = [jnp.zeros_like(x, jnp.int8) for x in reals(rprop.gradient)]
    first = Progress(y, nowhere, best, inf, jnp.ones_like(inf), best, left, signs)
    return jax.tree.map(jnp.array, first)


class _Point(NamedTuple):
    """What is asked of a point: scalars."""

    value: jax.Array
    slope: jax.Array  # the largest gradient; that of the first point was about 1
    distance: jax.Array  # of L-BFGS from the minimum, in tolerances
    flatness: jax.Array  # and how far that may be wrong
    largest: jax.Array  # of Rprop's step sizes; 1 is small enough
    lbfgs_works: jax.Array
    is_usable: jax.Array  # all numbers are finite
    is_base: jax.Array  # and L-BFGS does not go back from here


def follow(
    old: Progress, rprop: Any, y: Any, f: jax.Array, is_usable: jax.Array, tolerances: Any
) -> Progress:
    """After a gradient at `y`, where `f` is the value; `rprop` is the state after it."""
    small = jax.tree.map(lambda x, y: jnp.maximum(x / _MARGIN, rounding(y)), tolerances, y)
    distance, flatness = distance_left(rprop, tolerances)
    largest, is_base = largest_step(rprop.rprop, small), is_usable & (rprop.num_tries == 0)
    measured = largest_slope(rprop), distance, flatness, largest
    now = _Point(f, *measured, rprop.countdown == 0, is_usable, is_base)

    # Six questions, each with the fields that it remembers.
    is_tiny, is_small, doubt = _may_be_rounding(old, now, y, rprop)
    is_quiet, quiet = _is_quiet(old, now, rprop)
    falls, stays, near = _is_near(old, now)
    is_short = jnp.where(
        is_small, now.distance <= _NEAR_IN_ROUNDING, falls & (near["near_steps"] > 0)
    )
    is_sure, agrees, returns = _comes_back(
        old, now, y, rprop, tolerances, is_short, is_tiny, is_small
    )
    is_idle, gains = _is_idle(old, now, rprop, returns["num_returns"])
    asks = is_quiet | (now.distance <= 1)  # else not at that price
    none = jnp.zeros_like(asks)
    is_balanced = lax.cond(asks, lambda: _is_balanced(rprop, tolerances), lambda: none)

    is_done = is_sure | (stays | is_quiet) & is_balanced & ~is_small
    is_done |= ~now.lbfgs_works & (now.largest == 0)
    # Rprop, where it takes over, does not go far. A run that was recalled has proved nothing.
    is_near = (now.distance <= 1) & (now.flatness <= 1) & (falls | is_balanced)
    is_near = jnp.where(now.lbfgs_works, is_near, old.is_near)
    is_idle |= is_quiet & is_small
    is_off = is_idle & (now.value > old.arrival_value)  # pushed, it has not come back
    return old._replace(
        **(doubt | quiet | near | returns | gains),
        start=jax.tree.map(functools.partial(jnp.where, old.num_steps > 1), old.start, y),
        is_recalled=old.is_pushed & (rprop.num_tries > 0) | is_off,
        is_done=now.is_base & is_done,
        is_near=is_near & ~old.is_recalled & (~is_small | agrees),
        is_idle=is_idle & ~is_off,
        num_steps=old.num_steps + 1,
    )


def _may_be_rounding(old: Progress, now: _Point, y: Any, rprop: Any) -> tuple[Any, ...]:
    """Whether the gradient is tiny beside the first one; and whether it may be rounding alone.

    On a valley's floor a tiny one is rounding itself; so then is one that is as small beside the
    largest, and beside what whole weights make. At kinks none is.
    """
    eps = float(jnp.finfo(now.slope.dtype).eps)
    steepest = jnp.maximum(old.steepest, jnp.where(now.is_usable, now.slope, 1))
    felt = jnp.minimum(_FELT * _of_whole_weights(y, rprop), ROUNDING * steepest)
    in_doubt = old.in_doubt | now.lbfgs_works & (now.slope <= eps * felt)
    is_tiny = (now.slope > 0) & (now.slope <= ROUNDING * eps)
    is_small = is_tiny | (now.slope > 0) & in_doubt
    return is_tiny, is_small, {"steepest": steepest, "in_doubt": in_doubt}


def _is_quiet(old: Progress, now: _Point, rprop: Any) -> tuple[jax.Array, dict]:
    """Whether Rprop's step sizes have been small for long, with gradients of both signs."""
    # Step sizes that an edge made small must grow. Steps of L-BFGS in between do not count.
    least = jnp.where(now.is_usable, 0, -4 * _QUIET_STEPS)
    steps = jnp.where(now.is_base & (now.largest <= 1), old.quiet_steps + 1, least)
    steps = jnp.where(now.lbfgs_works, old.quiet_steps, steps)
    since_then = (old.quiet_steps > 0) & (steps > 0)
    trees = old.signs, reals(rprop.gradient), reals(rprop.rprop.packed)
    signs = jax.tree.map(functools.partial(_signs, since_then), *trees)
    is_quiet = (steps >= _QUIET_STEPS) & jnp.array([jnp.all(x == 3) for x in signs]).all()
    return is_quiet, {"quiet_steps": steps, "signs": signs}


def _is_near(old: Progress, now: _Point) -> tuple[jax.Array, jax.Array, dict]:
    """Whether the gradient fell as L-BFGS came near the minimum; or stays, as at a kink."""
    near = NEAR * _CLOSER ** old.num_strays.astype(now.distance.dtype)
    is_near = now.lbfgs_works & (now.distance <= near) & (now.flatness <= FLAT)
    steps = jnp.where(is_near, old.near_steps + jnp.where(now.is_base, 1, 0), 0)
    stays = (steps >= _NEAR_STEPS) & (now.slope > _KINK * old.steepest)
    slope = jnp.where(now.is_base & (steps == 0), now.slope, old.slope)
    return now.slope <= _CLOSER * old.slope, stays, {"near_steps": steps, "slope": slope}


def _is_balanced(rprop: Any, tolerances: Any) -> jax.Array:
    """Whether the gradient is a sum of its changes in the pairs, by least squares.

    So it is at a kink, where it is not zero on either side, but in between; not where a kink
    across the axes holds up the weights, which could go on along it (Clarke, "Optimization and
    Nonsmooth Analysis", 1983).
    """
    both = zip(*map(jax.tree.leaves, (tolerances, rprop.distance)), strict=True)
    limits = [limit for limit, far in both for _ in parts(far)]
    largest = _lbfgs.largest(limits, rprop.cap)
    largest = jnp.where(largest > 0, largest, 1)

    def metric(tolerance: jax.Array, far: jax.Array, packed: jax.Array) -> jax.Array:
        held = jnp.where(rprop.countdown == 0, far == 0, _packing.unpack(packed).at_rest)
        part = tolerance.astype(far.dtype) / largest.astype(far.dtype)
        return jnp.where(held, 0, part**2)

    squares = _lbfgs.each(metric, limits, *map(reals, (rprop.distance, rprop.rprop.packed)))
    gradient, moves, changes = map(reals, (rprop.gradient, rprop.moves, rprop.changes))
    pairs = _lbfgs.Pairs(moves, changes, rprop.next_row, rprop.num_pairs)
    inner, slopes = _lbfgs.weigh(changes, squares, gradient, rprop.sy)
    whole = _lbfgs.each(lambda d, g: jnp.sum(d * g * g), squares, gradient)
    whole = _lbfgs.total(whole, rprop.sy)
    square = jnp.diag(inner)
    counts = _lbfgs.which_count(pairs, jnp.asarray(False)) & (square > 0)
    unit = jnp.where(counts, lax.rsqrt(jnp.where(counts, square, 1)), 0)
    inner = jnp.where(counts[:, None] & counts[None], inner, 0) * unit[:, None] * unit[None]
    slopes = jnp.where(counts, slopes, 0) * unit
    inner += _RIDGE * jnp.eye(len(unit), dtype=inner.dtype)
    explained = jnp.sum(slopes * jnp.linalg.solve(inner, slopes))
    return whole - explained <= _REST * whole


def _comes_back(
    old: Progress,
    now: _Point,
    y: Any,
    rprop: Any,
    tolerances: Any,
    is_short: jax.Array,
    is_tiny: jax.Array,
    is_small: jax.Array,
) -> tuple[jax.Array, jax.Array, dict]:
    """Whether L-BFGS has come back to one point for sure; and whether it is there about."""
    # Where the next step is lost in rounding, no matter how long the last one was.
    ahead = jax.tree.map(lambda x, move: x + move.astype(x.dtype), y, rprop.move)
    is_lost = is_tiny & ~rprop.is_capped & (_distance(y, ahead, tolerances, rprop.cap) == 0)
    arrives = now.is_base & now.lbfgs_works & (is_short | is_lost)
    away = _distance(y, old.arrival, tolerances, rprop.cap)
    is_led = arrives & ~old.is_recalled
    comes_back = is_led & (away <= _AGREE)
    num_returns = jnp.where(comes_back, old.num_returns + 1, jnp.where(is_led, 0, old.num_returns))
    is_sure = comes_back & (num_returns >= old.needed_returns)
    is_pushed = arrives & ~is_sure
    strays = is_led & ~comes_back & (old.arrival_value < jnp.inf)
    fields = {
        "arrival": jax.tree.map(functools.partial(jnp.where, is_pushed), y, old.arrival),
        "arrival_value": jnp.where(is_pushed, now.value, old.arrival_value),
        "is_pushed": is_pushed,
        "num_returns": num_returns,
        "needed_returns": jnp.where(
            comes_back, old.needed_returns, jnp.where(is_small, _RETURNS, 1)
        ),
        "num_strays": old.num_strays + jnp.where(strays, 1, 0),
    }
    return is_sure, (away <= 1) & (num_returns > 0), fields


def _is_idle(
    old: Progress, now: _Point, rprop: Any, num_returns: jax.Array
) -> tuple[jax.Array, dict]:
    """Whether nothing has been gained for long: a lower value, a shorter way, or a return."""
    # Of L-BFGS and of Rprop, each while it is at work.
    of_lbfgs = now.lbfgs_works == jnp.array([True, False])
    left = jnp.stack([now.distance, now.largest.astype(now.distance.dtype)])
    left = jnp.where(of_lbfgs, left, jnp.inf)
    drift = float(jnp.finfo(now.value.dtype).eps) ** _DRIFT * abs(now.value)
    falls = now.value + drift < old.best
    falls &= now.slope > float(jnp.finfo(now.slope.dtype).eps) ** 2
    # No more returns to one point than prove it: else a run might never end.
    returns = (num_returns > old.num_returns) & (num_returns <= old.needed_returns)
    gains = falls | jnp.any(left < old.least_left / 2) | returns
    steps = jnp.where(gains, 0, old.idle_steps + 1)
    fields = {
        "best": jnp.where(falls, now.value, old.best),
        "least_left": jnp.fmin(old.least_left, left),
        "idle_steps": steps,
    }
    return (steps >= _IDLE_STEPS) & (rprop.num_tries == 0), fields


def _signs(
    since_then: jax.Array, signs: jax.Array, gradient: jax.Array, packed: jax.Array
) -> jax.Array:
    """Which a gradient has had since then; both, for a weight at rest."""
    now = jnp.where(gradient > 0, 1, 2)
    now = jnp.where(_packing.unpack(packed).at_rest, 3, now).astype(signs.dtype)
    return jnp.where(since_then, signs, 0) | now


def _of_whole_weights(y: Any, rprop: Any) -> jax.Array:
    """The largest gradient that a weight makes on its way from 0, by its secant; not at a bound."""

    def of_leaf(x: jax.Array, diagonal: jax.Array, far: jax.Array) -> jax.Array:
        counts = (diagonal > 0) & (far > 0)
        return magnitude(x).astype(diagonal.dtype) / jnp.where(counts, diagonal, jnp.inf)

    trees = map(reals, (y, rprop.diagonal, rprop.distance))
    return _lbfgs.largest(_lbfgs.each(of_leaf, *trees), rprop.cap)


def move(progress: Progress, rprop: Any, y: Any, steps: Any, tolerances: Any) -> Any:
    """The next point, and the state that has this move: as steps lead, or pushed, or recalled."""
    recalled = progress.is_recalled
    led = jax.tree.map(jnp.subtract, y, steps)
    moves = _as_made(rprop.move, y, steps, led)
    leaves, treedef = jax.tree.flatten(y)
    # Each leaf draws its own parts of the way.
    numbers = treedef.unflatten([len(leaves) * progress.num_steps + n for n in range(len(leaves))])
    pushed = jax.tree.map(_push, numbers, y, progress.start, tolerances, rprop.distance)
    other = jax.tree.map(functools.partial(jnp.where, recalled), progress.arrival, pushed)
    by_hand = progress.is_pushed | recalled
    sizes = jax.tree.map(functools.partial(_as_far, by_hand), rprop.rprop.packed, y, other)
    # No pair comes of a push: one would lead back, however flat the valley is.
    return jax.tree.map(functools.partial(jnp.where, by_hand), other, led), rprop._replace(
        rprop=rprop.rprop._replace(packed=sizes),
        move=jax.tree.map(lambda m: jnp.where(by_hand, 0, m), moves),
        countdown=jnp.where(by_hand, 1, rprop.countdown),  # L-BFGS begins, with the pairs it has
        num_tries=jnp.where(recalled, 0, rprop.num_tries),
    )


def _as_far(by_hand: jax.Array, packed: jax.Array, y: jax.Array, other: jax.Array) -> jax.Array:
    """Rprop's step sizes, but no shorter than a push: they may have shrunk below rounding."""

    def of_part(packed: jax.Array, way: jax.Array) -> jax.Array:
        size = _packing.unpack(packed).step_size
        size = _packing.clip_to_range(jnp.maximum(size, abs(way).astype(size.dtype)))
        return jnp.where(by_hand, _packing.pack_initial(size).astype(packed.dtype), packed)

    return by_parts(of_part, packed, other - y)


def magnitude(x: jax.Array) -> jax.Array:
    """Of weights, in the type that tolerances are computed in."""
    return abs(x).astype(jnp.finfo(widen(x.dtype)).dtype)


def rounding(x: jax.Array) -> jax.Array:
    """Two units in the last place of a weight, in which a shorter step may be lost."""
    return 2 * float(jnp.finfo(x.dtype).eps) * magnitude(x)


def _distance(y: Any, other: Any, tolerances: Any, scalar: jax.Array) -> jax.Array:
    """Between two points, in tolerances, but for rounding."""

    def of_leaf(a: jax.Array, b: jax.Array, tolerance: jax.Array) -> jax.Array:
        beyond = magnitude(a - b) - rounding(a)  # no 0 / 0, of which jax_debug_nans would complain
        return jnp.where(beyond > 0, beyond / jnp.where(beyond > 0, tolerance, 1), 0)

    distances = jax.tree.map(of_leaf, y, other, tolerances)
    return _lbfgs.largest(jax.tree.leaves(distances), scalar)


def _push(
    number: jax.Array, x: jax.Array, start: jax.Array, tolerance: jax.Array, distance: jax.Array
) -> jax.Array:
    """Part of the way back to the start, for weights that no bound holds: so none is in between."""
    way = start - x
    length = magnitude(way)
    part = jax.random.uniform(jax.random.key(number), x.shape, length.dtype)
    part *= jnp.minimum(_PUSH * tolerance / jnp.where(length > 0, length, 1), 1)
    return x + way * jnp.where(distance == 0, 0, part).astype(x.dtype)


def _as_made(moves: Any, y: Any, steps: Any, moved: Any) -> Any:
    """The moves that the weights have made: in a narrow valley, their rounding leads far uphill."""
    made = jax.tree.map(lambda m, a, b: b.astype(m.dtype) - a.astype(m.dtype), moves, y, moved)
    felt = jax.tree.map(lambda step, x: jnp.any(magnitude(step) > 8 * rounding(x)), steps, y)
    is_felt = jnp.array(jax.tree.leaves(felt)).any()

    def rounded(m: jax.Array, made: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.where(is_felt & (m != 0), m + (made + step.astype(m.dtype)), m)

    return jax.tree.map(rounded, moves, made, steps)

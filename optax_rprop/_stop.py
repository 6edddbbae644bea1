"""When `RpropMinimiser` stops: L-BFGS arrived, Rprop is quiet, or nothing is gained any more.

L-BFGS arrives where its whole step is far within the tolerance and the gradient falls fast, or at
three such points in a row. But that step is too short where rounding hid how flat a valley is. So
where the gradient may be rounding, the weights are pushed off, and L-BFGS has to come back to
where it was, three times. At a kink, which keeps its gradient, Rprop's step sizes must be small
for many steps.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from optax_rprop import _lbfgs, _packing
from optax_rprop._converged import FLAT, NEAR, distance_left, largest_slope, largest_step
from optax_rprop._dtypes import by_parts, reals, widen
from optax_rprop._rprop_lbfgs import ROUNDING

# How far weights are pushed, and how near to where it was L-BFGS must come back: in tolerances.
_PUSH, _AGREE, _RETURNS = 30, 0.3, 3
_NEAR_IN_ROUNDING = 0.1  # which keeps the steps of L-BFGS longer than NEAR
_FELT = 2.0**6  # times eps: a gradient of this part of what whole weights make may be rounding
_FAST, _NEAR_STEPS = 0.1, 3  # of the last gradient; points
# Rprop's step sizes come down to a valley's width long before its end. So they must be smaller
# than the tolerance by the first, in so many steps in a row, with gradients of both signs.
_MARGIN, _QUIET_STEPS = 2**16, 50
_IDLE_STEPS = 100  # where nothing was gained in so many, it is for good


class Progress(NamedTuple):
    """What the stop remembers: trees like the weights, and scalars."""

    start: Any  # the second point, which is within bounds
    arrival: Any  # where L-BFGS arrived before it was pushed; at first, infinite
    arrival_value: jax.Array
    slope: jax.Array  # the largest, at the last point
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
    num_steps: Any = 0
    near_steps: Any = 0  # how many, up to now, L-BFGS was near
    quiet_steps: Any = 0  # how many, up to now, all step sizes were small
    idle_steps: Any = 0  # since the last gain


def begin(y: Any, f: jax.Array, rprop: Any) -> Progress:
    """Before the first step."""
    nowhere = jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), y)
    inf = jnp.full_like(rprop.cap, jnp.inf)
    best, left = jnp.full_like(f, jnp.inf), jnp.stack([inf, inf])
    signs = [jnp.zeros(x.shape, jnp.int8) for x in reals(rprop.gradient)]
    first = Progress(y, nowhere, best, inf, jnp.ones_like(inf), best, left, signs)
    return jax.tree.map(jnp.array, first)


def follow(
    old: Progress, rprop: Any, y: Any, f: jax.Array, is_usable: jax.Array, tolerances: Any
) -> Progress:
    """After a gradient at `y`, where `f` is the value; `rprop` is the state after it."""
    quiet = jax.tree.map(lambda x, y: jnp.maximum(x / _MARGIN, rounding(y)), tolerances, y)
    is_base = is_usable & (rprop.num_tries == 0)  # not one that L-BFGS goes back from
    lbfgs_works = rprop.countdown == 0
    distance, flatness = distance_left(rprop, tolerances)
    largest, slope = largest_step(rprop.rprop, quiet), largest_slope(rprop)
    eps = float(jnp.finfo(distance.dtype).eps)
    # The first gradient was scaled to 1. On a valley's floor it is rounding itself; so then is one
    # that is as small beside the largest, and beside what whole weights make. At kinks none is.
    steepest = jnp.maximum(old.steepest, jnp.where(is_usable, slope, 1))
    felt = jnp.minimum(_FELT * _of_whole_weights(y, rprop), ROUNDING * steepest)
    in_doubt = old.in_doubt | lbfgs_works & (slope <= eps * felt)
    is_tiny = (slope > 0) & (slope <= ROUNDING * eps)
    is_small = is_tiny | (slope > 0) & in_doubt

    # Step sizes that an edge made small must grow. Steps of L-BFGS in between do not count.
    least = jnp.where(is_usable, 0, -4 * _QUIET_STEPS)
    quiet_steps = jnp.where(is_base & (largest <= 1), old.quiet_steps + 1, least)
    quiet_steps = jnp.where(lbfgs_works, old.quiet_steps, quiet_steps)
    since_then = (old.quiet_steps > 0) & (quiet_steps > 0)
    trees = old.signs, reals(rprop.gradient), reals(rprop.rprop.packed)
    signs = jax.tree.map(functools.partial(_signs, since_then), *trees)
    is_quiet = (quiet_steps >= _QUIET_STEPS) & jnp.array([jnp.all(x == 3) for x in signs]).all()

    near = lbfgs_works & (distance <= NEAR)
    near_steps = old.near_steps + jnp.where(is_base, 1, 0)
    near_steps = jnp.where(near & (flatness <= FLAT), near_steps, 0)
    stays_near = (near_steps > 0) & (slope <= _FAST * old.slope) | (near_steps >= _NEAR_STEPS)
    # Where the next step is lost in rounding, no matter how long the last one was.
    ahead = jax.tree.map(lambda x, move: x + move.astype(x.dtype), y, rprop.move)
    is_lost = is_tiny & ~rprop.is_capped & (_distance(y, ahead, tolerances, rprop.cap) == 0)
    is_short = distance <= jnp.where(is_small, _NEAR_IN_ROUNDING, NEAR)
    arrives = is_base & lbfgs_works & (is_short | is_lost)
    away = _distance(y, old.arrival, tolerances, rprop.cap)
    comes_back = arrives & (away <= _AGREE)
    num_returns = jnp.where(comes_back, old.num_returns + 1, jnp.where(arrives, 0, old.num_returns))
    is_sure = comes_back & (num_returns >= _RETURNS)
    is_pushed = arrives & is_small & ~is_sure
    is_done = jnp.where(is_small, is_sure, stays_near | is_quiet)
    is_done |= ~lbfgs_works & (largest == 0)

    # Rprop, where it takes over, does not go far.
    is_near_now = jnp.where(lbfgs_works, (distance <= 1) & (flatness <= 1), old.is_near)
    is_near_now &= ~is_small | (away <= 1) & (num_returns > 0)

    # Of L-BFGS and of Rprop, each while it is at work.
    of_lbfgs = lbfgs_works == jnp.array([True, False])
    left = jnp.where(of_lbfgs, jnp.stack([distance, largest.astype(distance.dtype)]), jnp.inf)
    gains = (slope > eps**2) & (f < old.best) | jnp.any(left < old.least_left / 2) | comes_back
    idle_steps = jnp.where(gains, 0, old.idle_steps + 1)
    is_idle = (idle_steps >= _IDLE_STEPS) & (rprop.num_tries == 0) | is_quiet & is_small
    is_off = is_idle & (f > old.arrival_value)  # pushed, it has not come back
    return Progress(
        start=jax.tree.map(functools.partial(jnp.where, old.num_steps > 1), old.start, y),
        arrival=jax.tree.map(functools.partial(jnp.where, is_pushed), y, old.arrival),
        arrival_value=jnp.where(is_pushed, f, old.arrival_value),
        slope=jnp.where(is_base, slope, old.slope),
        steepest=steepest,
        best=jnp.fmin(old.best, f),
        least_left=jnp.fmin(old.least_left, left),
        signs=signs,
        is_pushed=is_pushed,
        is_recalled=old.is_pushed & (rprop.num_tries > 0) | is_off,
        is_done=is_base & is_done,
        is_near=is_near_now,
        is_idle=is_idle & ~is_off,
        in_doubt=in_doubt,
        num_returns=num_returns,
        num_steps=old.num_steps + 1,
        near_steps=near_steps,
        quiet_steps=quiet_steps,
        idle_steps=idle_steps,
    )


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
    number, recalled = progress.num_steps, progress.is_recalled
    led = jax.tree.map(jnp.subtract, y, steps)
    moves = _as_made(rprop.move, y, steps, led)
    pushed = jax.tree.map(
        functools.partial(_push, number), y, progress.start, tolerances, rprop.distance
    )
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

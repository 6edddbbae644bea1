"""Rprop as a minimiser for Optimistix: it stops by itself."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Bool, Int, PyTree, Scalar

from optax_rprop import _checks, _hyperparameters
from optax_rprop._converged import distance_left, gradient_size, is_near, largest_step
from optax_rprop._dtypes import widen
from optax_rprop._rprop_lbfgs import ScaleByRpropLbfgsState, scale_by_rprop_lbfgs

Y = TypeVar("Y")
Aux = TypeVar("Aux")

# Pairs of L-BFGS: two for each weight, within these. Many save evaluations in narrow valleys, and
# remember directions that are hardly curved; too many mislead where the curvature changes.
_LEAST_MEMORY, _MOST_MEMORY = 10, 100
# Rprop's step sizes come down to a valley's width long before its end. So they must be smaller
# than the tolerance by the first, in so many steps in a row.
_MARGIN, _QUIET_STEPS = 2**16, 50
# Where nothing was gained in so many steps, it is for good. L-BFGS that lost its steps in rounding,
# far from a minimum, may be near for a few; but its gradient does not fall.
_IDLE_STEPS, _NEAR_STEPS = 100, 5


class _State(eqx.Module, Generic[Y]):
    num_steps: Int[Array, ""]
    y: Y  # where fn was last evaluated, and its value there
    f: Scalar
    bad_start: Bool[Array, ""]  # fn, its gradient or y was not finite at the start
    is_done: Bool[Array, ""]
    is_near: Bool[Array, ""]  # within the tolerance, as far as L-BFGS can tell
    quiet_steps: Int[Array, ""]  # how many, up to now, all step sizes were small
    idle_steps: Int[Array, ""]  # since the last gain
    best: Scalar  # the least value
    least_left: Array  # the least distance, of L-BFGS and of Rprop, in tolerances
    near_steps: Int[Array, ""]  # how many, up to now, L-BFGS was near
    size: Scalar  # of the last gradient
    rprop: ScaleByRpropLbfgsState


class RpropMinimiser(optx.AbstractMinimiser[Y, Aux, _State[Y]]):
    """`optax_rprop.rprop_lbfgs` for `optimistix.minimise`: it stops by itself.

    A step is one evaluation of `fn` and its gradient; Optimistix allows 256. The tolerance of
    a weight w is `rtol * abs(w) + atol`. The solver stops successfully when the last two whole
    steps of L-BFGS are within 1/100 of it in every weight, no pair has so little curvature that
    the minimum may be farther away, and the gradient still falls, or all this held for five
    steps. At kinks and in noise, where Rprop works, it stops when all step sizes were within
    1/65536 of their tolerances, or lost in the rounding of their weights, for 50 steps. Where
    100 steps gained nothing, it stops too: successfully if the estimate is within the
    tolerance, else with `optimistix.RESULTS.stagnation`.

    The solution is the last point at which `fn` was evaluated, and `aux` belongs to it. Where
    steps may run out, put the solver in `optimistix.BestSoFarMinimiser`. A start where `y0`,
    `fn` or its gradient is not finite ends in `optimistix.RESULTS.nonfinite`. From a later
    such point, the solver goes back. Give the edge of such a domain as a bound: one that holds
    up a run ends it in stagnation.

    Differentiate a solution with `optimistix.ImplicitAdjoint`, Optimistix's default. A function
    without a reverse-mode derivative takes `options={"autodiff_mode": "fwd"}`.

    Args:
      rtol: the tolerance as a part of each weight.
      atol: the tolerance in the units of the weights. It, `rtol`, `lower` and `upper` each
        take a number, an array or a pytree prefix of the weights.
      norm: the norm that `optimistix.root_find` minimises. The stop does not depend on it.
      lower: bounds below the weights (default: none).
      upper: bounds above them.
      verbose: True to print each step, or a function, as in Optimistix's own solvers.

    Raises:
      ValueError: for a tolerance below 0; see `optax_rprop.irprop_minus` for others.

    Example:
      >>> import jax.numpy as jnp, optimistix, optax_rprop.optimistix
      >>> fn = lambda y, args: jnp.sum((y - args) ** 2)
      >>> solver = optax_rprop.optimistix.RpropMinimiser(rtol=1e-4, atol=1e-4, lower=0.0)
      >>> solution = optimistix.minimise(fn, solver, jnp.ones(2), args=jnp.array([3.0, -2.0]))
      >>> bool(jnp.allclose(solution.value, jnp.array([3.0, 0.0]), atol=1e-3))
      True
    """

    rtol: PyTree[ArrayLike]
    atol: PyTree[ArrayLike]
    norm: Callable[[PyTree], Scalar]
    lower: PyTree[ArrayLike] | None
    upper: PyTree[ArrayLike] | None
    verbose: Callable[..., None]

    def __init__(
        self,
        rtol: PyTree[ArrayLike],
        atol: PyTree[ArrayLike],
        norm: Callable[[PyTree], Scalar] = optx.max_norm,
        *,
        lower: PyTree[ArrayLike] | None = None,
        upper: PyTree[ArrayLike] | None = None,
        verbose: bool | Callable[..., None] = False,
    ):
        _checks.check_numbers(rtol=rtol, atol=atol, lower=lower, upper=upper)
        self.rtol, self.atol, self.norm, self.lower, self.upper = rtol, atol, norm, lower, upper
        self.verbose = verbose if callable(verbose) else _print if verbose else _silent

    def _rprop(self, y: Y) -> Any:  # Optax's trees are not Y
        size = sum(x.size for x in jax.tree.leaves(y))
        memory_size = min(max(2 * size, _LEAST_MEMORY), _MOST_MEMORY)
        return scale_by_rprop_lbfgs(memory_size, lower=self.lower, upper=self.upper)

    def _tolerances(self, y: Y) -> PyTree[Array]:
        paths, leaves, treedef = _hyperparameters.flatten(y)
        named = {"rtol": self.rtol, "atol": self.atol}
        given = [_hyperparameters.broadcast_prefix(*x, paths, leaves) for x in named.items()]

        def of_leaf(x: Array | None, *parts: ArrayLike) -> Array | None:
            if x is None:
                return None
            rtol, atol = (_hyperparameters.broadcast(part, _size(x)) for part in parts)
            # No less than what rounding can tell apart.
            return jnp.maximum(rtol * _size(x) + atol, _rounding(x))

        return treedef.unflatten(map(of_leaf, leaves, *given))

    # The protocol of Optimistix, which has the types.
    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        """A fresh state."""
        f = jnp.zeros(f_struct.shape, f_struct.dtype)
        false, zero, inf = jnp.array(False), jnp.array(0), jnp.full_like(f, jnp.inf)
        rprop = self._rprop(y).init(y)
        left = jnp.full(2, jnp.inf, rprop.cap.dtype)
        return _State(zero, y, f, false, false, false, zero, zero, inf, left, zero, left[0], rprop)

    def step(self, fn, y: Any, args, options, state, tags):
        """Evaluates `fn` and its gradient once, and moves on."""
        if options.get("autodiff_mode", "bwd") == "fwd":
            f, tangent, aux = jax.linearize(lambda y: fn(y, args), y, has_aux=True)
            gradient = jax.jacfwd(tangent)(y)
        else:
            (f, aux), gradient = eqx.filter_value_and_grad(fn, has_aux=True)(y, args)
        self.verbose(
            num_steps=("Step", state.num_steps), loss_this_step=("Loss on this step", f), y=("y", y)
        )
        gradient = jax.tree.map(jnp.conj, gradient)  # of complex weights: as Optax expects it
        bad = jax.tree.map(jnp.isnan, gradient), jax.tree.map(lambda x: ~jnp.isfinite(x), (f, y))
        is_usable = ~jnp.array([jnp.any(mask) for mask in jax.tree.leaves(bad)]).any()
        steps, rprop = self._rprop(y).update(gradient, state.rprop, y, value=f)

        tolerances = self._tolerances(y)
        quiet = jax.tree.map(lambda x, y: jnp.maximum(x / _MARGIN, _rounding(y)), tolerances, y)
        is_base = is_usable & (rprop.num_tries == 0)  # not one that L-BFGS goes back from
        lbfgs_works = rprop.countdown == 0
        distance, flatness = distance_left(rprop, tolerances)
        largest = largest_step(rprop.rprop, quiet)
        # Step sizes that an edge made small must grow. Steps of L-BFGS in between do not count.
        least = jnp.where(is_usable, 0, -4 * _QUIET_STEPS)
        quiet_steps = jnp.where(is_base & (largest <= 1), state.quiet_steps + 1, least)
        quiet_steps = jnp.where(lbfgs_works, state.quiet_steps, quiet_steps)
        size, near = gradient_size(rprop), lbfgs_works & is_near(distance, flatness)
        near_steps = jnp.where(near, state.near_steps + jnp.where(is_base, 1, 0), 0)
        is_done = near & ((size <= state.size / 2) | (near_steps >= _NEAR_STEPS))
        is_done |= ~lbfgs_works & (largest == 0)
        # Of L-BFGS and of Rprop, each while it is at work.
        of_lbfgs = lbfgs_works == jnp.array([True, False])
        left = jnp.where(of_lbfgs, jnp.stack([distance, largest.astype(distance.dtype)]), jnp.inf)
        # Where the first gradient was scaled to 1, one of eps**2 no longer gains anything.
        has_slope = optx.max_norm(rprop.gradient) > float(jnp.finfo(left.dtype).eps) ** 2
        gains = has_slope & (f < state.best) | jnp.any(left < state.least_left / 2)
        new_state = _State(
            num_steps=state.num_steps + 1,
            y=y,
            f=f,
            bad_start=(state.num_steps == 0) & ~is_usable,
            is_done=is_base & (is_done | (quiet_steps >= _QUIET_STEPS)),
            # Rprop, where it takes over from there, does not go far.
            is_near=jnp.where(lbfgs_works, (distance <= 1) & (flatness <= 1), state.is_near),
            quiet_steps=quiet_steps,
            idle_steps=jnp.where(gains, 0, state.idle_steps + 1),
            best=jnp.fmin(state.best, f),
            least_left=jnp.fmin(state.least_left, left),
            near_steps=near_steps,
            size=jnp.where(is_base, size, state.size),
            rprop=rprop,
        )
        return jax.tree.map(jnp.subtract, y, steps), new_state, aux

    def terminate(self, fn, y, args, options, state, tags):
        """Where it is done, where nothing is gained any more, and at a start without hope."""
        is_idle, results = state.idle_steps >= _IDLE_STEPS, optx.RESULTS
        is_idle &= state.rprop.num_tries == 0
        is_lost = is_idle & ~(state.is_done | state.is_near)
        result = results.where(is_lost, results.stagnation, results.successful)
        result = results.where(state.bad_start, results.nonfinite, result)
        return state.bad_start | state.is_done | is_idle, result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        """The last point at which `fn` was evaluated, not the one after it."""
        return state.y, aux, {}


def _size(x: Array) -> Array:
    return abs(x).astype(jnp.finfo(widen(x.dtype)).dtype)


def _rounding(x: Array) -> Array:
    """Two units in the last place of a weight, in which a shorter step may be lost."""
    return 2 * float(jnp.finfo(x.dtype).eps) * _size(x)


def _print(**values: tuple[str, Array]) -> None:
    names, arrays = zip(*values.values(), strict=True)
    jax.debug.print(", ".join(f"{name}: {{}}" for name in names), *arrays)


def _silent(**values: tuple[str, Array]) -> None:
    del values

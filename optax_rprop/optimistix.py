"""Rprop as a minimiser for Optimistix: it stops by itself."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Bool, PyTree, Scalar

from optax_rprop import _checks, _hyperparameters, _stop
from optax_rprop._rprop_lbfgs import ScaleByRpropLbfgsState, scale_by_rprop_lbfgs

Y = TypeVar("Y")
Aux = TypeVar("Aux")

# Pairs of L-BFGS: two for each weight, within these. Many save evaluations in narrow valleys, and
# remember directions that are hardly curved; too many mislead where the curvature changes.
_LEAST_MEMORY, _MOST_MEMORY = 10, 100


class _State(eqx.Module, Generic[Y]):
    y: Y  # where fn was last evaluated, and its value there
    f: Scalar
    bad_start: Bool[Array, ""]  # fn, its gradient or y was not finite at the start
    progress: _stop.Progress
    rprop: ScaleByRpropLbfgsState


class RpropMinimiser(optx.AbstractMinimiser[Y, Aux, _State[Y]]):
    """`optax_rprop.rprop_lbfgs` for `optimistix.minimise`: it stops by itself.

    A step is one evaluation of `fn` and its gradient; Optimistix allows 256. The tolerance of a
    weight w is `rtol * abs(w) + atol`. Where the whole steps of L-BFGS are within 1/100 of it in
    every weight, no pair has so little curvature that the minimum may be farther away, and the
    gradient fell tenfold, the solver pushes the weights by up to 30 tolerances, and succeeds if it
    comes back; three times where the gradient is so small that rounding may hide a flat direction.
    At kinks and in noise, it stops when these steps were short at three points, or all step sizes
    of Rprop within 1/65536 of their tolerances, or lost in the rounding of their weights, for 50
    steps with gradients of both signs; and when the gradient is a sum of its last changes, so that
    no kink across the axes holds the weights up. Where 100 steps gained nothing, it stops too:
    successfully if the estimate is within the tolerance, else with
    `optimistix.RESULTS.stagnation`.

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
        numbers = _hyperparameters.without_integers((rtol, atol, lower, upper))
        self.rtol, self.atol, self.lower, self.upper = numbers
        _checks.check_numbers(rtol=rtol, atol=atol, lower=lower, upper=upper)
        self.norm = norm
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
            rtol, atol = (_hyperparameters.broadcast(part, _stop.magnitude(x)) for part in parts)
            # No less than what rounding can tell apart.
            return jnp.maximum(rtol * _stop.magnitude(x) + atol, _stop.rounding(x))

        return treedef.unflatten(map(of_leaf, leaves, *given))

    # The protocol of Optimistix, which has the types.
    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        """A fresh state."""
        f = jnp.zeros(f_struct.shape, f_struct.dtype)
        rprop = self._rprop(y).init(y)
        return _State(y, f, jnp.array(False), _stop.begin(y, f, rprop), rprop)

    def step(self, fn, y: Any, args, options, state, tags):
        """Evaluates `fn` and its gradient once, and moves on."""
        if options.get("autodiff_mode", "bwd") == "fwd":
            f, tangent, aux = jax.linearize(lambda y: fn(y, args), y, has_aux=True)
            gradient = jax.jacfwd(tangent)(y)
        else:
            (f, aux), gradient = eqx.filter_value_and_grad(fn, has_aux=True)(y, args)
        self.verbose(
            num_steps=("Step", state.progress.num_steps),
            loss_this_step=("Loss on this step", f),
            y=("y", y),
        )
        gradient = jax.tree.map(jnp.conj, gradient)  # of complex weights: as Optax expects it
        numbers = jax.tree.leaves((f, y, gradient))
        is_usable = jnp.array([jnp.isfinite(x).all() for x in numbers]).all()
        steps, rprop = self._rprop(y).update(gradient, state.rprop, y, value=f)
        old, tolerances = state.progress, self._tolerances(y)
        progress = _stop.follow(old, rprop, y, f, is_usable, tolerances)
        moved, rprop = _stop.move(progress, rprop, y, steps, tolerances)
        bad_start = (old.num_steps == 0) & ~is_usable
        return moved, _State(y, f, bad_start, progress, rprop), aux

    def terminate(self, fn, y, args, options, state, tags):
        """Where it is done, where nothing is gained any more, and at a start without hope."""
        end, results = state.progress, optx.RESULTS
        is_lost = end.is_idle & ~(end.is_done | end.is_near)
        result = results.where(is_lost, results.stagnation, results.successful)
        result = results.where(state.bad_start, results.nonfinite, result)
        return state.bad_start | end.is_done | end.is_idle, result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        """The last point at which `fn` was evaluated, not the one after it."""
        return state.y, aux, {}


def _print(**values: tuple[str, Array]) -> None:
    names, arrays = zip(*values.values(), strict=True)
    jax.debug.print(", ".join(f"{name}: {{}}" for name in names), *arrays)


def _silent(**values: tuple[str, Array]) -> None:
    del values

"""Rprop as a minimiser for Optimistix: it stops by itself."""

from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, ArrayLike, PyTree, Scalar

from optax_rprop._rules import RULES
from optax_rprop._state import ScaleByRpropState, converged, step_sizes
from optax_rprop._transform import scale_by_rprop

Y = TypeVar("Y")
Aux = TypeVar("Aux")

# In a narrow valley step sizes come down to its width long before its end: see the class.
_MARGIN = 1024


class _State(eqx.Module, Generic[Y]):
    num_steps: Scalar
    y: Y  # where fn was last evaluated, and its value there
    f: Scalar
    opt_state: optax.OptState


class RpropMinimiser(optx.AbstractMinimiser[Y, Aux, _State[Y]]):
    """Rprop for `optimistix.minimise`, with bounds: it stops by itself.

    A step is one evaluation of `fn` and its gradient, and there is no line search. It stops
    when every step size is at most a 64th of `tolerance`. Step sizes shrink only where a
    gradient changes sign, so success promises for each weight one of three things:

    - its gradient changed sign within less than `tolerance`;
    - its gradient is exactly zero;
    - it lies on a bound and its gradient pushes it out of the box.

    In a narrow valley that runs across the axes, gradients change sign all along; the 64th
    is for this. Where the valley is thousands of times longer than wide, the minimum can
    still be farther away than `tolerance`.

    The solution is the last point at which `fn` was evaluated, and `aux` belongs to it.
    Where steps may run out, wrap the solver in `optimistix.BestSoFarMinimiser`.

    A step to where `fn` or its gradient is not finite is taken back by the plus rules; with
    the others it ends the solve with `optimistix.RESULTS.nonfinite`, as a bad start always
    does. A minimum at the edge of such a domain is never called a success: give a bound.

    Args:
      tolerance: the accuracy of the weights, in their units. Not below a few hundred times
        their rounding (1e-5 for float32 weights of size 1, 1e-13 for float64): the step
        sizes would never be that small, and steps run out.
      learning_rate: the first step size, above a 64th of `tolerance`. It, `max_step_size`,
        `lower` and `upper` each take a number, an array or a pytree prefix of the weights.
        The default is 0.01 * abs(y0) + 1e-4, or `tolerance` where that is larger.
      eta_minus: see `optax_rprop.irprop_plus`, for `eta_plus` too.
      max_step_size: the default is the largest that there is, so that no weight is too
        large to be reached.
      rule: as for `optax_rprop.scale_by_rprop`.
      lower: bounds below the weights (default: none).
      upper: bounds above them.
      verbose: True prints each step; or a function to call with its values, each a pair
        of a name and an array, as in Optimistix's own solvers.

    Raises:
      ValueError: if the tolerance is not above 0; see `optax_rprop.irprop_plus` for others.
      RuntimeError: in `minimise`, if y0 is outside the bounds, or a first step size is not
        above the tolerance.

    Example:
      >>> import jax.numpy as jnp, optimistix
      >>> from optax_rprop.optimistix import RpropMinimiser
      >>> def fn(y, args):
      ...     return jnp.sum((y - args) ** 2)
      >>> solver = RpropMinimiser(tolerance=1e-4, lower=0.0)
      >>> solution = optimistix.minimise(fn, solver, jnp.ones(2), args=jnp.array([3.0, -2.0]))
      >>> print(solution.value.round(3))
      [3. 0.]
    """

    atol: float
    rtol: float
    norm: Callable[[PyTree], Scalar]
    learning_rate: PyTree[ArrayLike] | None
    eta_minus: ArrayLike
    eta_plus: ArrayLike
    max_step_size: PyTree[ArrayLike]
    rule: str = eqx.field(static=True)
    lower: PyTree[ArrayLike]
    upper: PyTree[ArrayLike]
    verbose: Callable[..., None]

    def __init__(
        self,
        tolerance: float,
        learning_rate: PyTree[ArrayLike] | None = None,
        eta_minus: ArrayLike = 0.5,
        eta_plus: ArrayLike = 1.2,
        max_step_size: PyTree[ArrayLike] = 2.0**31,
        *,
        rule: str = "irprop_plus",
        lower: PyTree[ArrayLike] = None,
        upper: PyTree[ArrayLike] = None,
        verbose: bool | Callable[..., None] = False,
    ):
        if isinstance(tolerance, (int, float)) and not tolerance > 0:
            raise ValueError(f"tolerance={tolerance!r} must be above 0.")
        # Optimistix wants these three of every solver; its root_find reads them.
        self.atol = tolerance
        self.rtol = 0.0
        self.norm = optx.max_norm
        self.learning_rate = learning_rate
        self.eta_minus = eta_minus
        self.eta_plus = eta_plus
        self.max_step_size = max_step_size
        self.rule = rule
        self.lower = lower
        self.upper = upper
        self.verbose = verbose if callable(verbose) else _print if verbose else _quiet
        # Raises its errors here, not inside minimise.
        self._optimizer(0.01 if learning_rate is None else learning_rate, 0.0)

    def _done(self, y: PyTree) -> PyTree[Array]:
        """The step size at which each weight is done: the margin, or what its type resolves."""
        return jax.tree.map(
            lambda x: jnp.maximum(
                jnp.asarray(self.atol / _MARGIN, x.real.dtype), 2 * jnp.finfo(x.dtype).eps * abs(x)
            ),
            y,
        )

    def _optimizer(
        self, first: PyTree[ArrayLike], floor: PyTree[ArrayLike]
    ) -> optax.GradientTransformationExtraArgs:
        steps = scale_by_rprop(
            first,
            self.eta_minus,
            self.eta_plus,
            floor,
            self.max_step_size,
            rule=self.rule,
            lower=self.lower,
            upper=self.upper,
            undo_nonfinite=RULES[self.rule].undoes,
        )
        return optax.chain(steps, optax.scale(-1))

    def init(self, fn, y: PyTree, args, options, f_struct, aux_struct, tags) -> _State[Y]:
        """A fresh state, once the start is seen to fit the solver."""
        done = self._done(y)
        first = self.learning_rate
        if first is None:
            first = jax.tree.map(lambda x, d: jnp.maximum(0.01 * abs(x) + 1e-4, 2 * d), y, done)
        optimizer = self._optimizer(first, 0.0)
        opt_state = optimizer.init(y)
        sizes = step_sizes(opt_state)
        too_small = _any(jax.tree.map(lambda size, d: ~(size.real > d), sizes, done))
        message = f"learning_rate must be above a {_MARGIN}th of tolerance, where it stops."
        opt_state = eqx.error_if(opt_state, too_small, message)
        # The bounds, in whatever form they are given, show in what they do to a zero step.
        zeros = jax.tree.map(jnp.zeros_like, y)
        moves, _ = optimizer.update(zeros, opt_state, y, value=0.0)
        outside = _any(jax.tree.map(lambda move: move != 0, moves))
        opt_state = eqx.error_if(opt_state, outside, "y0 must lie between lower and upper.")
        return _State(jnp.array(0), y, jnp.zeros(f_struct.shape, f_struct.dtype), opt_state)

    def step(self, fn, y: PyTree, args, options, state, tags) -> tuple[PyTree, _State[Y], Aux]:
        """Evaluates `fn` and its gradient once, and moves on."""
        (f, aux), gradient = eqx.filter_value_and_grad(fn, has_aux=True)(y, args)
        self.verbose(
            num_steps=("Step", state.num_steps), loss_this_step=("Loss on this step", f), y=("y", y)
        )
        gradient = jax.tree.map(jnp.conj, gradient)  # of complex weights: as Optax expects it
        # A step out of the domain shrinks every step size. That is no sign of a minimum,
        # and must not bring one down to where it counts as done.
        lost = _any(jax.tree.map(lambda x: ~jnp.isfinite(x), (f, gradient)))
        done = self._done(y)
        floor = jax.tree.map(lambda d: d * jnp.where(lost, 2.0, 2.0**-10).astype(d.dtype), done)
        optimizer = self._optimizer(done, floor)
        updates, opt_state = optimizer.update(gradient, state.opt_state, y, value=f)
        new_state = _State(state.num_steps + 1, y, f, opt_state)
        return optax.apply_updates(y, updates), new_state, aux

    def terminate(self, fn, y: PyTree, args, options, state, tags) -> tuple[Scalar, optx.RESULTS]:
        """Stops where every weight is done, or where `fn` is lost."""
        states = jax.tree.map(ScaleByRpropState, state.opt_state[0].packed)
        done = jax.tree.map(lambda d, own: converged(own, d), self._done(state.y), states)
        lost = ~jnp.isfinite(state.f)
        if RULES[self.rule].undoes:
            lost &= state.num_steps == 1
        result = optx.RESULTS.where(lost, optx.RESULTS.nonfinite, optx.RESULTS.successful)
        return lost | ~_any(jax.tree.map(jnp.invert, done)), result

    def postprocess(
        self, fn, y, aux, args, options, state, tags, result
    ) -> tuple[Y, Aux, dict[str, PyTree[ArrayLike]]]:
        """The last point at which `fn` was evaluated, not the one after it."""
        return state.y, aux, {}


def _any(masks: PyTree[Array]) -> Scalar:
    return jnp.array([jnp.any(mask) for mask in jax.tree.leaves(masks)], dtype=bool).any()


def _print(**values: tuple[str, Array]) -> None:
    text = ", ".join(f"{name}: {{}}" for name, _ in values.values())
    jax.debug.print(text, *(value for _, value in values.values()))


def _quiet(**values: tuple[str, Array]) -> None:
    del values

"""Rprop as a minimiser for Optimistix: it stops by itself."""

from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, ArrayLike, PyTree, Scalar

from optax_rprop import _packing
from optax_rprop._rules import RULES
from optax_rprop._state import is_done, split, step_sizes
from optax_rprop._transform import scale_by_rprop

Y = TypeVar("Y")
Aux = TypeVar("Aux")

# In a narrow valley, step sizes come down to its width long before its end.
_MARGIN = 1024


class _State(eqx.Module, Generic[Y]):
    num_steps: Scalar
    y: Y  # where fn was last evaluated, and its value there
    f: Scalar
    rprop: PyTree


class RpropMinimiser(optx.AbstractMinimiser[Y, Aux, _State[Y]]):
    """Rprop for `optimistix.minimise`, with bounds: it stops by itself.

    A step is one evaluation of `fn` and its gradient; there is no line search. It stops when
    every step size is at most `tolerance` / 1024, or as small as the rounding of its weight.
    Success promises for each weight that its gradient changes sign within less than
    `tolerance`, or is exactly zero, or pushes it against a bound. In a valley many thousand
    times longer than wide, the minimum can still be farther away.

    The solution is the last point at which `fn` was evaluated, and `aux` belongs to it. Where
    steps may run out, put the solver in `optimistix.BestSoFarMinimiser`. A start where `fn`
    is not finite ends in `optimistix.RESULTS.nonfinite`, and so does a later point if the
    rule undoes nothing; the plus rules take the step back. The edge of such a domain is never
    called a minimum: give it as a bound.

    Args:
      tolerance: the accuracy that is wanted, in the units of the weights: one for all.
      learning_rate: the first step size (default: 0.01 * abs(y0) + 1e-4). It,
        `max_step_size`, `lower` and `upper` each take a number, an array or a pytree prefix
        of the weights.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      max_step_size: by default the largest that there is: no weight is out of reach.
      rule: as for `optax_rprop.scale_by_rprop`.
      lower: bounds below the weights (default: none).
      upper: bounds above them.
      verbose: True to print each step, or a function, as in Optimistix's own solvers.

    Raises:
      ValueError: if the tolerance is not above 0; see `optax_rprop.irprop_plus` for others.
      RuntimeError: in `minimise`, if y0 is outside the bounds, or step sizes begin too small.

    Example:
      >>> import jax.numpy as jnp, optimistix
      >>> from optax_rprop.optimistix import RpropMinimiser
      >>> def fn(y, args):
      ...     return jnp.sum((y - args) ** 2)
      >>> solver = RpropMinimiser(tolerance=1e-4, lower=0.0)
      >>> solution = optimistix.minimise(fn, solver, jnp.ones(2), args=jnp.array([3.0, -2.0]))
      >>> bool(jnp.allclose(solution.value, jnp.array([3.0, 0.0]), atol=1e-4))
      True
    """

    # Optimistix wants the first three of every solver; its root_find reads them.
    rtol: float
    atol: float
    norm: Callable[[PyTree], Scalar]
    learning_rate: PyTree[ArrayLike] | None
    hyperparameters: dict[str, PyTree[ArrayLike]]
    rule: str = eqx.field(static=True)
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
        lower: PyTree[ArrayLike] | None = None,
        upper: PyTree[ArrayLike] | None = None,
        verbose: bool | Callable[..., None] = False,
    ):
        if isinstance(tolerance, (int, float)) and not tolerance > 0:
            raise ValueError(f"tolerance={tolerance!r} must be above 0.")
        self.rtol, self.atol, self.norm = 0.0, tolerance, optx.max_norm
        self.learning_rate, self.rule = learning_rate, rule
        self.hyperparameters = {
            "eta_minus": eta_minus,
            "eta_plus": eta_plus,
            "max_step_size": max_step_size,
            "lower": lower,
            "upper": upper,
        }
        self.verbose = verbose if callable(verbose) else _print if verbose else _quiet
        self._rprop(1e-18 if learning_rate is None else learning_rate)  # raises its errors here

    def _rprop(
        self, learning_rate: PyTree[ArrayLike], min_step_size: PyTree[ArrayLike] = 0.0
    ) -> optax.GradientTransformationExtraArgs:
        return scale_by_rprop(
            learning_rate,
            min_step_size=min_step_size,
            rule=self.rule,
            undo_nonfinite=RULES[self.rule].undoes,
            **self.hyperparameters,
        )

    def _done(self, y: PyTree) -> PyTree[Array]:
        """The step size at which each weight is done."""

        def of_leaf(x: Array) -> Array:
            dtype = jnp.finfo(_packing.state_dtype(x.dtype)).dtype
            rounding = 2 * float(jnp.finfo(x.dtype).eps) * abs(x).astype(dtype)
            return jnp.maximum(jnp.asarray(self.atol / _MARGIN, dtype), rounding)

        return jax.tree.map(of_leaf, y)

    def init(self, fn, y: PyTree, args, options, f_struct, aux_struct, tags) -> _State[Y]:
        """A fresh state, once the start is seen to fit the solver."""
        done, first = self._done(y), self.learning_rate
        if first is None:
            first = jax.tree.map(
                lambda x, d: jnp.maximum(0.01 * abs(x).astype(d.dtype) + 1e-4, 2 * d), y, done
            )
        rprop = self._rprop(first)
        state = rprop.init(y)
        # What is given, in whatever form, shows in what it does to a step of zero.
        moves, held = rprop.update(jax.tree.map(jnp.zeros_like, y), state, y, value=0.0)
        outside = _any(jax.tree.map(lambda move: move != 0, moves))
        state = eqx.error_if(state, outside, "y0 must lie between lower and upper.")
        small = _any(jax.tree.map(lambda size, d: ~(size.real > d), step_sizes(held), done))
        message = f"learning_rate and max_step_size must be above tolerance / {_MARGIN}."
        state = eqx.error_if(state, small, message)
        return _State(jnp.array(0), y, jnp.zeros(f_struct.shape, f_struct.dtype), state)

    def step(self, fn, y: PyTree, args, options, state, tags) -> tuple[PyTree, _State[Y], Aux]:
        """Evaluates `fn` and its gradient once, and moves on."""
        (f, aux), gradient = eqx.filter_value_and_grad(fn, has_aux=True)(y, args)
        self.verbose(
            num_steps=("Step", state.num_steps), loss_this_step=("Loss on this step", f), y=("y", y)
        )
        gradient = jax.tree.map(jnp.conj, gradient)  # of complex weights: as Optax expects it
        # A step out of the domain shrinks every step size. That is no sign of a minimum, and
        # must not bring one down to where it is done.
        lost = _any(jax.tree.map(lambda x: ~jnp.isfinite(x), (f, gradient)))
        done = self._done(y)
        floor = jax.tree.map(lambda d: jnp.where(lost, 2 * d, d / _MARGIN), done)
        steps, new = self._rprop(done, floor).update(gradient, state.rprop, y, value=f)
        new_y = optax.apply_updates(y, jax.tree.map(jnp.negative, steps))
        return new_y, _State(state.num_steps + 1, y, f, new), aux

    def terminate(self, fn, y, args, options, state, tags) -> tuple[Scalar, optx.RESULTS]:
        """Stops where every weight is done, or where `fn` is lost."""
        tolerances = jax.tree.leaves(self._done(state.y))
        leaves = split(state.rprop, jax.tree.structure(state.y))
        done = list(map(is_done, leaves, tolerances))
        waiting = ~jnp.array(jax.tree.leaves(done), dtype=bool).all()
        for_good = (state.num_steps == 1) | (not RULES[self.rule].undoes)
        lost = ~jnp.isfinite(state.f) & for_good
        result = optx.RESULTS.where(lost, optx.RESULTS.nonfinite, optx.RESULTS.successful)
        return lost | ~waiting, result

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

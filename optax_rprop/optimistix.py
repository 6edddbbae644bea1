"""Rprop as a minimiser for Optimistix: it stops by itself."""

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, cast

import jax
import jax.numpy as jnp
import optax

try:
    import equinox as eqx
    import optimistix as optx
    from jaxtyping import Array, ArrayLike, Bool, Int, PyTree, Scalar
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"optax_rprop.optimistix needs {error.name}: pip install 'optax_rprop[optimistix]' "
        "(from a clone, pip install '.[optimistix]')",
        name=error.name,
    ) from error

from optax_rprop import _checks, _hyperparameters, _packing
from optax_rprop._dtypes import parts
from optax_rprop._hyperparameters import Hyperparams
from optax_rprop._state import ScaleByRpropState, all_done
from optax_rprop._transform import scale_by_rprop

Y = TypeVar("Y")
Aux = TypeVar("Aux")
Fn: TypeAlias = Callable[[Y, Any], tuple[Scalar, Aux]]

# In a narrow valley, step sizes come down to its width long before its end. So they must be this
# many times smaller than the tolerance.
_MARGIN = 2**16
# They must be so in this many steps in a row: if the valley still leads downhill, momentum grows
# again meanwhile.
_QUIET_STEPS = 100
# The smallest step size, as a part of the one to stop at: a larger floor keeps weights jumping
# across the valley, and one of 0 is never left.
_FLOOR = 2.0**-20
# A step of less than this many units in a weight's last place may be lost in the weight.
_ROUNDINGS = 2
# The default first step is at least this many times the one to stop at.
_LEAST_START = 2


class _State(eqx.Module, Generic[Y]):
    num_steps: Int[Array, ""]
    y: Y  # where fn was last evaluated, and its value there
    f: Scalar
    bad_start: Bool[Array, ""]  # fn, its gradient or y was not finite at the start
    quiet_steps: Int[Array, ""]  # how many, up to now, all step sizes were small enough
    rprop: ScaleByRpropState


class RpropMinimiser(optx.AbstractMinimiser[Y, Aux, _State[Y]]):
    """Rprop for `optimistix.minimise`, with momentum and bounds: it stops by itself.

    A step is one evaluation of `fn` and its gradient; there is no line search. Most fits need
    200 to 1,000 steps, and Optimistix allows 256 unless `max_steps` says more.

    The tolerance of a weight w is `rtol * abs(w) + atol`. The solver stops when, for 100 steps
    in a row, the step size of every weight and its move along the momentum's average were at
    most tolerance / 65536, or the rounding of the weight. A weight whose gradient is exactly
    zero, or pushes it against a bound, needs no small step size. Success means that, as far as
    100 such steps can tell, each weight is within its tolerance of a minimum.

    The solution is the last point at which `fn` was evaluated, and `aux` belongs to it. Where
    steps may run out, put the solver in `optimistix.BestSoFarMinimiser`. A start where `y0`,
    `fn` or its gradient is not finite ends in `optimistix.RESULTS.nonfinite`. From a later
    such point, the solver goes back; the edge of such a domain is never called a minimum, so
    give it as a bound.

    Differentiate a solution with `optimistix.ImplicitAdjoint`, Optimistix's default. With
    `optimistix.RecursiveCheckpointAdjoint` the derivative is zero, since signs have none.

    Supports the following `options`:

    - `autodiff_mode`: `"bwd"` (default) or `"fwd"`, for a function that has no reverse-mode
      derivative.

    Args:
      rtol: the tolerance as a part of each weight.
      atol: the tolerance in the units of the weights. It, `rtol`, `learning_rate`,
        `max_step_size`, `lower` and `upper` each take a number, an array or a pytree prefix
        of the weights. Both tolerances may be 0, for steps as small as the rounding of each
        weight; but then a weight whose minimum is at 0 never stops.
      norm: the norm that `optimistix.root_find` minimises. The stop does not depend on it.
      learning_rate: the first step size (default None: 0.001 * abs(y0) + 1e-5, and a quick
        start, as in `optax_rprop.rprop_momentum`).
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      max_step_size: by default the largest that there is: no weight is out of reach.
      rule: the name of a published rule, as for `optax_rprop.scale_by_rprop`; with one that
        undoes steps, pass `momentum=None`.
      momentum: the decay of the average of past moves; None for the published rule.
      lower: bounds below the weights (default: none).
      upper: bounds above them.
      verbose: True to print each step, or a function, as in Optimistix's own solvers.

    Raises:
      TypeError: for a tolerance that is not a number.
      ValueError: for one below 0, or one that does not fit y0; for unknown `options`; see
        `optax_rprop.irprop_minus` for others.
      RuntimeError: in `minimise`, if y0 is outside the bounds, or `learning_rate` or
        `max_step_size` is too small for the tolerance or the rounding of y0.

    Example:
      >>> import jax.numpy as jnp, optimistix
      >>> from optax_rprop.optimistix import RpropMinimiser
      >>> def fn(y, args):
      ...     return jnp.sum((y - args) ** 2)
      >>> solver = RpropMinimiser(rtol=1e-4, atol=1e-4, lower=0.0)
      >>> solution = optimistix.minimise(fn, solver, jnp.ones(2), args=jnp.array([3.0, -2.0]))
      >>> bool(jnp.allclose(solution.value, jnp.array([3.0, 0.0]), atol=1e-3))
      True
    """

    rtol: PyTree[ArrayLike]
    atol: PyTree[ArrayLike]
    norm: Callable[[PyTree], Scalar]
    hyperparams: Hyperparams
    rule: str = eqx.field(static=True)
    momentum: ArrayLike | None
    verbose: Callable[..., None]

    def __init__(
        self,
        rtol: PyTree[ArrayLike],
        atol: PyTree[ArrayLike],
        norm: Callable[[PyTree], Scalar] = optx.max_norm,
        *,
        learning_rate: PyTree[ArrayLike] | None = None,
        eta_minus: PyTree[ArrayLike] = 0.5,
        eta_plus: PyTree[ArrayLike] = 1.2,
        max_step_size: PyTree[ArrayLike] = _packing.LARGEST_STEP_SIZE,
        rule: str = "irprop_minus",
        momentum: ArrayLike | None = 0.8,
        lower: PyTree[ArrayLike] | None = None,
        upper: PyTree[ArrayLike] | None = None,
        verbose: bool | Callable[..., None] = False,
    ):
        for name, tolerance in {"rtol": rtol, "atol": atol}.items():
            _checks.check_tolerance(name, tolerance)
        _checks.check_norm(norm)
        if not callable(verbose):
            _checks.check_flag("verbose", verbose, "True, False or a function")
        hyperparams = Hyperparams(
            learning_rate, eta_minus, eta_plus, 0.0, max_step_size, lower, upper
        )
        self.rtol, self.atol, self.hyperparams = _hyperparameters.as_floats(
            (rtol, atol, hyperparams)
        )
        self.norm = norm
        self.rule, self.momentum = rule, momentum
        self.verbose = verbose if callable(verbose) else _print if verbose else _silent
        self._rprop()  # raises its errors here

    def _rprop(self, min_step_size: PyTree[ArrayLike] = 0.0) -> Any:  # Optax's trees are not Y
        hyperparams = self.hyperparams._replace(min_step_size=min_step_size)
        return scale_by_rprop(
            **hyperparams._asdict(), rule=self.rule, momentum=self.momentum, undo_nonfinite=True
        )

    def _small_steps(self, y: Y) -> PyTree[Array]:
        """The step size of each weight at which it counts as done."""
        paths, leaves, treedef = _hyperparameters.flatten(y)
        rtols, atols = (
            _hyperparameters.broadcast_prefix(name, tolerance, paths, leaves)
            for name, tolerance in (("rtol", self.rtol), ("atol", self.atol))
        )

        def of_leaf(x: Array | None, rtol: ArrayLike, atol: ArrayLike) -> Array | None:
            if x is None:
                return None
            size, rounding = _size_and_rounding(x)
            rtol, atol = (_hyperparameters.broadcast(number, size) for number in (rtol, atol))
            return jnp.maximum((rtol * size + atol) / _MARGIN, rounding)

        return treedef.unflatten(map(of_leaf, leaves, rtols, atols))

    def init(
        self,
        fn: Fn[Y, Aux],
        y: Y,
        args: PyTree,
        options: dict[str, Any],
        f_struct: jax.ShapeDtypeStruct,
        aux_struct: PyTree[jax.ShapeDtypeStruct],
        tags: frozenset[object],
    ) -> _State[Y]:
        """A fresh state, once the start is seen to fit the solver."""
        _checks.check_options(options)
        _checks.check_start(y)
        small = self._small_steps(y)
        by_default = self.hyperparams.learning_rate is None
        least_first = jax.tree.map(lambda x: _LEAST_START * x, small) if by_default else 0.0
        rprop = self._check_start(y, small, self._rprop(least_first).init(y))
        f = jnp.zeros(f_struct.shape, f_struct.dtype)
        return _State(jnp.array(0), y, f, jnp.array(False), jnp.array(0), rprop)

    def _check_start(self, y: Y, small: PyTree[Array], rprop: ScaleByRpropState) -> Any:
        """The state of Rprop, which raises an error if the start does not fit the solver."""
        paths, leaves, treedef = _hyperparameters.flatten(y)
        owns = _hyperparameters.per_leaf(self.hyperparams, paths, leaves)
        smalls, firsts = map(treedef.flatten_up_to, (small, rprop.step_sizes))
        wrong, messages = [jnp.array(False)], [""]
        for path, own, *arrays in zip(paths, owns, leaves, smalls, firsts, strict=True):
            if arrays[0] is None:
                continue
            for x, limit, first in parts(tuple(arrays)):
                usable = jnp.isfinite(x)  # another start has a result of its own
                lower, upper = _hyperparameters.bounds(own, x)
                outside = (x < lower) | (x > upper)
                first = jnp.minimum(first, _hyperparameters.step_size(own.max_step_size, first))
                lost, too_small = first <= _size_and_rounding(x)[1], ~(first > limit)
                wrong += [jnp.any(mask & usable) for mask in (outside, lost, too_small)]
                rounding = _ROUNDINGS * float(jnp.finfo(x.dtype).eps)
                messages += _checks.messages_of_start(path, rounding, _MARGIN)
        wrong = jnp.array(wrong)
        return eqx.branched_error_if(rprop, jnp.any(wrong), jnp.argmax(wrong), messages)

    def step(
        self,
        fn: Fn[Y, Aux],
        y: Y,
        args: PyTree,
        options: dict[str, Any],
        state: _State[Y],
        tags: frozenset[object],
    ) -> tuple[Y, _State[Y], Aux]:
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
        is_finite = jnp.isfinite(f)
        is_usable = is_finite & ~_any(jax.tree.map(jnp.isnan, gradient))
        is_usable &= ~_any(jax.tree.map(lambda x: ~jnp.isfinite(x), y))
        small = self._small_steps(y)
        floor = jax.tree.map(lambda x: _FLOOR * x, small)
        steps, rprop = self._rprop(floor).update(gradient, state.rprop, y, value=f)
        is_quiet = all_done([rprop], small) & is_finite
        new_state = _State(
            num_steps=state.num_steps + 1,
            y=y,
            f=f,
            bad_start=(state.num_steps == 0) & ~is_usable,
            quiet_steps=jnp.where(is_quiet, state.quiet_steps + 1, 0),
            rprop=rprop,
        )
        new_y: Any = optax.apply_updates(cast(Any, y), jax.tree.map(jnp.negative, steps))
        return new_y, new_state, cast(Any, aux)

    def terminate(
        self,
        fn: Fn[Y, Aux],
        y: Y,
        args: PyTree,
        options: dict[str, Any],
        state: _State[Y],
        tags: frozenset[object],
    ) -> tuple[Bool[Array, ""], optx.RESULTS]:
        """Stops where every weight has been done for long enough, or at a start without hope."""
        result = optx.RESULTS.where(
            state.bad_start, optx.RESULTS.nonfinite, optx.RESULTS.successful
        )
        return state.bad_start | (state.quiet_steps >= _QUIET_STEPS), result

    def postprocess(
        self,
        fn: Fn[Y, Aux],
        y: Y,
        aux: Aux,
        args: PyTree,
        options: dict[str, Any],
        state: _State[Y],
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> tuple[Y, Aux, dict[str, Any]]:
        """The last point at which `fn` was evaluated, not the one after it."""
        return state.y, aux, {}


def _size_and_rounding(x: Array) -> tuple[Array, Array]:
    """How large a weight is, and the largest step that may be lost in it."""
    size = abs(x).astype(jnp.finfo(_packing.state_dtype(x.dtype)).dtype)
    return size, _ROUNDINGS * float(jnp.finfo(x.dtype).eps) * size


def _any(masks: PyTree[Array]) -> Bool[Array, ""]:
    return jnp.array([jnp.any(mask) for mask in jax.tree.leaves(masks)], dtype=bool).any()


def _print(**values: tuple[str, Array]) -> None:
    text = ", ".join(f"{name}: {{}}" for name, _ in values.values())
    jax.debug.print(text, *(value for _, value in values.values()))


def _silent(**values: tuple[str, Array]) -> None:
    del values

"""The optimizers: each a transformation, made to descend."""

from __future__ import annotations  # help() then shows the names of types, not their unions

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import optax
from jax.typing import ArrayLike, DTypeLike

from optax_rprop._hyperparameters import PerWeight
from optax_rprop._rprop_lbfgs import scale_by_rprop_lbfgs
from optax_rprop._transform import scale_by_rprop

P = ParamSpec("P")
T = TypeVar("T")


def _descend(*args: Any, **kwargs: Any) -> optax.GradientTransformationExtraArgs:
    return optax.chain(scale_by_rprop(*args, **kwargs), optax.scale(-1))


def rprop_lbfgs(
    memory_size: int = 10, *, lower: PerWeight | None = None, upper: PerWeight | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""L-BFGS from Rprop's own steps, with gradients alone. Begin with this one.

    Rprop finds the scale of every weight in a few steps, and then needs hundreds to arrive.
    L-BFGS arrives, but begins without any scale. So this begins as `irprop_minus` with momentum,
    for 8 steps. From its moves :math:`s` and the changes :math:`y` of the gradient along them, it
    goes on with L-BFGS, whose first inverse Hessian is :math:`\gamma D`, the secant of each weight,

    .. math::
      D_i = \frac{\sum |s_i|}{\sum |y_i|}

    A weight may move at most 10 times its step size by Rprop; this limit adapts. A move is
    judged by the gradient at its end alone. Where that leads uphill nearly as steeply as the
    move began downhill, or where it or `value`, if that is passed to `update`, is not finite,
    it goes back to a part of the same move. After four such gradients, or after two large ones
    where the limit has shrunk, it forgets all pairs, and Rprop is at work again, each time for
    longer.

    There is no line search and nothing to tune; a step is one gradient, and the loss is not
    needed. No unit matters, of the loss or of weights from 1e-17 to 1e10 in size. On 133 CUTEst
    problems, in float64, it solves 68% to 1e-5 in 50 evaluations, 76% in 100 and 86% in 1,000;
    `optax.lbfgs` 53%, 68% and 84%, `rprop_momentum` 44%, 63% and 85%.

    With `memory_size` 10, the state holds 26 numbers a weight (`optax.lbfgs` 23): take
    `rprop_momentum`, which holds two, for large or deep networks. On mini-batches use Adam.
    Parameters of less than 32 bits have a state of float32. The combination is this library's
    own.

    Args:
      memory_size: how many pairs are kept (default 10). 20 helps in narrow valleys. It sets the
        shapes of the state, which keeps the size that it was made with. Inside
        optax.inject_hyperparams, pass `static_args=("memory_size",)`.
      lower: bounds below the parameters, as for `irprop_minus`; `update` then needs `params`.
        A weight that a bound holds costs nothing.
      upper: bounds above the parameters.

    Returns:
      A gradient transformation whose updates are to be added to the parameters. Its state is
      read with `converged`. `step_sizes` and `prev_signs` read Rprop's part, which rests while
      L-BFGS is at work.

    Raises:
      ValueError: for a memory_size below 1; for others, see `irprop_minus`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def rosenbrock(x):
      ...     return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
      >>> params = jnp.array([-1.2, 1.0])
      >>> optimizer = optax_rprop.rprop_lbfgs()
      >>> opt_state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, opt_state):
      ...     updates, opt_state = optimizer.update(jax.grad(rosenbrock)(params), opt_state)
      ...     return optax.apply_updates(params, updates), opt_state
      >>> for _ in range(60):
      ...     params, opt_state = step(params, opt_state)
      >>> bool(jnp.abs(params - 1).max() < 1e-3)
      True

    References:
      - Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", 1989.
      - Gilbert and Lemarechal, Mathematical Programming 45, 1989 (diagonals).
      - Byrd, Nocedal and Schnabel, Mathematical Programming 63, 1994 (compact matrices).
      - Byrd, Lu, Nocedal and Zhu, SIAM Journal on Scientific Computing 16, 1995 (bounds).
      - Chen, Wang and Zhou, "Large-scale L-BFGS using MapReduce", NIPS 2014.
    """
    return optax.chain(scale_by_rprop_lbfgs(memory_size, lower=lower, upper=upper), optax.scale(-1))


def rprop_momentum(
    learning_rate: PerWeight | None = None,
    eta_minus: PerWeight = 0.5,
    eta_plus: PerWeight = 1.3,
    min_step_size: PerWeight = 0.0,
    max_step_size: PerWeight = 2.0**31,
    *,
    momentum: ArrayLike | None = 0.8,
    step_dtype: DTypeLike | None = None,
    lower: PerWeight | None = None,
    upper: PerWeight | None = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rprop with momentum, whose factor adapts by signs too.

    Rprop sees each weight alone, and takes thousands of steps along a valley that lies across
    the axes. This adds one direction, the average :math:`a` of past moves, for all weights
    together. Its factor :math:`f` adapts as a step size does, by the sign of the slope
    :math:`q`:

    .. math::
      q_t &= \sum_i g_{t,i} \, a_{t-1,i} \\
      f_t &= \begin{cases}
        \min(2 f_{t-1}, 2) & q_t < 0 \\
        \max(f_{t-1} / 2, 2^{-10}) & q_t > 0 \\
        f_{t-1} & q_t = 0 \end{cases} \\
      v_t &= r_t + \begin{cases} f_t a_{t-1} & q_t < 0 \\ 0 & q_t \ge 0 \end{cases} \\
      a_t &= \beta a_{t-1} + (1 - \beta) v_t \\
      w_{t+1} &= w_t + v_t

    with :math:`r_t = -\operatorname{sign}(g_t) \Delta_t`, :math:`\beta` the argument `momentum`,
    :math:`a_0 = 0` and :math:`f_0 = 1/16`. The step sizes :math:`\Delta_t` are those of
    `irprop_minus`, and so is the memory: after a reversal, the remembered sign is 0. But the weight
    steps there, too (the rule `"shark_irprop_minus"`): with momentum, that saves evaluations.

    Only signs decide, as in Rprop: no scale matters, of the loss or of a weight. On 133 CUTEst
    problems, in float64, it solves 85% to 1e-5 in 1,000 evaluations, `irprop_minus` 66%.
    `rprop_lbfgs` solves as many, most of them far sooner; this one is for large or deep networks.

    The state holds two numbers a weight, as Adam's does, and in each step all devices sum one
    scalar. The method is this library's own. `scale_by_rprop` has it for rules that undo no step.

    Args:
      learning_rate: the first step size; by default a tenth of each weight's size, or of the
        width between its bounds where that is less; with n > 100 weights, (100 / n)**(1/3) of
        that. A weight of 0 takes its size from the
        others, the geometric mean of all parameters (1 if all are 0), and one that is small
        beside them counts as up to 10 times larger. Like the others, it may be per weight.
      eta_minus: shrinks a step size where the gradient changed sign (default 0.5);
        0.7 is better on large batches.
      eta_plus: grows a step size where the gradient kept its sign (default 1.3).
      min_step_size: the smallest step size (default 0: the smallest that there is).
      max_step_size: the largest step size, which is also the largest average (default 2**31).
      momentum: the decay of the average, above 0 and below 1 (default 0.8: about five moves);
        one number for all weights. None for no momentum: the rule alone, with this start.
      step_dtype: the type of real parameters' step sizes and averages.
      lower: bounds below the parameters.
      upper: bounds above the parameters.
      undo_nonfinite: whether to go back where a gradient is NaN or `value`, if it is passed to
        `update`, is not finite. `update` then needs `params`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def valley(x):  # narrow, and across the axes
      ...     return (x[0] + x[1] - 3) ** 2 + 1e-3 * (x[0] - x[1] - 1) ** 2
      >>> optimizer = optax_rprop.rprop_momentum()
      >>> def step(carry, _):
      ...     params, opt_state = carry
      ...     updates, opt_state = optimizer.update(jax.grad(valley)(params), opt_state)
      ...     return (optax.apply_updates(params, updates), opt_state), None
      >>> start = jnp.zeros(2)
      >>> (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=200)
      >>> bool(jnp.abs(params - jnp.array([2.0, 1.0])).max() < 1e-3)
      True

    References:
      - O'Donoghue and Candes, Foundations of Computational Mathematics 15, 2015 (restarts).
      - Jacobs, Neural Networks 1, 1988 (rates that adapt).
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    own = {"rule": "shark_irprop_minus", "momentum": momentum, "step_dtype": step_dtype}
    return _descend(*numbers, **own, lower=lower, upper=upper, undo_nonfinite=undo_nonfinite)


def irprop_minus(
    learning_rate: PerWeight | None = 0.01,
    eta_minus: PerWeight = 0.5,
    eta_plus: PerWeight = 1.2,
    min_step_size: PerWeight = 1e-6,
    max_step_size: PerWeight = 50.0,
    *,
    step_dtype: DTypeLike | None = None,
    lower: PerWeight | None = None,
    upper: PerWeight | None = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""iRprop-: where the gradient changes sign, the weight stays.

    The published variant to begin with, and torch.optim.Rprop's; `rprop` is another name for it.

    Here :math:`g_t` is the gradient of one weight :math:`w_t`, :math:`\Delta_t` its step size, and
    :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})`. In all rules

    .. math::
      \Delta_t = \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{max}) & s_t > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0 \end{cases}

    and in this one

    .. math::
      w_{t+1} = \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_t & s_t < 0 \end{cases}

    After :math:`s_t < 0` the remembered sign is 0, so that the next step is made with
    :math:`\Delta_t` as it is. A gradient that is NaN has sign 0: its weight stays.
    :math:`\Delta_0, \eta^-, \eta^+, \Delta_{min}, \Delta_{max}` are the first five arguments.

    Args:
      learning_rate: the first step size, in the units of the parameters (default 0.01); None
        for the start of `rprop_momentum`. It does not scale later steps. This, the next four
        and the bounds may each be a number, an array that broadcasts to every parameter, or a
        pytree prefix of the parameters whose leaves are numbers or arrays.
      eta_minus: shrinks a step size where a gradient changed sign, between 0 and 1 (default 0.5).
      eta_plus: grows a step size where a gradient kept its sign, above 1 (default 1.2).
      min_step_size: the smallest step size, in the units of the parameters (default 1e-6). It
        is a floor on the accuracy: in float64 take 1e-12 or less; 0 means the smallest that
        the state can hold, 2**-62 in float32.
      max_step_size: the largest step size, in the units of the parameters, at most 2**31
        (default 50). Raise it for parameters of 1e3 and more.
      step_dtype: the type of real parameters' step sizes: float32, float64, or bfloat16 for 2
        bytes of state a weight (default: each parameter's own; float32 for float16). Inside
        optax.inject_hyperparams give its name, such as "bfloat16".
      lower: bounds below the parameters, rounded to their types, subnormal ones to 0 (default:
        none). A dict may leave parameters out; None, or -inf in an array, is no bound. A step
        that would leave the box is cut to the largest that keeps the weight inside, after
        rounding; a weight that starts outside moves to its bound. `update` needs `params`. Both
        parts of a complex parameter have the same bounds.
      upper: bounds above the parameters, likewise.
      undo_nonfinite: whether to go back where a gradient is NaN, or `value` (if it is passed to
        `update`) is not finite, as after the root of a negative number or a failed Cholesky
        decomposition (default False). All weights then return to the last point where
        everything was finite, and those at fault shrink their step size. `update` needs
        `params`. The state keeps two more numbers a weight, see `ScaleByRpropState`. Not for
        mini-batches.

    Returns:
      A gradient transformation whose updates are to be added to the parameters. Its state is
      read with `step_sizes`, `prev_signs` and `converged`.

    Raises:
      TypeError: for a schedule; in `init`, for parameters that are neither floating-point nor
        complex; in `update`, for a state that is not Rprop's.
      ValueError: for a number out of range, or learning_rate outside [min_step_size,
        max_step_size]; in `init`, for a prefix that does not fit; in `update`, for gradients of
        other shapes than the parameters' (None leaves its parameter alone), a state made with
        other options, or a missing argument.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def loss(params):  # no single learning rate suits all
      ...     return jnp.sum(jnp.array([1e-4, 1.0, 1e4]) * params**2)
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.irprop_minus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      - Igel and Huesken, International Symposium on Neural Computation, 2000.
      - Igel and Huesken, Neurocomputing 50, 2003.
    """
    numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
    options = {"lower": lower, "upper": upper, "undo_nonfinite": undo_nonfinite}
    return _descend(*numbers, step_dtype=step_dtype, **options)


rprop = irprop_minus


def _with_arguments_of(model: Callable[P, T]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """One signature, written once: editors, help() and calls go by it."""
    signature = inspect.signature(model)

    def decorate(function: Callable[..., T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            return function(**given.arguments)

        vars(call)["__signature__"] = signature
        return call

    return decorate


@_with_arguments_of(irprop_minus)
def irprop_plus(**arguments):
    r"""iRprop+: where the gradient changes sign and the loss rose, undoes the last step.

    `update` needs `value`, the loss :math:`E_t`. With the step sizes of `irprop_minus`:

    .. math::
      w_{t+1} = \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_{t-1} & s_t < 0 \text{ and } E_t > E_{t-1} \\
        w_t & \text{otherwise} \end{cases}

    After :math:`s_t < 0` the remembered sign is 0. The loss is one number for all
    parameters, compared in the default float type (float64 under jax_enable_x64). A NaN is
    no rise, and the last finite loss is remembered. What is undone is the step that this
    optimizer emitted: in a chain, no transformation may change it afterwards.

    Args:
      learning_rate: the first step size. For all arguments and errors, see `irprop_minus`.
      eta_minus: shrinks a step size where the gradient changed sign, whether the loss rose or not.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      step_dtype: the type of real parameters' step sizes.
      lower: bounds below the parameters.
      upper: bounds above the parameters.
      undo_nonfinite: whether to go back where `value` is not finite or a gradient is NaN.

    Raises:
      ValueError: in `update`, for a missing `value`; for others, see `irprop_minus`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.irprop_plus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     value, gradient = jax.value_and_grad(lambda params: jnp.sum(params**2))(params)
      ...     updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      - Igel and Huesken, 2000 and 2003: see `irprop_minus`.
    """
    return _descend(rule="irprop_plus", **arguments)


@_with_arguments_of(irprop_minus)
def rprop_plus(**arguments):
    r"""Rprop+: where the gradient changes sign, undoes the last step.

    The original, with weight-backtracking. With the step sizes of `irprop_minus`:

    .. math::
      w_{t+1} = \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_{t-1} & s_t < 0 \end{cases}

    After :math:`s_t < 0` the remembered sign is 0. What is undone is the step that this
    optimizer emitted: in a chain, no transformation may change it afterwards.

    Args:
      learning_rate: the first step size. For all arguments and errors, see `irprop_minus`.
      eta_minus: shrinks the step size of a weight that goes back.
      eta_plus: grows that of a weight that goes on.
      min_step_size: the smallest step size.
      max_step_size: the largest step size.
      step_dtype: the type of real parameters' step sizes.
      lower: bounds below the parameters. A step that one cut is undone as it was made.
      upper: bounds above the parameters.
      undo_nonfinite: whether to go back where the loss or a gradient is not finite.

    References:
      - Riedmiller and Braun, IEEE International Conference on Neural Networks, 1993.
    """
    return _descend(rule="rprop_plus", **arguments)


@_with_arguments_of(irprop_minus)
def rprop_minus(**arguments):
    r"""Rprop-: where the gradient changes sign, steps back by the smaller step size.

    Rprop without weight-backtracking, the simplest of the family. Unlike the irprop rules,
    it emits no zero where a sign changes. With the step sizes of `irprop_minus`:

    .. math::
      w_{t+1} = w_t - \operatorname{sign}(g_t) \Delta_t

    The sign of every gradient is remembered.

    Args:
      learning_rate: the first step size. For all arguments and errors, see `irprop_minus`.
      eta_minus: shrinks a step size where the gradient changed sign.
      eta_plus: grows a step size where the gradient kept its sign.
      min_step_size: the smallest step size, by which weights go to and fro at a minimum.
      max_step_size: the largest step size.
      step_dtype: the type of real parameters' step sizes.
      lower: bounds below the parameters.
      upper: bounds above the parameters.
      undo_nonfinite: whether to go back where the loss or a gradient is not finite.

    References:
      - Riedmiller, "Rprop: description and implementation details", Karlsruhe, 1994.
    """
    return _descend(rule="rprop_minus", **arguments)

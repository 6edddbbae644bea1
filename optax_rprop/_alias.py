"""The optimizers: each a rule of `_kernel`, made to descend."""

from typing import Any

import jax
import optax

from optax_rprop._transform import scale_by_rprop


def _descend(rule: str, *hyperparameters: Any, **options: Any):
    steps = scale_by_rprop(*hyperparameters, rule=rule, **options)
    return optax.chain(steps, optax.scale(-1))


def irprop_minus(
    learning_rate: Any = 0.01,
    eta_minus: jax.typing.ArrayLike = 0.5,
    eta_plus: jax.typing.ArrayLike = 1.2,
    min_step_size: Any = 1e-6,
    max_step_size: Any = 50.0,
    *,
    step_dtype: Any = None,
    lower: Any = None,
    upper: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""iRprop-: where the gradient changes sign, the weight stays.

    The variant to begin with; `rprop` is another name for it. torch.optim.Rprop is
    this rule. It needs no loss and no memory of the last step.

    With :math:`g_t` the gradient of one weight :math:`w_t` and :math:`\Delta_t` its
    step size (:math:`\Delta_0` is `learning_rate`), and
    :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})`:

    .. math::
      \Delta_t &= \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{max}) & s_t > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0 \end{cases} \\
      w_{t+1} &= \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_t & s_t < 0 \end{cases}

    After :math:`s_t < 0` the remembered sign is 0, so that the next step is made with
    :math:`\Delta_t` as it is.

    :math:`\eta^-, \eta^+, \Delta_{min}, \Delta_{max}` are `eta_minus`,
    `eta_plus`, `min_step_size` and `max_step_size`. A gradient that is NaN has sign 0.

    Args:
      learning_rate: the first step size, in the units of the parameters, and
        nothing else (default 0.01). It, `min_step_size` and `max_step_size` each
        take a number, an array that broadcasts to every parameter, or a pytree
        prefix of the parameters that ends in numbers or arrays.
      eta_minus: the factor, between 0 and 1, that shrinks a step size where the
        gradient changed sign (default 0.5).
      eta_plus: the factor, above 1, that grows a step size where the gradient
        kept its sign (default 1.2).
      min_step_size: the smallest step size, in the units of the parameters
        (default 1e-6). It is a floor on the accuracy: in float64 take 1e-12 or
        less. 0 means the smallest that the state holds, 2**-62, or 2**-478 in
        float64.
      max_step_size: the largest step size, in the units of the parameters, at
        most 2**31 (default 50).
      step_dtype: the type of the step sizes: float32, float64, or bfloat16 for 2
        bytes of state a weight (default: each parameter's own; float32 where
        that has less range than bfloat16). Not for complex parameters. Inside
        optax.inject_hyperparams give its name, such as "bfloat16".
      lower: bounds below the parameters, in their units: a number, an array or a
        pytree prefix (default: none). A step that would leave the box is cut at
        the bound; see `scale_by_rprop`. `update` then needs `params`.
      upper: bounds above them, likewise.

    Returns:
      A gradient transformation whose updates are to be added to the parameters.
      Read its state with `step_sizes` and `prev_signs`.

    Raises:
      TypeError: if learning_rate is a schedule, which could do nothing after the
        first step; for what is no number; for parameters or gradients that are
        neither floating-point nor complex.
      ValueError: for a number outside the ranges above, NaN, or learning_rate
        outside [min_step_size, max_step_size]; in `init`, for an array or a
        prefix that does not fit, a factor that rounds to 1 in the state's type,
        or a parameter outside its bounds; in `update`, for gradients whose tree
        or shapes are not those of the state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def loss(params):  # scales that no one learning rate suits
      ...     return jnp.sum(jnp.array([1e-4, 1.0, 1e4]) * params**2)
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.irprop_minus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     value, gradient = jax.value_and_grad(loss)(params)
      ...     updates, opt_state = optimizer.update(gradient, opt_state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      Igel and Huesken, "Improving the Rprop learning algorithm", International
      Symposium on Neural Computation, 2000.
      Igel and Huesken, "Empirical evaluation of the improved Rprop learning
      algorithms", Neurocomputing 50, 2003.
    """
    return _descend(
        "irprop_minus",
        learning_rate,
        eta_minus,
        eta_plus,
        min_step_size,
        max_step_size,
        step_dtype=step_dtype,
        lower=lower,
        upper=upper,
    )


rprop = irprop_minus


def irprop_plus(
    learning_rate: Any = 0.01,
    eta_minus: jax.typing.ArrayLike = 0.5,
    eta_plus: jax.typing.ArrayLike = 1.2,
    min_step_size: Any = 1e-6,
    max_step_size: Any = 50.0,
    *,
    step_dtype: Any = None,
    lower: Any = None,
    upper: Any = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""iRprop+: where the gradient changes sign, undoes the last step if the loss rose.

    About as fast as `irprop_minus`, and able to survive steps out of the domain. Needs
    the loss, as Optax's line searches do: `update(gradients, opt_state, params, value=loss)`.

    With :math:`g_t` the gradient of one weight :math:`w_t` and :math:`\Delta_t` its
    step size (:math:`\Delta_0` is `learning_rate`), and
    :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})`:

    .. math::
      \Delta_t &= \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{max}) & s_t > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0 \end{cases} \\
      w_{t+1} &= \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_{t-1} & s_t < 0 \text{ and } E_t > E_{t-1} \\
        w_t & \text{otherwise} \end{cases}

    After :math:`s_t < 0` the remembered sign is 0. :math:`E_t` is the loss, `value`:
    one number for all parameters, compared in the default float type (float64 under
    jax_enable_x64). A NaN is no rise, and the last finite loss is remembered.
    What is undone is the step that this optimizer emitted: in a chain, no
    transformation may change it afterwards.

    :math:`\eta^-, \eta^+, \Delta_{min}, \Delta_{max}` are `eta_minus`,
    `eta_plus`, `min_step_size` and `max_step_size`. A gradient that is NaN has sign 0.

    Args:
      learning_rate: the first step size, in the units of the parameters, and
        nothing else (default 0.01). It, `min_step_size` and `max_step_size` each
        take a number, an array that broadcasts to every parameter, or a pytree
        prefix of the parameters that ends in numbers or arrays.
      eta_minus: the factor, between 0 and 1, that shrinks a step size where the
        gradient changed sign (default 0.5).
      eta_plus: the factor, above 1, that grows a step size where the gradient
        kept its sign (default 1.2).
      min_step_size: the smallest step size, in the units of the parameters
        (default 1e-6). It is a floor on the accuracy: in float64 take 1e-12 or
        less. 0 means the smallest that the state holds, 2**-62, or 2**-478 in
        float64.
      max_step_size: the largest step size, in the units of the parameters, at
        most 2**31 (default 50).
      step_dtype: the type of the step sizes: float32, float64, or bfloat16 for 2
        bytes of state a weight (default: each parameter's own; float32 where
        that has less range than bfloat16). Not for complex parameters. Inside
        optax.inject_hyperparams give its name, such as "bfloat16".
      lower: bounds below the parameters, in their units: a number, an array or a
        pytree prefix (default: none). A step that would leave the box is cut at
        the bound; see `scale_by_rprop`. `update` then needs `params`.
      upper: bounds above them, likewise.
      undo_nonfinite: whether a NaN gradient counts as a reversal that is undone
        and a loss that is not finite as a rise (default False: a NaN gradient
        counts as zero). For full-batch work, where NaN means that a step left
        the domain: the root of a negative number, a failed Cholesky. Where the loss
        alone is NaN, as for the logarithm of a negative number, whose derivative is
        finite, make the gradient NaN too: jnp.where(jnp.isfinite(value), gradient,
        jnp.nan). A step that was cut at a bound cannot be undone: keep bounds inside
        the domain.

    Returns:
      A gradient transformation whose updates are to be added to the parameters.
      Read its state with `step_sizes` and `prev_signs`.

    Raises:
      TypeError: if learning_rate is a schedule, which could do nothing after the
        first step; for what is no number; for parameters or gradients that are
        neither floating-point nor complex.
      ValueError: for a number outside the ranges above, NaN, or learning_rate
        outside [min_step_size, max_step_size]; in `init`, for an array or a
        prefix that does not fit, a factor that rounds to 1 in the state's type,
        or a parameter outside its bounds; in `update`, for gradients whose tree
        or shapes are not those of the state,
        or without `value`, or with one that is no scalar.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def loss(params):  # scales that no one learning rate suits
      ...     return jnp.sum(jnp.array([1e-4, 1.0, 1e4]) * params**2)
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.irprop_plus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     value, gradient = jax.value_and_grad(loss)(params)
      ...     updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      Igel and Huesken, "Improving the Rprop learning algorithm", International
      Symposium on Neural Computation, 2000.
      Igel and Huesken, "Empirical evaluation of the improved Rprop learning
      algorithms", Neurocomputing 50, 2003.
    """
    return _descend(
        "irprop_plus",
        learning_rate,
        eta_minus,
        eta_plus,
        min_step_size,
        max_step_size,
        step_dtype=step_dtype,
        lower=lower,
        upper=upper,
        undo_nonfinite=undo_nonfinite,
    )


def rprop_plus(
    learning_rate: Any = 0.01,
    eta_minus: jax.typing.ArrayLike = 0.5,
    eta_plus: jax.typing.ArrayLike = 1.2,
    min_step_size: Any = 1e-6,
    max_step_size: Any = 50.0,
    *,
    step_dtype: Any = None,
    lower: Any = None,
    upper: Any = None,
    undo_nonfinite: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rprop+: where the gradient changes sign, undoes the last step.

    The original Rprop, with weight-backtracking.

    With :math:`g_t` the gradient of one weight :math:`w_t` and :math:`\Delta_t` its
    step size (:math:`\Delta_0` is `learning_rate`), and
    :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})`:

    .. math::
      \Delta_t &= \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{max}) & s_t > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0 \end{cases} \\
      w_{t+1} &= \begin{cases}
        w_t - \operatorname{sign}(g_t) \Delta_t & s_t \ge 0 \\
        w_{t-1} & s_t < 0 \end{cases}

    After :math:`s_t < 0` the remembered sign is 0. What is undone is the step that
    this optimizer emitted: in a chain, no transformation may change it afterwards.

    :math:`\eta^-, \eta^+, \Delta_{min}, \Delta_{max}` are `eta_minus`,
    `eta_plus`, `min_step_size` and `max_step_size`. A gradient that is NaN has sign 0.

    Args:
      learning_rate: the first step size, in the units of the parameters, and
        nothing else (default 0.01). It, `min_step_size` and `max_step_size` each
        take a number, an array that broadcasts to every parameter, or a pytree
        prefix of the parameters that ends in numbers or arrays.
      eta_minus: the factor, between 0 and 1, that shrinks a step size where the
        gradient changed sign (default 0.5).
      eta_plus: the factor, above 1, that grows a step size where the gradient
        kept its sign (default 1.2).
      min_step_size: the smallest step size, in the units of the parameters
        (default 1e-6). It is a floor on the accuracy: in float64 take 1e-12 or
        less. 0 means the smallest that the state holds, 2**-62, or 2**-478 in
        float64.
      max_step_size: the largest step size, in the units of the parameters, at
        most 2**31 (default 50).
      step_dtype: the type of the step sizes: float32, float64, or bfloat16 for 2
        bytes of state a weight (default: each parameter's own; float32 where
        that has less range than bfloat16). Not for complex parameters. Inside
        optax.inject_hyperparams give its name, such as "bfloat16".
      lower: bounds below the parameters, in their units: a number, an array or a
        pytree prefix (default: none). A step that would leave the box is cut at
        the bound; see `scale_by_rprop`. `update` then needs `params`.
      upper: bounds above them, likewise.
      undo_nonfinite: whether a NaN gradient counts as a reversal that is undone
        and a loss that is not finite as a rise (default False: a NaN gradient
        counts as zero). For full-batch work, where NaN means that a step left
        the domain: the root of a negative number, a failed Cholesky. Where the loss
        alone is NaN, as for the logarithm of a negative number, whose derivative is
        finite, make the gradient NaN too: jnp.where(jnp.isfinite(value), gradient,
        jnp.nan). A step that was cut at a bound cannot be undone: keep bounds inside
        the domain.

    Returns:
      A gradient transformation whose updates are to be added to the parameters.
      Read its state with `step_sizes` and `prev_signs`.

    Raises:
      TypeError: if learning_rate is a schedule, which could do nothing after the
        first step; for what is no number; for parameters or gradients that are
        neither floating-point nor complex.
      ValueError: for a number outside the ranges above, NaN, or learning_rate
        outside [min_step_size, max_step_size]; in `init`, for an array or a
        prefix that does not fit, a factor that rounds to 1 in the state's type,
        or a parameter outside its bounds; in `update`, for gradients whose tree
        or shapes are not those of the state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def loss(params):  # scales that no one learning rate suits
      ...     return jnp.sum(jnp.array([1e-4, 1.0, 1e4]) * params**2)
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.rprop_plus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     value, gradient = jax.value_and_grad(loss)(params)
      ...     updates, opt_state = optimizer.update(gradient, opt_state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      Riedmiller and Braun, "A direct adaptive method for faster backpropagation
      learning: the RPROP algorithm", IEEE International Conference on Neural
      Networks, 1993.
      Igel and Huesken, "Empirical evaluation of the improved Rprop learning
      algorithms", Neurocomputing 50, 2003.
    """
    return _descend(
        "rprop_plus",
        learning_rate,
        eta_minus,
        eta_plus,
        min_step_size,
        max_step_size,
        step_dtype=step_dtype,
        lower=lower,
        upper=upper,
        undo_nonfinite=undo_nonfinite,
    )


def rprop_minus(
    learning_rate: Any = 0.01,
    eta_minus: jax.typing.ArrayLike = 0.5,
    eta_plus: jax.typing.ArrayLike = 1.2,
    min_step_size: Any = 1e-6,
    max_step_size: Any = 50.0,
    *,
    step_dtype: Any = None,
    lower: Any = None,
    upper: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Rprop-: where the gradient changes sign, steps back by the smaller step size.

    Rprop without weight-backtracking, the simplest of the four. It alone moves every
    weight that has a gradient in every step.

    With :math:`g_t` the gradient of one weight :math:`w_t` and :math:`\Delta_t` its
    step size (:math:`\Delta_0` is `learning_rate`), and
    :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})`:

    .. math::
      \Delta_t &= \begin{cases}
        \min(\eta^+ \Delta_{t-1}, \Delta_{max}) & s_t > 0 \\
        \max(\eta^- \Delta_{t-1}, \Delta_{min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0 \end{cases} \\
      w_{t+1} &= w_t - \operatorname{sign}(g_t) \Delta_t

    The sign of every gradient is remembered.

    :math:`\eta^-, \eta^+, \Delta_{min}, \Delta_{max}` are `eta_minus`,
    `eta_plus`, `min_step_size` and `max_step_size`. A gradient that is NaN has sign 0.

    Args:
      learning_rate: the first step size, in the units of the parameters, and
        nothing else (default 0.01). It, `min_step_size` and `max_step_size` each
        take a number, an array that broadcasts to every parameter, or a pytree
        prefix of the parameters that ends in numbers or arrays.
      eta_minus: the factor, between 0 and 1, that shrinks a step size where the
        gradient changed sign (default 0.5).
      eta_plus: the factor, above 1, that grows a step size where the gradient
        kept its sign (default 1.2).
      min_step_size: the smallest step size, in the units of the parameters
        (default 1e-6). It is a floor on the accuracy: in float64 take 1e-12 or
        less. 0 means the smallest that the state holds, 2**-62, or 2**-478 in
        float64.
      max_step_size: the largest step size, in the units of the parameters, at
        most 2**31 (default 50).
      step_dtype: the type of the step sizes: float32, float64, or bfloat16 for 2
        bytes of state a weight (default: each parameter's own; float32 where
        that has less range than bfloat16). Not for complex parameters. Inside
        optax.inject_hyperparams give its name, such as "bfloat16".
      lower: bounds below the parameters, in their units: a number, an array or a
        pytree prefix (default: none). A step that would leave the box is cut at
        the bound; see `scale_by_rprop`. `update` then needs `params`.
      upper: bounds above them, likewise.

    Returns:
      A gradient transformation whose updates are to be added to the parameters.
      Read its state with `step_sizes` and `prev_signs`.

    Raises:
      TypeError: if learning_rate is a schedule, which could do nothing after the
        first step; for what is no number; for parameters or gradients that are
        neither floating-point nor complex.
      ValueError: for a number outside the ranges above, NaN, or learning_rate
        outside [min_step_size, max_step_size]; in `init`, for an array or a
        prefix that does not fit, a factor that rounds to 1 in the state's type,
        or a parameter outside its bounds; in `update`, for gradients whose tree
        or shapes are not those of the state.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> def loss(params):  # scales that no one learning rate suits
      ...     return jnp.sum(jnp.array([1e-4, 1.0, 1e4]) * params**2)
      >>> params = jnp.array([3.0, -2.0, 1.0])
      >>> optimizer = optax_rprop.rprop_minus(0.1)
      >>> opt_state = optimizer.init(params)
      >>> for _ in range(100):
      ...     value, gradient = jax.value_and_grad(loss)(params)
      ...     updates, opt_state = optimizer.update(gradient, opt_state, params)
      ...     params = optax.apply_updates(params, updates)
      >>> bool(jnp.abs(params).max() < 1e-5)
      True

    References:
      Riedmiller, "Rprop: description and implementation details", technical
      report, University of Karlsruhe, 1994.
      Igel and Huesken, "Empirical evaluation of the improved Rprop learning
      algorithms", Neurocomputing 50, 2003.
    """
    return _descend(
        "rprop_minus",
        learning_rate,
        eta_minus,
        eta_plus,
        min_step_size,
        max_step_size,
        step_dtype=step_dtype,
        lower=lower,
        upper=upper,
    )

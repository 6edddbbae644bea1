"""Adaptive gains: Rprop's idea for directions that are noisy, such as those of mini-batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_rprop import _checks, _hyperparameters
from optax_rprop._dtypes import by_parts, finite_cast


class ScaleByAdaptiveGainsState(NamedTuple):
    """Two floats per weight.

    Attributes:
      gains: a pytree shaped like the parameters: the factor by which each weight's
        last update was scaled. A complex leaf holds a gain for either part.
      averages: likewise, the running averages of the incoming updates.
    """

    gains: optax.Params
    averages: optax.Params


def scale_by_adaptive_gains(
    increase: jax.typing.ArrayLike = 0.05,
    decrease: jax.typing.ArrayLike = 0.8,
    average_decay: jax.typing.ArrayLike = 0.9,
    min_gain: jax.typing.ArrayLike = 0.1,
    max_gain: jax.typing.ArrayLike = 10.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales each update by a gain that grows where updates agree with their average.

    Like Rprop, this adapts a rate for every weight from agreement in sign; unlike Rprop, it
    keeps the size of the updates, and compares each with an average over several batches.
    Chain it after what makes the update (`optax.scale_by_rms`, `optax.scale_by_adam`) and
    before the learning rate.

    With :math:`u_t` the incoming update of one weight, :math:`\bar u_t` its running
    average and :math:`\gamma_t` its gain (:math:`\gamma_0 = 1, \bar u_0 = 0`):

    .. math::
      a_t &= \operatorname{sign}(u_t) \operatorname{sign}(\bar u_{t-1}) \\
      \gamma_t &= \begin{cases}
        \min(\gamma_{t-1} + \kappa, \gamma_{max}) & a_t > 0 \\
        \max(\gamma_{t-1} \phi, \gamma_{min}) & a_t < 0 \\
        \gamma_{t-1} & a_t = 0 \end{cases} \\
      \bar u_t &= \theta \bar u_{t-1} + (1 - \theta) u_t

    and the outgoing update is :math:`\gamma_t u_t`.
    :math:`\kappa, \phi, \theta, \gamma_{min}, \gamma_{max}` are the arguments in turn. An
    update that is NaN or infinite counts as zero. (Adam's averages keep a NaN for ever: put
    optax.apply_if_finite around them.)

    By default, a gain stays around 1 where four updates in five agree with their average,
    and falls where fewer do, as around a minimum. Adam's updates are averages already and
    agree more: with them, take an `average_decay` of 0.99.

    Args:
      increase: added to a gain where updates agree with their average, above 0 (default 0.05).
      decrease: shrinks a gain where they do not, between 0 and 1 (default 0.8).
      average_decay: what the average keeps in a step, at least 0 and below 1 (default 0.9).
      min_gain: the smallest gain, above 0 and at most 1 (default 0.1).
      max_gain: the largest gain, at least 1 (default 10).

    Returns:
      A gradient transformation with a `ScaleByAdaptiveGainsState`, of the parameters' types,
      float32 where they have fewer than 32 bits.

    Raises:
      TypeError: for a hyperparameter that is not a number (pass a schedule through
        optax.inject_hyperparams); for parameters or updates that are neither
        floating-point nor complex.
      ValueError: for a number out of range; for updates whose tree or shapes differ.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from optax_rprop import contrib
      >>> optimizer = optax.chain(
      ...     optax.scale_by_adam(),
      ...     contrib.scale_by_adaptive_gains(average_decay=0.99),
      ...     optax.scale_by_learning_rate(0.003))
      >>> params = jnp.zeros(2)
      >>> opt_state = optimizer.init(params)
      >>> updates, opt_state = optimizer.update(jnp.ones(2), opt_state, params)
      >>> updates, opt_state = optimizer.update(jnp.ones(2), opt_state, params)
      >>> print(optax.tree_utils.tree_get(opt_state, "gains"))
      [1.05 1.05]

    References:
      Jacobs, "Increased rates of convergence through learning rate adaptation",
      Neural Networks 1, 1988 (delta-bar-delta).
      Hinton, "Neural networks for machine learning", lectures 6d and 6e, 2012.
    """
    hyperparameters = {
        "increase": increase,
        "decrease": decrease,
        "average_decay": average_decay,
        "min_gain": min_gain,
        "max_gain": max_gain,
    }
    _checks.check_scalars(hyperparameters, _checks.GAIN_INTERVALS)
    numbers = tuple(hyperparameters.values())

    def init(params: optax.Params) -> Any:
        _checks.check_known(hyperparameters, _checks.GAIN_INTERVALS)

        def zeros(path: tuple, parameter: Any) -> jax.Array:
            _checks.check_parameter(path, parameter)
            dtype = jnp.result_type(parameter)
            narrow = jnp.finfo(dtype).bits < 32
            return jnp.zeros_like(parameter, dtype=jnp.float32 if narrow else dtype)

        averages = jax.tree_util.tree_map_with_path(zeros, params)
        gains = jax.tree.map(lambda zeros: by_parts(lambda part: part + 1, zeros), averages)
        return ScaleByAdaptiveGainsState(gains, averages)

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: object,
    ) -> tuple[optax.Updates, Any]:
        del params, extra_args
        _checks.check_state(state, ScaleByAdaptiveGainsState)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(updates)
        owns = [_checks.leaves_of(tree, "the state", treedef, "the updates") for tree in state]
        adapted = []
        for (path, leaf), *own in zip(leaves, *owns, strict=True):
            _checks.check_alike(path, "the update", leaf, "the state", own[0])
            adapted.append(_update_leaf(leaf, *own, numbers))
        scaled, gains, averages = (
            treedef.unflatten([leaf[n] for leaf in adapted]) for n in range(3)
        )
        return scaled, ScaleByAdaptiveGainsState(gains, averages)

    return optax.GradientTransformationExtraArgs(init, update)


def rmsprop_with_gains(
    learning_rate: optax.ScalarOrSchedule,
    decay: jax.typing.ArrayLike = 0.9,
    eps: jax.typing.ArrayLike = 1e-8,
    increase: jax.typing.ArrayLike = 0.05,
    decrease: jax.typing.ArrayLike = 0.8,
    average_decay: jax.typing.ArrayLike = 0.9,
    min_gain: jax.typing.ArrayLike = 0.1,
    max_gain: jax.typing.ArrayLike = 10.0,
) -> optax.GradientTransformationExtraArgs:
    """RMSprop with an adaptive gain for every weight: for mini-batches.

    `optax.rmsprop`, whose updates `scale_by_adaptive_gains` scales. With `min_gain` and
    `max_gain` at 1 it is `optax.rmsprop` to the bit.

    Args:
      learning_rate: a number or a schedule, as for `optax.rmsprop`; the best is often about
        twice as large.
      decay: how much the average of squared gradients keeps in a step (default 0.9).
      eps: added to that average, under the root (default 1e-8).
      increase: added to a gain (default 0.05). For this and the next four, see
        `scale_by_adaptive_gains`.
      decrease: shrinks a gain (default 0.8).
      average_decay: how much the average of updates keeps in a step (default 0.9).
      min_gain: the smallest gain (default 0.1).
      max_gain: the largest gain (default 10).

    Returns:
      A gradient transformation whose updates are to be added to the parameters. A gradient
      that is NaN or infinite counts as zero. One whose square overflows, above 1.8e19 in
      float32, stops its weight for good, as in `optax.rmsprop`: clip such gradients.

    Example:
      >>> import jax.numpy as jnp
      >>> from optax_rprop import contrib
      >>> optimizer = contrib.rmsprop_with_gains(0.01)
      >>> opt_state = optimizer.init(jnp.zeros(2))
      >>> updates, opt_state = optimizer.update(jnp.array([0.01, -100.0]), opt_state)
      >>> print(updates.round(4))
      [-0.0316  0.0316]
    """
    rate = {} if callable(learning_rate) else {"learning_rate": learning_rate}
    _checks.check_scalars({"decay": decay, "eps": eps, **rate}, _checks.GAIN_INTERVALS)

    def finite(updates: Any, _: Any) -> Any:
        return jax.tree.map(lambda gradient: _where_finite(gradient, 0), updates)

    return optax.chain(
        optax.stateless(finite),  # one NaN would stay in the average of squares for ever
        optax.scale_by_rms(decay, eps),
        scale_by_adaptive_gains(increase, decrease, average_decay, min_gain, max_gain),
        optax.scale_by_learning_rate(learning_rate),
    )


@jax.jit
def _update_leaf(
    update: jax.Array, gain: jax.Array, average: jax.Array, hyperparameters: tuple
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One leaf's scaled update, gains and averages. Traced once per shape."""

    def adapt(incoming: jax.Array, gain: jax.Array, average: jax.Array):
        increase, decrease, average_decay, min_gain, max_gain = (
            _hyperparameters.real(number, gain) for number in hyperparameters
        )
        update = _where_finite(incoming.astype(gain.dtype), 0)
        # Signs are multiplied, never the numbers: a product of those underflows.
        agreement = lax.sign(update) * lax.sign(average)
        adapted = jnp.where(agreement > 0, gain + increase, gain * decrease)
        adapted = jnp.where(agreement == 0, gain, jnp.clip(adapted, min_gain, max_gain))
        # A traced hyperparameter can be NaN: it then changes nothing.
        gain = _where_finite(adapted, gain)
        average = _where_finite(average_decay * average + (1 - average_decay) * update, average)
        # Where the product overflows, the update as it came.
        return finite_cast(_where_finite(gain * update, update), incoming.dtype), gain, average

    return by_parts(adapt, jnp.asarray(update), gain, average)


def _where_finite(array: jax.typing.ArrayLike, other: Any) -> jax.Array:
    return jnp.where(jnp.isfinite(array), array, other)

"""Adaptive gains: Rprop's idea for directions that are noisy, such as those of mini-batches."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optax_rprop import _hyperparameters
from optax_rprop._dtypes import by_parts, finite_cast, widen


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
      Jacobs, Neural Networks 1, 1988 (delta-bar-delta).
      Hinton, "Neural networks for machine learning", lectures 6d and 6e, 2012.
    """
    numbers = increase, decrease, average_decay, min_gain, max_gain

    def init(params: optax.Params) -> Any:
        averages = jax.tree.map(
            lambda x: jnp.zeros_like(x, dtype=widen(jnp.result_type(x))), params
        )
        gains = jax.tree.map(lambda zeros: by_parts(lambda part: part + 1, zeros), averages)
        return ScaleByAdaptiveGainsState(gains, averages)

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: object
    ) -> tuple[optax.Updates, Any]:
        def adapt(update: Any, *old: jax.Array) -> tuple:
            return (None, *old) if update is None else _update_leaf(update, *old, numbers)

        each = functools.partial(jax.tree.map, is_leaf=lambda update: update is None)
        adapted = each(adapt, updates, *state)
        scaled, gains, averages = (
            each(lambda _, new, n=n: new[n], updates, adapted) for n in range(3)
        )
        return scaled, ScaleByAdaptiveGainsState(gains, averages)

    return optax.GradientTransformationExtraArgs(init, update)


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

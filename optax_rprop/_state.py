"""The optimizer's state, and how to read it inside any other state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optax_rprop import _checks, _packing
from optax_rprop._dtypes import by_parts, is_complex


class ScaleByRpropState(NamedTuple):
    """Step sizes and previous signs, one float per weight.

    Attributes:
      signed_step_sizes: a pytree shaped like the parameters. Each leaf packs the
        step size (its magnitude) and the previous gradient's sign (its sign) of
        every weight, or where no sign is remembered a huge number, 7.9e26 for 0.01;
        read it through `step_sizes` and `prev_signs`. Its type
        belongs to the encoding: never cast it, nor load a float64 one without
        jax_enable_x64, where JAX would cast it.
      prev_value: the last finite loss, a scalar of the default float type, +inf
        before the first; `irprop_plus` alone has it, others hold None.
    """

    signed_step_sizes: Any
    prev_value: jax.Array | None = None

    @property
    def step_sizes(self) -> Any:
        """The step sizes, in the parameters' units: a pytree shaped like them."""
        return jax.tree.map(
            lambda packed: by_parts(_packing.step_size, packed), self.signed_step_sizes
        )

    @property
    def prev_signs(self) -> Any:
        """The remembered signs, int8, -1, 0 (none) or 1: a pytree shaped like the parameters.

        A complex leaf gives a complex array: a sign for either part.
        """
        return jax.tree.map(_signs, self.signed_step_sizes)

    @classmethod
    def from_step_sizes(
        cls, step_sizes: Any, prev_signs: Any, prev_value: jax.typing.ArrayLike | None = None
    ) -> "ScaleByRpropState":
        """Makes a state: for a warm start, or to go on from another library's.

        Args:
          step_sizes: a pytree of arrays, floating-point or complex: above 0, in
            the parameters' units. Its types become the state's, float32 where a
            type has less range than bfloat16.
          prev_signs: a pytree of the same structure and shapes; any real numbers,
            of which the signs count (a previous gradient will do). Where a sign
            is 0 or NaN, none is remembered.
          prev_value: the previous loss, for `irprop_plus`.

        Returns:
          The state of `scale_by_rprop`. Each optimizer is a chain of that and a
          change of sign, whose state is `(state, optax.EmptyState())`.

        Raises:
          TypeError: for step sizes that are neither floating-point nor complex, or
            complex signs beside real ones.
          ValueError: where the two trees do not match, a step size is not above 0
            and at most 2**31, or prev_value is no scalar.

        Example:
          >>> import jax.numpy as jnp
          >>> import optax_rprop
          >>> state = optax_rprop.ScaleByRpropState.from_step_sizes(
          ...     jnp.array([0.1, 0.2]), jnp.array([-1, 0]))
          >>> state.step_sizes, state.prev_signs
          (Array([0.1, 0.2], dtype=float32), Array([-1,  0], dtype=int8))
        """
        _checks.check_same_tree("prev_signs", prev_signs, "step_sizes", step_sizes)
        if prev_value is not None:
            prev_value = jnp.asarray(prev_value, dtype=float)
            _checks.check_value(prev_value, prev_value)
        return cls(jax.tree_util.tree_map_with_path(_pack, step_sizes, prev_signs), prev_value)


def _signs(packed: jax.Array) -> jax.Array:
    signs = by_parts(lambda part: lax.sign(_packing.signed_step(part)), packed)
    return signs if is_complex(signs) else signs.astype(jnp.int8)


def _pack(path: tuple, step_size: jax.typing.ArrayLike, sign: jax.typing.ArrayLike) -> jax.Array:
    step_size, sign = jnp.asarray(step_size), jnp.asarray(sign)
    if sign.dtype == bool:
        sign = sign.astype(jnp.int8)
    _checks.check_parts(path, step_size, sign)

    def pack(step_size: jax.Array, sign: jax.Array) -> jax.Array:
        step_size = _packing.representable(step_size)
        signed = lax.select(sign > 0, step_size, -step_size)
        return lax.select((sign > 0) | (sign < 0), signed, _packing.without_sign(step_size))

    return by_parts(pack, step_size.astype(_packing.state_dtype(step_size.dtype)), sign)


def _find(opt_state: Any) -> ScaleByRpropState:
    def is_rprop(node: Any) -> bool:
        return isinstance(node, ScaleByRpropState)

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_rprop) if is_rprop(node)]
    return _checks.the_only_state(found, opt_state)


def step_sizes(opt_state: Any) -> Any:
    """The step sizes inside any optimizer state.

    Args:
      opt_state: a state that holds one Rprop state at any depth: that of a chain,
        of `optax.masked`, `optax.MultiSteps`, `optax.inject_hyperparams` or
        `flax.nnx.Optimizer`, for instance.

    Returns:
      A pytree shaped like the parameters, of the state's floating-point types,
      in the parameters' units. A complex leaf holds a step size for either part.

    Raises:
      ValueError: if `opt_state` holds no Rprop state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax_rprop
      >>> opt_state = optax_rprop.rprop(0.1).init({"w": jnp.zeros(2)})
      >>> optax_rprop.step_sizes(opt_state)
      {'w': Array([0.1, 0.1], dtype=float32)}
    """
    return _find(opt_state).step_sizes


def prev_signs(opt_state: Any) -> Any:
    """The remembered gradient signs inside any optimizer state.

    Args:
      opt_state: as for `step_sizes`.

    Returns:
      A pytree shaped like the parameters, of int8: -1, 1, or 0 where no sign is
      remembered (at the start, after a zero gradient, after most reversals). A
      complex leaf gives a complex array, a sign for either part.

    Raises:
      ValueError: if `opt_state` holds no Rprop state, or several.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax_rprop
      >>> opt_state = optax_rprop.rprop(0.1).init({"w": jnp.zeros(2)})
      >>> optax_rprop.prev_signs(opt_state)
      {'w': Array([0, 0], dtype=int8)}
    """
    return _find(opt_state).prev_signs


def converged(opt_state: Any, tolerance: jax.typing.ArrayLike) -> jax.Array:
    """Whether every step size is at or below a tolerance: the test to stop on.

    Step sizes shrink only where a gradient changes sign, that is around a minimum.
    The updates do not tell: irprop_minus emits zero wherever a sign changed, and
    irprop_plus wherever it changed and the loss did not rise, in all weights at once
    sooner or later; and a gradient that is masked there is zero too, at a step size
    that may still be large.

    Args:
      opt_state: as for `step_sizes`.
      tolerance: one number above 0, in the units of the parameters; no less than
        `min_step_size`, or it is never reached.

    Returns:
      A boolean scalar, to be used inside jit and in the condition of a while_loop
      too. A weight whose gradient is exactly zero, or that rests on a bound, keeps
      its step size and holds the answer at False.

    Raises:
      TypeError: if the tolerance is no number.
      ValueError: if it is not above 0, or if `opt_state` holds no Rprop state, or several.

    Example:
      >>> import jax, jax.numpy as jnp, optax, optax_rprop
      >>> optimizer = optax_rprop.rprop(0.1)
      >>> def not_done(carry):
      ...     return ~optax_rprop.converged(carry[1], 1e-5)
      >>> def step(carry):
      ...     params, opt_state = carry
      ...     updates, opt_state = optimizer.update(2 * (params - 3), opt_state)
      ...     return optax.apply_updates(params, updates), opt_state
      >>> start = jnp.zeros(2)
      >>> params, _ = jax.lax.while_loop(not_done, step, (start, optimizer.init(start)))
      >>> bool(jnp.all(jnp.abs(params - 3) < 1e-4))
      True
    """
    _checks.check_tolerance(tolerance)
    largest = [
        jnp.maximum(jnp.max(jnp.real(leaf), initial=0), jnp.max(jnp.imag(leaf), initial=0))
        for leaf in jax.tree.leaves(step_sizes(opt_state))
    ]
    small = [size <= jnp.asarray(tolerance, dtype=size.dtype) for size in largest]
    return jnp.all(jnp.array(small, dtype=bool))

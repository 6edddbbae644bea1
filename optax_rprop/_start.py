"""The first step sizes, where no learning rate is given: see `rprop_momentum`.

Many weights move together, and would throw a deep network far off: with more than 100, steps
are shorter by the cube root of their number / 100.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optax_rprop._dtypes import reals


def measure_weights(params: Any) -> tuple[jax.Array, jax.Array]:
    """Of all weights together: a typical size, and the part of each one's size to begin with."""
    leaves = jax.tree.leaves(params)
    count = sum(map(np.size, leaves))
    return _typical_size(leaves), jnp.asarray(0.1 * min(1, 100 / max(count, 1)) ** (1 / 3))


@jax.jit
def _typical_size(leaves: list[jax.Array]) -> jax.Array:
    """The geometric mean of all weights but 0 and infinite ones; or 1."""
    logs, count = jnp.zeros((), float), jnp.zeros((), float)
    for part in reals(leaves):
        size = abs(part.astype(logs.dtype))
        counts = (size > 0) & (size < jnp.inf)
        logs += jnp.sum(jnp.where(counts, jnp.log(jnp.where(counts, size, 1)), 0))
        count += jnp.sum(counts.astype(count.dtype))
    return jnp.exp(logs / jnp.maximum(count, 1))


def first_step_size(
    parameter: jax.Array, width: jax.Array, start: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """Of an array of weights, in boxes of this width."""
    size = abs(parameter)
    typical, part = (x.astype(size.dtype) for x in start)
    size = jnp.where(size > 0, jnp.clip(typical, size, 10 * size), typical)
    return part * jnp.minimum(size, width)

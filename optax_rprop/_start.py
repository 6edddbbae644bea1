"""The first step sizes, where no learning rate is given: a tenth of each weight's size.

There is no absolute number in them, so that parameters in seconds or in nanoseconds take the
same path. A weight that is zero takes its size from the others, and one that is tiny beside
them counts as up to ten times larger. Many weights move together, and would throw a deep
network far off: with more than 100, steps are shorter by the cube root of their number / 100.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optax_rprop._dtypes import is_abstract, parts


class Start(NamedTuple):
    """Of all parameters together: scalars."""

    typical_size: jax.Array  # the geometric mean of all weights but 0 and infinite ones; or 1
    part: jax.Array  # of a weight's size


def measure(params: Any) -> Start:
    """Parameters that are shapes and types alone count as if all were zero."""
    leaves = jax.tree.leaves(params)
    count = sum(math.prod(np.shape(leaf)) for leaf in leaves)
    numbers = [leaf for leaf in leaves if not is_abstract(leaf)]
    return Start(_typical_size(numbers), jnp.asarray(0.1 * min(1, 100 / max(count, 1)) ** (1 / 3)))


@jax.jit
def _typical_size(leaves: list[jax.Array]) -> jax.Array:
    logs, count = jnp.zeros((), float), jnp.zeros((), float)
    for leaf in leaves:
        for part in parts(leaf):
            size = abs(part.astype(logs.dtype))
            counts = (size > 0) & (size < jnp.inf)
            logs += jnp.sum(jnp.where(counts, jnp.log(jnp.where(counts, size, 1)), 0))
            count += jnp.sum(counts.astype(count.dtype))
    return jnp.exp(logs / jnp.maximum(count, 1))


def first_step_size(parameter: jax.Array, start: Start) -> jax.Array:
    """Of an array of weights."""
    size = abs(parameter)
    typical, part = (x.astype(size.dtype) for x in start)
    return part * jnp.where(size > 0, jnp.clip(typical, size, 10 * size), typical)

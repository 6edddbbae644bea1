"""Numbers given per weight: arrays and pytree prefixes, each the weight's own number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import optax_rprop
from helpers import streams

PARAMS = {"layer": {"b": jnp.zeros(3), "w": jnp.zeros((2, 3))}, "scale": jnp.zeros(())}
GRADIENTS = streams.gradients(60, 10, np.float32, (-3, 3))
LOSSES = np.random.default_rng(1).standard_normal(60).astype(np.float32)

W, B = jnp.float32([0.1, 0.2, 0.3]), np.float32([0.5, 0.6, 0.7])
# A prefix, and the ten numbers that it stands for.
PREFIXES = [
    (0.5, [0.5] * 10),
    ({"layer": 0.5, "scale": 0.1}, [0.5] * 9 + [0.1]),
    (
        {"layer": {"b": 0.3, "w": np.float32([[0.1], [0.2]])}, "scale": jnp.float32(0.4)},
        [0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.4],
    ),
    ({"layer": {"b": B, "w": W}, "scale": 1}, [0.5, 0.6, 0.7, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 1.0]),
]
# Each argument's numbers are these times a power of two: so float32 and Python keep them equal,
# step sizes start between their limits, and reach both.
SCALES = {
    "learning_rate": 1.0,
    "eta_minus": 0.5,
    "eta_plus": 16.0,
    "min_step_size": 1 / 16,
    "max_step_size": 16.0,
    "lower": -8.0,
}


@pytest.mark.parametrize("turn", range(len(PREFIXES)))
def test_a_prefix_is_each_weights_own_number(turn):
    """Bit-equal to ten optimizers of one weight each; by turns, each argument has each prefix.

    With the rule that has all: of a prefix, every rule sees what one leaf's numbers are.
    """
    prefixes, numbers = {}, {}
    for place, (argument, scale) in enumerate(SCALES.items()):
        prefix, own = PREFIXES[(place + turn) % len(PREFIXES)]
        prefixes[argument] = jax.tree.map(lambda number, scale=scale: number * scale, prefix)
        numbers[argument] = jnp.asarray(own, jnp.float32) * scale
    make = optax_rprop.irprop_plus
    _, unravel = ravel_pytree(PARAMS)
    together = streams.run(make(**prefixes), PARAMS, jax.vmap(unravel)(GRADIENTS), LOSSES)
    alone = jax.vmap(
        lambda given, gradients: streams.run(make(**given), jnp.zeros(()), gradients, LOSSES),
        out_axes=1,
    )(numbers, GRADIENTS.T)
    for got, wanted in zip(together, alone, strict=True):
        streams.assert_same_bits(jax.vmap(lambda tree: ravel_pytree(tree)[0])(got), wanted)


def test_numbers_compile_to_the_same_step():
    """A prefix of equal numbers costs nothing: the program is the plain one."""

    def lowered(eta_plus):
        optimizer = optax_rprop.rprop(eta_plus=eta_plus)
        return jax.jit(optimizer.update).lower(PARAMS, optimizer.init(PARAMS)).as_text()

    assert lowered(1.3) == lowered({"layer": 1.3, "scale": 1.3})


def test_complex_parameters():
    optimizer = optax_rprop.rprop({"z": np.float32([0.5, 0.25])})
    params = {"z": jnp.zeros(2, complex)}
    updates, _ = optimizer.update({"z": jnp.array([1 + 1j, 1 - 1j])}, optimizer.init(params))
    np.testing.assert_array_equal(updates["z"], [-0.5 - 0.5j, -0.25 + 0.25j])

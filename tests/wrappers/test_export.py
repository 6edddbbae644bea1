"""One artifact for CPU, GPU and TPU: what jax.export writes runs on the CPU to the same bits."""

import jax
import jax.export
import numpy as np
import optax

from helpers import streams
from helpers.conformance import every_kind

PLATFORMS = ("cpu", "cuda", "tpu")
GRADIENTS = streams.gradients(20, 30, np.float32, (-2, 2))
LOSSES = np.float32(np.sin(np.arange(20)))


def run(step, params, state):
    for gradients, loss in zip(GRADIENTS, LOSSES, strict=True):
        params, *state = step(params, gradients, loss, *state)
    return params, *state


@every_kind
def test_same_bits_from_the_artifact(make):
    optimizer = make()
    params = np.linspace(-1, 1, 30, dtype=np.float32)
    # A state is written as its arrays: jax.export knows no NamedTuple.
    leaves, treedef = jax.tree.flatten(optimizer.init(params))

    @jax.jit
    def step(params, gradients, loss, *leaves):
        state = treedef.unflatten(leaves)
        updates, state = optimizer.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), *jax.tree.leaves(state)

    exported = jax.export.export(step, platforms=PLATFORMS)
    artifact = exported(params, GRADIENTS[0], LOSSES[0], *leaves).serialize()
    again = jax.export.deserialize(artifact)
    assert again.platforms == PLATFORMS
    for actual, expected in zip(
        run(again.call, params, leaves), run(step, params, leaves), strict=True
    ):
        streams.assert_same_bits(actual, expected)

"""Saved and restored, each optimizer goes on as if nothing had been; exported, a step too."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import make_checkpoint, streams
from helpers.conformance import (
    GRADIENTS,
    KINDS,
    LOSSES,
    PLAIN,
    VALUES,
    assert_same_trees,
    every_kind,
    parametrize,
    tree,
)


def test_orbax(tmp_path):
    """Saved after a step and restored, to the same bits."""
    ocp = pytest.importorskip("orbax.checkpoint")
    saved, params = {}, tree(VALUES)
    for make in (*KINDS, optax_rprop.contrib.scale_by_adaptive_gains):
        optimizer = optax.with_extra_args_support(make())
        state = optimizer.init(params)
        saved[make.__name__] = optimizer.update(tree(GRADIENTS[0]), state, params, value=1.0)
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(tmp_path / "saved", saved)
    checkpointer.wait_until_finished()
    like = jax.tree.map(jnp.zeros_like, saved)
    assert_same_trees(checkpointer.restore(tmp_path / "saved", like), saved)


@pytest.mark.usefixtures("x64")
@parametrize(*PLAIN)
def test_checkpoint_of_version_0_2(make):
    """The state's names, types and encoding are those of 0.2.0, and lead where they led."""
    saved = np.load(make_checkpoint.PATH)
    params = make_checkpoint.leaves(VALUES)
    template = params, make().init(params)

    def of(part, tree):
        return make_checkpoint.by_path({make.__name__: {part: tree}})

    names = of("halfway", template)
    assert set(names) == {name for name in saved if name.startswith(f"['{make.__name__}']['half")}
    assert {name: saved[name].dtype for name in names} == {n: x.dtype for n, x in names.items()}
    halfway = jax.tree.unflatten(
        jax.tree.structure(template), [jnp.asarray(saved[name]) for name in names]
    )
    end = make_checkpoint.train(make, saved["gradients"], saved["losses"], *halfway)
    for name, leaf in of("end", end).items():
        for part in (np.real, np.imag):
            streams.assert_same_bits(part(leaf), part(saved[name]))


@every_kind
def test_export(make):
    """One artifact for CPU, GPU and TPU runs on the CPU to the same bits."""
    optimizer, start = make(), tree(VALUES)
    # A state is written as its arrays: jax.export knows no NamedTuple.
    leaves, treedef = jax.tree.flatten(optimizer.init(start))

    @jax.jit
    def step(params, gradients, loss, *leaves):
        state = treedef.unflatten(leaves)
        updates, state = optimizer.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), *jax.tree.leaves(state)

    platforms = ("cpu", "cuda", "tpu")
    exported = jax.export.export(step, platforms=platforms)
    artifact = exported(start, tree(GRADIENTS[0]), LOSSES[0], *leaves).serialize()
    again = jax.export.deserialize(artifact)
    assert again.platforms == platforms
    actual = expected = start, *leaves
    for row, loss in zip(GRADIENTS, LOSSES, strict=True):
        actual = again.call(actual[0], tree(row), loss, *actual[1:])
        expected = step(expected[0], tree(row), loss, *expected[1:])
    for pair in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        streams.assert_same_bits(*pair)

"""Saved and restored, each optimizer goes on as if nothing had been."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import make_checkpoint, streams
from helpers.conformance import (
    GRADIENTS,
    KINDS,
    LOSSES,
    VALUES,
    assert_same_trees,
    every_plain_optimizer,
    run,
)


def test_orbax(tmp_path):
    """Saved after fifteen steps and restored, to the same bits."""
    ocp = pytest.importorskip("orbax.checkpoint")
    kinds = [*KINDS, optax_rprop.contrib.scale_by_adaptive_gains]
    halves = {make.__name__: run(make(), None, GRADIENTS[:15], LOSSES[:15]) for make in kinds}
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(tmp_path / "halves", halves)
    checkpointer.wait_until_finished()
    like = jax.tree.map(jnp.zeros_like, halves)
    assert_same_trees(checkpointer.restore(tmp_path / "halves", like), halves)


@pytest.mark.usefixtures("x64")
@every_plain_optimizer
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

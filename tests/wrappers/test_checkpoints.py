"""Saved and restored, each optimizer goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import make_checkpoint, streams
from helpers.conformance import VALUES, bits, every_kind, every_plain_optimizer, run

TESTS = Path(__file__).parents[1]


def start(verb, directory):
    """`killed_run.py` in a process of its own."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, TESTS / "helpers/killed_run.py", verb, directory],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Where the results are of runs that were killed, and resumed by another process."""
    pytest.importorskip("orbax.checkpoint")
    directory = tmp_path_factory.mktemp("orbax")
    with start("train", directory) as training:
        line = training.stdout.readline()
        training.kill()
    assert line == "saved\n"
    assert training.returncode == -signal.SIGKILL
    with start("resume", directory) as resuming:
        assert resuming.wait() == 0
    return directory


@every_kind
def test_orbax_after_a_kill(make, resumed):
    """The run that was killed ends as the run that never was."""
    found = np.load(resumed / f"{make.__name__}.npz")
    for leaf, expected in zip(found.values(), bits(run(make())), strict=True):
        np.testing.assert_array_equal(leaf, expected)


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

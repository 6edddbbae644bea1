"""Writes data/checkpoint_v2.npz: states as version 0.2.0 saved them, and where they lead.

Later versions must read them: never write this file again; a new layout of the
state is a new file beside it. Run: PYTHONPATH=tests python tests/helpers/make_checkpoint.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from helpers.conformance import GRADIENTS, LOSSES, PLAIN, VALUES, run

PATH = Path(__file__).with_name("data") / "checkpoint_v2.npz"
HALF = 15


def leaves(rows):
    """Numbers for a leaf of every type that npz can hold."""
    real = {dtype: jnp.asarray(rows, dtype) for dtype in ("float16", "float32", "float64")}
    return real | {"complex64": jnp.asarray(rows + 1j * rows[::-1], "complex64")}


def train(make, gradients, losses, params=None, state=None):
    params = leaves(VALUES) if params is None else params
    return run(make(), params, leaves(gradients), losses, state)


def by_path(tree):
    """The arrays of a tree, by their paths in it."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def main():
    jax.config.update("jax_enable_x64", True)
    runs = {}
    for make in PLAIN:
        halfway = train(make, GRADIENTS[:HALF], LOSSES[:HALF])
        end = train(make, GRADIENTS[HALF:], LOSSES[HALF:], *halfway)
        runs[make.__name__] = {"halfway": halfway, "end": end}
    later = {"gradients": GRADIENTS[HALF:], "losses": LOSSES[HALF:]}
    np.savez_compressed(PATH, **by_path(runs), **later)


if __name__ == "__main__":
    main()

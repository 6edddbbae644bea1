"""A training process that is killed, and the one that goes on from its checkpoint.

python killed_run.py train DIRECTORY     trains, saves, trains on until it is killed
python killed_run.py resume DIRECTORY    restores, trains to the end, saves the result
"""

import sys
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from helpers.conformance import GRADIENTS, KINDS, LOSSES, VALUES, bits, run, tree

HALF = 15


def train(directory):
    checkpointer = ocp.StandardCheckpointer()
    halves = {}
    for make in KINDS:
        halves[make.__name__] = run(make(), None, GRADIENTS[:HALF], LOSSES[:HALF])
    checkpointer.save(directory / "checkpoint", halves)
    checkpointer.wait_until_finished()
    print("saved", flush=True)
    while True:
        for make in KINDS:
            run(make())


def resume(directory):
    start = {make.__name__: (tree(VALUES), make().init(tree(VALUES))) for make in KINDS}
    halves = ocp.StandardCheckpointer().restore(directory / "checkpoint", start)
    for make in KINDS:
        params, state = halves[make.__name__]
        end = run(make(), params, GRADIENTS[HALF:], LOSSES[HALF:], state)
        np.savez(directory / f"{make.__name__}.npz", *bits(end))


if __name__ == "__main__":
    {"train": train, "resume": resume}[sys.argv[1]](Path(sys.argv[2]))

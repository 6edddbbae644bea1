"""Several processes train one network, each with its share of the batch.

The script starts them itself, on this machine's CPU; on several machines only the address given
to `jax.distributed.initialize` differs. The step is that of a single process: the batch is one
array whose rows lie with different processes, `jax.jit` sees all of it, and XLA adds up over the
processes what the step adds up over rows. All then make the same update, with the same state.

Whoever adds up by hand (`jax.lax.pmean` in `jax.shard_map`) does so before the update:

- the gradient, not its signs: the sign of a sum is not the sum of the signs;
- for irprop_plus the loss too: processes that judge by their own losses undo different steps.

`--data digits` trains the network of digits.py. `--data dyadic` fits a linear model whose numbers
are so short in binary that no sum is ever rounded: any number of processes gives the same bits.
On digits the sums are rounded, in an order that depends on the number of processes: the first
losses agree to almost float32's precision, and later ones part, as Rprop acts on signs.

    python examples/data_parallel.py
    python examples/data_parallel.py --processes 4 --optimizer irprop_plus --data dyadic
"""

import argparse
import hashlib
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from _common import natural, positive
from digits import Network, load
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_rprop

OPTIMIZERS = ("irprop_minus", "irprop_plus", "rprop", "rprop_minus", "rprop_plus")


class Problem(NamedTuple):
    """What is trained, from which parameters, and how.

    `losses_of` takes parameters, inputs and targets to a loss for each row, which is 0 for a row
    of zeros.
    """

    inputs: np.ndarray
    targets: np.ndarray
    params: Any
    losses_of: Callable[[Any, jax.Array, jax.Array], jax.Array]
    hyperparameters: dict[str, float]


def digits(seed: int) -> Problem:
    """The network of digits.py."""
    batch, _ = load(seed)
    graph, params = nnx.split(Network(nnx.Rngs(seed)))

    def losses_of(params: nnx.State, images: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(nnx.merge(graph, params)(images), labels)

    return Problem(*batch, params, losses_of, {})


def dyadic(seed: int) -> Problem:
    """A linear model whose loss and gradient float32 holds exactly.

    Inputs are multiples of 1/2 and weights of 1/32, so that squared errors are multiples of
    2**-12; with weights up to 1 in size the 64 of them add up to at most 2**12: 24 bits.
    """
    random = np.random.default_rng(seed)
    inputs = random.integers(-2, 3, (64, 4)).astype(np.float32) / 2
    targets = inputs @ (random.integers(-8, 9, 4).astype(np.float32) / 8)

    def losses_of(params: jax.Array, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return (inputs @ params - targets) ** 2

    powers_of_two = {
        "learning_rate": 1 / 4,
        "eta_minus": 1 / 4,
        "eta_plus": 2.0,
        "min_step_size": 1 / 32,
        "max_step_size": 1 / 4,
    }
    return Problem(inputs, targets, np.zeros(4, np.float32), losses_of, powers_of_two)


PROBLEMS = {"digits": digits, "dyadic": dyadic}


def share(rows: np.ndarray) -> jax.Array:
    """One array over all devices, to which this process gives its part of the rows."""
    # Rows of zeros, which change no sum, make the parts equal.
    rows = np.pad(rows, [(0, -len(rows) % jax.device_count())] + [(0, 0)] * (rows.ndim - 1))
    part = np.split(rows, jax.process_count())[jax.process_index()]
    mesh = Mesh(jax.devices(), "batch")
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("batch")), part)


def train(problem: Problem, optimizer: optax.GradientTransformationExtraArgs, steps: int):
    """Returns the loss before each step, and the parameters after the last."""
    rows = len(problem.inputs)

    def loss_of(params: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        return problem.losses_of(params, inputs, targets).sum() / rows

    def step(params, opt_state, inputs, targets):
        loss, gradient = jax.value_and_grad(loss_of)(params, inputs, targets)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state, loss

    inputs, targets = share(problem.inputs), share(problem.targets)
    everywhere = NamedSharding(inputs.sharding.mesh, PartitionSpec())
    params = jax.device_put(jax.tree.map(np.asarray, problem.params), everywhere)
    opt_state = jax.jit(optimizer.init)(params)
    step = jax.jit(step, donate_argnums=(0, 1))
    losses = []
    for number in range(steps):
        params, opt_state, loss = step(params, opt_state, inputs, targets)
        losses.append(float(loss))
        if jax.process_index() == 0:
            print(f"step {number:>4}   loss {losses[-1]:.8f}", flush=True)
    return losses, params


def work(process: int, address: str, chosen: argparse.Namespace, folder: Path) -> None:
    """What one process does; it leaves its figures in the folder."""
    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(address, chosen.processes, process, coordinator_bind_address=address)
    problem = PROBLEMS[chosen.data](chosen.seed)
    optimizer = getattr(optax_rprop, chosen.optimizer)(**problem.hyperparameters)
    losses, params = train(problem, optimizer, chosen.steps)
    params = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))
    figures = {"losses": losses, "params_sha256": hashlib.sha256(params).hexdigest()}
    (folder / f"{process}.json").write_text(json.dumps(figures))
    jax.distributed.shutdown()


def launch(work: Callable[..., None], processes: int, timeout: float, *arguments: Any) -> None:
    """Runs `work(process, *arguments)` in so many processes; if one fails, ends all."""
    context = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + timeout
    children = []
    try:
        for process in range(processes):
            child = context.Process(target=work, args=(process, *arguments))
            child.start()
            children.append(child)
        running = {child.sentinel: process for process, child in enumerate(children)}
        while running:
            ended = wait(running, max(0, deadline - time.monotonic()))
            if not ended:
                raise SystemExit(f"not done after {timeout:g} seconds; all processes were ended")
            for process in map(running.pop, ended):
                children[process].join()
                if children[process].exitcode != 0:
                    raise SystemExit(f"process {process} failed; all processes were ended")
    finally:
        for child in children:
            child.kill()
            child.join()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "{}:{}".format(*probe.getsockname())


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--processes", type=positive, default=2, help="how many to start")
    options.add_argument("--steps", type=positive, default=20, help="of the training")
    options.add_argument("--optimizer", choices=OPTIMIZERS, default="irprop_minus", help="which")
    options.add_argument("--data", choices=PROBLEMS, default="digits", help="what to learn")
    options.add_argument("--seed", type=natural, default=0, help="of every random number")
    options.add_argument("--timeout", type=positive, default=300, help="seconds until all is ended")
    chosen = options.parse_args(arguments)
    print(f"data: {chosen.data}, optimizer: {chosen.optimizer}, processes: {chosen.processes}")
    with tempfile.TemporaryDirectory() as folder:
        launch(work, chosen.processes, chosen.timeout, free_address(), chosen, Path(folder))
        figures = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    same = all(other == figures[0] for other in figures)
    print(f"every process has the same losses and weights, bit for bit: {same}")
    return {**figures[0], "same": same}


if __name__ == "__main__":
    main()

"""What a step costs on the device at hand, and whether it makes the right bits there.

First the published rules against the papers in NumPy, bit for bit, on a stream of gradients with
zeros, NaN and infinities. Then the time of a donated step, on one leaf and on many, beside
optax.rprop, Adam and a copy (x + 1 in place): all take turns, and the median counts. GB/s are the
bytes that XLA says a step reads and writes, over its time. With --digits 1, the digits at last.
"""

import runpy
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import optax_rprop
from _common import arguments, finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers import reference, streams

CONTENDERS = {
    "irprop_minus": optax_rprop.irprop_minus(),
    "irprop_plus": optax_rprop.irprop_plus(),
    "irprop_minus, bounded": optax_rprop.irprop_minus(lower=-1.0, upper=1.0),
    "irprop_minus, bfloat16": optax_rprop.irprop_minus(step_dtype="bfloat16"),
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "copy": optax.stateless(lambda updates, _: jax.tree.map(jnp.ones_like, updates)),
}


def check_bits(steps, weights):
    """Raises AssertionError where a rule differs from the papers in any bit."""
    gradients = streams.gradients(steps, weights, np.float32)
    losses = np.random.default_rng(0).standard_normal(steps).astype(np.float32)
    start = np.linspace(-1, 1, weights, dtype=np.float32)
    for rule in streams.OPTIMIZERS:
        optimizer = getattr(optax_rprop, rule)()
        found = streams.run(optimizer, jnp.asarray(start), jnp.asarray(gradients), losses)
        for got, expected in zip(found, reference.run(rule, start, gradients, losses), strict=True):
            streams.assert_same_bits(got, expected)
        print(f"{rule:22} {steps * weights:,} weight-steps, no bit differs")


def compile_step(optimizer, shapes):
    """A donated step, its arguments and the bytes that it reads and writes."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(params, state, gradients):
        updates, state = optimizer.update(gradients, state, params, value=0.0)
        return optax.apply_updates(params, updates), state

    params = [jnp.zeros(shape) for shape in shapes]
    state = optimizer.init(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params).compile()
    return compiled, params, state, compiled.cost_analysis()["bytes accessed"]


def time_steps(shapes, turns):
    """The seconds of a step, its median, and the bytes, of each contender."""
    keys = jax.random.split(jax.random.key(0), len(shapes))
    gradients = [jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True)]
    runs = {name: compile_step(optimizer, shapes) for name, optimizer in CONTENDERS.items()}
    seconds = {name: [] for name in runs}
    for turn in range(turns + 2):
        for name, (step, params, state, moved) in runs.items():
            start = time.perf_counter()
            params, state = jax.block_until_ready(step(params, state, gradients))
            if turn >= 2:  # the first turns warm up
                seconds[name].append(time.perf_counter() - start)
            runs[name] = step, params, state, moved
    return {name: (statistics.median(seconds[name]), run[-1]) for name, run in runs.items()}


def main():
    """Checks, times, prints and draws."""
    options = arguments(
        __doc__,
        weights=(40_000_000, "weights of the one leaf"),
        leaves=(300, "number of leaves of the other tree"),
        leaf_size=(100_000, "weights of each of them"),
        turns=(20, "steps of each contender"),
        bits=(200, "steps of the comparison with the papers, of 100 weights each"),
        digits=(0, "1 to run examples/digits.py, too"),
    )
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    check_bits(options.bits, 100)
    cases = {
        f"one leaf of {options.weights:,}": [(options.weights,)],
        f"{options.leaves} leaves of {options.leaf_size:,}": [(options.leaf_size,)]
        * options.leaves,
    }
    numbers = {}
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for (title, shapes), panel in zip(cases.items(), panels, strict=True):
        print(f"\n{title}\n{'':24}{'ms':>9}{'GB/s':>9}{'/ optax.rprop':>15}{'/ adam':>9}")
        found = time_steps(shapes, options.turns)
        for name, (seconds, moved) in found.items():
            ratios = [seconds / found[other][0] for other in ("optax.rprop", "adam")]
            rate = moved / seconds / 1e9
            print(f"{name:24}{seconds * 1e3:9.3f}{rate:9.1f}{ratios[0]:15.2f}{ratios[1]:9.2f}")
        numbers[title] = {name: seconds for name, (seconds, _) in found.items()}
        panel.barh(list(found), [seconds * 1e3 for seconds, _ in found.values()], color="tab:red")
        panel.set(title=title, xlabel="ms a step")
    panels[0].invert_yaxis()
    finish(options, numbers, figure)
    if options.digits:
        runpy.run_path(str(Path(__file__).parents[1] / "examples/digits.py"))


if __name__ == "__main__":
    main()

"""What one optimizer step costs on the device at hand: this package's, Optax's and PyTorch's.

A step reads gradients, parameters and state and writes the last two: its floor is the memory's
speed. So times are given as ratios to optax.sgd, 12 bytes for each float32 weight, to Adam and to
optax.rprop; GB/s are the bytes that XLA says a step reads and writes, over its time, also of a copy
(x + 1 in place). All contenders take turns in one process, a donated step each, and a ratio is the
median over the turns; PyTorch has its own. State, peak and moved are bytes for each weight.
All contenders together take about 350, so that the largest case needs 14 GB.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from tqdm import tqdm

import optax_rprop
from _accelerators import donated_step, figures
from _common import arguments, print_table, write

CONTENDERS = {
    "irprop_minus": optax_rprop.irprop_minus(),
    "irprop_minus, bfloat16": optax_rprop.irprop_minus(step_dtype="bfloat16"),
    "irprop_minus, bounds": optax_rprop.irprop_minus(lower=-1.0, upper=1.0),
    "rprop_minus": optax_rprop.rprop_minus(),
    "irprop_plus": optax_rprop.irprop_plus(),
    "rprop_plus": optax_rprop.rprop_plus(),
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
    "optax.scale_by_lbfgs": optax.chain(optax.scale_by_lbfgs(), optax.scale(-1)),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "sgd, momentum": optax.sgd(0.01, momentum=0.9),
    "copy": optax.stateless(lambda updates, _: jax.tree.map(jnp.ones_like, updates)),
    "sgd": optax.sgd(0.01),
}
BASES = ("sgd", "adam", "optax.rprop")
# A transformer of 4 blocks of width 256: embedding, then attention, feed-forward and norms.
BLOCK = [(256, 768), (256, 256), (256, 1024), (1024, 256)] + [(768,), (1024,)] + [(256,)] * 6
CASES = {  # title, and the shapes of the leaves
    "one_leaf": ("one leaf of 40M weights", [(40_000_000,)]),
    "many_large": ("300 leaves of 100,000", [(100_000,)] * 300),
    "many_small": ("300 leaves of 1,000", [(1_000,)] * 300),
    "tiny": ("2 leaves of 4", [(4,)] * 2),
    "transformer": (
        "a small transformer, 52 leaves",
        [(8192, 256), (512, 256), *BLOCK * 4, (256,), (256,)],
    ),
}
COLUMNS = {  # of the table: the number, what it is multiplied by, its format
    "ms": ("seconds", 1e3, ".3f"),
    "/ sgd": ("to_sgd", 1, ".2f"),
    "/ adam": ("to_adam", 1, ".2f"),
    "/ optax.rprop": ("to_optax.rprop", 1, ".3f"),
    "GB/s": ("bytes_per_second", 1e-9, ".1f"),
    "state": ("state_bytes_per_weight", 1, ".1f"),
    "peak": ("peak_bytes_per_weight", 1, ".1f"),
    "moved": ("bytes_accessed_per_weight", 1, ".1f"),
    "trace s": ("trace_seconds", 1, ".2f"),
    "compile s": ("compile_seconds", 1, ".2f"),
}


def compile_step(optimizer, params):
    """A donated step, its first arguments, and what compiling it told."""
    params = jax.tree.map(jnp.copy, params)  # each contender donates its own
    opt_state = jax.tree.map(jnp.copy, optimizer.init(params))  # Optax's L-BFGS shares arrays
    weights = sum(leaf.size for leaf in params)
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state) if leaf.ndim)
    began = time.perf_counter()
    lowered = donated_step(optimizer).lower(params, opt_state, params, jnp.zeros(()))
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()
    read = figures(compiled, (weights,))
    told = {
        "state_bytes_per_weight": state_bytes / weights,
        "peak_bytes_per_weight": read["peak"],
        "bytes_accessed_per_weight": read["bytes"],
        "trace_seconds": traced - began,
        "compile_seconds": done - traced,
    }
    return compiled, (params, opt_state), told


def run_case(shapes, turns, torch_timeout):
    """All numbers of all contenders."""
    keys = jax.random.split(jax.random.key(0), 2)
    gradients = [[jax.random.normal(key, shape) for shape in shapes] for key in keys]
    zeros = [jnp.zeros(shape) for shape in shapes]
    steps, carried, numbers = {}, {}, {}
    for name, optimizer in tqdm(CONTENDERS.items(), desc="compiling", leave=False):
        steps[name], carried[name], numbers[name] = compile_step(optimizer, zeros)
    weights = sum(leaf.size for leaf in zeros)
    del zeros

    seconds = {name: [] for name in CONTENDERS}
    value = jnp.zeros(())
    for turn in range(turns + 2):
        for name, step in steps.items():
            began = time.perf_counter()
            moved = step(*carried[name], gradients[turn % 2], value)
            carried[name] = jax.block_until_ready(moved)
            if turn >= 2:  # the first ones touch memory for the first time
                seconds[name].append(time.perf_counter() - began)
    for name, own in numbers.items():
        own["seconds"] = statistics.median(seconds[name])
        if own["bytes_accessed_per_weight"]:
            own["bytes_per_second"] = own["bytes_accessed_per_weight"] * weights / own["seconds"]
        for other in BASES:
            ratios = (a / b for a, b in zip(seconds[name], seconds[other], strict=True))
            own[f"to_{other}"] = statistics.median(ratios)

    script = Path(__file__).with_name("_step_time_torch.py")
    command = [sys.executable, script, json.dumps(shapes), str(turns), jax.default_backend()]
    try:
        printed = subprocess.run(command, stdout=subprocess.PIPE, timeout=torch_timeout).stdout
    except subprocess.TimeoutExpired as late:  # compiling hundreds of leaves takes minutes
        printed = late.stdout or b""
    for name, median in map(json.loads, printed.splitlines()):
        ratios = {f"to_{other}": median / numbers[other]["seconds"] for other in BASES}
        numbers[name] = {"seconds": median, "state_bytes_per_weight": 8.0, **ratios}
    return numbers


def draw(panel, times):
    """A bar for each contender, ours in color, and a line at 1, which is optax.sgd."""
    colors = ["tab:red" if hasattr(optax_rprop, name.split(",")[0]) else "silver" for name in times]
    bars = panel.barh(range(len(times)), times.values(), color=colors)
    panel.bar_label(bars, fmt="%.2g", padding=2, fontsize=9)
    panel.axvline(1, color="black", lw=0.8, ls=":")
    panel.set_yticks(range(len(times)), times, fontsize=9)
    panel.invert_yaxis()
    panel.margins(x=0.1)


def main():
    options = arguments(
        __doc__,
        cases=(",".join(CASES), "which, separated by commas"),
        turns=(30, "timed steps of each contender; more where steps are short"),
        torch_timeout=(60, "seconds for PyTorch in each case"),
        plot=(Path("figures/step_time.png"), "where the figure goes"),
    )
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, optax {optax.__version__}, {device.device_kind}")
    cases = options.cases.split(",")
    names = [name for name in CONTENDERS if name not in ("sgd", "copy")]
    look = {"dpi": 150, "sharex": True, "squeeze": False, "layout": "constrained"}
    size = (5, (0.16 * len(names) + 0.1) * len(cases) + 0.5)
    figure, axes = plt.subplots(len(cases), figsize=size, **look)  # narrow enough for a phone
    results = {}
    for case, panel in zip(cases, axes[:, 0], strict=True):
        title, shapes = CASES[case]
        turns = options.turns * (1 if case == "one_leaf" else 30 if case == "tiny" else 3)
        results[case] = run_case(shapes, turns, options.torch_timeout)
        print_table(title, COLUMNS, results[case])
        draw(panel, {name: results[case][name]["to_sgd"] for name in names})
        panel.set_title(title, fontsize=11)
    kind = "a CPU" if device.platform == "cpu" else device.device_kind
    figure.suptitle(f"Time of a step on {kind}, relative to optax.sgd")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot)
    print(f"\nplot: {options.plot}")
    write(options.json, results)


if __name__ == "__main__":
    main()

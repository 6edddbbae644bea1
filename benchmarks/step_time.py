"""What one optimizer step costs: this package's, Optax's and PyTorch's.

A step reads gradients, parameters and state and writes the last two: its floor is the memory's
speed. So times are given as ratios to optax.sgd, an in-place params - rate * gradients of 12 bytes
for each float32 weight, and to optax.rprop. All contenders take turns in one process, a donated
step each, and a ratio is the median over the turns; PyTorch has a process of its own. State, peak
and moved are bytes for each weight.
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
from _common import COLORS, arguments, finish

CONTENDERS = {
    "irprop_minus": optax_rprop.irprop_minus(),
    "irprop_minus, bfloat16": optax_rprop.irprop_minus(step_dtype="bfloat16"),
    "rprop_minus": optax_rprop.rprop_minus(),
    "irprop_plus": optax_rprop.irprop_plus(),
    "rprop_plus": optax_rprop.rprop_plus(),
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "sgd, momentum": optax.sgd(0.01, momentum=0.9),
    "sgd": optax.sgd(0.01),
}
# A transformer of 4 blocks of width 256: embedding, then attention, feed-forward and norms.
BLOCK = [(256, 768), (256, 256), (256, 1024), (1024, 256)] + [(768,), (1024,)] + [(256,)] * 6
CASES = {  # the shapes of the leaves
    "one_leaf": [(40_000_000,)],
    "many_large": [(100_000,)] * 300,
    "many_small": [(1_000,)] * 300,
    "tiny": [(4,)] * 2,
    "transformer": [(8192, 256), (512, 256), *BLOCK * 4, (256,), (256,)],
}
TITLES = {
    "one_leaf": "one leaf of 40M weights",
    "many_large": "300 leaves of 100,000",
    "many_small": "300 leaves of 1,000",
    "tiny": "2 leaves of 4",
    "transformer": "a small transformer, 52 leaves",
}
COLUMNS = {  # heading: number, factor, format
    "ms": ("seconds", 1e3, "9.3f"),
    "/ sgd": ("to_sgd", 1, "7.2f"),
    "/ adam": ("to_adam", 1, "7.2f"),
    "/ optax.rprop": ("to_optax.rprop", 1, "13.3f"),
    "state": ("state_bytes_per_weight", 1, "6.1f"),
    "peak": ("peak_bytes_per_weight", 1, "6.1f"),
    "moved": ("bytes_accessed_per_weight", 1, "6.1f"),
    "trace s": ("trace_seconds", 1, "7.2f"),
    "compile s": ("compile_seconds", 1, "9.2f"),
    "eager ms": ("eager_seconds", 1e3, "9.2f"),
    "of copy": ("of_copy_bandwidth", 1, "7.2f"),
}


def compile_step(optimizer, params):
    """A donated step, its first arguments, and what compiling it told."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(params, opt_state, gradients, value):
        updates, opt_state = optimizer.update(gradients, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    params = jax.tree.map(jnp.copy, params)  # each contender donates its own
    opt_state = optimizer.init(params)
    value = jnp.zeros(())
    weights = sum(leaf.size for leaf in params)
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state) if leaf.ndim)

    began = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, params, value)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()

    jax.block_until_ready(step(params, opt_state, params, value))  # what Optax jits, compiled
    eager = time.perf_counter()
    jax.block_until_ready(step(params, opt_state, params, value))
    eager = time.perf_counter() - eager
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    told = {
        "state_bytes_per_weight": state_bytes / weights,
        "peak_bytes_per_weight": (peak - memory.alias_size_in_bytes) / weights,
        "bytes_accessed_per_weight": compiled.cost_analysis()["bytes accessed"] / weights,
        "trace_seconds": traced - began,
        "compile_seconds": done - traced,
        "eager_seconds": eager,
    }
    return compiled, (params, opt_state), told


def copied_per_second(array):
    """Bytes read and written a second by the fastest of 20 copies."""
    copy = jax.jit(jnp.copy)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        copy(array).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * array.nbytes / min(seconds)


def run_case(shapes, turns, torch_timeout):
    """All numbers of all contenders."""
    keys = jax.random.split(jax.random.key(0), 2)
    gradients = [[jax.random.normal(key, shape) for shape in shapes] for key in keys]
    zeros = [jnp.zeros(shape) for shape in shapes]
    steps, carried, numbers = {}, {}, {}
    for name, optimizer in tqdm(CONTENDERS.items(), desc="compiling", leave=False):
        steps[name], carried[name], numbers[name] = compile_step(optimizer, zeros)
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
        for other in ("sgd", "adam", "optax.rprop"):
            ratios = (a / b for a, b in zip(seconds[name], seconds[other], strict=True))
            own[f"to_{other}"] = statistics.median(ratios)
        if jax.default_backend() == "gpu" and name.endswith(("prop_minus", "prop_plus")):
            weights = sum(leaf.size for leaf in gradients[0])
            own["of_copy_bandwidth"] = (
                20 * weights / own["seconds"] / copied_per_second(jnp.zeros(weights))
            )

    script = Path(__file__).with_name("_step_time_torch.py")
    command = [sys.executable, script, json.dumps(shapes), str(turns), jax.default_backend()]
    try:
        printed = subprocess.run(command, stdout=subprocess.PIPE, timeout=torch_timeout).stdout
    except subprocess.TimeoutExpired as late:  # compiling hundreds of leaves takes minutes
        printed = late.stdout or b""
    for name, median in map(json.loads, printed.splitlines()):
        numbers[name] = {"seconds": median, "state_bytes_per_weight": 8.0}
        for other in ("sgd", "adam", "optax.rprop"):
            numbers[name][f"to_{other}"] = median / numbers[other]["seconds"]
    return numbers


def table(numbers):
    """A line for each contender."""
    shown = [
        (heading, *column)
        for heading, column in COLUMNS.items()
        if any(column[0] in own for own in numbers.values())
    ]
    widths = [int(form.split(".")[0]) for *_, form in shown]
    rows = [[heading for heading, *_ in shown]]
    for own in numbers.values():
        cells = ((own.get(key), factor, form) for _, key, factor, form in shown)
        rows.append(["-" if x is None else format(x * factor, form) for x, factor, form in cells])
    return "\n".join(
        f"{name:22}" + " ".join(map(str.rjust, row, widths))
        for name, row in zip(["", *numbers], rows, strict=True)
    )


def draw(panel, times):
    """A bar for each contender, and a line at 1, which is optax.sgd."""
    bars = panel.barh(
        range(len(times)),
        times.values(),
        color=[COLORS.get(name.split(",")[0], "lightgray") for name in times],
    )
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
    )
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, optax {optax.__version__}, {device.device_kind}")
    cases = options.cases.split(",")
    names = [name for name in CONTENDERS if name != "sgd"]
    figure, axes = plt.subplots(  # one below another: narrow enough for a phone
        len(cases),
        figsize=(5, 1.6 * len(cases) + 0.5),
        dpi=150,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    results = {}
    for case, panel in zip(cases, axes[:, 0], strict=True):
        turns = options.turns * (1 if case == "one_leaf" else 30 if case == "tiny" else 3)
        results[case] = run_case(CASES[case], turns, options.torch_timeout)
        print(f"\n{case}: {len(CASES[case])} leaves\n{table(results[case])}", flush=True)

        draw(panel, {name: results[case][name]["to_sgd"] for name in names})
        panel.set_title(TITLES[case], fontsize=11)
    kind = "a CPU" if device.platform == "cpu" else device.device_kind
    figure.suptitle(f"Time of a step on {kind}, relative to optax.sgd")
    finish(options, results, figure)


if __name__ == "__main__":
    main()

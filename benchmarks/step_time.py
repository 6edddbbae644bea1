"""How long one optimizer step takes, and what it moves: this package's, Optax's and PyTorch's.

A step reads gradients, parameters and state and writes the last two: its floor is the memory's
speed. So times are given as ratios to `optax.sgd`, an in-place `params - rate * gradients` of 12
bytes for each float32 weight, and to `optax.rprop`. All contenders take turns in one process, a
step each, and a ratio is the median over the turns; PyTorch has a process of its own.

    python examples/step_time.py
    python examples/step_time.py --cases many_small --json times.json --plot times.png
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from _common import COLORS, parser, plt, positive, save
from tqdm import tqdm

import optax_rprop

RATE = 0.01
CONTENDERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "irprop_minus": optax_rprop.irprop_minus,
    "irprop_minus, bfloat16": lambda rate: optax_rprop.irprop_minus(rate, step_dtype="bfloat16"),
    "rprop_minus": optax_rprop.rprop_minus,
    "irprop_plus": optax_rprop.irprop_plus,
    "rprop_plus": optax_rprop.rprop_plus,
    "optax.rprop": optax.rprop,
    "adam": optax.adam,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "sgd": optax.sgd,
}
# A transformer of 4 blocks of width 256: embedding, then attention, feed-forward and norms.
BLOCK = [(256, 768), (256, 256), (256, 1024), (1024, 256)] + [(768,), (1024,)] + [(256,)] * 6
CASES: dict[str, list[tuple[int, ...]]] = {
    "one_leaf": [(40_000_000,)],
    "many_large": [(100_000,)] * 300,
    "many_small": [(1_000,)] * 300,
    "tiny": [(4,)] * 2,
    "transformer": [(8192, 256), (512, 256), *BLOCK * 4, (256,), (256,)],
}


Shapes = Sequence[tuple[int, ...]]


class Compiled(NamedTuple):
    """One contender's step, ready to run, and what compiling it told."""

    step: Callable
    start: tuple[Any, Any]
    figures: dict[str, float]


def tree(shapes: Shapes, fill: Callable[[int, tuple[int, ...]], Any]) -> dict:
    """Parameters or gradients of these shapes."""
    return {f"leaf{i}": fill(i, shape) for i, shape in enumerate(shapes)}


def compile_step(make: Callable[..., Any], shapes: Shapes) -> Compiled:
    """Traces and compiles a donated step, with a clock beside it."""
    optimizer = optax.with_extra_args_support(make(RATE))

    def step(params, opt_state, gradients, value):
        updates, opt_state = optimizer.update(gradients, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    params = tree(shapes, lambda _, shape: jnp.zeros(shape))
    opt_state = optimizer.init(params)
    value = jnp.zeros(())
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state) if leaf.ndim)

    began = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, opt_state, params, value)
    traced = time.perf_counter()
    compiled = lowered.compile()
    done = time.perf_counter()

    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    jax.block_until_ready(step(params, opt_state, params, value))  # what Optax jits, compiled
    eager = time.perf_counter()
    jax.block_until_ready(step(params, opt_state, params, value))
    figures = {
        "state_bytes_per_weight": state_bytes / weights,
        "peak_bytes_per_weight": (peak - memory.alias_size_in_bytes) / weights,
        "bytes_accessed_per_weight": compiled.cost_analysis()["bytes accessed"] / weights,
        "trace_seconds": traced - began,
        "compile_seconds": done - traced,
        "eager_seconds": time.perf_counter() - eager,
    }
    return Compiled(compiled, (params, opt_state), figures)


def interleaved(
    contenders: dict[str, Compiled], gradients: Sequence[Any], turns: int
) -> dict[str, list[float]]:
    """Seconds of every step: in each turn, all contenders one after the other."""
    carried = {name: contender.start for name, contender in contenders.items()}
    seconds = {name: [] for name in contenders}
    value = jnp.zeros(())
    for turn in range(turns + 2):
        for name, contender in contenders.items():
            began = time.perf_counter()
            moved = contender.step(*carried[name], gradients[turn % 2], value)
            carried[name] = jax.block_until_ready(moved)
            if turn >= 2:  # the first ones touch memory for the first time
                seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, to: str) -> float:
    """How much longer than another contender, turn by turn: the median."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[to], strict=True))


def torch_seconds(shapes: Shapes, turns: int, timeout: int) -> dict[str, float]:
    """Medians of torch.optim.Rprop, in a process of its own; empty without torch."""
    script = Path(__file__).with_name("step_time_torch.py")
    command = [sys.executable, script, json.dumps(shapes), str(turns), jax.default_backend()]
    try:
        printed = subprocess.run(command, capture_output=True, timeout=timeout).stdout
    except subprocess.TimeoutExpired as late:  # compiling hundreds of leaves takes minutes
        printed = late.stdout or b""
    return dict(json.loads(line) for line in printed.splitlines())


def copied_per_second(weights: int) -> float:
    """Bytes read and written a second by the fastest of 20 copies of so many floats."""
    copy = jax.jit(jnp.copy)
    array = jnp.zeros(weights)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        copy(array).block_until_ready()
        seconds.append(time.perf_counter() - began)
    return 2 * array.nbytes / min(seconds)


def run_case(shapes: Shapes, turns: int, torch_timeout: int) -> dict[str, dict[str, float]]:
    """All figures of all contenders for parameters of these shapes."""
    compiled = {}
    for name, make in tqdm(CONTENDERS.items(), desc="compiling", leave=False):
        compiled[name] = compile_step(make, shapes)
    gradients = [
        tree(shapes, lambda i, shape, k=k: jax.random.normal(jax.random.key(2 * i + k), shape))
        for k in (0, 1)
    ]
    seconds = interleaved(compiled, gradients, turns)
    weights = sum(leaf.size for leaf in jax.tree.leaves(gradients[0]))
    figures = {}
    for name, contender in compiled.items():
        figures[name] = {
            "seconds": statistics.median(seconds[name]),
            "to_sgd": ratio(seconds, name, "sgd"),
            "to_momentum": ratio(seconds, name, "momentum"),
            "to_adam": ratio(seconds, name, "adam"),
            "to_optax_rprop": ratio(seconds, name, "optax.rprop"),
            **contender.figures,
        }
    if jax.default_backend() == "gpu":
        bandwidth = copied_per_second(weights)
        for name in ("irprop_minus", "rprop_minus", "rprop_plus", "irprop_plus"):
            moved = 20 * weights / figures[name]["seconds"]
            figures[name]["of_copy_bandwidth"] = moved / bandwidth
    for name, median in torch_seconds(shapes, turns, torch_timeout).items():
        figures[name] = {
            "seconds": median,
            "to_sgd": median / figures["sgd"]["seconds"],
            "to_optax_rprop": median / figures["optax.rprop"]["seconds"],
            "state_bytes_per_weight": 8.0,
        }
    return figures


COLUMNS = {  # heading: figure, factor, format
    "ms": ("seconds", 1e3, "9.3f"),
    "/ sgd": ("to_sgd", 1, "7.2f"),
    "/ momentum": ("to_momentum", 1, "10.2f"),
    "/ adam": ("to_adam", 1, "7.2f"),
    "/ optax.rprop": ("to_optax_rprop", 1, "13.3f"),
    "state": ("state_bytes_per_weight", 1, "6.1f"),
    "peak": ("peak_bytes_per_weight", 1, "6.1f"),
    "moved": ("bytes_accessed_per_weight", 1, "6.1f"),
    "trace s": ("trace_seconds", 1, "7.2f"),
    "compile s": ("compile_seconds", 1, "9.2f"),
    "eager ms": ("eager_seconds", 1e3, "9.2f"),
    "of copy": ("of_copy_bandwidth", 1, "7.2f"),
}


def table(figures: dict[str, dict[str, float]]) -> str:
    """A line for each contender."""
    shown = {
        h: column for h, column in COLUMNS.items() if any(column[0] in f for f in figures.values())
    }
    widths = {heading: int(form.split(".")[0]) for heading, (_, _, form) in shown.items()}
    lines = [" " * 22 + " ".join(heading.rjust(widths[heading]) for heading in shown)]
    for name, own in figures.items():
        cells = (
            format(own[figure] * factor, form) if figure in own else "-".rjust(widths[heading])
            for heading, (figure, factor, form) in shown.items()
        )
        lines.append(f"{name:22}" + " ".join(cells))
    return "\n".join(lines)


def draw(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Bars of the time of a step, in those of optax.sgd, a panel for each case."""
    figure, axes = plt.subplots(1, len(results), figsize=(3 * len(results) + 1.5, 4), squeeze=False)
    names = list(CONTENDERS)  # PyTorch is in the table: it is in a process of its own
    for panel, (case, figures) in zip(axes[0], results.items(), strict=True):
        times = [figures[name]["to_sgd"] for name in names]
        colors = [COLORS.get(name.split(",")[0], "#bbbbbb") for name in names]
        bars = panel.barh(names, times, color=colors)
        panel.bar_label(bars, fmt="%.2g", padding=2, fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.2)
        panel.set_title(case.replace("_", " "))
        panel.set_xlabel("time of a step / optax.sgd")
        panel.grid(False, axis="y")
        if panel is not axes[0, 0]:
            panel.set_yticklabels([])
    device = jax.devices()[0]
    kind = "a CPU" if device.platform == "cpu" else device.device_kind
    figure.suptitle(f"One jitted, donated optimizer step on {kind}")
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Times, prints, saves."""
    flags = parser(__doc__, "step_time")
    flags.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="which")
    flags.add_argument("--turns", type=positive, default=30, help="timed steps of each contender")
    flags.add_argument(
        "--torch-timeout", type=positive, default=60, help="seconds for PyTorch in each case"
    )
    flags.add_argument("--json", type=Path, help="write all figures here")
    given = flags.parse_args(arguments)

    device = jax.devices()[0]
    print(
        f"jax {jax.__version__}, optax {optax.__version__}, {device.platform} {device.device_kind}"
    )
    print("state, peak and moved are bytes for each weight; / is the time's ratio")
    results = {}
    for case in given.cases:
        shapes = CASES[case]
        # Short steps are noisier, and cost less to repeat.
        turns = given.turns * (1 if case == "one_leaf" else 30 if case == "tiny" else 3)
        results[case] = run_case(shapes, turns, given.torch_timeout)
        print(f"\n{case}: {len(shapes)} leaves\n{table(results[case])}")
    if given.json:
        given.json.write_text(json.dumps(results, indent=1))
    if given.plot:
        draw(results, given.plot)
    return results


if __name__ == "__main__":
    main()

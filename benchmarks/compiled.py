"""What XLA makes of an optimizer step: on a TPU v5e and v6e and an H100, none of which is needed.

Of one array of 40 million weights, donated: bytes read and written a weight, passes over the
weights (fusions and copies), temporary memory, and the TPU compiler's own estimate of the time.
Then of an array sharded over 256 chips of a TPU v5e: memory a chip, and what the chips send.
Compiled, not run.

    pip install 'optax_rprop[examples,tpu]'
    pip install jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12  # at jax's version
    python benchmarks/compiled.py
    python benchmarks/compiled.py --devices v5e --json compiled.json
"""

import math
import re

import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

import _accelerators as accelerators
import optax_rprop
from _common import COLORS, arguments, finish
from optax_rprop import contrib

WEIGHTS = (40_000_000,)
MATRIX = (32_768, 16_384)
BOX = {"lower": -1.0, "upper": 1.0}
OPTIONS = {
    "plain": {},
    "bounds": BOX,
    "bfloat16 steps": {"step_dtype": "bfloat16"},
    "undo_nonfinite": {"undo_nonfinite": True},
    "bounds, undo_nonfinite": {"undo_nonfinite": True, **BOX},
    "bfloat16 weights": {},
    "complex": {},
}
TYPES = {"bfloat16 weights": jnp.bfloat16, "complex": jnp.complex64}  # of weights; else float32
MINUS = ("plain", "bounds", "bfloat16 steps", "bfloat16 weights", "complex")
NAMES = {
    "irprop_minus": MINUS,
    "irprop_plus": OPTIONS,
    "rprop_minus": MINUS,
    "rprop_plus": OPTIONS,
    "shark_irprop_minus": MINUS,
    "rprop_momentum": ("plain", "bounds"),
}
OTHERS = {
    "rmsprop_with_gains": contrib.rmsprop_with_gains,
    "optax.rprop": optax.rprop,
    "adam": optax.adam,
    "sgd": optax.sgd,
}
COLORS = {"shark_irprop_minus": "tab:olive", "rmsprop_with_gains": "tab:green", **COLORS}
LABELS = {"cpu": "CPU", "v5e": "TPU v5e", "v6e": "TPU v6e", "h100": "H100"}


def cases():
    """Each optimizer, its option and its weights' type."""
    for name, options in NAMES.items():
        for option in options:
            optimizer = getattr(optax_rprop, name)(0.01, **OPTIONS[option])
            yield name, option, optimizer, TYPES.get(option, jnp.float32)
    for name, make in OTHERS.items():
        yield name, "plain", make(0.01), jnp.float32


def on_one_device(kind):
    """The figures of each case, printed as they come."""
    print(f"\n{LABELS[kind]}: bytes and temporary bytes a weight")
    columns = ("bytes", "fusions", "copies", "temporary", "est. ms")
    print(f"{'':43}" + "".join(f"{column:>10}" for column in columns))
    sharding = accelerators.one(kind)
    found = []
    for name, option, optimizer, dtype in cases():
        compiled = accelerators.compile_step(optimizer, WEIGHTS, sharding, dtype)
        row = accelerators.figures(compiled, WEIGHTS)
        found.append({"optimizer": name, "option": option, **row})
        moved, estimate = row["bytes"] or math.nan, 1e3 * (row["seconds"] or math.nan)
        print(
            f"{name:20}{option:23}{moved:10.1f}{row['fusions']:10}{row['copies']:10}"
            f"{row['temporary']:10.1f}{estimate:10.2f}".replace("nan", "  -"),
            flush=True,
        )
    return found


def on_256_chips():
    """The memory that a chip needs, and what the chips send each other."""
    print(f"\n256 chips of a TPU v5e, a mesh of 64 x 4, weights {MATRIX[0]} x {MATRIX[1]}")
    print(f"{'':43}{'MB a chip':>10}{'collectives':>13}")
    sharding = accelerators.over_256_chips()
    found = []
    for name, option, optimizer, dtype in cases():
        compiled = accelerators.compile_step(optimizer, MATRIX, sharding, dtype)
        memory = compiled.memory_analysis()
        needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        needed += memory.output_size_in_bytes - memory.alias_size_in_bytes
        sent = len(re.findall(accelerators.COLLECTIVE, compiled.as_text()))
        found.append({"optimizer": name, "option": option, "bytes": needed, "collectives": sent})
        print(f"{name:20}{option:23}{needed / 2**20:10.1f}{sent:13}", flush=True)
    return found


def draw(found):
    """A bar for each case, of the bytes that it moves."""
    wide = {"figsize": (3 + 2.5 * len(found), 8), "sharex": True, "sharey": True}
    figure, panels = plt.subplots(1, len(found), squeeze=False, **wide)
    for panel, (kind, rows) in zip(panels[0], found.items(), strict=True):
        labels = [f"{row['optimizer']}, {row['option']}".removesuffix(", plain") for row in rows]
        colors = [COLORS[row["optimizer"]] for row in rows]
        bars = panel.barh(labels, [row["bytes"] or 0 for row in rows], color=colors)
        panel.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
        panel.set(title=LABELS[kind], xlabel="bytes a weight")
        panel.spines[["top", "right"]].set_visible(False)
        panel.margins(x=0.12, y=0.01)
    panels[0][0].invert_yaxis()
    figure.tight_layout()
    return figure


def main():
    """Compiles, prints, draws."""
    every = ",".join(LABELS)
    options = arguments(__doc__, devices=(every, "which, and 256 chips if there is a TPU"))
    accelerators.prepare()
    versions = accelerators.versions()
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    found = {}
    for kind in options.devices.split(","):
        if package := accelerators.missing(kind):
            print(f"\n{LABELS[kind]}: left out, {package} is not installed")
        else:
            found[kind] = on_one_device(kind)
    numbers = {"versions": versions, "one device": found}
    if found.keys() & {"v5e", "v6e"}:
        numbers["256 chips"] = on_256_chips()
    finish(options, numbers, draw(found))


if __name__ == "__main__":
    main()

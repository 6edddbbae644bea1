"""What XLA makes of an optimizer step: on a TPU v5e and v6e and an H100, none of which is needed.

Of one array of 40 million weights, donated: bytes read and written a weight, passes over the
weights (fusions and copies), temporary bytes a weight, memory, the TPU compiler's own estimate of
the time. Then of a chip, of 256 that share an array: memory, and how often it sends anything.

    pip install 'optax_rprop[examples,tpu]'
    pip install jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12  # at jax's version
    python benchmarks/compiled.py --devices v5e --json compiled.json
"""

import math

import jax.numpy as jnp
import optax

import _accelerators as accelerators
import optax_rprop
from _common import arguments, print_table, write
from optax_rprop import contrib

RULES = ("irprop_minus", "irprop_plus", "rprop_minus", "rprop_plus")
OPTIONS = {  # of the published rules, and the weights' type
    "": ({}, jnp.float32),
    ", bounds": ({"lower": -1.0, "upper": 1.0}, jnp.float32),
    ", bfloat16 steps": ({"step_dtype": "bfloat16"}, jnp.float32),
    ", bfloat16 weights": ({}, jnp.bfloat16),
    ", complex weights": ({}, jnp.complex64),
}
OTHERS = {
    "shark_irprop_minus": optax.chain(
        optax_rprop.scale_by_rprop(rule="shark_irprop_minus"), optax.scale(-1)
    ),
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
    "optax.scale_by_lbfgs": optax.chain(optax.scale_by_lbfgs(), optax.scale(-1)),
    "rmsprop, adaptive gains": optax.chain(
        optax.scale_by_rms(),
        contrib.scale_by_adaptive_gains(),
        optax.scale_by_learning_rate(0.01),
    ),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "sgd": optax.sgd(0.01),
}
DEVICES = {  # title, and the shape of the weights
    "cpu": ("CPU", (40_000_000,)),
    "v5e": ("TPU v5e", (40_000_000,)),
    "v6e": ("TPU v6e", (40_000_000,)),
    "h100": ("H100", (40_000_000,)),
    "chips": ("256 chips of a TPU v5e, a mesh of 64 x 4", (32_768, 16_384)),
}
COLUMNS = {  # of the table: the number, what it is multiplied by, its format
    "bytes": ("bytes", 1, ".1f"),
    "fusions": ("fusions", 1, "d"),
    "copies": ("copies", 1, "d"),
    "temporary": ("temporary", 1, ".1f"),
    "MB": ("megabytes", 1, ".1f"),
    "est. ms": ("seconds", 1e3, ".2f"),
    "sends": ("collectives", 1, "d"),
}


def cases():
    """The name of each row, its optimizer and its weights' type."""
    for option, (settings, dtype) in OPTIONS.items():
        for rule in RULES:
            yield rule + option, getattr(optax_rprop, rule)(**settings), dtype
    for name, optimizer in OTHERS.items():
        yield name, optimizer, jnp.float32


def measure(kind):
    """The figures of each case on a kind of device."""
    shape = DEVICES[kind][1]
    sharding = accelerators.over_256_chips() if kind == "chips" else accelerators.one(kind)
    on_one = sharding.shard_shape(shape)
    found = {}
    for name, optimizer, dtype in cases():
        compiled = accelerators.compile_step(optimizer, shape, sharding, dtype)
        found[name] = accelerators.figures(compiled, on_one)
        found[name]["megabytes"] = found[name]["peak"] * math.prod(on_one) / 2**20
    return found


def main():
    options = arguments(__doc__, devices=(",".join(DEVICES), "which, separated by commas"))
    accelerators.prepare()
    numbers = {"versions": accelerators.versions()}
    print(", ".join(f"{name} {version}" for name, version in numbers["versions"].items()))
    for kind in options.devices.split(","):
        title, shape = DEVICES[kind]
        if package := accelerators.missing(kind):
            print(f"\n{title}: left out, {package} is not installed")
            continue
        numbers[kind] = measure(kind)
        print_table(f"{title}, weights {shape}", COLUMNS, numbers[kind])
    write(options.json, numbers)


if __name__ == "__main__":
    main()

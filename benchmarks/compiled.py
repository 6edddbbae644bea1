"""What XLA makes of an optimizer step: on a TPU v5e and v6e and an H100, none of which is needed.

Of one array of 40 million weights, donated: bytes read and written a weight, passes over the
weights (fusions and copies), temporary bytes a weight, and memory. Then of a chip, of 256 that
share an array: the same, and how often it sends anything. The TPU's compiler is the package
libtpu; the GPU's are the last three below, at jax's version. Each compiles without its device.

    pip install '.[examples,tpu]' jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12
    python benchmarks/compiled.py --devices v5e --json compiled.json
"""

import importlib.metadata
import math
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import optax_rprop
from _common import arguments, print_table, write

RULES = ("irprop_minus", "irprop_plus", "rprop_minus", "rprop_plus")
OPTIMIZERS = {
    **{rule: getattr(optax_rprop, rule)() for rule in RULES},
    **{f"{rule}, bounds": getattr(optax_rprop, rule)(lower=-1.0, upper=1.0) for rule in RULES},
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
    "optax.scale_by_lbfgs": optax.chain(optax.scale_by_lbfgs(), optax.scale(-1)),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "sgd": optax.sgd(0.01),
}
DEVICES = {  # title, the package that compiles for it, and the shape of the weights
    "cpu": ("CPU", "jaxlib", (40_000_000,)),
    "v5e": ("TPU v5e", "libtpu", (40_000_000,)),
    "v6e": ("TPU v6e", "libtpu", (40_000_000,)),
    "h100": ("H100", "jax-cuda12-pjrt", (40_000_000,)),
    "chips": ("256 chips of a TPU v5e, a mesh of 64 x 4", "libtpu", (32_768, 16_384)),
}
COLUMNS = {  # of the table: the number, what it is multiplied by, its format
    "bytes": ("bytes", 1, ".1f"),
    "fusions": ("fusions", 1, "d"),
    "copies": ("copies", 1, "d"),
    "temporary": ("temporary", 1, ".1f"),
    "MB": ("megabytes", 1, ".1f"),
    "sends": ("collectives", 1, "d"),
}
PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")
# What devices send each other, in the text of a program.
COLLECTIVE = r" (?:all-|reduce-scatter|collective-|send|recv)[a-z-]*\("
# What XLA asks of a GPU (a GpuTargetConfigProto): NVIDIA's figures for the H100 SXM.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  l2_cache_size: 52428800 memory_bandwidth: 3352320000000 device_memory_size: 84929347584
}
platform_name: "CUDA"
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 7 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


def versions():
    """Of JAX and the compilers, those that are installed."""
    found = {package.name: package.version for package in importlib.metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def prepare():
    """To be called before JAX looks for devices: of these, it shall use the CPU alone."""
    jax.config.update("jax_platforms", "cpu")
    # Where no TPU is, libtpu asks the network and complains, unless it is told these.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_WORKER_ID", "0")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # by processes side by side


def one(kind):
    """Where an array on one device lies: a "cpu", an "h100", a TPU "v5e" or "v6e"."""
    if kind == "cpu":
        device = jax.devices("cpu")[0]
    elif kind == "h100":
        target = {"target_config": H100, "topology": "1x1x1"}
        device = topologies.get_topology_desc(kind, platform="cuda", **target).devices[0]
    else:
        device = topologies.get_topology_desc(f"{kind}:2x2", platform="tpu").devices[0]
    return SingleDeviceSharding(device)


def over_256_chips():
    """How a matrix lies split over 64 x 4 chips of a TPU v5e."""
    chips = topologies.get_topology_desc("v5e:16x16", platform="tpu").devices
    mesh = Mesh(np.array(chips).reshape(64, 4), ("rows", "columns"))
    return NamedSharding(mesh, PartitionSpec("rows", "columns"))


def donated_step(optimizer):
    """A step which writes parameters and state where they were: one for all benchmarks."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(params, opt_state, gradients, value):
        updates, opt_state = optimizer.update(gradients, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(step, donate_argnums=(0, 1))


def compile_step(optimizer, shape, sharding, dtype=jnp.float32):
    """A donated step of one array of weights, and of a state that lies as they do, also by rows."""
    everywhere = rows = sharding
    if isinstance(sharding, NamedSharding):
        everywhere = NamedSharding(sharding.mesh, PartitionSpec())
        rows = NamedSharding(sharding.mesh, PartitionSpec(None, *sharding.spec))

    def placed(array):
        where = sharding if array.shape == shape else everywhere
        where = rows if array.shape[1:] == shape else where
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)

    weights = jax.ShapeDtypeStruct(shape, dtype)
    state = jax.eval_shape(optimizer.init, weights)
    value = jax.ShapeDtypeStruct((), jnp.float32)
    given = jax.tree.map(placed, (weights, state, weights, value))
    return donated_step(optimizer).lower(*given).compile()


def figures(compiled, shape):
    """What a compiled step moves, holds and needs for each weight, and its passes over them."""
    text, weights = compiled.as_text(), math.prod(shape)
    entry = text.split("\nENTRY ")[1]
    array = re.escape(str(list(shape)).replace(" ", ""))

    def count(operation):
        return len(re.findall(rf" = [^=]*{array}[^=]* {operation}\(", entry))

    fusions, copies = count("fusion"), count("copy(?:-start)?")
    memory = compiled.memory_analysis()
    seen = memory.argument_size_in_bytes + memory.output_size_in_bytes
    moved = (compiled.cost_analysis() or {}).get("bytes accessed")
    if moved is None and (fusions, copies) == (1, 0):
        # A GPU's compiler does not say; one pass reads all arguments, writes all results.
        moved = seen
    peak = seen + memory.temp_size_in_bytes - memory.alias_size_in_bytes
    return {
        "bytes": moved and moved / weights,
        "fusions": fusions,
        "copies": copies,
        "temporary": memory.temp_size_in_bytes / weights,
        "peak": peak / weights,
        "megabytes": peak / 2**20,
        "collectives": len(re.findall(COLLECTIVE, text)),
    }


def main():
    options = arguments(__doc__, devices=(",".join(DEVICES), "which, separated by commas"))
    prepare()
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    numbers = {}
    for kind in options.devices.split(","):
        title, package, shape = DEVICES[kind]
        if package not in versions():
            print(f"\n{title}: left out, {package} is not installed")
            continue
        sharding = over_256_chips() if kind == "chips" else one(kind)
        numbers[kind] = {
            name: figures(compile_step(optimizer, shape, sharding), sharding.shard_shape(shape))
            for name, optimizer in OPTIMIZERS.items()
        }
        print_table(f"{title}, weights {shape}", COLUMNS, numbers[kind])
    write(options.json, numbers)


if __name__ == "__main__":
    main()

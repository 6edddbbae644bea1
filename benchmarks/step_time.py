"""What one optimizer step costs on the device at hand: this package's, Optax's and PyTorch's.

All contenders take turns in one process, a donated step each; a ratio is the median over the turns.
They need 14 GB for the largest case. PyTorch comes last, where there is one leaf: it takes minutes
to compile hundreds.
"""

import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import optax

import optax_rprop
from _common import arguments, print_table, write
from compiled import donated_step

CONTENDERS = {
    "irprop_minus": optax_rprop.irprop_minus(),
    "irprop_minus, bfloat16": optax_rprop.irprop_minus(step_dtype="bfloat16"),
    "rprop_minus": optax_rprop.rprop_minus(),
    "irprop_plus": optax_rprop.irprop_plus(),
    "rprop_plus": optax_rprop.rprop_plus(),
    "rprop_momentum": optax_rprop.rprop_momentum(),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
    "optax.scale_by_lbfgs": optax.chain(optax.scale_by_lbfgs(), optax.scale(-1)),
    "optax.rprop": optax.rprop(0.01),
    "adam": optax.adam(0.01),
    "sgd, momentum": optax.sgd(0.01, momentum=0.9),
    "sgd": optax.sgd(0.01),
}
BASES = ("optax.rprop", "adam", "optax.scale_by_lbfgs")
# A transformer of 4 blocks of width 256: embedding, then attention, feed-forward and norms.
BLOCK = [(256, 768), (256, 256), (256, 1024), (1024, 256)] + [(768,), (1024,)] + [(256,)] * 6
TRANSFORMER = [(8192, 256), (512, 256), *BLOCK * 4, (256,), (256,)]
CASES = {  # title, the shapes of the leaves, and how many turns are taken for one
    "one_leaf": ("one leaf of 40M weights", [(40_000_000,)], 1),
    "many_small": ("300 leaves of 1,000", [(1_000,)] * 300, 3),
    "tiny": ("one leaf of 100 weights", [(100,)], 30),
    "transformer": ("a small transformer, 52 leaves", TRANSFORMER, 3),
}
COLUMNS = {  # of the table: the number, what it is multiplied by, its format
    "ms": ("seconds", 1e3, ".3f"),
    **{f"/ {other}": (f"to_{other}", 1, ".3f") for other in BASES},
    "state": ("state_bytes_per_weight", 1, ".1f"),
    "trace s": ("trace_seconds", 1, ".2f"),
    "compile s": ("compile_seconds", 1, ".2f"),
}


def compile_step(optimizer, params):
    """A donated step, its first arguments, and what compiling it told."""
    params = jax.tree.map(jnp.copy, params)  # each contender donates its own
    opt_state = jax.tree.map(jnp.copy, optimizer.init(params))  # Optax's L-BFGS shares arrays
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state) if leaf.ndim)
    began = time.perf_counter()
    lowered = donated_step(optimizer).lower(params, opt_state, params, jnp.zeros(()))
    traced = time.perf_counter()
    compiled = lowered.compile()
    told = {
        "state_bytes_per_weight": state_bytes / sum(leaf.size for leaf in params),
        "trace_seconds": traced - began,
        "compile_seconds": time.perf_counter() - traced,
    }
    return compiled, (params, opt_state), told


def run_case(shapes, turns):
    """All numbers of all contenders."""
    keys = jax.random.split(jax.random.key(0), 2)
    gradients = [[jax.random.normal(key, shape) for shape in shapes] for key in keys]
    zeros = [jnp.zeros(shape) for shape in shapes]
    steps, carried, numbers = {}, {}, {}
    for name, optimizer in CONTENDERS.items():
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
        for other in BASES:
            ratios = (a / b for a, b in zip(seconds[name], seconds[other], strict=True))
            own[f"to_{other}"] = statistics.median(ratios)
    return numbers


def run_torch(shape, turns):
    """The median seconds of a step of torch.optim.Rprop, as it is and compiled, if it is there."""
    try:
        import torch
    except ImportError:
        return {}
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
    on_gpu, found = jax.default_backend() == "gpu", {}
    for name in ("torch foreach", "torch compiled"):
        weights = torch.zeros(shape, device="cuda" if on_gpu else "cpu")
        weights.grad = torch.randn_like(weights)
        step = torch.optim.Rprop([weights], foreach=True).step
        step = torch.compile(step) if name == "torch compiled" else step
        seconds = []
        for _ in range(turns + 2):
            began = time.perf_counter()
            step()
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        found[name] = statistics.median(seconds[2:])
    return found


def main():
    options = arguments(
        __doc__,
        cases=(",".join(CASES), "which, separated by commas"),
        turns=(30, "timed steps of each contender; more where steps are short"),
    )
    print(f"jax {jax.__version__}, optax {optax.__version__}, {jax.devices()[0].device_kind}")
    results = {}
    for case in options.cases.split(","):
        title, shapes, times = CASES[case]
        results[case] = numbers = run_case(shapes, times * options.turns)
        found = run_torch(shapes[0], times * options.turns) if len(shapes) == 1 else {}
        for name, median in found.items():
            ratios = {f"to_{other}": median / numbers[other]["seconds"] for other in BASES}
            numbers[name] = {"seconds": median, "state_bytes_per_weight": 8.0, **ratios}
        print_table(title, COLUMNS, numbers)
    write(options.json, results)


if __name__ == "__main__":
    main()

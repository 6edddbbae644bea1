"""What half the memory costs in steps: step sizes in bfloat16 beside step sizes in float32.

Rprop's state is one number for each weight: 4 bytes for a float32 weight, or 2 with
step_dtype="bfloat16", which rounds step sizes to 8 significant bits and leaves weights and
gradients as they are. What that can cost is steps. They are counted here for irprop_minus and
irprop_plus (Igel and Huesken 2000), with all else at its default, on two problems with float32
weights:

- the network and the digits of digits.py, full batch, to three training losses; every seed is
  another network;
- a quadratic as in variants.py: 20 dimensions, rotated at random, condition 1000. Every
  seed draws a rotation and a minimum from a normal distribution; the start is 0, the target
  a loss of 1e-6. The minimum is not 0, where floats lie closest and would flatter float32 weights.

Runs with the same seed are compared in pairs. It is also checked that the bits do not depend on
chance or compiler: training is repeated, and its gradients are given to an optimizer that runs
operation by operation.

Run: python examples/step_dtype.py
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from digits import MARKS, Network, load
from flax import nnx
from tqdm import tqdm

import optax_rprop

RULES = {"irprop_minus": optax_rprop.irprop_minus, "irprop_plus": optax_rprop.irprop_plus}
STEP_DTYPES = ("float32", "bfloat16")
DIGITS_STEPS = 40
QUADRATIC_STEPS = 3000
QUADRATIC, QUADRATIC_TARGET = "quadratic, loss 1e-6", 1e-6

Loss = Callable[[Any], jax.Array]
Counts = dict[str, dict[str, dict[str, np.ndarray]]]  # by problem, rule and type: for every seed


def rotated_quadratic(key: jax.Array) -> Loss:
    rotation_key, minimum_key = jax.random.split(key)
    rotation = jax.random.orthogonal(rotation_key, 20)
    minimum = jax.random.normal(minimum_key, 20)
    eigenvalues = jnp.geomspace(1, 1000, 20)
    return lambda x: 0.5 * eigenvalues @ (rotation @ (x - minimum)) ** 2


def digits_networks(seed: int, number: int) -> tuple[Loss, nnx.State]:
    """The training loss, and the weights of that many new networks, stacked."""
    batch, _ = load(seed)
    networks = [nnx.split(Network(nnx.Rngs(seed + i))) for i in range(number)]
    graph = networks[0][0]

    def loss_of(params: nnx.State) -> jax.Array:
        scores = nnx.merge(graph, params)(batch.images)
        return optax.softmax_cross_entropy(scores, batch.labels).mean()

    return loss_of, jax.tree.map(lambda *leaves: jnp.stack(leaves), *(own for _, own in networks))


def train(
    optimizer: optax.GradientTransformationExtraArgs, loss_of: Loss, start: Any, steps: int
) -> tuple[tuple[Any, Any], tuple[jax.Array, Any]]:
    """The last weights and state, and the losses and gradients that led there."""

    def step(params_and_state, _):
        params, opt_state = params_and_state
        loss, gradient = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), (loss, gradient)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=steps)


def replay(
    optimizer: optax.GradientTransformationExtraArgs, start: Any, losses: jax.Array, gradients: Any
) -> tuple[Any, Any]:
    """The last weights and state after these gradients, with nothing compiled together."""
    params, opt_state = start, optimizer.init(start)
    with jax.disable_jit():
        for i, loss in enumerate(tqdm(losses, leave=False)):
            gradient = jax.tree.map(lambda leaf, i=i: leaf[i], gradients)
            updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
            params = optax.apply_updates(params, updates)
    return params, opt_state


def same_bits(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def steps_to(mark: float, losses: np.ndarray) -> np.ndarray:
    """Of every run, the steps until its loss is at most `mark`; NaN if it never is."""
    reached = losses <= mark
    return np.where(reached.any(axis=1), reached.argmax(axis=1), np.nan)


def count_steps(seed: int, networks: int, quadratics: int) -> Counts:
    digits_loss, starts = digits_networks(seed, networks)
    keys = jax.random.split(jax.random.key(seed), quadratics)
    counts: Counts = {f"digits, loss {mark}": {name: {} for name in RULES} for mark in MARKS}
    counts[QUADRATIC] = {name: {} for name in RULES}

    runs = [(name, step_dtype) for name in RULES for step_dtype in STEP_DTYPES]
    for name, step_dtype in tqdm(runs, leave=False):
        optimizer = RULES[name](step_dtype=step_dtype)

        def digits_losses(start, optimizer=optimizer):
            return train(optimizer, digits_loss, start, DIGITS_STEPS)[1][0]

        def quadratic_losses(key, optimizer=optimizer):
            return train(optimizer, rotated_quadratic(key), jnp.zeros(20), QUADRATIC_STEPS)[1][0]

        losses = np.asarray(jax.jit(jax.vmap(digits_losses))(starts))
        for mark, loss in MARKS.items():
            counts[f"digits, loss {mark}"][name][step_dtype] = steps_to(loss, losses)
        losses = np.asarray(jax.jit(jax.vmap(quadratic_losses))(keys))
        counts[QUADRATIC][name][step_dtype] = steps_to(QUADRATIC_TARGET, losses)
    return counts


def compare(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """The medians, and the ratio of the pairs: geometric mean, its standard error, and extremes."""
    ratios = counts["bfloat16"] / counts["float32"]
    mean = np.exp(np.log(ratios).mean())
    return {
        **{step_dtype: float(np.median(counts[step_dtype])) for step_dtype in STEP_DTYPES},
        "mean_ratio": float(mean),
        "standard_error": float(mean * np.log(ratios).std(ddof=1) / np.sqrt(len(ratios))),
        "lowest_ratio": float(ratios.min()),
        "highest_ratio": float(ratios.max()),
    }


def check_bits(seed: int) -> dict[str, dict[str, bool]]:
    """Whether a bfloat16 run on digits comes out the same, repeated and operation by operation."""
    loss_of, starts = digits_networks(seed, 1)
    start = jax.tree.map(lambda leaf: leaf[0], starts)
    same = {}
    for name, make in RULES.items():
        optimizer = make(step_dtype="bfloat16")
        once, again = (
            # A new function each time, so that it is compiled each time.
            jax.jit(lambda start, optimizer=optimizer: train(optimizer, loss_of, start, 20))(start)
            for _ in range(2)
        )
        end, (losses, gradients) = once
        operations = replay(optimizer, start, losses, gradients)
        same[name] = {
            "repeated": same_bits(once, again),
            "operation_by_operation": same_bits(end, operations),
        }
    return same


def state_bytes(step_dtype: str) -> float:
    """For each weight of the network, in the state of irprop_minus."""
    params = nnx.state(Network(nnx.Rngs(0)))
    state = optax_rprop.irprop_minus(step_dtype=step_dtype).init(params)
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / weights


def draw(counts: Counts, comparisons: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.5))
    axes.axvline(1, color="black", lw=1, zorder=0)
    for offset, name in zip((-0.2, 0.2), RULES, strict=True):
        steps = [rules[name] for rules in counts.values()]
        ratios = [np.sort(run["bfloat16"] / run["float32"]) for run in steps]
        rows = np.arange(len(counts)) + offset
        # Over the height of a row, so that equal ratios stay apart.
        heights = [
            row + np.linspace(-0.13, 0.13, len(own)) for row, own in zip(rows, ratios, strict=True)
        ]
        style = {"color": COLORS[name], "ms": 5, "mew": 0, "alpha": 0.5, "label": name}
        axes.plot(np.concatenate(ratios), np.concatenate(heights), "o", **style)
        for row, rules in zip(rows, comparisons.values(), strict=True):
            found = rules[name]
            text = f"{found['mean_ratio']:.3f} ± {found['standard_error']:.3f}"
            axes.text(
                1.02,
                row,
                text,
                transform=axes.get_yaxis_transform(),
                va="center",
                color=COLORS[name],
            )
    axes.text(1.02, 1.0, "mean ± standard error", transform=axes.transAxes, va="bottom")
    axes.set_xscale("log")
    ticks = [0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.6]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(counts)), counts)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "steps with bfloat16 step sizes / steps with float32 step sizes, one dot a seed"
    )
    axes.legend(loc="upper right")
    means = [found["mean_ratio"] for rules in comparisons.values() for found in rules.values()]
    figure.suptitle(
        f"Half the state, and {min(means):.2f} to {max(means):.2f} times the steps on average",
        weight="bold",
    )
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    made = parser(__doc__, "step_dtype")
    made.add_argument("--networks", type=positive, default=10, help="seeds on the digits")
    made.add_argument("--quadratics", type=positive, default=100, help="seeds on the quadratic")
    given = made.parse_args(arguments)

    counts = count_steps(given.seed, given.networks, given.quadratics)
    comparisons = {
        problem: {name: compare(runs) for name, runs in rules.items()}
        for problem, rules in counts.items()
    }
    print(
        f"Median steps of {given.networks} networks on the digits and of {given.quadratics} "
        "quadratics of condition 1000, and the\nratio bfloat16 / float32 with the same seed: "
        "geometric mean, standard error and extremes.\n\n"
        f"{'problem':<24}{'rule':<15}{'float32':>8}{'bfloat16':>10}{'mean ratio':>19}{'range':>14}"
    )
    for problem, rules in comparisons.items():
        for name, found in rules.items():
            print(
                f"{problem:<24}{name:<15}{found['float32']:8g}{found['bfloat16']:10g}"
                f"{found['mean_ratio']:11.3f} ± {found['standard_error']:.3f}"
                f"{found['lowest_ratio']:8.2f}-{found['highest_ratio']:.2f}"
            )
    size = {step_dtype: state_bytes(step_dtype) for step_dtype in STEP_DTYPES}
    print("\nState, in bytes a weight: " + ", ".join(f"{k} {v:g}" for k, v in size.items()) + ".")

    bits = check_bits(given.seed)
    for name, same in bits.items():
        repeated, operations = ("same bits" if yes else "OTHER BITS" for yes in same.values())
        print(f"{name}, bfloat16: repeated, {repeated}; operation by operation, {operations}.")
    if given.plot:
        draw(counts, comparisons, given.plot)
    return {"steps": comparisons, "state_bytes": size, "same_bits": bits}


if __name__ == "__main__":
    main()

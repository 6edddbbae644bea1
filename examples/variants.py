"""The four rules and optax.rprop, compared on the iterations that they need.

Two families of problems on which rules differ, both in float64: quadratics in 20
dimensions, rotated at random so that no axis is a principal one, with condition
10, 100 and 1000 (eigenvalues spaced evenly in the logarithm), to a loss of 1e-10;
and Rosenbrock's valley in 5 dimensions to 1e-8. Every seed draws a rotation and a
start from a normal distribution. All methods keep their defaults (first step 0.01,
factors 0.5 and 1.2), but for a min_step_size of 1e-12: the default, 1e-6, would be a
floor on the accuracy.

Rprop moves along the axes, so a rotation is what makes a quadratic hard for it;
conjugate gradients (Hestenes & Stiefel 1952) need 20 iterations on any of these.
Rosenbrock's function has a second minimum near (-1, 1, 1, 1, 1) in 4 to 7 dimensions
(Kok & Sandrock 2009): runs that end there count as above the limit.

The rules: Riedmiller & Braun 1993 (rprop_plus), Riedmiller 1994 (rprop_minus), Igel &
Huesken 2000 (irprop_plus, irprop_minus), who compared the four on neural networks.

Run: python examples/variants.py
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from tqdm import tqdm

import optax_rprop

jax.config.update("jax_enable_x64", True)

LIMIT = 40_000
STEPS = {"learning_rate": 0.01, "min_step_size": 1e-12}
METHODS = {
    "irprop_plus": optax_rprop.irprop_plus(**STEPS),
    "irprop_minus": optax_rprop.irprop_minus(**STEPS),
    "rprop": optax_rprop.rprop(**STEPS),
    "rprop_plus": optax_rprop.rprop_plus(**STEPS),
    "rprop_minus": optax_rprop.rprop_minus(**STEPS),
    "optax.rprop": optax.with_extra_args_support(optax.rprop(**STEPS)),
}
Objective = Callable[[jax.Array], jax.Array]


def rotated_quadratic(key: jax.Array, condition: float) -> tuple[Objective, jax.Array]:
    """A quadratic with random principal axes, and a start."""
    rotation_key, start_key = jax.random.split(key)
    rotation = jax.random.orthogonal(rotation_key, 20)
    eigenvalues = jnp.geomspace(1, condition, 20)
    return lambda x: 0.5 * eigenvalues @ (rotation @ x) ** 2, jax.random.normal(start_key, 20)


def rosenbrock(key: jax.Array) -> tuple[Objective, jax.Array]:
    """Rosenbrock's function in 5 dimensions, and a start."""

    def objective(x: jax.Array) -> jax.Array:
        return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    return objective, jax.random.normal(key, 5)


# What to minimize, and the loss to reach.
PROBLEMS = {
    "quadratic, condition 10": (functools.partial(rotated_quadratic, condition=10), 1e-10),
    "quadratic, condition 100": (functools.partial(rotated_quadratic, condition=100), 1e-10),
    "quadratic, condition 1000": (functools.partial(rotated_quadratic, condition=1000), 1e-10),
    "Rosenbrock": (rosenbrock, 1e-8),
}


def minimize(
    optimizer: optax.GradientTransformationExtraArgs,
    objective: Objective,
    start: jax.Array,
    target: float,
) -> tuple[jax.Array, jax.Array]:
    """Iterations until the loss is at most `target`, or LIMIT; and the last loss."""
    value_and_grad = jax.value_and_grad(objective)

    def unfinished(carry):
        iteration, _, _, value, _ = carry
        return (value > target) & (iteration < LIMIT)

    def iterate(carry):
        iteration, x, opt_state, value, gradient = carry
        updates, opt_state = optimizer.update(gradient, opt_state, x, value=value)
        x = optax.apply_updates(x, updates)
        return iteration + 1, x, opt_state, *value_and_grad(x)

    first = 0, start, optimizer.init(start), *value_and_grad(start)
    iteration, _, _, value, _ = jax.lax.while_loop(unfinished, iterate, first)
    return iteration, value


@functools.partial(jax.jit, static_argnames="problem")
def run_all(problem: str, keys: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """For every method, the iterations and the last loss of every seed."""
    pose, target = PROBLEMS[problem]

    def run_seed(key):
        return {
            name: minimize(optimizer, *pose(key), target) for name, optimizer in METHODS.items()
        }

    return jax.vmap(run_seed)(keys)


def draw(iterations: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    # rprop is irprop_minus: one row serves both.
    names = [name for name in METHODS if name != "rprop"]
    figure, panels = plt.subplots(1, len(PROBLEMS), figsize=(13, 4), sharey=True)
    for panel, (problem, counts) in zip(panels, iterations.items(), strict=True):
        for row, name in enumerate(names):
            reached = counts[name][counts[name] < LIMIT]
            panel.plot(reached, np.full(len(reached), row), "|", color=COLORS[name], ms=11)
            median = np.median(counts[name])
            panel.annotate(f"{median:.0f}", (median, row - 0.22), ha="center", va="bottom")
        panel.set(title=problem, xlabel=f"iterations to a loss of {PROBLEMS[problem][1]:.0e}")
        panel.set_xlim(0, 1.15 * panel.get_xlim()[1])
        panel.grid(visible=False, axis="y")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.6, -0.75)
    figure.suptitle(
        "The harder the problem, the further ahead are the two iRprop rules; they are alike "
        "(one mark a seed that arrived, the median of all above)"
    )
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, dict[str, float]]]:
    options = parser(__doc__, "variants")
    options.add_argument("--seeds", type=positive, default=20, help="starts for each problem")
    options = options.parse_args(arguments)
    keys = jax.random.split(jax.random.key(options.seed), options.seeds)
    iterations, stuck_at = {}, []
    for problem in tqdm(PROBLEMS):
        runs = jax.device_get(run_all(problem, keys))
        iterations[problem] = {name: runs[name][0] for name in METHODS}
        stuck_at += [value for count, value in runs.values() for value in value[count == LIMIT]]

    figures = {
        problem: {
            name: {"median": float(np.median(count)), "reached": int(np.sum(count < LIMIT))}
            for name, count in counts.items()
        }
        for problem, counts in iterations.items()
    }
    print(f"Median iterations of {options.seeds} seeds (in brackets: how many reached the target)")
    print(" " * 14 + "".join(f"{problem:>27}" for problem in PROBLEMS))
    for name in METHODS:
        cells = (figures[problem][name] for problem in PROBLEMS)
        row = (f"{cell['median']:.0f} ({cell['reached']})" for cell in cells)
        print(f"{name:14}" + "".join(f"{cell:>27}" for cell in row))
    if stuck_at:
        print(f"The others ended at losses from {min(stuck_at):.4f} to {max(stuck_at):.4f}.")
    if options.plot:
        draw(iterations, options.plot)
    return figures


if __name__ == "__main__":
    main()

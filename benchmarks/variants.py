"""The rules and optax.rprop, by the iterations that they need.

Two kinds of problems on which rules differ, in float64: quadratics in 20 dimensions, rotated at
random so that no axis is a principal one, with condition 10, 100 and 1000 (eigenvalues evenly
spaced in the logarithm), to a loss of 1e-10; and Rosenbrock's valley in 5 dimensions, to 1e-8.
Every seed draws a rotation and a start. All is at its default, but for min_step_size: 1e-6 would be
a floor on the accuracy. Conjugate gradients need 20 iterations on any of the quadratics.
Rosenbrock's function has a second minimum near (-1, 1, 1, 1, 1) (Kok & Sandrock 2009): runs that
end there never reach the target.
"""

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import COLORS, arguments, count_iterations, finish
from tqdm import tqdm

import optax_rprop

jax.config.update("jax_enable_x64", True)

METHODS = {
    "irprop_plus": optax_rprop.irprop_plus(min_step_size=1e-12),
    "irprop_minus": optax_rprop.irprop_minus(min_step_size=1e-12),
    "rprop_plus": optax_rprop.rprop_plus(min_step_size=1e-12),
    "rprop_minus": optax_rprop.rprop_minus(min_step_size=1e-12),
    "optax.rprop": optax.rprop(0.01, min_step_size=1e-12),
}


def draw_quadratic(key):
    """A rotation and a start."""
    rotation_key, start_key = jax.random.split(key)
    return jax.random.orthogonal(rotation_key, 20), jax.random.normal(start_key, 20)


def quadratic(condition, rotation, x):
    eigenvalues = condition ** jnp.linspace(0, 1, 20)
    return 0.5 * eigenvalues @ (rotation @ x) ** 2


def draw_rosenbrock(key):
    return None, jax.random.normal(key, 5)


def rosenbrock(condition, rotation, x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


PROBLEMS = {  # what is drawn from a key, the function, its condition, the loss to reach
    "quadratic, condition 10": (draw_quadratic, quadratic, 10.0, 1e-10),
    "quadratic, condition 100": (draw_quadratic, quadratic, 100.0, 1e-10),
    "quadratic, condition 1000": (draw_quadratic, quadratic, 1000.0, 1e-10),
    "Rosenbrock": (draw_rosenbrock, rosenbrock, 0.0, 1e-8),
}


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0, None, None))
def run(name, function, condition, rotation, start, target, limit):
    """The iterations until the loss is at the target, and the last loss."""
    objective = functools.partial(function, condition, rotation)
    return count_iterations(METHODS[name], objective, start, target, limit)


def main():
    options = arguments(
        __doc__, seeds=(20, "starts for each problem"), limit=(40_000, "iterations at most")
    )
    keys = jax.random.split(jax.random.key(0), options.seeds)
    figure, panels = plt.subplots(1, 4, figsize=(13, 3.6), sharey=True, layout="constrained")
    numbers = {problem: {} for problem in PROBLEMS}
    print(f"Median iterations of {options.seeds} seeds (in brackets: how many reached the target)")
    for panel, (problem, found) in zip(panels, tqdm(numbers.items(), leave=False), strict=True):
        draw, function, condition, target = PROBLEMS[problem]
        drawn = jax.vmap(draw)(keys)
        cells = []
        for row, name in enumerate(METHODS):
            count, last = run(name, function, condition, *drawn, target, options.limit)
            count, last = np.asarray(count), np.asarray(last)
            reached = count[last <= target]
            median = np.median(count)
            found[name] = {
                "iterations": count.tolist(),
                "median": median,
                "reached": len(reached),
                "last": last.tolist(),
            }
            cells.append(f"{name} {median:.0f} ({len(reached)})")
            panel.plot(reached, np.full(len(reached), row), "|", color=COLORS[name], ms=11)
            panel.annotate(f"{median:.0f}", (median, row - 0.22), ha="center", va="bottom")
        tqdm.write(f"{problem:27}" + "   ".join(cells))
        panel.set(title=problem, xlabel=f"iterations to a loss of {target:.0e}")
        panel.set_xlim(0, 1.15 * panel.get_xlim()[1])
    panels[0].set_yticks(range(len(METHODS)), METHODS)
    panels[0].set_ylim(len(METHODS) - 0.6, -0.75)
    finish(options, numbers, figure)


if __name__ == "__main__":
    main()

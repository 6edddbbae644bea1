"""What bfloat16 step sizes cost in steps, beside float32 ones.

Rprop's state is one number for each weight: 4 bytes for a float32 weight, or 2 with
step_dtype="bfloat16", which rounds step sizes to 8 significant bits. The steps are counted for two
rules at their defaults, with float32 weights, and runs with the same seed are compared in pairs:

- a network on scikit-learn's digits, full batch, to training losses of 1e-2 and 1e-4;
- a quadratic in 20 dimensions, rotated at random, condition 1000, to a loss of 1e-6. Its minimum is
  not 0, where floats lie closest and would flatter float32 weights.
"""

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from tqdm import tqdm

import optax_rprop
from _common import COLORS, apply_network, arguments, count_iterations, finish, init_network

OPTIMIZERS = {  # with float32 step sizes, and with bfloat16
    "irprop_minus": [optax_rprop.irprop_minus(step_dtype=own) for own in ("float32", "bfloat16")],
    "irprop_plus": [optax_rprop.irprop_plus(step_dtype=own) for own in ("float32", "bfloat16")],
}


@functools.partial(jax.jit, static_argnums=(0, 1))
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, 0))
def count(optimizer, loss, target, params, data):
    loss = functools.partial(loss, data)
    return count_iterations(optimizer, loss, params, target, limit=10_000)[0]


def main():
    options = arguments(
        __doc__,
        networks=(10, "seeds on the digits"),
        quadratics=(100, "seeds on the quadratic"),
    )
    scans, digits = load_digits(return_X_y=True)
    scans = jnp.asarray(scans / 16, jnp.float32)

    def draw_network(key):
        return init_network(key, 64, 128, 10), None

    def network(_, params):
        scores = apply_network(params, scans)
        return optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean()

    def draw_quadratic(key):
        rotation_key, minimum_key = jax.random.split(key)
        rotation = jax.random.orthogonal(rotation_key, 20)
        return jnp.zeros(20), (rotation, jax.random.normal(minimum_key, 20))

    def quadratic(data, x):
        rotation, minimum = data
        return 0.5 * jnp.geomspace(1, 1000, 20) @ (rotation @ (x - minimum)) ** 2

    problems = {
        "digits, loss 1e-2": (draw_network, network, 1e-2, options.networks),
        "digits, loss 1e-4": (draw_network, network, 1e-4, options.networks),
        "quadratic, loss 1e-6": (draw_quadratic, quadratic, 1e-6, options.quadratics),
    }
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    axes.axvline(1, color="black", lw=1, zorder=0)
    numbers = {}
    print(f"{'':22}{'':14}{'median steps':>20}{'bfloat16 / float32 of pairs':>36}")
    print(f"{'':22}{'':14}{'float32':>10}{'bfloat16':>10}{'mean':>22}{'range':>14}")
    for i, (problem, (draw, loss, target, seeds)) in enumerate(tqdm(problems.items(), leave=False)):
        drawn = jax.vmap(draw)(jax.random.split(jax.random.key(0), seeds))
        for name, pair in OPTIMIZERS.items():
            steps = [np.asarray(count(optimizer, loss, target, *drawn)) for optimizer in pair]
            medians = [float(np.median(own)) for own in steps]
            ratios = steps[1] / steps[0]
            mean = np.exp(np.log(ratios).mean())
            error = mean * np.log(ratios).std(ddof=1) / np.sqrt(seeds)
            tqdm.write(
                f"{problem:22}{name:14}{medians[0]:10g}{medians[1]:10g}"
                f"{f'{mean:.3f} ± {error:.3f}':>22}{ratios.min():8.2f}-{ratios.max():.2f}"
            )
            numbers[f"{problem}, {name}"] = {
                "float32": steps[0].tolist(),
                "bfloat16": steps[1].tolist(),
                "mean_ratio": mean,
                "standard_error": error,
            }
            row = i + (-0.2 if name == "irprop_minus" else 0.2)
            heights = row + np.linspace(-0.13, 0.13, seeds)  # so that equal ratios stay apart
            style = {"color": COLORS[name], "ms": 5, "mew": 0, "alpha": 0.5}
            axes.plot(np.sort(ratios), heights, "o", label=None if i else name, **style)
            where = axes.get_yaxis_transform()
            text = f"{mean:.3f} ± {error:.3f}"
            axes.text(1.02, row, text, transform=where, va="center", color=COLORS[name])
    axes.text(1.02, -0.6, "mean ± standard error", transform=where, va="bottom")
    axes.set_yticks(range(len(problems)), problems)
    axes.set_ylim(len(problems) - 0.5, -0.5)
    axes.set_xlabel("steps with bfloat16 step sizes / with float32 step sizes, one dot a seed")
    axes.legend(loc="upper right")
    finish(options, numbers, figure)


if __name__ == "__main__":
    main()

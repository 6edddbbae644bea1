"""Rprop's variants and others on digits by batch size: Rprop needs the full batch.

A network with 32 hidden units learns scikit-learn's digits from batches of 32, 128, 512 and all
scans, for the same number of steps: Rprop's variants, RMSprop, Adagrad and Adam, each at the
learning rate of a grid that gives the lowest training loss. (That is not yet the best network: mind
the test accuracies.)
"""

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import optax_rprop
from _common import COLORS, apply_network, arguments, finish, init_network

OPTIMIZERS = {
    "rprop_momentum": optax_rprop.rprop_momentum,
    "the same, eta_minus 0.7": functools.partial(optax_rprop.rprop_momentum, eta_minus=0.7),
    "irprop_minus": optax_rprop.irprop_minus,
    "irprop_plus": optax_rprop.irprop_plus,
    "rprop_plus": optax_rprop.rprop_plus,
    "rprop_minus": optax_rprop.rprop_minus,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
}
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# A scan's loss in float32 is rounded to about this: a mean below it is reported as this.
SMALLEST_LOSS = float(jnp.finfo(jnp.float32).eps)


def main():
    options = arguments(__doc__, steps=(200, "steps of each training"))
    scans, labels = load_digits(return_X_y=True)
    scans, test_scans, labels, test_labels = map(
        jnp.asarray,
        train_test_split(
            np.float32(scans / 16), labels, test_size=0.2, stratify=labels, random_state=0
        ),
    )
    sizes = np.array([32, 128, 512, len(labels)])
    # Each row orders all scans at random; the first of them are the batch, the others have weight
    # 0. So batches of all sizes have one shape, and are compiled once.
    ranks = np.tile(np.arange(len(labels)), (options.steps, 1))
    ranks = np.random.default_rng(0).permuted(ranks, axis=1)

    start = init_network(jax.random.key(0), 64, 32, 10)

    def loss(params, weights):
        scores = apply_network(params, scans)
        return weights @ optax.softmax_cross_entropy_with_integer_labels(scores, labels)

    def train(optimizer, size, ranks):
        """The loss on all training scans at the end, and the test accuracy."""
        optimizer = optax.with_extra_args_support(optimizer)

        def step(carry, ranks):
            params, opt_state = carry
            value, gradient = jax.value_and_grad(loss)(params, (ranks < size) / size)
            updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
            return (optax.apply_updates(params, updates), opt_state), None

        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), ranks)
        accuracy = jnp.mean(apply_network(params, test_scans).argmax(axis=1) == test_labels)
        return loss(params, jnp.full(len(labels), 1 / len(labels))), accuracy

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    numbers = {}
    print(f"Training loss (test accuracy) after {options.steps} steps, by batch size:")
    print(" " * 24 + "".join(f"{size:>18}" for size in (*sizes[:-1], f"all {sizes[-1]}")))
    for name, make in tqdm(OPTIMIZERS.items(), leave=False):
        runs = tuple(map(jnp.ravel, jnp.meshgrid(jnp.array(RATES), sizes)))
        found = jax.jit(
            lambda ranks, runs, make=make: jax.lax.map(
                lambda run: train(make(run[0]), run[1], ranks), runs
            )
        )(ranks, runs)
        losses, accuracies = (np.asarray(own).reshape(len(sizes), len(RATES)) for own in found)
        best = np.nanargmin(losses, axis=1)
        losses, accuracies = (own[range(len(sizes)), best] for own in (losses, accuracies))
        losses = np.maximum(losses, SMALLEST_LOSS)
        cells = (f"{a:.1e} ({b:.1%})" for a, b in zip(losses, accuracies, strict=True))
        tqdm.write(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))
        numbers[name] = {
            "learning_rates": [RATES[i] for i in best],
            "losses": losses.tolist(),
            "accuracies": accuracies.tolist(),
        }
        style = "o--" if name == "rprop_plus" else "o-"  # so that irprop_plus is seen below it
        axes.loglog(sizes, losses, style, ms=4, color=COLORS[name], label=name)
    axes.axhline(SMALLEST_LOSS, color="black", lw=0.8, ls=":")
    axes.text(sizes[0], 1.3 * SMALLEST_LOSS, "zero, in float32", va="bottom")
    axes.set_xticks(sizes, [*map(str, sizes[:-1]), f"all {sizes[-1]}"])
    axes.minorticks_off()
    axes.set(xlabel="batch size", ylabel=f"training loss after {options.steps} steps")
    axes.set_title("Digits, each at its best learning rate")
    figure.legend(loc="outside right center")
    finish(options, numbers, figure)


if __name__ == "__main__":
    main()

"""Adaptive gains on mini-batches: RMSprop and Adam, alone and with a gain for every weight.

A network with 32 hidden units learns scikit-learn's digits, breast cancer and diabetes from batches
of 32. For each learning rate of a grid the loss of the batches is averaged over the run and over
the seeds, so that fast and steady learning both count, and the best learning rates are compared.
Gains do not always help: with --steps 2000, Adam alone is better on digits. Then Hinton's stream of
nine gradients of +0.1 for each one of -0.9, on which a weight should stay.
"""

import functools
import inspect
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from tqdm import tqdm

from _common import COLORS, apply_network, arguments, finish, init_network
from optax_rprop.contrib import scale_by_adaptive_gains

GAINS = {  # what is given to scale_by_adaptive_gains; held at 1, gains change nothing
    "alone": {"min_gain": 1.0, "max_gain": 1.0},
    "with gains": {},
    "Hinton's factor": {"decrease": 0.95},
    "longer average": {"average_decay": 0.99},
}
PARAMETERS = inspect.signature(scale_by_adaptive_gains).parameters.values()
ROWS = {p.name: np.array([g.get(p.name, p.default) for g in GAINS.values()]) for p in PARAMETERS}
DIRECTIONS = {"rmsprop": optax.scale_by_rms, "adam": optax.scale_by_adam}
RATES = np.array([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2], np.float32)


def tasks():
    """Inputs of about unit scale, targets, the number of outputs and the loss of each row."""

    def standard(x):
        return jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0), jnp.float32)

    def squared_error(outputs, targets):
        return (outputs[:, 0] - targets) ** 2

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    scans, digits = load_digits(return_X_y=True)
    cells, malignant = load_breast_cancer(return_X_y=True)
    patients, progress = load_diabetes(return_X_y=True)
    return {
        "digits": (jnp.asarray(scans / 16, jnp.float32), jnp.asarray(digits), 10, cross_entropy),
        "breast cancer": (standard(cells), jnp.asarray(malignant), 2, cross_entropy),
        "diabetes": (standard(patients), standard(progress), 1, squared_error),
    }


def optimizer(direction, gains, rate):
    return optax.chain(
        DIRECTIONS[direction](),
        scale_by_adaptive_gains(**gains),
        optax.scale_by_learning_rate(rate),
    )


def draw(task, steps, key):
    """A network, and a batch for each step."""
    inputs, _, outputs, _ = task
    init_key, batch_key = jax.random.split(key)
    batch = jax.vmap(lambda key: jax.random.randint(key, (32,), 0, len(inputs)))
    network = init_network(init_key, inputs.shape[1], 32, outputs)
    return network, batch(jax.random.split(batch_key, steps))


def mean_losses(direction, task, drawn):
    """For each of GAINS and RATES: the loss of the batches, averaged over the run and the draws."""
    inputs, targets, _, loss_of = task

    def run(gains, rate, drawn):
        made = optimizer(direction, gains, rate)
        params, batches = drawn

        def step(carry, batch):
            params, opt_state = carry
            loss, gradient = jax.value_and_grad(
                lambda params: loss_of(apply_network(params, inputs[batch]), targets[batch]).mean()
            )(params)
            updates, opt_state = made.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        return jax.lax.scan(step, (params, made.init(params)), batches)[1].mean()

    run = jax.vmap(jax.vmap(jax.vmap(run, (None, None, 0)), (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(run)(ROWS, RATES, drawn)).mean(axis=2)


def drift(direction):
    """The weight after each of a thousand of Hinton's gradients, from 0, for each of GAINS."""

    def path(gains):
        made = optimizer(direction, gains, 0.1)

        def step(carry, gradient):
            weight, opt_state = carry
            update, opt_state = made.update(gradient, opt_state, weight)
            weight = optax.apply_updates(weight, update)
            return (weight, opt_state), weight

        start = jnp.zeros(()), made.init(jnp.zeros(()))
        return jax.lax.scan(step, start, jnp.array(([0.1] * 9 + [-0.9]) * 100))[1]

    return np.asarray(jax.jit(jax.vmap(path))(ROWS))


def main():
    options = arguments(
        __doc__, steps=(500, "steps of each training"), seeds=(4, "trainings at each rate")
    )
    keys = jax.random.split(jax.random.key(0), options.seeds)
    losses = {}  # by task and direction
    for name, task in tqdm(tasks().items(), desc="tasks", leave=False):
        drawn = jax.vmap(functools.partial(draw, task, options.steps))(keys)
        losses[name] = {own: mean_losses(own, task, drawn) for own in DIRECTIONS}
    drifts = {direction: drift(direction) for direction in DIRECTIONS}

    print(f"Loss of the batches, mean of {options.steps} steps and {options.seeds} seeds, at the")
    print("best learning rate (in brackets), and its change; Hinton's stream after 200 and 1000:")
    print(" " * 25 + "".join(f"{head:>23}" for head in [*losses, "stream"]))
    numbers = {}
    for direction, (i, gains) in itertools.product(DIRECTIONS, enumerate(GAINS)):
        cells, found = [], {"drift": drifts[direction][i, [199, 999]].tolist()}
        for task, of_task in losses.items():
            lowest = np.nanmin(of_task[direction], axis=1)
            found[task] = float(lowest[i])
            change = f"{lowest[i] / lowest[0] - 1:+.0%}" if i else ""
            rate = f"({RATES[np.nanargmin(of_task[direction][i])]:g})"
            cells.append(f"{lowest[i]:.4f} {change:>5} {rate:>7}")
        cells.append("{:.3f} {:.3f}".format(*found["drift"]))
        print(f"{f'{direction}, {gains}':25}" + "".join(f"{cell:>23}" for cell in cells))
        numbers[f"{direction}, {gains}"] = found

    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    for direction, i in itertools.product(DIRECTIONS, (0, 1)):
        look = {"color": COLORS[direction], "ls": "-" if i else "--"}
        for axis, (task, of_task) in zip(axes.flat, losses.items(), strict=False):
            axis.semilogx(RATES, of_task[direction][i], **look)
            axis.set_ylim(0, 3 * np.nanmin(of_task["rmsprop"][0]))
            axis.set(xlabel="learning rate", ylabel="mean loss of the batches", title=task)
        label = f"{direction}, {list(GAINS)[i]}"
        axes[1, 1].plot(range(10, 1001, 10), drifts[direction][i, 9::10], label=label, **look)
    axes[1, 1].set(xlabel="mini-batch", ylabel="weight", title="nine of +0.1 to one of -0.9")
    figure.legend(loc="outside lower center", ncols=4)
    finish(options, numbers, figure)


if __name__ == "__main__":
    main()

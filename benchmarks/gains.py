"""Adaptive gains on mini-batches: RMSprop and Adam, each alone and with a gain for every weight.

Rprop itself fails on mini-batches (see minibatch.py). Its idea, a rate for every weight that
follows agreement in sign, does not: Jacobs (1988, delta-bar-delta) compares each gradient with a
running average, and Hinton (2012, "Neural networks for machine learning", lecture 6d) adds 0.05 to
a gain when they agree and multiplies it by 0.95 when they do not. `scale_by_adaptive_gains` does
so with the updates of any direction; its default factor is 0.8.

A network with one hidden layer learns scikit-learn's digits, breast cancer and diabetes, from
batches of 32. For each learning rate of a grid, the loss of the batches is averaged over the run
and over the seeds, so that fast and steady learning both count; the tables compare the best
learning rates. It does not always help: with --steps 2000, Adam does better without on digits,
unless the average is longer. Then Hinton's stream, which shows Rprop's drift: nine gradients of
+0.1 for each one of -0.9, on which a weight should stay. Gains let RMSprop start further from 0,
as all of the first nine gradients agree, and drift more slowly from there.

    python examples/gains.py
"""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from jax import lax
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from tqdm import tqdm

import optax_rprop

# What is given to scale_by_adaptive_gains. Held at 1, gains leave a direction as it is.
GAINS = {
    "alone": {"min_gain": 1.0, "max_gain": 1.0},
    "with gains": {},
    "Hinton's factor": {"decrease": 0.95},
    "longer average": {"average_decay": 0.99},
}
DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(optax_rprop.scale_by_adaptive_gains).parameters.items()
}
DIRECTIONS = {"rmsprop": optax.scale_by_rms, "adam": optax.scale_by_adam}
LEARNING_RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2)
HIDDEN = 32
BATCH_SIZE = 32
ROUND = (0.1,) * 9 + (-0.9,)
ROUNDS = 100
STREAM_STEPS = (50, 200, 1000)
STREAM_LEARNING_RATE = 0.1


class Task(NamedTuple):
    """What to learn: inputs of about unit scale, their labels or numbers, and the loss."""

    inputs: jax.Array
    targets: jax.Array
    outputs: int
    loss: Callable


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.square(outputs[:, 0] - targets)


def tasks() -> dict[str, Task]:
    def standard(x):
        return jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0), jnp.float32)

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    scans, digits = load_digits(return_X_y=True)
    cells, malignant = load_breast_cancer(return_X_y=True)
    patients, progress = load_diabetes(return_X_y=True)
    return {
        "digits": Task(
            jnp.asarray(scans / 16, jnp.float32), jnp.asarray(digits), 10, cross_entropy
        ),
        "breast cancer": Task(standard(cells), jnp.asarray(malignant), 2, cross_entropy),
        "diabetes": Task(standard(patients), standard(progress), 1, squared_error),
    }


def init(key: jax.Array, task: Task) -> dict[str, jax.Array]:
    keys = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "hidden_weight": glorot(keys[0], (task.inputs.shape[1], HIDDEN)),
        "hidden_bias": jnp.zeros(HIDDEN),
        "weight": glorot(keys[1], (HIDDEN, task.outputs)),
        "bias": jnp.zeros(task.outputs),
    }


def optimizer(direction: Callable, gains: dict, learning_rate) -> optax.GradientTransformation:
    return optax.chain(
        direction(),
        optax_rprop.scale_by_adaptive_gains(**gains),
        optax.scale_by_learning_rate(learning_rate),
    )


def train(direction, gains, learning_rate, key, task: Task, steps: int) -> jax.Array:
    """The loss of each batch, before the step that it makes."""
    made = optimizer(direction, gains, learning_rate)
    init_key, batch_key = jax.random.split(key)

    def loss(params, inputs, targets):
        hidden = jnp.tanh(inputs @ params["hidden_weight"] + params["hidden_bias"])
        return task.loss(hidden @ params["weight"] + params["bias"], targets).mean()

    def step(carry, key):
        params, opt_state = carry
        batch = jax.random.randint(key, (BATCH_SIZE,), 0, len(task.inputs))
        batch_loss, gradient = jax.value_and_grad(loss)(
            params, task.inputs[batch], task.targets[batch]
        )
        updates, opt_state = made.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), batch_loss

    params = init(init_key, task)
    return lax.scan(step, (params, made.init(params)), jax.random.split(batch_key, steps))[1]


def mean_losses(direction, task: Task, keys: jax.Array, steps: int) -> np.ndarray:
    """For each of GAINS and LEARNING_RATES: the loss, its mean over the run and the keys.

    One compilation, and all runs at the same time.
    """
    whole = [DEFAULTS | given for given in GAINS.values()]
    rows = {name: jnp.array([row[name] for row in whole]) for name in DEFAULTS}

    def mean_loss(gains, learning_rate, key):
        return train(direction, gains, learning_rate, key, task, steps).mean()

    of_keys = jax.vmap(mean_loss, (None, None, 0))
    of_rates = jax.vmap(of_keys, (None, 0, None))
    of_rows = jax.jit(jax.vmap(of_rates, (0, None, None)))
    return np.asarray(of_rows(rows, jnp.array(LEARNING_RATES), keys)).mean(axis=2)


def drift(made: optax.GradientTransformation) -> np.ndarray:
    """The weight after each gradient of the stream, from 0."""

    def step(carry, gradient):
        weight, opt_state = carry
        update, opt_state = made.update(gradient, opt_state, weight)
        weight = optax.apply_updates(weight, update)
        return (weight, opt_state), weight

    start = jnp.zeros(())
    return np.asarray(lax.scan(step, (start, made.init(start)), jnp.array(ROUND * ROUNDS))[1])


def draw(losses: dict[str, dict], drifts: dict[str, dict], file: Path) -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), dpi=90)
    styles = {"alone": {"ls": "--", "lw": 1.2}, "with gains": {"ls": "-", "lw": 2}}
    for axis, (task, of_directions) in zip(axes.flat, losses.items(), strict=False):
        for direction, of_gains in of_directions.items():
            for gains, style in styles.items():
                axis.semilogx(LEARNING_RATES, of_gains[gains], color=COLORS[direction], **style)
                best = summary(of_gains[gains])
                axis.plot(best["learning_rate"], best["loss"], "o", ms=5, color=COLORS[direction])
        axis.set_ylim(0, 3 * of_directions["rmsprop"]["alone"].min())
        axis.set(xlabel="learning rate", ylabel="mean loss of the batches", title=task)

    stream = axes.flat[-1]
    for direction, of_gains in drifts.items():
        for gains, style in styles.items():
            rounds = of_gains[gains][len(ROUND) - 1 :: len(ROUND)]
            steps = len(ROUND) * np.arange(1, ROUNDS + 1)
            label = f"{direction}, {gains}"
            stream.plot(steps, rounds, color=COLORS[direction], label=label, **style)
    stream.set(
        xlabel="mini-batch",
        ylabel=f"weight, at learning rate {STREAM_LEARNING_RATE}",
        title="nine of +0.1 to one of -0.9: it should stay",
    )
    figure.suptitle("A gain for every weight lowers the best loss, and slows the drift of RMSprop")
    figure.legend(*stream.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save(figure, file)


def summary(losses: np.ndarray) -> dict[str, float]:
    """The lowest of the losses of LEARNING_RATES. A run that diverged has NaN."""
    best = np.nanargmin(losses)
    return {"learning_rate": LEARNING_RATES[best], "loss": float(losses[best])}


def print_tables(found: dict[str, dict], stream: dict[str, dict], steps: int, seeds: int) -> None:
    print(
        f"Loss of the batches, its mean over {steps} steps and {seeds} seeds, at the best learning"
    )
    print("rate (in parentheses), and its change from the direction alone:")
    print(" " * 25 + "".join(f"{task:>23}" for task in found))
    for direction in DIRECTIONS:
        for gains in GAINS:
            cells = []
            for of_directions in found.values():
                best, alone = of_directions[direction][gains], of_directions[direction]["alone"]
                change = f"{best['loss'] / alone['loss'] - 1:+.0%}" if best is not alone else ""
                rate = f"({best['learning_rate']:g})"
                cells.append(f"{best['loss']:.4f} {change:>5} {rate:>7}")
            print(f"{f'{direction}, {gains}':25}" + "".join(f"{cell:>23}" for cell in cells))

    print("\nA weight, from 0, after so many gradients, nine of +0.1 for each one of -0.9, at a")
    print(f"learning rate of {STREAM_LEARNING_RATE}:")
    print(" " * 25 + "".join(f"{count:>23}" for count in STREAM_STEPS))
    for direction, of_gains in stream.items():
        for gains, weights in of_gains.items():
            cells = "".join(f"{weights[str(count)]:23.3f}" for count in STREAM_STEPS)
            print(f"{f'{direction}, {gains}':25}{cells}")


def main(arguments: Sequence[str] | None = None) -> dict[str, dict]:
    made = parser(__doc__, "gains")
    made.add_argument("--steps", type=positive, default=500, help="of each training")
    made.add_argument("--seeds", type=positive, default=4, help="trainings at each learning rate")
    given = made.parse_args(arguments)

    keys = jax.random.split(jax.random.key(given.seed), given.seeds)
    losses: dict[str, dict] = {}
    for name, task in tqdm(tasks().items(), desc="tasks", leave=False):
        losses[name] = {}
        for direction, make in DIRECTIONS.items():
            of_gains = mean_losses(make, task, keys, given.steps)
            losses[name][direction] = dict(zip(GAINS, of_gains, strict=True))
    drifts = {
        direction: {
            name: drift(optimizer(make, gains, STREAM_LEARNING_RATE))
            for name, gains in GAINS.items()
        }
        for direction, make in DIRECTIONS.items()
    }

    found = {
        task: {
            direction: {name: summary(of_rates) for name, of_rates in of_gains.items()}
            for direction, of_gains in of_directions.items()
        }
        for task, of_directions in losses.items()
    }
    stream = {
        direction: {
            name: {str(count): float(weights[count - 1]) for count in STREAM_STEPS}
            for name, weights in of_gains.items()
        }
        for direction, of_gains in drifts.items()
    }
    print_tables(found, stream, given.steps, given.seeds)
    if given.plot:
        draw(losses, drifts, given.plot)
    return {"losses": found, "stream": stream}


if __name__ == "__main__":
    main()

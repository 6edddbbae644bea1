"""When not to use Rprop: on mini-batches, whose noise changes the gradient's sign.

First, the example with which Hinton explained it, in lecture 6e of "Neural networks for machine
learning" (2012): a weight gets a gradient of +0.1 from nine mini-batches and of -0.9 from the
tenth. They sum to zero, and the weight should stay. Rprop sees nine steps one way and one the
other, at a step size that grows meanwhile, and drifts; so does every variant. RMSprop, which came
of this, divides all ten by one running average, and all but stays: it creeps, for the average
fades within the ten.

Then a network on scikit-learn's digits, with batches of 32, 128, 512 and all scans, for the same
number of steps: Rprop's variants beside RMSprop, Adagrad (Duchi, Hazan & Singer 2011) and Adam
(Kingma & Ba 2015), each at the learning rate of a grid that gives the lowest training loss. (That
is not yet the best network: mind the test accuracies.)

    python examples/minibatch.py
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from jax import lax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import optax_rprop

ROUND = (0.1,) * 9 + (-0.9,)
ROUNDS = 20
OPTIMIZERS = {
    "irprop_minus": optax_rprop.irprop_minus,
    "irprop_plus": optax_rprop.irprop_plus,
    "rprop_plus": optax_rprop.rprop_plus,
    "rprop_minus": optax_rprop.rprop_minus,
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "adam": optax.adam,
}
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
HIDDEN = 32
# A scan's loss in float32 is rounded to about this: a mean below it is reported as this.
SMALLEST_LOSS = float(jnp.finfo(jnp.float32).eps)


class Digits(NamedTuple):
    """Scans, their pixels in [0, 1], and the digits that they show."""

    train_scans: jax.Array
    train_labels: jax.Array
    test_scans: jax.Array
    test_labels: jax.Array


def drift(optimizer: optax.GradientTransformation) -> np.ndarray:
    """The weight after each gradient of the stream, from 0."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, gradient):
        weight, opt_state = carry
        loss = gradient * weight  # the linear loss that has this gradient, for irprop_plus
        update, opt_state = optimizer.update(gradient, opt_state, weight, value=loss)
        weight = optax.apply_updates(weight, update)
        return (weight, opt_state), weight

    start = jnp.zeros(())
    return np.asarray(lax.scan(step, (start, optimizer.init(start)), jnp.array(ROUND * ROUNDS))[1])


def load(seed: int) -> Digits:
    scans, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        np.float32(scans / 16), labels, test_size=0.2, stratify=labels, random_state=seed
    )
    train_scans, test_scans, train_labels, test_labels = map(jnp.asarray, parts)
    return Digits(train_scans, train_labels, test_scans, test_labels)


def init(key: jax.Array) -> dict[str, jax.Array]:
    keys = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "hidden_weight": glorot(keys[0], (64, HIDDEN)),
        "hidden_bias": jnp.zeros(HIDDEN),
        "weight": glorot(keys[1], (HIDDEN, 10)),
        "bias": jnp.zeros(10),
    }


def logits(params: dict[str, jax.Array], scans: jax.Array) -> jax.Array:
    hidden = jnp.tanh(scans @ params["hidden_weight"] + params["hidden_bias"])
    return hidden @ params["weight"] + params["bias"]


def train(
    optimizer: optax.GradientTransformation,
    batch_size: jax.Array,
    ranks: jax.Array,
    params: dict[str, jax.Array],
    digits: Digits,
) -> tuple[jax.Array, jax.Array]:
    """The loss on all training scans and the test accuracy, after a step for each row of ranks.

    A row orders the training scans at random; the first batch_size are the batch. All others
    have weight 0: so batches of all sizes have one shape, and one compilation serves them.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def loss(params, weights):
        losses = optax.softmax_cross_entropy_with_integer_labels(
            logits(params, digits.train_scans), digits.train_labels
        )
        return weights @ losses

    def step(carry, ranks):
        params, opt_state = carry
        weights = (ranks < batch_size) / batch_size
        value, gradient = jax.value_and_grad(loss)(params, weights)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
        return (optax.apply_updates(params, updates), opt_state), None

    (params, _), _ = lax.scan(step, (params, optimizer.init(params)), ranks)
    train_size = len(digits.train_labels)
    accuracy = jnp.mean(logits(params, digits.test_scans).argmax(axis=1) == digits.test_labels)
    return loss(params, jnp.full(train_size, 1 / train_size)), accuracy


def best_of_grid(
    factory: Callable,
    batch_sizes: Sequence[int],
    ranks: np.ndarray,
    params: dict[str, jax.Array],
    digits: Digits,
) -> dict[str, dict[str, float]]:
    """For each batch size, the learning rate with the lowest training loss, and what it gives."""

    @jax.jit
    def train_all(ranks, params, digits):
        rates, sizes = jnp.meshgrid(jnp.array(LEARNING_RATES), jnp.array(batch_sizes))
        runs = rates.ravel(), sizes.ravel()
        return lax.map(lambda run: train(factory(run[0]), run[1], ranks, params, digits), runs)

    found = {}
    shape = len(batch_sizes), len(LEARNING_RATES)
    losses, accuracies = (np.reshape(x, shape) for x in train_all(ranks, params, digits))
    for size, loss, accuracy in zip(batch_sizes, losses, accuracies, strict=True):
        best = np.nanargmin(loss)
        found[str(size)] = {
            "learning_rate": LEARNING_RATES[best],
            "loss": max(float(loss[best]), SMALLEST_LOSS),
            "accuracy": float(accuracy[best]),
        }
    return found


def draw(stream: dict[str, np.ndarray], digits: dict[str, dict], steps: int, file: Path) -> None:
    figure, (drifts, losses) = plt.subplots(1, 2, figsize=(10, 4.2))
    styles = {name: {"color": COLORS[name]} for name in stream}
    styles["rprop_plus"]["ls"] = "--"  # so that irprop_plus is seen, which drifts alike
    for name, weights in stream.items():
        drifts.plot(np.arange(1, len(weights) + 1), weights, **styles[name])
    drifts.set_yscale("symlog", linthresh=1)
    drifts.set(
        xlabel="mini-batch",
        ylabel="weight (linear in [-1, 1], else logarithmic)",
        title="9 gradients of +0.1, 1 of -0.9: Rprop drifts",
    )

    for name, of_sizes in digits.items():
        sizes = [int(size) for size in of_sizes]
        found = [of_size["loss"] for of_size in of_sizes.values()]
        losses.loglog(sizes, found, "o-", ms=4, **styles[name])
    losses.axhline(SMALLEST_LOSS, color="black", lw=0.8, ls=":")
    losses.text(sizes[0], 1.2 * SMALLEST_LOSS, "zero, in float32", va="bottom")
    losses.set_xticks(sizes, [*map(str, sizes[:-1]), f"all {sizes[-1]}"])
    losses.minorticks_off()
    losses.set(
        xlabel="batch size, in scans",
        ylabel=f"training loss after {steps} steps",
        title="Digits: Rprop needs the full batch",
    )
    handles = [plt.Line2D([], [], label=name, **styles[name]) for name in stream]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    save(figure, file)


def print_tables(stream: dict[str, float], digits: dict[str, dict], steps: int) -> None:
    print(f"A weight, from 0, after {ROUNDS} times nine gradients of +0.1 and one of -0.9, at a")
    print("learning rate of 0.1, which is Rprop's first step size:")
    for name, end in stream.items():
        print(f"{name:14}{end:12.4g}")

    print(
        f"\nDigits: training loss (test accuracy) after {steps} steps, by batch size, each at the"
    )
    print(f"learning rate of {', '.join(map(str, LEARNING_RATES))} with the lowest training loss:")
    *batches, all_scans = digits["adam"]
    print(" " * 14 + "".join(f"{size:>18}" for size in (*batches, f"all {all_scans}")))
    for name, of_sizes in digits.items():
        cells = (f"{found['loss']:.1e} ({found['accuracy']:.1%})" for found in of_sizes.values())
        print(f"{name:14}" + "".join(f"{cell:>18}" for cell in cells))

    print(
        "\nInstead: give Rprop all data in every step (optax.MultiSteps accumulates what does not"
    )
    print("fit at once); or, where batches must be small, use optax.adam or optax.rmsprop.")


def main(arguments: Sequence[str] | None = None) -> dict[str, dict]:
    made = parser(__doc__, "minibatch")
    made.add_argument("--steps", type=positive, default=200, help="of each training on digits")
    given = made.parse_args(arguments)

    stream = {"sgd": drift(optax.sgd(0.1))}
    stream |= {name: drift(factory(0.1)) for name, factory in OPTIMIZERS.items()}
    ends = {name: float(weights[-1]) for name, weights in stream.items()}

    data = load(given.seed)
    params = init(jax.random.key(given.seed))
    train_size = len(data.train_labels)
    rng = np.random.default_rng(given.seed)
    ranks = rng.permuted(np.tile(np.arange(train_size), (given.steps, 1)), axis=1)
    digits = {
        name: best_of_grid(factory, (32, 128, 512, train_size), ranks, params, data)
        for name, factory in tqdm(OPTIMIZERS.items(), desc="digits", leave=False)
    }
    print_tables(ends, digits, given.steps)
    if given.plot:
        draw(stream, digits, given.steps, given.plot)
    return {"stream": ends, "digits": digits}


if __name__ == "__main__":
    main()

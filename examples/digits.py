"""A neural network that learns to read digits: Rprop beside Adam, SGD, RMSprop and optax.rprop.

The data are scikit-learn's bundled scans of handwritten digits (Alpaydin and Kaynak 1998), the
network is a Flax NNX module with one hidden layer, and every step sees the whole training set:
the full-batch case that Rprop (Riedmiller and Braun 1993; Igel and Huesken 2000) is made for.

Every optimizer trains once with each of the same learning rates, Rprop too, whose learning rate
is its first step size. Compared is the best: the one that first reaches the smallest training
loss of the table. The runs of an optimizer are vmapped, so that one jitted step advances all.

    python examples/digits.py
    python examples/digits.py --optimizer irprop_minus adam --steps 100 --plot digits.svg
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import COLORS, parser, plt, positive, save
from flax import nnx
from matplotlib.ticker import LogLocator, SymmetricalLogLocator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import optax_rprop

Factory = Callable[[Any], optax.GradientTransformation]

OPTIMIZERS: dict[str, Factory] = {
    "irprop_minus": optax_rprop.irprop_minus,
    "irprop_plus": optax_rprop.irprop_plus,
    "rprop_plus": optax_rprop.rprop_plus,
    "rprop_minus": optax_rprop.rprop_minus,
    "optax.rprop": optax.rprop,
    "adam": optax.adam,
    "rmsprop": optax.rmsprop,
    "sgd": lambda learning_rate: optax.sgd(learning_rate, momentum=0.9),
}
SHOWN = ["irprop_minus", "irprop_plus", "optax.rprop", "adam", "rmsprop", "sgd"]
LEARNING_RATES = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
MARKS = {"1e-1": 1e-1, "1e-2": 1e-2, "1e-4": 1e-4}
HEADER = """\
                learning   steps to training loss     test accuracy     learning rates that
optimizer           rate    1e-1    1e-2    1e-4    at 1e-4   at end    reach 1e-4 (steps)"""


class Batch(NamedTuple):
    """Standardised pixels, a row for each scan, and the labels as one-hot rows."""

    images: np.ndarray
    labels: np.ndarray


class Network(nnx.Module):
    """Pixels in, a score for each digit out."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.output = nnx.Linear(128, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """One row of scores for each row of pixels."""
        return self.output(nnx.tanh(self.hidden(images)))


def load(seed: int) -> tuple[Batch, Batch]:
    """The digits: four fifths to train on, the rest to test."""
    images, digits = load_digits(return_X_y=True)
    train_images, test_images, train_digits, test_digits = train_test_split(
        images, digits, test_size=0.2, stratify=digits, random_state=seed
    )
    scaler = StandardScaler().fit(train_images)

    def batch(images: np.ndarray, digits: np.ndarray) -> Batch:
        labels = np.eye(10, dtype=np.float32)[digits]
        return Batch(scaler.transform(images).astype(np.float32), labels)

    return batch(train_images, train_digits), batch(test_images, test_digits)


def train(
    make: Factory, network: Network, steps: int, train_batch: Batch, test_batch: Batch
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """Trains with every learning rate at once.

    Yields:
      The training losses and the test accuracies, one for each learning rate, after 0, 1, ...,
      `steps` steps.
    """
    graph, params = nnx.split(network)

    def loss_of(params: nnx.State, batch: Batch) -> jax.Array:
        scores = nnx.merge(graph, params)(batch.images)
        return optax.softmax_cross_entropy(scores, batch.labels).mean()

    def accuracy_of(params: nnx.State, batch: Batch) -> jax.Array:
        scores = nnx.merge(graph, params)(batch.images)
        return (scores.argmax(axis=1) == batch.labels.argmax(axis=1)).mean()

    def start(learning_rate):
        return params, make(learning_rate).init(params)

    def step(params, opt_state, learning_rate, train_batch, test_batch):
        loss, gradient = jax.value_and_grad(loss_of)(params, train_batch)
        seen = loss, accuracy_of(params, test_batch)
        # irprop_plus needs the loss; to the others it means nothing.
        optimizer = optax.with_extra_args_support(make(learning_rate))
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
        return optax.apply_updates(params, updates), opt_state, seen

    learning_rates = jnp.asarray(LEARNING_RATES)
    params_and_state = jax.vmap(start)(learning_rates)
    step = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None, None)), donate_argnums=(0, 1))
    for _ in range(steps + 1):
        *params_and_state, seen = step(*params_and_state, learning_rates, train_batch, test_batch)
        yield seen


def steps_to(losses: np.ndarray, mark: float) -> int | None:
    """The steps until the loss first was at the mark or below; None if it never was."""
    reached = np.flatnonzero(losses <= mark)
    return int(reached[0]) if reached.size else None


def best_run(losses: np.ndarray) -> int:
    """The run that is first at the last mark; among equals at the one before it, and so on."""

    def rank(run: int) -> list[float]:
        steps = [steps_to(losses[:, run], mark) for mark in reversed(MARKS.values())]
        last = np.nan_to_num(losses[-1, run], nan=math.inf)
        return [*(math.inf if step is None else step for step in steps), last]

    return min(range(losses.shape[1]), key=rank)


def summary(losses: np.ndarray, accuracies: np.ndarray) -> dict[str, Any]:
    """The figures of the best run, and the steps to the last mark of every run."""
    best = best_run(losses)
    steps = {name: steps_to(losses[:, best], mark) for name, mark in MARKS.items()}
    at_mark = steps["1e-4"]
    return {
        "learning_rate": LEARNING_RATES[best],
        "steps": steps,
        "accuracy_at_mark": None if at_mark is None else float(accuracies[at_mark, best]),
        "accuracy_at_end": float(accuracies[-1, best]),
        "steps_of_every_run": [steps_to(run, MARKS["1e-4"]) for run in losses.T],
    }


def row(name: str, figures: dict[str, Any], steps: int) -> str:
    """One line of the table."""
    to_marks = "".join(f"{f'>{steps}' if n is None else n:>8}" for n in figures["steps"].values())
    at_mark, at_end = (
        "-" if accuracy is None else f"{accuracy:.1%}"
        for accuracy in (figures["accuracy_at_mark"], figures["accuracy_at_end"])
    )
    runs = figures["steps_of_every_run"]
    reached = [n for n in runs if n is not None]
    share = f"{len(reached)} of {len(runs)}"
    share += f" ({min(reached)} to {max(reached)})" if reached else ""
    rate = figures["learning_rate"]
    return f"{name:<14}{rate:>10g}{to_marks}{at_mark:>11}{at_end:>9}    {share}"


def draw(losses: dict[str, np.ndarray], figures: dict[str, dict], path: Path) -> None:
    figure, (curves, rates) = plt.subplots(1, 2, figsize=(11, 5), dpi=90)
    steps = max(map(len, losses.values())) - 1
    never = 1.6 * steps
    to_mark = {name: figures[name]["steps"]["1e-4"] for name in losses}
    for name, runs in losses.items():
        style = {"color": COLORS[name], "lw": 2, "marker": "o", "ms": 5}
        reached = to_mark[name] is not None
        curves.plot(
            runs[:, LEARNING_RATES.index(figures[name]["learning_rate"])],
            label=f"{name}: {to_mark[name] if reached else f'not in {steps}'}",
            markevery=[to_mark[name]] if reached else [],
            **style,
        )
        of_every_run = figures[name]["steps_of_every_run"]
        rates.plot(LEARNING_RATES, [never if n is None else n for n in of_every_run], **style)
    for mark in MARKS.values():
        curves.axhline(mark, color="black", lw=0.9, ls=":", zorder=0)
    rates.axhspan(never / 1.3, never * 1.3, color="black", alpha=0.07, lw=0)
    rates.text(LEARNING_RATES[-1], 1.04 * never, f"not in {steps} steps", va="bottom", ha="right")

    curves.legend(
        title="steps to 1e-4", loc="lower left", frameon=True, framealpha=1, edgecolor="none"
    )
    curves.set_xscale("symlog", linthresh=1, linscale=0.2)
    curves.set_yscale("log")
    curves.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=1, subs=(1, 2, 5)))
    curves.xaxis.set_major_formatter("{x:g}")
    curves.set(xlim=(0, steps), ylim=(1e-5, 100), xlabel="steps", ylabel="cross-entropy")
    curves.set_title("Training loss with the best learning rate")
    rates.set_xscale("log")
    rates.set_yscale("log")
    rates.set_xticks(LEARNING_RATES, [f"{rate:g}" for rate in LEARNING_RATES])
    rates.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    rates.yaxis.set_major_formatter("{x:g}")
    rates.minorticks_off()
    rates.set(xlabel="learning rate (of Rprop: first step size)", ylabel="steps")
    rates.set_title("Steps to a training loss of 1e-4")
    reached = {name: n for name, n in to_mark.items() if n is not None}
    if reached:
        first = min(reached, key=reached.get)
        finding = f"{first} reaches a training loss of 1e-4 first, in {reached[first]} steps"
        figure.suptitle(f"Digits, full batch: {finding}", weight="bold")
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__, "digits")
    options.add_argument("--steps", type=positive, default=300, help="of every training")
    options.add_argument(
        "--optimizer",
        nargs="+",
        choices=OPTIMIZERS,
        default=SHOWN,
        metavar="NAME",
        help=f"one or several of {', '.join(OPTIMIZERS)}, which has momentum 0.9",
    )
    chosen = options.parse_args(arguments)
    train_batch, test_batch = load(chosen.seed)
    network = Network(nnx.Rngs(chosen.seed))
    weights = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network)))
    rates = ", ".join(f"{rate:g}" for rate in LEARNING_RATES)
    print(
        f"A network of {weights:,} weights learns to read {len(train_batch.images):,} scanned "
        f"digits; {len(test_batch.images)} others test it.\n"
        f"Every optimizer takes {chosen.steps} full-batch steps with each learning rate (Rprop: "
        f"first step size) of\n{rates}; shown is the first at a training loss of 1e-4.\n\n{HEADER}"
    )
    figures, losses = {}, {}
    names = dict.fromkeys(chosen.optimizer)
    with tqdm(total=len(names) * (chosen.steps + 1), ncols=92, leave=False) as bar:
        for name in names:
            seen = []
            for now in train(OPTIMIZERS[name], network, chosen.steps, train_batch, test_batch):
                seen.append(now)
                bar.set_description(f"{name:<12} loss {abs(np.nanmin(now[0])):.0e}", refresh=False)
                bar.update()
            losses[name], accuracies = map(np.array, zip(*seen, strict=True))
            figures[name] = summary(losses[name], accuracies)
            bar.write(row(name, figures[name], chosen.steps))
    if chosen.plot:
        draw(losses, figures, chosen.plot)
    return figures


if __name__ == "__main__":
    main()

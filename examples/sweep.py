"""How little Rprop's two choices matter: a sweep in one vmapped jit.

The first step size (learning_rate) and the growth factor (eta_plus) of irprop_minus are
swept over six decades and from 1.05 to 2, on a network of 30-16-2 tanh units that
separates scikit-learn's bundled breast cancer data (569 patients; Street, Wolberg &
Mangasarian 1993), full-batch. What counts is the iterations to a training loss of 0.01,
the median of 3 initial networks. Every hyperparameter is traced, so the whole sweep is
one compiled call.

A first step that is ten times too small costs log(10) / log(eta_plus) iterations, 13 at
1.2; one that is too large is halved as often as it takes, unless it has saturated the
network. Riedmiller & Braun (1993) chose 0.1 and 1.2, and found the first uncritical.

Below it, on the same axis, the learning rates of Adam, of SGD with a momentum of 0.9 and
of RMSprop. Each does well somewhere, SGD best of the three; but where must be found.

Run: python examples/sweep.py
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import parser, plt, save
from matplotlib.colors import LogNorm
from sklearn.datasets import load_breast_cancer
from tqdm import tqdm

import optax_rprop

TARGET = 0.01
LIMIT = 400
NETWORKS = 3
HIDDEN = 16
RATES = 10.0 ** np.arange(-5, 1.5, 0.5)
ETAS_PLUS = np.array([1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0])

Params = dict[str, jax.Array]


def draw_network(key: jax.Array, inputs: int) -> Params:
    key_in, key_out = jax.random.split(key)
    return {
        "w_in": jax.random.normal(key_in, (inputs, HIDDEN)) / jnp.sqrt(inputs),
        "b_in": jnp.zeros(HIDDEN),
        "w_out": jax.random.normal(key_out, (HIDDEN, 2)) / jnp.sqrt(HIDDEN),
        "b_out": jnp.zeros(2),
    }


def loss(params: Params, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    hidden = jnp.tanh(inputs @ params["w_in"] + params["b_in"])
    logits = hidden @ params["w_out"] + params["b_out"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def count_iterations(
    optimizer: optax.GradientTransformation,
    params: Params,
    objective: Callable[[Params], jax.Array],
) -> jax.Array:
    """Iterations until the loss is at most TARGET, or LIMIT."""
    value_and_grad = jax.value_and_grad(objective)

    def unfinished(carry):
        iteration, _, _, value, _ = carry
        return (value > TARGET) & (iteration < LIMIT)

    def iterate(carry):
        iteration, params, opt_state, _, gradient = carry
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        return iteration + 1, params, opt_state, *value_and_grad(params)

    first = 0, params, optimizer.init(params), *value_and_grad(params)
    return jax.lax.while_loop(unfinished, iterate, first)[0]


def sweep(
    make: Callable[[jax.Array], optax.GradientTransformation],
    networks: Params,
    objective: Callable[[Params], jax.Array],
) -> jax.Array:
    """The median iterations of the networks, for each of RATES."""

    def at_rate(rate):
        run = functools.partial(count_iterations, make(rate), objective=objective)
        return jnp.median(jax.vmap(run)(networks))

    return jax.vmap(at_rate)(jnp.asarray(RATES, dtype=jnp.float32))


def sweep_rprop(networks: Params, objective: Callable[[Params], jax.Array]) -> jax.Array:
    """The same for each of ETAS_PLUS."""

    def at_eta_plus(eta_plus):
        make = functools.partial(optax_rprop.irprop_minus, eta_plus=eta_plus)
        return sweep(make, networks, objective)

    return jax.vmap(at_eta_plus)(jnp.asarray(ETAS_PLUS, dtype=jnp.float32))


OTHERS = {
    "adam": optax.adam,
    "sgd, momentum 0.9": functools.partial(optax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
}


def summarize(iterations: np.ndarray) -> dict[str, Any]:
    best = int(np.argmin(iterations))
    return {
        "iterations": iterations.tolist(),
        "best": float(iterations[best]),
        "best_rate": float(RATES[best]),
        "arrived": int(np.sum(iterations < LIMIT)),
        "within_twice": int(np.sum(iterations <= 2 * iterations[best])),
    }


def draw(rprop: np.ndarray, others: dict[str, np.ndarray], path: Path) -> None:
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(len(ETAS_PLUS), len(others))
    )
    for panel, table in ((upper, rprop), (lower, np.stack(list(others.values())))):
        image = panel.imshow(
            np.where(table < LIMIT, table, np.nan),
            norm=LogNorm(rprop.min(), LIMIT),
            cmap="viridis_r",
            aspect="auto",
        )
        for (row, column), iterations in np.ndenumerate(table):
            text = f"{iterations:.0f}" if iterations < LIMIT else "-"
            color = "white" if 100 < iterations < LIMIT else "black"
            panel.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
        panel.grid(visible=False)
    upper.set_yticks(range(len(ETAS_PLUS)), [f"{eta_plus:g}" for eta_plus in ETAS_PLUS])
    upper.set_ylabel("irprop_minus: eta_plus")
    upper.set_title("Almost any first step and eta_plus will do; a learning rate must be found")
    lower.set_yticks(range(len(others)), list(others))
    lower.set_xticks(range(len(RATES)), [f"{float(f'{rate:.0e}'):g}" for rate in RATES], fontsize=9)
    lower.set_xlabel("irprop_minus: first step size; the others: learning rate")
    label = f"iterations to a training loss of {TARGET} (- : not in {LIMIT})"
    bar = figure.colorbar(image, ax=(upper, lower), label=label, format="{x:.0f}")
    bar.set_ticks([20, 50, 100, 200, LIMIT], minor=False)
    bar.minorticks_off()
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    options = parser(__doc__, "sweep").parse_args(arguments)
    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    objective = functools.partial(loss, inputs=jnp.asarray(inputs, jnp.float32), labels=labels)
    keys = jax.random.split(jax.random.key(options.seed), NETWORKS)
    networks = jax.vmap(functools.partial(draw_network, inputs=inputs.shape[1]))(keys)

    rprop = np.asarray(jax.jit(functools.partial(sweep_rprop, objective=objective))(networks))
    others = {}
    for name, make in tqdm(OTHERS.items(), leave=False):
        run = functools.partial(sweep, make, objective=objective)
        others[name] = np.asarray(jax.jit(run)(networks))

    rows = {"irprop_minus": rprop[list(ETAS_PLUS).index(1.2)], **others}
    figures: dict[str, Any] = {name: summarize(row) for name, row in rows.items()}
    print(
        f"Of {len(RATES)} first steps (eta_plus 1.2) or learning rates "
        f"from {RATES[0]:g} to {RATES[-1]:g}:"
    )
    print(f"{'':20}{'fewest iterations':>20}{'at':>10}{'arrived':>10}{'within twice that':>20}")
    for name, row in figures.items():
        print(
            f"{name:20}{row['best']:20.0f}{row['best_rate']:10.2g}{row['arrived']:10}"
            f"{row['within_twice']:20}"
        )
    usual = rprop[np.ix_((ETAS_PLUS >= 1.1) & (ETAS_PLUS <= 1.5), RATES <= 1.01)]
    figures["pairs"] = {"of": rprop.size, "arrived": int(np.sum(rprop < LIMIT))}
    figures["usual"] = {"least": float(usual.min()), "most": float(usual.max())}
    print(
        f"irprop_minus: {figures['pairs']['arrived']} of {rprop.size} pairs of first step and "
        f"eta_plus arrived; all from 1e-5 to 1 with 1.1 to 1.5 did, "
        f"in {usual.min():.0f} to {usual.max():.0f} iterations."
    )
    if options.plot:
        draw(rprop, others, options.plot)
    return figures


if __name__ == "__main__":
    main()

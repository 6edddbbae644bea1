"""How little Rprop's two choices matter: a sweep over both, in one compiled call.

The first step size and eta_plus of irprop_minus go over six decades and from 1.05 to 2: a network
of 16 hidden units separates scikit-learn's breast cancer data (569 patients), full batch. What
counts is the iterations to a training loss of 0.01, the median of several networks. A first step
that is ten times too small costs log(10) / log(eta_plus) iterations, 13 at 1.2. Below it, on the
same axis, the learning rates of Adam, SGD with a momentum of 0.9, and RMSprop.
"""

import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from common import apply_network, arguments, count_iterations, finish, init_network
from matplotlib.colors import LogNorm
from sklearn.datasets import load_breast_cancer
from tqdm import tqdm

import optax_rprop

RATES = (10.0 ** np.arange(-5, 1.5, 0.5)).astype(np.float32)
ETAS_PLUS = np.array([1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0], np.float32)
OTHERS = {
    "adam": optax.adam,
    "sgd, momentum 0.9": functools.partial(optax.sgd, momentum=0.9),
    "rmsprop": optax.rmsprop,
}


def main():
    options = arguments(
        __doc__, networks=(3, "initial networks"), limit=(400, "iterations at most")
    )
    cells, labels = load_breast_cancer(return_X_y=True)
    cells = jnp.asarray((cells - cells.mean(axis=0)) / cells.std(axis=0), jnp.float32)

    def loss(params):
        scores = apply_network(params, cells)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    keys = jax.random.split(jax.random.key(0), options.networks)
    networks = jax.vmap(lambda key: init_network(key, cells.shape[1], 16, 2))(keys)

    def at_all_rates(make):
        """The median iterations of all networks, for each of RATES."""

        def iterations(rate, params):
            return count_iterations(make(rate), loss, params, 0.01, options.limit)[0]

        of_networks = jax.vmap(iterations, (None, 0))
        return jax.vmap(lambda rate: jnp.median(of_networks(rate, networks)))(RATES)

    def at_eta_plus(eta_plus):
        return at_all_rates(functools.partial(optax_rprop.irprop_minus, eta_plus=eta_plus))

    rprop = np.asarray(jax.jit(jax.vmap(at_eta_plus))(ETAS_PLUS))
    others = np.array(
        [jax.jit(lambda make=make: at_all_rates(make))() for make in tqdm(OTHERS.values())]
    )

    print(f"Of {len(RATES)} first steps (eta_plus 1.2) or learning rates from 1e-5 to 10:")
    print(f"{'':20}{'fewest iterations':>18}{'at':>10}{'arrived':>10}{'within twice that':>20}")
    for name, row in {"irprop_minus": rprop[3], **dict(zip(OTHERS, others, strict=True))}.items():
        arrived, near = np.sum(row < options.limit), np.sum(row <= 2 * row.min())
        print(f"{name:20}{row.min():18.0f}{RATES[row.argmin()]:10.2g}{arrived:10}{near:20}")
    usual = rprop[1:7, :11]
    print(f"irprop_minus, all pairs: {np.sum(rprop < options.limit)} of {rprop.size} arrived;")
    print(f"first step 1e-5 to 1, eta_plus 1.1 to 1.5: {usual.min():.0f} to {usual.max():.0f}.")

    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(9, 3), layout="constrained"
    )
    for panel, table in ((upper, rprop), (lower, others)):
        shown = np.where(table < options.limit, table, np.nan)
        norm = LogNorm(rprop.min(), options.limit)
        panel.imshow(shown, norm=norm, cmap="viridis_r", aspect="auto")
        for (row, column), count in np.ndenumerate(table):
            text = f"{count:.0f}" if count < options.limit else "-"
            color = "white" if 100 < count < options.limit else "black"
            panel.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    upper.set_yticks(range(9), [f"{eta_plus:g}" for eta_plus in ETAS_PLUS])
    upper.set_ylabel("irprop_minus: eta_plus")
    upper.set_title(f"Iterations to a training loss of 0.01 (-: not in {options.limit})")
    lower.set_yticks(range(3), OTHERS)
    lower.set_xticks(range(len(RATES)), [f"{float(f'{rate:.1g}'):g}" for rate in RATES])
    lower.set_xlabel("irprop_minus: first step size; the others: learning rate")
    numbers = {"irprop_minus": rprop.tolist(), **dict(zip(OTHERS, others.tolist(), strict=True))}
    finish(options, numbers, figure)


if __name__ == "__main__":
    main()

"""A network learns to read digits
===============================

Rprop, SGD, RMSprop and Adam train a network on 1,437 scans at once. Only Rprop gets there with all
nine learning rates.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

import optax_rprop

STEPS = 100
RATES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], np.float32)
OPTIMIZERS = {
    "irprop_minus": optax_rprop.irprop_minus,
    "irprop_plus": optax_rprop.irprop_plus,
    "optax.rprop": optax.rprop,
    "SGD, momentum 0.9": functools.partial(optax.sgd, momentum=0.9),
    "RMSprop": optax.rmsprop,
    "Adam": optax.adam,
}

# %%
# scikit-learn's scans of handwritten digits: four fifths to train on, the rest to test.
data = train_test_split(*load_digits(return_X_y=True), test_size=0.2, random_state=0)
scans, test_scans, digits, test_digits = data
scaler = StandardScaler().fit(scans)
scans, test_scans = (np.float32(scaler.transform(pixels)) for pixels in (scans, test_scans))
rngs = nnx.Rngs(0)
network = nnx.Sequential(nnx.Linear(64, 128, rngs=rngs), nnx.tanh, nnx.Linear(128, 10, rngs=rngs))
graph, start = nnx.split(network)


def loss_and_accuracy(params, scans, digits):
    scores = nnx.merge(graph, params)(scans)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, digits)
    return losses.mean(), jnp.mean(scores.argmax(axis=1) == digits)


def train(make, rate):
    """Losses and test accuracies, before each step and after the last."""
    optimizer = optax.with_extra_args_support(make(rate))  # irprop_plus needs the loss
    value_and_grad = jax.value_and_grad(loss_and_accuracy, has_aux=True)

    def step(carry, _):
        params, opt_state = carry
        (loss, _), gradient = value_and_grad(params, scans, digits)
        _, accuracy = loss_and_accuracy(params, test_scans, test_digits)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), (loss, accuracy)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS + 1)[1]


# %%
# For each optimizer one loop trains with all rates. STEPS + 1 steps to a loss of 1e-4: never.
figure, (curves, by_rate) = plt.subplots(2, 1, figsize=(6, 8), layout="constrained")
print("optimizer          best rate   steps to 1e-4   accuracy then   rates that get there")
steps = {}
for name, make in (bar := tqdm(OPTIMIZERS.items(), leave=False, disable=None)):
    losses, accuracies = map(np.array, jax.lax.map(functools.partial(train, make), RATES))
    steps[name] = np.logical_and.accumulate(~(losses <= 1e-4), axis=1).sum(axis=1)
    best, least = steps[name].argmin(), steps[name].min()
    result = f"{name:18}{RATES[best]:10g}{least:16}{accuracies[best, least]:16.1%}"
    bar.write(f"{result}{np.sum(steps[name] <= STEPS):18} of {len(RATES)}")
    assert 0.001 < RATES[best] < 10, "the best rate lies inside the grid"
    assert accuracies[best, least] > 0.9, "of scans that it never saw; a guess is right in a tenth"
    curves.semilogy(losses[best], lw=2, label=f"{name}: {least}")
    by_rate.semilogx(RATES, steps[name], "o-", lw=2)
for name in ("SGD, momentum 0.9", "RMSprop", "Adam"):
    assert steps["irprop_minus"].min() < steps[name].min()
    assert steps["irprop_minus"].max() < 50 < STEPS < steps[name].max()
curves.set(xlim=(0, 60), ylim=(1e-5, 100), xlabel="step", ylabel="training loss")
by_rate.set(xlabel="learning rate or first step size", ylabel=f"steps to 1e-4 ({STEPS + 1}: never)")
figure.legend(title="steps to 1e-4 at the best rate", loc="outside lower center", ncols=2)
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/digits.png")
print("Plot: figures/digits.png")

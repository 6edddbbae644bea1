"""A network learns to read digits
===============================

On 1,437 scans, Rprop takes 22 steps without a learning rate; Adam takes 37 at the best of nine.
"""

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

import optax_rprop

STEPS = 60
RATES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], np.float32)
OPTIMIZERS = {
    "rprop_momentum": optax_rprop.rprop_momentum,
    "irprop_minus": optax_rprop.irprop_minus,
    "optax.rprop": optax.rprop,
    "SGD, momentum 0.9": lambda rate: optax.sgd(rate, momentum=0.9),
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


def evaluate(params, scans, digits):
    scores = nnx.merge(graph, params)(scans)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, digits)
    return losses.mean(), jnp.mean(scores.argmax(axis=1) == digits)


def train(make, rate):
    """Losses and test accuracies, before each step and after the last."""
    optimizer = make(rate)

    def step(carry, _):
        params, opt_state = carry
        (loss, _), gradient = jax.value_and_grad(evaluate, has_aux=True)(params, scans, digits)
        _, accuracy = evaluate(params, test_scans, test_digits)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (loss, accuracy)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS + 1)[1]


# %%
# STEPS + 1 means that a rate did not reach 1e-4. Dotted: the two that need no rate.
figure, (curves, by_rate) = plt.subplots(2, 1, figsize=(6, 8), layout="constrained")
print("optimizer          best rate   steps to 1e-4   accuracy then   of 9 rates get there")
for make, color in ((optax_rprop.rprop_lbfgs, "black"), (optax_rprop.rprop_momentum, "tab:gray")):
    losses, accuracies = jax.jit(lambda make=make: train(lambda _: make(), None))()
    alone = int(jnp.argmax(losses <= 1e-4))
    print(f"{make.__name__ + '()':18}        -{alone:16}{accuracies[alone]:16.1%}")
    label = f"{make.__name__}(): {alone}"
    curves.semilogy(losses[: alone + 4], ":", color=color, lw=2, label=label)
    by_rate.axhline(alone, color=color, ls=":", lw=2)
steps = {}
for name, make in OPTIMIZERS.items():
    losses, accuracies = jax.lax.map(lambda rate, make=make: train(make, rate), RATES)
    steps[name] = own = np.logical_and.accumulate(~(np.array(losses) <= 1e-4), axis=1).sum(axis=1)
    best, least, accuracy = own.argmin(), own.min(), accuracies[own.argmin(), own.min()]
    print(f"{name:18}{RATES[best]:10g}{least:16}{accuracy:16.1%}{np.sum(own <= STEPS):23}")
    assert 0.001 < RATES[best] < 10, "the best rate lies inside the grid"
    assert accuracy > 0.9, "of scans that it never saw; a guess is right in a tenth"
    curves.semilogy(losses[best], lw=2, label=f"{name}: {least}")
    by_rate.semilogx(RATES, own, "o-", lw=2)
for name in ("SGD, momentum 0.9", "RMSprop", "Adam"):
    assert alone < steps[name].min() < STEPS < steps[name].max()
    # The largest rate throws the network so far that rounding decides when it is back.
    assert max(steps["rprop_momentum"][:-1].max(), steps["irprop_minus"][:-1].max()) < 40
curves.set(xlim=(0, 60), ylim=(1e-5, 100), xlabel="step", ylabel="training loss")
by_rate.set(xlabel="learning rate or first step size", ylabel=f"steps to 1e-4 ({STEPS + 1}: never)")
figure.legend(title="steps to 1e-4 at the best rate", loc="outside lower center", ncols=2)
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/digits.png")
print("Plot: figures/digits.png")

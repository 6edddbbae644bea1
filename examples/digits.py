"""A network learns to read digits
===============================

The full-batch case that Rprop is made for: 9,610 weights, and every step sees all 1,437 scans.
Each optimizer trains the same network once with each of nine learning rates (for Rprop: first step
sizes), and its best run goes into the table. Rprop is first, and gets there with all nine.
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

STEPS = 300
RATES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10], np.float32)
OPTIMIZERS = {
    "irprop_minus": (optax_rprop.irprop_minus, "tab:red"),
    "irprop_plus": (optax_rprop.irprop_plus, "tab:orange"),
    "optax.rprop": (optax.rprop, "tab:gray"),
    "SGD, momentum 0.9": (functools.partial(optax.sgd, momentum=0.9), "tab:cyan"),
    "RMSprop": (optax.rmsprop, "tab:green"),
    "Adam": (optax.adam, "tab:blue"),
}

# %%
# scikit-learn's scans of handwritten digits: four fifths to train on, the rest to test.
scans, digits = load_digits(return_X_y=True)
scans, test_scans, digits, test_digits = train_test_split(
    scans, digits, test_size=0.2, stratify=digits, random_state=0
)
scaler = StandardScaler().fit(scans)
scans, test_scans = (np.float32(scaler.transform(pixels)) for pixels in (scans, test_scans))
rngs = nnx.Rngs(0)
network = nnx.Sequential(nnx.Linear(64, 128, rngs=rngs), nnx.tanh, nnx.Linear(128, 10, rngs=rngs))
graph, start = nnx.split(network)


def loss_and_accuracy(params, scans, digits):
    scores = nnx.merge(graph, params)(scans)
    loss = optax.softmax_cross_entropy_with_integer_labels(scores, digits).mean()
    return loss, jnp.mean(scores.argmax(axis=1) == digits)


def train(make, rate):
    """Losses and test accuracies, before each step and after the last."""
    optimizer = optax.with_extra_args_support(make(rate))  # irprop_plus needs the loss

    def step(carry, _):
        params, opt_state = carry
        value_and_grad = jax.value_and_grad(loss_and_accuracy, has_aux=True)
        (loss, _), gradient = value_and_grad(params, scans, digits)
        _, accuracy = loss_and_accuracy(params, test_scans, test_digits)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=loss)
        return (optax.apply_updates(params, updates), opt_state), (loss, accuracy)

    return jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS + 1)[1]


# %%
# The nine runs of an optimizer are vmapped: one jitted loop trains them all.
figure, (curves, by_rate) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
print(f"{'':19}{'best':>6}{'steps to loss':>18}{'accuracy':>12}{'rates that':>14}")
print(f"{'':19}{'rate':>6}{'1e-2':>10}{'1e-4':>8}{'at 1e-4':>12}{'reach 1e-4':>14}")
steps_to_1e_4 = {}
for name, (make, color) in (bar := tqdm(OPTIMIZERS.items(), leave=False)):
    losses, accuracies = map(np.array, jax.jit(jax.vmap(functools.partial(train, make)))(RATES))
    to_1e_2, to_1e_4 = (  # by rate: the first step at this loss or below; STEPS + 1 is never
        np.logical_and.accumulate(~(losses <= mark), axis=1).sum(axis=1) for mark in (1e-2, 1e-4)
    )
    best = np.lexsort([to_1e_2, to_1e_4])[0]
    accuracy = accuracies[best, to_1e_4[best]]
    bar.write(
        f"{name:19}{RATES[best]:6g}{to_1e_2[best]:10}{to_1e_4[best]:8}{accuracy:12.1%}"
        f"{np.sum(to_1e_4 <= STEPS):9} of {len(RATES)}"
    )
    assert 0.001 < RATES[best] < 10, "the best rate lies inside the grid"
    assert accuracy > 0.9, "of scans that it never saw; guessing is right in a tenth"
    steps_to_1e_4[name] = to_1e_4
    curves.semilogy(losses[best], color=color, lw=2, label=f"{name}: {to_1e_4[best]}")
    by_rate.loglog(RATES, np.where(to_1e_4 <= STEPS, to_1e_4, 450), "o-", color=color, lw=2)

for name in ("SGD, momentum 0.9", "RMSprop", "Adam"):
    assert steps_to_1e_4["irprop_minus"].min() < steps_to_1e_4[name].min()
    assert steps_to_1e_4["irprop_minus"].max() < 100 < STEPS < steps_to_1e_4[name].max()

curves.set(xlim=(0, 60), ylim=(1e-5, 100), xlabel="step", ylabel="training loss")
curves.set_title("Training loss at the best learning rate")
by_rate.set_yticks([10, 20, 50, 100, 200, 450], [10, 20, 50, 100, 200, f"not in\n{STEPS}"])
by_rate.minorticks_off()
by_rate.set(xlabel="learning rate (Rprop: first step size)", ylabel="steps to a loss of 1e-4")
by_rate.set_title("Steps to a training loss of 1e-4")
figure.legend(title="steps to a training loss of 1e-4", loc="outside lower center", ncols=6)
Path("figures").mkdir(exist_ok=True)
figure.savefig("figures/digits.png")

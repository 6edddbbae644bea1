"""Mini-batches: Rprop needs all data in each step; adaptive gains help RMSprop and Adam.

A network with 32 hidden units learns scikit-learn's digits, breast cancer and diabetes, each
optimizer at the learning rate of a grid that does best. First the digits: the loss on all
training scans at the end, by batch size, of one run. Then batches of 32: the loss of the batches,
averaged over a run and over four seeds, so that fast and steady learning both count, and how
adaptive gains change it. They do not always help: with --steps 2000, Adam alone is better on the
digits.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

import optax_rprop
from _common import arguments, print_table, write
from optax_rprop.contrib import scale_by_adaptive_gains


def with_gains(direction, **numbers):
    """Adaptive gains behind a direction such as Adam's, by learning rate."""
    return lambda rate: optax.chain(
        direction(), scale_by_adaptive_gains(**numbers), optax.scale_by_learning_rate(rate)
    )


BY_SIZE = {
    "rprop_momentum": optax_rprop.rprop_momentum,
    "the same, eta_minus 0.7": functools.partial(optax_rprop.rprop_momentum, eta_minus=0.7),
    "irprop_minus": optax_rprop.irprop_minus,
    "adam": optax.adam,
}
GAINS = {  # each is compared with the one before the comma
    "rmsprop": optax.rmsprop,
    "rmsprop, gains": with_gains(optax.scale_by_rms),
    "adam": optax.adam,
    "adam, gains": with_gains(optax.scale_by_adam),
    "adam, gains, average_decay 0.99": with_gains(optax.scale_by_adam, average_decay=0.99),
}
RATES_BY_SIZE = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0], np.float32)
RATES = np.array([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2], np.float32)


def tasks():
    """Inputs of about unit scale, targets, the number of outputs and the loss of each row."""

    def standard(x):
        return np.float32((x - x.mean(axis=0)) / x.std(axis=0))

    def squared_error(outputs, targets):
        return (outputs[:, 0] - targets) ** 2

    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    scans, digits = load_digits(return_X_y=True)
    cells, malignant = load_breast_cancer(return_X_y=True)
    patients, progress = load_diabetes(return_X_y=True)
    return {
        "digits": (np.float32(scans / 16), digits, 10, cross_entropy),
        "breast cancer": (standard(cells), malignant, 2, cross_entropy),
        "diabetes": (standard(patients), standard(progress), 1, squared_error),
    }


def init_network(key, inputs, outputs, hidden=32):
    keys = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "hidden_weight": glorot(keys[0], (inputs, hidden)),
        "hidden_bias": jnp.zeros(hidden),
        "weight": glorot(keys[1], (hidden, outputs)),
        "bias": jnp.zeros(outputs),
    }


def apply_network(params, inputs):
    hidden = jnp.tanh(inputs @ params["hidden_weight"] + params["hidden_bias"])
    return hidden @ params["weight"] + params["bias"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(make, loss_of, rates, params, inputs, targets, batches):
    """For each rate: the mean loss of the batches, which are rows, and of all rows at the end."""

    def loss(params, rows):
        return loss_of(apply_network(params, inputs[rows]), targets[rows]).mean()

    def run(rate):
        optimizer = optax.with_extra_args_support(make(rate))

        def step(carry, rows):
            params, opt_state = carry
            value, gradient = jax.value_and_grad(loss)(params, rows)
            updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
            return (optax.apply_updates(params, updates), opt_state), value

        (end, _), values = jax.lax.scan(step, (params, optimizer.init(params)), batches)
        return values.mean(), loss(end, slice(None))

    return jax.vmap(run)(rates)


def by_size(task, steps):
    """The final losses on the training scans: {optimizer: {batch size: loss}}."""
    inputs, targets, outputs, loss_of = task
    split = train_test_split(inputs, targets, test_size=0.2, stratify=targets, random_state=0)
    data = split[0], split[2]
    n = len(data[0])
    params = init_network(jax.random.key(0), inputs.shape[1], outputs)
    ranks = np.random.default_rng(0).permuted(np.tile(np.arange(n), (steps, 1)), axis=1)
    batches = np.argsort(ranks, axis=1)
    found = {name: {} for name in BY_SIZE}
    for (name, make), size in itertools.product(BY_SIZE.items(), (32, 128, 512, n)):
        _, ends = train(make, loss_of, RATES_BY_SIZE, params, *data, batches[:, :size])
        found[name][str(size)] = float(np.nanmin(ends))
    return found


def with_and_without_gains(task, steps, seeds):
    """The mean losses of batches of 32 and of all seeds, at the best rate: {optimizer: loss}."""
    inputs, targets, outputs, loss_of = task
    draw = jax.vmap(lambda key: jax.random.randint(key, (32,), 0, len(inputs)))
    found = dict.fromkeys(GAINS, 0.0)
    keys = jax.random.split(jax.random.key(0), seeds)
    for (name, make), key in itertools.product(GAINS.items(), keys):
        init_key, batch_key = jax.random.split(key)
        params = init_network(init_key, inputs.shape[1], outputs)
        batches = draw(jax.random.split(batch_key, steps))
        found[name] += train(make, loss_of, RATES, params, inputs, targets, batches)[0] / seeds
    return {name: float(np.nanmin(means)) for name, means in found.items()}


def main():
    options = arguments(
        __doc__,
        steps_by_size=(200, "of each training by batch size"),
        steps=(500, "of each training with and without gains"),
        seeds=(4, "trainings at each rate, with gains"),
    )
    every = tasks()
    sizes = by_size(every["digits"], options.steps_by_size)
    columns = {size: (size, 1, ".1e") for size in sizes["adam"]}
    print_table("digits: the loss on all training scans at the end, by batch size", columns, sizes)
    gains, columns = {name: {} for name in GAINS}, {}
    for name, task in every.items():
        columns |= {name: (name, 1, ".4f"), f"{name} change": (f"{name} change", 1, "+.0%")}
        found = with_and_without_gains(task, options.steps, options.seeds)
        for optimizer, loss in found.items():
            gains[optimizer][name] = loss
            alone = found[optimizer.split(",")[0]]
            if loss != alone:
                gains[optimizer][f"{name} change"] = loss / alone - 1
    print_table("batches of 32: the mean loss of the batches, and its change", columns, gains)
    write(options.json, {"by_size": sizes, "gains": gains})


if __name__ == "__main__":
    main()

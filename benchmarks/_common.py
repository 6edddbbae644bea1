"""What the benchmarks share: arguments, colours, results, and a small network."""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax

# Rprop's variants warm, others cool.
COLORS = {
    "rprop_momentum": "black",
    "the same, eta_minus 0.7": "dimgray",
    "irprop_minus": "tab:red",
    "irprop_plus": "tab:orange",
    "rprop_plus": "tab:brown",
    "rprop_minus": "tab:pink",
    "optax.rprop": "tab:gray",
    "adam": "tab:blue",
    "sgd": "tab:cyan",
    "rmsprop": "tab:green",
    "adagrad": "tab:purple",
}


def arguments(description, **numbers):
    """Reads --json, --plot, and an option for each of `numbers`, a default and its meaning."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    plot = Path("figures") / f"{Path(sys.argv[0]).stem}.png"
    parser.add_argument("--plot", type=Path, default=plot, help="where the figure goes")
    parser.add_argument("--json", type=Path, help="where all numbers go")
    for name, (default, text) in numbers.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=text
        )
    return parser.parse_args()


def finish(options, numbers, figure):
    """Writes what was found."""
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot)
    plt.close(figure)
    print(f"Plot: {options.plot}")
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1))


def init_network(key, inputs, hidden, outputs):
    """Parameters of a network with one hidden layer."""
    keys = jax.random.split(key)
    glorot = jax.nn.initializers.glorot_uniform()
    return {
        "hidden_weight": glorot(keys[0], (inputs, hidden)),
        "hidden_bias": jnp.zeros(hidden),
        "weight": glorot(keys[1], (hidden, outputs)),
        "bias": jnp.zeros(outputs),
    }


def apply_network(params, inputs):
    """Its outputs, a row for each row of the inputs."""
    hidden = jnp.tanh(inputs @ params["hidden_weight"] + params["hidden_bias"])
    return hidden @ params["weight"] + params["bias"]


def count_iterations(optimizer, objective, params, target, limit):
    """Until the objective is at `target` or below, or `limit`; and the last value."""
    optimizer = optax.with_extra_args_support(optimizer)
    value_and_grad = jax.value_and_grad(objective)

    def unfinished(carry):
        iteration, _, _, value, _ = carry
        return (value > target) & (iteration < limit)

    def iterate(carry):
        iteration, params, opt_state, value, gradient = carry
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
        params = optax.apply_updates(params, updates)
        return iteration + 1, params, opt_state, *value_and_grad(params)

    first = 0, params, optimizer.init(params), *value_and_grad(params)
    iteration, _, _, value, _ = jax.lax.while_loop(unfinished, iterate, first)
    return iteration, value

"""Where a wrapper changes the tree or the numbers, what is given for a weight reaches it."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import optax_rprop
from helpers import reference, streams
from helpers.conformance import (
    GRADIENTS,
    LOSSES,
    VALUES,
    flat,
    run,
    tree,
)

# Five weights' own numbers.
NUMBERS = {
    "learning_rate": np.float32([0.02, 0.01, 0.05, 0.1, 0.3]),
    "min_step_size": np.float32([1e-6, 1e-3, 1e-3, 0.01, 0.01]),
    "max_step_size": np.float32([0.5, 0.4, 0.4, 0.4, 0.4]),
    "lower": np.float32([-2.1, -1.05, -0.3, 0.9, 1.6]),
}
PREFIXES = {name: tree(numbers) for name, numbers in NUMBERS.items()}
OF_WEIGHT_ALONE = {name: {"weight": prefix["weight"]} for name, prefix in PREFIXES.items()}


def assert_each_follows_papers(params, state, weights=range(5)):
    """Each weight, its step size and sign are those of a run of its own, with its numbers."""
    found = (
        flat(params)[-len(weights) :],
        flat(optax_rprop.step_sizes(state)),
        flat(optax_rprop.prev_signs(state)),
    )
    traces = [
        reference.run(
            "irprop_plus",
            VALUES[[weight]],
            GRADIENTS[:, [weight]],
            LOSSES,
            **{name: numbers[weight] for name, numbers in NUMBERS.items()},
        )
        for weight in weights
    ]
    for got, parts in zip(found, zip(*traces, strict=True), strict=True):
        streams.assert_same_bits(got, np.concatenate([part[-1] for part in parts]))


@pytest.mark.parametrize(
    ("optimizer", "weights"),
    [
        (optax.inject_hyperparams(optax_rprop.irprop_plus)(**PREFIXES), range(5)),
        # Of one array of all weights.
        (optax.flatten(optax_rprop.irprop_plus(**NUMBERS)), range(5)),
        # Of the part that it hands on.
        (
            optax.masked(
                optax_rprop.irprop_plus(**OF_WEIGHT_ALONE), {"bias": False, "weight": True}
            ),
            range(1, 5),
        ),
    ],
    ids=["inject_hyperparams", "flatten", "masked"],
)
def test_wrapper(optimizer, weights):
    assert_each_follows_papers(*run(optimizer), weights)


def test_sharded():
    """The numbers sharded like their weights: the weight split by rows, the bias whole."""
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:2]), "rows")
    specs = {"bias": PartitionSpec(), "weight": PartitionSpec("rows")}
    split = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    prefixes = {name: jax.device_put(prefix, split) for name, prefix in PREFIXES.items()}
    optimizer = optax_rprop.irprop_plus(**prefixes)
    params, state = run(optimizer, params=jax.device_put(tree(VALUES), split))
    assert optax_rprop.step_sizes(state)["weight"].sharding.is_equivalent_to(split["weight"], 2)
    assert_each_follows_papers(params, state)

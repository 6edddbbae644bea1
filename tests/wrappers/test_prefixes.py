"""Where a wrapper changes the tree or the numbers, what is given for a weight reaches it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference, streams
from helpers.conformance import (
    GRADIENTS,
    LOSSES,
    VALUES,
    every_plain_kind,
    flat,
    of_weight_alone,
    on_two_devices,
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


def assert_each_follows_papers(make, params, state, gradients=GRADIENTS, weights=range(5)):
    """Each weight, its step size and sign are those of a run of its own, with its numbers."""
    found = flat(params), flat(optax_rprop.step_sizes(state)), flat(optax_rprop.prev_signs(state))
    traces = [
        reference.run(
            make.__name__,
            VALUES[[weight]],
            gradients[:, [weight]],
            LOSSES,
            **{name: numbers[weight] for name, numbers in NUMBERS.items()},
        )
        for weight in weights
    ]
    for got, parts in zip(found, zip(*traces, strict=True), strict=True):
        streams.assert_same_bits(got, np.concatenate([part[-1] for part in parts]))


@every_plain_kind
@pytest.mark.parametrize(
    "wrap",
    [
        lambda make: optax.inject_hyperparams(make)(**PREFIXES),
        lambda make: optax.flatten(make(**NUMBERS)),  # of one array of all weights
    ],
    ids=["inject_hyperparams", "flatten"],
)
def test_wrapper(make, wrap):
    assert_each_follows_papers(make, *run(wrap(make)))


@every_plain_kind
def test_part_of_the_tree(make):
    """A wrapper that hands on part of the parameters takes a prefix of that part."""
    for optimizer in of_weight_alone(make(**OF_WEIGHT_ALONE)):
        params, state = run(optimizer)
        assert_each_follows_papers(make, params["weight"], state, weights=range(1, 5))


@every_plain_kind
def test_sharded(make):
    """The numbers sharded like their weights."""
    split = on_two_devices()
    prefixes = {name: jax.device_put(prefix, split) for name, prefix in PREFIXES.items()}
    params, state = run(make(**prefixes), params=jax.device_put(tree(VALUES), split))
    assert optax_rprop.step_sizes(state)["weight"].sharding.is_equivalent_to(split["weight"], 2)
    assert_each_follows_papers(make, params, state)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_arrays_on_a_mesh_with_explicit_axes(kind):
    """They take their weight's sharding, which is part of its type there."""
    if not hasattr(jax, "set_mesh"):
        pytest.skip("this JAX has no explicit axes")
    explicit = (jax.sharding.AxisType.Explicit,) * 2
    devices = np.array(jax.devices("cpu")[:8]).reshape(4, 2)
    mesh = jax.sharding.Mesh(devices, ("rows", "columns"), axis_types=explicit)
    numbers = {
        "learning_rate": 0.1,
        "eta_minus": 0.4,
        "eta_plus": 1.3,
        "min_step_size": 1e-3,
        "max_step_size": 0.5,
        "lower": -0.3,
        "upper": 0.3,
    }
    arrays = {name: kind(np.full(4, number, np.float32)) for name, number in numbers.items()}
    gradients = np.random.default_rng(0).standard_normal((5, 8, 4)).astype(np.float32)

    def path(given, place):
        params = place(np.zeros((8, 4), np.float32))
        optimizer = optax_rprop.rprop_plus(**given, undo_nonfinite=True)
        state = optimizer.init(params)
        step = jax.jit(optimizer.update)
        for gradient in gradients:
            updates, state = step(place(gradient), state, params)
            params = optax.apply_updates(params, updates)
        return params

    with jax.set_mesh(mesh):
        split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows", "columns"))
        found = path(arrays, lambda array: jax.device_put(array, split))
        assert found.sharding.is_equivalent_to(split, 2)
    streams.assert_same_bits(found, path(numbers, jnp.asarray))

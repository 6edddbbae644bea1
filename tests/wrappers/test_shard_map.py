"""Inside jax.shard_map, on eight devices: weights on all of them, shards, one model on each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

import optax_rprop
from helpers import streams

if not hasattr(jax, "shard_map"):
    pytest.skip("this JAX has no jax.shard_map", allow_module_level=True)

OPTIMIZERS = {
    "rprop_momentum": optax_rprop.rprop_momentum(0.1),
    "undoing momentum": optax_rprop.rprop_momentum(0.1, undo_nonfinite=True),
    "undoing irprop_minus": optax_rprop.irprop_minus(0.1, undo_nonfinite=True),
    "irprop_plus": optax_rprop.irprop_plus(0.1),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
}
EVERY = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
STEPS, WEIGHTS = 60, 16
# Whole numbers, so that sums of any order are equal to the last bit.
TARGET = np.float32(np.random.default_rng(0).integers(-3, 4, WEIGHTS))
WHOLE, SPLIT = PartitionSpec(), PartitionSpec("x")


def curved(weights, target):
    """NaN, with a NaN gradient, below -2.5, where some targets are."""
    distance = weights["bias"] + weights["weight"] - target
    return jnp.sum(distance**2) + 0 * jnp.sum(jnp.sqrt(weights["weight"] + 2.5))


def start():
    return {"bias": jnp.zeros(()), "weight": jnp.ones(WEIGHTS)}


def run(optimizer, step, params, target=TARGET):
    state = optimizer.init(params)
    for _ in range(STEPS):
        params, state = step(params, state, jnp.asarray(target))
    return params, state


def plain_step(optimizer):
    @jax.jit
    def step(params, state, target):
        value, gradient = jax.value_and_grad(curved)(params, target)
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state

    return step


def sharded_step(optimizer, specs, state_specs):
    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), "x")

    def step(params, state, target):
        value, gradient = jax.value_and_grad(curved)(params, target)
        value = jax.lax.psum(value, "x")  # the gradient of what is whole, JAX sums
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state

    specs = (specs, state_specs)
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(*specs, SPLIT), out_specs=specs))


def assert_close(found, expected):
    """But for rounding: sums of gradients differ, and near 0 so do their signs."""
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-3)


def spec_of(leaf):
    """Of the state's: what has a number for each weight is split, pairs too."""
    return PartitionSpec(*[None] * (leaf.ndim - 1), "x") if WEIGHTS in leaf.shape else WHOLE


@EVERY
def test_one_model_whose_weights_are_split(optimizer):
    """One slope, and one verdict, of all shards: the same path as on one device."""
    expected = run(optimizer, plain_step(optimizer), start())
    specs = {"bias": WHOLE, "weight": SPLIT}
    state_specs = jax.tree.map(spec_of, expected[1])
    found = run(optimizer, sharded_step(optimizer, specs, state_specs), start())
    assert_close(found[0], expected[0])
    if optimizer is not OPTIMIZERS["rprop_lbfgs"]:  # there, rounding decides when it gives up
        np.testing.assert_array_equal(
            optax_rprop.prev_signs(found[1])["weight"],
            optax_rprop.prev_signs(expected[1])["weight"],
        )


@EVERY
def test_one_model_on_all_devices(optimizer):
    """Each has all weights and a part of the data."""

    def loss(params, target):
        return jnp.sum((params[:, None] - target[None]) ** 2)

    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), "x")

    def step(params, state, target, total=lambda value: value):
        value, gradient = jax.value_and_grad(loss)(params, target)
        updates, state = optimizer.update(gradient, state, params, value=total(value))
        return optax.apply_updates(params, updates), state

    def on_each(*given):
        return step(*given, total=lambda value: jax.lax.psum(value, "x"))

    spread = jax.shard_map(
        on_each, mesh=mesh, in_specs=(WHOLE, WHOLE, SPLIT), out_specs=(WHOLE, WHOLE)
    )
    params = jnp.arange(3.0)
    expected = run(optimizer, jax.jit(step), params)
    assert_close(run(optimizer, jax.jit(spread), params)[0], expected[0])


@EVERY
def test_a_model_on_each_device(optimizer):
    """Where its scalars are each device's own, it is an optimizer of its own."""
    rows = TARGET.reshape(8, 2)

    def loss(params, target):
        return jnp.sum((params - target) ** 2)

    def step(params, state, target):
        value, gradient = jax.value_and_grad(loss)(params, target)
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), state

    mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), "x")
    each = jax.vmap(step)
    specs = (SPLIT, SPLIT)
    spread = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=(*specs, SPLIT), out_specs=specs))
    params, state = jnp.zeros((8, 2)), jax.vmap(optimizer.init)(jnp.zeros((8, 2)))
    expected, expected_state = params, state
    for _ in range(STEPS):
        params, state = spread(params, state, jnp.asarray(rows))
        expected, expected_state = jax.jit(each)(expected, expected_state, jnp.asarray(rows))
    streams.assert_same_bits(params, expected)

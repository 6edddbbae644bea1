"""Inside jax.shard_map, on eight devices: shards of one model, and one model on each."""

import functools

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

# Each asks all weights something else: for a slope and for what is not finite, for the loss alone,
# and for inner products.
OPTIMIZERS = {
    "undoing momentum": optax_rprop.rprop_momentum(0.1, undo_nonfinite=True),
    "irprop_plus": optax_rprop.irprop_plus(0.1),
    "rprop_lbfgs": optax_rprop.rprop_lbfgs(),
}
EVERY = pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
STEPS, WEIGHTS = 60, 16
# Whole numbers, so that sums of any order are equal to the last bit.
TARGET = np.float32(np.random.default_rng(0).integers(-3, 4, WEIGHTS))
WHOLE, SPLIT = PartitionSpec(), PartitionSpec("x")
MESH = jax.sharding.Mesh(np.array(jax.devices("cpu")[:8]), "x")


def step_of(optimizer, loss, total=lambda value: value):
    def step(params, state, target):
        value, gradient = jax.value_and_grad(loss)(params, target)
        updates, state = optimizer.update(gradient, state, params, value=total(value))
        return optax.apply_updates(params, updates), state

    return step


def run(step, params, state, target=TARGET):
    step = jax.jit(step)
    for _ in range(STEPS):
        params, state = step(params, state, jnp.asarray(target))
    return params, state


def spec_of(leaf):
    """Of the state's: what has a number for each weight is split, pairs too."""
    return PartitionSpec(*[None] * (leaf.ndim - 1), "x") if WEIGHTS in leaf.shape else WHOLE


@EVERY
def test_one_model_whose_weights_are_split(optimizer):
    """One slope, and one verdict, of all shards: the same path as on one device."""

    def loss(weights, target):
        """NaN, with a NaN gradient, below -2.5, where some targets are."""
        distance = weights["bias"] + weights["weight"] - target
        return jnp.sum(distance**2) + 0 * jnp.sum(jnp.sqrt(weights["weight"] + 2.5))

    start = {"bias": jnp.zeros(()), "weight": jnp.ones(WEIGHTS)}
    state = optimizer.init(start)
    specs = {"bias": WHOLE, "weight": SPLIT}, jax.tree.map(spec_of, state)
    # All devices sum up the loss; the gradient of the bias, JAX sums.
    of_shard = step_of(optimizer, loss, lambda value: jax.lax.psum(value, "x"))
    on_shards = jax.shard_map(of_shard, mesh=MESH, in_specs=(*specs, SPLIT), out_specs=specs)
    found, expected = (run(step, start, state) for step in (on_shards, step_of(optimizer, loss)))
    # But for rounding: sums of gradients differ, and near 0 so do their signs.
    is_close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-3)
    jax.tree.map(is_close, found[0], expected[0])
    if optimizer is not OPTIMIZERS["rprop_lbfgs"]:  # there, rounding decides when it gives up
        signs = (optax_rprop.prev_signs(state)["weight"] for _, state in (found, expected))
        np.testing.assert_array_equal(*signs)


@EVERY
def test_a_model_on_each_device(optimizer):
    """Where its scalars are each device's own, it is an optimizer of its own."""

    def loss(params, target):
        return jnp.sum((params - target) ** 2)

    each = jax.vmap(step_of(optimizer, loss))
    specs = SPLIT, SPLIT
    spread = jax.shard_map(each, mesh=MESH, in_specs=(*specs, SPLIT), out_specs=specs)
    start = jnp.zeros((8, 2)), jax.vmap(optimizer.init)(jnp.zeros((8, 2)))
    params, expected = (run(step, *start, TARGET.reshape(8, 2))[0] for step in (spread, each))
    streams.assert_same_bits(params, expected)

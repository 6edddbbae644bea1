"""Flax: a small network with eight tanh units, by `nnx` and by `TrainState`."""

import jax
import jax.numpy as jnp
import optax
import pytest

nnx = pytest.importorskip("flax.nnx")
linen = pytest.importorskip("flax.linen")
train_state = pytest.importorskip("flax.training.train_state")
X = jnp.linspace(-2, 2, 32)[:, None]
Y = jnp.sin(2 * X)


def by_nnx(optimizer, steps=200):
    rngs = nnx.Rngs(0)
    network = nnx.Sequential(nnx.Linear(1, 8, rngs=rngs), jnp.tanh, nnx.Linear(8, 1, rngs=rngs))
    optimizer = nnx.Optimizer(network, optimizer, wrt=nnx.Param)

    def loss_of(network):
        return jnp.mean((network(X) - Y) ** 2)

    @nnx.jit
    def step(network, optimizer):
        optimizer.update(network, nnx.grad(loss_of)(network))

    for _ in range(steps):
        step(network, optimizer)
    return loss_of(network)


def by_train_state(optimizer, steps=200):
    network = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(1)])

    def loss_of(params):
        return jnp.mean((network.apply(params, X) - Y) ** 2)

    @jax.jit
    def step(state):
        return state.apply_gradients(grads=jax.grad(loss_of)(state.params))

    params = network.init(jax.random.key(0), X)
    state = train_state.TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)
    for _ in range(steps):
        state = step(state)
    return loss_of(state.params)


@pytest.mark.parametrize("fit", [by_nnx, by_train_state])
def test_losses(fit, compare_losses):
    compare_losses(fit, optax.adam(1e-3), margin=100)

"""braintools: logistic regression on scikit-learn's iris data, two of its three species."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams

brainstate = pytest.importorskip("brainstate")
braintools = pytest.importorskip("braintools")
datasets = pytest.importorskip("sklearn.datasets")
START = {"weights": jnp.zeros(4), "bias": jnp.array(0.0)}


X, Y = datasets.load_iris(return_X_y=True)
X, Y = X[50:], jnp.asarray(Y[50:] - 1.0)
X = jnp.asarray((X - X.mean(0)) / X.std(0))


def loss(params):
    logits = X @ params["weights"] + params["bias"]
    misfit = optax.sigmoid_binary_cross_entropy(logits, Y).mean()
    return misfit + 0.01 * jnp.sum(params["weights"] ** 2)


def train(optimizer, pass_value=True):
    states = {name: brainstate.ParamState(value) for name, value in START.items()}
    optimizer = braintools.optim.OptaxOptimizer(optimizer)
    optimizer.register_trainable_weights(states)

    def loss_of_states():
        return loss({name: state.value for name, state in states.items()})

    @brainstate.transform.jit
    def step():
        gradient, value = brainstate.transform.grad(loss_of_states, states, return_value=True)()
        optimizer.step(gradient, **({"value": value} if pass_value else {}))

    for _ in range(60):
        step()
    return {name: state.value for name, state in states.items()}


def test_loss_of_a_plain_loop():
    """With the loss, where it is passed to `step`, and with bounds by the names of states."""
    optimizer = optax_rprop.irprop_plus(lower={"weights": 0.0})
    found, (expected, _) = train(optimizer), streams.minimize(optimizer, loss, START, 60)
    np.testing.assert_allclose(loss(found), loss(expected), rtol=1e-6)
    assert found["weights"].min() == 0 < found["weights"].max()


def test_losses(compare_losses):
    compare_losses(lambda optimizer: loss(train(optimizer, pass_value=False)), optax.adam(1e-3))

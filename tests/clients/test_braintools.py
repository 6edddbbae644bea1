"""braintools: logistic regression on scikit-learn's iris data, two of its three species."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

brainstate = pytest.importorskip("brainstate")
braintools = pytest.importorskip("braintools")
datasets = pytest.importorskip("sklearn.datasets")
RULES = [optax_rprop.rprop, optax_rprop.rprop_momentum, optax_rprop.irprop_plus]


@pytest.fixture
def loss():
    x, y = datasets.load_iris(return_X_y=True)
    x, y = x[50:], y[50:] - 1.0
    x, y = jnp.asarray((x - x.mean(0)) / x.std(0)), jnp.asarray(y)

    def loss(params):
        logits = x @ params["weights"] + params["bias"]
        misfit = optax.sigmoid_binary_cross_entropy(logits, y).mean()
        return misfit + 0.01 * jnp.sum(params["weights"] ** 2)

    return loss


START = {"weights": jnp.zeros(4), "bias": jnp.array(0.0)}


def train(loss, optimizer, steps=60, pass_value=True):
    states = {name: brainstate.ParamState(value) for name, value in START.items()}
    optimizer = braintools.optim.OptaxOptimizer(optimizer)
    optimizer.register_trainable_weights(states)

    def loss_of_states():
        return loss({name: state.value for name, state in states.items()})

    @brainstate.transform.jit
    def step():
        gradient, value = brainstate.transform.grad(loss_of_states, states, return_value=True)()
        optimizer.step(gradient, **({"value": value} if pass_value else {}))

    for _ in range(steps):
        step()
    return {name: state.value for name, state in states.items()}


def plain_loop(loss, optimizer, steps=60):
    @jax.jit
    def step(params, opt_state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = START, optimizer.init(START)
    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    return params


@pytest.mark.parametrize("make", RULES, ids=["rprop", "rprop_momentum", "irprop_plus"])
def test_loss_of_a_plain_loop(loss, make):
    trained = loss(train(loss, make()))
    np.testing.assert_allclose(trained, loss(plain_loop(loss, make())), rtol=1e-6)
    assert trained < loss(train(loss, optax.adam(1e-3))) - 0.1


def test_bounds(loss):
    params = train(loss, optax_rprop.rprop(lower={"weights": 0.0}), pass_value=False)
    assert params["weights"].min() == 0
    assert params["weights"].max() > 0


def test_error_where_the_step_omits_value(loss):
    with pytest.raises(ValueError, match=r"value=None.*rprop\(undo_nonfinite=True\)"):
        train(loss, optax_rprop.irprop_plus(), pass_value=False)

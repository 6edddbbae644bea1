"""Haiku: a network that reads scikit-learn's digits, full batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

hk = pytest.importorskip("haiku")
datasets = pytest.importorskip("sklearn.datasets")


def network(images):
    layers = [hk.Linear(32), jax.nn.relu, hk.Linear(10)]
    return hk.Sequential(layers)(images / 16)


@pytest.fixture
def data():
    images, labels = datasets.load_digits(return_X_y=True)
    return np.float32(images), labels


def fit(data, optimizer, steps=100):
    images, labels = data
    model = hk.without_apply_rng(hk.transform(network))

    def loss(params):
        logits = model.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(params, opt_state):
        value, gradient = jax.value_and_grad(loss)(params)
        updates, opt_state = optax.with_extra_args_support(optimizer).update(
            gradient, opt_state, params, value=value
        )
        return optax.apply_updates(params, updates), opt_state

    params = model.init(jax.random.key(0), images)
    opt_state = optimizer.init(params)
    for _ in range(steps):
        params, opt_state = step(params, opt_state)
    return params, loss(params)


@pytest.mark.parametrize(
    "make", [optax_rprop.rprop, optax_rprop.irprop_plus], ids=["rprop", "irprop_plus"]
)
def test_digits(data, make):
    _, adam = fit(data, optax.adam(1e-3))
    _, rprop = fit(data, make())
    assert rprop < adam / 100


def test_bounds_for_one_layer(data):
    optimizer = optax_rprop.rprop(lower={"linear_1": -0.5}, upper={"linear_1": 0.5})
    params, _ = fit(data, optimizer, 30)
    assert max(jnp.abs(leaf).max() for leaf in params["linear_1"].values()) == 0.5
    assert jnp.abs(params["linear"]["w"]).max() > 0.5

"""Haiku: a network that reads scikit-learn's digits, full batches, in a loop of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

hk = pytest.importorskip("haiku")
datasets = pytest.importorskip("sklearn.datasets")


def test_digits():
    """One layer's parameters are bounded by its name."""
    images, labels = datasets.load_digits(return_X_y=True)
    images = np.float32(images / 16)
    network = hk.without_apply_rng(
        hk.transform(lambda x: hk.Sequential([hk.Linear(32), jax.nn.relu, hk.Linear(10)])(x))
    )

    def loss(params):
        logits = network.apply(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def fit(optimizer, steps=100):
        optimizer = optax.with_extra_args_support(optimizer)

        @jax.jit
        def step(params, opt_state):
            value, gradient = jax.value_and_grad(loss)(params)
            updates, opt_state = optimizer.update(gradient, opt_state, params, value=value)
            return optax.apply_updates(params, updates), opt_state

        params = network.init(jax.random.key(0), images)
        opt_state = optimizer.init(params)
        for _ in range(steps):
            params, opt_state = step(params, opt_state)
        return params

    assert loss(fit(optax_rprop.rprop())) < loss(fit(optax.adam(1e-3))) / 100
    bounds = {"lower": {"linear_1": -0.5}, "upper": {"linear_1": 0.5}}
    params = fit(optax_rprop.irprop_plus(**bounds), 30)
    assert max(jnp.abs(leaf).max() for leaf in params["linear_1"].values()) == 0.5
    assert jnp.abs(params["linear"]["w"]).max() > 0.5

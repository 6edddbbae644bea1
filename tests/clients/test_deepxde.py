"""DeepXDE: Poisson's equation on an interval, by a network with two hidden layers."""

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest


@pytest.fixture
def dde(monkeypatch):
    monkeypatch.setenv("DDE_BACKEND", "jax")  # read at the first import
    return pytest.importorskip("deepxde")


def fit(dde, optimizer, steps=200):
    """Returns the sum of the losses: the equation's and the boundary's."""

    def residual(x, u):
        second_derivative, _ = dde.grad.hessian(u, x)
        return second_derivative + jnp.pi**2 * jnp.sin(jnp.pi * x)

    dde.config.set_random_seed(0)
    interval = dde.geometry.Interval(-1, 1)
    boundary = dde.icbc.DirichletBC(interval, lambda x: 0 * x, lambda _, on: on)
    data = dde.data.PDE(interval, residual, boundary, num_domain=16, num_boundary=2)
    network = dde.nn.FNN([1, 20, 20, 1], "tanh", "Glorot uniform")
    model = dde.Model(data, network)
    model.compile(optimizer, verbose=0)
    losses, _ = model.train(iterations=steps, display_every=steps, verbose=0)
    return np.sum(losses.loss_train[-1])


def test_losses(dde, compare_losses):
    compare_losses(functools.partial(fit, dde), optax.adam(1e-3), margin=10, passes_params=False)

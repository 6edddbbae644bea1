"""TensorCircuit: the ground state of a chain of four spins, by `backend.optimizer`."""

import functools

import jax.numpy as jnp
import optax
import pytest

tensorcircuit = pytest.importorskip("tensorcircuit")
SPINS = 4
START = 0.3 + 0.1 * jnp.arange(2.0 * SPINS).reshape(2, SPINS)


@pytest.fixture
def problem():
    """The backend, and the energy of angles with its gradient."""

    def energy(angles):  # neighbours along z, a field along x
        circuit = tensorcircuit.Circuit(SPINS)
        for spin in range(SPINS):
            circuit.rx(spin, theta=angles[0, spin])
        for spin in range(SPINS - 1):
            circuit.cnot(spin, spin + 1)
        for spin in range(SPINS):
            circuit.ry(spin, theta=angles[1, spin])
        couplings = [circuit.expectation_ps(z=[i, i + 1]) for i in range(SPINS - 1)]
        fields = [circuit.expectation_ps(x=[i]) for i in range(SPINS)]
        return -backend.real(sum(couplings + fields))

    with tensorcircuit.runtime_backend("jax") as backend:
        yield backend, backend.jit(backend.value_and_grad(energy))


def fit(problem, optimizer, steps=60):
    backend, value_and_grad = problem
    optimizer, angles = backend.optimizer(optimizer), START
    for _ in range(steps):
        angles = optimizer.update(value_and_grad(angles)[1], angles)
    return value_and_grad(angles)[0]


def test_losses(problem, compare_losses):
    compare_losses(functools.partial(fit, problem), optax.adam(1e-3), passes_params=False)

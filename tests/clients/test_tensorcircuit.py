"""TensorCircuit: the ground state of a chain of four spins, by a variational circuit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

tensorcircuit = pytest.importorskip("tensorcircuit")
SPINS = 4


@pytest.fixture
def backend():
    with tensorcircuit.runtime_backend("jax") as backend:
        yield backend


@pytest.fixture
def energy(backend):
    """The transverse-field Ising model: neighbours along z, a field along x."""

    def energy(angles):
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

    return backend.jit(backend.value_and_grad(energy))


START = 0.3 + 0.1 * jnp.arange(2.0 * SPINS).reshape(2, SPINS)


def train(energy, optimizer, steps=60):
    angles = START
    for _ in range(steps):
        _, gradient = energy(angles)
        angles = optimizer.update(gradient, angles)
    return angles


@pytest.mark.parametrize(
    "make", [optax_rprop.rprop, optax_rprop.rprop_momentum], ids=["rprop", "rprop_momentum"]
)
def test_bits_of_a_plain_loop(backend, energy, make):
    trained = train(energy, backend.optimizer(make()))

    optimizer = make()
    angles, opt_state = START, optimizer.init(START)
    for _ in range(60):
        _, gradient = energy(angles)
        updates, opt_state = jax.jit(optimizer.update)(gradient, opt_state)
        angles = optax.apply_updates(angles, updates)
    np.testing.assert_array_equal(trained, angles)

    adam = train(energy, backend.optimizer(optax.adam(1e-3)))
    assert energy(trained)[0] < energy(adam)[0] - 0.3


def test_errors_name_what_it_does_not_pass(backend, energy):
    with pytest.raises(ValueError, match=r"value=None.*rprop\(undo_nonfinite=True\)"):
        train(energy, backend.optimizer(optax_rprop.irprop_plus()))
    with pytest.raises(ValueError, match="params=None"):
        train(energy, backend.optimizer(optax_rprop.rprop(lower=-1.0)))

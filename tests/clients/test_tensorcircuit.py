"""TensorCircuit: the ground state of a chain of four spins, by `backend.optimizer`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

tensorcircuit = pytest.importorskip("tensorcircuit")
SPINS = 4
START = 0.3 + 0.1 * jnp.arange(2.0 * SPINS).reshape(2, SPINS)


def test_bits_of_a_plain_loop():
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
        value_and_grad = backend.jit(backend.value_and_grad(energy))
        optimizer = optax_rprop.rprop_momentum()
        wrapped, trained = backend.optimizer(optimizer), START
        angles, opt_state = START, optimizer.init(START)
        for _ in range(60):
            trained = wrapped.update(value_and_grad(trained)[1], trained)
            updates, opt_state = jax.jit(optimizer.update)(value_and_grad(angles)[1], opt_state)
            angles = optax.apply_updates(angles, updates)
        np.testing.assert_array_equal(trained, angles)
        assert value_and_grad(trained)[0] < value_and_grad(START)[0] - 0.3
        # It passes neither the loss nor the parameters on.
        for other, message in (
            (optax_rprop.irprop_plus(), "value=None"),
            (optax_rprop.rprop(lower=-1.0), "need params"),
        ):
            with pytest.raises(ValueError, match=message):
                backend.optimizer(other).update(START, START)

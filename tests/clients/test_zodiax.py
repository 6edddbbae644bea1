"""zodiax: `map_optimisers`, an Rprop of its own for each parameter of a spectral line."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

zdx = pytest.importorskip("zodiax")
pytestmark = pytest.mark.usefixtures("x64")
WAVELENGTHS = np.linspace(6.5e-7, 6.6e-7, 50)
TRUTH = {"centre": 6.56e-7, "width": 8e-10, "flux": 5e4, "background": 200.0}
START = {"centre": 6.55e-7, "width": 2e-9, "flux": 2e4, "background": 0.0}


class Line(zdx.Base):
    centre: jax.Array
    width: jax.Array
    flux: jax.Array
    background: jax.Array

    def __call__(self):
        z = (WAVELENGTHS - self.centre) / self.width
        return self.background + self.flux * jnp.exp(-(z**2) / 2)


def line(params):
    return Line(**{name: jnp.array(value) for name, value in params.items()})


def test_map_optimisers():
    """Parameters from 1e-9 to 5e4, each with the first step and the limits that suit it."""
    data = line(TRUTH)()

    def loss(params):
        return jnp.mean((line(START).set(params)() - data) ** 2)

    first_steps = {"centre": 1e-9, "width": 1e-10, "flux": 500.0, "background": 1.0}
    optimizers = {
        name: optax_rprop.rprop(size, min_step_size=1e-6 * size, max_step_size=1e3 * size)
        for name, size in first_steps.items()
    }
    optimizer, opt_state = zdx.map_optimisers(START, optimizers)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = jax.tree.map(jnp.array, START)
    assert not optax_rprop.converged(opt_state, 1e-3)
    for _ in range(200):
        params, opt_state = step(params, opt_state)
    for name, value in TRUTH.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-5)
    assert optax_rprop.converged(opt_state, 1e-3)

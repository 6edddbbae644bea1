"""irprop_minus is torch.optim.Rprop 2.13, bit for bit, where torch's products do not underflow."""

import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import make_torch_rprop, streams

TIGHT = {"lr": 0.3, "etas": (0.7, 1.5), "step_sizes": (0.1, 2.0)}


def ours(lr=0.01, etas=(0.5, 1.2), step_sizes=(1e-6, 50)):
    return optax_rprop.rprop(lr, *etas, *step_sizes)


def test_golden_file():
    """What torch 2.13.0 computed; needs no torch."""
    golden = np.load(make_torch_rprop.PATH)
    weights, step_sizes, _ = streams.run(ours(), jnp.zeros(10), golden["gradients"])
    streams.assert_same_bits(weights, golden["weights"])
    streams.assert_same_bits(step_sizes, golden["step_sizes"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", [{}, TIGHT], ids=["defaults", "tight"])
def test_equals_torch(dtype, given):
    pytest.importorskip("torch")
    gradients = streams.gradients(400, 50, dtype, (-15, 15), special=False)
    gradients[::7, ::3], gradients[::11, ::4] = 0, np.nan
    values = np.linspace(-3, 3, 50, dtype=dtype)
    weights, step_sizes = make_torch_rprop.run(values, gradients, **given)
    found = streams.run(ours(**given), jnp.asarray(values), gradients)
    streams.assert_same_bits(found[0], weights)
    streams.assert_same_bits(found[1], step_sizes)

"""The first step sizes without a learning rate: a tenth of each weight's size."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_rprop


def first_sizes(params, min_step_size=0.0, max_step_size=2.0**31, **box):
    """Of another rule: it is for every one."""
    limits = {"min_step_size": min_step_size, "max_step_size": max_step_size}
    optimizer = optax_rprop.irprop_plus(None, **limits, **box)
    return optax_rprop.step_sizes(optimizer.init(params))


def by_hand(weights):
    """In float64: of all weights, each of them a real number."""
    sizes = np.abs(np.asarray(weights, float))
    counting = sizes[(sizes > 0) & np.isfinite(sizes)]
    typical = np.exp(np.log(counting).mean()) if counting.size else 1.0
    larger = np.where(sizes < typical, np.minimum(typical, 10 * sizes), sizes)
    part = 0.1 * min(1, (100 / sizes.size) ** (1 / 3))  # many weights move together
    return part * np.where(sizes == 0, typical, larger)


@pytest.mark.parametrize("transform", [lambda init: init, jax.jit], ids=["eager", "jit"])
def test_formula(transform):
    """Weights of 1e-7 to 1e5 in leaves of several types and shapes, sharded too; both parts of a
    complex weight count for themselves, and a zero takes the geometric mean of all."""
    split = NamedSharding(Mesh(np.array(jax.devices("cpu")[:2]), "rows"), PartitionSpec("rows"))
    params = {
        "sharded": jax.device_put(jnp.array([0.0, -200.0]), split),
        "complex": jnp.array([3 - 4000j, 0j, 1e-5j]),
        "bfloat16": jnp.array([0, 8], jnp.bfloat16),
        "float16": jnp.array([1e-7, 60_000], jnp.float16),
        "number": jnp.float32(1e5),
        "empty": jnp.zeros((0, 2)),
    }
    parts = {name: [np.asarray(x, float)] for name, x in params.items() if name != "complex"}
    parts["complex"] = [params["complex"].real, params["complex"].imag]
    together = by_hand(np.concatenate([part.ravel() for own in parts.values() for part in own]))
    sizes = optax_rprop.step_sizes(transform(optax_rprop.rprop_momentum().init)(params))
    for name, own in parts.items():
        found = (sizes[name].real, sizes[name].imag) if name == "complex" else (sizes[name],)
        for got, part in zip(found, own, strict=True):
            wanted, together = np.split(together, [part.size])
            # A sum of ten logarithms in float32, and the state's rounding.
            rtol = 1e-2 if name == "bfloat16" else 2e-6
            np.testing.assert_allclose(np.ravel(got).astype(float), wanted, rtol=rtol)
    assert transform is jax.jit or sizes["sharded"].sharding.is_equivalent_to(split, 1)


def test_zeros_alone():
    np.testing.assert_array_equal(first_sizes({"a": jnp.zeros(2)})["a"], np.float32([0.1, 0.1]))
    assert first_sizes(jnp.zeros((), complex)) == np.complex64(0.1 + 0.1j)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(number):
    """They do not spoil the others' sizes, and their own is finite."""
    sizes = np.asarray(first_sizes(jnp.array([number, 2.0, 0.0])))
    np.testing.assert_allclose(sizes[1:], [0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(sizes[0], 0.2 if np.isnan(number) else 2.0**31, rtol=1e-6)


def test_limits():
    """Between the smallest step size and the largest; each may be a weight's own."""
    weights = jnp.array([1.0, 1e3, 1e-3])
    sizes = first_sizes(weights, min_step_size=0.01, max_step_size=50.0)
    np.testing.assert_allclose(sizes, [0.1, 50.0, 0.01], rtol=1e-6)
    sizes = first_sizes(weights, max_step_size=np.float32([0.05, 1e3, 1e3]))
    np.testing.assert_allclose(sizes, [0.05, 100.0, 1e-3], rtol=1e-6)


def test_a_box_has_a_width():
    """A tenth of it, where that is less; by each part of a complex weight, and by no one side."""
    weights = {"eV": jnp.array([285.0, 0.0, 2.0]), "z": jnp.array([100 + 0.1j])}
    lower = {"eV": np.float32([281, -np.inf, 2]), "z": -1.0}
    upper = {"eV": np.float32([293, 5, 2]), "z": 1.0}
    free, sizes = first_sizes(weights), first_sizes(weights, lower=lower, upper=upper)
    expected = [1.2, free["eV"][1], 2.0**-62]
    np.testing.assert_allclose(sizes["eV"], expected, rtol=1e-6)
    np.testing.assert_allclose(sizes["z"], [0.2 + 0.1j], rtol=1e-6)
    sides = first_sizes(weights, lower=lower), first_sizes(weights, upper=upper)
    for one_side in sides:
        chex.assert_trees_all_equal(one_side, free)
    moved = {"eV": weights["eV"] + 1e3, "z": weights["z"]}
    box = {"lower": {"eV": lower["eV"] + 1e3}, "upper": {"eV": upper["eV"] + 1e3}}
    np.testing.assert_allclose(first_sizes(moved, **box)["eV"][::2], expected[::2], rtol=1e-6)

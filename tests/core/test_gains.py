"""Adaptive gains: against Jacobs' rule in NumPy scalars, and as an Optax transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import reference_gains, streams
from helpers.reference_gains import DEFAULTS
from optax_rprop.contrib import scale_by_adaptive_gains

STEPS = 300
OTHERS = {
    "increase": 0.5,
    "decrease": 0.3,
    "average_decay": 0.0,
    "min_gain": 0.25,
    "max_gain": 2.0,
}


def stream(dtype=np.float32):
    """Five weights whose updates agree with their averages seldom, mostly, or always.

    Products of those of the first underflow.
    """
    rng = np.random.default_rng(0)
    updates = rng.standard_normal((STEPS, 5)) + np.array([0, 0.3, -1, 2, -9])
    updates[:, 0] *= 1e-30
    updates[::7, 1] = 0
    updates[5:9, 2] = np.nan, np.inf, -np.inf, 0
    return updates.astype(dtype)


def run(transformation, updates, params=None):
    """The scaled updates, the gains and the averages of a compiled scan, step by step."""
    params = jnp.zeros_like(updates[0]) if params is None else params

    def step(state, update):
        scaled, state = transformation.update(update, state)
        return state, (scaled, *optax.tree_utils.tree_get(state, "ScaleByAdaptiveGainsState"))

    return jax.jit(lambda u: jax.lax.scan(step, transformation.init(params), u)[1])(updates)


def assert_follows(found, expected, decay):
    scaled, gains, averages = map(np.asarray, found)
    streams.assert_same_bits(scaled, expected[0])
    streams.assert_same_bits(gains, expected[1])
    # XLA may fuse the average's product and sum, and so round once instead of twice: half a
    # unit in the last place of a number of at most 15, in each of the steps remembered.
    tolerance = 15 * np.finfo(averages.dtype).eps / (1 - decay)
    np.testing.assert_allclose(averages, expected[2], rtol=0, atol=tolerance)


@pytest.mark.parametrize("given", [DEFAULTS, OTHERS, {**DEFAULTS, "average_decay": 0.5}])
def test_follows_the_reference(given):
    updates = stream()
    found = run(scale_by_adaptive_gains(**given), jnp.asarray(updates))
    assert_follows(found, reference_gains.run(updates, **given), given["average_decay"])
    # The stream reaches both limits.
    assert found[1].min() == np.float32(given["min_gain"])
    assert found[1].max() == np.float32(given["max_gain"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types_have_a_float32_state(dtype):
    updates = jnp.asarray(stream(), dtype)
    scaled, gains, averages = run(scale_by_adaptive_gains(), updates)
    expected = reference_gains.run(np.asarray(updates, np.float32), **DEFAULTS)
    assert scaled.dtype == dtype
    rounded = np.asarray(expected[0]).astype(scaled.dtype)
    assert_follows((scaled, gains, averages), (rounded, *expected[1:]), 0.9)


def test_complex_numbers_are_two_reals():
    updates = np.zeros((STEPS, 5), np.complex64)
    updates.real, updates.imag = stream(), np.flip(stream(), axis=1)  # NaN in one part alone
    found = run(scale_by_adaptive_gains(), jnp.asarray(updates))
    for part in (np.real, np.imag):
        assert_follows(map(part, found), reference_gains.run(part(updates), **DEFAULTS), 0.9)


def test_trees_keep_their_structure_and_type():
    """Tuples and None in the tree, a 0-d and an empty leaf, weak and NumPy types; no recompile."""
    params = {
        "pair": (jnp.ones((2, 3), jnp.bfloat16), None, jnp.ones(2)),
        "empty": jnp.ones((0, 2)),
        "weak": jnp.asarray(1.0),
    }
    numbers = (np.float64(0.05), np.float32(0.8), np.array(0.9), 0.5, jnp.array(3.0))
    transformation = scale_by_adaptive_gains(*numbers)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for _ in range(3):
        scaled, new_state = update(params, state, params, value=1.0)
        for old, new in ((params, scaled), (state, new_state)):
            assert jax.tree.structure(old) == jax.tree.structure(new)
            for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, new_state)))
        state = new_state
    assert update._cache_size() == 1
    assert transformation.update({}, transformation.init({}))[0] == {}
    zeroed = optax.tree_utils.tree_map_params(transformation, lambda leaf: 0 * leaf, state)
    assert jax.tree.structure(zeroed) == jax.tree.structure(state)


def test_hyperparameters_may_be_traced():
    updates = jnp.asarray(stream())
    expected = run(scale_by_adaptive_gains(), updates)
    injected = optax.inject_hyperparams(scale_by_adaptive_gains)()
    # Beside complex updates it makes numbers complex.
    for given in (updates, jnp.asarray(stream() * np.complex64(1 + 2j))):
        pair = run(injected, given), run(scale_by_adaptive_gains(), given)
        jax.tree.map(streams.assert_same_bits, *pair)

    def gains(increase):
        return run(scale_by_adaptive_gains(increase), updates)[1]

    several = jax.vmap(gains)(jnp.array([0.05, 0.5]))
    streams.assert_same_bits(several[0], expected[1])
    streams.assert_same_bits(several[1], gains(0.5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_update_never_becomes_infinite(dtype):
    huge = jnp.full((STEPS, 1), 0.7 * float(jnp.finfo(dtype).max), dtype)
    scaled, gains, _ = run(scale_by_adaptive_gains(), huge)
    assert gains[-1] == 10
    assert np.isfinite(scaled.astype(float)).all()


def test_an_update_of_none_leaves_its_weight_alone():
    transformation = scale_by_adaptive_gains()
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    state = transformation.init(params)
    for _ in range(2):
        scaled, state = transformation.update({"a": jnp.ones(2), "b": None}, state)
    assert scaled["b"] is None
    for name, gain in (("a", 1.05), ("b", 1.0)):
        np.testing.assert_array_equal(state.gains[name], np.float32(gain))

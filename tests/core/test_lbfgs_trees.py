"""L-BFGS from Rprop's own steps in all trees and types, and over devices."""

import pickle

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import optax_rprop
from helpers import lbfgs, streams

MAKE = optax_rprop.rprop_lbfgs


def tree(array):
    """Twelve weights in leaves of several shapes, beside leaves without any."""
    return {"a": array[..., :4].reshape(*array.shape[:-1], 2, 2), "b": [array[..., 4], None]} | {
        "c": array[..., 5:],
        "empty": jnp.zeros((*array.shape[:-1], 0, 3)),
    }


TARGET, TREE_START = np.linspace(-1, 2, 12, dtype=np.float32), jnp.full(12, 0.3, jnp.float32)
MATRIX = jnp.asarray(lbfgs.rotated(100, 12), jnp.float32)


def bowl(params):
    """The gradient of a quadratic, of a tree or a vector."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return unravel(jnp.matmul(MATRIX, flat - TARGET, precision="highest"))


def assert_close(actual, expected):
    """But for rounding, which grows in some thirty steps on a problem of condition 100."""
    jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-3), actual, expected
    )


@pytest.fixture(scope="module")
def alone():
    """The weights at the first gradients, as one vector on one device."""
    return lbfgs.path(MAKE(), TREE_START, bowl, 30)[0]


def test_trees(alone):
    weights, _, (state, _) = lbfgs.path(MAKE(), tree(TREE_START), bowl, 30)
    assert_close(weights, jax.vmap(tree)(alone))
    assert jax.tree.structure(state.moves) == jax.tree.structure(weights)
    assert state.moves["a"].shape == (30, 10, 2, 2)
    assert state.moves["b"][0].shape == (30, 10)
    assert np.max(abs(alone[-1] - TARGET)) < 0.1 < np.max(abs(alone[0] - TARGET))
    assert np.asarray(state.countdown)[-1] == 0


@pytest.mark.parametrize("params", [{}, [None], {"empty": jnp.zeros((0, 3))}], ids=str)
@pytest.mark.parametrize("box", [{}, {"lower": 0.0}], ids=("free", "box"))
def test_a_tree_without_weights(params, box):
    optimizer = MAKE(**box)
    state = optimizer.init(params)
    updates, after = jax.jit(optimizer.update)(params, state, params)
    assert jax.tree.structure((updates, after)) == jax.tree.structure((params, state))


def test_complex_weights_are_two_reals():
    parts = {"real": TREE_START[:6], "imag": TREE_START[6:]}

    def of_complex(z):
        gradient = bowl({"imag": z.imag, "real": z.real})
        return jax.lax.complex(gradient["real"], gradient["imag"])

    weights, _, (state, _) = lbfgs.path(MAKE(), parts, bowl, 30)
    found, _, (complex_state, _) = lbfgs.path(
        MAKE(), jax.lax.complex(parts["real"], parts["imag"]), of_complex, 30
    )
    assert_close({"real": found.real, "imag": found.imag}, weights)
    np.testing.assert_array_equal(complex_state.num_pairs, state.num_pairs)
    assert complex_state.moves.dtype == jnp.complex64


@pytest.mark.parametrize("box", [{}, {"lower": -9.0}], ids=("free", "box"))
def test_a_parameter_without_a_gradient_is_left_alone(box):
    params = {"moved": TREE_START, "frozen": TREE_START[:3]}  # the first steps look at all weights

    def gradients(params):
        return {"moved": bowl(params["moved"]), "frozen": None, "function": None}

    optimizer = MAKE(**box)
    state = optimizer.init(params | {"function": None})
    before = state[0]
    for _ in range(20):
        # A whole Equinox module is passed as params.
        updates, state = optimizer.update(gradients(params), state, params | {"function": jnp.tanh})
        assert updates["frozen"] is None
        params = params | {"moved": params["moved"] + updates["moved"]}
    expected = lbfgs.path(MAKE(**box), TREE_START, bowl, 21)[0]
    assert_close(params["moved"], expected[-1])
    for field in ("move", "moves", "changes", "distance"):
        frozen = (getattr(place, field)["frozen"] for place in (before, state[0]))
        streams.assert_same_bits(*frozen)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_types_have_wide_pairs(dtype):
    start = TREE_START.astype(dtype)

    def gradients(params):
        return bowl(params.astype(jnp.float32)).astype(dtype)

    weights, updates, (state, _) = lbfgs.path(MAKE(), start, gradients, 60)
    assert weights.dtype == updates.dtype == dtype
    assert {leaf.dtype for leaf in (state.moves, state.changes, state.diagonal)} == {
        jnp.dtype("float32")
    }
    assert np.max(abs(np.asarray(weights[-1], np.float32) - TARGET)) < 0.1


def test_gradients_of_another_type():
    def gradients(params):
        return bowl(params).astype(jnp.bfloat16)

    with jax.numpy_dtype_promotion("standard"):
        weights, updates, _ = lbfgs.path(MAKE(), TREE_START, gradients, 60)
    assert (weights.dtype, updates.dtype) == (jnp.float32, jnp.bfloat16)
    assert np.max(abs(weights[-1] - TARGET)) < 0.1


def test_the_state_is_a_fixed_point_of_its_type_and_owns_its_buffers():
    params = tree(TREE_START)
    optimizer = MAKE(lower=-9.0)
    state = optimizer.init(params)
    step = jax.jit(lambda p, s, g: optimizer.update(g, s, p), donate_argnums=(0, 1))
    pointers = [
        leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state)) if leaf.size
    ]
    assert len(set(pointers)) == len(pointers)
    types = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(state)]
    structure = jax.tree.structure(state)
    for _ in range(12):
        gradients = bowl(params)
        kept = jax.tree.map(jnp.copy, params)
        updates, state = step(params, state, gradients)
        params = optax.apply_updates(kept, updates)
        assert jax.tree.structure(state) == structure
        assert [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)] == types
    assert step._cache_size() == 1


def test_eager_and_loaded_steps_are_the_same(alone):
    optimizer, params = MAKE(), TREE_START
    state = optimizer.init(params)
    for row in range(15):
        assert_close(params, alone[row])
        updates, state = optimizer.update(bowl(params), state)
        params = optax.apply_updates(params, updates)
        if row == 11:
            state = jax.tree.map(jnp.asarray, pickle.loads(pickle.dumps(jax.device_get(state))))


def test_sharded_over_devices(alone):
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), "rows")
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    params, optimizer = jax.device_put(TREE_START, sharding), MAKE()
    state = optimizer.init(params)
    rows = NamedSharding(mesh, PartitionSpec(None, "rows"))
    step = jax.jit(lambda p, s: optimizer.update(bowl(p), s))
    for row in range(15):
        assert_close(params, alone[row])
        for ring in (state[0].moves, state[0].changes):
            assert ring.sharding.is_equivalent_to(rows, 2)
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)


def test_arguments():
    with pytest.raises(ValueError, match="memory_size=0 must be a whole number, at least 1"):
        MAKE(0)
    optimizer = MAKE(lower=0.0)
    with pytest.raises(ValueError, match="need params"):
        optimizer.update(TREE_START, optimizer.init(TREE_START))
    without_params = lbfgs.path(MAKE(), TREE_START, jnp.ones((5, 12)), with_params=False)[0]
    assert without_params[4, 0] < 0.2

"""L-BFGS from Rprop's own steps in all trees and types, and over devices."""

import re

import chex
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

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


def test_trees():
    alone = lbfgs.path(MAKE(), TREE_START, bowl, 30)[0]
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


def test_a_parameter_without_a_gradient_is_left_alone():
    params = {"moved": TREE_START, "frozen": TREE_START[:3]}  # the first steps look at all weights

    def gradients(params):
        return {"moved": bowl(params["moved"]), "frozen": None, "function": None}

    optimizer = MAKE(lower=-9.0)
    state = optimizer.init(params | {"function": None})
    before = state[0]
    for _ in range(20):
        # A whole Equinox module is passed as params.
        updates, state = optimizer.update(gradients(params), state, params | {"function": jnp.tanh})
        assert updates["frozen"] is None
        params = params | {"moved": params["moved"] + updates["moved"]}
    expected = lbfgs.path(MAKE(lower=-9.0), TREE_START, bowl, 21)[0]
    assert_close(params["moved"], expected[-1])
    for field in ("move", "moves", "changes", "distance"):
        frozen = (getattr(place, field)["frozen"] for place in (before, state[0]))
        streams.assert_same_bits(*frozen)


def test_the_widest_parameter_is_left_alone(x64):
    optimizer = MAKE()
    state = optimizer.init({"wide": jnp.ones(1), "moved": jnp.ones(2, jnp.float32)})
    updates, after = optimizer.update({"wide": None, "moved": jnp.ones(2, jnp.float32)}, state)
    assert (updates["moved"] < 0).all()
    chex.assert_trees_all_equal_dtypes(after, state)


@pytest.mark.parametrize(
    ("dtype", "gradient_dtype"),
    [("bfloat16", "bfloat16"), ("float16", "float16"), ("float32", "bfloat16")],
)
def test_small_types_have_wide_pairs(dtype, gradient_dtype):
    def gradients(params):
        return bowl(params.astype(jnp.float32)).astype(gradient_dtype)

    # A float32 and a bfloat16 are added.
    with jax.numpy_dtype_promotion("strict" if dtype == gradient_dtype else "standard"):
        path = lbfgs.path(MAKE(), TREE_START.astype(dtype), gradients, 60)
    weights, updates, (state, _) = path
    assert (weights.dtype, updates.dtype) == (dtype, gradient_dtype)
    assert state.moves.dtype == state.changes.dtype == state.diagonal.dtype == jnp.float32
    assert np.max(abs(np.asarray(weights[-1], np.float32) - TARGET)) < 0.1


@pytest.mark.parametrize("size", [100, 5000])
def test_products_are_precise(size):
    """On a TPU, and in TF32 on a GPU, products of float32 are rounded unless this is asked for."""
    optimizer, params = optax_rprop.rprop_lbfgs(), jnp.ones(size, jnp.float32)
    traced = str(jax.make_jaxpr(optimizer.update)(params, optimizer.init(params)))
    precise = re.findall(r"precision=\(Precision.HIGHEST, Precision.HIGHEST\)", traced)
    assert len(precise) == traced.count("dot_general[") > 0


def test_arguments():
    with pytest.raises(ValueError, match="memory_size=0 must be a whole number, at least 1"):
        MAKE(0)
    optimizer = MAKE(lower=0.0)
    with pytest.raises(ValueError, match="need params"):
        optimizer.update(TREE_START, optimizer.init(TREE_START))
    with pytest.raises(ValueError, match=r"gradient is float32\(4,\), state float32\(12,\)"):
        optimizer.update(jnp.ones(4), optimizer.init(TREE_START), jnp.ones(4))
    assert MAKE(np.int64(3)).init(TREE_START)[0].moves.shape == (3, 12)


@pytest.mark.parametrize("bound", [3 * 10**9, np.int64(3 * 10**9), np.array([3 * 10**9])])
def test_bounds_beyond_32_bits(bound):
    weights = lbfgs.path(MAKE(upper=bound), jnp.array([5.0]), lambda x: x - 7, 20)[0]
    np.testing.assert_allclose(weights[-1], 7, rtol=1e-5)

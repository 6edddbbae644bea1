"""Reading a state inside any other, and making one."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import make_torch_rprop, reference, streams

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
GRADIENTS = {"w": jnp.array([[1.0, -2.0, 0.0], [jnp.nan, jnp.inf, -jnp.inf]]), "b": jnp.ones(3)}
SIGNS = {"w": np.int8([[1, -1, 0], [0, 1, -1]]), "b": np.int8([1, 1, 1])}


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
def test_accessors(name):
    optimizer = streams.make(name)(0.125)
    state = optimizer.init(PARAMS)
    chex.assert_trees_all_equal(
        optax_rprop.step_sizes(state), jax.tree.map(lambda p: jnp.full_like(p, 0.125), PARAMS)
    )
    chex.assert_trees_all_equal(
        optax_rprop.prev_signs(state), jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.int8), PARAMS)
    )
    _, state = optimizer.update(GRADIENTS, state, PARAMS, value=1.0)
    chex.assert_trees_all_equal(optax_rprop.prev_signs(state), SIGNS)
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        chex.assert_trees_all_equal(jax.jit(read)(state), read(state[0]))


def test_one_float_per_weight():
    state = optax_rprop.rprop().init(PARAMS)
    weights = sum(leaf.size for leaf in jax.tree.leaves(PARAMS))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) == 4 * weights
    chex.assert_trees_all_equal_shapes_and_dtypes(state[0].packed, PARAMS)


def test_going_on_from_torch():
    """Torch's step sizes and previous gradient, taken after 100 steps, lead where torch goes."""
    golden = np.load(make_torch_rprop.PATH)
    gradients, half = golden["gradients"], 100
    # torch keeps the previous gradient, and zero where it reversed.
    _, _, signs = reference.run("irprop_minus", np.zeros(10, np.float32), gradients[:half])
    state = optax_rprop.ScaleByRpropState.from_step_sizes(
        golden["step_sizes"][half - 1], signs[-1] * np.abs(gradients[half - 1])
    )
    optimizer = optax_rprop.rprop()
    params, state = jnp.asarray(golden["weights"][half - 1]), (state, optax.EmptyState())
    chex.assert_trees_all_equal_shapes_and_dtypes(state, optimizer.init(params))
    for gradient in gradients[half:]:
        updates, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    streams.assert_same_bits(params, golden["weights"][-1])


def test_going_on_with_the_loss():
    state = optax_rprop.ScaleByRpropState.from_step_sizes(jnp.ones(1), jnp.ones(1), prev_value=2.0)
    optimizer = optax_rprop.scale_by_rprop(rule="irprop_plus")
    rose, _ = optimizer.update(jnp.array([-1.0]), state, value=3.0)
    fell, _ = optimizer.update(jnp.array([-1.0]), state, value=1.0)
    np.testing.assert_array_equal((rose[0], fell[0]), (-1.0, 0.0))


def test_its_print_says_how_to_read_it():
    text = repr(optax_rprop.irprop_plus().init(PARAMS))
    assert "packed=<one float a weight: read it with step_sizes and prev_signs>" in text
    assert "prev_value=" in text
    assert "e+26" not in text


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("bfloat16", "bfloat16"), ("float16", "float32"), ("complex64", "complex64")],
)
def test_constructor_keeps_the_type_or_takes_float32(dtype, kept):
    sizes = jnp.full(2, 1 + 1j if dtype == "complex64" else 1, dtype)
    made = optax_rprop.ScaleByRpropState.from_step_sizes(sizes, sizes)
    assert made.packed.dtype == kept
    np.testing.assert_array_equal(optax_rprop.prev_signs(made), np.asarray(sizes))


@pytest.mark.parametrize(
    "signs", [*(np.array([1, 0], t) for t in ("bool", "uint8", "int8")), np.float32([3, np.nan])]
)
def test_constructor_takes_signs_of_any_real_type(signs):
    """Of a previous gradient, too: one that is NaN leaves no sign to remember."""
    made = optax_rprop.ScaleByRpropState.from_step_sizes(jnp.ones(2), jnp.array(signs))
    np.testing.assert_array_equal(optax_rprop.prev_signs(made), [1, 0])


def test_constructor_moves_step_sizes_into_the_range():
    sizes = jnp.array([0.0, -1.0, np.nan, np.inf, 2.0])
    made = optax_rprop.ScaleByRpropState.from_step_sizes(sizes, jnp.ones(5))
    found = optax_rprop.step_sizes(made)
    np.testing.assert_array_equal(found, np.float32([2**-62] * 3 + [2**31, 2]))
    np.testing.assert_array_equal(optax_rprop.prev_signs(made), [1] * 5)


def test_one_state_must_be_found():
    both = optax.chain(optax_rprop.rprop(), optax_rprop.rprop(0.1)).init(PARAMS)
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        with pytest.raises(ValueError, match=r"^opt_state holds no state of Rprop\.$"):
            read(optax.adam(0.1).init(PARAMS))
        with pytest.raises(ValueError, match=r"^opt_state holds 2 states of Rprop; pass a part"):
            read(both)
    assert optax_rprop.step_sizes(both[1])["b"][0] == np.float32(0.1)

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
    optimizer = getattr(optax_rprop, name)(0.125)
    state = optimizer.init(PARAMS)
    chex.assert_trees_all_equal(
        optax_rprop.step_sizes(state), jax.tree.map(lambda p: jnp.full_like(p, 0.125), PARAMS)
    )
    chex.assert_trees_all_equal(
        optax_rprop.prev_signs(state), jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.int8), PARAMS)
    )
    _, state = optimizer.update(GRADIENTS, state, PARAMS, value=1.0)
    chex.assert_trees_all_equal(optax_rprop.prev_signs(state), SIGNS)
    chex.assert_trees_all_equal(state[0].prev_signs, SIGNS)
    chex.assert_trees_all_equal(state[0].step_sizes, optax_rprop.step_sizes(state))


def test_accessors_are_jittable():
    state = optax_rprop.rprop(0.1).init(PARAMS)
    chex.assert_trees_all_equal(
        jax.jit(optax_rprop.step_sizes)(state), optax_rprop.step_sizes(state)
    )
    chex.assert_trees_all_equal(
        jax.jit(optax_rprop.prev_signs)(state), optax_rprop.prev_signs(state)
    )


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


def test_a_nan_gradient_leaves_no_sign_to_remember():
    state = optax_rprop.ScaleByRpropState.from_step_sizes(jnp.ones(2), jnp.array([jnp.nan, -3.0]))
    np.testing.assert_array_equal(state.prev_signs, [0, -1])


def test_constructor_keeps_the_type_or_takes_float32():
    for dtype, kept in (
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
        ("complex64", "complex64"),
    ):
        made = optax_rprop.ScaleByRpropState.from_step_sizes(
            jnp.ones(2, dtype) * jnp.asarray(1 + 1j if dtype == "complex64" else 1, dtype),
            jnp.zeros(2, complex if dtype == "complex64" else float),
        )
        assert made.packed.dtype == kept


def test_one_state_must_be_found():
    with pytest.raises(
        ValueError, match="found no Rprop state in this tuple; opt_state, the first arg"
    ):
        optax_rprop.step_sizes(optax.adam(0.1).init(PARAMS))
    both = optax.chain(optax_rprop.rprop(), optax_rprop.rprop(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match="found 2 Rprop states in this tuple; pass the part"):
        optax_rprop.prev_signs(both)
    assert optax_rprop.step_sizes(both[1])["b"][0] == np.float32(0.1)


@pytest.mark.parametrize("step_size", [0.0, -1.0, np.nan, np.inf])
def test_constructor_refuses(step_size):
    with pytest.raises(
        ValueError, match=r"step_sizes\['w'\]=.* must be a number above 0 and at most 2\*\*31"
    ):
        optax_rprop.ScaleByRpropState.from_step_sizes(
            {"w": jnp.array([1.0, step_size])}, {"w": jnp.zeros(2)}
        )


def test_constructor_refuses_trees_that_differ():
    make = optax_rprop.ScaleByRpropState.from_step_sizes
    sizes = jax.tree.map(jnp.ones_like, PARAMS)
    message = r"^step_sizes have \['b'\], which prev_signs lacks; both .* tree of the parameters"
    with pytest.raises(ValueError, match=message):
        make(sizes, {"w": jnp.ones((2, 3))})
    with pytest.raises(
        ValueError, match=r"step_sizes \['b'\] has shape \(3,\), but prev_signs has"
    ):
        make(sizes, {"w": jnp.ones((2, 3)), "b": jnp.ones(1)})
    with pytest.raises(
        TypeError, match=r"step_sizes \(the only leaf\) has dtype int32; it must be"
    ):
        make(jnp.ones(2, int), jnp.ones(2, int))
    with pytest.raises(TypeError, match=r"has dtype float32, but prev_signs has dtype complex64"):
        make(jnp.ones(2), jnp.ones(2, complex))
    with pytest.raises(TypeError, match=r"value=.* must be one real number"):
        make(jnp.ones(2), jnp.ones(2), jnp.ones(2))


def test_constructor_takes_signs_of_any_real_type():
    for dtype in ("bool", "uint8", "int8", "float16"):
        made = optax_rprop.ScaleByRpropState.from_step_sizes(jnp.ones(2), jnp.array([1, 0], dtype))
        np.testing.assert_array_equal(made.prev_signs, [1, 0])


def test_its_print_says_how_to_read_it():
    text = repr(optax_rprop.irprop_plus().init(PARAMS))
    assert "packed=<one float a weight: read it with step_sizes and prev_signs>" in text
    assert "prev_value=" in text
    assert "e+26" not in text


def test_same_treedef_for_every_rule():
    """A state of one rule can be read as another's: all but irprop_plus are of one type."""
    states = [getattr(optax_rprop, name)().init(PARAMS) for name in streams.OPTIMIZERS]
    kinds = [jax.tree.structure(state) for state in states]
    assert kinds[0] == kinds[2] == kinds[3] == kinds[4] != kinds[1]

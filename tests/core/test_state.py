"""Reading a state inside any other, and making one."""

import chex
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import make_torch_rprop, reference, streams

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


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
    optimizer = optax_rprop.scale_by_rprop(1, rule="irprop_plus")
    rose, _ = optimizer.update(jnp.array([-1.0]), state, value=3.0)
    fell, _ = optimizer.update(jnp.array([-1.0]), state, value=1.0)
    np.testing.assert_array_equal((rose[0], fell[0]), (-1.0, 0.0))


def test_its_print_says_how_to_read_it():
    text = repr(optax_rprop.irprop_plus().init(PARAMS))
    assert "packed=<one float a weight: read it with step_sizes and prev_signs>" in text
    assert "prev_value=" in text
    assert "e+26" not in text


@pytest.mark.parametrize(
    ("signs", "kept"),
    [
        *((np.array([1, 0], dtype), [1, 0]) for dtype in ("bool", "uint8", "int8")),
        (np.float32([3, np.nan]), [1, 0]),  # a previous gradient; of NaN there is no sign
        (np.complex64([2 - 3j, 1j]), [1 - 1j, 1j]),
    ],
)
def test_constructor_takes_signs_of_any_type(signs, kept):
    sizes = jnp.ones(2, signs.dtype if np.iscomplexobj(signs) else np.float32)
    made = optax_rprop.ScaleByRpropState.from_step_sizes(sizes, jnp.array(signs))
    np.testing.assert_array_equal(optax_rprop.prev_signs(made), kept)


def test_constructor_moves_step_sizes_into_the_range():
    sizes = jnp.array([0.0, -1.0, np.nan, np.inf, 2.0])
    made = optax_rprop.ScaleByRpropState.from_step_sizes(sizes, jnp.ones(5))
    found = optax_rprop.step_sizes(made)
    np.testing.assert_array_equal(found, np.float32([2**-62] * 3 + [2**31, 2]))
    np.testing.assert_array_equal(optax_rprop.prev_signs(made), [1] * 5)


def test_one_state_must_be_found():
    both = optax.chain(optax_rprop.rprop(), optax_rprop.rprop(0.1)).init(PARAMS)
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        with pytest.raises(ValueError, match=r"^opt_state holds 2 states of Rprop; pass a part"):
            read(both)
    for read in (optax_rprop.step_sizes, lambda state: optax_rprop.converged(state, 1e-5)):
        with pytest.raises(ValueError, match=r"^opt_state holds no state of Rprop\.$"):
            read(optax.adam(0.1).init(PARAMS))
    assert optax_rprop.step_sizes(both[1])["b"][0] == np.float32(0.1)

"""Trees as clients have them: whole modules, gradients that are None, abstract parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import streams


# Rules differ in the step of a leaf alone; one of these needs the loss.
@pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus"])
@pytest.mark.parametrize("box", [{}, {"lower": {"frozen": 0.0, "moved": -0.125}}], ids=str)
def test_beside_none_a_parameter_is_left_alone(name, box):
    """A function, as in a whole module, or one with a state, which it keeps for later."""
    params = {"frozen": jnp.ones(2), "function": None, "moved": jnp.zeros(2)}
    optimizer = streams.make(name)({"frozen": 0.5, "moved": 0.25}, **box)
    state = optimizer.init(params)
    gradients = {"frozen": None, "function": None, "moved": jnp.ones(2)}
    updates, after = optimizer.update(gradients, state, params | {"function": jnp.tanh}, value=1.0)
    assert updates["frozen"] is updates["function"] is None
    np.testing.assert_array_equal(updates["moved"], [-0.125 if box else -0.25] * 2)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    chex.assert_trees_all_equal(after[0].packed["frozen"], state[0].packed["frozen"])
    assert (optax_rprop.prev_signs(after)["moved"] == 1).all()


@pytest.mark.parametrize("name", [*streams.WITH_MOMENTUM, "rprop_lbfgs"])
def test_abstract_parameters(name):
    """As Optax's own optimizers, init takes shapes and types for the arrays themselves."""
    params = {"w": jnp.ones((2, 3)), "h": jnp.ones(2, jnp.float16), "z": jnp.ones(1, complex)}
    shapes = jax.eval_shape(lambda: params)
    init = streams.make(name)(lower={"w": 0.0}).init
    chex.assert_trees_all_equal(init(shapes), init(params), strict=True)


def test_more_weights_than_32_bits_count():
    optimizer = optax_rprop.irprop_minus(undo_nonfinite=True)
    weights = jax.ShapeDtypeStruct((2**17, 2**15), jnp.bfloat16)
    state = jax.eval_shape(optimizer.init, weights)
    assert jax.eval_shape(optimizer.update, weights, state, weights)[1] == state


OPTIONS = {
    "plain": {},
    "box": {"lower": {"w": -0.5}, "upper": 0.5},
    "undo": {"undo_nonfinite": True, "lower": -0.5},
    "bfloat16": {"step_dtype": "bfloat16"},
}
SWITCHES = {
    "jitted": ["jax_debug_infs", "jax_debug_nans", "jax_check_tracer_leaks"],
    "not jitted": ["jax_debug_infs", "jax_debug_nans", "jax_disable_jit"],
}


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize(
    ("options", "name"),
    [("plain", name) for name in streams.OPTIMIZERS]
    # These options see of a rule whether it undoes.
    + [("box", "irprop_plus"), ("undo", "rprop_plus"), ("bfloat16", "irprop_minus")],
)
def test_under_debug_switches(name, options, switches):
    """Nothing that is not finite, no tracer that leaks."""
    # Of a size of its own: what JAX traced before a switch, it does not check after it.
    weights = 11 + list(SWITCHES).index(switches)
    params = {"w": jnp.zeros(weights), "b": jnp.zeros((1, weights), jnp.float16)}
    gradients = {"w": jnp.resize(jnp.array([1.0, -1.0, 0.0]), weights), "b": params["b"] + 1}
    for switch in SWITCHES[switches]:
        jax.config.update(switch, True)
    try:
        optimizer = streams.make(name)(0.25, **OPTIONS[options])
        state = optimizer.init(params)
        assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
        update = jax.jit(optimizer.update)  # which jax_disable_jit takes away again
        for sign in (1, -1):
            signed = jax.tree.map(lambda g, sign=sign: (g * sign).astype(g.dtype), gradients)
            updates, state = update(signed, state, params, value=jnp.float32(1.0))
        assert jnp.isfinite(updates["w"]).all()
    finally:
        for switch in SWITCHES[switches]:
            jax.config.update(switch, False)

"""For every type of parameter and of tree, each optimizer follows the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers.conformance import (
    ALL_OPTIONS,
    GRADIENTS,
    IN_A_BOX,
    LOSSES,
    MOMENTUM,
    PLAIN,
    VALUES,
    assert_equals,
    assert_follows_papers,
    parametrize,
    run,
    trace_of,
    with_options,
)


@pytest.mark.usefixtures("x64")
@parametrize(IN_A_BOX, MOMENTUM)  # step_dtype is for real parameters
@pytest.mark.parametrize(
    ("dtype", "wrap"),
    [
        (np.complex64, lambda make: make),
        (np.complex128, lambda make: make),
        # It makes every hyperparameter complex, of which the real part counts.
        (np.complex64, optax.inject_hyperparams),
    ],
    ids=["complex64", "complex128", "inject_hyperparams"],
)
def test_complex_is_two_reals(make, dtype, wrap):
    """Which have little to do with each other."""
    values, gradients = ((x + 1j * x[::-1]).astype(dtype) for x in (VALUES, GRADIENTS))
    params, state = run(wrap(make)(), jnp.asarray(values), jnp.asarray(gradients))
    step_sizes, signs = optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
    # Side by side, since a domain error in either part takes both back.
    values, gradients = (np.append(x.real, x.imag, axis=-1) for x in (values, gradients))
    expected = [part[-1] for part in trace_of(make, values, gradients)]
    found = (np.append(np.real(got), np.imag(got)) for got in (params, step_sizes, signs))
    found = [got.astype(wanted.dtype) for got, wanted in zip(found, expected, strict=True)]
    assert_equals(make, found, expected)


def weak(shape):
    """An array whose type yields to any other, as that of a Python number does."""
    return jnp.broadcast_to(jnp.asarray(0.5), shape)


TREES = {
    "scalar": jnp.float32(0.5),
    "empty": {},
    "nested": {
        "frozen": None,
        "nothing": jnp.zeros((0, 3)),
        "tuples": (jnp.ones(1), (weak(()), (), [jnp.ones((1, 1))])),
        "weak": weak((2, 1)),
    },
}
# Of momentum with a first step size of its own, since these trees are filled after `init`.
GIVEN_MOMENTUM = with_options("momentum", MOMENTUM, learning_rate=0.01)


def filled(params, row):
    """A tree of the shapes of `params` that holds a row of numbers, in order."""
    leaves, treedef = jax.tree.flatten(params)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    filled = [
        jnp.asarray(row[start:end]).reshape(leaf.shape)
        for leaf, start, end in zip(leaves, ends, ends[1:], strict=False)
    ]
    return treedef.unflatten(filled)


def kind(state):
    leaves, treedef = jax.tree.flatten(state)
    return treedef, [(x.shape, x.dtype, x.weak_type, x.sharding) for x in leaves]


@pytest.mark.parametrize("params", TREES.values(), ids=TREES)
@parametrize(PLAIN[0], ALL_OPTIONS, GIVEN_MOMENTUM)
def test_trees(make, params, caplog):
    """A step gives a state of the type that it took, and after the first, nothing is compiled."""
    optimizer, weights = make(), sum(leaf.size for leaf in jax.tree.leaves(params))
    state = optimizer.init(params)
    step, before, start = jax.jit(optimizer.update), kind(state), filled(params, VALUES)
    _, after = step(start, state, params, value=1.0)
    assert kind(after) == before
    params = start  # of no weak types
    for count, (row, loss) in enumerate(zip(GRADIENTS, LOSSES, strict=True)):
        with jax.log_compiles(count > 0):
            updates, state = step(filled(start, row), state, params, value=loss)
        assert kind(state) == before
        params = optax.apply_updates(params, updates)
    assert not caplog.text
    for tree in (params, optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)):
        assert jax.tree.structure(tree) == jax.tree.structure(start)
    if weights:
        columns = slice(weights)
        assert_follows_papers(make, params, state, GRADIENTS[:, columns], values=VALUES[columns])

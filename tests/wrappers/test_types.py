"""For every type of parameter and of tree, each optimizer follows the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers.conformance import (
    BOUNDED,
    GRADIENTS,
    LOSSES,
    MOMENTUM,
    NARROW,
    VALUES,
    assert_equals,
    assert_follows_papers,
    every_optimizer,
    every_optimizer_but,
    parametrize,
    run,
    trace_of,
    with_options,
)

every_complex_optimizer = every_optimizer_but(NARROW)  # step_dtype is for real parameters


def complex_stream(dtype):
    """Weights and gradients whose two parts have little to do with each other."""
    values = (VALUES + 1j * VALUES[::-1]).astype(dtype)
    return values, (GRADIENTS + 1j * GRADIENTS[::-1]).astype(dtype)


def assert_is_two_reals(make, optimizer, dtype):
    values, gradients = complex_stream(dtype)
    params, state = run(optimizer, jnp.asarray(values), jnp.asarray(gradients))
    step_sizes, signs = optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)
    # Side by side, since a domain error in either part takes both back.
    values, gradients = (np.append(x.real, x.imag, axis=-1) for x in (values, gradients))
    expected = [part[-1] for part in trace_of(make, values, gradients)]
    found = (np.append(np.real(got), np.imag(got)) for got in (params, step_sizes, signs))
    found = [got.astype(wanted.dtype) for got, wanted in zip(found, expected, strict=True)]
    assert_equals(make, found, expected)


@pytest.mark.usefixtures("x64")
@every_complex_optimizer
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex(make, dtype):
    assert_is_two_reals(make, make(), dtype)


@every_complex_optimizer
def test_complex_with_inject_hyperparams(make):
    """It makes every hyperparameter complex, of which the real part counts."""
    assert_is_two_reals(make, optax.inject_hyperparams(make)(), np.complex64)


def weak(shape):
    """An array whose type yields to any other, as that of a Python number does."""
    return jnp.broadcast_to(jnp.asarray(0.5), shape)


TREES = {
    "scalar": jnp.float32(0.5),
    "empty tree": {},
    "None leaf": {"a": jnp.ones(2), "frozen": None, "z": jnp.ones(3)},
    "zero-size array": {"a": jnp.zeros((0, 3)), "b": jnp.ones(2)},
    "tuples": (jnp.ones(2), (jnp.ones(1), (), [jnp.ones((1, 1))])),
    "weak types": {"a": weak(()), "b": weak((2, 2))},
}
every_tree = pytest.mark.parametrize("params", TREES.values(), ids=TREES)
# A rule sees a leaf's numbers alone; with a loss, a box or another type, init and update see more.
# Of momentum with a first step size of its own, since these trees are filled after `init`.
GIVEN_MOMENTUM = with_options("momentum", MOMENTUM, learning_rate=0.01)
seeing_more = parametrize([BOUNDED[1], NARROW, GIVEN_MOMENTUM])


def filled(params, row):
    """A tree of the shapes of `params` that holds a row of numbers, in order."""
    leaves, treedef = jax.tree.flatten(params)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    filled = [
        jnp.asarray(row[start:end]).reshape(leaf.shape)
        for leaf, start, end in zip(leaves, ends, ends[1:], strict=False)
    ]
    return treedef.unflatten(filled)


@seeing_more
@every_tree
def test_trees(make, params):
    weights = sum(leaf.size for leaf in jax.tree.leaves(params))
    optimizer = make()
    state = optimizer.init(params)
    start = params = filled(params, VALUES)
    for row, loss in zip(GRADIENTS, LOSSES, strict=True):
        updates, state = optimizer.update(filled(start, row), state, params, value=loss)
        params = optax.apply_updates(params, updates)
    assert jax.tree.structure(params) == jax.tree.structure(start)
    assert jax.tree.structure(optax_rprop.step_sizes(state)) == jax.tree.structure(start)
    assert jax.tree.structure(optax_rprop.prev_signs(state)) == jax.tree.structure(start)
    if weights:
        columns = slice(weights)
        assert_follows_papers(make, params, state, GRADIENTS[:, columns], values=VALUES[columns])


def kind(state):
    leaves, treedef = jax.tree.flatten(state)
    return treedef, [(x.shape, x.dtype, x.weak_type, x.sharding) for x in leaves]


@seeing_more
@every_tree
def test_state_is_a_fixed_point(make, params, caplog):
    """A step gives a state of the type that it took, and after the first, nothing is compiled."""
    assert_fixed_point(make, params, caplog)


@every_optimizer
def test_state_is_a_fixed_point_for_every_rule(make, caplog):
    assert_fixed_point(make, TREES["weak types"], caplog)


def assert_fixed_point(make, params, caplog):
    optimizer = make()
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    gradients = filled(params, VALUES)  # of no weak types, whatever the parameters
    for given in (params, gradients):
        _, after = step(given, state, params, value=1.0)
        assert kind(after) == kind(state)
    with jax.log_compiles():
        for _ in range(3):
            _, after = step(gradients, after, params, value=1.0)
    assert not caplog.text

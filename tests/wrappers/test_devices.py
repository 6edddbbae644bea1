"""On eight devices, each optimizer keeps its parameters' sharding and sends nothing."""

import inspect
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import optax_rprop
from helpers import conformance, streams
from helpers.conformance import (
    ALL_OPTIONS,
    LOSSES,
    MOMENTUM,
    STEPS,
    every_kind,
    has_lbfgs,
    options_of,
)

SPECS = {
    "split both ways": PartitionSpec("rows", "columns"),
    "split one way": PartitionSpec("columns"),
    "whole everywhere": PartitionSpec(),
}
SHAPES = {"split both ways": (8, 4), "split one way": (4,), "whole everywhere": (3,)}
VALUES = {name: np.linspace(-2, 2, math.prod(shape)) for name, shape in SHAPES.items()}
GRADIENTS = {
    name: streams.gradients(STEPS, len(values), np.float32, (-2, 2), special=False)
    for name, values in VALUES.items()
}


@pytest.fixture(params=["auto", "explicit"])
def mesh(request):
    """Four by two devices, with axes that the compiler shards along, or the types say."""
    devices = np.array(jax.devices("cpu")[:8]).reshape(4, 2)
    axes = ("rows", "columns")
    if request.param == "auto":
        yield jax.sharding.Mesh(devices, axes)
    elif not hasattr(jax, "set_mesh"):
        pytest.skip("this JAX has no explicit axes")
    else:
        explicit = (jax.sharding.AxisType.Explicit,) * 2
        mesh = jax.sharding.Mesh(devices, axes, axis_types=explicit)
        with jax.set_mesh(mesh):
            yield mesh


def on_devices(mesh, rows, dtype=np.float32):
    """One row of each leaf's numbers, in its shape and sharding."""
    return {
        name: jax.device_put(
            dtype(rows[name]).reshape(SHAPES[name]), NamedSharding(mesh, SPECS[name])
        )
        for name in SHAPES
    }


def assert_sharded(tree, mesh):
    for name, spec in SPECS.items():
        expected = NamedSharding(mesh, spec)
        assert tree[name].sharding.is_equivalent_to(expected, tree[name].ndim), name


COLLECTIVES = (
    r"(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter)"
    r"(?:-start)?\("
)


@every_kind
def test_follows_papers(make, mesh, request):
    """By one program, since the state has the sharding that it had before the step.

    Numbers may be arrays, which take their weight's sharding: part of its type on explicit axes.
    It sends nothing, unless it asks all weights together: whether anything is NaN, for the slope
    along the average, or for inner products.
    """
    dtype = np.float32
    if has_lbfgs(make):  # its pairs are random here, and amplify how a CPU rounds
        dtype = np.float64
        request.getfixturevalue("x64")
    kinds = itertools.cycle([np.asarray, jnp.asarray])
    numbers = inspect.signature(make).parameters if make is ALL_OPTIONS else {}
    given = {name: numbers[name].default for name in [*numbers][:5]} | options_of(make)
    given = {
        name: next(kinds)([dtype(number)]) if isinstance(number, float) else number
        for name, number in given.items()
    }
    optimizer = make(**given)

    def step(params, state, gradients, loss):
        updates, state = optimizer.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    rows = [{name: rows[count] for name, rows in GRADIENTS.items()} for count in range(STEPS)]
    params = on_devices(mesh, VALUES, dtype)
    state = optimizer.init(params)
    assert_sharded(optax_rprop.step_sizes(state), mesh)
    assert_sharded(optax_rprop.prev_signs(state), mesh)
    step = jax.jit(step).lower(params, state, on_devices(mesh, rows[0], dtype), LOSSES[0]).compile()
    if not has_lbfgs(make):
        found = re.findall(COLLECTIVES, step.as_text())
        assert set(found) == set(["all-reduce"] * (make in (ALL_OPTIONS, MOMENTUM)))
        # One for each way in which leaves are split; XLA of 2024 makes another.
        assert len(found) <= 2 + (jax.__version__ < "0.5")
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    for row, loss in zip(rows, LOSSES, strict=True):
        params, state = step(params, state, on_devices(mesh, row, dtype), loss)
        for leaf, old in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
            assert leaf.sharding.is_equivalent_to(old, leaf.ndim)
    step_sizes = optax_rprop.step_sizes(state)
    assert_sharded(params, mesh)
    assert_sharded(step_sizes, mesh)
    # Side by side, since a domain error anywhere takes all of them back.
    values = dtype(np.concatenate([VALUES[name] for name in sorted(SPECS)]))
    gradients = np.concatenate([GRADIENTS[name] for name in sorted(SPECS)], axis=1)
    expected = [part[-1] for part in conformance.trace_of(make, values, gradients)[:2]]
    found = map(conformance.flat, (params, step_sizes))
    conformance.assert_equals(make, found, expected)


@every_kind
def test_compiled_init_is_told_the_sharding(make, mesh):
    """By optax.tree.map_params: inside jit, auto axes cannot be seen.

    Pairs have an axis of their own before the parameter's, which Optax does not say.
    """

    def placed(leaf, parameter):
        own = (None,) * (leaf.ndim - parameter.ndim)
        return NamedSharding(mesh, PartitionSpec(*own, *parameter.sharding.spec))

    optimizer = make()
    params = on_devices(mesh, VALUES)
    shardings = optax.tree_map_params(
        optimizer,
        placed,
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
    state = jax.jit(optimizer.init, out_shardings=shardings)(params)
    assert_sharded(optax_rprop.step_sizes(state), mesh)

"""On eight devices, each optimizer keeps its parameters' sharding and sends nothing."""

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
    LBFGS,
    LOSSES,
    MOMENTUM,
    STEPS,
    every_kind,
    every_optimizer,
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


def on_devices(mesh, rows):
    """One row of each leaf's numbers, in its shape and sharding."""
    return {
        name: jax.device_put(
            np.float32(rows[name]).reshape(SHAPES[name]), NamedSharding(mesh, SPECS[name])
        )
        for name in SHAPES
    }


def assert_sharded(tree, mesh):
    for name, spec in SPECS.items():
        expected = NamedSharding(mesh, spec)
        assert tree[name].sharding.is_equivalent_to(expected, tree[name].ndim), name


def step_of(optimizer):
    def step(params, state, gradients, loss):
        updates, state = optimizer.update(gradients, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)


@every_kind
def test_follows_papers(make, mesh):
    optimizer = make()
    params = on_devices(mesh, VALUES)
    state = optimizer.init(params)
    step = step_of(optimizer)
    for count, loss in enumerate(LOSSES):
        gradients = on_devices(mesh, {name: rows[count] for name, rows in GRADIENTS.items()})
        params, state = step(params, state, gradients, loss)
    step_sizes = optax_rprop.step_sizes(state)
    assert_sharded(params, mesh)
    assert_sharded(step_sizes, mesh)
    # Side by side, since a domain error anywhere takes all of them back.
    values = np.float32(np.concatenate([VALUES[name] for name in sorted(SPECS)]))
    gradients = np.concatenate([GRADIENTS[name] for name in sorted(SPECS)], axis=1)
    expected = [part[-1] for part in conformance.trace_of(make, values, gradients)[:2]]
    found = map(conformance.flat, (params, step_sizes))
    atol = 1e-4 if make is LBFGS[1] else 1e-5  # moves as long as the box: rounding is of its size
    conformance.assert_equals(make, found, expected, atol)


@every_kind
def test_init_takes_the_sharding(make, mesh):
    state = make().init(on_devices(mesh, VALUES))
    assert_sharded(optax_rprop.step_sizes(state), mesh)
    assert_sharded(optax_rprop.prev_signs(state), mesh)


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


@every_kind
def test_sharding_is_a_fixed_point(make, mesh, caplog):
    """From the second step on, nothing is traced or compiled."""
    optimizer = make()
    params = gradients = on_devices(mesh, VALUES)
    state = optimizer.init(params)
    step = step_of(optimizer)
    params, state = step(params, state, gradients, 1.0)
    with jax.log_compiles():
        step(params, state, gradients, 1.0)
    assert not caplog.text


COLLECTIVES = (
    r"(all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter)"
    r"(?:-start)?\("
)


def collectives(function, *given):
    return re.findall(COLLECTIVES, jax.jit(function).lower(*given).compile().as_text())


@every_optimizer
def test_update_sends_nothing(make, mesh):
    """The compiled step holds no collective, but one that asks all weights together.

    Whether anything is NaN, or for the slope along the average.
    """
    optimizer = make()
    params = gradients = on_devices(mesh, VALUES)
    state = optimizer.init(params)
    asks_all = "undo_nonfinite" in options_of(make) or make is MOMENTUM
    found = collectives(step_of(optimizer), params, state, gradients, 1.0)
    assert set(found) == set(["all-reduce"] * asks_all)
    # One for each way in which leaves are split; XLA of 2024 makes another.
    assert len(found) <= 2 + (jax.__version__ < "0.5")


def test_a_sum_sends_something(mesh):
    """What the test above looks for is found where there is some."""
    assert collectives(jnp.sum, on_devices(mesh, VALUES)["split both ways"])

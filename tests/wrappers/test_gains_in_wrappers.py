"""Inside the same wrappers, loops and transformations, adaptive gains follow Jacobs' rule."""

import jax
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference_gains, streams
from helpers.conformance import (
    FINITE,
    GRADIENTS,
    VALUES,
    flat,
    of_weight_alone,
    on_even_steps,
    on_two_devices,
    run,
    run_nnx,
    tree,
)
from helpers.reference_gains import DEFAULTS

RATE = 2.0**-7  # an exact product, whether or not XLA rounds it before the sum


def gains(increase=0.05, decrease=0.8, average_decay=0.9, min_gain=0.1, max_gain=10.0):
    """Gradient descent with gains."""
    adaptive = optax_rprop.contrib.scale_by_adaptive_gains(
        increase, decrease, average_decay, min_gain, max_gain
    )
    return optax.chain(adaptive, optax.scale(-RATE))


def assert_follows(params, state, gradients=GRADIENTS, values=VALUES, **given):
    """Weights and gains to the last bit, wherever in `state`."""
    scaled, expected_gains, averages = reference_gains.run(gradients, **(DEFAULTS | given))
    weights = values
    for row in scaled:
        weights = weights - np.float32(RATE) * row
    found = optax.tree_utils.tree_get(state, "ScaleByAdaptiveGainsState")
    streams.assert_same_bits(flat(params), weights)
    streams.assert_same_bits(flat(found.gains), expected_gains[-1])
    # XLA may round the average's product and sum at once: half a unit in the last place of a
    # number of at most 100, in each of the ten steps that it remembers.
    np.testing.assert_allclose(flat(found.averages), averages[-1], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("wrap", "gradients"),
    [
        (lambda inner: inner, GRADIENTS),
        (lambda inner: optax.chain(optax.clip(1e9), inner), GRADIENTS),
        (lambda inner: optax.MultiSteps(inner, 1), FINITE),
        (lambda inner: optax.apply_if_finite(inner, 1), FINITE),
        (lambda inner: optax.conditionally_mask(inner, lambda step: step >= 0), GRADIENTS),
        (optax.flatten, GRADIENTS),
    ],
    ids=["scan", "chain", "MultiSteps", "apply_if_finite", "conditionally_mask", "flatten"],
)
def test_wrappers(wrap, gradients):
    with jax.numpy_dtype_promotion("standard"):  # MultiSteps promotes types
        ran = run(wrap(gains()), gradients=gradients)
    assert_follows(*ran, gradients)


def test_skipped_steps_leave_the_gains_alone():
    ran = run(optax.conditionally_mask(gains(), on_even_steps))
    assert_follows(*ran, GRADIENTS[::2])


def test_part_of_the_tree():
    for optimizer in of_weight_alone(gains()):
        params, state = run(optimizer)
        assert_follows(params["weight"], state, GRADIENTS[:, 1:], VALUES[1:])


def test_schedule():
    """Through inject_hyperparams it takes effect."""
    ran = run(optax.inject_hyperparams(gains)(increase=lambda step: 0.3))
    assert_follows(*ran, increase=0.3)


def test_flax():
    assert_follows(*run_nnx(gains()))
    train_state = pytest.importorskip("flax.training.train_state")
    state = train_state.TrainState.create(apply_fn=None, params=tree(VALUES), tx=gains())
    for row in GRADIENTS:
        state = state.apply_gradients(grads=tree(row))
    assert_follows(state.params, state.opt_state)


def test_sharded():
    split = on_two_devices()
    params = jax.device_put(tree(VALUES), split)
    for leaf in jax.tree.leaves(gains().init(params)):
        kind = "bias" if leaf.ndim == 0 else "weight"
        assert leaf.sharding.is_equivalent_to(split[kind], leaf.ndim)
    assert_follows(*run(gains(), params=params))

"""`converged`: stop on the step sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams
from optax_rprop._converged import distance_left


def test_every_leaf_counts():
    make = optax_rprop.ScaleByRpropState.from_step_sizes
    for large in ("w", "b", "c"):
        sizes = {"w": jnp.ones(3), "b": jnp.ones(()), "c": jnp.full(2, 1 + 1j)}
        signs = jax.tree.map(jnp.zeros_like, sizes)
        assert optax_rprop.converged(make(sizes, signs), 1.0)
        sizes[large] = jnp.array([1 + 2j, 1 + 1j]) if large == "c" else 2 * sizes[large]
        assert not optax_rprop.converged(make(sizes, signs), 1.0)
    assert optax_rprop.converged(make({}, {}), 1.0)


@pytest.mark.parametrize("make", [optax_rprop.rprop, optax_rprop.rprop_lbfgs])
def test_a_part_without_parameters(make):
    """As `equinox.partition` leaves one; the weights beside it are at rest in the end."""
    optimizer, params = make(), {"weight": jnp.ones(2), "function": None}
    state = optimizer.init(params)
    assert not optax_rprop.converged(state, 1e-3)
    _, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert optax_rprop.converged(state, 1e-3)


@pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus"])
def test_active_bounds(name):
    """A weight that its bound holds does not delay the end, though its step size is large."""
    optimizer = streams.make(name)(1.0, lower=0.0)
    target = jnp.array([3.0, -1.0, 0.5, -2.0])
    weights, state = streams.minimize(
        optimizer, lambda x: jnp.sum((x - target) ** 2), jnp.ones(4), 300
    )
    assert optax_rprop.converged(state, 1e-5)
    np.testing.assert_allclose(weights, np.maximum(target, 0), atol=1e-4)
    assert optax_rprop.step_sizes(state)[1] > 0.1


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
def test_what_is_not_the_solution(name):
    """A NaN is no zero; one idle weight does not speak for others; idleness ends with a slope."""
    optimizer = streams.make(name)(0.1)
    state = optimizer.init(jnp.zeros(2))
    assert not optax_rprop.converged(state, 1e-3)  # nothing is known before the first gradient
    for gradient in ([jnp.nan, jnp.nan], [0.0, 1.0], [0.0, jnp.nan], [jnp.inf, 0.0]):
        _, after = optimizer.update(jnp.array(gradient), state, value=0.0)
        assert not optax_rprop.converged(after, 1e-3)
    _, idle = optimizer.update(jnp.zeros(2), state, value=0.0)
    assert optax_rprop.converged(idle, 1e-3)
    assert (optax_rprop.step_sizes(idle) == np.float32(0.1)).all()
    assert (optax_rprop.prev_signs(idle) == 0).all()
    updates, moving = optimizer.update(jnp.ones(2), idle, value=1.0)
    assert not optax_rprop.converged(moving, 1e-3)
    np.testing.assert_array_equal(updates, -np.float32([0.1, 0.1]))


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
def test_a_reversal_is_not_idle(name):
    optimizer = streams.make(name)(0.1)
    _, state = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)), value=0.0)
    _, state = optimizer.update(-jnp.ones(2), state, value=0.0)
    assert not optax_rprop.converged(state, 0.049)
    assert optax_rprop.converged(state, 0.051)


@pytest.mark.parametrize("name", ["rprop_plus", "irprop_plus"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_out_of_the_domain_a_zero_gradient_is_not_at_rest(name, value):
    """As where a loss of jnp.where(x < 0, nan, ...) has a derivative of 0."""
    optimizer = streams.make(name)(0.1, undo_nonfinite=True)
    params = jnp.zeros(2)
    _, state = optimizer.update(params, optimizer.init(params), params, value=value)
    assert not optax_rprop.converged(state, 1e-3)


def test_each_parameter_has_its_own_tolerance():
    sizes = {"a": jnp.array([1.0, 100.0]), "b": jnp.array(1e-3)}
    state = optax_rprop.ScaleByRpropState.from_step_sizes(sizes, sizes)
    converged = jax.jit(optax_rprop.converged)
    assert converged(state, {"a": 100.0, "b": 1e-3})
    assert converged(state, {"a": jnp.array([1.0, 100.0]), "b": 1e-3})
    assert not converged(state, {"a": jnp.array([0.9, 100.0]), "b": 1e-3})
    assert not converged(state, {"a": 100.0, "b": 1e-4})
    assert converged(optax_rprop.ScaleByRpropState.from_step_sizes(sizes["a"], sizes["a"]), 100)
    # In several states, each has its part.
    two = optax.multi_transform(
        {"one": optax_rprop.rprop(0.1), "two": optax_rprop.rprop(0.2)}, {"a": "one", "b": "two"}
    )
    state = two.init(sizes)
    assert converged(state, {"a": 0.1, "b": 0.2})
    for close in ({"a": 0.2, "b": 0.1}, {"a": 0.09, "b": 0.2}):
        assert not converged(state, close)


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        (-1.0, r"^tolerance=-1.0 must lie in \[0, inf\)"),
        (np.nan, "^tolerance=nan must lie in"),
        ({"a": 1.0, "b": np.array([1.0, -1.0])}, r"^tolerance\['b'\]=\[ 1. -1.\] must lie in"),
        ({"a": 1e-3}, r"^tolerance has no value for parameter \['b'\]"),
        ({"a": 1.0, "b": 1.0, "c": 1.0}, r"^tolerance\['c'\] belongs to none of the parameters"),
        ({"a": np.ones(3), "b": 1.0}, "[Ii]ncompatible"),
    ],
)
def test_a_tolerance_that_does_not_fit(tolerance, message):
    state = optax_rprop.rprop().init({"a": jnp.zeros(2), "b": jnp.zeros(())})
    with pytest.raises(ValueError, match=message):
        optax_rprop.converged(state, tolerance)


def test_how_far_a_flat_direction_may_lead():
    """By the gradients of the weights that it moves: a steep weight's own do not count."""
    state = optax_rprop.scale_by_rprop_lbfgs(memory_size=2).init(jnp.zeros(2))
    state = state._replace(
        distance=jnp.ones(2), moves=jnp.eye(2), sy=jnp.diag(jnp.array([1e-6, 1.0])), num_pairs=2
    )
    for gradient, expected in (([0.0, 1e-3], 1e-3), ([1e-3, 0.0], 1e3)):
        _, flatness = distance_left(state._replace(gradient=jnp.array(gradient)), 1.0)
        np.testing.assert_allclose(flatness, expected, rtol=1e-5)


def test_small_first_steps_are_no_end_of_lbfgs():
    """They say how large the weights were; but a weight without a gradient is done."""
    optimizer, start = optax_rprop.rprop_lbfgs(), jnp.full(2, 1e-3)
    params, state = start, optimizer.init(start)
    for _ in range(8):
        assert not optax_rprop.converged(state, 1e-3)
        updates, state = optimizer.update(params - 3, state)
        params = optax.apply_updates(params, updates)
    _, state = optimizer.update(jnp.zeros(2), optimizer.init(start))
    assert optax_rprop.converged(state, 1e-3)

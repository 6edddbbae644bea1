"""`converged`: stop on the step sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import streams

import optax_rprop

TOLERANCE = 1e-4
TARGET = {"w": np.float32([1.0, -30.0]), "b": np.float32(0.3)}
CURVATURE = {"w": np.float32([1e-3, 1e3]), "b": np.float32(1.0)}


def loss(params):
    terms = jax.tree.map(lambda c, p, t: jnp.sum(c * (p - t) ** 2), CURVATURE, params, TARGET)
    return sum(jax.tree.leaves(terms))


def start(name):
    params = jax.tree.map(jnp.zeros_like, TARGET)
    optimizer = getattr(optax_rprop, name)(0.1)
    return optimizer, params, optimizer.init(params)


def step(optimizer, params, state):
    value, gradient = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradient, state, params, value=value)
    return optax.apply_updates(params, updates), state, updates


def assert_at_target(params):
    # A weight whose sign kept changing down to a step size d is within a few d of its minimum.
    for leaf, target in zip(jax.tree.leaves(params), jax.tree.leaves(TARGET), strict=True):
        np.testing.assert_allclose(leaf, target, atol=10 * TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
def test_in_a_while_loop(name):
    optimizer, params, state = start(name)
    params, state = jax.jit(
        lambda carry: jax.lax.while_loop(
            lambda carry: ~optax_rprop.converged(carry[1], TOLERANCE),
            lambda carry: step(optimizer, *carry)[:2],
            carry,
        )
    )((params, state))
    assert_at_target(params)
    sizes = optax_rprop.step_sizes(state)
    assert all((leaf <= TOLERANCE).all() for leaf in jax.tree.leaves(sizes))


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
def test_in_a_plain_loop(name):
    optimizer, params, state = start(name)
    one_step = jax.jit(lambda params, state: step(optimizer, params, state)[:2])
    for _ in range(1000):
        if optax_rprop.converged(state, TOLERANCE):
            break
        params, state = one_step(params, state)
    assert optax_rprop.converged(state, TOLERANCE)
    assert_at_target(params)


@pytest.mark.parametrize("name", ["irprop_minus", "irprop_plus"])
def test_a_zero_update_is_no_convergence(name):
    """When every weight reverses at once the update is zero, far from the minimum."""
    optimizer = getattr(optax_rprop, name)(1.0)
    params = jnp.float32(0.0)
    state = optimizer.init(params)
    zeros = 0
    for value in (3.0, 2.0, 1.0):
        gradient = params - 0.7
        updates, state = optimizer.update(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
        zeros += bool(updates == 0)
        assert not optax_rprop.converged(state, TOLERANCE)
    assert zeros
    assert abs(params - 0.7) > 0.1


def test_at_the_tolerance_itself():
    state = optax_rprop.ScaleByRpropState.from_step_sizes(jnp.float32([0.25, 0.5]), jnp.ones(2))
    assert optax_rprop.converged(state, 0.5)
    assert not optax_rprop.converged(state, 0.499)


def test_every_leaf_counts():
    make = optax_rprop.ScaleByRpropState.from_step_sizes
    for large in ("w", "b", "c"):
        sizes = {"w": jnp.ones(3), "b": jnp.ones(()), "c": jnp.full(2, 1 + 1j)}
        signs = jax.tree.map(jnp.zeros_like, sizes)
        assert optax_rprop.converged(make(sizes, signs), 1.0)
        sizes[large] = jnp.array([1 + 2j, 1 + 1j]) if large == "c" else 2 * sizes[large]
        assert not optax_rprop.converged(make(sizes, signs), 1.0)
    assert optax_rprop.converged(make({}, {}), 1.0)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), jnp.ones(2)])
def test_refuses(tolerance):
    state = optax_rprop.rprop().init(jnp.zeros(2))
    with pytest.raises(ValueError, match=r"tolerance=.* must be one number above 0"):
        optax_rprop.converged(state, tolerance)


def test_a_tolerance_from_outside_is_read_inside_jit():
    tolerance = jnp.float32(1e-3)
    state = optax_rprop.rprop().init(jnp.zeros(2))
    assert not jax.jit(lambda state: optax_rprop.converged(state, tolerance))(state)


def test_arguments_in_the_wrong_order():
    state = optax_rprop.rprop().init(jnp.zeros(2))
    with pytest.raises(TypeError, match=r"tolerance is a tuple, not a number: .*\(opt_state, tol"):
        optax_rprop.converged(1e-5, state)

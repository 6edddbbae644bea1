"""In every training loop, each optimizer follows the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers.conformance import (
    FINITE,
    GRADIENTS,
    LOSSES,
    NEED_LOSS,
    VALUES,
    assert_follows_papers,
    every_kind,
    every_kind_but,
    every_plain_optimizer,
    linear_loss,
    rule_of,
    run_nnx,
    tree,
)

ROWS = list(zip(GRADIENTS, LOSSES, strict=True))


def step_of(optimizer):
    def step(params, state, gradient, loss):
        updates, state = optimizer.update(gradient, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    return step


@every_kind
@pytest.mark.parametrize("transform", [lambda step: step, jax.jit], ids=["eager", "jit"])
def test_python_loop(make, transform):
    optimizer = make()
    params = tree(VALUES)
    state = optimizer.init(params)
    step = transform(step_of(optimizer))
    for row, loss in ROWS:
        params, state = step(params, state, tree(row), loss)
    assert_follows_papers(make, params, state)


@every_kind
def test_flax_nnx_optimizer(make):
    assert_follows_papers(make, *run_nnx(make()))


def test_converged_reads_an_nnx_optimizer():
    """The leaves of its state are no arrays."""
    _, opt_state = run_nnx(optax_rprop.rprop_momentum())
    assert optax_rprop.converged(opt_state, 1e9)
    assert not optax_rprop.converged(opt_state, 1e-9)


def test_a_bound_for_one_weight_of_an_nnx_network():
    nnx = pytest.importorskip("flax.nnx")
    network = nnx.Sequential(nnx.Linear(1, 2, rngs=nnx.Rngs(0)), nnx.tanh)
    before = jnp.array(network.layers[0].kernel[...])
    bounded = optax_rprop.rprop(0.5, lower={"layers": {0: {"bias": 0.0}}})
    optimizer = nnx.Optimizer(network, bounded, wrt=nnx.Param)
    optimizer.update(network, jax.tree.map(jnp.ones_like, nnx.state(network, nnx.Param)))
    assert (network.layers[0].bias[...] == 0).all()
    assert (network.layers[0].kernel[...] == before - 0.5).all()


def train_state(make):
    module = pytest.importorskip("flax.training.train_state")
    return module.TrainState.create(apply_fn=None, params=tree(VALUES), tx=make())


@every_kind_but(*NEED_LOSS)
def test_flax_train_state(make):
    state = train_state(make)
    step = jax.jit(lambda state, gradients: state.apply_gradients(grads=gradients))
    for row in GRADIENTS:
        state = step(state, tree(row))
    # No loss is as one that is always finite.
    assert_follows_papers(make, state.params, state.opt_state, losses=0 * FINITE[:, 0])


def test_flax_train_state_with_irprop_plus():
    """`apply_gradients` keeps the loss to itself, which is said."""
    state = train_state(optax_rprop.irprop_plus)
    with pytest.raises(ValueError, match=r"update\(gradients, state, params, value=loss\)"):
        state.apply_gradients(grads=state.params)


@every_kind
def test_equinox_filter_jit(make):
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        bias: jax.Array
        weight: jax.Array
        activation: object = jnp.tanh  # a leaf that is no array

    optimizer = make()

    @eqx.filter_jit
    def step(model, state, row, loss):
        gradients = eqx.filter_grad(linear_loss)(model, row)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, state = optimizer.update(gradients, state, params, value=loss)
        return eqx.apply_updates(model, updates), state

    model = Model(**tree(VALUES))
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for row, loss in ROWS:
        model, state = step(model, state, tree(row), loss)
    assert_follows_papers(make, eqx.filter(model, eqx.is_array), state)


@pytest.mark.usefixtures("x64")
@every_plain_optimizer
@pytest.mark.parametrize("target", [np.array([1.0]), np.array([1.0, -0.3, 1.5])])
def test_optimistix_minimiser(make, target):
    """It ends a run on a small update: the zero of an irprop rule where every weight reversed."""
    optimistix = pytest.importorskip("optimistix")
    tolerance = 1e-6
    solver = optimistix.OptaxMinimiser(make(0.1, min_step_size=0.0), rtol=0.0, atol=tolerance)
    solution = optimistix.minimise(
        lambda params, target: jnp.sum((params - target) ** 2), solver, 0 * target, target
    )
    assert solution.result == optimistix.RESULTS.successful
    # A step size falls below the tolerance by halving at a reversal, and the minimum lies inside
    # the step before it, which was less than twice the tolerance.
    near = np.max(np.abs(solution.value - target)) < 2 * tolerance
    assert near == (rule_of(make) not in ("irprop_minus", "irprop_plus"))

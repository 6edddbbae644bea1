"""In every training loop, each optimizer follows the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import streams
from helpers.conformance import (
    ALL_OPTIONS,
    FINITE,
    GRADIENTS,
    LOSSES,
    MOMENTUM,
    UNDOING_IN_A_BOX,
    VALUES,
    assert_follows_papers,
    every_kind,
    parametrize,
    tree,
)

ROWS = list(zip(GRADIENTS, LOSSES, strict=True))


@every_kind
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_python_loop(make, jitted):
    """Inside jit, with donated arguments: the state shares no memory with the parameters, and its
    memory is used again."""
    optimizer = make()

    def step(params, state, gradient, loss):
        updates, state = optimizer.update(gradient, state, params, value=loss)
        return jax.tree.map(jnp.add, params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1)) if jitted else step
    params = tree(VALUES)
    state = optimizer.init(params)
    for row, loss in ROWS:
        given = params, state
        params, state = step(*given, tree(row), loss)
        assert all(leaf.is_deleted() == jitted for leaf in jax.tree.leaves(given))
    assert_follows_papers(make, params, state)


def linear_loss(params, row):
    """A loss with a given gradient."""
    return params.bias * row["bias"] + jnp.sum(params.weight * row["weight"])


@every_kind
def test_flax_nnx_optimizer(make):
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self):
            self.bias, self.weight = (nnx.Param(leaf) for leaf in tree(VALUES).values())

    @nnx.jit
    def step(model, optimizer, row, loss):
        gradients = nnx.grad(linear_loss)(model, row)
        optimizer.update(model, gradients, value=loss)

    model = Model()
    optimizer = nnx.Optimizer(model, make(), wrt=nnx.Param)
    for row, loss in ROWS:
        step(model, optimizer, tree(row), loss)
    assert_follows_papers(make, nnx.state(model, nnx.Param), optimizer.opt_state)
    if make is MOMENTUM:  # the leaves of whose state are no arrays here
        assert optax_rprop.converged(optimizer.opt_state, 1e9)
        assert not optax_rprop.converged(optimizer.opt_state, 1e-9)


def test_a_bound_for_one_weight_of_an_nnx_network():
    nnx = pytest.importorskip("flax.nnx")
    network = nnx.Sequential(nnx.Linear(1, 2, rngs=nnx.Rngs(0)), nnx.tanh)
    before = jnp.array(network.layers[0].kernel[...])
    bounded = optax_rprop.rprop(0.5, lower={"layers": {0: {"bias": 0.0}}})
    optimizer = nnx.Optimizer(network, bounded, wrt=nnx.Param)
    optimizer.update(network, jax.tree.map(jnp.ones_like, nnx.state(network, nnx.Param)))
    assert (network.layers[0].bias[...] == 0).all()
    assert (network.layers[0].kernel[...] == before - 0.5).all()


@parametrize(UNDOING_IN_A_BOX)
def test_flax_train_state(make):
    """`apply_gradients` keeps the loss to itself, which is said where it is needed."""
    module = pytest.importorskip("flax.training.train_state")
    state = module.TrainState.create(apply_fn=None, params=tree(VALUES), tx=make())
    step = jax.jit(lambda state, gradients: state.apply_gradients(grads=gradients))
    for row in GRADIENTS:
        state = step(state, tree(row))
    # No loss is as one that is always finite.
    assert_follows_papers(make, state.params, state.opt_state, losses=0 * FINITE[:, 0])
    state = state.replace(tx=optax_rprop.irprop_plus())
    with pytest.raises(ValueError, match=r"update\(gradients, state, params, value=loss\)"):
        state.replace(opt_state=state.tx.init(state.params)).apply_gradients(grads=state.params)


@parametrize(ALL_OPTIONS, MOMENTUM)
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
@pytest.mark.parametrize("rule", streams.OPTIMIZERS)
def test_optimistix_minimiser(rule):
    """It ends a run on a small update: the zero of an irprop rule where every weight reversed."""
    optimistix = pytest.importorskip("optimistix")
    tolerance, target = 1e-6, np.array([1.0, -0.3, 1.5])
    optimizer = streams.make(rule)(0.1, min_step_size=0.0)
    solver = optimistix.OptaxMinimiser(optimizer, rtol=0.0, atol=tolerance)
    solution = optimistix.minimise(
        lambda params, target: jnp.sum((params - target) ** 2), solver, 0 * target, target
    )
    assert solution.result == optimistix.RESULTS.successful
    # A step size falls below the tolerance by halving at a reversal, and the minimum lies inside
    # the step before it, which was less than twice the tolerance.
    near = np.max(np.abs(solution.value - target)) < 2 * tolerance
    assert near == (rule not in ("irprop_minus", "irprop_plus"))

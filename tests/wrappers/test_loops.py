"""In every training loop and under every transformation, each optimizer follows the papers."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import streams
from helpers.conformance import (
    FINITE,
    GRADIENTS,
    IN_A_BOX,
    LOSSES,
    MOMENTUM,
    PLAIN,
    UNDOING_IN_A_BOX,
    VALUES,
    assert_follows_papers,
    every_kind,
    has_lbfgs,
    run,
    trace_of,
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


def test_flax_train_state():
    """`apply_gradients` keeps the loss to itself, which is said where it is needed."""
    make = UNDOING_IN_A_BOX
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


SWEEP = {
    "learning_rate": np.array([0.01, 0.1, 0.02, 1.0], np.float32),
    "eta_minus": np.array([0.5, 0.4, 0.9, 0.1], np.float32),
    "eta_plus": np.array([1.2, 1.1, 3.0, 2.0], np.float32),
    "min_step_size": np.array([1e-6, 0.05, 0.0, 0.01], np.float32),
    "max_step_size": np.array([50.0, 0.2, 0.1, 1.0], np.float32),
}


@every_kind
def test_vmapped_ensemble(make):
    """Each member is the run alone, with its hyperparameters, parameters, gradients and losses."""
    values, gradients = (np.stack([x, -x, x / 2, -x / 4]) for x in (VALUES, GRADIENTS))
    losses = np.stack([LOSSES, -LOSSES, LOSSES[::-1], -LOSSES[::-1]])
    sweep = {} if has_lbfgs(make) else SWEEP
    members = jax.jit(jax.vmap(lambda numbers, *given: run(make(**numbers), *given)))
    params, states = members(sweep, tree(values), tree(gradients), losses)
    for member in range(4):
        one, state = jax.tree.map(operator.itemgetter(member), (params, states))
        given = gradients[member], losses[member], values[member]
        numbers = {name: numbers[member] for name, numbers in sweep.items()}
        assert_follows_papers(make, one, state, *given, **numbers)


def final_weights(make, numbers, dtype):
    params, gradients = jnp.asarray(VALUES, dtype), jnp.asarray(GRADIENTS, dtype)
    return run(make(**numbers), params, gradients)[0]


NUMBERS = {"learning_rate": 0.01, "eta_minus": 0.5, "eta_plus": 1.2}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("make", "derivative"),
    [
        # By the step from what was packed, the undo and the cut, and the average.
        *((make, jax.jacfwd) for make in (*PLAIN, IN_A_BOX, MOMENTUM)),
        *((make, jax.jacrev) for make in (PLAIN[0], IN_A_BOX)),
    ],
    ids=lambda given: given.__name__,
)
def test_derivative_through_updates(make, derivative):
    """By the first step size and the two factors, through thirty steps."""
    jacobian = jax.jit(derivative(lambda numbers: final_weights(make, numbers, float)))(NUMBERS)
    for name, number in NUMBERS.items():
        change = 1e-5
        weights = [
            trace_of(make, VALUES.astype(float), GRADIENTS, **(NUMBERS | {name: number + signed}))[
                0
            ][-1]
            for signed in (-change, change)
        ]
        difference = (weights[1] - weights[0]) / (2 * change)
        # Each weight is a sum of products of factors. A central difference of the longest,
        # eta_plus**29, is off by 28 * 27 / 6 * (change / 1.2)**2 = 9e-9 of itself; where terms
        # cancel, of those, here below 10. Rounding adds 1e-15 / change.
        np.testing.assert_allclose(jacobian[name], difference, rtol=1e-8, atol=1e-7)


def test_derivative_in_float32():
    """Right at ordinary scales; on its way back it is 2**-96 of itself, and may vanish there."""

    @jax.jit
    def derivative(scale):
        def loss(learning_rate):
            numbers = NUMBERS | {"learning_rate": learning_rate}
            return scale * final_weights(PLAIN[0], numbers, np.float32).sum()

        return jax.grad(loss)(NUMBERS["learning_rate"])

    assert derivative(1.0) != 0
    assert derivative(2.0**-10) == 2.0**-10 * derivative(1.0)
    assert derivative(2.0**-60) == 0

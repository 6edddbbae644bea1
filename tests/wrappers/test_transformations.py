"""Under every transformation of JAX, each optimizer follows the papers."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.conformance import (
    GRADIENTS,
    IN_A_BOX,
    LOSSES,
    MOMENTUM,
    PLAIN,
    VALUES,
    assert_follows_papers,
    every_kind,
    has_lbfgs,
    run,
    trace_of,
    tree,
)

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
        streams = gradients[member], losses[member], values[member]
        numbers = {name: numbers[member] for name, numbers in sweep.items()}
        assert_follows_papers(make, one, state, *streams, **numbers)


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

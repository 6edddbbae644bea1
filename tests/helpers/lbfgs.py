"""What the tests of L-BFGS share."""

import jax
import numpy as np
import optax


def path(optimizer, params, gradients, steps=None):
    """Weights, updates and states where each gradient is taken, stacked.

    Step by step: so all tests of one shape share one program.
    """
    state, rows = optimizer.init(params), range(steps) if callable(gradients) else gradients
    gradient_at = jax.jit(gradients) if callable(gradients) else None
    trace = []
    for row in rows:
        gradient = gradient_at(params) if gradient_at else row
        updates, new = optimizer.update(gradient, state, params)
        trace.append((params, updates, state))
        params, state = optax.apply_updates(params, updates), new
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trace)


def of_many(optimizer):
    """One for rows of problems, each with an optimizer of its own."""
    return optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))


def rotated(condition, weights, seed=0):
    random = np.random.default_rng(seed)
    q, _ = np.linalg.qr(random.standard_normal((weights, weights)))
    return q * np.geomspace(1, condition, weights) @ q.T

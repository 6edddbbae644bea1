"""What the tests of L-BFGS share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def path(optimizer, params, gradients, steps=None, with_params=True):
    """Weights, updates and states where each gradient is taken, in one scan."""

    def step(carry, row):
        params, state = carry
        gradient = gradients(params) if callable(gradients) else row
        updates, new = optimizer.update(gradient, state, params if with_params else None)
        return (optax.apply_updates(params, updates), new), (params, updates, state)

    rows = jnp.arange(steps) if callable(gradients) else gradients
    start = params, optimizer.init(params)
    return jax.jit(lambda start: jax.lax.scan(step, start, rows)[1])(start)


def rotated(condition, weights, seed=0):
    random = np.random.default_rng(seed)
    q, _ = np.linalg.qr(random.standard_normal((weights, weights)))
    return q * np.geomspace(1, condition, weights) @ q.T

"""The L-BFGS of Optax and of SciPy, for so many evaluations: a loss with its gradient each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize


@functools.partial(jax.jit, static_argnames=("loss", "evaluations"))
def optax_lbfgs(loss, start, evaluations):
    """The losses, and the last point. Each step of the zoom line search is an evaluation."""
    optimizer = optax.lbfgs()

    def step(carry):
        x, state, used, losses = carry
        value, gradient = optax.value_and_grad_from_state(loss)(x, state=state)
        more = {"value": value, "grad": gradient, "value_fn": loss}
        update, state = optimizer.update(gradient, state, x, **more)
        searched = optax.tree.get(state, "info").num_linesearch_steps
        used += jnp.maximum(1, searched).astype(used.dtype)
        losses = losses.at[used - 1].set(optax.tree.get(state, "value"), mode="drop")
        return optax.apply_updates(x, update), state, used, losses

    losses = jnp.full(evaluations, jnp.inf, start.dtype).at[0].set(loss(start))
    first = start, optimizer.init(start), jnp.int32(1), losses
    x, _, _, losses = jax.lax.while_loop(lambda carry: carry[2] < evaluations, step, first)
    return losses, x


def scipy_lbfgsb(value_and_grad, start, bounds, evaluations, **options):
    """The losses, the best point, and what SciPy says. By default, it stops when it is stuck."""
    losses, points = [], []

    def evaluate(x):
        value, gradient = value_and_grad(jnp.asarray(x, start.dtype))
        losses.append(float(value))
        points.append(x.copy())
        return float(value), np.asarray(gradient, float)

    options = {"maxfun": evaluations, "maxiter": evaluations} | (options or {"ftol": 0, "gtol": 0})
    arguments = {"jac": True, "method": "L-BFGS-B", "bounds": bounds, "options": options}
    found = scipy.optimize.minimize(evaluate, np.asarray(start, float), **arguments)
    best = points[np.argmin(np.nan_to_num(losses, nan=np.inf))]
    losses = np.array([*losses, *[np.inf] * evaluations])[:evaluations]
    return losses, jnp.asarray(best, start.dtype), found

"""How a problem is run: each contender gives the losses of its first evaluations.

An evaluation is a loss with its gradient. Those of line searches count.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from jax.flatten_util import ravel_pytree

import optax_rprop
from _lbfgs import optax_lbfgs, scipy_lbfgsb
from problems import PROBLEMS

RATES = (1e-3, 1e-2, 1e-1)
POLISH = 10  # times the budget
SHARES = np.arange(1, 31) / 30  # of the budget, after which a loss is kept


@functools.partial(jax.jit, static_argnames=("make", "loss", "budget"))
def descend(make, loss, lower, upper, settings, start, budget):
    """An Optax optimizer, one gradient a step: the losses, and the best point."""
    optimizer = make(**settings)

    def step(carry, _):
        x, state, best, best_x = carry
        value, gradient = jax.value_and_grad(loss)(x)
        best_x = jnp.where(value < best, x, best_x)
        update, state = optimizer.update(gradient, state, x)
        moved = jnp.clip(optax.apply_updates(x, update), lower, upper)
        return (moved, state, jnp.fmin(value, best), best_x), value

    first = start, optimizer.init(start), jnp.asarray(jnp.inf, start.dtype), start
    (*_, best_x), losses = jax.lax.scan(step, first, length=budget)
    return losses, best_x


def so_far(losses):
    """The best loss after each of the shares of the budget."""
    at = np.maximum(np.round(SHARES * len(losses)).astype(int), 1) - 1
    return np.fmin.accumulate(np.asarray(losses, float))[at]


def contenders(problem, loss, value_and_grad):
    """By name, what runs from a start for a budget: it gives the losses, and the best point."""
    lower, upper, box = -np.inf, np.inf, {}
    if problem.box:
        lower, upper = (ravel_pytree(bound)[0] for bound in problem.box)
        box = {"lower": lower, "upper": upper}
    ours = ("rprop_lbfgs", "rprop_momentum", "irprop_minus")
    makers = {name: (functools.partial(getattr(optax_rprop, name), **box), {}) for name in ours}
    makers |= {f"adam {rate:g}": (optax.adam, {"learning_rate": rate}) for rate in RATES}
    if problem.default:
        _, make, rate = problem.default
        makers["default"] = make, {"learning_rate": rate}
    steppers = {
        name: functools.partial(descend, make, loss, lower, upper, settings)
        for name, (make, settings) in makers.items()
    }

    def into(x):
        return lower + (upper - lower) * jax.nn.sigmoid(x) if box else x

    def logit_loss(x):
        return loss(into(x))

    def lbfgs(start, budget):  # it knows no bounds: it moves logits
        logits = jax.scipy.special.logit((start - lower) / (upper - lower)) if box else start
        losses, x = optax_lbfgs(logit_loss, logits, budget)
        return losses, into(x)

    def lbfgsb(start, budget):
        bounds = scipy.optimize.Bounds(lower, upper)
        return scipy_lbfgsb(value_and_grad, start, bounds, budget)[:2]

    return steppers | {"optax.lbfgs": lbfgs, "L-BFGS-B": lbfgsb}


def run(name, optimizers, kept, budget=None):
    """Runs what is asked for on a problem, and adds it to the record `kept` of it.

    A new best loss is polished: L-BFGS-B, and rprop_momentum after it, get more time.
    """
    jax.config.update("jax_enable_x64", True)
    problem = PROBLEMS[name]()
    budget = budget or problem.budget
    starts = [ravel_pytree(start)[0] for start in problem.starts]
    unravel = ravel_pytree(problem.starts[0])[1]

    def loss(x):
        return problem.loss(unravel(x))

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    runs = contenders(problem, loss, value_and_grad)
    record = {
        "weights": starts[0].size,
        "dtype": str(starts[0].dtype),
        "budget": budget,
        "bounds": bool(problem.box),
        "default": problem.default and problem.default[0],
        "starts": kept["starts"] if kept and optimizers else [{}, {}],
    }
    for start, found in zip(starts, record["starts"], strict=True):
        found["first"] = float(value_and_grad(start)[0])
        best, best_x = found.get("known", np.inf), None
        for optimizer in [name for name in runs if name in (optimizers or runs)]:
            losses, x = runs[optimizer](start, budget)
            found.setdefault("best", {})[optimizer] = so_far(losses).tolist()
            if found["best"][optimizer][-1] < best:
                best, best_x = found["best"][optimizer][-1], x
        if best_x is not None:
            losses, x = runs["L-BFGS-B"](best_x, POLISH * budget)
            more, _ = runs["rprop_momentum"](x, POLISH * budget)
            best = float(np.nanmin([best, np.nanmin(losses), np.nanmin(more)]))
        found["known"] = best
    jax.clear_caches()
    return record

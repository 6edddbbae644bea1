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
from problems import PROBLEMS

RATES = (1e-3, 1e-2, 1e-1)
POLISH = 10  # times the budget
SHARES = np.arange(1, 31) / 30  # of the budget, after which a loss is kept


@functools.partial(jax.jit, static_argnames=("make", "loss", "budget", "project"))
def descend(make, loss, start, budget, project, **settings):
    """An Optax optimizer, one gradient a step: the losses, and the best point."""
    optimizer = make(**settings)

    def step(carry, _):
        x, state, best, best_x = carry
        value, gradient = jax.value_and_grad(loss)(x)
        best_x = jnp.where(value < best, x, best_x)
        update, state = optimizer.update(gradient, state, x)
        moved = project(optax.apply_updates(x, update))
        return (moved, state, jnp.fmin(value, best), best_x), value

    first = start, optimizer.init(start), jnp.asarray(jnp.inf, start.dtype), start
    (*_, best_x), losses = jax.lax.scan(step, first, length=budget)
    return losses, best_x


@functools.partial(jax.jit, static_argnames=("loss", "budget"))
def search(loss, start, budget):
    """optax.lbfgs with its zoom line search, each step of which is an evaluation."""
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

    losses = jnp.full(budget, jnp.inf, start.dtype).at[0].set(loss(start))
    first = start, optimizer.init(start), jnp.int32(1), losses
    x, _, _, losses = jax.lax.while_loop(lambda carry: carry[2] < budget, step, first)
    return losses, x


def scipy_lbfgsb(value_and_grad, start, budget, bounds):
    """L-BFGS-B, which stops only where it cannot go on."""
    losses, points = [], []

    def evaluate(x):
        value, gradient = value_and_grad(jnp.asarray(x, start.dtype))
        losses.append(float(value))
        points.append(x.copy())
        return float(value), np.asarray(gradient, float)

    options = {"maxfun": budget, "maxiter": budget, "ftol": 0, "gtol": 0}
    arguments = {"jac": True, "method": "L-BFGS-B", "bounds": bounds, "options": options}
    scipy.optimize.minimize(evaluate, np.asarray(start, float), **arguments)
    best_x = jnp.asarray(points[np.nanargmin(losses)], start.dtype)
    return np.array([*losses, *[np.inf] * budget])[:budget], best_x


def so_far(losses):
    """The best loss after each of the shares of the budget."""
    at = np.maximum(np.round(SHARES * len(losses)).astype(int), 1) - 1
    return np.fmin.accumulate(np.asarray(losses, float))[at]


class Runs:
    """The contenders on one problem, all from flat vectors."""

    def __init__(self, problem, budget=None):
        self.budget = budget or problem.budget
        unravel = ravel_pytree(problem.starts[0])[1]
        self.loss = lambda x: problem.loss(unravel(x))
        self.starts = [ravel_pytree(start)[0] for start in problem.starts]
        self.value_and_grad = jax.jit(jax.value_and_grad(self.loss))
        self.bounds, box, self.project = None, {}, lambda x: x
        self.into, self.out_of = self.project, self.project
        if problem.box:
            lower, upper = (ravel_pytree(bound)[0] for bound in problem.box)
            box, self.bounds = {"lower": lower, "upper": upper}, scipy.optimize.Bounds(lower, upper)
            self.project = lambda x: jnp.clip(x, lower, upper)
            # optax.lbfgs knows no bounds: it moves logits.
            self.into = lambda x: lower + (upper - lower) * jax.nn.sigmoid(x)
            self.out_of = lambda x: jax.scipy.special.logit((x - lower) / (upper - lower))
        self.logit_loss = lambda x: self.loss(self.into(x))
        self.steppers = {
            name: (functools.partial(getattr(optax_rprop, name), **box), {})
            for name in ("rprop_lbfgs", "rprop_momentum", "irprop_minus")
            if hasattr(optax_rprop, name)
        }
        for rate in RATES:
            self.steppers[f"adam {rate:g}"] = optax.adam, {"learning_rate": rate}
        if problem.default:
            _, make, rate = problem.default
            self.steppers["default"] = make, {"learning_rate": rate}

    def names(self):
        """The contenders that there are for this problem."""
        return [*self.steppers, "optax.lbfgs", "L-BFGS-B"]

    def run(self, name, start):
        """The losses of one contender, and its best point."""
        if name == "L-BFGS-B":
            return scipy_lbfgsb(self.value_and_grad, start, self.budget, self.bounds)
        if name == "optax.lbfgs":
            losses, x = search(self.logit_loss, self.out_of(start), self.budget)
            return losses, self.into(x)
        make, settings = self.steppers[name]
        return descend(make, self.loss, start, self.budget, self.project, **settings)

    def polish(self, start):
        """The least loss that L-BFGS-B, and rprop_momentum after it, find with more time."""
        most = POLISH * self.budget
        losses, x = scipy_lbfgsb(self.value_and_grad, start, most, self.bounds)
        make, _ = self.steppers["rprop_momentum"]
        more, _ = descend(make, self.loss, x, most, self.project)
        return float(np.nanmin([np.nanmin(losses), np.nanmin(more)]))


def run(name, optimizers, kept, budget=None):
    """Runs what is asked for on a problem, and adds it to the record `kept` of it.

    A new best loss is polished.
    """
    jax.config.update("jax_enable_x64", True)
    problem = PROBLEMS[name]()
    runs = Runs(problem, budget)
    chosen = [optimizer for optimizer in runs.names() if optimizer in (optimizers or runs.names())]
    record = {
        "weights": runs.starts[0].size,
        "dtype": str(runs.starts[0].dtype),
        "budget": runs.budget,
        "bounds": bool(problem.box),
        "default": problem.default and problem.default[0],
        "starts": kept["starts"] if kept and optimizers else [{}, {}],
    }
    for start, found in zip(runs.starts, record["starts"], strict=True):
        found["first"] = float(runs.value_and_grad(start)[0])
        best, best_x = found.get("known", np.inf), None
        for optimizer in chosen:
            losses, x = runs.run(optimizer, start)
            found.setdefault("best", {})[optimizer] = so_far(losses).tolist()
            if found["best"][optimizer][-1] < best:
                best, best_x = found["best"][optimizer][-1], x
        found["known"] = min(best, runs.polish(best_x)) if best_x is not None else best
    jax.clear_caches()
    return record

"""How optimizers are run: each returns the losses at its first evaluations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import scipy.optimize


def race(loss, start, lower, upper, racers, evaluations):
    """Runs optimizers side by side in one loop, so that the loss is compiled once.

    Returns for each the best loss so far at every evaluation, and where it ends.
    """
    groups = {}
    for name, (make, settings) in racers.items():
        values = {key: jnp.asarray(value, start.dtype) for key, value in settings.items()}
        if "eta_plus" in settings:
            values["learning_rate"] = jnp.broadcast_to(values["learning_rate"], start.shape)
        groups.setdefault(make, {})[name] = values
    stacked = [(m, jax.tree.map(lambda *v: jnp.stack(v), *g.values())) for m, g in groups.items()]

    def optimizer(make, settings):
        return optax.with_extra_args_support(make(**settings))

    def move(make, settings, state, x, gradient, value):
        update, state = optimizer(make, settings).update(gradient, state, x, value=value)
        x = optax.apply_updates(x, update)
        if "lower" in getattr(make, "keywords", {}):
            return x, state  # it was told the bounds, and keeps them
        return jnp.clip(x, lower, upper), state

    def step(carry, _):
        xs, states, best, best_xs = carry
        values, gradients = jax.vmap(jax.value_and_grad(loss))(jnp.concatenate(xs))
        better = jnp.isfinite(values) & (values < best)
        best = jnp.where(better, values, best)
        best_xs = jnp.where(better[:, None], jnp.concatenate(xs), best_xs)
        ends = np.cumsum([len(x) for x in xs])[:-1]
        moved = [
            jax.vmap(functools.partial(move, make))(settings, *rest)
            for (make, settings), *rest in zip(
                stacked,
                states,
                xs,
                jnp.split(gradients, ends),
                jnp.split(values, ends),
                strict=True,
            )
        ]
        return (*map(list, zip(*moved, strict=True)), best, best_xs), best

    @jax.jit
    def run(start):
        states = [jax.vmap(lambda s, m=m: optimizer(m, s).init(start))(s) for m, s in stacked]
        xs = [jnp.tile(start, (len(group), 1)) for group in groups.values()]
        best = jnp.full(len(racers), jnp.inf, start.dtype)
        carry = xs, states, best, jnp.concatenate(xs)
        (*_, best_xs), curves = jax.lax.scan(step, carry, length=evaluations)
        return curves.T, best_xs

    names = [name for group in groups.values() for name in group]
    return {name: found for name, *found in zip(names, *jax.device_get(run(start)), strict=True)}


def run_optax_lbfgs(loss, start, evaluations):
    """Every step of its line search is an evaluation."""
    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry):
        x, state, used, curve = carry
        value, gradient = value_and_grad(x, state=state)
        more = {"value": value, "grad": gradient, "value_fn": loss}
        update, state = optimizer.update(gradient, state, x, **more)
        searched = optax.tree.get(state, "info").num_linesearch_steps
        used += jnp.maximum(1, searched).astype(used.dtype)
        curve = curve.at[jnp.minimum(used - 1, evaluations)].min(optax.tree.get(state, "value"))
        return optax.apply_updates(x, update), state, used, curve

    @jax.jit
    def run(x):
        curve = jnp.full(evaluations + 1, jnp.inf, x.dtype).at[0].set(loss(x))
        carry = x, optimizer.init(x), jnp.int32(1), curve
        return jax.lax.while_loop(lambda c: c[2] < evaluations, step, carry)[-1]

    return run(start)[:evaluations]


def run_optimistix(solver, loss, start, evaluations):
    """A step of these solvers is one evaluation, whether it is taken or not."""

    def fn(x, args):
        return loss(x), None

    options, tags = {}, frozenset()

    def step(carry, _):
        x, state = carry
        moved, state, _ = solver.step(fn, x, None, options, state, tags)
        # BFGS evaluates first and then moves; Rprop the other way round.
        return (moved, state), loss(moved if isinstance(solver, optimistix.BFGS) else x)

    @jax.jit
    def run(x):
        value = jax.eval_shape(loss, x)
        state = solver.init(fn, x, None, options, value, None, tags)
        return jax.lax.scan(step, (x, state), length=evaluations)[1]

    return run(start)


def run_scipy(loss, start, lower, upper, evaluations):
    """L-BFGS-B, and what SciPy says of it. It stops only where it cannot go on."""
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    values = []

    def evaluate(x):
        value, gradient = value_and_grad(jnp.asarray(x, start.dtype))
        values.append(float(value))
        return float(value), np.asarray(gradient, float)

    options = {"maxfun": evaluations, "maxiter": evaluations, "ftol": 0, "gtol": 0}
    bounds = scipy.optimize.Bounds(lower, upper)
    found = scipy.optimize.minimize(
        evaluate, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return np.array((values + [np.inf] * evaluations)[:evaluations]), found


def with_noise(loss, noise):
    """The same loss with a gradient g that is wrong by noise * |g|, equally at equal points."""
    if not noise:
        return loss
    noisy = jax.custom_jvp(loss)

    @noisy.defjvp
    def derivative(primals, tangents):
        (x,), (tangent,) = primals, tangents
        value, gradient = jax.value_and_grad(loss)(x)
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
        seed = jnp.sum(bits * (2 * jnp.arange(x.size, dtype=jnp.uint32) + 1), dtype=jnp.uint32)
        error = jax.random.normal(jax.random.key(seed), x.shape, x.dtype) / np.sqrt(x.size)
        return value, (gradient + noise * jnp.linalg.norm(gradient) * error) @ tangent

    return noisy


def not_a_number_outside(loss, lower, upper):
    """The same loss, NaN with its gradient where a weight is out of bounds."""

    def restricted(x):
        inside = jnp.all((x >= lower) & (x <= upper))
        return loss(x) * jnp.where(inside, 1, jnp.nan)

    return restricted

"""How optimizers are run: each returns the losses at its first evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
import scipy.optimize


def race(loss, start, lower, upper, optimizers, evaluations):
    """Runs optimizers side by side in one loop, so that the loss is compiled once.

    Returns for each the best loss so far at every evaluation, and where that was.
    """
    optimizers = {name: optax.with_extra_args_support(o) for name, o in optimizers.items()}

    def step(carry, _):
        xs, states, best, best_xs = carry
        values, gradients = jax.vmap(jax.value_and_grad(loss))(xs)
        better = jnp.isfinite(values) & (values < best)
        best = jnp.where(better, values, best)
        best_xs = jnp.where(better[:, None], xs, best_xs)
        moved, updated = [], []
        for optimizer, *own in zip(optimizers.values(), states, xs, gradients, values, strict=True):
            state, x, gradient, value = own
            update, state = optimizer.update(gradient, state, x, value=value)
            moved.append(jnp.clip(optax.apply_updates(x, update), lower, upper))
            updated.append(state)
        return (jnp.stack(moved), updated, best, best_xs), best

    @jax.jit
    def run(start):
        xs = jnp.tile(start, (len(optimizers), 1))
        states = [optimizer.init(start) for optimizer in optimizers.values()]
        best = jnp.full(len(optimizers), jnp.inf, start.dtype)
        (*_, best_xs), curves = jax.lax.scan(step, (xs, states, best, xs), length=evaluations)
        return curves.T, best_xs

    found = zip(*jax.device_get(run(start)), strict=True)
    return dict(zip(optimizers, found, strict=True))


def run_optax_lbfgs(optimizer, loss, start, evaluations):
    """Every step of its line search is an evaluation."""
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


def scaled_condition(loss, x):
    """The condition number of the Hessian, with every variable scaled to a curvature of 1."""
    hessian = np.asarray(jax.jit(jax.hessian(loss))(x), float)
    scale = np.sqrt(np.abs(np.diag(hessian)))
    with np.errstate(all="ignore"):
        hessian = hessian / np.outer(scale, scale)
        if not np.isfinite(hessian).all():
            return None
        eigenvalues = np.abs(np.linalg.eigvalsh(hessian))
        return float(min(1e30, eigenvalues.max() / eigenvalues.min()))

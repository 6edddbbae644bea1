"""How optimizers that need no line search are run, and what makes a problem harder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix


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


def run_bfgs(loss, start, evaluations):
    """Optimistix's, each step of which is one evaluation, whether it is taken or not."""
    solver = optimistix.BFGS(rtol=0.0, atol=0.0)
    options, tags = {}, frozenset()

    def fn(x, args):
        return loss(x), None

    def step(carry, _):
        x, state = carry
        moved, state, _ = solver.step(fn, x, None, options, state, tags)
        return (moved, state), loss(moved)  # it evaluates first and then moves

    @jax.jit
    def run(x):
        value = jax.eval_shape(loss, x)
        state = solver.init(fn, x, None, options, value, None, tags)
        return jax.lax.scan(step, (x, state), length=evaluations)[1]

    return run(start)


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

"""Domain errors: back to the last finite point, exactly, for every rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import optax_rprop
from helpers import streams

EVERY_RULE = pytest.mark.parametrize("name", streams.OPTIMIZERS)
WITH_MOMENTUM = pytest.mark.parametrize("name", [*streams.OPTIMIZERS, "rprop_momentum"])
nan, inf = np.nan, np.inf


def minimize(loss, params, steps, name, value_and_grad=jax.value_and_grad, **options):
    """The parameters after each step."""
    optimizer = getattr(optax_rprop, name)(**options)

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value=value)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    start = (params, optimizer.init(params))
    return jax.jit(lambda start: jax.lax.scan(step, start, length=steps)[1])(start)


def root(x):
    """Least at x = 0.04; NaN, with a NaN gradient, where x < 0."""
    return (jnp.sqrt(x) - 0.2) ** 2


def test_every_rule_dies_without_it():
    for name in streams.OPTIMIZERS:
        path = minimize(root, jnp.float32(1.0), 400, name)
        assert path[-1] < 0
        assert (path[20:] == path[-1]).all()


@WITH_MOMENTUM
def test_square_root(name):
    path = minimize(root, jnp.float32(1.0), 400, name, undo_nonfinite=True)
    assert (path < 0).any()
    np.testing.assert_allclose(path[-1], 0.04, atol=1e-5)  # ten of the smallest steps


@pytest.mark.usefixtures("x64")
@WITH_MOMENTUM
def test_failed_cholesky(name):
    """A maximum-likelihood correlation: at |r| >= 1 the factorisation fails."""
    random = np.random.default_rng(0)
    sample = random.multivariate_normal([0, 0], [[1, 0.98], [0.98, 1]], size=50)
    scatter = jnp.asarray(sample.T @ sample / 50)

    def loss(r):
        covariance = jnp.array([[1.0, 0.0], [0.0, 1.0]]) + r * jnp.array([[0.0, 1.0], [1.0, 0.0]])
        factor = jnp.linalg.cholesky(covariance)
        white = jax.scipy.linalg.solve_triangular(factor, scatter, lower=True)
        white = jax.scipy.linalg.solve_triangular(factor, white.T, lower=True)
        return jnp.sum(jnp.log(jnp.diag(factor))) + jnp.trace(white) / 2

    start = jnp.array(0.0)
    path = minimize(loss, start, 300, name, undo_nonfinite=True, learning_rate=0.2)
    assert (jnp.abs(path) >= 1).any()
    grid = jnp.linspace(0.9, 0.999, 100_000)
    best = grid[jnp.argmin(jax.jit(jax.vmap(loss))(grid))]
    np.testing.assert_allclose(path[-1], best, atol=1e-5)  # the grid's spacing is 1e-6
    dead = minimize(loss, start, 300, name, learning_rate=0.2)
    assert abs(dead[-1]) >= 1


@EVERY_RULE
def test_ode_that_blows_up(name):
    """x' = a x**2 from 1 ends at 1 / (1 - a) at time 1, and at no time beyond 1 / a."""

    def end(a):
        step = 1 / 200
        return jax.lax.fori_loop(0, 200, lambda _, x: x + step * a * x**2, 1.0)

    def loss(a):
        return (jnp.log(end(a)) - jnp.log(end(jnp.float32(0.8)))) ** 2

    loss_and_gradient = jax.value_and_grad(loss)
    assert not np.isfinite(loss_and_gradient(jnp.float32(9.0))[1])
    start = jnp.float32(0.0)
    path = minimize(loss, start, 300, name, undo_nonfinite=True, learning_rate=9.0)
    np.testing.assert_allclose(path[-1], 0.8, atol=1e-4)  # float32's rounding of 200 steps
    dead = minimize(loss, start, 300, name, learning_rate=9.0)
    assert abs(dead[-1] - 0.8) > 1


@EVERY_RULE
@pytest.mark.parametrize("start", [3.0, np.float32([3.0, 2.0])], ids=["one", "two"])
def test_logarithm(name, start):
    """Its derivative at a negative number is finite: the loss alone says that all go back."""

    def loss(x):
        return jnp.sum(x - jnp.log(x))

    path = minimize(loss, jnp.float32(start), 300, name, learning_rate=2.0, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1], 1, atol=1e-3)  # where the loss is one float32 within 5e-4
    dead = minimize(loss, jnp.float32(6.0), 300, name, learning_rate=4.0)
    assert dead[-1] < -1
    path = minimize(loss, jnp.float32(6.0), 300, name, learning_rate=4.0, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1], 1, atol=1e-3)


@WITH_MOMENTUM
def test_a_bound_at_the_edge_of_the_domain(name):
    """A step cut at 0, where x log x has no value, is taken back as any other."""

    def loss(x):
        return x * jnp.log(x) + 0.9 * x

    given = {"learning_rate": 0.3, "undo_nonfinite": True, "lower": 0.0}
    path = minimize(loss, jnp.float32(1.0), 300, name, **given)
    assert (np.asarray(path) == 0).any()
    np.testing.assert_allclose(path[-1], np.exp(-1.9), atol=1e-3)  # a flat minimum in float32


def trace(optimizer, start, gradients, losses=None):
    """The weights, step sizes and signs after each step."""
    return streams.run(optimizer, jnp.asarray(start), np.asarray(gradients, start.dtype), losses)


@EVERY_RULE
def test_a_weight_with_a_nan_gradient_is_at_fault(name):
    """All go back; it shrinks, forgets its sign and rests; the other keeps both."""
    optimizer = getattr(optax_rprop, name)(1.0, undo_nonfinite=True)
    gradients = [[1, -1], [1, -1], [nan, -1], [1, -1], [1, -1]]
    weights, step_sizes, signs = trace(optimizer, np.zeros(2, np.float32), gradients)
    np.testing.assert_array_equal(weights[2], weights[0])
    np.testing.assert_array_equal(step_sizes[2], step_sizes[1] * np.float32([0.5, 1]))
    np.testing.assert_array_equal(signs[2], [0, -1])
    assert weights[3, 0] == weights[2, 0]  # rests
    assert weights[3, 1] > weights[2, 1]
    assert weights[4, 0] == weights[3, 0] - step_sizes[1, 0] / 2


@EVERY_RULE
@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_a_loss_that_is_not_finite_blames_all_that_moved(name, loss):
    optimizer = getattr(optax_rprop, name)(1.0, undo_nonfinite=True)
    gradients = [[1, 0], [1, 0], [1, 0]]
    weights, step_sizes, signs = trace(optimizer, np.zeros(2, np.float32), gradients, [1, loss, 1])
    np.testing.assert_array_equal(weights[:, 0], [-1, 0, -0.5])
    np.testing.assert_array_equal(step_sizes, [[1, 1], [0.5, 1], [0.5, 1]])
    np.testing.assert_array_equal(signs[:, 0], [1, 0, 1])


def test_an_infinite_gradient_has_a_sign():
    """It is no domain error: the loss is finite."""
    optimizer = optax_rprop.rprop(1.0, undo_nonfinite=True)
    weights, _, _ = trace(optimizer, np.zeros(1, np.float32), [[inf], [-inf]], [1, 2])
    np.testing.assert_array_equal(weights[:, 0], [-1, -1])


@EVERY_RULE
def test_several_errors_in_a_row(name):
    """Where the shorter step fails too, the step size shrinks again, from the same point."""
    optimizer = getattr(optax_rprop, name)(1.0, undo_nonfinite=True)
    gradients = [[1.0], [nan], [1.0], [1.0], [nan], [1.0], [1.0]]
    weights, step_sizes, _ = trace(optimizer, np.zeros(1, np.float32), gradients)
    np.testing.assert_array_equal(weights[:, 0], [-1, 0, 0, -0.5, 0, 0, -0.25])
    np.testing.assert_array_equal(step_sizes[:, 0], [1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25])


@EVERY_RULE
def test_an_error_right_after_a_cut_step(name):
    optimizer = getattr(optax_rprop, name)(1.0, undo_nonfinite=True, lower=-0.75)
    gradients = [[1.0], [nan], [1.0], [1.0]]
    weights, _, _ = trace(optimizer, np.zeros(1, np.float32), gradients)
    assert weights[0, 0] == -0.75
    np.testing.assert_array_equal(weights[1:3, 0], 0)
    assert -0.75 <= weights[3, 0] < 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.usefixtures("x64")
def test_comes_back_to_the_bit(dtype):
    """However small the weights beside the step, which is far larger here."""
    random = np.random.default_rng(0)
    start = jnp.asarray(random.choice([-1, 1], 200) * 10.0 ** random.uniform(-7, 0, 200), dtype)
    optimizer = optax_rprop.rprop(1.3, undo_nonfinite=True)
    gradients = np.full((12, 200), nan).astype(dtype)
    gradients[0] = np.where(random.random(200) < 0.5, 1, -1)
    weights, _, _ = streams.run(optimizer, start, jnp.asarray(gradients))
    assert (np.asarray(weights[0]) != np.asarray(start)).all()
    streams.assert_same_bits(weights[-1], start)


def test_a_small_weight_beside_a_large_step():
    def loss(x):
        return jnp.where(x > 0, x, jnp.nan) * 1.0

    path = minimize(loss, jnp.float32(1e-9), 30, "rprop", learning_rate=0.1, undo_nonfinite=True)
    assert (path == np.float32(1e-9)).any()
    assert jnp.isfinite(loss(path[-1])) | (path[-2] > 0)


def test_a_weight_goes_back_as_another_leaves_the_domain():
    """The point between the two was never evaluated, and is NaN."""

    def loss(x):
        barrier = -1e-3 * jnp.log(0.5 - jnp.abs(x[1] - x[0]))
        return 30 * (x[0] - 0.2) ** 2 + (x[1] - 1) ** 2 + barrier

    start = jnp.zeros(2)
    path = minimize(loss, start, 500, "irprop_plus", learning_rate=0.6, undo_nonfinite=True)
    assert np.isfinite(jax.vmap(loss)(path[-50:])).any()
    best = scipy.optimize.minimize(loss, [0.2, 0.6], method="Nelder-Mead")
    assert loss(path[-1]) < best.fun + 0.01


@WITH_MOMENTUM
def test_a_weight_at_its_edge_does_not_stop_the_others(name):
    """b falls towards 0, below which its root is NaN; a goes on to 3."""

    def loss(x):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1])

    path = minimize(loss, jnp.float32([0.0, 1.0]), 400, name, undo_nonfinite=True)
    np.testing.assert_allclose(path[-1, 0], 3, atol=1e-4)
    assert path[-1, 1] >= 0 or path[-2, 1] >= 0


def converged_at(loss, params, name, steps, tolerance, **options):
    """The point and the gradient at which `converged` was first true, or None."""
    optimizer = getattr(optax_rprop, name)(undo_nonfinite=True, **options)

    def not_done(carry):
        _, _, state, count = carry
        return (count < steps) & ~optax_rprop.converged(state, tolerance)

    def step(carry):
        params, _, state, count = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params, value=value)
        return optax.apply_updates(params, updates), params, state, count + 1

    @jax.jit
    def run(params):
        carry = params, params, optimizer.init(params), 0
        _, at, state, _ = jax.lax.while_loop(not_done, step, carry)
        return at, jax.grad(loss)(at), optax_rprop.converged(state, tolerance)

    return run(params)


def test_converged_is_not_true_at_an_edge():
    def loss(x):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1])

    *_, done = converged_at(loss, jnp.float32([0.0, 1.0]), "rprop", 2000, 1e-4)
    assert not done

    def inside(x):
        return (x[0] - 3) ** 2 + jnp.sqrt(x[1]) + 1 / x[1]

    at, _, done = converged_at(inside, jnp.float32([0.0, 0.5]), "rprop", 2000, 1e-4)
    assert done
    np.testing.assert_allclose(at, [3, 2 ** (2 / 3)], atol=2e-3)


def barrier_problems(count, weights):
    """Random quadratics with random walls around the start at 0."""
    random = np.random.default_rng(weights)
    problems = {
        "basis": random.normal(size=(count, weights, weights)),
        "target": 2 * random.normal(size=(count, weights)),
        "walls": random.normal(size=(count, 2 * weights, weights)),
        "room": random.uniform(0.2, 1.0, (count, 2 * weights)),
    }
    return {name: np.float32(numbers) for name, numbers in problems.items()}


def barrier_loss(problem, root, x):
    distance = problem["basis"] @ (x - problem["target"])
    slack = problem["room"] - problem["walls"] @ x
    barrier = -jnp.sum(jnp.sqrt(slack)) if root else -1e-2 * jnp.sum(jnp.log(slack))
    return jnp.sum(distance**2) + barrier


@pytest.mark.parametrize("with_value", [True, False], ids=["value", "no value"])
@pytest.mark.parametrize("root", [True, False], ids=["root", "log"])
def test_never_trapped(root, with_value):
    """Random barriers: each run comes back to points where the loss is finite, again and again.

    Without the loss, log's gradient is finite outside: there, only the root is NaN.
    """
    if not root and not with_value:
        pytest.skip("the gradient of a logarithm is finite where the logarithm is not")
    for weights, first, name in ((2, 1.0, "rprop_plus"), (5, 0.03, "irprop_minus")):
        optimizer = getattr(optax_rprop, name)(first, undo_nonfinite=True)

        def run(problem, optimizer=optimizer, weights=weights):
            loss = functools.partial(barrier_loss, problem, root)

            def step(carry, _):
                params, state = carry
                value, gradient = jax.value_and_grad(loss)(params)
                extra_args = {"value": value} if with_value else {}
                updates, state = optimizer.update(gradient, state, params, **extra_args)
                return (optax.apply_updates(params, updates), state), value

            start = jnp.zeros(weights)
            return jax.lax.scan(step, (start, optimizer.init(start)), length=300)[1]

        values = jax.jit(jax.vmap(run))(barrier_problems(100, weights))
        assert np.isnan(values).any()  # domain errors there are
        assert np.isfinite(values[:, -20:]).any(axis=1).all()
        assert (np.nanmin(values[:, -100:], axis=1) <= values[:, 0]).mean() > 0.9


@EVERY_RULE
def test_without_nan_nothing_changes(name):
    gradients = streams.gradients(200, 20, np.float32)
    gradients = np.where(np.isnan(gradients), 1, gradients)
    losses = np.random.default_rng(1).standard_normal(200)
    make = getattr(optax_rprop, name)
    plain = streams.run(make(), jnp.zeros(20), gradients, losses)
    option = streams.run(make(undo_nonfinite=True), jnp.zeros(20), gradients, losses)
    for got, wanted in zip(option, plain, strict=True):
        streams.assert_same_bits(got, wanted)

"""Domain errors: a NaN gradient undone, a non-finite loss a rise."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams

UNDOING = ("rprop_plus", "irprop_plus")


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


@pytest.mark.parametrize("name", UNDOING)
def test_square_root(name):
    path = minimize(root, jnp.float32(1.0), 400, name, undo_nonfinite=True)
    assert (path < 0).any()
    np.testing.assert_allclose(path[-1], 0.04, atol=1e-5)  # ten of the smallest steps


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", UNDOING)
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


@pytest.mark.parametrize("name", UNDOING)
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


@pytest.mark.parametrize("name", UNDOING)
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


@pytest.mark.parametrize("name", UNDOING)
def test_a_bound_at_the_edge_of_the_domain(name):
    """A step cut at 0, where x log x has no value, is taken back as any other."""

    def loss(x):
        return x * jnp.log(x) + 0.9 * x

    given = {"learning_rate": 0.3, "undo_nonfinite": True, "lower": 0.0}
    path = minimize(loss, jnp.float32(1.0), 300, name, **given)
    assert (np.asarray(path) == 0).any()
    np.testing.assert_allclose(path[-1], np.exp(-1.9), atol=1e-3)  # a flat minimum in float32


@pytest.mark.parametrize("name", UNDOING)
def test_undo_shrink_and_forget(name):
    """What a NaN gradient does, whatever the loss; a second one has nothing left to undo."""
    optimizer = getattr(optax_rprop, name)(1.0, undo_nonfinite=True)
    gradients = np.float32([[1.0, -1.0]] * 2 + [[np.nan] * 2] * 2)
    weights, step_sizes, signs = streams.run(optimizer, jnp.zeros(2), gradients, [4, 3, 2, 1])
    np.testing.assert_array_equal(weights[2], weights[0])
    np.testing.assert_array_equal(weights[3], weights[2])
    np.testing.assert_array_equal(step_sizes[2], step_sizes[1] / 2)
    np.testing.assert_array_equal(step_sizes[3], step_sizes[2])
    np.testing.assert_array_equal(signs[2:], 0)


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_is_a_rise(loss):
    """Its own gradients are finite and reverse: undone; the last finite loss is remembered."""
    optimizer = optax_rprop.irprop_plus(1.0, undo_nonfinite=True)
    gradients = np.float32([[1.0], [-1.0], [-1.0], [1.0]])
    weights, _, _ = streams.run(optimizer, jnp.zeros(1), gradients, [2.0, loss, 1.0, 1.5])
    assert weights[1] == 0.0
    assert weights[3] == weights[1]  # 1.5 is above 1
    weights, _, _ = streams.run(optimizer, jnp.zeros(1), gradients, [2.0, loss, 1.0, 0.5])
    assert weights[3] == weights[2]


@pytest.mark.parametrize("name", UNDOING)
def test_without_nan_nothing_changes(name):
    gradients = streams.gradients(200, 20, np.float32)
    gradients = np.where(np.isnan(gradients), 1, gradients)
    losses = np.random.default_rng(1).standard_normal(200)
    make = getattr(optax_rprop, name)
    plain = streams.run(make(), jnp.zeros(20), gradients, losses)
    option = streams.run(make(undo_nonfinite=True), jnp.zeros(20), gradients, losses)
    for got, wanted in zip(option, plain, strict=True):
        streams.assert_same_bits(got, wanted)


def test_off_is_the_plain_program():
    def lowered(**options):
        optimizer = optax_rprop.rprop_plus(**options)
        params = jnp.zeros(3)
        return jax.jit(optimizer.update).lower(params, optimizer.init(params)).as_text()

    assert lowered() == lowered(undo_nonfinite=False)
    assert lowered() != lowered(undo_nonfinite=True)

"""diffrax: its neural ODE, with the whole model as `params`."""

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop

diffrax = pytest.importorskip("diffrax")
eqx = pytest.importorskip("equinox")


class Func(eqx.Module):
    mlp: eqx.nn.MLP

    def __call__(self, t, y, args):
        return self.mlp(y)


def solve(func, times, start):
    return diffrax.diffeqsolve(
        diffrax.ODETerm(func),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=times[1] - times[0],
        y0=start,
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
        saveat=diffrax.SaveAt(ts=times),
    ).ys


@pytest.fixture(scope="module")
def data():
    """Oscillators that are not linear."""

    def field(t, y, args):
        x = y / (1 + y)
        return jnp.stack([x[1], -x[0]])

    times = jnp.linspace(0, 3, 10)
    starts = jax.random.uniform(jax.random.key(0), (16, 2), minval=-0.6, maxval=1)
    return times, jax.vmap(solve, (None, None, 0))(field, times, starts)


@pytest.fixture
def model():
    mlp = eqx.nn.MLP(2, 2, width_size=16, depth=2, activation=jnp.tanh, key=jax.random.key(1))
    return Func(mlp)


@eqx.filter_jit
def loss(model, times, paths):
    predicted = jax.vmap(solve, (None, None, 0))(model, times, paths[:, 0])
    return jnp.mean((paths - predicted) ** 2)


def fit(model, data, optimizer, steps=100):
    @eqx.filter_jit
    def step(model, opt_state):
        gradient = eqx.filter_grad(loss)(model, *data)
        updates, opt_state = optimizer.update(gradient, opt_state, model)
        return eqx.apply_updates(model, updates), opt_state

    opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for _ in range(steps):
        model, opt_state = step(model, opt_state)
    return model


def test_neural_ode(model, data):
    adabelief = fit(model, data, optax.adabelief(3e-3))  # the example's
    rprop = fit(model, data, optax_rprop.rprop())
    assert loss(rprop, *data) < loss(adabelief, *data) / 3


def test_bounds(model, data):
    """`params` is the model with its functions, whose gradients are None."""
    params, static = eqx.partition(model, eqx.is_inexact_array)
    model = eqx.combine(jax.tree.map(lambda leaf: jnp.clip(leaf, -0.3, 0.3), params), static)
    fitted = fit(model, data, optax_rprop.rprop(lower=-0.3, upper=0.3), 20)
    leaves = jax.tree.leaves(eqx.filter(fitted, eqx.is_inexact_array))
    assert max(jnp.abs(leaf).max() for leaf in leaves) == jnp.float32(0.3)
    assert loss(fitted, *data) < loss(model, *data)

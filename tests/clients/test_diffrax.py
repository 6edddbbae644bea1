"""diffrax: a neural ODE, with the whole model as `params`, its functions among them."""

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop

diffrax = pytest.importorskip("diffrax")
eqx = pytest.importorskip("equinox")
TIMES = jnp.linspace(0, 3, 10)


def solve(field, start):
    term, save = diffrax.ODETerm(lambda t, y, args: field(y)), diffrax.SaveAt(ts=TIMES)
    return diffrax.diffeqsolve(term, diffrax.Tsit5(), 0.0, 3.0, 0.1, start, saveat=save).ys


@pytest.fixture
def fit():
    def oscillator(y):
        x = y / (1 + y)
        return jnp.stack([x[1], -x[0]])

    starts = jax.random.uniform(jax.random.key(0), (16, 2), minval=-0.6, maxval=1)
    paths = jax.vmap(lambda start: solve(oscillator, start))(starts)

    @eqx.filter_jit
    def loss(model):
        return jnp.mean((paths - jax.vmap(lambda start: solve(model, start))(starts)) ** 2)

    def fit(optimizer):
        @eqx.filter_jit
        def step(model, opt_state):
            updates, opt_state = optimizer.update(eqx.filter_grad(loss)(model), opt_state, model)
            return eqx.apply_updates(model, updates), opt_state

        model = eqx.nn.MLP(2, 2, 16, 2, activation=jnp.tanh, key=jax.random.key(1))
        opt_state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        for _ in range(100):
            model, opt_state = step(model, opt_state)
        return loss(model)

    return fit


def test_losses(fit, compare_losses):
    *_, usual = compare_losses(fit, optax.adabelief(3e-3), margin=10)
    assert fit(optax_rprop.rprop_lbfgs(lower=-2.0, upper=2.0)) < usual / 3

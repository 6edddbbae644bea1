"""jinns: a physics-informed network for exponential decay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop

jinns = pytest.importorskip("jinns")
RATE = 2.0


@pytest.fixture(scope="module")
def problem():
    class Decay(jinns.loss.ODE):
        def equation(self, t, u, params):
            slope = jax.jacfwd(u)(t, params)[:, 0]
            return slope + params.eq_params.rate * u(t, params)

    key = jax.random.key(0)
    network, nn_params = jinns.nn.PINN_MLP.create(
        key=key,
        eqx_list=((eqx.nn.Linear, 1, 16), (jnp.tanh,), (eqx.nn.Linear, 16, 1)),
        eq_type="ODE",
    )
    params = jinns.parameters.Params(nn_params=nn_params, eq_params={"rate": jnp.array(RATE)})
    loss = jinns.loss.LossODE(
        u=network,
        dynamic_loss=Decay(),
        initial_condition=(0.0, jnp.array([1.0])),
        loss_weights=jinns.loss.LossWeightsODE(dyn_loss=1.0, initial_condition=1.0),
        params=params,
    )
    times = jinns.data.DataGeneratorODE(key=key, nt=64, tmin=0.0, tmax=1.0, method="grid")
    return {"init_params": params, "data": times, "loss": loss}


def error_of(problem, optimizer, **options):
    """The largest difference from the solution that is known."""
    params, *_ = jinns.solve(**problem, optimizer=optimizer, n_iter=300, verbose=False, **options)
    times = jnp.linspace(0, 1, 101)[:, None]
    predicted = jax.vmap(problem["loss"].u, (0, None))(times, params)
    return jnp.abs(predicted - jnp.exp(-RATE * times)).max()


def test_losses(problem, compare_losses):
    def loss_of(optimizer):
        _, losses, *_ = jinns.solve(**problem, optimizer=optimizer, n_iter=300, verbose=False)
        return losses[-1]

    compare_losses(loss_of, optax.adam(1e-3), margin=1000)


def test_solution(problem):
    adam = error_of(problem, optax.adam(1e-3))
    rprop = error_of(problem, optax_rprop.rprop())
    rprop_lbfgs = error_of(problem, optax_rprop.rprop_lbfgs())
    value = {"value": jinns.solver.GetJinnsVariableName("train_loss_value")}
    irprop_plus = error_of(problem, optax_rprop.irprop_plus(), extra_optax_args_and_kwargs=value)
    assert max(rprop, rprop_lbfgs, irprop_plus) < 0.003
    assert adam > 0.03


def test_irprop_plus_asks_for_the_loss(problem):
    with pytest.raises(ValueError, match="value=None"):
        error_of(problem, optax_rprop.irprop_plus())

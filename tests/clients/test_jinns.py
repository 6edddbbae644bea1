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


def fit(problem, optimizer, **options):
    """The loss, and the largest difference from the solution that is known."""
    given = {"optimizer": optimizer, "n_iter": 300, "verbose": False, **options}
    params, losses, *_ = jinns.solve(**problem, **given)
    times = jnp.linspace(0, 1, 101)[:, None]
    predicted = jax.vmap(problem["loss"].u, (0, None))(times, params)
    return losses[-1], jnp.abs(predicted - jnp.exp(-RATE * times)).max()


def test_losses(problem, compare_losses):
    """And errors: as small of irprop_plus, which is told the loss on demand, and asks for it."""
    errors = []

    def loss_of(optimizer):
        loss, error = fit(problem, optimizer)
        errors.append(error)
        return loss

    compare_losses(loss_of, optax.adam(1e-3), margin=1000)
    value = {"value": jinns.solver.GetJinnsVariableName("train_loss_value")}
    _, irprop_plus = fit(problem, optax_rprop.irprop_plus(), extra_optax_args_and_kwargs=value)
    rprop_lbfgs, _, rprop, adam = errors
    assert max(rprop, rprop_lbfgs, irprop_plus) < 0.003
    assert adam > 0.03

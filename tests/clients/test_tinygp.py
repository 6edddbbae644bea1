"""tinygp: its quickstart, the CO2 of Mauna Loa with the kernel of Rasmussen and Williams."""

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop

tinygp = pytest.importorskip("tinygp")
co2 = pytest.importorskip("statsmodels.datasets.co2")
pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def loss():
    data = co2.load_pandas().data.dropna()
    year = 2000 + (data.index.to_julian_date().to_numpy() - 2451545) / 365.25
    ppm = data["co2"].to_numpy()
    year, ppm = year[year < 1996][::8], ppm[year < 1996][::8]  # one week in eight

    @jax.jit
    def loss(theta):
        kernels = tinygp.kernels
        amplitudes, scales = jnp.exp(theta["log_amps"]), jnp.exp(theta["log_scales"])
        seasons = kernels.ExpSineSquared(scale=1.0, gamma=jnp.exp(theta["log_gamma"]))
        wiggles = kernels.RationalQuadratic(scale=scales[2], alpha=jnp.exp(theta["log_alpha"]))
        kernel = (
            amplitudes[0] * kernels.ExpSquared(scales[0])
            + amplitudes[1] * kernels.ExpSquared(scales[1]) * seasons
            + amplitudes[2] * wiggles
            + amplitudes[3] * kernels.ExpSquared(scales[3])
        )
        gp = tinygp.GaussianProcess(
            kernel, year, diag=jnp.exp(theta["log_diag"]), mean=theta["mean"]
        )
        return -gp.log_probability(ppm)

    return loss


@pytest.fixture
def theta():
    return {
        "mean": jnp.array(340.0),
        "log_diag": jnp.log(0.19),
        "log_amps": jnp.log(jnp.array([66.0, 2.4, 0.66, 0.18])),
        "log_scales": jnp.log(jnp.array([67.0, 90.0, 0.78, 1.6])),
        "log_gamma": jnp.log(4.3),
        "log_alpha": jnp.log(1.2),
    }


def fit(loss, theta, optimizer, steps=100):
    def step(carry, _):
        theta, opt_state = carry
        gradient = jax.grad(loss)(theta)
        updates, opt_state = optimizer.update(gradient, opt_state, theta)
        return (optax.apply_updates(theta, updates), opt_state), None

    start = theta, optimizer.init(theta)
    (theta, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))(start)
    return theta


def test_co2(loss, theta):
    adam = fit(loss, theta, optax.adam(0.01))
    rprop = fit(loss, theta, optax_rprop.rprop())
    assert loss(rprop) < loss(adam) - 5
    assert optax.tree.norm(jax.grad(loss)(rprop)) < 0.01  # a minimum


def test_bounds_for_some_parameters(loss, theta):
    """The noise stays above a floor that it would otherwise fall through."""
    fitted = fit(loss, theta, optax_rprop.rprop(lower={"log_diag": jnp.log(0.18)}))
    assert fitted["log_diag"] == jnp.log(0.18)
    assert loss(fitted) < loss(theta) - 50

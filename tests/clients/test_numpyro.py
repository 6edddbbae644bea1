"""NumPyro: the most probable weights of a logistic regression, by AutoDelta and SVI."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop

numpyro = pytest.importorskip("numpyro")
datasets = pytest.importorskip("sklearn.datasets")
linear_model = pytest.importorskip("sklearn.linear_model")


@pytest.fixture
def data():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y


def model(x, y):
    prior = numpyro.distributions.Normal().expand([x.shape[1]]).to_event(1)
    weights = numpyro.sample("weights", prior)
    bias = numpyro.param("bias", 0.0)
    likelihood = numpyro.distributions.Bernoulli(logits=jnp.asarray(x) @ weights + bias)
    numpyro.sample("y", likelihood, obs=y)


def fit(data, optimizer, steps=300):
    guide = numpyro.infer.autoguide.AutoDelta(model, init_loc_fn=numpyro.infer.init_to_mean)
    svi = numpyro.infer.SVI(model, guide, optimizer, numpyro.infer.Trace_ELBO())
    result = svi.run(jax.random.key(0), steps, *data, progress_bar=False)
    return result.params, result.losses[-1]


def test_losses(data, compare_losses):
    compare_losses(
        lambda optimizer: fit(data, optimizer, 100)[1], numpyro.optim.Adam(0.01), passes_value=True
    )


def test_most_probable_weights(data):
    """Those of scikit-learn's logistic regression: its L2 penalty is the prior."""
    expected = linear_model.LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(*data)
    for make in (optax_rprop.rprop, optax_rprop.irprop_plus, optax_rprop.rprop_lbfgs):
        params, _ = fit(data, make())
        np.testing.assert_allclose(params["weights_auto_loc"], expected.coef_[0], atol=1e-3)
        np.testing.assert_allclose(params["bias"], expected.intercept_[0], atol=1e-3)
    params, _ = fit(data, optax_rprop.rprop(upper={"weights_auto_loc": 0.0}))
    assert params["weights_auto_loc"].max() == 0
    assert params["bias"] > 0

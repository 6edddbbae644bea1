"""dynamax: a hidden Markov model of the Nile's yearly flow, two states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

hidden_markov_model = pytest.importorskip("dynamax.hidden_markov_model")
nile = pytest.importorskip("statsmodels.datasets.nile")


@pytest.fixture
def flow():
    flow = nile.load_pandas().data["volume"].to_numpy()
    return jnp.asarray((flow - flow.mean()) / flow.std(), dtype=jnp.float32)[:, None]


def fit(flow, optimizer, steps=100):
    hmm = hidden_markov_model.GaussianHMM(num_states=2, emission_dim=1)
    start = hmm.initialize(jax.random.key(3), method="kmeans", emissions=flow)
    if optimizer == "EM":
        _, log_probabilities = hmm.fit_em(*start, flow, num_iters=3 * steps, verbose=False)
        return -log_probabilities[-1] / flow.size
    _, losses = hmm.fit_sgd(*start, flow, optimizer=optimizer, num_epochs=steps)
    return losses[-1]


def test_losses(flow, compare_losses):
    """Expectation-maximisation reaches the same."""
    losses = compare_losses(
        functools.partial(fit, flow), optax.adam(1e-3), margin=1.1, passes_params=False
    )
    np.testing.assert_allclose(losses[::2], fit(flow, "EM"), rtol=1e-5)

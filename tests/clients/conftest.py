"""Other libraries run as their users run them: without the suite's strict mode."""

import jax
import pytest

import optax_rprop

IGNORED = [
    # dynamax imports TensorFlow Probability, which uses what JAX is about to remove.
    "ignore:jax.core.pytype_aval_mappings is deprecated:DeprecationWarning",
    "ignore:shape requires ndarray or scalar arguments:DeprecationWarning",
    # jinns writes its losses as Equinox modules in a way that Equinox warns of.
    r"ignore:Using `field\(init=False\)` on `equinox.Module`:UserWarning",
]


def pytest_configure(config):
    for line in IGNORED:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(autouse=True)
def default_promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def compare_losses(request, capsys):
    """Compares and returns losses that `fit` reaches; prints a row of the page on other libraries.

    What the library's usual optimizer reaches is more than `margin` times larger than each. An
    error names what the library does not pass on to `update`.
    """

    def compare(fit, usual, margin=1, passes_params=True, passes_value=False):
        if not passes_params:
            with pytest.raises(ValueError, match="need params"):
                fit(optax_rprop.rprop(lower=-9.0))
        if not passes_value:
            with pytest.raises(ValueError, match="value=None"):
                fit(optax_rprop.irprop_plus())
        optimizers = optax_rprop.rprop_lbfgs(), optax_rprop.rprop_momentum(), optax_rprop.rprop()
        losses = [float(fit(optimizer)) for optimizer in (*optimizers, usual)]
        with capsys.disabled():
            print(f"\n| {request.node.nodeid} |", *(f"{loss:.5g} |" for loss in losses))
        assert margin * max(losses[:-1]) < losses[-1]
        return losses

    return compare

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def float64_compiled_fast():
    """These tests ask where a run ends, not to which bits: what XLA optimizes does not matter."""
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", False)

"""Rprop (resilient backpropagation) for JAX, as Optax gradient transformations."""

from optax_rprop import _optimizers, contrib
from optax_rprop._optimizers import *  # noqa: F403 - its `__all__` names every optimizer
from optax_rprop._state import ScaleByRpropState, converged, prev_signs, step_sizes
from optax_rprop._transform import scale_by_rprop

__version__ = "0.2.0"

__all__ = [
    "ScaleByRpropState",
    "contrib",
    "converged",
    "prev_signs",
    "scale_by_rprop",
    "step_sizes",
]
__all__ += _optimizers.__all__

"""Rprop (resilient backpropagation) for JAX, as Optax gradient transformations."""

from optax_rprop import contrib
from optax_rprop._optimizers import (
    irprop_minus,
    irprop_plus,
    rprop,
    rprop_minus,
    rprop_momentum,
    rprop_plus,
    shark_irprop_minus,
)
from optax_rprop._state import (
    DomainState,
    MomentumState,
    ScaleByRpropState,
    converged,
    prev_signs,
    step_sizes,
)
from optax_rprop._transform import scale_by_rprop

__version__ = "0.2.0"

__all__ = [
    "DomainState",
    "MomentumState",
    "ScaleByRpropState",
    "contrib",
    "converged",
    "irprop_minus",
    "irprop_plus",
    "prev_signs",
    "rprop",
    "rprop_minus",
    "rprop_momentum",
    "rprop_plus",
    "scale_by_rprop",
    "shark_irprop_minus",
    "step_sizes",
]

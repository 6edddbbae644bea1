"""Rprop (resilient backpropagation) for JAX, as Optax gradient transformations."""

from optax_rprop import contrib
from optax_rprop._converged import converged
from optax_rprop._optimizers import (
    irprop_minus,
    irprop_plus,
    rprop,
    rprop_lbfgs,
    rprop_minus,
    rprop_momentum,
    rprop_plus,
)
from optax_rprop._rprop_lbfgs import ScaleByRpropLbfgsState, scale_by_rprop_lbfgs
from optax_rprop._state import ScaleByRpropState, prev_signs, step_sizes
from optax_rprop._transform import scale_by_rprop

__version__ = "0.3.0"

__all__ = [
    "ScaleByRpropLbfgsState",
    "ScaleByRpropState",
    "contrib",
    "converged",
    "irprop_minus",
    "irprop_plus",
    "prev_signs",
    "rprop",
    "rprop_lbfgs",
    "rprop_minus",
    "rprop_momentum",
    "rprop_plus",
    "scale_by_rprop",
    "scale_by_rprop_lbfgs",
    "step_sizes",
]

"""Rprop (resilient backpropagation) for JAX, as Optax gradient transformations."""

from optax_rprop._alias import irprop_minus, irprop_plus, rprop, rprop_minus, rprop_plus
from optax_rprop._gains import (
    ScaleByAdaptiveGainsState,
    rmsprop_with_gains,
    scale_by_adaptive_gains,
)
from optax_rprop._state import ScaleByRpropState, converged, prev_signs, step_sizes
from optax_rprop._transform import scale_by_rprop

__version__ = "0.1.0"

__all__ = [
    "ScaleByAdaptiveGainsState",
    "ScaleByRpropState",
    "converged",
    "irprop_minus",
    "irprop_plus",
    "prev_signs",
    "rmsprop_with_gains",
    "rprop",
    "rprop_minus",
    "rprop_plus",
    "scale_by_adaptive_gains",
    "scale_by_rprop",
    "step_sizes",
]

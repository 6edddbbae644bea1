"""Adaptive gains for mini-batches, where Rprop itself is not the choice."""

from optax_rprop.contrib._adaptive_gains import (
    ScaleByAdaptiveGainsState,
    rmsprop_with_gains,
    scale_by_adaptive_gains,
)

__all__ = ["ScaleByAdaptiveGainsState", "rmsprop_with_gains", "scale_by_adaptive_gains"]

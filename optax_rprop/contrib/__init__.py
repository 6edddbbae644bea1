"""Adaptive gains for mini-batches, where Rprop itself is not the choice."""

from optax_rprop.contrib._adaptive_gains import ScaleByAdaptiveGainsState, scale_by_adaptive_gains

__all__ = ["ScaleByAdaptiveGainsState", "scale_by_adaptive_gains"]

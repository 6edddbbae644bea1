"""Adaptive gains as documented, one weight at a time, in NumPy scalars (Jacobs 1988)."""

import numpy as np

DEFAULTS = {
    "increase": 0.05,
    "decrease": 0.8,
    "average_decay": 0.9,
    "min_gain": 0.1,
    "max_gain": 10.0,
}


def run(updates, **hyperparameters):
    """The scaled updates, the gains and the averages: three arrays of shape (steps, n)."""
    trace = np.zeros((3, *updates.shape), updates.dtype)
    one, given = (
        updates.dtype.type(1),
        {k: updates.dtype.type(x) for k, x in hyperparameters.items()},
    )
    for weight in range(updates.shape[1]):
        gain, average = one, 0 * one
        for step, update in enumerate(updates[:, weight]):
            if not np.isfinite(update):
                update = 0 * one
            if update != 0 and average != 0:
                if (update > 0) == (average > 0):
                    gain = min(gain + given["increase"], given["max_gain"])
                else:
                    gain = max(gain * given["decrease"], given["min_gain"])
            average = given["average_decay"] * average + (one - given["average_decay"]) * update
            trace[:, step, weight] = gain * update, gain, average
    return trace

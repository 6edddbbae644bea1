"""Momentum with a step size of its own as documented, one weight at a time, in NumPy scalars.

The rule's step is that of `reference`, shark_irprop_minus. Slope, average and move are computed in
float64, and only then rounded to the types that hold them. Here moves and averages are added
to the weights, so that the average leads downhill where the slope is below 0.
"""

import math

import numpy as np

from helpers import reference

FIRST_PART = 0.1  # of a weight's size, the first step
FIRST_FACTOR, LEAST_FACTOR, GREATEST_FACTOR = 1 / 16, 2.0**-10, 2.0


class Weight(reference.Weight):
    """One weight, which also remembers the average of its moves."""

    def __init__(self, value, hyperparameters, lower, upper, decay):
        super().__init__(value, hyperparameters, lower, upper)
        self.decay = decay
        self.average = 0.0

    def update(self, rule, gradient, coefficient):
        """By the rule's step and so much of the average, as far as the box has room."""
        step_size_before = self.step_size
        step = self.step_of_rule(rule, gradient)
        average = self.limited(self.mean(step + coefficient * self.average))
        # The old average that leads to the new one, were it not for limit and rounding.
        kept = self.decay + (1 - self.decay) * coefficient
        led_by = (average - (1 - self.decay) * step) / kept
        move = self.in_range(step + coefficient * led_by)
        outwards = (self.value <= self.lower and move < 0) or (
            self.value >= self.upper and move > 0
        )
        if outwards or not self.lower <= self.value + move <= self.upper:
            move = self.cut(move)
            average = self.limited(self.mean(float(move)))
            self.step_size = min(self.step_size, step_size_before)
            if move * self.sign >= 0:  # it rests, or goes where the rule does not
                self.sign = 0
        self.average = average
        self.value = self.value + move
        return move

    def step_of_rule(self, rule, gradient):
        """Without a box; the weight stays for now."""
        there, box = self.value, (self.lower, self.upper)
        self.value, self.lower, self.upper = there.dtype.type(0), -np.inf, np.inf
        step = super().update(rule, gradient)
        self.value, (self.lower, self.upper) = there, box
        return float(step)

    def mean(self, move):
        return self.decay * self.average + (1 - self.decay) * move

    def limited(self, average):
        """At most the largest step size, in the type of the step sizes."""
        largest = float(self.hyperparameters.max_step_size)
        return float(np.array(np.clip(average, -largest, largest)).astype(self.step_size.dtype))

    def in_range(self, move):
        largest = 65504 if self.value.dtype == np.float16 else np.inf
        return np.array(np.clip(move, -largest, largest)).astype(self.value.dtype)[()]

    def go_back(self, at_fault, rests):
        super().go_back(at_fault, rests)
        self.average = 0.0


class Factor:
    """Of the average, for all weights together."""

    def __init__(self):
        self.value = FIRST_FACTOR

    def coefficient(self, gradients, averages):
        """The factor where the average leads downhill, else 0; and the factor adapts."""
        if not np.all(np.isfinite(gradients)):
            return 0.0
        slope = sum(float(g) * a for g, a in zip(gradients, averages, strict=True))
        if slope < 0:
            self.value = min(2 * self.value, GREATEST_FACTOR)
            return self.value
        if slope > 0:
            self.halve()
        return 0.0

    def halve(self):
        self.value = max(self.value / 2, LEAST_FACTOR)


def first_step_size(weight, weights, lower, upper):
    """A tenth of its size; of a zero, and of less than a tenth of it, that of the others.

    And at most a tenth of the width of its box.
    """
    sizes = [abs(float(w)) for w in weights if 0 < abs(float(w)) < np.inf]
    typical = math.exp(sum(map(math.log, sizes)) / len(sizes)) if sizes else 1.0
    size = abs(float(weight))
    size = min(max(size, typical), 10 * size) if size else typical
    return weight.dtype.type(FIRST_PART * min(size, upper - lower))


def run(
    values,
    gradients,
    losses=None,
    steps=None,
    step_dtype=None,
    lower=-np.inf,
    upper=np.inf,
    undo_nonfinite=False,
    momentum=0.8,
    learning_rate=None,
    eta_plus=1.3,
    min_step_size=0.0,
    max_step_size=2.0**31,
    **given,
):
    """What there is after each step.

    Args:
      values: the weights at the start, an array of shape (n,).
      gradients: of shape (steps, n); or a function of the weights.
      losses: one for each step, where domain errors are taken back.
      steps: how many, where `gradients` is a function.
      step_dtype: the type of the step sizes; by default the weights', float32 for float16.
      lower: the bound below all weights, rounded to their type.
      upper: the bound above them.
      undo_nonfinite: whether domain errors are taken back.
      momentum: the decay.
      learning_rate: the first step size; None for a tenth of each weight's size or box.
      eta_plus: grows a step size.
      min_step_size: the smallest step size.
      max_step_size: the largest.
      **given: other hyperparameters.

    Returns:
      Weights, step sizes, signs and averages, of shape (steps, n), and factors.
    """
    if step_dtype is None:
        step_dtype = np.float32 if values.dtype == np.float16 else values.dtype
    step_dtype = np.dtype(step_dtype)
    wide = np.float64 if step_dtype == np.float64 else np.float32
    smallest = 2.0**-478 if step_dtype == np.float64 else 2.0**-62
    limits = {"min_step_size": max(min_step_size, smallest), "max_step_size": max_step_size}
    given |= {"eta_plus": eta_plus}

    def weight(value):
        held = value.astype(step_dtype)
        first = learning_rate
        if first is None:
            first = np.clip(first_step_size(held, values, lower, upper), *limits.values())
        own = reference.Hyperparameters.of_type(step_dtype, first, **limits, **given)
        return Weight(value, own, lower, upper, float(wide(momentum)))

    weights = [weight(value) for value in values]
    factor, domain = Factor(), reference.Domain()
    trace, factors = [], []
    for step in range(len(gradients) if steps is None else steps):
        if callable(gradients):
            row = gradients(np.array([weight.value for weight in weights]))
        else:
            row = gradients[step]
        loss = 0.0 if losses is None else losses[step]
        if undo_nonfinite and domain.takes_back(weights, row, np.isfinite(loss)):
            factor.halve()
        else:
            coefficient = factor.coefficient(row, [weight.average for weight in weights])
            for weight, gradient in zip(weights, row, strict=True):
                move = weight.go_on if undo_nonfinite else weight.update
                move("shark_irprop_minus", gradient, coefficient)
        trace.append([(w.value, w.step_size, w.sign, w.average) for w in weights])
        factors.append(factor.value)
    dtypes = values.dtype, step_dtype, np.int8, np.float64
    parts = (
        np.array([[entry[part] for entry in row] for row in trace], dtype)
        for part, dtype in enumerate(dtypes)
    )
    return *parts, np.array(factors)

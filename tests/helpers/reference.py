"""Rprop as the papers print it, one weight at a time, in NumPy scalars.

This is what the optimizers are held to. It keeps what the papers keep, the step
size, the remembered sign and the last step, each in a variable of its own. The box
and undo_nonfinite, which no paper has, are as the documentation says.

Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation
learning: the RPROP algorithm" (Rprop+); Riedmiller 1994, "Rprop: description and
implementation details" (Rprop-); Igel & Huesken 2003, "Empirical evaluation of the
improved Rprop learning algorithms", algorithms 1 to 4.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass
class Hyperparameters:
    """Those of one optimizer, in the type of the step sizes."""

    learning_rate: np.floating
    eta_minus: np.floating
    eta_plus: np.floating
    min_step_size: np.floating
    max_step_size: np.floating

    @classmethod
    def of_type(
        cls,
        dtype,
        learning_rate=0.01,
        eta_minus=0.5,
        eta_plus=1.2,
        min_step_size=1e-6,
        max_step_size=50.0,
    ):
        numbers = learning_rate, eta_minus, eta_plus, min_step_size, max_step_size
        return cls(*(np.array(number).astype(dtype)[()] for number in numbers))


class Weight:
    """One weight, the box that it stays in, and what Rprop remembers of it."""

    def __init__(self, value, hyperparameters, lower=-np.inf, upper=np.inf):
        self.value = value
        self.hyperparameters = hyperparameters
        self.lower, self.upper = (np.array(x).astype(value.dtype)[()] for x in (lower, upper))
        self.step_size = hyperparameters.learning_rate
        self.sign = 0
        self.last_step = value * 0

        self.finite_value = self.value
        self.unshrunk, self.rests, self.waits = self.step_size * 0, False, False

    def go_back(self, at_fault, rests):
        """Moves the weight to where all was finite; one at fault shrinks and forgets."""
        if at_fault:
            given = self.hyperparameters
            self.unshrunk, self.rests = max(self.unshrunk, self.step_size), rests
            self.step_size = max(self.step_size * given.eta_minus, given.min_step_size)
            self.sign = 0
        step = self.finite_value - self.value
        if not self.lower <= self.value + step <= self.upper:  # by rounding
            step = self.cut(step)
        self.value = self.value + step

    def go_on(self, rule, gradient, loss_rose):
        """A step of a rule from a point where all is finite."""
        self.finite_value = self.value
        if self.rests or self.waits:
            self.rests = False
            return
        if float(gradient) * self.sign < 0:
            self.unshrunk = self.unshrunk * self.hyperparameters.eta_minus
        self.update(rule, gradient, loss_rose)
        if self.step_size >= self.unshrunk:
            self.unshrunk = self.step_size * 0

    def update(self, rule, gradient, loss_rose=False):
        """Moves the weight by one step of a rule and returns the step."""
        given = self.hyperparameters
        gradient = float(gradient)
        sign = 1 if gradient > 0 else -1 if gradient < 0 else 0
        agreement = sign * self.sign
        step_size_before = self.step_size
        if agreement > 0:
            self.step_size = min(self.step_size * given.eta_plus, given.max_step_size)
        elif agreement < 0:
            self.step_size = max(self.step_size * given.eta_minus, given.min_step_size)

        step_size = self.step_size.astype(self.value.dtype)
        if agreement < 0 and rule != "rprop_minus":
            self.sign = 0
            if rule == "rprop_plus" or (rule == "irprop_plus" and loss_rose):
                step = -self.last_step
            elif rule == "shark_irprop_minus":
                step = -step_size if sign > 0 else step_size
            else:
                step = self.value.dtype.type(0)
        else:
            self.sign = sign
            step = {1: -step_size, 0: self.value.dtype.type(0), -1: step_size}[sign]
        outwards = (self.value <= self.lower > -np.inf and step < 0) or (
            self.value >= self.upper < np.inf and step > 0
        )
        if outwards or not self.lower <= self.value + step <= self.upper:
            step = self.cut(step)
            undoes = rule in ("rprop_plus", "irprop_plus")
            if undoes:
                step = self.storable(step)
            self.step_size = min(self.step_size, step_size_before)
            length = abs(step).astype(self.step_size.dtype)
            if step * self.sign >= 0 or (undoes and length < given.min_step_size):
                self.sign = 0
            elif undoes:  # a part of the step, whose sign stays
                self.step_size = length
        self.last_step = step
        self.value = self.value + step
        return step

    def cut(self, step):
        """To the bound, or to the last number before it that a rounded sum can reach."""
        bound = self.upper if step > 0 else self.lower
        inwards = step.dtype.type(-np.inf if step > 0 else np.inf)
        step = bound - self.value
        while not self.lower <= self.value + step <= self.upper:
            step = np.nextafter(step, inwards)
        return step

    def storable(self, step):
        """The longest step, no longer than this one, whose length is a step size."""
        kind = self.step_size.dtype.type
        length = kind(abs(step))
        if length.astype(np.float64) > abs(np.float64(step)):
            length = kind(abs(np.float64(step)) * (1 - np.float64(jnp.finfo(kind).eps)))
        smallest = 2.0**-478 if kind is np.float64 else 2.0**-62
        length = length if length >= smallest else kind(0)
        return np.copysign(length, step).astype(step.dtype)


class Losses:
    """Whether each loss is above the last finite one."""

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype).type
        self.previous = self.dtype(np.inf)

    def rose(self, loss):
        loss = self.dtype(loss)
        rose = bool(loss > self.previous)
        if np.isfinite(loss):
            self.previous = loss
        return rose


def drawn(number):
    """A number below 256, by a hash."""
    for _ in range(2):
        number = (number ^ (number >> 16)) * 0x45D9F3B % 2**32
    return number >> 24


class Domain:
    """Takes all weights back from a point with a domain error, as the documentation says."""

    def __init__(self):
        self.clock = 0

    def begin_turn(self):
        self.clock = self.clock // 32 * 32 + 32

    def take_turns(self, weights, moved):
        """Weights whose step sizes errors made small wait, more often the smaller they are."""
        if self.clock and any(moved):
            self.clock += 1
        elif self.clock:
            self.begin_turn()
        for number, weight in enumerate(weights):
            share = drawn(number + self.clock // 32) / 256 if self.clock else 0
            kind = np.float64 if weight.step_size.dtype == np.float64 else np.float32
            needed = kind(weight.unshrunk) * kind(share if share >= 1 / 16 else 0)
            weight.waits = bool(kind(weight.step_size) < needed)

    def takes_back(self, weights, gradients, loss_is_finite):
        """Whether it did; then nothing else happens in that step."""
        moved = [bool(weight.value != weight.finite_value) for weight in weights]
        is_nan = [bool(np.isnan(gradient)) for gradient in gradients]
        if loss_is_finite and not any(is_nan):
            self.take_turns(weights, moved)
            return False
        own = [a and b for a, b in zip(moved, is_nan, strict=True)]
        at_fault = own if any(own) else moved
        if not any(own):
            self.begin_turn()
        for weight, *answers in zip(weights, at_fault, is_nan, strict=True):
            weight.go_back(*answers)
        return True


def run(
    rule,
    values,
    gradients,
    losses=None,
    loss_dtype=np.float32,
    step_dtype=None,
    lower=-np.inf,
    upper=np.inf,
    undo_nonfinite=False,
    **given,
):
    """The weights, step sizes and signs after each step.

    Args:
      rule: its name.
      values: the weights at the start, an array of shape (n,).
      gradients: of shape (steps, n).
      losses: one for each step, for irprop_plus.
      loss_dtype: the type that losses are compared in.
      step_dtype: the type of the step sizes; by default the weights', float32 for float16.
      lower: the bound below all weights, rounded to their type.
      upper: the bound above them.
      undo_nonfinite: whether domain errors are taken back.
      **given: hyperparameters.

    Returns:
      Three arrays of shape (steps, n).
    """
    if step_dtype is None:
        step_dtype = np.float32 if values.dtype == np.float16 else values.dtype
    hyperparameters = Hyperparameters.of_type(step_dtype, **given)
    if undo_nonfinite and values.dtype == np.float16:  # so that no sum becomes infinite
        lower, upper = max(lower, -65504), min(upper, 65504)
    weights = [Weight(value, hyperparameters, lower, upper) for value in values]
    memory, domain = Losses(loss_dtype), Domain()
    trace = []
    for step, row in enumerate(gradients):
        loss = 0.0 if losses is None else losses[step]
        if not (undo_nonfinite and domain.takes_back(weights, row, np.isfinite(loss))):
            rose = memory.rose(loss)
            for weight, gradient in zip(weights, row, strict=True):
                if undo_nonfinite:
                    weight.go_on(rule, gradient, rose)
                else:
                    weight.update(rule, gradient, rose)
        trace.append([(weight.value, weight.step_size, weight.sign) for weight in weights])
    return tuple(
        np.array([[entry[part] for entry in row] for row in trace], dtype)
        for part, dtype in enumerate((values.dtype, hyperparameters.eta_plus.dtype, np.int8))
    )

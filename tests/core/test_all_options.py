"""All rules, types, hyperparameters and options, drawn at random, follow the reference."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import optax_rprop
from helpers import reference, streams
from optax_rprop._rules import RULES

WEIGHTS, STEPS = 12, 40


@st.composite
def runs(draw):
    """A rule, the weights' type, numbers and options; and a seed for the streams."""
    rule = draw(st.sampled_from(sorted(RULES)))
    dtype = draw(st.sampled_from(["float16", "bfloat16", "float32", "float64"]))
    smallest = 10.0 ** draw(st.floats(-8, -1))
    largest = smallest * 10.0 ** draw(st.floats(0.1, 6))
    numbers = {
        "learning_rate": smallest * (largest / smallest) ** draw(st.floats(0.01, 0.99)),
        "eta_minus": draw(st.floats(0.05, 0.97)),
        "eta_plus": draw(st.floats(1.02, 3)),
        "min_step_size": smallest,
        "max_step_size": largest,
    }
    options = {}
    if draw(st.booleans()):
        options["step_dtype"] = draw(st.sampled_from(["bfloat16", "float32", "float64"]))
    if draw(st.booleans()):
        # A CPU takes numbers too small for a full mantissa for zero, and NumPy does not.
        options["lower"] = draw(st.floats(-4, 3, allow_subnormal=False))
        options["upper"] = options["lower"] + draw(st.floats(0.1, 4))
    options["undo_nonfinite"] = draw(st.booleans())
    return rule, jnp.dtype(dtype), numbers, options, draw(st.integers(0, 2**32 - 1))


@pytest.mark.usefixtures("x64")
@settings(max_examples=60)
@given(runs())
def test_any_run(drawn):
    rule, dtype, numbers, options, seed = drawn
    random = np.random.default_rng(seed)
    exponents = (-6, 4) if dtype == np.float16 else (-30, 30)
    gradients = streams.gradients(STEPS, WEIGHTS, np.float64, exponents, seed=seed).astype(dtype)
    losses = random.standard_normal(STEPS)
    losses[random.random(STEPS) < 0.1] = np.nan
    losses[random.random(STEPS) < 0.05] = np.inf
    box = [np.array(options.get(side, 0)).astype(dtype) for side in ("lower", "upper")]
    start = random.uniform(-4, 4, WEIGHTS).astype(dtype)
    start = np.clip(start, *box).astype(dtype) if "lower" in options else start

    expected = reference.run(rule, start, gradients, losses, np.float64, **numbers, **options)
    steps = optax_rprop.scale_by_rprop(**numbers, rule=rule, **options)
    optimizer = optax.chain(steps, optax.scale(-1))
    actual = streams.run(optimizer, jnp.asarray(start), jnp.asarray(gradients), losses)
    for got, wanted in zip(actual, expected, strict=True):
        # Without the signs of zeros: a weight that was cut at a bound of zero may have either.
        streams.assert_same_bits(got + got.dtype.type(0), wanted + wanted.dtype.type(0))

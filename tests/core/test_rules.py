"""Every optimizer is the published rule, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference, streams

RULES = streams.OPTIMIZERS
TIGHT = {
    "learning_rate": 0.3,
    "eta_minus": 0.7,
    "eta_plus": 1.5,
    "min_step_size": 0.1,
    "max_step_size": 2.0,
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("given", [{}, TIGHT], ids=["defaults", "tight"])
@pytest.mark.parametrize(
    ("dtype", "step_dtype"),
    [
        ("float32", "float32"),
        ("float32", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
        ("float64", "float64"),
    ],
)
def test_equals_the_papers(rule, given, dtype, step_dtype, request):
    """Also where a product of gradients would underflow."""
    losses = np.random.default_rng(1).standard_normal(300)
    losses[::17] = np.nan
    exponents = (-7, 4) if dtype == "float16" else (-36, 36)
    gradients = streams.gradients(300, 24, jnp.dtype(dtype), exponents)
    if dtype == "float64":
        request.getfixturevalue("x64")
        gradients[:, 12:] **= 7
        losses = 1 + 1e-12 * losses
    loss_dtype = jax.dtypes.canonicalize_dtype(float)
    losses = losses.astype(loss_dtype)
    values = np.linspace(-3, 3, 24).astype(gradients.dtype)
    expected = reference.run(rule, values, gradients, losses, loss_dtype, step_dtype, **given)
    options = {"step_dtype": step_dtype} if step_dtype == "bfloat16" else {}
    optimizer = streams.make(rule)(**given, **options)
    actual = streams.run(optimizer, jnp.asarray(values), gradients, losses)
    for got, wanted in zip(actual, expected, strict=True):
        streams.assert_same_bits(got, wanted)


# After a first gradient of the row's sign and a second of the column's, starting
# from a step of 1 with factors 1/2 and 2: the second update, the step size, the sign.
# From the papers' algorithms, by hand. The first update is -sign of the row.
PLUS_PLUS, FRESH_PLUS = (-2.0, 2.0, 1), (-1.0, 1.0, 1)
MINUS_MINUS, FRESH_MINUS = (2.0, 2.0, -1), (1.0, 1.0, -1)
NONE = (0.0, 1.0, 0)
ON_REVERSAL = {  # for + then -; the mirror image for - then +
    "rprop_minus": (0.5, 0.5, -1),
    "irprop_minus": (0.0, 0.5, 0),
    "rprop_plus": (1.0, 0.5, 0),
    "irprop_plus": (1.0, 0.5, 0),
    "shark_irprop_minus": (0.5, 0.5, 0),
}


@pytest.mark.parametrize("rule", RULES)
def test_table_of_sign_pairs(rule):
    step, size, sign = ON_REVERSAL[rule]
    table = {
        (1, 1): PLUS_PLUS, (1, 0): NONE, (1, -1): (step, size, sign),
        (0, 1): FRESH_PLUS, (0, 0): NONE, (0, -1): FRESH_MINUS,
        (-1, 1): (-step, size, -sign), (-1, 0): NONE, (-1, -1): MINUS_MINUS,
    }  # fmt: skip
    optimizer = streams.make(rule)(1.0, eta_minus=0.5, eta_plus=2.0)
    gradients = np.array(list(table), np.float32).T
    params = jnp.zeros(9)
    weights, step_sizes, signs = streams.run(optimizer, params, gradients, [0.0, 1.0])
    wanted = np.array(list(table.values()), np.float32).T
    np.testing.assert_array_equal(weights[1] - weights[0], wanted[0])
    np.testing.assert_array_equal(step_sizes[1], wanted[1])
    np.testing.assert_array_equal(signs[1], wanted[2])


def first_updates(optimizer):
    state = optimizer.init(jnp.zeros(()))
    updates = []
    for gradient in jnp.array([1.0, 1.0, 1.0, -1.0, 1.0]):
        update, state = optimizer.update(gradient, state)
        updates.append(-float(update))
    return np.array(updates)


def test_optax_is_one_step_late():
    """What README says of optax.rprop. Should this fail, Optax has changed."""
    right, late = [0.1, 0.12, 0.144, 0.0, 0.072], [0.0, 0.1, 0.12, 0.0, 0.0]
    # To float32's rounding of three products: the literals are decimal.
    np.testing.assert_allclose(first_updates(optax_rprop.rprop(0.1)), right, rtol=3e-7)
    updates = first_updates(optax.rprop(0.1))
    assert not np.allclose(updates, right), (
        f"optax.rprop is right in Optax {optax.__version__}: say so in README.md, in the "
        "docstrings and in the examples, and turn this test into a comparison."
    )
    np.testing.assert_allclose(updates, late, rtol=3e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("losses", "moved"),
    [
        ([1.0, 1 + 1e-12], 0.0),  # it rose, which only float64 tells
        ([1.0, 1.0], -1.0),
        ([1.0, 1 - 1e-12], -1.0),
        ([2.0, np.nan, 2.5], -1.0),  # the last finite loss is remembered
        ([2.0, np.nan, 1.5], -2.2),
        ([1.0, np.nan], -1.0),  # NaN is no rise
        ([1.0, np.inf], 0.0),
        ([np.nan, 1.0], -1.0),  # the first finite loss rises above nothing
        ([-np.inf, 1.0], -1.0),
    ],
)
def test_which_losses_rise(losses, moved):
    gradients = np.float32([[1.0], [1.0], [-1.0]])[-len(losses) :]
    start = jnp.zeros(1, np.float32)
    weights, _, _ = streams.run(optax_rprop.irprop_plus(1.0), start, gradients, losses)
    assert weights[-1] == np.float32(moved)


@pytest.mark.parametrize("rule", RULES)
def test_no_step_is_infinite_in_a_small_type(rule):
    optimizer = streams.make(rule)(2.0**31, max_step_size=2.0**31)
    params = jnp.zeros(2, jnp.float16)
    updates, _ = optimizer.update(
        jnp.array([1, -1], jnp.float16), optimizer.init(params), value=0.0
    )
    np.testing.assert_array_equal(updates, np.array([-65504, 65504], np.float16))

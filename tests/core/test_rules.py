"""Every optimizer is the published rule, bit for bit."""

import itertools

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


def make(rule, **given):
    return streams.make(rule)(**given)


def assert_equals_papers(rule, values, gradients, losses=None, step_dtype=None, **given):
    loss_dtype = jax.dtypes.canonicalize_dtype(float)
    expected = reference.run(rule, values, gradients, losses, loss_dtype, step_dtype, **given)
    options = {"step_dtype": step_dtype} if step_dtype == "bfloat16" else {}
    actual = streams.run(make(rule, **given, **options), jnp.asarray(values), gradients, losses)
    for got, wanted in zip(actual, expected, strict=True):
        streams.assert_same_bits(got, wanted)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("given", [{}, TIGHT], ids=["defaults", "tight"])
@pytest.mark.parametrize(
    ("dtype", "step_dtype"),
    [
        ("float32", "float32"),
        ("float32", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("float16", "float32"),
    ],
)
def test_equals_the_papers(rule, given, dtype, step_dtype):
    dtype = jnp.dtype(dtype)
    exponents = (-7, 4) if dtype == np.float16 else (-36, 36)
    gradients = streams.gradients(300, 24, dtype, exponents)
    losses = np.random.default_rng(1).standard_normal(300).astype(np.float32)
    losses[::17] = np.nan
    values = np.linspace(-3, 3, 24).astype(dtype)
    assert_equals_papers(rule, values, gradients, losses, step_dtype, **given)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_the_papers_with_64_bits(rule, dtype):
    gradients = streams.gradients(300, 24, dtype, (-36, 36), seed=2)
    if dtype == "float64":
        gradients[:, 12:] **= 7
    losses = 1 + 1e-12 * np.random.default_rng(1).standard_normal(300)
    values = np.linspace(-3, 3, 24).astype(dtype)
    assert_equals_papers(rule, values, gradients, losses, dtype)
    assert_equals_papers(rule, values, gradients, losses, dtype, **TIGHT)


SEQUENCES = np.array(list(itertools.product((-1.0, 0.0, 1.0, np.nan), repeat=5)), np.float32).T


# Of the step size: free, at its minimum, at its maximum.
LIMITS = ((1e-6, 50.0), (0.1, 50.0), (1e-6, 0.1))


@pytest.mark.parametrize("rule", RULES)
def test_every_sequence_of_signs(rule):
    """All of -, 0, + and NaN up to length 5; for irprop_plus times the loss rising or not."""
    answers = (False, True) if rule == "irprop_plus" else (False,)
    patterns = itertools.product((False,), *4 * [answers])  # the first loss rises above nothing
    # Where it does not rise, the loss stays and falls in turn: neither is a rise.
    changes = [[1 if rises else -(step % 2) for step, rises in enumerate(p)] for p in patterns]
    losses = np.cumsum(changes, axis=1).astype(np.float32)
    smallest, largest = np.repeat(np.float32(LIMITS).T, SEQUENCES.shape[1], axis=1)
    first = np.float32(0.1)
    optimizer = make(rule, learning_rate=first, min_step_size=smallest, max_step_size=largest)
    side_by_side = np.tile(SEQUENCES, len(LIMITS))
    start = jnp.zeros(smallest.size)
    actual = jax.vmap(lambda loss: streams.run(optimizer, start, side_by_side, loss))(losses)
    for which, (low, high) in enumerate(LIMITS):
        given = {"learning_rate": 0.1, "min_step_size": low, "max_step_size": high}
        for row, loss in enumerate(losses):
            values = np.zeros(SEQUENCES.shape[1], np.float32)
            expected = reference.run(rule, values, SEQUENCES, loss, **given)
            for got, wanted in zip(actual, expected, strict=True):
                found = np.split(np.asarray(got[row]), len(LIMITS), axis=1)[which]
                streams.assert_same_bits(found, wanted)


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
    optimizer = make(rule, learning_rate=1.0, eta_minus=0.5, eta_plus=2.0)
    gradients = np.array(list(table), np.float32).T
    params = jnp.zeros(9)
    weights, step_sizes, signs = streams.run(optimizer, params, gradients, [0.0, 1.0])
    wanted = np.array(list(table.values()), np.float32).T
    np.testing.assert_array_equal(weights[1] - weights[0], wanted[0])
    np.testing.assert_array_equal(step_sizes[1], wanted[1])
    np.testing.assert_array_equal(signs[1], wanted[2])


FIVE_GRADIENTS = np.array([1, 1, 1, -1, 1], np.float32)
FIVE_UPDATES = np.array([0.1, 0.12, 0.144, 0.0, 0.072])


def updates_of(optimizer, gradients):
    state = optimizer.init(jnp.zeros(()))
    updates = []
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state)
        updates.append(-float(update))
    return np.array(updates)


def test_first_five_updates():
    updates = updates_of(optax_rprop.rprop(0.1), FIVE_GRADIENTS)
    # To float32's rounding of three products: the literals are decimal.
    np.testing.assert_allclose(updates, FIVE_UPDATES, rtol=3e-7)


def test_optax_is_one_step_late():
    """What README says of optax.rprop. Should this fail, Optax has changed."""
    updates = updates_of(optax.rprop(0.1), FIVE_GRADIENTS)
    late = np.array([0.0, 0.1, 0.12, 0.0, 0.0])
    assert not np.allclose(updates, FIVE_UPDATES), (
        f"optax.rprop is right in Optax {optax.__version__}: say so in README.md, in the "
        "docstrings and in the examples, and turn this test into a comparison."
    )
    np.testing.assert_allclose(updates, late, rtol=3e-7)


@pytest.mark.parametrize("rule", RULES)
def test_magnitudes_do_not_matter(rule):
    gradients = streams.gradients(200, 32, np.float32, (-6, 6), special=False)
    losses = np.random.default_rng(1).standard_normal(200)
    scaled = [gradients * np.float32(2.0**power) for power in (0, -100, 100)]
    side_by_side = np.concatenate(scaled, axis=1)
    for part in streams.run(make(rule), jnp.zeros(96), side_by_side, losses):
        plain, small, large = np.split(np.asarray(part), 3, axis=1)
        streams.assert_same_bits(small, plain)
        streams.assert_same_bits(large, plain)


@pytest.mark.usefixtures("x64")
def test_losses_in_float64_are_told_apart():
    """A rise of 1e-12 undoes a step, the same loss and a fall do not."""
    gradients = np.array([[1.0], [-1.0]], np.float32)
    for rise, moved in ((1e-12, 0.0), (0.0, -1.0), (-1e-12, -1.0)):
        optimizer = optax_rprop.irprop_plus(1.0)
        weights, _, _ = streams.run(optimizer, jnp.zeros(1, np.float32), gradients, [1, 1 + rise])
        assert weights[1] == moved


@pytest.mark.parametrize(
    ("losses", "moved"),
    [
        ([2.0, np.nan, 2.5], -1.0),  # the last finite loss is remembered
        ([2.0, np.nan, 1.5], -2.2),
        ([1.0, np.nan], -1.0),  # NaN is no rise
        ([1.0, np.inf], 0.0),
        ([np.nan, 1.0], -1.0),  # the first finite loss rises above nothing
        ([-np.inf, 1.0], -1.0),
    ],
)
def test_losses_that_are_not_finite(losses, moved):
    gradients = np.float32([[1.0], [1.0], [-1.0]])[-len(losses) :]
    weights, _, _ = streams.run(optax_rprop.irprop_plus(1.0), jnp.zeros(1), gradients, losses)
    assert weights[-1] == np.float32(moved)


@pytest.mark.parametrize("rule", RULES)
def test_no_step_is_infinite_in_a_small_type(rule):
    optimizer = make(rule, learning_rate=2.0**31, max_step_size=2.0**31)
    params = jnp.zeros(2, jnp.float16)
    updates, _ = optimizer.update(
        jnp.array([1, -1], jnp.float16), optimizer.init(params), value=0.0
    )
    np.testing.assert_array_equal(updates, np.array([-65504, 65504], np.float16))

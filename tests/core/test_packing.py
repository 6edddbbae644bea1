"""The one-float encoding loses no bit, and nothing that can be traced corrupts it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optax_rprop
from helpers import streams
from optax_rprop import _packing

# The ranges that the documentation states.
RANGES = {
    "bfloat16": (2.0**-62, 2.0**31),
    "float32": (2.0**-62, 2.0**31),
    "float64": (2.0**-478, 2.0**31),
}


def round_trip(step_sizes, signs):
    state = optax_rprop.ScaleByRpropState.from_step_sizes(step_sizes, signs)
    return optax_rprop.step_sizes(state), optax_rprop.prev_signs(state)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", RANGES)
def test_round_trip(dtype):
    smallest, largest = RANGES[dtype]
    mantissas = np.random.default_rng(0).uniform(1, 2, 500)
    exponents = np.random.default_rng(1).integers(np.log2(smallest), np.log2(largest), 500)
    step_sizes = np.append(mantissas * 2.0**exponents, [smallest, largest]).astype(dtype)
    for sign in (-1, 0, 1):
        signs = np.full(step_sizes.shape, sign, np.int8)
        got_step_sizes, got_signs = round_trip(jnp.asarray(step_sizes), jnp.asarray(signs))
        streams.assert_same_bits(got_step_sizes, step_sizes)
        streams.assert_same_bits(got_signs, signs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zero_minimum(dtype):
    """Halved for ever, a step size stops at the smallest that can be held."""
    smallest, _ = RANGES[dtype]
    halvings = -int(np.log2(smallest))
    gradients = np.resize(np.array([1, -1], dtype), (halvings + 100, 1))
    optimizer = optax_rprop.rprop_minus(1.0, min_step_size=0)
    _, step_sizes, _ = streams.run(optimizer, jnp.zeros(1, dtype), gradients)
    np.testing.assert_array_equal(step_sizes[: halvings + 1, 0], 2.0 ** -np.arange(halvings + 1.0))
    assert (step_sizes[halvings:] == smallest).all()


def test_small_types_have_a_float32_state():
    state = optax_rprop.rprop().init(
        {"half": jnp.zeros(2, jnp.float16), "eight": jnp.zeros(2, jnp.float8_e4m3fn)}
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state)} == {"float32"}


EXTREMES = [1e-25, 1e-45, 0.0, -1.0, 1e-6, 2.0**31, 2.0**32, 3e38, np.inf, -np.inf, np.nan]


def four_updates(rule, **hyperparameters):
    """The weight and the step size after each, for gradients 1, 1, -1, -1 and rising losses."""
    optimizer = streams.make(rule)(**hyperparameters)
    gradients = jnp.array([1.0, 1.0, -1.0, -1.0])
    weights, step_sizes, signs = streams.run(optimizer, jnp.zeros(()), gradients, jnp.arange(4.0))
    return weights, step_sizes, signs


@pytest.mark.parametrize("rule", streams.OPTIMIZERS)
@pytest.mark.parametrize(
    "argument", ["learning_rate", "eta_minus", "eta_plus", "min_step_size", "max_step_size"]
)
def test_traced_extremes(rule, argument):
    """Every update is a step within the limits, whatever the hyperparameter."""
    sweep = jax.vmap(lambda extreme: four_updates(rule, **{argument: extreme}))
    weights, step_sizes, signs = sweep(jnp.array(EXTREMES, jnp.float32))
    assert np.isfinite(weights).all()
    assert (step_sizes >= 2.0**-62).all()
    assert (step_sizes <= 2.0**31).all()
    # The first update is one step downwards, by the step size: no sign was read from its bits.
    np.testing.assert_array_equal(weights[:, 0], -step_sizes[:, 0])
    expected = {"rprop_minus": [1, 1, -1, -1]}.get(rule, [1, 1, 0, -1])
    np.testing.assert_array_equal(signs, np.broadcast_to(np.int8(expected), signs.shape))


@pytest.mark.parametrize(
    ("rate", "largest", "first"),
    [
        (1e-25, 50, 0.25),
        (np.nan, 50, 0.25),
        (-1.0, 50, 0.25),
        (0.0, 50, 0.25),
        (0.5, 50, 0.5),
        (99.0, 50, 50),
        (3e38, 2.0**31, 2.0**31),
    ],
)
def test_a_traced_learning_rate_is_moved_into_the_limits(rate, largest, first):
    limits = {"min_step_size": 0.25, "max_step_size": largest}
    state = jax.jit(lambda rate: optax_rprop.rprop(rate, **limits).init(jnp.zeros(())))(rate)
    assert optax_rprop.step_sizes(state) == first


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.usefixtures("x64")
def test_every_memory_is_packed_and_unpacked(dtype):
    """Step size, sign and why there is none, as _packing documents them."""
    sizes, signs, rests = np.meshgrid([2.0**-62, 0.75, 2.0**31], [-1.0, 0, 1], [False, True])
    compute = jnp.float32 if dtype == "bfloat16" else dtype
    size, sign = (jnp.asarray(x.ravel(), compute) for x in (sizes, signs))
    memory = _packing.Memory(size, sign, jnp.asarray(rests.ravel()))
    packed = _packing.pack(memory, jnp.dtype(dtype))
    assert packed.dtype == dtype
    power = 2.0**512 if dtype == "float64" else 2.0**96
    expected = np.where(signs == 0, np.where(rests, -power, power), signs) * sizes
    np.testing.assert_array_equal(np.asarray(packed, float), expected.ravel())
    back = _packing.unpack(packed)
    for part in ("step_size", "sign"):
        streams.assert_same_bits(getattr(back, part), getattr(memory, part))
    np.testing.assert_array_equal(back.at_rest, (rests & (signs == 0)).ravel())
    np.testing.assert_array_equal(
        np.asarray(_packing.signed_step(packed), float), (signs * sizes).ravel()
    )


@given(st.integers(-62, 30), st.floats(1, 2, exclude_max=True), st.sampled_from([-1, 0, 1]))
def test_round_trip_of_any_step_size(exponent, mantissa, sign):
    step_size = np.float32(mantissa) * np.float32(2.0**exponent)
    got, got_sign = round_trip(jnp.asarray([step_size]), jnp.asarray([sign]))
    assert (got[0], got_sign[0]) == (step_size, sign)

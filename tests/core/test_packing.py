"""The one-float encoding loses no bit, and nothing that can be traced corrupts it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop
from helpers import streams
from optax_rprop import _packing

# The ranges that the documentation states.
RANGES = {
    "bfloat16": (2.0**-62, 2.0**31),
    "float32": (2.0**-62, 2.0**31),
    "float64": (2.0**-478, 2.0**31),
}


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


def test_types_of_the_state():
    """Each parameter's own, or float32 for a small one; a `step_dtype` is for real ones alone."""
    kept = {"bfloat16": "bfloat16", "float16": "float32", "float8_e4m3fn": "float32"}
    kept |= {"complex64": "complex64"}
    params = {name: jnp.ones(2, name) for name in kept}
    made = optax_rprop.ScaleByRpropState.from_step_sizes(params, params)
    narrow = optax_rprop.rprop(step_dtype="bfloat16").init(params)[0]
    for state, types in (
        (optax_rprop.rprop().init(params)[0], kept),
        (made, kept),
        (narrow, {**dict.fromkeys(kept, "bfloat16"), "complex64": "complex64"}),
    ):
        assert {name: leaf.dtype.name for name, leaf in state.packed.items()} == types


EXTREMES = [1e-25, 1e-45, 0.0, -1.0, 1e-6, 2.0**31, 2.0**32, 3e38, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("rule", ["irprop_minus", "rprop_plus", "rprop_minus"])
@pytest.mark.parametrize(
    "argument", ["learning_rate", "eta_minus", "eta_plus", "min_step_size", "max_step_size"]
)
def test_traced_extremes(rule, argument):
    """Every update is a step within the limits, whatever the hyperparameter."""

    def four_updates(extreme):
        optimizer = streams.make(rule)(**{argument: extreme})
        gradients = jnp.array([1.0, 1.0, -1.0, -1.0])
        return streams.run(optimizer, jnp.zeros(()), gradients, jnp.arange(4.0))

    extremes = jnp.array(EXTREMES, jnp.float32)
    weights, step_sizes, signs = jax.vmap(four_updates)(extremes)
    assert np.isfinite(weights).all()
    assert (step_sizes >= 2.0**-62).all()
    assert (step_sizes <= 2.0**31).all()
    # The first update is one step downwards, by the step size: no sign was read from its bits.
    np.testing.assert_array_equal(weights[:, 0], -step_sizes[:, 0])
    expected = {"rprop_minus": [1, 1, -1, -1]}.get(rule, [1, 1, 0, -1])
    np.testing.assert_array_equal(signs, np.broadcast_to(np.int8(expected), signs.shape))


def test_a_traced_learning_rate_is_moved_into_the_limits():
    rates, limits = jnp.array([0.5, *EXTREMES]), {"min_step_size": 0.25, "max_step_size": 2.0**20}
    states = jax.vmap(lambda rate: optax_rprop.rprop(rate, **limits).init(jnp.zeros(())))(rates)
    expected = np.clip(np.nan_to_num(rates), 0.25, 2.0**20)
    np.testing.assert_array_equal(optax_rprop.step_sizes(states), expected)


@pytest.mark.parametrize("dtype", RANGES)
@pytest.mark.usefixtures("x64")
def test_every_memory_is_packed_and_unpacked(dtype):
    """Step size, sign and why there is none, as _packing documents them."""
    smallest, largest = RANGES[dtype]
    between = np.geomspace(smallest, largest, 500).astype(dtype).astype(float)
    sizes = [smallest, *between[1:-1], largest]
    sizes, signs, rests = np.meshgrid(sizes, [-1.0, 0, 1], [False, True])
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

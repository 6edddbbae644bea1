"""Box constraints: a weight is never outside, to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import streams

# The steps of all rules in boxes are in test_all_options, those of momentum in test_momentum.
DTYPES = ("float32", "float64", "bfloat16", "float16")


def boxes(dtype, seed, size):
    """Lower bounds, upper bounds and starts between them, of all magnitudes and both signs."""
    random = np.random.default_rng(seed)
    largest = 4 if dtype == "float16" else 30
    ends = random.choice([-1, 1], (2, size)) * 10.0 ** random.uniform(-largest, largest, (2, size))
    ends[0, random.random(size) < 0.1] = 0
    ends[0, random.random(size) < 0.1] = -np.inf
    lower, upper = np.sort(ends, axis=0).astype(dtype)
    middle = lower.astype(float) + random.random(size) * (upper.astype(float) - lower.astype(float))
    starts = np.where(np.isfinite(middle), middle, upper.astype(float)).astype(dtype)
    return lower, upper, np.clip(starts, lower, upper).astype(dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_cut_to_the_largest_step(dtype):
    """A cut step reaches the bound, or one more bit of it would overshoot."""
    with np.errstate(over="ignore", invalid="ignore"):
        lower, upper, starts = boxes(jnp.dtype(dtype), 1, 4000)
    finite = np.isfinite(lower.astype(float))
    lower, upper, starts = lower[finite], upper[finite], starts[finite]
    down = np.arange(starts.size) % 2 == 0
    bounds = {"lower": jnp.asarray(lower), "upper": jnp.asarray(upper)}
    optimizer = optax_rprop.rprop(2.0**31, max_step_size=2.0**31, **bounds)
    params, gradients = jnp.asarray(starts), jnp.asarray(np.where(down, 1, -1), dtype)
    updates = np.asarray(optimizer.update(gradients, optimizer.init(params), params)[0])
    moved = starts + updates
    assert ((lower <= moved) & (moved <= upper)).all()
    cut = abs(updates.astype(float)) != min(2.0**31, float(jnp.finfo(dtype).max))
    assert cut[down].sum() > 500
    assert cut[~down].sum() > 500
    with np.errstate(over="ignore"):
        further = starts + np.nextafter(updates, np.where(down, -np.inf, np.inf).astype(dtype))
    ends = np.where(down, moved == lower, moved == upper)
    assert (ends | np.where(down, further < lower, further > upper))[cut].all()
    if dtype == "float32":  # the subtraction alone does overshoot
        assert (starts + (lower - starts) < lower).mean() > 0.01


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_a_weight_at_its_bound_moves_with_it(derivative):
    """The derivative of every cut weight is 1 by the bound and 0 by where it came from."""

    def moved(lower, starts):
        optimizer = optax_rprop.rprop(10.0, lower=lower)
        updates, _ = optimizer.update(jnp.ones_like(starts), optimizer.init(starts), starts)
        return optax.apply_updates(starts, updates)

    lower, starts = jnp.float32(-1.1), jnp.linspace(-1, 1, 300)
    assert (starts + (lower - starts) < lower).any()  # so that neighbours are needed
    by_lower, by_starts = jax.jit(derivative(moved, argnums=(0, 1)))(lower, starts)
    np.testing.assert_array_equal(by_lower, np.ones(300))
    np.testing.assert_array_equal(by_starts, np.zeros((300, 300)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step_dtype", [None, "bfloat16"])
def test_an_undo_takes_back_the_step(dtype, step_dtype):
    """To the last bit, a cut step included; so the weight is restored where sums are exact."""
    random = np.random.default_rng(0)
    size = 1200
    # Multiples of 1/8 or 1/128 below 8: every sum of two has few enough bits for the type, but a
    # bfloat16 step has fewer. Starts inside, so that no bound stops the way back.
    unit = 8 if dtype == "bfloat16" else 128
    lower, starts, upper = np.sort(random.integers(-4 * unit, 4 * unit, (3, size)), axis=0) / unit
    optimizer = optax_rprop.rprop_plus(
        random.choice([0.25, 0.5, 2.0, 8.0], size), step_dtype=step_dtype, lower=lower, upper=upper
    )
    params, gradient = (x.astype(jnp.dtype(dtype)) for x in (starts, random.choice([-1, 1], size)))
    state = optimizer.init(jnp.asarray(params))
    first = np.asarray(optax_rprop.step_sizes(state), float)
    update = jax.jit(optimizer.update)
    there, state = update(gradient, state, params)
    moved = params + np.asarray(there)
    back = np.asarray(update(-gradient, state, moved)[0])
    there = np.asarray(there)
    went = there != 0
    streams.assert_same_bits(back[went], -there[went])
    streams.assert_same_bits((moved + back)[went], params[went])
    assert (np.abs(there).astype(float) < first)[went].sum() > 80  # cut


@pytest.mark.parametrize("rule", ["irprop_minus", "irprop_plus"])
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_gradients_of_another_type(rule, dtypes):
    """The sum is rounded to the parameters' type, the step to the gradients'."""
    dtype, gradient_dtype = dtypes
    starts = jnp.linspace(0.5, 1, 300).astype(dtype)
    optimizer = streams.make(rule)(10.0, lower=0.1, upper=1.1)
    gradients = jnp.where(jnp.arange(300) < 150, 1, -1).astype(gradient_dtype)
    updates, _ = optimizer.update(gradients, optimizer.init(starts), starts, value=0.0)
    assert updates.dtype == gradient_dtype
    with jax.numpy_dtype_promotion("standard"):
        moved = optax.apply_updates(starts, updates)
    assert moved.dtype == dtype
    lower, upper = (jnp.asarray(end, dtype) for end in (0.1, 1.1))
    assert ((moved >= lower) & (moved <= upper)).all()
    rounding = float(jnp.finfo(jnp.bfloat16).eps)
    ends = np.where(np.arange(300) < 150, 0.1, 1.1)
    np.testing.assert_allclose(np.asarray(moved, float), ends, atol=rounding)


def test_a_start_outside_is_moved_inside():
    """By the first step, whatever the gradient; each part of a complex weight for itself."""
    params = {"w": jnp.array([-0.5, 3.0, 0.5]), "z": jnp.array([0.5 + 2j])}
    optimizer = optax_rprop.rprop(0.1, lower={"w": 0.0, "z": 0.0}, upper=1.0)
    for sign in (-1, 0, 1):
        gradients = jax.tree.map(lambda leaf, sign=sign: sign * jnp.ones_like(leaf), params)
        updates, state = optimizer.update(gradients, optimizer.init(params), params)
        moved = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(moved["w"][:2], [0.0, 1.0])
        assert moved["z"].imag == 1
        assert (optax_rprop.step_sizes(state)["w"] == np.float32(0.1)).all()


def test_bounds_for_some_parameters_only():
    """Numbers, arrays and prefixes; a missing key, None or an empty prefix is no bound."""
    params = {"w": jnp.zeros(3), "b": jnp.zeros(2), "layer": {"c": jnp.zeros(())}}
    gradients = jax.tree.map(jnp.ones_like, params)
    for lower in (
        {"w": -1},
        {"w": -1.0, "b": None},
        {"w": jnp.full(3, -1.0), "layer": {}},
        {"w": -1.0, "b": jnp.array([-jnp.inf, -jnp.inf])},
    ):
        optimizer = optax_rprop.rprop(10.0, lower=lower, upper={"b": 0})
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        np.testing.assert_array_equal(updates["w"], [-1.0] * 3)
        np.testing.assert_array_equal(updates["b"], [-10.0] * 2)
        assert updates["layer"]["c"] == -10.0

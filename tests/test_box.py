"""Box constraints: a weight is never outside, to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import streams
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import optax_rprop


def run(*arguments):
    return jax.device_get(streams.run(*arguments))


DTYPES = ("float32", "float64", "bfloat16", "float16")


def boxes(dtype, seed, size=400):
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
@pytest.mark.parametrize("rule", streams.OPTIMIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=3, phases=[Phase.generate])
@given(seed=st.integers(0, 2**32))
def test_never_outside(rule, dtype, seed):
    """The sum of every weight and its update, rounded as optax.apply_updates rounds it."""
    with np.errstate(over="ignore", invalid="ignore"):
        lower, upper, starts = boxes(jnp.dtype(dtype), seed)
    random = np.random.default_rng(seed)
    gradients = streams.gradients(40, starts.size, dtype, (-3, 3), seed=seed)
    optimizer = getattr(optax_rprop, rule)(
        learning_rate=np.float64(10.0 ** random.uniform(-6, 9)),
        max_step_size=2.0**31,
        lower=jnp.asarray(lower),
        upper=jnp.asarray(upper),
    )
    weights, step_sizes, _ = run(
        optimizer, jnp.asarray(starts), gradients, random.standard_normal(40)
    )
    assert ((weights >= lower) & (weights <= upper)).all()
    assert np.isfinite(step_sizes).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_cut_to_the_largest_step(dtype):
    """A cut step reaches the bound, or one more bit of it would overshoot."""
    with np.errstate(over="ignore", invalid="ignore"):
        lower, _, starts = boxes(jnp.dtype(dtype), 1, 4000)
    finite = np.isfinite(lower.astype(float))
    lower, starts = jnp.asarray(lower[finite]), jnp.asarray(starts[finite])
    optimizer = optax_rprop.rprop(2.0**31, max_step_size=2.0**31, lower=lower)
    updates, state = optimizer.update(jnp.ones_like(starts), optimizer.init(starts), starts)
    moved = optax.apply_updates(starts, updates)
    cut = optax_rprop.prev_signs(state) == 0
    further = optax.apply_updates(starts, jnp.nextafter(updates, jnp.full_like(updates, -jnp.inf)))
    assert cut.sum() > 1000
    assert (moved >= lower).all()
    assert ((moved == lower) | (further < lower))[cut].all()
    whole = -min(2.0**31, float(jnp.finfo(dtype).max))
    assert (updates == jnp.asarray(whole, dtype))[~cut].all()
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
    by_lower, by_starts = derivative(moved, argnums=(0, 1))(lower, starts)
    np.testing.assert_array_equal(by_lower, np.ones(300))
    np.testing.assert_array_equal(by_starts, np.zeros((300, 300)))


@pytest.mark.parametrize("rule", streams.OPTIMIZERS)
def test_at_a_bound_the_step_size_stays(rule):
    """Pushed against a bound for long, a weight steps off it by the step that reached it."""
    optimizer = getattr(optax_rprop, rule)(0.25, lower=0.0)
    gradients = np.float32([[1.0]] * 100 + [[-1.0]])
    weights, step_sizes, signs = run(optimizer, jnp.ones(1), gradients)
    plain, _, _ = run(getattr(optax_rprop, rule)(0.25), jnp.ones(1), gradients[:3])
    streams.assert_same_bits(weights[:3], plain)  # 0.25, 0.3, 0.36: inside
    assert weights[2] > 0
    last = step_sizes[2]
    assert (weights[3:-1] == 0).all()
    assert (step_sizes[3:] == last).all()
    assert (signs[3:-1] == 0).all()
    assert weights[-1] == last


@pytest.mark.parametrize("rule", streams.OPTIMIZERS)
@pytest.mark.usefixtures("x64")
def test_finds_the_minimum_that_scipy_finds(rule):
    """Inside the box, on a face of it and in a corner."""
    hessian = np.array([[2.0, 0.8], [0.8, 1.0]])
    lower, upper = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    for center in ([0.3, -0.4], [2.0, 0.1], [3.0, 4.0]):
        center = np.array(center)

        def loss(x, center=center):
            return (x - center) @ hessian @ (x - center) / 2

        def gradient(x, center=center):
            return hessian @ (x - center)

        found = scipy.optimize.minimize(
            loss, np.zeros(2), jac=gradient, method="L-BFGS-B",
            bounds=list(zip(lower, upper, strict=True)), options={"ftol": 0, "gtol": 1e-12},
        )  # fmt: skip
        optimizer = getattr(optax_rprop, rule)(0.1, min_step_size=1e-14, lower=lower, upper=upper)

        def step(carry, _, optimizer=optimizer, loss=loss, gradient=gradient):
            params, state = carry
            updates, state = optimizer.update(gradient(params), state, params, value=loss(params))
            return (optax.apply_updates(params, updates), state), None

        start = jnp.zeros(2)
        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=1000)
        # L-BFGS-B's own stopping test bounds how closely the two can agree.
        np.testing.assert_allclose(params, found.x, atol=1e-9)
        np.testing.assert_array_equal(np.abs(params) == 1, np.abs(found.x) == 1)


def test_bounds_are_numbers_arrays_or_prefixes():
    params = {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)}
    gradients = jax.tree.map(jnp.ones_like, params)
    lower = {"w": -1.0, "b": jnp.array([-2.0, -jnp.inf])}
    optimizer = optax_rprop.rprop(10.0, lower=lower, upper=5)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["w"], np.full((2, 2), -1.0))
    np.testing.assert_array_equal(updates["b"], [-2.0, -10.0])


def test_complex_parts_have_the_same_bounds():
    optimizer = optax_rprop.rprop(1.0, lower=-0.5, upper=0.25)
    params = jnp.zeros(2, complex)
    gradients = jnp.array([1 - 1j, -1 + 1j])
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_array_equal(updates, [-0.5 + 0.25j, 0.25 - 0.5j])


def test_undo_inside_the_box():
    """Undoing a step rounds too, and stays inside; the step size still shrinks."""
    upper = np.float32(1) + np.spacing(np.float32(1))
    optimizer = optax_rprop.rprop_plus(0.1, upper=upper, lower=0.0)
    starts = jnp.linspace(0.9, upper, 1000, dtype=jnp.float32)
    gradients = np.repeat(np.float32([[1.0], [-1.0]]), 1000, axis=1)
    weights, step_sizes, _ = run(optimizer, starts, gradients)
    assert (weights <= upper).all()
    assert (step_sizes[1] == np.float32(0.05)).all()


def test_without_bounds_nothing_is_compiled_for_them():
    def lowered(**options):
        optimizer = optax_rprop.rprop(0.1, **options)
        params = jnp.zeros(3)
        return jax.jit(optimizer.update).lower(params, optimizer.init(params), params).as_text()

    assert lowered() == lowered(lower=None, upper=None)
    assert lowered(lower=0.0) != lowered()


def test_needs_the_parameters():
    optimizer = optax_rprop.rprop(lower=0.0)
    state = optimizer.init(jnp.ones(2))
    with pytest.raises(ValueError, match=r"params=None, but lower and upper.*state, params\)"):
        optimizer.update(jnp.ones(2), state)


def test_a_start_outside_is_an_error_or_moved_inside():
    optimizer = optax_rprop.rprop(0.1, lower={"w": 0.0}, upper=1.0)
    with pytest.raises(
        ValueError, match=r"parameter \['w'\] starts at -0\.5, outside lower=0 and upper=1; .*clip"
    ):
        optimizer.init({"w": jnp.array([0.5, -0.5])})
    with pytest.raises(ValueError, match=r"starts at 2, outside"):
        optax_rprop.rprop(upper=1.0).init(jnp.array([0.5 + 2j]))

    @jax.jit
    def traced(params):
        updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    np.testing.assert_array_equal(traced({"w": jnp.array([-0.5, 3.0])})["w"], [0.0, 1.0])


def test_bounds_that_do_not_fit():
    params = {"w": jnp.zeros(3), "b": jnp.zeros(2)}
    with pytest.raises(ValueError, match=r"lower has no value for parameter \['b'\]"):
        optax_rprop.rprop(lower={"w": 0.0}).init(params)
    with pytest.raises(
        ValueError, match=r"upper\['w'\] has shape \(2,\), which does not broadcast"
    ):
        optax_rprop.rprop(upper={"w": np.ones(2), "b": 1.0}).init(params)
    with pytest.raises(ValueError, match=r"lower\['w'\]=1 is above upper\['w'\]=0"):
        optax_rprop.rprop(lower={"w": 1.0, "b": 0.0}, upper=0.0).init(params)

"""L-BFGS from Rprop's own steps: against a slow reference, at its work, and in boxes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import lbfgs, reference_lbfgs, streams

MAKE = optax_rprop.rprop_lbfgs
COUNTS = reference_lbfgs.FIELDS


def evaluations(gradients, start, solution, steps, accuracy=1e-5):
    """How many until all weights are within an accuracy; one more than `steps` for never."""
    weights = lbfgs.path(MAKE(), start, gradients, steps)[0]
    close = np.max(abs(np.asarray(weights) - solution) / accuracy, 1) <= 1
    return int(close.argmax()) + 1 if close.any() else steps + 1


def rosenbrock(x):
    """Its gradient."""
    valley = x[1:] - x[:-1] ** 2
    before = jnp.append(-400 * x[:-1] * valley - 2 * (1 - x[:-1]), 0)
    return before + jnp.append(0, 200 * valley)


CURVATURES = np.geomspace(1e-6, 1e6, 13)
NARROW = lbfgs.rotated(1e4, 6)


def quadratic(x):
    return NARROW @ (x - 1)


def kinks(x):
    return jnp.sign(x - jnp.arange(1.0, 4)) * jnp.array([1.0, 10, 100])


def rotated_kinks(x):
    along, across = jnp.sign(x[0] + x[1] - 2), 3 * jnp.sign(x[0] - x[1])
    return jnp.stack([along + across, along - across])


def hill(x):  # steeper and steeper in the first weight, while the second has curvature
    return jnp.stack([-jnp.sin(x[0] / 10), 0.02 * (x[1] - 1)])


def barrier(x):
    return jnp.where(x > 0, 2 * (x + 1) - 1e-3 / jnp.where(x > 0, x, 1), jnp.nan)


def at_an_edge(x):
    room = x.sum() - 0.1
    slope = 0.1 / jnp.sqrt(jnp.where(room > 0, room, 1))
    return jnp.where(room > 0, 2 * (x - jnp.array([-1.0, 2.0])) + slope, jnp.nan)


def at_the_edge_of_another(x):
    """Where the first leaves its domain, the gradient of the second alone is not a number."""
    return jnp.stack([2 * (x[0] - 3), jnp.where(x[0] < 1, 2 * (x[1] - 1), jnp.nan)])


# name: gradients, start, options, and for how many gradients rounding decides nothing: in most
# of them until the minimum is reached to the last bits.
PROBLEMS = {
    "rosenbrock": (rosenbrock, [-1.2, 1.0], {}, 80),
    "in ten dimensions": (rosenbrock, [-1.2] * 10, {}, 80),
    "rotated": (quadratic, [0.1, -0.1, 0.6, 0.1, -0.5, 0.4], {}, 40),
    "scales": (lambda x: 2 * CURVATURES * (x - 3), [0.0] * 13, {}, 80),
    "kinks": (kinks, [0.0] * 3, {}, 80),
    "rotated kinks": (rotated_kinks, [0.0, 5.0], {}, 80),
    "in a box": (rosenbrock, [-1.2, 0.5], {"lower": -2.0, "upper": 0.7}, 34),
    "in a box of ten": (rosenbrock, [-0.3] * 10, {"lower": -0.5, "upper": 0.6}, 34),
    "at bounds": (quadratic, [0.1, 0.2, 0.3, -0.1, -0.2, -0.3], {"lower": -1, "upper": 0.5}, 14),
    "kinks at a bound": (kinks, [0.0] * 3, {"upper": 2.5}, 80),
    "to a far bound": (lambda x: 0 * x - 1, [1.0, 2.0], {"upper": 1e4}, 30),
    "off a hill": (hill, [1e-3, 300.0], {}, 60),
    "barrier": (barrier, [1.0, 3.0], {}, 80),
    "with a bound at its edge": (barrier, [1.0, 3.0], {"lower": 0.0}, 60),
    "at an edge": (at_an_edge, [1.0, 0.2], {}, 80),
    "at the edge of another": (at_the_edge_of_another, [0.9, 0.2], {}, 60),
    "one pair": (rosenbrock, [-1.2, 1.0], {"memory_size": 1}, 16),
    "three pairs": (rosenbrock, [-1.2] * 10, {"memory_size": 3}, 50),
}


@functools.cache
def expected_of(name):
    gradients, start, options, steps = PROBLEMS[name]
    with np.errstate(all="ignore"):
        return reference_lbfgs.run(jax.jit(gradients), np.array(start), steps, **options)


@pytest.mark.parametrize("name", PROBLEMS)
def test_follows_the_reference(name, x64):
    """The counts are equal; weights but for rounding, which grows along narrow valleys."""
    gradients, start, options, steps = PROBLEMS[name]
    weights, _, (state, _) = lbfgs.path(MAKE(**options), jnp.array(start), gradients, steps)
    expected = expected_of(name)
    for field in COUNTS:
        np.testing.assert_array_equal(getattr(state, field), expected[field], field)
    for got, wanted in ((weights, expected["weights"]), (state.distance, expected["distance"])):
        finite = np.isfinite(wanted)
        np.testing.assert_array_equal(np.isfinite(got), finite)
        largest = np.maximum.accumulate(np.max(abs(np.where(finite, wanted, 0)), 1, keepdims=True))
        error = np.where(finite, abs(got - np.where(finite, wanted, 0)), 0)
        assert np.all(error <= 1e-8 * largest)


def test_the_problems_have_every_kind_of_step(x64):
    for name in ("kinks", "rotated kinks", "kinks at a bound"):
        assert expected_of(name)["num_failures"][-1] > 0
    for name in ("barrier", "at an edge"):
        gradients = jax.vmap(PROBLEMS[name][0])(expected_of(name)["weights"])
        assert not np.isfinite(gradients).all()
    assert max(expected_of(name)["num_tries"].max() for name in PROBLEMS) == 16
    assert min(expected_of("in ten dimensions")["countdown"]) == 0


@pytest.mark.parametrize("curvature", [1e-36, 1e-39])
def test_a_nearly_flat_weight_holds_up_no_other(curvature):
    """Its secant may be above the largest float32; alone, the others take 16 evaluations."""
    matrix = np.diag([1, 1, curvature])
    matrix[0, 1] = matrix[1, 0] = 0.9
    solution = np.array([1, 3, 0])

    def in_float64(x):  # XLA would round the curvature to 0
        return (matrix @ (np.asarray(x, float) - solution)).astype(np.float32)

    start = jnp.array([0, 0, 1e4], jnp.float32)
    found = evaluations(
        lambda x: jax.pure_callback(in_float64, x, x), start, solution, 30, [1e-5, 1e-5, np.inf]
    )
    assert found <= 20


@pytest.mark.parametrize(
    ("dtype", "there", "away"), [("float32", 1e-5, 1e-2), ("float64", 1e-12, 1e-9)]
)
def test_stays_at_a_minimum(dtype, there, away, x64):
    """Where its moves are lost in rounding, it gives up again and again, and must not go far."""
    random = np.random.default_rng(0)
    scales = jnp.asarray(random.uniform(1, 2, (100, 2)), dtype)
    target, start = jnp.asarray(random.normal(size=(2, 100, 2)), dtype)
    optimizer = lbfgs.of_many(MAKE())
    weights = lbfgs.path(optimizer, start, lambda x: 2 * (x / scales - target) / scales, 200)[0]
    error = np.max(abs(np.asarray(weights) - np.asarray(scales * target)), -1)
    assert np.all(error.min(0) <= there)
    arrived = np.maximum.accumulate(error <= there, 0)
    assert np.max(error[arrived]) <= away


@functools.cache
def from_ten_starts(units):
    """How many evaluations the quadratic takes in these units, within 1e-5 of each."""
    units, starts = np.array(units), np.random.default_rng(0).uniform(-1, 1, (10, 6))

    def in_units(x):
        return quadratic(x / units) / units

    return [
        evaluations(in_units, jnp.asarray(start * units), units, 300, 1e-5 * units)
        for start in starts
    ]


# With larger ones, the first steps would be above the largest step size, 2**31.
@pytest.mark.parametrize("units", [(1e-12,) * 6, (1e9,) * 6, (1e-12, *[1] * 5), (1e9, *[1] * 5)])
def test_units_of_weights(units, x64):
    """Within 20% in all, from ten starts: first steps in part depend on the size of the others."""
    plain, other = from_ten_starts((1.0,) * 6), from_ten_starts(units)
    assert abs(np.log(other).mean() - np.log(plain).mean()) <= np.log(1.2), (plain, other)


@pytest.mark.parametrize("exponent", [-100, 100])
def test_the_scale_of_the_loss_is_no_matter(exponent):
    """To the last bit, if it is a power of two: here 1e-30 and 1e30, in float32."""
    start = jnp.array([-1.2, 1.0])
    plain = lbfgs.path(MAKE(), start, rosenbrock, 60)
    scaled = lbfgs.path(MAKE(), start, lambda x: rosenbrock(x) * 2.0**exponent, 60)
    streams.assert_same_bits(scaled[0], plain[0])
    assert np.max(abs(plain[0][-1] - 1)) < 1e-3


@pytest.mark.parametrize("box", [{}, {"lower": -1.0, "upper": 2.0}], ids=("free", "box"))
@pytest.mark.parametrize("exponents", [(-36, 36), (0, 38), (-38, 0)])
def test_moves_are_finite_whatever_the_sizes_of_gradients(exponents, box):
    given = [
        streams.gradients(120, 3, np.float32, exponents, special=False, seed=seed)
        for seed in range(100)
    ]
    rows = np.nan_to_num(given).swapaxes(0, 1)
    updates = lbfgs.path(lbfgs.of_many(MAKE(**box)), jnp.ones((100, 3)), rows)[1]
    assert np.isfinite(updates).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_never_outside_the_box(dtype, x64):
    """With gradients that are NaN at times, so that moves go back; from bounds, too."""
    random = np.random.default_rng(0)
    members, steps = 500, 60
    ends = np.sort(
        random.normal(0, 10.0 ** random.integers(-3, 2, (members, 1, 4)), (members, 2, 4)), 1
    )
    lower, upper = (jnp.asarray(ends[:, part], dtype) for part in (0, 1))
    start = jnp.where(random.random((members, 4)) < 0.3, lower, (lower / 2 + upper / 2))
    start = jnp.clip(jnp.where(random.random((members, 4)) < 0.3, upper, start), lower, upper)
    curved = np.asarray(lbfgs.rotated(100, 4), np.float32)
    targets = random.normal(0, 3, (members, 4)).astype(np.float32)
    is_nan = random.random((members, steps)) < 0.1

    def member(lower, upper, start, target, is_nan):
        optimizer = MAKE(lower=lower, upper=upper)

        def step(carry, is_nan):
            params, state = carry
            gradient = jnp.where(is_nan, jnp.nan, curved @ (params.astype(jnp.float32) - target))
            updates, state = optimizer.update(gradient.astype(dtype), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, state[0].countdown)

        return jax.lax.scan(step, (start, optimizer.init(start)), is_nan)[1]

    weights, countdowns = jax.jit(jax.vmap(member))(lower, upper, start, targets, is_nan)
    assert np.all((weights >= lower[:, None]) & (weights <= upper[:, None]))
    assert np.mean(np.asarray(countdowns) == 0) > 0.1  # L-BFGS has been at work


@pytest.mark.parametrize("size", [1_000, 10_000])
def test_a_nan_in_a_large_array_is_seen(size):
    """On a CPU, XLA's maximum of 8,000 numbers leaves it out."""
    optimizer, ones = optax_rprop.rprop_lbfgs(), jnp.ones(size)
    state = optimizer.init(ones)
    for steps in range(12):  # Rprop's, and then those of L-BFGS
        _, state = optimizer.update(ones / (steps + 1), state)
        updates, after = optimizer.update(ones.at[size // 3].set(jnp.nan), state)
        assert after[0].num_tries == 1
        assert np.isfinite(updates).all()
        np.testing.assert_array_equal(after[0].gradient, state[0].gradient)


def test_a_loss_that_is_not_finite_is_as_gradients_that_are_not(x64):
    def loss_and_gradient(x, in_the_loss):
        is_finite = jnp.all(x > 0)
        value = jnp.where(is_finite | ~in_the_loss, 0.0, jnp.nan)
        gradient = jnp.nan_to_num(barrier(x))
        return value, jnp.where(is_finite | in_the_loss, gradient, jnp.nan)

    found, expected = (
        streams.trace(MAKE(), jnp.array([1.0, 3.0]), loss_and_gradient, jnp.full(80, in_the_loss))
        for in_the_loss in (True, False)
    )
    streams.assert_same_bits(found[0], expected[0])
    assert (found[0] <= 0).any()


def with_edges(kind, given, x):
    """A loss with a domain: beyond, it or its gradient is not a number."""
    bowl = jnp.sum(given["curvatures"] * (x - given["target"]) ** 2)
    room = given["room"] - given["normals"] @ x
    if kind == "barrier":
        return bowl - given["height"] * jnp.sum(jnp.log(room))
    if kind == "root":
        return bowl - given["height"] * jnp.sum(jnp.sqrt(room))
    # A covariance: of the parameters it is the matrix.
    matrix = jnp.stack([jnp.stack([x[0], x[1]]), jnp.stack([x[1], x[2]])])
    factor = jnp.linalg.cholesky(matrix)
    white = jax.scipy.linalg.solve_triangular(factor, given["normals"][:, :2].T, lower=True)
    return 2 * jnp.sum(jnp.log(jnp.diag(factor))) + jnp.mean(white**2) + (x[3] - 1) ** 2


@pytest.mark.parametrize(
    ("kind", "dtype"), [("barrier", "float32"), ("root", "float64"), ("cholesky", "float32")]
)
def test_domain_errors_trap_nobody(kind, dtype, x64):
    random, members = np.random.default_rng(0), 100
    inside = random.standard_normal((members, 4))
    if kind == "cholesky":
        inside[:, 0], inside[:, 2] = 10 ** random.uniform(-1, 1, (2, members))
        inside[:, 1] = random.uniform(-0.9, 0.9, members) * np.sqrt(inside[:, 0] * inside[:, 2])
    normals = random.standard_normal((members, 3, 4))
    given = {
        "curvatures": 10 ** random.uniform(-1, 1, (members, 4)),
        "target": random.normal(0, 3, (members, 4)),
        # A lower root has its minimum nearer to an edge than float32 can tell.
        "height": 10 ** random.uniform(*((0, 1) if kind == "root" else (-1.5, 0)), members),
        "normals": normals,
        "room": np.einsum("nij,nj->ni", normals, inside)
        + 10 ** random.uniform(-2, 1, (members, 3)),
    }
    given, inside = jax.tree.map(lambda array: jnp.asarray(array, dtype), (given, inside))
    optimizer = MAKE()

    def member(given, x):
        def step(carry, _):
            x, state = carry
            value, gradient = jax.value_and_grad(lambda x: with_edges(kind, given, x))(x)
            extra_args = {"value": value} if kind == "barrier" else {}
            updates, state = optimizer.update(gradient, state, **extra_args)
            finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
            return (optax.apply_updates(x, updates), state), (finite, value)

        return jax.lax.scan(step, (x, optimizer.init(x)), None, length=200)[1]

    finite, value = jax.device_get(jax.jit(jax.vmap(member))(given, inside))
    assert finite[:, 0].all()
    assert np.mean(~finite.all(1)) > 0.3  # many leave their domain
    assert finite[:, -30:].any(1).all()
    assert np.all(np.where(finite, value, np.inf).min(1) < value[:, 0])


def test_rounding_traps_nobody_at_an_edge():
    """The minimum is the edge itself, where a weight gets far smaller than its moves."""

    def gradients(x):
        slope = jnp.where(x[..., 1] > 0, 0.5 / jnp.sqrt(abs(x[..., 1])), jnp.nan)
        return jnp.stack([2 * (x[..., 0] - 3), slope], -1)

    start = jnp.stack([jnp.full(100, 0.1), jnp.geomspace(1e-3, 1e3, 100)], -1)
    weights = lbfgs.path(lbfgs.of_many(MAKE()), start, gradients, 300)[0]
    assert (np.mean(weights[..., 1] <= 0, 0) > 0.3).all()
    assert (weights[-40:, :, 1] > 0).any(0).all()
    # Its errors hold up no other weight, whose gradients are numbers.
    np.testing.assert_allclose(weights[-40:, :, 0], 3, atol=0.1)

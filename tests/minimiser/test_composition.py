"""What Optimistix's own minimisers can do, and be put into."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser


def distance(y, target):
    """Its minimum is at the target, with 100 times the curvature in one leaf."""
    return jnp.sum((y["a"] - target) ** 2) + 100 * jnp.sum((y["b"] - target) ** 4 + y["b"] ** 2)


START = {"a": np.zeros((2, 3)), "b": np.ones(())}


def close(actual, desired, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol), actual, desired)


def test_nested_tree_under_jit():
    start = jax.tree.map(jnp.asarray, START)
    minimise = jax.jit(
        lambda start: optimistix.minimise(distance, RpropMinimiser(1e-8, 1e-8), start, 3.0)
    )
    solution = minimise(start)
    assert jax.tree.structure(solution.value) == jax.tree.structure(START)
    root = np.roots([4, -36, 110, -108])  # 4 (b - 3)^3 + 2 b = 0
    b = root[np.isreal(root)].real.item()
    close(solution.value, {"a": np.full((2, 3), 3.0), "b": b}, 1e-8)


def test_each_of_a_batch_stops_by_itself():
    def fn(y, args):
        return (y - 1.0) ** 4 + (y - 1.0) ** 2

    @jax.jit
    def minimise(start):
        return optimistix.minimise(fn, RpropMinimiser(1e-6, 1e-6), start)

    starts = jnp.array([0.0, 2.5, -400.0, 1.0])
    batch = jax.vmap(minimise)(starts)
    alone = [minimise(start) for start in starts]
    np.testing.assert_array_equal(batch.value, [one.value for one in alone])
    steps = [int(one.stats["num_steps"]) for one in alone]
    np.testing.assert_array_equal(batch.stats["num_steps"], steps)
    assert len(set(steps)) > 1
    np.testing.assert_allclose(batch.value, 1.0, atol=1e-6)


def test_solution_aux_and_value_belong_together():
    def fn(y, args):
        value = jnp.sum((y - 1) ** 2)
        return value, {"y": y, "value": value}

    for max_steps in (4, 2000):
        solution = optimistix.minimise(
            fn,
            RpropMinimiser(1e-6, 1e-6),
            jnp.zeros(2),
            has_aux=True,
            max_steps=max_steps,
            throw=False,
        )
        assert (solution.result == RESULTS.successful) == (max_steps == 2000)
        assert solution.stats["num_steps"] <= max_steps
        np.testing.assert_array_equal(solution.aux["y"], solution.value)
        np.testing.assert_array_equal(solution.aux["value"], fn(solution.value, None)[0])


def test_best_so_far():
    seen = []

    def fn(y, args):
        return jnp.sum(jnp.abs(y - 1))

    def note(**values):
        jax.debug.callback(lambda f: seen.append(float(f)), values["loss_this_step"][1])

    solver = optimistix.BestSoFarMinimiser(RpropMinimiser(1e-6, 1e-6, verbose=note))
    start = jnp.array([0.0, 0.3])
    for max_steps in (9, 2000):
        seen.clear()
        solution = optimistix.minimise(fn, solver, start, max_steps=max_steps, throw=False)
        jax.effects_barrier()
        assert len(seen) == solution.stats["num_steps"]
        np.testing.assert_allclose(fn(solution.value, None), min(seen), rtol=1e-6, atol=1e-12)
    assert solution.result == RESULTS.successful


def test_implicit_derivative():
    """Of the minimum of y - args log y, the root of a cubic, and of one on no bound."""

    def fn(y, args):
        return jnp.sum(args * y - jnp.log(y)) + y[0] * y[1]

    @jax.jit
    def minimum(args):
        solver = RpropMinimiser(1e-9, 1e-9, lower=1e-3)
        return optimistix.minimise(fn, solver, jnp.ones(2), args).value

    args = jnp.array([2.0, 3.0])
    derivative = jax.jit(jax.jacobian(minimum))(args)
    y = np.asarray(minimum(args))
    hessian = np.diag(1 / y**2) + np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(derivative, -np.linalg.inv(hessian), atol=1e-6)
    h = 1e-4
    differences = [(minimum(args + h * e) - minimum(args - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(derivative, np.array(differences).T, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_types(dtype):
    tolerance = {"bfloat16": 2.0, "float16": 0.2}[dtype]
    start = jnp.zeros(20, dtype)
    target = jnp.linspace(-3, 3, 20).astype(dtype)
    solution = optimistix.minimise(
        lambda y, args: jnp.sum((y - target) ** 2),
        RpropMinimiser(0.0, tolerance),
        start,
        max_steps=2000,
    )
    assert solution.value.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(solution.value, float), np.asarray(target, float), atol=tolerance
    )


def test_types_side_by_side():
    def fn(y, args):
        return sum(jnp.sum((leaf.astype(float) - 3) ** 2) for leaf in y.values())

    start = {"single": jnp.zeros(2, "float32"), "double": jnp.zeros(3), "none": jnp.zeros(0)}
    solution = optimistix.minimise(fn, RpropMinimiser(1e-5, 1e-5), start)
    jax.tree.map(
        lambda y, x: np.testing.assert_allclose(y, x + 3, atol=4e-5), solution.value, start
    )


@pytest.mark.filterwarnings("ignore:Complex support in Optimistix")
def test_complex():
    target = jnp.array([1 + 2j, -3 + 0.5j])
    solution = optimistix.minimise(
        lambda y, args: jnp.sum(jnp.abs(y - args) ** 2),
        RpropMinimiser(1e-6, 1e-6),
        jnp.zeros(2, complex),
        target,
    )
    np.testing.assert_allclose(solution.value, target, atol=1e-6)


def test_changed_numbers_do_not_compile_again():
    traces = 0

    def fn(y, args):
        nonlocal traces
        traces += 1
        return jnp.sum(y**2)

    def minimise(tolerance, lower):
        solver = RpropMinimiser(tolerance, tolerance, lower=lower)
        return optimistix.minimise(fn, solver, jnp.ones(2)).value

    minimise(*map(jnp.array, (1e-4, -1.0)))
    before = traces
    minimise(*map(jnp.array, (1e-6, -2.0)))
    assert traces == before


def test_root_find():
    """Optimistix minimises the norm, and asks whether the root is one."""
    solution = optimistix.root_find(
        lambda y, args: y**3 - args, RpropMinimiser(1e-6, 1e-6), jnp.array(1.0), args=jnp.array(8.0)
    )
    np.testing.assert_allclose(solution.value, 2.0, atol=1e-6)


def test_implicit_derivative_of_a_square():
    """Right at the default adjoint, whatever the steps were."""

    def minimum(args):
        solver = RpropMinimiser(1e-4, 1e-4)
        return optimistix.minimise(
            lambda y, args: (y - args) ** 2, solver, jnp.array(0.0), args
        ).value

    np.testing.assert_allclose(jax.grad(minimum)(jnp.array(2.0)), 1.0)


def test_verbose(capfd):
    def fn(y, args):
        return (y - 1) ** 2

    optimistix.minimise(fn, RpropMinimiser(1e-2, 1e-2, verbose=True), jnp.array(0.0))
    jax.effects_barrier()
    printed = capfd.readouterr().out.splitlines()
    assert printed[0] == "Step: 0, Loss on this step: 1.0, y: 0.0"
    optimistix.minimise(fn, RpropMinimiser(1e-2, 1e-2), jnp.array(0.0))
    jax.effects_barrier()
    assert capfd.readouterr().out == ""

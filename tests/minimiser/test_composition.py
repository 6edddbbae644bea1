"""What Optimistix's own minimisers can do, and be put into."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from optimistix import RESULTS

from optax_rprop.optimistix import RpropMinimiser


def test_each_of_a_batch_stops_by_itself():
    """Under jit; solution, aux and value belong together, also where steps run out."""

    def fn(y, args):
        value = (y - 1.0) ** 4 + (y - 1.0) ** 2
        return value, {"y": y, "value": value}

    @jax.jit
    @jax.vmap
    def minimise(start):
        solver, options = RpropMinimiser(1e-6, 1e-6), {"max_steps": 60, "throw": False}
        return optimistix.minimise(fn, solver, start, has_aux=True, **options)

    starts = jnp.array([0.0, 2.5, -400.0, 1.0, 1e30, jnp.nan])
    batch = minimise(starts)
    for member, start in enumerate(starts):
        alone = minimise(jnp.full_like(starts, start))
        np.testing.assert_array_equal(batch.value[member], alone.value[member])
        assert batch.stats["num_steps"][member] == alone.stats["num_steps"][member]
    assert len(set(batch.stats["num_steps"].tolist())) > 3
    ends = RESULTS.successful, RESULTS.nonlinear_max_steps_reached, RESULTS.nonfinite
    ended = [np.flatnonzero(batch.result == end).tolist() for end in ends]
    assert ended == [[0, 1, 2, 3], [4], [5]]
    np.testing.assert_allclose(batch.value[:4], 1.0, atol=1e-6)
    np.testing.assert_array_equal(batch.aux["y"][:5], batch.value[:5])
    np.testing.assert_array_equal(batch.aux["value"][:5], fn(batch.value, None)[0][:5])


def test_best_so_far():
    """Not the last, after all steps or some."""
    seen = []

    def fn(y, args):
        return jnp.sum(jnp.abs(y - 1))

    def note(**values):
        jax.debug.callback(lambda f: seen.append(float(f)), values["loss_this_step"][1])

    solver = optimistix.BestSoFarMinimiser(RpropMinimiser(1e-6, 1e-6, verbose=note))
    solution = optimistix.minimise(fn, solver, jnp.array([0.0, 0.3]), max_steps=2000)
    jax.effects_barrier()
    assert len(seen) == solution.stats["num_steps"]
    assert fn(solution.value, None) == min(seen) < seen[-1]


def test_implicit_derivative():
    """Of the minimum of y - args log y, the root of a cubic, and of one on no bound."""

    def fn(y, args):
        return jnp.sum(args * y - jnp.log(y)) + y[0] * y[1]

    def minimum(args):
        solver = RpropMinimiser(1e-9, 1e-9, lower=1e-3)
        value = optimistix.minimise(fn, solver, jnp.ones(2), args).value
        return value, value

    args = jnp.array([2.0, 3.0])
    derivative, y = jax.jit(jax.jacobian(minimum, has_aux=True))(args)
    np.testing.assert_allclose(jax.grad(fn)(y, args), 0.0, atol=1e-6)
    hessian = np.diag(1 / y**2) + np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(derivative, -np.linalg.inv(hessian), atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2.0), ("float16", 0.2)])
def test_small_types(dtype, tolerance):
    target = np.linspace(-3, 3, 20).astype(dtype)

    def fn(y, args):
        return jnp.sum((y - target) ** 2)

    solver = RpropMinimiser(0.0, tolerance)
    solution = optimistix.minimise(fn, solver, jnp.zeros(20, dtype), max_steps=2000)
    assert solution.value.dtype == dtype
    np.testing.assert_allclose(
        np.asarray(solution.value, float), np.asarray(target, float), atol=tolerance
    )


@pytest.mark.filterwarnings("ignore:Complex support in Optimistix")
def test_types_side_by_side():
    """And trees of all kinds; fn computes and returns in wider types."""

    def fn(y, args):
        return sum(jnp.sum(abs(x.astype(args.dtype) - args) ** 2) for x in jax.tree.leaves(y))

    of_types = [jnp.zeros((2, 3), dtype) for dtype in ("float32", "float64", "complex128")]
    start = ({"types": of_types, "none": None}, (jnp.zeros(0), jnp.zeros(())))
    target = jnp.array(3 + 2j)
    solution = optimistix.minimise(fn, RpropMinimiser(1e-6, 1e-6), start, target)

    def is_close(value, before):
        assert value.dtype == before.dtype
        nearest = target if jnp.iscomplexobj(value) else target.real
        np.testing.assert_allclose(value, nearest, atol=1e-6)

    jax.tree.map(is_close, solution.value, start)


def test_changed_numbers_do_not_compile_again(capfd):
    """And without `verbose`, nothing is printed."""
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
    minimise(*map(jnp.array, (1e-6, -2.0))).block_until_ready()
    assert traces == before
    jax.effects_barrier()
    assert capfd.readouterr().out == ""


def test_root_find_and_verbose(capfd):
    """Optimistix minimises the norm, and asks whether the root is one."""
    solver = RpropMinimiser(1e-6, 1e-6, verbose=True)
    solution = optimistix.root_find(
        lambda y, args: y**3 - args, solver, jnp.array(1.0), args=jnp.array(8.0)
    )
    np.testing.assert_allclose(solution.value, 2.0, atol=1e-6)
    jax.effects_barrier()
    printed = capfd.readouterr().out.splitlines()
    assert printed[0] == "Step: 0, Loss on this step: 7.0, y: 1.0"


@pytest.mark.skipif(not hasattr(jax, "set_mesh"), reason="this JAX has no explicit axes")
def test_weights_whose_axes_are_explicit():
    explicit = jax.sharding.Mesh(
        np.array(jax.devices("cpu")[:4]), "x", axis_types=(jax.sharding.AxisType.Explicit,)
    )
    with jax.set_mesh(explicit):
        start = jax.device_put(jnp.zeros(8), jax.sharding.PartitionSpec("x"))
        for lower, minimum in ((None, 3.0), (4.0, 4.0)):
            solver = RpropMinimiser(1e-3, 1e-3, lower=lower)
            solution = optimistix.minimise(lambda y, args: jnp.sum((y - 3) ** 2), solver, start)
            np.testing.assert_allclose(solution.value, minimum, atol=1e-3)

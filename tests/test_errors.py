"""Every refusal names the argument, its value and the remedy, and tracers are let through."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import streams

import optax_rprop

nan, inf = float("nan"), float("inf")
PARAMS = {"w": jnp.zeros((3, 1)), "b": jnp.zeros(2)}

# Arguments that are refused at construction, and what the message says.
BAD_VALUES = [
    ({"eta_minus": 0.0}, r"eta_minus=0 must lie strictly between 0 and 1.*default is 0\.5"),
    ({"eta_minus": 1.0}, r"eta_minus=1 must lie strictly between 0 and 1"),
    ({"eta_minus": -0.5}, r"eta_minus=-0\.5 must"),
    ({"eta_minus": nan}, r"eta_minus=nan must"),
    ({"eta_plus": 1.0}, r"eta_plus=1 must be a finite number above 1.*default is 1\.2"),
    ({"eta_plus": 0.9}, r"eta_plus=0\.9 must"),
    ({"eta_plus": inf}, r"eta_plus=inf must"),
    ({"eta_plus": nan}, r"eta_plus=nan must"),
    ({"eta_plus": np.array([1.1, 1.2])}, r"eta_plus=.* must be one number for all parameters"),
    ({"eta_minus": {"w": 0.5}}, r"eta_minus=\{'w': 0\.5\} must be one number"),
    ({"min_step_size": -1e-6}, r"min_step_size=-1e-06 must be at least 0.*default is 1e-6"),
    ({"min_step_size": nan}, r"min_step_size=nan must"),
    ({"min_step_size": inf}, r"min_step_size=inf must"),
    ({"max_step_size": 0.0}, r"max_step_size=0 must be above 0 and at most 2\*\*31"),
    ({"max_step_size": 2.0**31 * 1.001}, r"max_step_size=2\.14963e\+09 must .* 2\*\*31"),
    ({"max_step_size": inf}, r"max_step_size=inf must"),
    ({"max_step_size": nan}, r"max_step_size=nan must"),
    ({"learning_rate": 0.0}, r"learning_rate=0 must be above 0"),
    ({"learning_rate": -0.1}, r"learning_rate=-0\.1 must be above 0.*default is 0\.01"),
    ({"learning_rate": nan}, r"learning_rate=nan must"),
    ({"learning_rate": np.float32(inf)}, r"learning_rate=inf must"),
    ({"min_step_size": 2.0, "max_step_size": 1.0}, r"min_step_size=2 is above max_step_size=1; "),
    ({"learning_rate": 51.0}, r"learning_rate=51 is above max_step_size=50; the first step size"),
    ({"learning_rate": 1e-7}, r"min_step_size=1e-06 is above learning_rate=1e-07; the first step"),
    ({"step_dtype": "float16"}, r"step_dtype=float16 cannot hold step sizes; use one of bfloat16"),
    ({"step_dtype": "bf16"}, r"step_dtype='bf16' cannot hold step sizes; use one of bfloat16, f"),
    ({"step_dtype": 2}, r"step_dtype=2 cannot hold step sizes"),
    ({"step_dtype": "float64"}, r"step_dtype=float64 needs jax_enable_x64; set it, or use float32"),
    ({"lower": 1.0, "upper": 0.0}, r"lower=1 is above upper=0"),
    ({"learning_rate": np.complex64(1 + 2j)}, r"learning_rate=\(1\+2j\) must be real"),
    ({"lower": nan}, r"lower=nan must be a number, or -inf for no bound"),
    ({"upper": nan}, r"upper=nan must be a number, or inf for no bound"),
]  # fmt: skip
BAD_TYPES = [
    ({"eta_plus": None}, r"eta_plus=None must be a number"),
    ({"learning_rate": None}, r"learning_rate=None must be a number"),
    ({"learning_rate": {"w": lambda step: 0.1}}, r"learning_rate\['w'\]=.* is a schedule"),
    (
        {"learning_rate": optax.linear_schedule(0.1, 0.0, 10)},
        r"is a schedule and would do nothing after the first step.*schedule max_step_size",
    ),
    ({"eta_plus": lambda step: 1.2}, r"eta_plus=.* through optax\.inject_hyperparams"),
    ({"learning_rate": "fast"}, r"learning_rate='fast' must be a number or an array"),
    ({"max_step_size": {"w": "far"}}, r"max_step_size\['w'\]='far' must be a number or an array"),
]


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
@pytest.mark.parametrize(("given", "message"), BAD_VALUES)
def test_bad_values(name, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(optax_rprop, name)(**given)


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
@pytest.mark.parametrize(("given", "message"), BAD_TYPES)
def test_bad_types(name, given, message):
    with pytest.raises(TypeError, match=message):
        getattr(optax_rprop, name)(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": jnp.array(-1.0)}, r"learning_rate\['b'\]=-1 must be above 0"),
        ({"eta_minus": jnp.array(2.0)}, r"eta_minus\['b'\]=2 must lie strictly"),
        ({"learning_rate": {"w": 0.1, "b": -0.2}}, r"learning_rate\['b'\]=-0\.2 must be above 0"),
        ({"learning_rate": jnp.array([[1.0], [2.0], [99.0]])}, None),
    ],
)
def test_arrays_and_trees_are_read_in_init(given, message):
    optimizer = optax_rprop.rprop(**given)
    if message is None:
        with pytest.raises(ValueError, match=r"learning_rate\['w'\]=99 is above max_step_size"):
            optimizer.init({"w": PARAMS["w"]})
    else:
        with pytest.raises(ValueError, match=message):
            optimizer.init(PARAMS)


ARRAYS = [
    {"learning_rate": jnp.float32(0.1)},
    {"learning_rate": {"w": jnp.full((3, 1), 0.1), "b": 0.2}},
    {"eta_plus": jnp.float32(1.3)},
    {"max_step_size": jnp.full((), 1.0)},
    {"lower": jnp.full((), -1.0)},
]


@pytest.mark.parametrize("given", ARRAYS)
@pytest.mark.parametrize("wrap", [lambda made: made, optax.inject_hyperparams])
def test_arrays_from_outside_are_read_inside_jit(given, wrap):
    """They are known there, though an operation on them is traced."""
    init = wrap(optax_rprop.rprop)(**given).init
    expected = init(PARAMS)
    chex.assert_trees_all_equal(jax.jit(init)(PARAMS), expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.eval_shape(init, PARAMS), expected)


def test_arrays_from_outside_are_refused_inside_jit():
    with pytest.raises(ValueError, match=r"eta_minus.*=2 must lie strictly"):
        jax.jit(optax_rprop.rprop(eta_minus=jnp.array(2.0)).init)(PARAMS)


@pytest.mark.parametrize("kind", [int, np.int64, np.array], ids=lambda kind: kind.__name__)
def test_integers_beyond_32_bits(kind):
    """JAX would wrap them, or refuse them without a word on which."""
    params, ones = jnp.zeros(3), jnp.ones(3)
    for given in ({"max_step_size": kind(2**31)}, {"lower": kind(-3 * 10**9)}):
        optimizer = optax_rprop.rprop(1, **given)
        updates, _ = optimizer.update(ones, optimizer.init(params), params)
        np.testing.assert_array_equal(updates, -ones)
    optimizer = optax_rprop.irprop_plus()
    _, state = optimizer.update(ones, optimizer.init(params), value=kind(5 * 10**9))
    assert state[0].prev_value == 5e9
    assert optax_rprop.converged(state, kind(2**40))


def test_tracers_are_let_through():
    """The same values, traced: no error, and no NaN either."""
    for given, _ in BAD_VALUES:
        if not all(isinstance(value, float) for value in given.values()):
            continue

        def first_update(*values, names=tuple(given)):
            optimizer = optax_rprop.rprop(**dict(zip(names, values, strict=True)))
            state = optimizer.init(PARAMS)
            return optimizer.update(PARAMS, state, PARAMS)

        finite = jax.tree.map(
            lambda x: bool(jnp.isfinite(x).all()), jax.jit(first_update)(*given.values())
        )
        assert all(jax.tree.leaves(finite)), given


def test_rule_and_its_options():
    with pytest.raises(
        ValueError, match=r"rule='irprop' is unknown; choose one of rprop_minus, irprop"
    ):
        optax_rprop.scale_by_rprop(rule="irprop")
    with pytest.raises(
        ValueError, match=r"undo_nonfinite=True needs .* rule='irprop_minus' does not"
    ):
        optax_rprop.scale_by_rprop(undo_nonfinite=True)
    with pytest.raises(TypeError, match=r"undo_nonfinite=1 must be True or False"):
        optax_rprop.rprop_plus(undo_nonfinite=1)
    with pytest.raises(ValueError, match=r"rule=\['rprop_plus'\] is unknown"):
        optax_rprop.scale_by_rprop(rule=["rprop_plus"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_factors_that_round_to_one(dtype):
    near = {"bfloat16": 1e-3, "float32": 1e-9}[dtype]
    for given in ({"eta_plus": 1 + near}, {"eta_minus": 1 - near}):
        optimizer = optax_rprop.rprop(**given)
        message = rf"{next(iter(given))}=.* rounds to 1 in a {dtype} state.*take it further from 1"
        with pytest.raises(ValueError, match=message):
            optimizer.init(jnp.zeros(2, dtype))
    optax_rprop.rprop(eta_plus=1.01, eta_minus=0.99).init(jnp.zeros(2, dtype))
    with pytest.raises(ValueError, match="rounds to 1 in a bfloat16 state"):
        optax_rprop.rprop(eta_plus=1.001, step_dtype=jnp.bfloat16).init(jnp.zeros(2))


def test_integer_parameters():
    with pytest.raises(TypeError, match=r"parameter \['n'\] has dtype int32.*optax\.masked"):
        optax_rprop.rprop().init({"n": jnp.arange(3)})
    with pytest.raises(TypeError, match=r"parameter \(the only leaf\) has dtype bool"):
        optax_rprop.rprop().init(jnp.array(True))


def test_parameters_without_a_sign():
    if not hasattr(jnp, "float8_e8m0fnu"):
        pytest.skip("this JAX has no such type")
    with pytest.raises(TypeError, match=r"has dtype float8_e8m0fnu, which has no sign"):
        optax_rprop.rprop().init(jnp.ones(2, jnp.float8_e8m0fnu))


@pytest.mark.parametrize("name", streams.OPTIMIZERS)
@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        ({"w": jnp.zeros((3, 1))}, ValueError, r"only the state has \[\"\['b'\]\"\]"),
        ({**PARAMS, "c": jnp.zeros(1)}, ValueError, r"only the gradient has \[\"\['c'\]\"\]"),
        ([jnp.zeros((3, 1)), jnp.zeros(2)], ValueError, "are different trees"),
        (
            {**PARAMS, "w": jnp.zeros(3)},
            ValueError,
            r"the gradient \['w'\] has shape \(3,\), but the state has shape \(3, 1\)",
        ),
        (
            {**PARAMS, "b": jnp.zeros(2, int)},
            TypeError,
            r"the gradient \['b'\] has dtype int32; it must be floating-point or complex",
        ),
        (
            {**PARAMS, "b": jnp.zeros(2, complex)},
            TypeError,
            r"the gradient \['b'\] has dtype complex64, but the state has dtype float32 there",
        ),
    ],
)
def test_gradients_of_other_parameters(name, gradient, error, message):
    optimizer = getattr(optax_rprop, name)()
    with pytest.raises(error, match=message):
        optimizer.update(gradient, optimizer.init(PARAMS), PARAMS, value=0.0)


def test_irprop_plus_needs_the_loss():
    optimizer = optax_rprop.irprop_plus()
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=r"value=None, but irprop_plus .*params, value=loss\)"):
        optimizer.update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match=r"value has shape \(2,\) .* one real number, the loss"):
        optimizer.update(PARAMS, state, PARAMS, value=jnp.zeros(2))
    with pytest.raises(ValueError, match=r"value has shape \(\) and dtype complex64"):
        optimizer.update(PARAMS, state, PARAMS, value=jnp.zeros((), complex))
    with pytest.raises(ValueError, match=r"prev_value=None: this state is not one of irprop_plus"):
        optimizer.update(PARAMS, optax_rprop.rprop().init(PARAMS), PARAMS, value=0.0)
    with pytest.raises(TypeError, match=r"value=\(1\.0, 2\) must be one number.*has_aux=True"):
        optimizer.update(PARAMS, state, PARAMS, value=(1.0, 2))


def test_a_state_is_no_parameters():
    with pytest.raises(
        TypeError,
        match=r"state is a builtins\.dict, not the optax_rprop\.ScaleByRpropState that init",
    ):
        optax_rprop.scale_by_rprop().update(PARAMS, PARAMS)
    with pytest.raises(TypeError, match=r"not the optax_rprop\.ScaleByAdaptiveGainsState"):
        optax_rprop.scale_by_adaptive_gains().update(PARAMS, PARAMS)


def test_a_state_of_another_optimizer():
    others = optax.rprop(0.1).init(PARAMS)
    with pytest.raises(TypeError, match=r"state is a optax.*State, not the optax_rprop\."):
        optax_rprop.rprop().update(PARAMS, others)
    bare = optax_rprop.scale_by_rprop().init(PARAMS)
    with pytest.raises(TypeError, match=r"is a tuple, .*\(that one, optax\.EmptyState\(\)\)"):
        optax_rprop.rprop().update(PARAMS, bare)


def test_a_state_that_was_cast():
    optimizer = optax_rprop.scale_by_rprop()
    cast = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), optimizer.init(PARAMS))
    with pytest.raises(TypeError, match=r"the state holds float16 arrays, in which step sizes"):
        optimizer.update(PARAMS, cast)


def test_bounds_and_other_parameters():
    optimizer = optax_rprop.rprop(lower=0.0)
    state = optimizer.init(PARAMS)
    with pytest.raises(ValueError, match=r"params and the gradient are different trees"):
        optimizer.update(PARAMS, state, {"w": PARAMS["w"]})
    with pytest.raises(ValueError, match=r"params \['b'\] has shape \(3,\), but the gradient"):
        optimizer.update(PARAMS, state, {**PARAMS, "b": jnp.zeros(3)})
    with pytest.raises(TypeError, match=r"params \['b'\] has dtype int32; it must be floating"):
        optimizer.update(PARAMS, state, {**PARAMS, "b": jnp.zeros(2, int)})
    with pytest.raises(TypeError, match=r"params \['b'\] has dtype complex64, but the gradient"):
        optimizer.update(PARAMS, state, {**PARAMS, "b": jnp.zeros(2, complex)})


def test_step_dtype_of_complex_parameters():
    with pytest.raises(
        ValueError, match=r"step_dtype=bfloat16 is for real parameters, and \['z'\]"
    ):
        optax_rprop.rprop(step_dtype="bfloat16").init({"z": jnp.zeros(2, complex)})

"""Every refusal names the argument, its value and the remedy, and tracers are let through.

All optimizers share one validator: errors are tested on one of them.
"""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

nan, inf = float("nan"), float("inf")
PARAMS = {"w": jnp.zeros((3, 1)), "b": jnp.zeros(2)}

# Arguments that are refused at construction, and what the message says.
BAD_VALUES = [
    (
        {"eta_minus": 0.0},
        r"eta_minus=0 must be a number above 0 and below 1: it shrinks.*default is 0\.5",
    ),
    ({"eta_minus": 1.0}, r"eta_minus=1 must be a number above 0 and below 1"),
    ({"eta_minus": nan}, r"eta_minus=nan must"),
    ({"eta_plus": 1.0}, r"eta_plus=1 must be a finite number above 1.*default is 1\.2"),
    ({"eta_plus": inf}, r"eta_plus=inf must"),
    ({"eta_plus": nan}, r"eta_plus=nan must"),
    ({"eta_plus": np.array([1.1, 0.2])}, r"eta_plus=0\.2 must be a finite number above 1"),
    (
        {"min_step_size": -1e-6},
        r"min_step_size=-1e-06 must be a number at least 0 and at most 2\*\*31: it is the smallest",
    ),
    ({"min_step_size": nan}, r"min_step_size=nan must"),
    ({"max_step_size": 0.0}, r"max_step_size=0 must be a number above 0 and at most 2\*\*31"),
    ({"max_step_size": 2.0**31 * 1.001}, r"max_step_size=2\.14963e\+09 must .* 2\*\*31"),
    ({"max_step_size": inf}, r"max_step_size=inf must"),
    (
        {"learning_rate": 0.0},
        r"learning_rate=0 must be a number above 0 and at most 2\*\*31: it is the first step",
    ),
    ({"learning_rate": -0.1}, r"learning_rate=-0\.1 must be a number above 0 and at most 2\*\*31"),
    ({"learning_rate": np.float32(inf)}, r"learning_rate=inf must"),
    ({"min_step_size": 2.0, "max_step_size": 1.0}, r"min_step_size=2 is above max_step_size=1; "),
    ({"learning_rate": 51.0}, r"learning_rate=51 is above max_step_size=50; the first step size"),
    ({"learning_rate": 1e-7}, r"min_step_size=1e-06 is above learning_rate=1e-07; the first step"),
    ({"step_dtype": "float33"}, r"step_dtype='float33' cannot hold step sizes"),
    ({"step_dtype": "float16"}, r"step_dtype=float16 cannot hold step sizes; use one of bfloat16"),
    ({"lower": 1.0, "upper": 0.0}, r"lower=1 is above upper=0"),
    ({"learning_rate": 1j}, "learning_rate=1j must be real"),
    ({"learning_rate": np.complex64(1 + 2j)}, r"learning_rate=\(1\+2j\) must be real"),
    ({"eta_minus": (0.5, 1.2)}, r"etas are two arguments here: eta_minus=0\.5, eta_plus=1\.2"),
    ({"eta_plus": {"w": 0.5}}, r"eta_plus\['w'\]=0\.5 must be a finite number above 1"),
    ({"lower": nan}, r"lower=nan must be a number below inf: no bound is None, in an array -inf"),
    ({"upper": nan}, r"upper=nan must be a number above -inf: no bound is None, in an array inf"),
]


@pytest.mark.parametrize(("given", "message"), BAD_VALUES)
def test_bad_values(given, message):
    with pytest.raises(ValueError, match=message):
        optax_rprop.irprop_plus(**given)


FIRST_STEP = "first step size, .* a schedule would change nothing.*inject_hyperparams"
ARRAYS_ALONE = r"schedule through optax\.inject_hyperparams.* eqx\.filter\("


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": optax.linear_schedule(0.1, 0.0, 10)}, "=<function .*" + FIRST_STEP),
        ({"learning_rate": {"w": lambda step: 0.1}}, r"\['w'\]=<function .*" + FIRST_STEP),
        ({"eta_plus": lambda step: 1.2}, "=<function .*" + ARRAYS_ALONE),
        ({"lower": {"activation": jnp.tanh}}, r"\['activation'\]=.*" + ARRAYS_ALONE),
        ({"lower": np.array([0.0, None])}, "=array.* must be a number or an array of numbers"),
        ({"lower": object()}, "=<object .* must be a number or an array of numbers"),
        ({"learning_rate": True}, "=True must be a number or an array of numbers"),
        ({"eta_plus": "1.2"}, r"='1\.2' must be a number or an array of numbers"),
    ],
)
def test_functions(given, message):
    with pytest.raises(TypeError, match=next(iter(given)) + message):
        optax_rprop.irprop_plus(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": jnp.array(-1.0)}, r"learning_rate\['b'\]=-1 must be a number above 0"),
        ({"eta_minus": jnp.array(2.0)}, r"eta_minus\['b'\]=2 must be a number above 0"),
        (
            {"learning_rate": {"w": 0.1, "b": -0.2}},
            r"learning_rate\['b'\]=-0\.2 must be a number above 0",
        ),
        ({"learning_rate": {"w": np.full((3, 1), 99.0), "b": 1.0}}, r"\['w'\]=99 is above max_st"),
        ({"eta_minus": (0.5, 0.6)}, r"eta_minus\[0\] belongs to no parameter; .*Give one number"),
        ({"lower": [0.0, 0.0]}, r"lower\[0\] belongs to .* \['b'\], \['w'\]\. Give .* or a tree"),
        (
            {"lower": {"w": [0.0, 0.0]}},
            r"lower\['w'\] is a pytree \(a dict, a list .*use .*jnp\.array",
        ),
        ({"learning_rate": {"z": 1.0}}, r"learning_rate\['z'\] belongs to no parameter; the"),
        ({"lower": {"a": 0.0}}, r"lower\['a'\] belongs to no parameter.*optax\.masked"),
        ({"eta_plus": None}, "eta_plus=None is not a number; leave it out for the default"),
    ],
)
@pytest.mark.parametrize("transform", [lambda init: init, jax.jit], ids=["plain", "jit"])
def test_arrays_and_trees_are_read_in_init(given, message, transform):
    with pytest.raises(ValueError, match=message):
        transform(optax_rprop.rprop(**given).init)(PARAMS)


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


def test_an_option_that_is_no_flag():
    with pytest.raises(TypeError, match="undo_nonfinite='no' must be True or False"):
        optax_rprop.rprop(undo_nonfinite="no")


def test_rules_that_do_not_exist():
    with pytest.raises(ValueError, match="rule='irprop' is unknown; use one of 'rprop_minus', 'ir"):
        optax_rprop.scale_by_rprop(rule="irprop")
    with pytest.raises(ValueError, match=r"rule=\['rprop'\] is unknown; .*: momentum=0\.8\."):
        optax_rprop.scale_by_rprop(rule=["rprop"])


def test_the_alias_is_a_rule_too():
    gradients = jnp.array([1.0, -1.0, 0.5])
    ends = []
    for rule in ("rprop", "irprop_minus"):
        optimizer = optax_rprop.scale_by_rprop(rule=rule, momentum=0.8)
        ends.append(optimizer.update(gradients, optimizer.init(gradients)))
    chex.assert_trees_all_equal(*ends)


def test_bounds_that_a_narrow_type_cannot_hold():
    """They are infinite there, without a warning of NumPy's."""
    optimizer, params = optax_rprop.rprop(0.1, lower=-1e6, upper=1e6), jnp.ones(2, jnp.float16)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    np.testing.assert_array_equal(updates, np.float16([-0.1, -0.1]))


def test_a_step_dtype_of_float64_without_64_bit_types():
    """JAX warns, and makes it float32."""
    with pytest.warns(UserWarning, match="float64 .*is not available"):
        state = optax_rprop.rprop(0.1, step_dtype="float64").init(jnp.zeros(2))
    assert state[0].packed.dtype == jnp.float32
    np.testing.assert_array_equal(optax_rprop.step_sizes(state), np.float32([0.1, 0.1]))


@pytest.mark.parametrize(
    ("given", "made_with"),
    [
        ({"undo_nonfinite": True}, "undo_nonfinite=True"),
        ({"momentum": 0.8}, "momentum"),
        ({"learning_rate": None}, "learning_rate=None"),
    ],
)
def test_a_state_of_other_options(given, made_with):
    plain, other = optax_rprop.scale_by_rprop(), optax_rprop.scale_by_rprop(**given)
    with pytest.raises(
        ValueError, match=rf"without {made_with} .*, and this optimizer with; .* init"
    ):
        other.update(PARAMS, plain.init(PARAMS), PARAMS)
    with pytest.raises(
        ValueError, match=rf"with {made_with} .*, and this optimizer without; .* init"
    ):
        plain.update(PARAMS, other.init(PARAMS), PARAMS)


def test_undo_nonfinite_needs_its_state_and_params():
    optimizer = optax_rprop.rprop(undo_nonfinite=True)
    with pytest.raises(ValueError, match=r"params=None, .* for undo_nonfinite: .*state, params\)"):
        optimizer.update(PARAMS, optimizer.init(PARAMS))
    with pytest.raises(ValueError, match=r"made without undo_nonfinite=True \(its field domain\)"):
        optimizer.update(PARAMS, optax_rprop.rprop().init(PARAMS), PARAMS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_factors_that_round_to_one(dtype):
    near = {"bfloat16": 1e-3, "float32": 1e-9}[dtype]
    for given in ({"eta_plus": 1 + near}, {"eta_minus": 1 - near}):
        optimizer = optax_rprop.rprop(**given)
        message = rf"{next(iter(given))}=.* rounds to 1 in a {dtype} state.*take it further from 1"
        with pytest.raises(ValueError, match=message):
            optimizer.init(jnp.zeros(2, dtype))
    optax_rprop.rprop(eta_plus=1.01, eta_minus=0.99).init(jnp.zeros(2, dtype))
    factors = np.array([0.5, 0.99999])
    with pytest.raises(ValueError, match=r"eta_minus=0\.99999 rounds to 1 in a bfloat16 state"):
        optax_rprop.rprop(eta_minus=factors).init(jnp.zeros(2, jnp.bfloat16))
    with pytest.raises(ValueError, match="rounds to 1 in a bfloat16 state"):
        optax_rprop.rprop(eta_plus=1.001, step_dtype=jnp.bfloat16).init(jnp.zeros(2))


def test_parameters_without_gradients():
    init = optax_rprop.rprop().init
    message = r"parameter \['n'\] has dtype int32; .*asarray.*optax\.masked.*eqx\.is_inexact_array"
    with pytest.raises(TypeError, match=message):
        init({"n": jnp.arange(3)})
    with pytest.raises(TypeError, match=r"parameter \(the only leaf\) has dtype bool"):
        init(jnp.array(True))
    with pytest.raises(TypeError, match=r"parameter \['f'\] has dtype object"):
        init({"f": jax.nn.relu})
    tensor = types.SimpleNamespace(dtype="torch.float32", shape=())  # as PyTorch's
    with pytest.raises(TypeError, match=r"parameter \['t'\] has dtype torch\.float32; it must be"):
        init({"t": tensor})
    if hasattr(jnp, "float8_e8m0fnu"):
        with pytest.raises(TypeError, match=r"has dtype float8_e8m0fnu; .*\(signed\)"):
            init(jnp.ones(2, jnp.float8_e8m0fnu))


@pytest.mark.parametrize(
    ("gradient", "error", "message"),
    [
        (
            {"w": jnp.zeros((3, 1))},
            ValueError,
            r"^the state has \['b'\], which the gradients lack; both must .*: call init again",
        ),
        (
            {**PARAMS, "c": jnp.zeros(1)},
            ValueError,
            r"^the gradients have \['c'\], which the state lacks; both",
        ),
        (
            list(PARAMS.values()),
            ValueError,
            r"^the gradients are a list, but the state is a dict; both",
        ),
        (
            {**PARAMS, "b": [0.0, 0.0]},
            ValueError,
            r"^the gradients have a pytree or a list at \['b'\], where the state has one array",
        ),
        (None, ValueError, r"^the gradients are None; call update\(gradients, state, params\)"),
        (jnp.zeros(2), ValueError, r"only leaf\) is an array, but the state is a dict there; both"),
        (
            {**PARAMS, "w": jnp.zeros(3)},
            ValueError,
            r"the gradient \['w'\] has shape \(3,\), but the state has shape \(3, 1\)",
        ),
        (jax.grad(jnp.sum), TypeError, r"^the gradient \(the only leaf\) is a function, <.*call"),
        (
            {**PARAMS, "b": jnp.zeros(2, int)},
            TypeError,
            r"the gradient \['b'\] has dtype int32, but the state has dtype float32 there; both",
        ),
        (
            {**PARAMS, "b": jnp.zeros(2, complex)},
            TypeError,
            r"the gradient \['b'\] has dtype complex64, but the state has dtype float32 there",
        ),
    ],
)
def test_gradients_of_other_parameters(gradient, error, message):
    optimizer = optax_rprop.rprop()
    with pytest.raises(error, match=message):
        optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)


def test_irprop_plus_needs_the_loss():
    optimizer = optax_rprop.irprop_plus()
    state = optimizer.init(PARAMS)
    message = r"value=None, but .*, value=loss\).*rprop\(undo_nonfinite=True\)"
    with pytest.raises(ValueError, match=message):
        optimizer.update(PARAMS, state, PARAMS)
    for value in (jnp.zeros(2), jnp.zeros((), complex), (1.0, 2), "x", jnp.sum):
        with pytest.raises(TypeError, match=r"value=.* must be one real number.*has_aux=True"):
            optimizer.update(PARAMS, state, PARAMS, value=value)
    with pytest.raises(
        ValueError, match=r"made without the loss of irprop_plus \(its field prev_value\)"
    ):
        optimizer.update(PARAMS, optax_rprop.rprop().init(PARAMS), PARAMS, value=0.0)


PARTS = r"optax_rprop\.ScaleByRpropState, optax\.EmptyState"


def test_a_state_of_another_optimizer():
    scale, optimizer = optax_rprop.scale_by_rprop(), optax_rprop.rprop()
    gains = optax_rprop.contrib.scale_by_adaptive_gains()
    state = optimizer.init(PARAMS)
    for transformation, wrong, message in (
        (scale, PARAMS, "of type dict, not the optax_rprop.ScaleByRpropState that init made; pass"),
        (scale, state, rf"the tuple \({PARTS}\), not the optax_rprop\.ScaleByRpropState that"),
        (gains, PARAMS, r"of type dict, not the optax_rprop\.ScaleByAdaptiveGainsState that init"),
        (optimizer, None, rf"None, not the tuple \({PARTS}\) that init made"),
        (optimizer, PARAMS, rf"of type dict, not the tuple \({PARTS}\)"),
        (optimizer, scale.init(PARAMS), r"of type optax_rprop\.ScaleByRpropState, not the tuple"),
        (optimizer, (), r"the tuple \(\), not the tuple"),
        (optimizer, (PARAMS, state), r"the tuple \(dict, tuple\), .*, or the second result of up"),
        (optimizer, optax.rprop(0.1).init(PARAMS), r"the tuple \(optax\.ScaleByRpropState, "),
    ):
        with pytest.raises(TypeError, match=f"^state is {message}"):
            transformation.update(PARAMS, wrong)


def test_a_state_that_was_cast():
    optimizer = optax_rprop.scale_by_rprop()
    cast = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), optimizer.init(PARAMS))
    with pytest.raises(TypeError, match=r"the state of \['b'\] has dtype float16, in which step"):
        optimizer.update(PARAMS, cast)


@pytest.mark.parametrize("number", [jnp.nan, -jnp.inf])
def test_undo_nonfinite_starts_at_a_finite_point(number):
    start = {"b": jnp.array([1.0, number]), "w": jnp.zeros(1)}
    message = rf"parameter \['b'\] is {number} at the start; undo_nonfinite=True goes back to"
    for make in (optax_rprop.rprop, optax_rprop.rprop_momentum):
        with pytest.raises(ValueError, match=message):
            make(undo_nonfinite=True).init(start)
        with pytest.raises(ValueError, match=rf"\['b'\] starts at {number}, outside lower=0"):
            make(lower=0.0).init(start)
        make().init(start)


def test_bounds_and_other_parameters():
    optimizer = optax_rprop.rprop(lower=0.0)
    state = optimizer.init(PARAMS)
    with pytest.raises(
        ValueError, match=r"params=None, but .* needed for lower: .*state, params\)"
    ):
        optimizer.update(PARAMS, state)
    with pytest.raises(ValueError, match=r"params \['b'\] has shape \(3,\), but the gradient"):
        optimizer.update(PARAMS, state, {**PARAMS, "b": jnp.zeros(3)})
    with pytest.raises(TypeError, match=r"params \['b'\] has dtype complex64, but the gradient"):
        optimizer.update(PARAMS, state, {**PARAMS, "b": jnp.zeros(2, complex)})


def test_step_dtype_is_for_real_parameters():
    state = optax_rprop.rprop(step_dtype="bfloat16").init({"z": jnp.zeros(2, complex), "r": 1.0})
    assert state[0].packed["z"].dtype == jnp.complex64
    assert state[0].packed["r"].dtype == jnp.bfloat16

"""What would end in a silently wrong result is refused, in one line; tracers are let through."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop

nan, inf = float("nan"), float("inf")
PARAMS = {"w": jnp.zeros((3, 1)), "b": jnp.zeros(2)}
SCHEDULE = (
    r"=<function.*must be a number .*; for a schedule use optax\.inject_hyperparams\..*first step"
)
MASK = r"=.* must be a number or an array of numbers\.$"

RULES = "rprop_minus", "irprop_minus", "rprop_plus", "irprop_plus", "shark_irprop_minus", "rprop"
UNDOES = "momentum=0.8 needs a rule that undoes no step, and"
# Arguments that are refused at construction, and the whole message.
BAD_VALUES = [
    ({"eta_minus": 0.0}, "eta_minus=0.0 must lie in (0, 1)."),
    ({"eta_minus": 1.0}, "eta_minus=1.0 must lie in (0, 1)."),
    ({"eta_plus": 1.0}, "eta_plus=1.0 must lie in (1, inf)."),
    ({"eta_plus": inf}, "eta_plus=inf must lie in (1, inf)."),
    ({"eta_plus": np.array([1.1, 0.2])}, "eta_plus=[1.1 0.2] must lie in (1, inf)."),
    ({"eta_plus": {"w": 0.5}}, "eta_plus['w']=0.5 must lie in (1, inf)."),
    ({"min_step_size": -1e-6}, "min_step_size=-1e-06 must lie in [0, 2.14748e+09]."),
    ({"max_step_size": 0.0}, "max_step_size=0.0 must lie in (0, 2.14748e+09]."),
    ({"max_step_size": 2.0**32}, "max_step_size=4294967296.0 must lie in (0, 2.14748e+09]."),
    ({"learning_rate": 0.0}, "learning_rate=0.0 must lie in (0, 2.14748e+09]."),
    ({"learning_rate": np.float32(inf)}, "learning_rate=inf must lie in (0, 2.14748e+09]."),
    ({"lower": nan}, "lower=nan must lie in [-inf, inf)."),
    ({"lower": inf}, "lower=inf must lie in [-inf, inf)."),
    ({"upper": -inf}, "upper=-inf must lie in (-inf, inf]."),
    ({"momentum": 0.0}, "momentum=0.0 must lie in (0, 1)."),
    ({"momentum": 1.0}, "momentum=1.0 must lie in (0, 1)."),
    ({"momentum": nan}, "momentum=nan must lie in (0, 1)."),
    ({"min_step_size": 2.0, "max_step_size": 1.0}, "min_step_size=2.0 is above max_step_size=1.0."),
    ({"learning_rate": 51.0}, "learning_rate=51.0 is above max_step_size=50.0."),
    ({"learning_rate": 1e-7}, "min_step_size=1e-06 is above learning_rate=1e-07."),
    ({"lower": 1.0, "upper": 0.0}, "lower=1.0 is above upper=0.0."),
    ({"rule": "irprop"}, f"rule='irprop' must be one of {', '.join(RULES)}."),
    *(({"rule": r, "momentum": 0.8}, f"{UNDOES} rule='{r}' does.") for r in RULES[2:4]),
    ({"step_dtype": "float16"}, "step_dtype='float16' cannot hold step sizes; use bfloat16, "),
]


@pytest.mark.parametrize(("given", "message"), BAD_VALUES, ids=str)
def test_bad_values(given, message):
    start = None if "min_step_size" in given else 0.01
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        optax_rprop.scale_by_rprop(**{"learning_rate": start, **given})
    assert "\n" not in str(error.value)


def test_numbers_at_the_ends_of_their_range():
    for given in (
        {"learning_rate": 2.0**31, "max_step_size": 2.0**31},
        {"min_step_size": 0},
        {"learning_rate": 1e-6},
        {"lower": 1.0, "upper": 1.0},
        {"lower": -inf, "upper": inf},
        {"step_dtype": "float32"},
    ):
        optax_rprop.rprop(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learning_rate": optax.linear_schedule(0.1, 0.0, 10)}, SCHEDULE),
        ({"eta_plus": {"w": lambda step: 1.2}}, SCHEDULE),
        ({"lower": {"w": True}}, MASK),
        ({"upper": np.array([True, False])}, MASK),
        ({"lower": jnp.array([True])}, MASK),
    ],
)
def test_what_is_no_number(given, message):
    with pytest.raises(TypeError, match=f"^{next(iter(given))}.*{message}"):
        optax_rprop.irprop_plus(**given)


# A prefix that does not fit, and what is wrong with it.
PREFIXES = [
    ({"learning_rate": {}}, "learning_rate has no value for parameter ['b']."),
    ({"max_step_size": {"w": 2.0}}, "max_step_size has no value for parameter ['b']."),
    ({"eta_minus": [0.5, 0.6]}, "eta_minus[0] belongs to none of the parameters: "),
    ({"lower": {"wieght": 0.0}}, "lower['wieght'] belongs to none of the parameters: [\"['b']\""),
    ({"lower": {"w": [0.0, 0.0]}}, "lower['w'][0] belongs to none of the parameters: "),
    ({"lower": [0.0]}, "lower[0] belongs to none of the parameters: "),
]


@pytest.mark.parametrize(("given", "message"), PREFIXES, ids=str)
@pytest.mark.parametrize("transform", [lambda init: init, jax.jit], ids=["plain", "jit"])
def test_prefixes_that_do_not_fit(given, message, transform):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        transform(optax_rprop.rprop(**given).init)(PARAMS)


@pytest.mark.parametrize("number", [float, np.float32, lambda x: np.full(2, x), jnp.float32])
def test_order_in_a_prefix(number):
    for given, message in (
        ({"lower": {"b": number(1)}, "upper": 0.5}, r"lower=.*1.* is above upper=0\.5"),
        ({"lower": {"b": number(1)}, "upper": {"b": 0.0}}, "lower=.*1.* is above upper=0"),
        ({"learning_rate": {"w": 1.0, "b": number(99)}}, "learning_rate=.*99.* is above max_st"),
    ):
        with pytest.raises(ValueError, match=message):
            optax_rprop.rprop(**given).init(PARAMS)


@pytest.mark.parametrize("kind", [int, np.int64, np.array], ids=lambda kind: kind.__name__)
def test_integers_beyond_32_bits(kind):
    """JAX would wrap them, or refuse them without a word on which."""
    params, ones = jnp.zeros(3), jnp.ones(3)
    for given in ({"max_step_size": kind(2**31)}, {"lower": kind(-3 * 10**9)}):
        optimizer = optax_rprop.rprop(1, **given)
        updates, _ = optimizer.update(ones, optimizer.init(params), params)
        np.testing.assert_array_equal(updates, -ones)


def test_a_schedule_may_end_beyond_another_number():
    """Of a first step size that no longer matters, too: in `init` alone they are compared."""
    decay = optax.exponential_decay(0.5, 1, 1e-3)
    for given, last in (
        ({"learning_rate": decay}, np.float32(0.5)),
        ({"learning_rate": 0.4, "max_step_size": decay}, decay(3)),
    ):
        optimizer = optax.inject_hyperparams(optax_rprop.rprop)(eta_plus=1.0 + 1e-7, **given)
        params = jnp.ones(2)
        state = optimizer.init(params)
        for _ in range(4):
            _, state = optimizer.update(params, state)
        np.testing.assert_allclose(optax_rprop.step_sizes(state), last, rtol=1e-5)


def test_bounds_may_be_integers():
    optimizer = optax_rprop.rprop_momentum(lower=jnp.array([0, -1]), upper=jnp.array(2))
    params = jnp.array([0.25, 1.5])
    state = optimizer.init(params)
    for gradient in (1.0, -1.0):
        for _ in range(20):
            updates, state = optimizer.update(jnp.full(2, gradient), state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params, [0, -1] if gradient > 0 else [2, 2])


def test_tracers_are_let_through():
    """The same values, traced: no error, and no NaN either."""
    for given, _ in BAD_VALUES:
        if not all(isinstance(value, float) for value in given.values()):
            continue

        def first_update(*values, names=tuple(given)):
            numbers = dict(zip(names, values, strict=True))
            optimizer = optax_rprop.scale_by_rprop(**{"learning_rate": 0.01, **numbers})
            state = optimizer.init(PARAMS)
            return optimizer.update(PARAMS, state, PARAMS)

        finite = jax.tree.map(
            lambda x: bool(jnp.isfinite(x).all()), jax.jit(first_update)(*given.values())
        )
        assert all(jax.tree.leaves(finite)), given


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
    ("given", "field"),
    [
        ({"undo_nonfinite": True}, "unshrunk"),
        ({"momentum": 0.8}, "factor"),
        ({"rule": "irprop_plus"}, "prev_value"),
    ],
)
def test_a_state_of_other_options(given, field):
    plain, other = optax_rprop.scale_by_rprop(1), optax_rprop.scale_by_rprop(1, **given)
    message = rf"^state\.{field} must {{}}be None: init was called with other options\.$"
    with pytest.raises(ValueError, match=message.format("not ")):
        other.update(PARAMS, plain.init(PARAMS), PARAMS, value=1.0)
    with pytest.raises(ValueError, match=message.format("")):
        plain.update(PARAMS, other.init(PARAMS), PARAMS)


def test_a_state_of_another_kind():
    transformation = optax_rprop.scale_by_rprop(1)
    for wrong in (PARAMS, None, optax_rprop.rprop().init(PARAMS), optax.rprop(0.1).init(PARAMS)[0]):
        with pytest.raises(TypeError, match="state must be the ScaleByRpropState that init made"):
            transformation.update(PARAMS, wrong)


def test_what_an_option_needs():
    for given in ({"lower": 0.0}, {"upper": 0.0}, {"undo_nonfinite": True}):
        optimizer = optax_rprop.rprop(**given)
        with pytest.raises(ValueError, match=r"undo_nonfinite need params: update.*state, params"):
            optimizer.update(PARAMS, optimizer.init(PARAMS))
    optimizer = optax_rprop.irprop_plus()
    state = optimizer.init(PARAMS)
    for value in (None, jnp.zeros(2), (1.0, 2)):
        with pytest.raises(ValueError, match=r"value=.* must be the loss, .*value=loss\).*rprop"):
            optimizer.update(PARAMS, state, PARAMS, value=value)


@pytest.mark.parametrize("parameter", [jnp.arange(3), jnp.array(True)])
def test_parameters_without_gradients(parameter):
    message = rf"^parameter\['n'\] has type {parameter.dtype}; .*eqx\.is_inexact_array, optax\.mas"
    for given in ({}, {"learning_rate": None}, {"undo_nonfinite": True}):
        with pytest.raises(TypeError, match=message):
            optax_rprop.rprop(**given).init({"n": parameter})


OTHER_SHAPE, OTHER_TYPE = {**PARAMS, "w": jnp.zeros(3)}, {**PARAMS, "b": jnp.zeros(2, complex)}


@pytest.mark.parametrize(
    ("gradient", "params", "message"),
    [  # trees that differ, JAX tells apart
        ({"w": jnp.zeros((3, 1))}, PARAMS, "Dict key mismatch"),
        (list(PARAMS.values()), PARAMS, "Expected list, got"),
        (OTHER_SHAPE, PARAMS, r"^gradient\['w'\] is float32\(3,\), state float32\(3, 1\)\.$"),
        (OTHER_TYPE, PARAMS, r"^gradient\['b'\] is complex64\(2,\), state float32\(2,\)\.$"),
        (PARAMS, OTHER_SHAPE, r"^gradient\['w'\] is float32\(3, 1\), params float32\(3,\)\.$"),
        (PARAMS, OTHER_TYPE, r"^gradient\['b'\] is float32\(2,\), params complex64\(2,\)\.$"),
    ],
)
def test_gradients_of_other_parameters(gradient, params, message):
    optimizer = optax_rprop.rprop(lower=None if params is PARAMS else 0.0)
    with pytest.raises(ValueError, match=message):
        optimizer.update(gradient, optimizer.init(PARAMS), params)

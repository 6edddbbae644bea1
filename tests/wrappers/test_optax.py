"""Inside every Optax wrapper, each optimizer follows the papers and its state can be read."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import optax_rprop
from helpers.conformance import (
    BOUNDED,
    FINITE,
    GRADIENTS,
    LBFGS,
    LOSSES,
    NARROW,
    NEED_LOSS,
    STEPS,
    TAKE_LOSS,
    UNDOING,
    VALUES,
    assert_follows_papers,
    assert_same_trees,
    changed_run,
    every_kind,
    every_kind_but,
    every_kind_with_numbers,
    flat,
    has_lbfgs,
    of_weight_alone,
    on_even_steps,
    plain_run,
    run,
    tree,
)

# Optax itself promotes types in some wrappers, which the suite's strict mode refuses.
loose_types = functools.partial(jax.numpy_dtype_promotion, "standard")


class Row(NamedTuple):
    """A wrapper, what it is given, and what of that the optimizer inside it should see."""

    wrap: Callable
    gradients: np.ndarray = GRADIENTS
    losses: np.ndarray = LOSSES
    sees: np.ndarray = GRADIENTS
    sees_losses: np.ndarray = LOSSES
    numbers: dict = {}  # noqa: RUF012


def inject(make, **numbers):
    static = "memory_size" if has_lbfgs(make) else ()
    return optax.inject_hyperparams(make, static)(**numbers)


def on_even_steps_alone(make):
    """On the other steps it hands the gradient on; the mask behind it drops that."""
    mask = optax.conditionally_mask(optax.identity(), on_even_steps)
    return optax.chain(optax.conditionally_transform(make(), on_even_steps), mask)


INJECTED = {"learning_rate": 0.1, "eta_minus": 0.3, "max_step_size": 0.2}
DECAY = optax.exponential_decay(0.01, 1, 0.1)
# A NaN never leaves the sum of a pair of micro-batches; the second one's call gets the mean loss.
HALVES = np.repeat(FINITE, 2, axis=0) * np.tile([[0.5], [1.5]], (STEPS, 1)).astype("f")
IGNORED_THEN_MEAN = np.stack([LOSSES[::-1], LOSSES], axis=1).ravel()
CLIPPED = FINITE / np.maximum(1, np.linalg.norm(FINITE, axis=1, keepdims=True))
NO_NAN = np.isfinite(GRADIENTS).all(axis=1)
ROWS = {
    # Clipping keeps the signs, but one NaN makes the norm NaN, and all gradients.
    "clip_by_global_norm": Row(
        lambda make: optax.chain(optax.clip_by_global_norm(1.0), make()), FINITE, sees=CLIPPED
    ),
    "named_chain": Row(
        lambda make: optax.named_chain(("clip", optax.clip(0.1)), ("rprop", make())),
        sees=np.clip(GRADIENTS, -0.1, 0.1),
    ),
    "inject_hyperparams": Row(inject),
    "inject_hyperparams, other numbers": Row(
        lambda make: inject(make, **INJECTED), numbers=INJECTED
    ),
    # The first step size alone; injected, a schedule cannot be told from a number.
    "schedule on learning_rate": Row(
        lambda make: inject(make, learning_rate=DECAY), numbers={"learning_rate": 0.01}
    ),
    "MultiSteps": Row(
        lambda make: optax.MultiSteps(make(), 2), HALVES, IGNORED_THEN_MEAN, sees=FINITE
    ),
    # What README says to do about a NaN: that micro-batch has never been.
    "MultiSteps, skip_not_finite": Row(
        lambda make: optax.MultiSteps(make(), 1, should_skip_update_fn=optax.skip_not_finite),
        sees=GRADIENTS[NO_NAN],
        sees_losses=LOSSES[NO_NAN],
    ),
    "apply_if_finite": Row(
        lambda make: optax.apply_if_finite(make(), 3),
        sees=GRADIENTS[NO_NAN],
        sees_losses=LOSSES[NO_NAN],
    ),
    "flatten": Row(lambda make: optax.flatten(make())),
    "conditionally_transform": Row(
        on_even_steps_alone, sees=GRADIENTS[::2], sees_losses=LOSSES[::2]
    ),
    # Its factor is 1 for as long as it is patient.
    "reduce_on_plateau": Row(
        lambda make: optax.chain(make(), contrib.reduce_on_plateau(patience=STEPS + 1))
    ),
}


@every_kind
@pytest.mark.parametrize("name", ROWS)
def test_wrapper(make, name):
    row = ROWS[name]
    if row.numbers and has_lbfgs(make):
        pytest.skip("it has none of these numbers")
    with loose_types():
        ran = run(row.wrap(make), gradients=row.gradients, losses=row.losses)
    assert_follows_papers(make, *ran, row.sees, row.sees_losses, **row.numbers)


def default_of(make, name):
    return inspect.signature(make).parameters[name].default


@every_kind_with_numbers
@pytest.mark.parametrize(("name", "late"), [("eta_plus", 2.0), ("max_step_size", 0.011)])
def test_schedule(make, name, late):
    """From the step on at which a schedule changes, it is the optimizer with the new value."""
    early = {"eta_plus": default_of(make, "eta_plus"), "max_step_size": 50.0}[name]
    schedule = {name: lambda step: jnp.where(step < 10, early, late)}
    params, state = run(inject(make, **schedule))
    expected, expected_state = changed_run(make, name, late)
    assert_same_trees(params, expected, make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(expected_state))
    assert np.any(flat(params) != flat(plain_run(make)[0]))


@every_kind
def test_part_of_the_tree(make):
    for optimizer in of_weight_alone(make()):
        params, state = run(optimizer)
        assert_follows_papers(make, params["weight"], state, GRADIENTS[:, 1:], values=VALUES[1:])


@every_kind_with_numbers
def test_partition(make):
    rates = {"slow": 0.001, "fast": 0.1}
    groups = {name: make(rate) for name, rate in rates.items()}
    params, state = run(optax.multi_transform(groups, {"bias": "slow", "weight": "fast"}))
    for group, leaf, columns in (("slow", "bias", slice(1)), ("fast", "weight", slice(1, None))):
        given = params[leaf], state.inner_states[group], GRADIENTS[:, columns]
        assert_follows_papers(make, *given, values=VALUES[columns], learning_rate=rates[group])


@every_kind_but(*BOUNDED, *UNDOING, LBFGS[1])  # their parameters are the ones given, not z
def test_schedule_free(make):
    """Its sequence z is the base optimizer's own; the parameters are averages of it."""
    _, state = run(contrib.schedule_free(make(), learning_rate=0.01))
    assert_follows_papers(make, state.z, state)


def assert_same_memory(state, plain, make=optax_rprop.rprop):
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        assert_same_trees(read(state), read(plain), make)


# It multiplies updates that end at a bound or a point.
@every_kind_but(*BOUNDED, *UNDOING, LBFGS[1])
def test_mechanize(make):
    """It learns a factor for the updates, and leaves the step sizes alone."""
    wrapped = contrib.mechanize(make())
    takes_loss = isinstance(wrapped, optax.GradientTransformationExtraArgs)
    if make in TAKE_LOSS and not takes_loss:
        pytest.skip("the mechanize of this older Optax keeps the loss to itself")
    with loose_types():
        _, state = run(wrapped, losses=LOSSES if takes_loss else None)
    assert_same_memory(state, plain_run(make)[1], make)


@every_kind_but(*TAKE_LOSS, NARROW)  # plain, it would have complex parameters
def test_split_real_and_imaginary(make):
    """Its pairs of reals are what a complex parameter is here without it."""
    params = jnp.asarray(VALUES + 1j * VALUES[::-1])
    gradients = jnp.asarray(GRADIENTS + 1j * GRADIENTS[:, ::-1])
    with loose_types():
        split = run(contrib.split_real_and_imaginary(make()), params, gradients, losses=None)
    plain = run(make(), params, gradients)
    assert_same_trees(split[0], plain[0], make)
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        pair, both = read(split[1]), read(plain[1])
        np.testing.assert_array_equal(pair.real, both.real)
        np.testing.assert_array_equal(pair.imaginary, both.imag)


@every_kind_but(*TAKE_LOSS, *BOUNDED)  # lookahead moves the parameters itself
def test_lookahead_and_sharpness_aware_minimization(make):
    params = optax.LookaheadParams.init_synced(tree(VALUES))
    with loose_types():
        _, ahead = run(optax.lookahead(make(), 5, 0.5), params, losses=None)
        _, sharp = run(contrib.sam(make(), optax.sgd(0.1), sync_period=2), losses=None)
    assert_same_memory(ahead, plain_run(make)[1])
    # Every second gradient, the one at the disturbed point, is Rprop's.
    assert_same_memory(sharp.opt_state, run(make(), gradients=GRADIENTS[1::2], losses=None)[1])


@pytest.mark.parametrize(
    ("wrap", "params"),
    [
        (lambda inner: optax.lookahead(inner, 5, 0.5), optax.LookaheadParams.init_synced(1.0)),
        (contrib.split_real_and_imaginary, jnp.ones(2)),
        (lambda inner: contrib.sam(inner, optax.sgd(0.1)), jnp.ones(2)),
        (lambda inner: optax.MultiSteps(inner, 1).gradient_transformation(), jnp.ones(2)),
    ],
    ids=["lookahead", "split_real_and_imaginary", "sam", "MultiSteps.gradient_transformation"],
)
def test_wrappers_that_keep_the_loss_to_themselves(wrap, params):
    """irprop_plus says so instead of going on without it, by itself or for the wrapper."""
    in_a_chain = optax.chain(wrap(optax_rprop.irprop_plus()))
    state = in_a_chain.init(params)
    gradient = jnp.ones_like(getattr(params, "fast", params))
    with loose_types(), pytest.raises((TypeError, ValueError), match="value"):
        in_a_chain.update(gradient, state, params, value=1.0)


@every_kind_with_numbers
def test_tree_get_and_set(make):
    """The state's names are found, and hide none of those that a wrapper has; a hyperparameter
    set in the state holds from the next step on."""
    # optax.tree.get and optax.tree.set, by the names that they have had in all versions.
    get = optax.tree_utils.tree_get
    optimizer = inject(make)
    params, state = run(optimizer, gradients=GRADIENTS[:10], losses=LOSSES[:10])
    packed = get(state, "packed")
    assert_same_memory(optax_rprop.ScaleByRpropState(packed), state)
    assert get(state, "eta_plus") == np.float32(default_of(make, "eta_plus"))
    if make in NEED_LOSS:
        assert get(state, "prev_value") == LOSSES[9]
    state = optax.tree_utils.tree_set(state, eta_plus=jnp.float32(2.0))
    params, state = run(optimizer, params, GRADIENTS[10:], LOSSES[10:], state)
    assert_same_trees(params, changed_run(make, "eta_plus", 2.0)[0], make)
    assert np.any(flat(params) != flat(plain_run(make)[0]))


@every_kind
def test_tree_map_params(make):
    """Every array shaped like the parameters is known as such, and every scalar as none."""
    optimizer = make()
    state = optimizer.init(tree(VALUES))
    specs = {"bias": "one for the bias", "weight": "one for the weight"}
    inner, _ = optax.tree_map_params(
        optimizer, lambda _, spec: spec, state, specs, transform_non_params=lambda _: "none"
    )

    def expected(part):
        if isinstance(part, tuple):
            return type(part)(*map(expected, part))
        return None if part is None else specs if isinstance(part, dict) else "none"

    assert inner == expected(state[0])

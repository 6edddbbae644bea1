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
from helpers import streams
from helpers.conformance import (
    ALL_OPTIONS,
    FINITE,
    GRADIENTS,
    KINDS,
    LBFGS_IN_A_BOX,
    LOSSES,
    MOMENTUM,
    PLAIN,
    STEPS,
    UNDOING_IN_A_BOX,
    VALUES,
    assert_follows_papers,
    assert_same_trees,
    every_kind,
    flat,
    has_lbfgs,
    parametrize,
    run,
    trace_of,
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


def inject(make, **numbers):
    static = "memory_size" if has_lbfgs(make) else ()
    return optax.inject_hyperparams(make, static)(**numbers)


def on_even_steps_alone(make):
    """On the other steps it hands the gradient on; the mask behind it drops that."""

    def on_even_steps(step):
        return step % 2 == 0

    mask = optax.conditionally_mask(optax.identity(), on_even_steps)
    return optax.chain(optax.conditionally_transform(make(), on_even_steps), mask)


# Of a schedule on learning_rate, the first step size alone counts.
DECAY = optax.exponential_decay(0.01, 1, 0.1)
INJECTED = {"learning_rate": DECAY, "eta_minus": 0.3, "max_step_size": 0.2}
SEEN = INJECTED | {"learning_rate": 0.01}
# Pairs of micro-batches, of which the second one's call gets the mean loss; and what README says
# to do about a NaN between them: that micro-batch has never been.
THIRDS = np.repeat(FINITE, 3, axis=0) * np.float32(np.tile([[0.5], [np.nan], [1.5]], (STEPS, 1)))
IGNORED_THEN_MEAN = np.stack([LOSSES[::-1], LOSSES[::-1], LOSSES], axis=1).ravel()
CLIPPED = FINITE / np.maximum(1, np.linalg.norm(FINITE, axis=1, keepdims=True))
NO_NAN = np.isfinite(GRADIENTS).all(axis=1)
ROWS = {
    # Clipping keeps the signs, but one NaN makes the norm NaN, and all gradients. The factor of
    # reduce_on_plateau is 1 for as long as it is patient.
    "named_chain": Row(
        lambda make: optax.named_chain(
            ("clip", optax.clip_by_global_norm(1.0)),
            ("rprop", make()),
            ("plateau", contrib.reduce_on_plateau(patience=STEPS + 1)),
        ),
        FINITE,
        sees=CLIPPED,
    ),
    "inject_hyperparams": Row(lambda make: inject(make, **({} if has_lbfgs(make) else INJECTED))),
    "MultiSteps": Row(
        lambda make: optax.MultiSteps(make(), 2, should_skip_update_fn=optax.skip_not_finite),
        *(THIRDS, IGNORED_THEN_MEAN),
        sees=FINITE,
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
}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        *((name, make) for name in ROWS for make in (ALL_OPTIONS, MOMENTUM)),
        # Its step is another where numbers are no constants.
        ("inject_hyperparams", PLAIN[0]),
        # It has no numbers, and one leaf or a step that is left out is nothing of its own.
        *((name, LBFGS_IN_A_BOX) for name in list(ROWS)[:3]),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_wrapper(name, make):
    row = ROWS[name]
    with loose_types():
        ran = run(row.wrap(make), gradients=row.gradients, losses=row.losses)
    numbers = SEEN if name == "inject_hyperparams" and not has_lbfgs(make) else {}
    assert_follows_papers(make, *ran, row.sees, row.sees_losses, **numbers)


@parametrize(*KINDS[:3])
def test_numbers_that_change(make):
    """By a schedule, or in the state, whose names are found and hide none of a wrapper's: from
    that step on, it is the optimizer with the new numbers."""
    # optax.tree.get and optax.tree.set, by the names that they have had in all versions.
    get, set_in = optax.tree_utils.tree_get, optax.tree_utils.tree_set
    late = {"eta_plus": 2.0, "max_step_size": 0.011}
    early = {name: inspect.signature(make).parameters[name].default for name in late}
    first, second = ((GRADIENTS[half], LOSSES[half]) for half in (slice(15), slice(15, None)))
    plain, injected = make(), inject(make)
    halfway = run(plain, None, *first)
    expected, expected_state = run(make(**late), halfway[0], *second, halfway[1])
    unchanged, _ = run(plain, halfway[0], *second, halfway[1])
    assert np.any(flat(expected) != flat(unchanged))

    def schedule(name):
        return lambda step: jnp.where(step < 15, early[name], late[name])

    params, state = run(inject(make, **{name: schedule(name) for name in late}))
    assert_same_trees(params, expected, make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(expected_state))

    params, state = run(injected, None, *first)
    packed = optax_rprop.ScaleByRpropState(get(state, "packed"))
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        assert_same_trees(read(packed), read(state))
    assert get(state, "eta_plus") == np.float32(early["eta_plus"])
    if make is ALL_OPTIONS:
        assert get(state, "prev_value") == LOSSES[14]
    state = set_in(state, **jax.tree.map(jnp.float32, late))
    params, state = run(injected, params, *second, state)
    assert_same_trees(params, expected, make)


@pytest.mark.parametrize("makes", [(ALL_OPTIONS, ALL_OPTIONS), (MOMENTUM, LBFGS_IN_A_BOX)])
def test_partition(makes):
    """Each group follows the papers by itself, with a mask in place of the other."""
    rates = {"learning_rate": 0.001}, {} if has_lbfgs(makes[1]) else {"learning_rate": 0.1}
    slow, fast = (make(**given) for make, given in zip(makes, rates, strict=True))
    groups = {"slow": slow, "fast": fast}
    # optax.partition, by the name that it has had in all versions.
    params, state = run(optax.multi_transform(groups, {"bias": "slow", "weight": "fast"}))
    leaves = ("bias", "slow", slice(1)), ("weight", "fast", slice(1, None))
    for make, given, (leaf, group, columns) in zip(makes, rates, leaves, strict=True):
        own = params[leaf], state.inner_states[group], GRADIENTS[:, columns]
        assert_follows_papers(make, *own, values=VALUES[columns], **given)


def assert_memory_follows_papers(make, state, gradients=GRADIENTS):
    _, step_sizes, signs = (part[-1] for part in trace_of(make, VALUES, gradients))
    streams.assert_same_bits(flat(optax_rprop.step_sizes(state)), step_sizes)
    streams.assert_same_bits(flat(optax_rprop.prev_signs(state)), signs)


def test_schedule_free():
    """Its sequence z is the base optimizer's own; the parameters are averages of it."""
    _, state = run(contrib.schedule_free(PLAIN[1](), learning_rate=0.01))
    assert_follows_papers(PLAIN[1], state.z, state)


@parametrize(*PLAIN[:2])
def test_mechanize(make):
    """It learns a factor for the updates, and leaves the step sizes alone."""
    wrapped = contrib.mechanize(make())
    takes_loss = isinstance(wrapped, optax.GradientTransformationExtraArgs)
    if make is PLAIN[1] and not takes_loss:
        pytest.skip("the mechanize of this older Optax keeps the loss to itself")
    with loose_types():
        _, state = run(wrapped, losses=LOSSES if takes_loss else None)
    assert_memory_follows_papers(make, state)


@parametrize(UNDOING_IN_A_BOX, MOMENTUM)
def test_split_real_and_imaginary(make):
    """Its pairs of reals are what a complex parameter is here without it."""
    params = jnp.asarray(VALUES + 1j * VALUES[::-1])
    gradients = jnp.asarray(GRADIENTS + 1j * GRADIENTS[:, ::-1])
    with loose_types():
        split = run(contrib.split_real_and_imaginary(make()), params, gradients, losses=None)
    plain = run(make(), params, gradients, losses=None)
    assert_same_trees(split[0], plain[0], make)
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        pair, both = read(split[1]), read(plain[1])
        np.testing.assert_array_equal(pair.real, both.real)
        np.testing.assert_array_equal(pair.imaginary, both.imag)


def test_lookahead_and_sharpness_aware_minimization():
    make = PLAIN[0]
    params = optax.LookaheadParams.init_synced(tree(VALUES))
    with loose_types():
        _, ahead = run(optax.lookahead(make(), 5, 0.5), params, losses=None)
        _, sharp = run(contrib.sam(make(), optax.sgd(0.1), sync_period=2), losses=None)
    assert_memory_follows_papers(make, ahead)
    # Every second gradient, the one at the disturbed point, is Rprop's.
    assert_memory_follows_papers(make, sharp.opt_state, GRADIENTS[1::2])


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

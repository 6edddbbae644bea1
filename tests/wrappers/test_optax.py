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


def test_schedule_free():
    """Its sequence z is the base optimizer's own; the parameters are averages of it."""
    _, state = run(contrib.schedule_free(PLAIN[1](), learning_rate=0.01))
    assert_follows_papers(PLAIN[1], state.z, state)


@pytest.mark.parametrize(
    ("wrap", "params", "sees"),
    [
        (contrib.mechanize, tree(VALUES), GRADIENTS),
        (
            lambda inner: optax.lookahead(inner, 5, 0.5),
            optax.LookaheadParams.init_synced(tree(VALUES)),
            GRADIENTS,
        ),
        # Every second gradient, the one at the disturbed point, is Rprop's.
        (
            lambda inner: contrib.sam(inner, optax.sgd(0.1), sync_period=2),
            tree(VALUES),
            GRADIENTS[1::2],
        ),
    ],
    ids=["mechanize", "lookahead", "sam"],
)
def test_wrappers_that_change_updates(wrap, params, sees):
    """They leave the step sizes and the signs alone."""
    with loose_types():
        _, state = run(wrap(PLAIN[0]()), params, losses=None)
    _, step_sizes, signs = (part[-1] for part in trace_of(PLAIN[0], VALUES, sees))
    streams.assert_same_bits(flat(optax_rprop.step_sizes(state)), step_sizes)
    streams.assert_same_bits(flat(optax_rprop.prev_signs(state)), signs)


# Five weights' own numbers.
NUMBERS = {
    "learning_rate": np.float32([0.02, 0.01, 0.05, 0.1, 0.3]),
    "min_step_size": np.float32([1e-6, 1e-3, 1e-3, 0.01, 0.01]),
    "max_step_size": np.float32([0.5, 0.4, 0.4, 0.4, 0.4]),
    "lower": np.float32([-2.1, -1.05, -0.3, 0.9, 1.6]),
}
PREFIXES = {name: tree(numbers) for name, numbers in NUMBERS.items()}
OF_WEIGHT = {name: {"weight": prefix["weight"]} for name, prefix in PREFIXES.items()}


@pytest.mark.parametrize(
    ("wrapped", "weights"),
    [
        (optax.inject_hyperparams(optax_rprop.irprop_plus)(**PREFIXES), 5),
        # Of one array of all weights.
        (optax.flatten(optax_rprop.irprop_plus(**NUMBERS)), 5),
        # Of the part that it hands on.
        (optax.masked(optax_rprop.irprop_plus(**OF_WEIGHT), {"bias": False, "weight": True}), 4),
    ],
    ids=["inject_hyperparams", "flatten", "masked"],
)
def test_numbers_of_each_weight(wrapped, weights):
    """They reach it where the wrapper changes the tree or the numbers, as without the wrapper."""
    (params, state), (expected, plain) = run(wrapped), run(optax_rprop.irprop_plus(**PREFIXES))
    streams.assert_same_bits(flat(params)[-weights:], flat(expected)[-weights:])
    for read in (optax_rprop.step_sizes, optax_rprop.prev_signs):
        streams.assert_same_bits(flat(read(state)), flat(read(plain))[-weights:])


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

"""Inside every Optax wrapper, each optimizer follows the papers and its state can be read."""

import functools

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
    every_kind_without_loss,
    flat,
    on_even_steps,
    plain_run,
    run,
    tree,
)

# Optax itself promotes types in some wrappers, which the suite's strict mode refuses.
loose_types = functools.partial(jax.numpy_dtype_promotion, "standard")


@every_kind
def test_chain(make):
    """Clipping keeps the signs, and with them every step but for that along an average."""
    clipped = optax.chain(optax.clip_by_global_norm(1.0), make())
    # One NaN makes the norm NaN, and all gradients.
    assert_follows_papers(make, *run(clipped, gradients=FINITE), FINITE)
    named = optax.named_chain(("clip", optax.clip(0.1)), ("rprop", make()))
    assert_follows_papers(make, *run(named), np.clip(GRADIENTS, -0.1, 0.1))


@every_kind
def test_weight_decay(make):
    """Before Rprop, decay is a penalty's gradient: it turns signs and has no learning rate."""
    decayed = optax.chain(optax.add_decayed_weights(3.0), make())
    params, state = run(decayed)
    optimizer = make()
    expected, plain_state = tree(VALUES), optimizer.init(tree(VALUES))
    for row, loss in zip(GRADIENTS, LOSSES, strict=True):
        gradient = jax.tree.map(lambda g, w: g + 3.0 * w, tree(row), expected)
        updates, plain_state = optimizer.update(gradient, plain_state, expected, value=loss)
        expected = optax.apply_updates(expected, updates)
    assert_same_trees(params, expected, make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(plain_state))
    assert np.any(flat(params) != flat(plain_run(make)[0]))


@every_kind
def test_inject_hyperparams(make):
    assert_follows_papers(make, *run(optax.inject_hyperparams(make)()))
    given = {"learning_rate": 0.1, "eta_minus": 0.3, "max_step_size": 0.2}
    assert_follows_papers(make, *run(optax.inject_hyperparams(make)(**given)), **given)


@every_kind
@pytest.mark.parametrize(("name", "late"), [("eta_plus", 2.0), ("max_step_size", 0.011)])
def test_schedule(make, name, late):
    """From the step on at which a schedule changes, it is the optimizer with the new value."""
    early = {"eta_plus": 1.2, "max_step_size": 50.0}[name]
    schedule = {name: lambda step: jnp.where(step < 10, early, late)}
    params, state = run(optax.inject_hyperparams(make)(**schedule))
    expected, expected_state = changed_run(make, name, late)
    assert_same_trees(params, expected, make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(expected_state))
    assert np.any(flat(params) != flat(plain_run(make)[0]))


@every_kind
def test_schedule_on_learning_rate_does_nothing(make):
    """It is the first step size alone; injected, a schedule cannot be told from a number."""
    schedule = optax.exponential_decay(0.01, 1, 0.1)
    ran = run(optax.inject_hyperparams(make)(schedule))
    assert_follows_papers(make, *ran, learning_rate=0.01)


@every_kind
def test_masked(make):
    params, state = run(optax.masked(make(), {"bias": False, "weight": True}))
    assert_follows_papers(make, params["weight"], state, GRADIENTS[:, 1:], values=VALUES[1:])


@every_kind
def test_partition(make):
    groups = {"rprop": make(), "frozen": optax.set_to_zero()}
    # optax.partition, by the name that it has had in all versions.
    params, state = run(optax.multi_transform(groups, {"bias": "frozen", "weight": "rprop"}))
    assert_follows_papers(make, params["weight"], state, GRADIENTS[:, 1:], values=VALUES[1:])
    assert params["bias"] == VALUES[0]

    groups = {"slow": make(0.001), "fast": make(0.1)}
    params, state = run(optax.multi_transform(groups, {"bias": "slow", "weight": "fast"}))
    with pytest.raises(ValueError, match="found 2 Rprop states"):
        optax_rprop.step_sizes(state)
    for group, leaf, columns in (("slow", "bias", slice(1)), ("fast", "weight", slice(1, None))):
        assert_follows_papers(
            make,
            params[leaf],
            state.inner_states[group],
            GRADIENTS[:, columns],
            values=VALUES[columns],
            learning_rate={"slow": 0.001, "fast": 0.1}[group],
        )


@every_kind
def test_multi_steps(make):
    """Each pair of micro-batches makes one step; the second one's call gets the mean loss."""
    # A NaN never leaves its sum again.
    halves = np.repeat(FINITE, 2, axis=0) * np.tile([[0.5], [1.5]], (STEPS, 1)).astype("f")
    ignored_then_mean = np.stack([LOSSES[::-1], LOSSES], axis=1).ravel()
    with loose_types():
        wrapped = optax.MultiSteps(make(), every_k_schedule=2)
        params, state = run(wrapped, gradients=halves, losses=ignored_then_mean)
    assert_follows_papers(make, params, state, FINITE)


@every_kind
def test_multi_steps_that_skips_what_is_not_finite(make):
    """What README says to do about a NaN: that micro-batch has never been."""
    finite = np.isfinite(GRADIENTS).all(axis=1)
    with loose_types():
        wrapped = optax.MultiSteps(make(), 1, should_skip_update_fn=optax.skip_not_finite)
        params, state = run(wrapped)
    assert_follows_papers(make, params, state, GRADIENTS[finite], LOSSES[finite])


@every_kind
def test_apply_if_finite(make):
    """A step with a gradient that is not finite has never been."""
    gradients = GRADIENTS.copy()
    gradients[::5, 0] = np.inf
    finite = np.isfinite(gradients).all(axis=1)
    params, state = run(optax.apply_if_finite(make(), 3), gradients=gradients)
    assert_follows_papers(make, params, state, GRADIENTS[finite], LOSSES[finite])


@every_kind
def test_flatten(make):
    params, state = run(optax.flatten(make()))
    assert_follows_papers(make, params, state)
    assert optax_rprop.step_sizes(state).shape == VALUES.shape


@every_kind
def test_conditionally_transform(make):
    """On the other steps it hands the gradient on; the mask behind it drops that."""
    mask = optax.conditionally_mask(optax.identity(), on_even_steps)
    params, state = run(optax.chain(optax.conditionally_transform(make(), on_even_steps), mask))
    assert_follows_papers(make, params, state, GRADIENTS[::2], LOSSES[::2])


@every_kind_but(*BOUNDED, *UNDOING)  # their parameters are the ones given, not z
def test_schedule_free(make):
    """Its sequence z is the base optimizer's own; the parameters are averages of it."""
    _, state = run(contrib.schedule_free(make(), learning_rate=0.01))
    assert_follows_papers(make, state.z, state)


@every_kind_but(*BOUNDED, *UNDOING)  # it multiplies updates that end at a bound or a point
def test_mechanize(make):
    """It learns a factor for the updates, and leaves the step sizes alone."""
    wrapped = contrib.mechanize(make())
    takes_loss = isinstance(wrapped, optax.GradientTransformationExtraArgs)
    if make in TAKE_LOSS and not takes_loss:
        pytest.skip("the mechanize of this older Optax keeps the loss to itself")
    with loose_types():
        _, state = run(wrapped, losses=LOSSES if takes_loss else None)
    _, plain = plain_run(make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(plain))
    assert_same_trees(optax_rprop.prev_signs(state), optax_rprop.prev_signs(plain))


@every_kind
def test_reduce_on_plateau(make):
    """The factor that it multiplies updates with is 1 for as long as it is patient."""
    with loose_types():
        patient = optax.chain(make(), contrib.reduce_on_plateau(patience=STEPS + 1))
        assert_follows_papers(make, *run(patient))


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


@every_kind_but(*TAKE_LOSS, *BOUNDED)  # it moves the parameters itself
def test_lookahead(make):
    params = optax.LookaheadParams.init_synced(tree(VALUES))
    with loose_types():
        _, state = run(optax.lookahead(make(), 5, 0.5), params, losses=None)
    _, plain = plain_run(make)
    assert_same_trees(optax_rprop.step_sizes(state), optax_rprop.step_sizes(plain))


@every_kind_without_loss
def test_sharpness_aware_minimization(make):
    """Every second gradient, the one at the disturbed point, is Rprop's."""
    with loose_types():
        sam = contrib.sam(make(), optax.sgd(0.1), sync_period=2)
        _, state = run(sam, losses=None)
    _, plain = run(make(), gradients=GRADIENTS[1::2], losses=LOSSES[1::2])
    assert_same_trees(optax_rprop.step_sizes(state.opt_state), optax_rprop.step_sizes(plain))


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
def test_tree_get(make):
    """The state's names are found, and hide none of those that a wrapper has."""
    # optax.tree.get and optax.tree.set, by the names that they have had in all versions.
    get = optax.tree_utils.tree_get
    _, state = run(optax.inject_hyperparams(make)())
    packed = get(state, "packed")
    assert_same_trees(
        optax_rprop.ScaleByRpropState(packed).step_sizes, optax_rprop.step_sizes(state)
    )
    assert get(state, "eta_plus") == np.float32(1.2)
    if make in NEED_LOSS:
        assert get(state, "prev_value") == LOSSES[-1]


@every_kind
def test_tree_set(make):
    """A hyperparameter set in the state holds from the next step on."""
    optimizer = optax.inject_hyperparams(make)()
    params, state = run(optimizer, gradients=GRADIENTS[:10], losses=LOSSES[:10])
    state = optax.tree_utils.tree_set(state, eta_plus=jnp.float32(2.0))
    params, state = run(optimizer, params, GRADIENTS[10:], LOSSES[10:], state)
    assert_same_trees(params, changed_run(make, "eta_plus", 2.0)[0], make)
    assert np.any(flat(params) != flat(plain_run(make)[0]))


@every_kind
def test_tree_map_params(make):
    """Every array shaped like the parameters is known as such, and the loss as none."""
    optimizer = make()
    state = optimizer.init(tree(VALUES))
    specs = {"bias": "one for the bias", "weight": "one for the weight"}
    mapped = optax.tree_map_params(
        optimizer,
        lambda _, spec: spec,
        state,
        specs,
        transform_non_params=lambda _: "no parameter",
    )
    inner, _ = mapped
    assert inner.packed == specs
    loss = "no parameter" if make in NEED_LOSS else None
    assert inner.prev_value == loss

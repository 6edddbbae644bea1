"""What every row runs: the optimizers, one stream of gradients, and the papers' answer to it.

Momentum and rprop_lbfgs are no paper's; their answers are those of references of their own, but
for rounding.

The losses rise and fall at random, so that irprop_plus follows the papers only
where every loss reaches it. Some of them and of the gradients are not finite.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_rprop
from helpers import reference, reference_lbfgs, reference_momentum, streams


def with_options(name, make, **options):
    """An optimizer with options switched on, under a name of its own."""
    made = functools.partial(make, **options)
    made.__name__, made.rule = name, make.__name__
    return made


def rule_of(make):
    return getattr(make, "rule", make.__name__)


def has_momentum(make):
    return rule_of(make) == "rprop_momentum"


def has_lbfgs(make):
    return rule_of(make) == "rprop_lbfgs"


def options_of(make):
    return getattr(make, "keywords", {})


PLAIN = [streams.make(name) for name in streams.OPTIMIZERS]
BOX = {"lower": -2.015, "upper": 2.015}
UNDOING = {"undo_nonfinite": True, **BOX}
# What a rule can be given: it reads the loss, the parameters and whether they are finite.
IN_A_BOX = with_options("irprop_plus_in_a_box", optax_rprop.irprop_plus, **UNDOING)
ALL_OPTIONS = with_options(
    "irprop_plus_with_all_options", optax_rprop.irprop_plus, step_dtype="bfloat16", **UNDOING
)
# It takes the loss, but does without.
UNDOING_IN_A_BOX = with_options("rprop_plus_in_a_box", optax_rprop.rprop_plus, **UNDOING)
MOMENTUM = optax_rprop.rprop_momentum
LBFGS_IN_A_BOX = with_options("rprop_lbfgs_in_a_box", optax_rprop.rprop_lbfgs, **BOX)


def parametrize(*optimizers):
    return pytest.mark.parametrize("make", optimizers, ids=lambda make: make.__name__)


# One without an option and one with all, which meets what each alone would meet; and one of each
# other state. Rules differ in the step of a leaf alone.
KINDS = [PLAIN[0], ALL_OPTIONS, MOMENTUM, LBFGS_IN_A_BOX]
every_kind = parametrize(*KINDS)

STEPS = 30
VALUES = np.linspace(-2, 2, 5, dtype=np.float32)
GRADIENTS = streams.gradients(STEPS, 5, np.float32, (-2, 2), special=False)
GRADIENTS[::7, 1] = GRADIENTS[5:9, 2] = 0
GRADIENTS[3::8, 3] = np.nan
FINITE = np.nan_to_num(GRADIENTS)
LOSSES = np.random.default_rng(1).standard_normal(STEPS).astype(np.float32)
LOSSES[4::9] = np.nan, np.inf, np.nan


def tree(rows):
    """Five weights, or rows of five, as a tree of parameters."""
    weight = rows[..., 1:].reshape(*rows.shape[:-1], 2, 2)
    return {"bias": jnp.asarray(rows[..., 0]), "weight": jnp.asarray(weight)}


def flat(tree):
    """The numbers in a tree, in order."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def run(optimizer, params=None, gradients=GRADIENTS, losses=LOSSES, state=None):
    """The parameters and the state after a compiled scan over gradients and losses."""
    params = tree(VALUES) if params is None else params
    gradients = tree(gradients) if isinstance(gradients, np.ndarray) else gradients
    given = (gradients,) if losses is None else (gradients, jnp.asarray(losses, float))
    state = optimizer.init(params) if state is None else state
    return scan(optimizer)((params, state), given)


@functools.lru_cache(maxsize=4)
def scan(optimizer):
    """One program for all runs of an optimizer that are as long."""

    def step(carry, given):
        params, state = carry
        gradient, *loss = given
        extra_args = {"value": loss[0]} if loss else {}
        updates, state = optimizer.update(gradient, state, params, **extra_args)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda start, given: jax.lax.scan(step, start, given)[0])


def trace_of(make, values, gradients, losses=LOSSES, **given):
    """The reference's weights, step sizes and signs after each step."""
    given = options_of(make) | given
    if has_momentum(make):
        return reference_momentum.run(values, gradients, **given)[:3]
    if has_lbfgs(make):
        # A loss that is not finite is a gradient that is not.
        rows = iter(np.where(np.isfinite(losses)[:, None], np.asarray(gradients, float), np.nan))
        with np.errstate(all="ignore"):
            trace = reference_lbfgs.run(
                lambda x: next(rows, x), np.asarray(values, float), len(losses) + 1, **given
            )
        return [trace[name][1:] for name in ("weights", "step_sizes", "signs")]
    return reference.run(rule_of(make), values, gradients, losses, **given)


def assert_follows_papers(
    make, params, state, gradients=GRADIENTS, losses=LOSSES, values=VALUES, **given
):
    """Weights, step sizes and signs, wherever in `state`, are the papers' to the last bit."""
    trace = trace_of(make, values, gradients, losses, **given)
    found = flat(params), flat(optax_rprop.step_sizes(state)), flat(optax_rprop.prev_signs(state))
    assert_equals(make, found, [part[-1] for part in trace])


def assert_equals(make, found, expected):
    """Arrays of the same bits; with momentum but for rounding.

    XLA may round a product and a sum at once, and another program may do so elsewhere: a few
    units in the last place of weights below 10, in each of 30 steps. L-BFGS solves for its moves,
    from pairs of random gradients, which here loses another digit or two.
    """
    for got, wanted in zip(found, expected, strict=True):
        if has_lbfgs(make):
            # L-BFGS amplifies rounding: here up to 1e-5, and to 5e-11 in float64 on 39 weights.
            rtol, atol = (1e-4, 1e-5) if got.dtype == np.float32 else (1e-7, 1e-7)
            np.testing.assert_allclose(got, wanted, rtol, atol)
        elif not has_momentum(make):
            streams.assert_same_bits(got, wanted)
        else:
            assert np.asarray(got).dtype == np.asarray(wanted).dtype
            tolerance = 100 * float(np.finfo(np.float32).eps)
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def assert_same_trees(actual, expected, make=optax_rprop.rprop):
    """Trees of the same structure and the same bits; with momentum but for rounding."""
    jax.tree.map(lambda *pair: assert_equals(make, pair[:1], pair[1:]), actual, expected)

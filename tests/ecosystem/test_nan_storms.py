"""Where gradients are NaN or infinite at random, training goes on."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conformance import NARROW, every_optimizer_but

import optax_rprop

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

SMALLEST, LARGEST = 2.0**-10, 8.0  # step sizes that every type holds exactly
# Few shapes, so that examples share the compiled updates of their leaves.
LEAVES = st.builds(
    jnp.zeros,
    st.sampled_from([(), (3,), (2, 2), (0,)]),
    st.sampled_from(["float32", "bfloat16", "float16", "complex64"]),
)
TREES = st.recursive(
    LEAVES,
    lambda trees: st.one_of(
        st.lists(trees, max_size=3),
        st.tuples(trees, trees),
        st.dictionaries(st.sampled_from("abc"), trees, max_size=3),
    ),
    max_leaves=4,
)


def parts(leaf):
    """The real arrays that a leaf is made of."""
    return [np.real(leaf), np.imag(leaf)] if jnp.iscomplexobj(leaf) else [np.asarray(leaf)]


def by_parts(function, tree):
    """The tree with `function` applied to all its real arrays."""

    def apply(leaf):
        changed = [function(part) for part in parts(leaf)]
        return jax.lax.complex(*changed) if len(changed) == 2 else changed[0]

    return jax.tree.map(apply, tree)


def reals(tree):
    """All real numbers of a tree."""
    arrays = [np.ravel(part) for leaf in jax.tree.leaves(tree) for part in parts(leaf)]
    return np.concatenate([np.zeros(0), *arrays], dtype=float)


def damaged(numbers, random):
    """Numbers of which one in five, at random, is NaN or infinite."""
    kinds = random.random(numbers.shape)
    damage = np.select([kinds < 0.1, kinds < 0.15, kinds < 0.2], [np.nan, np.inf, -np.inf], 0)
    return numbers + damage.astype(numbers.dtype)


@every_optimizer_but(NARROW)  # its parameters are not complex
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(params=TREES, seed=st.integers(0, 2**32 - 1))
def test_nan_storm(make, params, seed):
    """Thirty steps through a storm, and a hundred after it."""
    random = np.random.default_rng(seed)
    optimizer = make(0.125, min_step_size=SMALLEST, max_step_size=LARGEST)
    state = optimizer.init(params)
    for step in range(130):
        # Every number is on its way to 1, by the squared distance.
        gradients = by_parts(lambda part: part - part.dtype.type(1), params)
        loss = np.sum((reals(params) - 1) ** 2)
        if step < 30:
            gradients, loss = by_parts(lambda part: damaged(part, random), (gradients, loss))
        updates, state = optimizer.update(gradients, state, params, value=loss)
        params = optax.apply_updates(params, updates)
        step_sizes = reals(optax_rprop.step_sizes(state))
        assert np.isfinite(reals(params)).all()
        assert ((step_sizes >= SMALLEST) & (step_sizes <= LARGEST)).all()
    # Four numbers of bfloat16, the coarsest type here, which are 1/128 apart above 1.
    assert (np.abs(reals(params) - 1) < 4 / 128).all()

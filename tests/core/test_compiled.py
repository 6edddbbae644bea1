"""What a compiled step is made of: no clock, only what XLA reports of its own program.

The counts are those of the versions below; another XLA may fuse in another way.
"""

import os
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_rprop
from helpers import streams

VERSIONS = ("0.10.2", "0.12.0.1")
known = jax.__version__ in VERSIONS and jax.default_backend() == "cpu"
required = bool(os.environ.get("OPTAX_RPROP_REQUIRE_COMPILED"))  # where a skip would hide a change
pytestmark = pytest.mark.skipif(
    not known and not required, reason="read off these versions' CPU compilers"
)

WEIGHTS = 100_000
BOX = {"lower": -1.0, "upper": 1.0}


def compiled_step(optimizer, params):
    """A donated step, compiled, and the state that it takes."""

    def step(params, state, gradients, value):
        updates, state = optimizer.update(gradients, state, params, value=value)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    return jitted.lower(params, state, params, jnp.zeros(())).compile(), state


def loops_and_copies(compiled):
    """The fusions over whole arrays, and the copies of them."""
    entry = compiled.as_text().split("ENTRY ")[1]
    arrays = rf"= \w+\[{WEIGHTS}\]\S* "
    return len(re.findall(arrays + r"fusion\(", entry)), len(re.findall(arrays + r"copy\(", entry))


# name, type, options; bytes of state a weight; loops, copies; bytes read and written a weight.
# In float32 the minus rules read gradient and state and write the state, then read it and the
# parameter and write that: 6 * 4. That of Shark reads the gradient twice. The plus rules read the
# old state twice, from a copy: 9 * 4.
# With bounds both loops read all three arrays, and copies are made of two: 12 * 4.
# With undo_nonfinite there are two more arrays, and the question whether anything is NaN.
# With momentum the slope reads gradient and average, one loop writes each of the two states, and
# one reads what they wrote; both need the gradient's sign again: 14 * 4.
# So do complex weights, whose parts XLA computes again rather than read back: 9 * 8.
STEPS = [
    ("irprop_minus", "float32", {}, 4, (2, 0), 24),
    ("rprop_minus", "float32", {}, 4, (2, 0), 24),
    ("rprop_plus", "float32", {}, 4, (2, 1), 36),
    ("irprop_plus", "float32", {}, 4, (2, 1), 36),
    ("irprop_minus", "float32", {"undo_nonfinite": True}, 4, (6, 4), 124.26),
    ("shark_irprop_minus", "float32", {}, 4, (2, 0), 28),
    ("irprop_minus", "bfloat16", {}, 2, (2, 0), 12),
    ("irprop_minus", "float32", {"step_dtype": "bfloat16"}, 2, (2, 0), 18),
    ("rprop_plus", "float32", {"step_dtype": "bfloat16"}, 2, (2, 1), 26),
    ("irprop_plus", "float32", {"step_dtype": "bfloat16"}, 2, (2, 1), 26),
    ("irprop_minus", "float32", BOX, 4, (2, 2), 48),
    ("rprop_plus", "float32", BOX, 4, (2, 2), 48),
    ("irprop_plus", "float32", BOX, 4, (2, 2), 48),
    ("rprop_momentum", "float32", {}, 8, (3, 0), 56),
    ("irprop_minus", "complex64", {}, 8, (2, 1), 72),
]


@pytest.mark.parametrize(("name", "dtype", "options", "state", "passes", "accessed"), STEPS)
def test_bytes_loops_and_copies(name, dtype, options, state, passes, accessed):
    optimizer = streams.make(name)(0.01, **options)
    compiled, (made, _) = compiled_step(optimizer, jnp.zeros(WEIGHTS, dtype))
    kept = jax.tree.leaves((made.packed, made.average))
    assert sum(leaf.nbytes for leaf in kept) == state * WEIGHTS
    assert loops_and_copies(compiled) == passes
    # A few scalars come on top.
    assert accessed <= compiled.cost_analysis()["bytes accessed"] / WEIGHTS < accessed + 0.01


# With momentum and several leaves of one shape, XLA makes the slope's scale an array for them all.
@pytest.mark.parametrize(
    ("name", "leaves"), [("irprop_minus", 3), ("rprop_minus", 3), ("rprop_momentum", 1)]
)
def test_no_memory_is_needed_beside_the_arguments(name, leaves):
    params = [jnp.zeros(WEIGHTS) for _ in range(leaves)]
    compiled, _ = compiled_step(streams.make(name)(0.01), params)
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes < WEIGHTS  # less than one leaf's fourth
    assert memory.alias_size_in_bytes >= memory.output_size_in_bytes - 1000


@pytest.mark.parametrize("name", streams.WITH_MOMENTUM)
def test_a_leaf_is_traced_once_for_each_shape(name):
    """Three hundred leaves alike are one function, called three hundred times."""
    optimizer = streams.make(name)(0.01)
    params = {f"{i}": jnp.zeros(7 if i % 2 else 5) for i in range(300)}
    state = optimizer.init(params)
    text = jax.jit(optimizer.update).lower(params, state, value=0.0).as_text()
    for function in ["_move"] + ["_slope"] * (name == "rprop_momentum"):
        assert len(re.findall(rf"func\.func private @{function}", text)) == 2
        assert len(re.findall(rf"call @{function}", text)) == 300


@pytest.mark.parametrize("name", streams.WITH_MOMENTUM)
def test_nothing_is_computed_in_bfloat16(name):
    """A CPU has no such arithmetic: it would convert before and after every operation."""
    optimizer = streams.make(name)(0.01, step_dtype="bfloat16")
    params = jnp.zeros(3)
    text = jax.jit(optimizer.update).lower(params, optimizer.init(params), value=0.0).as_text()
    products = re.findall(r"stablehlo\.multiply .*: tensor<3x(\w+)>", text)
    assert products
    assert set(products) == {"f32"}


@pytest.mark.parametrize("shape", [(WEIGHTS,), (WEIGHTS // 50, 50)])
def test_lbfgs_writes_its_pairs_where_they_are(shape):
    """A pair takes a row of the ring that the step before wrote; no copy is made of a ring."""
    compiled, _ = compiled_step(optax_rprop.rprop_lbfgs(), jnp.zeros(shape))
    ring = f"f32[10,{','.join(map(str, shape))}]"
    assert ring in compiled.as_text()
    assert not re.search(rf"= {re.escape(ring)}\S* copy\(", compiled.as_text())
    # As much as eight arrays of the size of a weight, where a ring has ten.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 8.1 * WEIGHTS


def test_lbfgs_sums_over_devices_at_once():
    """All inner products in one, after a maximum."""
    devices = jax.sharding.Mesh(jax.devices("cpu")[:2], "rows")
    rows = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("rows"))
    params, optimizer = jax.device_put(jnp.zeros(WEIGHTS), rows), optax_rprop.rprop_lbfgs()
    text = jax.jit(optimizer.update).lower(params, optimizer.init(params)).compile().as_text()
    branches, entry = text.split("\nENTRY ")
    sent = [len(re.findall(r"all-reduce(?:-start)?\(", part)) for part in (branches, entry)]
    # Along the average of Rprop, for the trust region, for a diagonal, which this compiler makes
    # two, and for who is to blame.
    assert sent == [5, 2]
    assert not re.search(r"(?:all-gather|all-to-all|collective-permute)(?:-start)?\(", text)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax_rprop.rprop_lbfgs(),
        optax_rprop.rprop_momentum(undo_nonfinite=True),
        optax_rprop.irprop_plus(undo_nonfinite=True),
    ],
    ids=["rprop_lbfgs", "undoing momentum", "undoing irprop_plus"],
)
def test_no_leaf_asks_the_others(optimizer):
    """They are asked once: else compiling takes time with the square of the leaves."""
    params, update = [jnp.zeros(7)] * 20, jax.jit(optimizer.update)
    state = optimizer.init(params)
    text = update.lower(params, state, params, value=0.0).compile().as_text()
    of_leaves = re.findall(r"^%(?:fused|wrapped)\S* \((.*)\) -> f32\[7\] \{$", text, re.M)
    assert len(of_leaves) > len(params)
    assert max(given.count(": ") for given in of_leaves) < len(params)

"""What the TPU's compiler makes of a step, with no TPU: bytes, passes, memory, and what is sent.

It is compiled, not run. The figures are facts of the versions below: another compiler may fuse
in another way, and then they are to be read anew.
"""

import os
import re

import pytest

import compiled as accelerators
import optax_rprop

VERSIONS = [("0.10.2", "0.0.42.1"), ("0.12.0.1", "0.0.50.1")]  # of jax and libtpu

installed = tuple(accelerators.versions().get(name) for name in ("jax", "libtpu"))
if installed not in VERSIONS and not os.environ.get("OPTAX_RPROP_REQUIRE_TPU"):
    pytest.skip(f"jax and libtpu are {installed}, not {VERSIONS}", allow_module_level=True)
accelerators.prepare()

SHAPE = (40_000_000,)
RULES = ("irprop_minus", "rprop_minus", "irprop_plus", "rprop_plus")
BOX = {"lower": -1.0, "upper": 1.0}


def test_the_compiler_is_one_whose_figures_these_are():
    assert installed in VERSIONS


# Gradients, state and weights are read, the last two written: 5 * 4 bytes, in one pass. Momentum
# reads and writes an average, too, and before that, gradients and average for their slope.
CASES = [
    *((name, "float32", {}, 20) for name in RULES),
    ("irprop_plus", "float32", BOX, 20),
    ("irprop_minus", "float32", BOX, 20),
    ("irprop_minus", "float32", {"step_dtype": "bfloat16"}, 16),
    ("irprop_plus", "float32", {"step_dtype": "bfloat16"}, 16),
    ("irprop_minus", "bfloat16", {}, 10),
    ("rprop_momentum", "float32", {}, 36),
    ("rprop_momentum", "float32", BOX, 36),
    ("irprop_minus", "float32", {"undo_nonfinite": True}, 50),
]


@pytest.mark.parametrize(("name", "dtype", "options", "bytes_a_weight"), CASES)
def test_one_pass_and_no_memory(name, dtype, options, bytes_a_weight):
    optimizer = getattr(optax_rprop, name)(0.01, **options)
    compiled = accelerators.compile_step(optimizer, SHAPE, accelerators.one("v5e"), dtype)
    figures = accelerators.figures(compiled, SHAPE)
    # Whether anything is NaN is asked first; the last point and the marks come on top.
    assert (figures["fusions"], figures["copies"]) == (1 + ("undo_nonfinite" in options), 0)
    # A few scalars come on top.
    assert bytes_a_weight <= figures["bytes"] < bytes_a_weight + 0.01
    assert figures["temporary"] < 0.01


# Arguments are weights, gradients and state; for momentum an average, too, and its slope is sent.
@pytest.mark.parametrize(
    ("name", "arrays", "sums"), [*((name, 3, 0) for name in RULES), ("rprop_momentum", 4, 1)]
)
def test_256_chips_send_no_array(name, arrays, sums):
    sharding, shape = accelerators.over_256_chips(), (32_768, 16_384)
    optimizer = getattr(optax_rprop, name)(0.01)
    compiled = accelerators.compile_step(optimizer, shape, sharding)
    assert len(re.findall(accelerators.COLLECTIVE, compiled.as_text())) == sums
    assert len(re.findall(r"= f32\[\]\S* all-reduce\(", compiled.as_text())) == sums
    memory = compiled.memory_analysis()
    a_chip = 4 * shape[0] * shape[1] // 256
    assert 0 <= memory.argument_size_in_bytes - arrays * a_chip < 10_000
    assert memory.temp_size_in_bytes < (a_chip / 10 if sums else 100_000)
    weights, (state, _) = compiled.output_shardings
    assert weights.is_equivalent_to(sharding, 2)
    assert state.packed.is_equivalent_to(sharding, 2)


def test_lbfgs_copies_no_pairs():
    """They are ten arrays each, written where they are."""
    optimizer = optax_rprop.rprop_lbfgs()
    compiled = accelerators.compile_step(optimizer, SHAPE, accelerators.one("v5e"))
    text = compiled.as_text()
    ring = re.escape(f"f32[10,{SHAPE[0]}]")
    assert re.search(ring, text)
    assert not re.search(rf" = [^=]*{ring}[^=]* copy(?:-start)?\(", text)
    # Less than one ring, which a copy of either would take.
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 10 * SHAPE[0]


def test_lbfgs_sums_over_256_chips_at_once():
    """All inner products in one, after a maximum. Of the branches, of which one or two are taken:
    along the average of Rprop, for the trust region, for a diagonal, and for who is to blame."""
    sharding = accelerators.over_256_chips()
    compiled = accelerators.compile_step(optax_rprop.rprop_lbfgs(), (32_768, 16_384), sharding)
    branches, entry = compiled.as_text().split("\nENTRY ")
    sent = [re.findall(accelerators.COLLECTIVE, part) for part in (branches, entry)]
    assert sent == [[" all-reduce("] * 4, [" all-reduce("] * 2]

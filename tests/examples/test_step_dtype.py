"""bfloat16 step sizes: half the state, the same number of steps, the same bits every time."""

import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import optax_rprop

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = ("irprop_minus", "irprop_plus")
DIGITS = [f"digits, loss {mark}" for mark in ("1e-1", "1e-2", "1e-4")]
QUADRATIC = "quadratic, loss 1e-6"


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("step_dtype", "--no-plot")


@pytest.fixture
def step_dtype(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("step_dtype")


def test_state_is_halved(example):
    figures, _ = example
    assert figures["state_bytes"] == {"float32": 4, "bfloat16": 2}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("problem", DIGITS)
def test_digits_take_the_same_steps_within_one(example, problem, rule):
    found = example[0]["steps"][problem][rule]
    for ratio in (found["lowest_ratio"], found["highest_ratio"]):
        # Runs take within one step of the median, so one step of a run is this at most.
        assert abs(ratio - 1) <= 1 / (found["float32"] - 1)
    # A half of the runs may take that one step.
    assert abs(found["mean_ratio"] - 1) <= 0.5 / (found["float32"] - 1)


@pytest.mark.parametrize("rule", RULES)
def test_mean_ratio_on_the_quadratic_is_one(example, rule):
    found = example[0]["steps"][QUADRATIC][rule]
    # The spread of single runs, about 0.1, over the root of a hundred.
    assert 0.005 < found["standard_error"] < 0.02
    # Four standard errors: another compiler's rounding draws the runs anew.
    assert abs(found["mean_ratio"] - 1) < 0.04
    assert found["lowest_ratio"] < 1 < found["highest_ratio"]


def test_bits_are_reproduced(example):
    figures, output = example
    expected = {"repeated": True, "operation_by_operation": True}
    assert figures["same_bits"] == dict.fromkeys(RULES, expected)
    assert "OTHER BITS" not in output


def test_the_figures_are_printed(example):
    figures, output = example
    lines = [line.split() for line in output.splitlines()]
    for problem in (*DIGITS, QUADRATIC):
        for rule in RULES:
            found = figures["steps"][problem][rule]
            medians = [f"{found[step_dtype]:g}" for step_dtype in ("float32", "bfloat16")]
            mean = [f"{found['mean_ratio']:.3f}", "±", f"{found['standard_error']:.3f}"]
            extremes = f"{found['lowest_ratio']:.2f}-{found['highest_ratio']:.2f}"
            assert [*problem.split(), rule, *medians, *mean, extremes] in lines


def test_other_bits_are_seen(step_dtype):
    start = jnp.ones(3)
    losses, gradients = jnp.ones(2), jnp.ones((2, 3))
    ends = [
        step_dtype.replay(optax_rprop.rprop(step_dtype=name), start, losses, gradients)
        for name in ("bfloat16", "bfloat16", "float32")
    ]
    assert step_dtype.same_bits(ends[0], ends[1])
    assert not step_dtype.same_bits(ends[0], ends[2])
    assert not step_dtype.same_bits(jnp.zeros(1), -jnp.zeros(1))


def test_steps_to_a_mark(step_dtype):
    losses = np.array([[3.0, 0.1, 0.2], [3.0, 2.0, 1.0]])
    np.testing.assert_array_equal(step_dtype.steps_to(0.1, losses), [1, np.nan])


def test_comparison_is_of_pairs(step_dtype):
    counts = {"float32": np.array([10.0, 20, 40]), "bfloat16": np.array([20.0, 20, 20])}
    found = step_dtype.compare(counts)
    # The logarithms of 2, 1 and 1/2: their mean is 0, their standard deviation log(2).
    assert found == {
        "float32": 20,
        "bfloat16": 20,
        "mean_ratio": pytest.approx(1),
        "standard_error": pytest.approx(np.log(2) / np.sqrt(3)),
        "lowest_ratio": 0.5,
        "highest_ratio": 2,
    }

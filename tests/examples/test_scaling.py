"""Rprop's paths are one path, whatever the loss is multiplied by."""

import pytest

SCALES = ["1e-30", "0.01", "1", "100", "1e+30"]
RULES = ["irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus"]


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("scaling", "--no-plot")


@pytest.mark.parametrize("rule", RULES)
def test_the_scale_changes_no_bit_of_rprops_path(example, rule):
    figures, _ = example
    assert figures["differences"][rule] == 0
    assert list(figures["ends"][rule]) == SCALES
    assert len(set(figures["ends"][rule].values())) == 1


@pytest.mark.parametrize("rule", RULES)
def test_rprop_finds_the_minimum(example, rule):
    figures, _ = example
    # A few times the default min_step_size, 1e-6: the floor on Rprop's accuracy.
    assert abs(figures["ends"][rule]["1"]) < 5e-6


def test_gradient_descent_works_at_one_scale_alone(example):
    figures, _ = example
    ends = figures["ends"]["sgd"]
    assert abs(ends["1"]) < 1e-6
    assert ends["1e-30"] == 4.0  # steps of 1e-30 are lost to rounding
    # The slope |2 x + 3 sin(2 x)| is at most 11 here: 80 steps of 0.1 * 0.01 * 11 go 0.88 at most.
    assert 4 - 0.88 <= ends["0.01"] < 4
    # Where x is far from 0 a step multiplies it by 1 - 0.1 * 100 * 2 = -19, nearly.
    assert abs(ends["100"]) > 1e80
    assert ends["1e+30"] is None  # inf, then NaN


def test_the_figures_are_printed(example):
    figures, output = example
    row = "".join(f"{figures['ends']['irprop_plus'][scale]:12.2g}" for scale in SCALES)
    assert f"irprop_plus   {row}" in output
    assert f"irprop_plus   {0:12g}\n" in output

"""Mini-batches: every Rprop drifts and stalls, the optimizers made for them do not."""

import numpy as np
import pytest
import reference

RULES = ["irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus"]
OTHERS = ["rmsprop", "adagrad", "adam"]


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("minibatch", "--no-plot")


def reference_drift(rule):
    gradients = [0.1] * 9 + [-0.9]
    weight = reference.Weight(
        np.float32(0), reference.Hyperparameters.of_type(np.float32, learning_rate=0.1)
    )
    losses = reference.Losses(np.float32)
    for gradient in np.float32(gradients * 20):
        rose = losses.rose(gradient * weight.value)
        weight.update(rule, gradient, rose)
    return weight.value


@pytest.mark.parametrize("rule", RULES)
def test_rprop_drifts_as_the_reference_does(example, rule):
    figures, output = example
    drift = figures["stream"][rule]
    assert drift == reference_drift(rule)
    assert drift < -80
    assert f"{rule:14}{drift:12.4g}\n" in output


def test_sgd_stays_and_rmsprop_repairs_the_drift(example):
    stream = example[0]["stream"]
    # 200 sums of numbers below 0.1, each rounded to float32.
    assert abs(stream["sgd"]) < 200 * 0.1 * 2**-24
    # Every gradient's sign by the learning rate would drift by 0.1 * (9 - 1) * 20.
    for name in OTHERS:
        assert abs(stream[name]) < 16 / 5


@pytest.mark.parametrize("rule", RULES)
def test_rprop_needs_the_full_batch(example, rule):
    digits = example[0]["digits"]
    *batches, everything = digits[rule]
    assert batches == ["32", "128", "512"]
    best_other = min(digits[name][everything]["loss"] for name in OTHERS)
    # Tenfold: far more than a training's chance (another start, other batches) can change.
    assert digits[rule][everything]["loss"] < best_other / 10
    for batch in batches:
        assert digits[rule][batch]["loss"] > 2 * digits["adam"][batch]["loss"]
        assert digits[rule][batch]["loss"] > 100 * digits[rule][everything]["loss"]


def test_the_others_do_not_need_it(example):
    digits = example[0]["digits"]
    everything = list(digits["adam"])[-1]
    for name in OTHERS:
        # From 512 scans to all they gain less than a factor 10, where Rprop gains over 100.
        assert digits[name]["512"]["loss"] < 10 * digits[name][everything]["loss"]


def test_the_figures_are_printed(example):
    figures, output = example
    for name, of_sizes in figures["digits"].items():
        cells = [f"{found['loss']:.1e} ({found['accuracy']:.1%})" for found in of_sizes.values()]
        row = next(row for row in output.splitlines() if row.startswith(name) and "%" in row)
        assert row.split(maxsplit=1)[1].split("   ") == cells


def test_the_best_learning_rates_lie_inside_the_grid(example):
    for name in OTHERS:
        for found in example[0]["digits"][name].values():
            assert 0.001 < found["learning_rate"] < 1

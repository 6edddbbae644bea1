import math

import pytest

OTHERS = ("adam", "sgd, momentum 0.9", "rmsprop")


@pytest.fixture(scope="module")
def figures(run_example):
    return run_example("sweep", "--no-plot")[0]


def test_all_usual_choices_arrive_soon(figures):
    usual = figures["usual"]
    # The slowest pair takes 6 times as long as the fastest, with first steps up to 1e5 times apart.
    assert 0 < usual["least"] <= usual["most"] < 8 * usual["least"]


def test_most_pairs_arrive(figures):
    # The rest are the corner where both choices are too large.
    assert figures["pairs"]["of"] == 13 * 9
    assert figures["pairs"]["arrived"] > 0.8 * figures["pairs"]["of"]


def test_a_smaller_first_step_costs_the_time_to_grow(figures):
    iterations = figures["irprop_minus"]["iterations"]
    # From 1e-5 to 1e-3 the network hardly moves, and each iteration multiplies the step by 1.2.
    growth = math.log(100) / math.log(1.2)
    # Both counts are medians of whole numbers, and the last of them is not a whole step.
    assert iterations[0] - iterations[4] == pytest.approx(growth, abs=3)


@pytest.mark.parametrize("name", OTHERS)
def test_learning_rates_must_be_found(figures, name):
    # Rprop arrives with all first steps but the largest, 10.
    assert figures["irprop_minus"]["arrived"] == 12
    assert figures[name]["arrived"] <= 6
    assert figures[name]["within_twice"] < figures["irprop_minus"]["within_twice"]


@pytest.mark.parametrize("name", OTHERS)
def test_every_method_arrives_somewhere(figures, name):
    assert figures["irprop_minus"]["best"] < figures[name]["best"] < 100


def test_tuned_sgd_comes_near(figures):
    assert figures["sgd, momentum 0.9"]["best"] < 2 * figures["irprop_minus"]["best"]

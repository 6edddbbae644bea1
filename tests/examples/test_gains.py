"""Gains lower the loss of RMSprop and Adam on mini-batches, and do not drift more than RMSprop."""

import pytest

DIRECTIONS = ["rmsprop", "adam"]
TASKS = ["digits", "breast cancer", "diabetes"]
LEARNING_RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("gains", "--no-plot")


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("task", TASKS)
def test_gains_lower_the_loss(example, task, direction):
    of_gains = example[0]["losses"][task][direction]
    for gains in ("with gains", "longer average"):
        assert of_gains[gains]["loss"] < of_gains["alone"]["loss"]


@pytest.mark.parametrize("task", ["digits", "breast cancer"])
def test_hintons_factor_does_so_for_rmsprop_alone(example, task):
    """Why it is not the default."""
    losses = {name: example[0]["losses"][task][name] for name in DIRECTIONS}
    assert losses["rmsprop"]["Hinton's factor"]["loss"] < losses["rmsprop"]["alone"]["loss"]
    assert losses["adam"]["Hinton's factor"]["loss"] > losses["adam"]["alone"]["loss"]


def test_the_best_learning_rates_lie_inside_the_grid(example):
    for of_directions in example[0]["losses"].values():
        for of_gains in of_directions.values():
            for best in of_gains.values():
                assert LEARNING_RATES[0] < best["learning_rate"] < LEARNING_RATES[-1]


def test_gains_do_not_drift_more_than_rmsprop(example):
    """After their start: gains grow in the first nine gradients, as all agree."""
    rmsprop = example[0]["stream"]["rmsprop"]
    assert abs(rmsprop["with gains"]["50"]) > abs(rmsprop["alone"]["50"])
    for count in ("200", "1000"):
        assert abs(rmsprop["with gains"][count]) < abs(rmsprop["alone"][count])
        # And what the documentation says against a longer average.
        assert abs(rmsprop["longer average"][count]) > abs(rmsprop["alone"][count])


def test_the_figures_are_printed(example):
    figures, output = example
    for direction in DIRECTIONS:
        for gains in figures["losses"]["digits"][direction]:
            losses, weights = (
                row for row in output.splitlines() if row.startswith(f"{direction}, {gains} ")
            )
            for task in TASKS:
                best = figures["losses"][task][direction][gains]
                assert f"{best['loss']:.4f}" in losses
                assert f"({best['learning_rate']:g})" in losses
            assert [float(x) for x in weights.split()[-3:]] == [
                round(x, 3) for x in figures["stream"][direction][gains].values()
            ]

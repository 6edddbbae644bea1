"""The digits network: Rprop is first, with any first step size, and the table says so."""

import importlib
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
OURS = ["irprop_minus", "irprop_plus"]
OTHERS = ["optax.rprop", "adam", "rmsprop", "sgd"]


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("digits", "--no-plot")


@pytest.fixture
def digits(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("digits")


def test_rprop_is_first(example):
    figures, _ = example
    assert list(figures) == OURS + OTHERS
    assert figures["irprop_minus"]["steps"]["1e-4"] <= 30
    for name in ["adam", "rmsprop", "sgd"]:
        assert figures["irprop_minus"]["steps"]["1e-4"] < figures[name]["steps"]["1e-4"]


def test_only_rprop_gets_there_with_every_learning_rate(example):
    figures, _ = example
    for name in OURS:
        # Its slowest run is still ahead of most runs of the others.
        assert max(figures[name]["steps_of_every_run"]) < 100
    for name in ["adam", "rmsprop", "sgd"]:
        assert None in figures[name]["steps_of_every_run"]


def test_the_grid_is_fair(example):
    figures, _ = example
    for found in figures.values():
        assert 0.001 < found["learning_rate"] < 10
        assert found["steps"]["1e-4"] == min(n for n in found["steps_of_every_run"] if n)


def test_the_network_reads_digits_that_it_never_saw(example):
    figures, _ = example
    for found in figures.values():
        # Guessing is right in a tenth of the cases.
        assert 0.9 < found["accuracy_at_mark"] <= 1
        assert 0.9 < found["accuracy_at_end"] <= 1


def test_the_figures_are_printed(example):
    figures, output = example
    for name, found in figures.items():
        row = next(line.split() for line in output.splitlines() if line.startswith(f"{name} "))
        assert row[1:5] == [f"{n:g}" for n in (found["learning_rate"], *found["steps"].values())]
        assert row[5] == f"{found['accuracy_at_mark']:.1%}"
        assert row[6] == f"{found['accuracy_at_end']:.1%}"
        reached = [n for n in found["steps_of_every_run"] if n]
        share = f"{len(reached)} of 9 ({min(reached)} to {max(reached)})"
        assert " ".join(row[7:]) == share


def test_one_optimizer_alone(run_example, tmp_path):
    plot = tmp_path / "new" / "plot.svg"
    arguments = "--steps", "2", "--seed", "1", "--plot", str(plot)
    figures, output = run_example("digits", "--optimizer", "rprop_plus", *arguments)
    assert list(figures) == ["rprop_plus"]
    assert figures["rprop_plus"]["steps"] == {"1e-1": None, "1e-2": None, "1e-4": None}
    assert figures["rprop_plus"]["accuracy_at_mark"] is None
    assert "sgd" not in output
    assert ">2" in output
    assert "<svg" in plot.read_text()


def test_steps_to_a_mark(digits):
    losses = np.array([3.0, 0.1, 0.2, 1e-3])
    assert digits.steps_to(losses, 0.1) == 1
    assert digits.steps_to(losses, 0.01) == 3
    assert digits.steps_to(losses, 1e-4) is None


def test_the_best_run_is_first_at_the_last_mark(digits):
    late, early, diverged = (
        [3.0, 0.1, 0.1, 1e-4],
        [3.0, 1.0, 1e-4, 1e-4],
        [3.0, 0.1, np.nan, np.nan],
    )
    assert digits.best_run(np.array([late, diverged, early]).T) == 2
    # Equal at the last mark: the one before decides. No mark at all: the last loss.
    assert digits.best_run(np.array([[3.0, 1.0, 1e-4], [3.0, 1e-2, 1e-4]]).T) == 1
    assert digits.best_run(np.array([[3.0, np.nan], [3.0, 2.0], [3.0, 2.5]]).T) == 1


def test_the_summary_is_of_the_best_run(digits):
    losses = np.array([[3.0, 3.0], [0.1, 1.0], [0.1, 1e-5], [1e-5, 0.5]])
    accuracies = np.array([[0.0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.6, 0.7]])
    assert digits.summary(losses, accuracies) == {
        "learning_rate": digits.LEARNING_RATES[1],
        "steps": {"1e-1": 2, "1e-2": 2, "1e-4": 2},
        "accuracy_at_mark": 0.5,
        "accuracy_at_end": 0.7,
        "steps_of_every_run": [3, 2],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps 0", "argument --steps: '0' is no whole number from 1"),
        ("--steps x", "argument --steps: 'x' is no whole number from 1"),
        ("--seed -1", "argument --seed: '-1' is no whole number from 0"),
        ("--seed 4294967296", "argument --seed: '4294967296' is no whole number from 0"),
        ("--optimizer foo", "argument --optimizer: invalid choice: 'foo' (choose from"),
        ("--optimizer", "argument --optimizer: expected at least one argument"),
        ("--plot digits.foo", "argument --plot: cannot write digits.foo: end its name in .png"),
        ("--plot /dev/null/digits.png", "argument --plot: cannot write /dev/null/digits.png"),
    ],
)
def test_bad_arguments_are_refused_before_the_training(digits, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        digits.main(arguments.split())
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err.splitlines()[-1]
    assert printed.out == ""

"""Several processes train as one does."""

import importlib
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import reference

EXAMPLES = Path(__file__).parents[2] / "examples"
OPTIMIZERS = ["irprop_minus", "irprop_plus"]


@pytest.fixture(scope="module")
def train(run_example):
    def run(data, optimizer, processes):
        figures, output = run_example(
            "data_parallel",
            *("--data", data, "--optimizer", optimizer, "--processes", str(processes)),
        )
        assert figures["same"]
        assert len(figures["losses"]) == 20
        for step, loss in enumerate(figures["losses"]):
            # From process 0 alone: every line comes once.
            assert output.count(f"step {step:>4}   loss {loss:.8f}\n") == 1
        return figures

    return run


@pytest.fixture
def data_parallel(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("data_parallel")


def reference_losses(rule, problem, steps):
    """The losses of the linear model in NumPy, on the whole batch; nothing of it is rounded."""
    hyperparameters = reference.Hyperparameters.of_type(np.float32, **problem.hyperparameters)
    weights = [reference.Weight(value, hyperparameters) for value in problem.params]
    memory = reference.Losses(np.float32)
    losses = []
    for _ in range(steps):
        errors = problem.inputs @ np.array([weight.value for weight in weights]) - problem.targets
        losses.append(np.mean(errors**2))
        gradient = 2 * errors @ problem.inputs
        rose = memory.rose(losses[-1])
        for weight, component in zip(weights, gradient, strict=True):
            weight.update(rule, component, rose)
    return losses


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_processes_change_no_bit_where_sums_are_exact(train, data_parallel, optimizer):
    one, two, three = (train("dyadic", optimizer, processes) for processes in (1, 2, 3))
    assert one == two == three
    assert one["losses"] == reference_losses(optimizer, data_parallel.dyadic(seed=0), 20)
    # A rise among them, so that irprop_plus has stepped back.
    assert min(np.diff(one["losses"])) < 0 < max(np.diff(one["losses"]))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_processes_train_the_digits_network_alike(train, optimizer):
    one, two = (train("digits", optimizer, processes)["losses"] for processes in (1, 2))
    # Sums of 1,437 rows in another order differ by some 1e-7; a sign that this changes, where a
    # gradient is almost zero, moves one weight of thousands by a small step.
    np.testing.assert_allclose(two, one, rtol=1e-4)
    assert one[-1] < one[0] / 1000


def fail_or_wait(process, failing, waited):
    if process == failing:
        os._exit(1)
    time.sleep(60)
    waited.touch()


@pytest.mark.parametrize(
    ("failing", "timeout", "message"),
    [(1, 300, "process 1 failed"), (None, 1, "not done after 1 seconds")],
)
def test_a_failure_and_the_timeout_end_all_processes(
    data_parallel, tmp_path, failing, timeout, message
):
    waited = tmp_path / "waited"
    with pytest.raises(SystemExit, match=f"{message}; all processes were ended"):
        data_parallel.launch(fail_or_wait, 3, timeout, failing, waited)
    assert multiprocessing.active_children() == []
    assert not waited.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--processes 0", "argument --processes: '0' is no whole number from 1"),
        ("--optimizer adam", "argument --optimizer: invalid choice: 'adam' (choose from"),
        ("--data foo", "argument --data: invalid choice: 'foo' (choose from"),
    ],
)
def test_bad_arguments_are_refused(data_parallel, capsys, arguments, message):
    with pytest.raises(SystemExit):
        data_parallel.main(arguments.split())
    assert message in capsys.readouterr().err

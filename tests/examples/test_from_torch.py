"""What torch's users would see: the same numbers, and the arguments that give them."""

import inspect
import os
import re

import pytest


@pytest.fixture(scope="module")
def example(run_example):
    return run_example("from_torch", "--no-plot")


def test_the_line_is_learned(example):
    figures, output = example
    # Five standard errors: of w 0.1 / (10 * sqrt(1/3)) = 0.0173, of b 0.1 / 10 = 0.01.
    assert abs(figures["weight"] - 2) < 0.087
    assert abs(figures["bias"] - 3) < 0.05
    assert f"y = {figures['weight']:.6f} x + {figures['bias']:.6f}" in output


@pytest.mark.parametrize("name", ["line", "layer"])
def test_training_reaches_the_least_squares_solution(example, name):
    figures, _ = example
    # A few times min_step_size, 1e-6: the floor on Rprop's accuracy.
    assert figures["errors"][name] < 5e-6


@pytest.mark.parametrize("name", ["line", "layer"])
def test_torch_takes_the_same_path(example, name):
    pytest.importorskip("torch")
    figures, output = example
    assert figures["differences"][name] == 0
    assert f"{name}: the largest difference from torch, in any epoch, is 0\n" in output


def test_every_argument_of_torch_has_its_counterpart(example):
    torch = pytest.importorskip("torch")
    table = example[1].split("\n\n")[0]
    named = {word for row in table.splitlines() for word in re.findall(r"\w+", row[:40])}
    assert named >= inspect.signature(torch.optim.Rprop).parameters.keys()


def test_it_runs_without_torch(run_example, example, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('blocked')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    figures, output = run_example("from_torch", "--no-plot")
    assert "torch is not installed" in output
    assert figures == {**example[0], "differences": {}}

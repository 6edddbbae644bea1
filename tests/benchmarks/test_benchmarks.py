"""Every benchmark runs on a small problem, and what it finds there is what others found."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RULES = ("irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus")
# Compiling takes most of the time: XLA optimizes less, PyTorch does not compile. One device.
ENVIRONMENT = os.environ | {
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "JAX_ENABLE_X64": "0",
    "TORCH_COMPILE_DISABLE": "1",
}


@pytest.fixture
def run(tmp_path):
    """`run(name, *arguments)` gives the numbers that a benchmark writes, and what it prints."""

    def run(name, *arguments):
        written, plot = tmp_path / "numbers.json", tmp_path / "plot.png"
        script = BENCHMARKS / f"{name}.py"
        ran = subprocess.run(
            [sys.executable, "-W", "error", script, *arguments, "--json", written, "--plot", plot],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ran.returncode == 0, ran.stderr
        assert plot.read_bytes().startswith(b"\x89PNG")
        return json.loads(written.read_text()), ran.stdout

    return run


def test_step_time(run):
    numbers, printed = run("step_time", "--cases", "tiny", "--turns", "1", "--torch-timeout", "120")
    tiny = numbers["tiny"]
    state = {name: own["state_bytes_per_weight"] for name, own in tiny.items()}
    assert [state[name] for name in (*RULES, "sgd, momentum")] == [4] * 5
    assert (state["irprop_minus, bfloat16"], state["sgd"]) == (2, 0)
    assert (state["optax.rprop"], state["adam"]) == (8, 8)
    for name, own in tiny.items():
        assert own["seconds"] > 0
        assert f"\n{name} " in printed
    assert tiny["irprop_minus"]["trace_seconds"] > 0 < tiny["irprop_minus"]["compile_seconds"]
    for name in ("torch foreach", "torch compiled"):
        assert (name in tiny) is (importlib.util.find_spec("torch") is not None)


def test_accelerators(run):
    sizes = ("--weights", "1000", "--leaves", "2", "--leaf-size", "100")
    numbers, printed = run("accelerators", *sizes, "--turns", "1", "--bits", "20")
    assert printed.count("no bit differs") == 5
    assert len(numbers) == 2
    assert all(seconds > 0 for found in numbers.values() for seconds in found.values())


def test_step_dtype(run):
    numbers, printed = run("step_dtype", "--networks", "2", "--quadratics", "10")
    for name in ("irprop_minus", "irprop_plus"):
        # The spread of single runs is about 0.1; four standard errors of ten.
        assert abs(numbers[f"quadratic, loss 1e-6, {name}"]["mean_ratio"] - 1) < 0.13
        assert abs(numbers[f"digits, loss 1e-4, {name}"]["mean_ratio"] - 1) < 0.2
    assert printed.count("±") == 6


def test_gains(run):
    numbers, _ = run("gains", "--steps", "60", "--seeds", "1")
    drifts = {name: abs(np.array(own["drift"])) for name, own in numbers.items()}
    assert np.all(drifts["rmsprop, with gains"] < drifts["rmsprop, alone"])
    assert np.all(drifts["rmsprop, longer average"] > drifts["rmsprop, alone"])
    for task in ("digits", "breast cancer", "diabetes"):
        assert numbers["rmsprop, with gains"][task] < numbers["rmsprop, alone"][task]


def test_batch_sizes(run):
    numbers, _ = run("batch_sizes", "--steps", "60")
    for name in RULES:
        *of_batches, of_all = numbers[name]["losses"]
        assert of_all < numbers["adam"]["losses"][-1] / 2
        assert min(of_batches) > 10 * of_all
        assert min(of_batches) > numbers["adam"]["losses"][2]

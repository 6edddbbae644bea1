"""Every benchmark runs on a small problem, and what it finds there is what others found."""

import importlib.util
import json

import pytest

RULES = ("irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus")
# Compiling takes most of the time: XLA optimizes less, PyTorch does not compile. One device.
ENVIRONMENT = {
    "XLA_FLAGS": "--xla_backend_optimization_level=1",
    "JAX_ENABLE_X64": "0",
    "TORCH_COMPILE_DISABLE": "1",
    "PYTHONPATH": "benchmarks",  # where a script finds what lies beside it
}


@pytest.fixture
def run(run_in_turn, tmp_path):
    """`run(name, *arguments)` gives the numbers that a benchmark writes, and what it prints."""

    def run(name, *arguments):
        written = tmp_path / "numbers.json"
        told = "--json", written, *arguments
        (printed,) = run_in_turn(f"{name}.py", told, flags=("-W", "error"), **ENVIRONMENT)
        return json.loads(written.read_text()), printed

    return run


def test_step_time(run):
    numbers, printed = run("step_time", "--cases", "tiny", "--turns", "1")
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


def test_compiled(run):
    """A donated step of optax.sgd reads gradients and weights, and writes weights."""
    numbers, printed = run("compiled", "--devices", "cpu")
    sgd = numbers["cpu"]["sgd"]
    assert (sgd["fusions"], sgd["copies"], sgd["collectives"]) == (1, 0, 0)
    assert sgd["bytes"] == pytest.approx(12, abs=0.01)
    assert sgd["peak"] == pytest.approx(8, abs=0.01)
    assert all(f"\n{name} " in printed for name in numbers["cpu"])


def test_mini_batches(run):
    numbers, _ = run("mini_batches", "--steps-by-size", "60", "--steps", "60", "--seeds", "1")
    sizes = {name: list(losses.values()) for name, losses in numbers["by_size"].items()}
    *of_batches, of_all = sizes["irprop_minus"]
    assert of_all < sizes["adam"][-1] / 2
    assert min(of_batches) > 10 * of_all
    assert min(of_batches) > sizes["adam"][2]
    for task in ("digits", "breast cancer", "diabetes"):
        assert numbers["gains"]["rmsprop, gains"][task] < numbers["gains"]["rmsprop"][task]

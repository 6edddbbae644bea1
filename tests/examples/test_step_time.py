"""The benchmark runs and reports; its clock is not tested."""

import importlib.util
import json

import pytest

OURS = ("irprop_minus", "irprop_plus", "rprop_plus", "rprop_minus")


@pytest.fixture(scope="module")
def example(run_example, tmp_path_factory):
    directory = tmp_path_factory.mktemp("step_time")
    json_path, plot = directory / "figures.json", directory / "plot.png"
    figures, output = run_example(
        "step_time",
        "--cases",
        "tiny",
        "--turns",
        "1",
        "--json",
        str(json_path),
        "--plot",
        str(plot),
    )
    return figures, output, json_path, plot


def test_state_bytes_are_counted(example):
    tiny = example[0]["tiny"]
    for name in (*OURS, "momentum"):
        assert tiny[name]["state_bytes_per_weight"] == 4
    assert tiny["irprop_minus, bfloat16"]["state_bytes_per_weight"] == 2
    assert tiny["optax.rprop"]["state_bytes_per_weight"] == 8
    assert tiny["adam"]["state_bytes_per_weight"] == 8
    assert tiny["sgd"]["state_bytes_per_weight"] == 0


def test_every_contender_has_its_figures(example):
    for figures in example[0]["tiny"].values():
        assert figures["seconds"] > 0
    for name in OURS:
        assert {"trace_seconds", "compile_seconds", "eager_seconds"} <= set(
            example[0]["tiny"][name]
        )


def test_torch_is_there_when_it_is_installed(example):
    """Its default; whether it compiles within the time given is for the machine to say."""
    installed = importlib.util.find_spec("torch") is not None
    assert ("torch foreach" in example[0]["tiny"]) is installed


def test_what_is_printed_and_saved(example):
    figures, output, json_path, plot = example
    assert json.loads(json_path.read_text()) == figures
    assert plot.read_bytes().startswith(b"\x89PNG")
    for name in figures["tiny"]:
        assert f"\n{name} " in output

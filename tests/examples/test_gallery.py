"""Every script of the gallery runs to its end, where it has asserted its claims and drawn."""

import runpy
import sys
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import pytest
from threadpoolctl import threadpool_limits

SCRIPTS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """`run(script)` gives what it prints. JAX promotes types as it does by default."""

    def run(script):
        monkeypatch.setattr(sys, "argv", [str(script)])
        # Beside other tests, the threads of a BLAS spin: ten times the time on small matrices.
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            threadpool_limits(1),
        ):
            runpy.run_path(str(script), run_name="__main__")
        assert [path.name for path in tmp_path.rglob("*.png")] == [f"{script.stem}.png"]
        return capsys.readouterr().out

    x64 = jax.config.jax_enable_x64
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    yield run
    plt.close("all")
    jax.config.update("jax_enable_x64", x64)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script, run):
    """The gallery takes a figure as it is at the end of the block that makes it: the last."""
    assert run(script).endswith(f"Plot: figures/{script.stem}.png\n")
    *_, last = script.read_text().split("# %%\n")
    assert last.count("plt.subplots(") == 1


def test_from_torch_without_torch(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (script,) = (script for script in SCRIPTS if script.stem == "from_torch")
    assert "PyTorch is not installed" in run(script)

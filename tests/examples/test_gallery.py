"""Every script of the gallery runs to its end, where it has asserted its claims and drawn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
pytestmark = pytest.mark.slow


def run(script, folder, **environment):
    """What it prints. Warnings are errors; the suite's own settings of JAX are not passed on."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=folder,
        # Beside other tests, the threads of a BLAS spin: ten times the time on small matrices.
        env={**inherited, "MPLBACKEND": "Agg", "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in folder.rglob("*.png")] == [f"{script.stem}.png"]
    return ran.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script, tmp_path):
    run(script, tmp_path)


def test_from_torch_without_torch(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ImportError")
    path = os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])
    (script,) = (script for script in SCRIPTS if script.stem == "from_torch")
    assert "PyTorch is not installed" in run(script, tmp_path, PYTHONPATH=path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_last_block_makes_the_figure(script):
    """The gallery takes a figure as it is at the end of the block that makes it."""
    *_, last = script.read_text().split("# %%\n")
    assert last.count("plt.subplots(") == 1


def test_every_script_is_in_the_table():
    table = (SCRIPTS[0].parent / "README.md").read_text()
    assert [script.name for script in SCRIPTS if f"({script.name})" not in table] == []

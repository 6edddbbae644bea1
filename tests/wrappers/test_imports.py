"""With JAX and Optax alone, the package imports and trains."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from helpers import streams

EXTRAS = (
    "chex",
    "equinox",
    "flax",
    "hypothesis",
    "matplotlib",
    "optimistix",
    "orbax",
    "pytest",
    "sklearn",
    "torch",
    "tqdm",
)


def test_without_extras():
    required = [r for r in importlib.metadata.requires("optax") if "extra ==" not in r]
    # Older versions of Optax cannot do without chex themselves.
    absent = [name for name in EXTRAS if not any(r.startswith(name) for r in required)]
    script = Path(__file__).parents[1] / "helpers/bare_run.py"
    ran = subprocess.run([sys.executable, script, *absent], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    errors = dict(line.split() for line in ran.stdout.splitlines())
    assert errors.keys() == {"rprop", *streams.OPTIMIZERS}
    assert all(float(error) < 0.01 for error in errors.values())

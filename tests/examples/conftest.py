"""Runs an example as a user would, in a process of its own, and reads its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = "import importlib, json, sys; name, path, *arguments = sys.argv[1:]; " + (
    "figures = importlib.import_module(name).main(arguments); json.dump(figures, open(path, 'w'))"
)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module")
def run_example(tmp_path_factory):
    """`run_example(name, *arguments)` gives the figures that `main` returns, and what it prints."""

    def run(name, *arguments):
        path = tmp_path_factory.mktemp(name) / "figures.json"
        ran = subprocess.run(
            [sys.executable, "-c", RUN, name, str(path), *arguments],
            cwd=EXAMPLES,
            env={k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_ENABLE_X64")},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert ran.returncode == 0, ran.stderr
        return json.loads(path.read_text()), ran.stdout

    return run

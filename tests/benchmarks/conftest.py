import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Several runs in one process, as the imports take longer than most of them.
SCRIPT = """
import json, runpy, sys

benchmark, runs = sys.argv[1:]
for sys.argv[1:] in json.loads(runs):
    runpy.run_path(benchmark, run_name="__main__")
    print(end="\\f")
"""


@pytest.fixture(scope="session")
def run_in_turn():
    """`run_in_turn(name, *runs)` gives what a benchmark prints with the arguments of each run."""

    def run_in_turn(name, *runs, flags=(), **environment):
        arguments = json.dumps([[*map(str, own)] for own in runs])
        command = [sys.executable, *flags, "-c", SCRIPT, f"benchmarks/{name}", arguments]
        options = {"cwd": Path(__file__).parents[2], "capture_output": True, "text": True}
        ran = subprocess.run(command, timeout=600, env=os.environ | environment, **options)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.split("\f")[:-1]

    return run_in_turn

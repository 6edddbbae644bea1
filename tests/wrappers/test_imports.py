"""The package imports JAX, Optax and their NumPy, by public names, and nothing else."""

import ast
import sys
from pathlib import Path

import optax_rprop

DECLARED = {"jax", "numpy", "optax", "optax_rprop", *sys.stdlib_module_names}


def imported(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_without_extras():
    for path in Path(optax_rprop.__file__).parent.rglob("*.py"):
        extra = {"equinox", "jaxtyping", "optimistix"} if path.name == "optimistix.py" else set()
        modules = list(imported(path))
        assert modules
        for module in modules:
            assert module.split(".")[0] in DECLARED | extra, (path, module)
            assert "._src" not in module, (path, module)

"""Docstrings run as written, and say what the code says. README's paths exist."""

import doctest
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import jax
import pytest
import streams

import optax_rprop

ROOT = Path(__file__).parents[1]
OPTIMIZERS = [getattr(optax_rprop, name) for name in streams.OPTIMIZERS]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(optax_rprop.__path__, "optax_rprop.")
    if module.name != "optax_rprop.optimistix"
]


@pytest.fixture
def as_users_have_it():
    """The default promotion rules, which examples may rely on."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(import_module(name)).failed == 0


def test_every_public_name_has_an_example():
    names = [(optax_rprop, name) for name in optax_rprop.__all__ if name != "contrib"]
    for module, name in names + [(optax_rprop.contrib, n) for n in optax_rprop.contrib.__all__]:
        public = getattr(module, name)
        text = inspect.getdoc(public) or ""
        members = "".join(inspect.getdoc(m) or "" for _, m in inspect.getmembers(public))
        assert ">>>" in text + members, name


def test_readme_paths_exist():
    text = (ROOT / "README.md").read_text()
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert linked
    missing = [path for path in linked if not (ROOT / path).exists()]
    assert not missing


def sections(function):
    """A docstring's sections by their headings."""
    parts = re.split(r"^(\w+):$", inspect.getdoc(function), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("function", OPTIMIZERS, ids=lambda f: f.__name__)
def test_docstring_is_whole(function):
    """Mathematics, every argument with its default, errors, an example, the sources."""
    found = sections(function)
    assert {"Args", "Returns", "Raises", "Example", "References"} <= found.keys()
    assert ".. math::" in inspect.getdoc(function)
    for name, parameter in inspect.signature(function).parameters.items():
        described = re.search(rf"^  {name}: (.*?)(?=^  \w+: |\Z)", found["Args"], re.M | re.S)
        assert described, name
        if isinstance(parameter.default, float):
            default = re.search(r"\(default\s([\d.e-]+)\)", described[1])
            assert float(default[1]) == parameter.default, name


@pytest.mark.parametrize("function", OPTIMIZERS[1:], ids=lambda f: f.__name__)
def test_shared_arguments_are_described_alike(function):
    first = sections(OPTIMIZERS[0])["Args"].rstrip()
    assert sections(function)["Args"].startswith(first)
    assert inspect.getsource(function).count("Args:") == 0  # written once, inserted
    assert (
        inspect.signature(function).parameters.keys()
        >= inspect.signature(OPTIMIZERS[0]).parameters.keys()
    )

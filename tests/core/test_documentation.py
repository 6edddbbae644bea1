"""README, the site and the docstrings run as a reader would run them, and name what there is."""

import doctest
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import jax
import pytest

import optax_rprop
from helpers import streams

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.stem: page.read_text() for page in PAGES}
OPTIMIZERS = [getattr(optax_rprop, name) for name in streams.OPTIMIZERS[:-1]]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(optax_rprop.__path__, "optax_rprop.")
    if module.name != "optax_rprop.optimistix"
]


@pytest.fixture
def as_users_have_it(tmp_path, monkeypatch):
    """The default promotion rules, which examples may rely on, and a folder to write in."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("page", [name for name in TEXT if "```python" in TEXT[name]])
def test_snippets(page, capsys):
    """All of a page in its order, in one namespace; a comment after a print is its output."""
    snippets = re.findall(r"^```python\n(.*?)^```$", TEXT[page], re.MULTILINE | re.DOTALL)
    namespace, ran, missing = {}, "", None
    for snippet in snippets:
        try:
            exec(compile(snippet, f"{page}.md", "exec"), namespace)
        except ModuleNotFoundError as error:
            if error.name.startswith("optax_rprop"):
                raise
            missing = error.name
            break
        ran += snippet
    printed = re.findall(r"^print\(.*\)  # (.*)$", ran, re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == printed
    if missing:
        pytest.skip(f"the rest needs {missing}")


@pytest.mark.usefixtures("as_users_have_it")
@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("module", [optax_rprop, optax_rprop.contrib], ids=lambda m: m.__name__)
def test_every_public_name(module):
    """It is in the reference, and has an example."""
    reference = TEXT["api"]
    for name in set(module.__all__) - {"contrib"}:
        assert re.search(rf":: {name}\b|`{module.__name__}\.{name}`", reference, re.MULTILINE), name
        public = getattr(module, name)
        if name in ("rprop_plus", "rprop_minus", "ScaleByAdaptiveGainsState"):
            continue  # they are used as irprop_minus is, or read as its state
        members = "".join(inspect.getdoc(m) or "" for _, m in inspect.getmembers(public))
        assert ">>>" in (inspect.getdoc(public) or "") + members, name


@pytest.mark.parametrize("function", OPTIMIZERS, ids=lambda f: f.__name__)
def test_docstring_is_whole(function):
    """Mathematics, every argument and the sources; on irprop_minus the defaults, too."""
    text = inspect.getdoc(function)
    assert ".. math::" in text
    arguments = re.search(r"^Args:\n(.*?)^\w+:$", text, re.M | re.S)[1]
    assert "\nReferences:\n" in text
    for name, parameter in inspect.signature(function).parameters.items():
        described = re.search(rf"^  {name}: (.*?)(?=^  \w+: |\Z)", arguments, re.M | re.S)
        assert described, name
        if function is optax_rprop.irprop_minus and isinstance(parameter.default, float):
            default = re.search(r"\(default\s([\d.e-]+)\)", described[1])
            assert float(default[1]) == parameter.default, name


def test_names_paths_that_exist():
    """Those that README links to, and those of commands anywhere."""
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT["README"])
    commands = re.findall(r"`(?:\.venv/bin/)?python ([^`\s]+)", "".join(TEXT.values()))
    assert linked
    assert commands
    assert [path for path in linked + commands if not (ROOT / path).exists()] == []

"""The snippets of README and the site run as a reader would run them, and name what there is."""

import re
from pathlib import Path

import jax
import pytest

import optax_rprop

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = {page.stem: page.read_text() for page in PAGES}


@pytest.mark.parametrize("page", TEXT)
def test_snippets(page, capsys):
    """All of a page in its order, in one namespace; a comment after a print is its output."""
    snippets = re.findall(r"^```python\n(.*?)^```$", TEXT[page], re.MULTILINE | re.DOTALL)
    namespace, ran, missing = {}, "", None
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
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


@pytest.mark.parametrize("module", [optax_rprop, optax_rprop.contrib], ids=lambda m: m.__name__)
def test_reference_has_every_public_name(module):
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    for name in set(module.__all__) - {"contrib"}:
        assert re.search(rf":: {name}\b|`{module.__name__}\.{name}`", text, re.MULTILINE), name


def test_names_tests_that_exist():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", "".join(TEXT.values()))
    assert named
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_names_commands_that_exist():
    named = re.findall(r"python (\w+/[\w/.]+)", "".join(TEXT.values()))
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_index_calls_pages_by_their_titles():
    linked = re.findall(r"\[([^]]+)\]\((\w+)\.md\)(?= \|)", TEXT["index"])
    titles = {page: text.split("\n", 1)[0].removeprefix("# ") for page, text in TEXT.items()}
    assert linked
    assert [(name, page) for name, page in linked if name != titles[page]] == []

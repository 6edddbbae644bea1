"""The documentation site: `make docs` builds it."""

import os
import re
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # what the gallery's figures are those of

import jax
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import optax_rprop

sys.path.insert(0, str(Path(__file__).parent))  # for "conf.fresh_jax"


def fresh_jax(gallery_conf: dict, script: str) -> None:
    """Undoes what a script of the gallery switched on: all run in one process."""
    jax.config.update("jax_enable_x64", False)


project = "optax_rprop"
author = "The optax_rprop authors"
copyright = author
release = version = optax_rprop.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
autosummary_generate = False
exclude_patterns = ["_build"]
nitpicky = True
add_function_parentheses = False
# In docstrings, `name` links to a public name, and is plain code where it is none.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*")]

html_theme = "furo"
pygments_dark_style = "github-dark"  # underlined names would look like links
html_title = "optax_rprop"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

suppress_warnings = ["myst.xref_missing"]  # it knows headings alone; check_links.py checks all
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_typehints = "none"  # the arguments' descriptions say what each may be
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "reset_modules": ("matplotlib", "conf.fresh_jax"),
    "abort_on_example_error": True,
    "copyfile_regex": "",
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "thumbnail_size": (400, 360),
}


class WholeNumbers(SphinxPostTransform):
    """Marks numbers such as 4e-07, so that site.css can keep each on one line."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs):
        """Sphinx calls this for each page."""
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, (nodes.paragraph, nodes.literal, nodes.strong)):
                parts = re.split(r"(\d[\d.]*(?:e[-+]?\d+|\.\d+))", text)
                marked = [
                    nodes.inline(part, part, classes=["number"]) if i % 2 else nodes.Text(part)
                    for i, part in enumerate(parts)
                ]
                text.parent.replace(text, marked)


def link_to_gallery(app, docname: str, source: list[str]) -> None:
    """Where a page links to an example's script, the site links to its page in the gallery."""
    source[0] = re.sub(r"\(\.\./examples/(\w+)\.py\)", r"(gallery/\1.rst)", source[0])


def setup(app) -> None:
    """Sphinx calls this."""
    app.add_post_transform(WholeNumbers)
    app.connect("source-read", link_to_gallery)

"""Settings of the book; `book.py` collects its pages and calls Sphinx with them."""

import re
from typing import Any

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode, depart_HideCellInput, visit_HideCellInput
from sphinx.application import Sphinx

from allkit import ROOT, __version__
from allkit.course.offline import to_mathml

project = "allkit"
author = copyright = "The allkit authors"
version = release = __version__
language = "en"
root_doc = "index"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["generated"]
suppress_warnings = ["ref.python"]  # a docstring's `ok` may name several things; it is then no link, which is fine

# The notebooks are shown as they were executed; nothing runs and nothing is fetched while the book is built or read.
nb_execution_mode = "off"
nb_ipywidgets_js = {}
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Code"
copybutton_selector = ":not(.output) > div.highlight > pre"  # code, not what it printed
html_math_renderer = "mathml"
myst_update_mathjax = False
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

default_role = "py:obj"  # `name` in a docstring links to what it names
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

html_theme = "sphinx_book_theme"
html_title = "allkit"
html_static_path = ["static"]
templates_path = ["templates"]
html_css_files = ["book.css"]
html_last_updated_fmt = None
html_copy_source = True
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # one search field, in the side bar
    "navigation_with_keys": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def _visit_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_math_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def _escape_wildcards(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of a file name such as models/*.keras from opening an emphasis, in docstrings."""
    lines[:] = [re.sub(r"(?<=[/\w-])\*(?=\.\w)", r"\\*", line) for line in lines]


def _visit_foldable_code(writer: Any, node: HideCodeCellNode) -> None:
    """Begin code that can be folded, and is not at first."""
    visit_HideCellInput(writer, node)
    opening = max(number for number, text in enumerate(writer.body) if text.startswith("<details"))
    writer.body[opening] = writer.body[opening].replace("<details", "<details open", 1)


def _hide_root(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out where the clone lies on this machine; the defaults of functions name files in it."""
    for text in [text for text in doctree.findall(nodes.Text) if f"{ROOT}/" in text]:
        text.parent.replace(text, nodes.Text(text.replace(f"{ROOT}/", "")))


def _add_excerpts(app: Sphinx, page: str, *_: Any) -> None:
    """Load what the search shows of the pages, which book.py writes at the end."""
    if page == "search":
        app.add_js_file("excerpts.js")
        app.add_js_file("search_offline.js")


def setup(app: Sphinx) -> None:
    """Register the above with Sphinx, which calls this."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("autodoc-process-docstring", _escape_wildcards)
    app.connect("doctree-read", _hide_root)
    app.connect("html-page-context", _add_excerpts)
    app.add_node(HideCodeCellNode, override=True, html=(_visit_foldable_code, depart_HideCellInput))

"""What the book adds to Sphinx: links to the glossary, equations as MathML, alternative text for every figure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from allkit.course.report import to_mathml

PLAIN = {"bootstrap", "dropout", "epoch", "precision", "prevalence", "recall", "sensitivity", "shortcut", "specificity"}
"""Words of one piece and in small letters that are linked wherever they stand first; others only where emphasised."""


def read_terms(glossary: Path) -> list[tuple[str, ...]]:
    """Return the entries of the glossary page, each as its term and the other names that it goes by."""
    blocks = re.findall(r"^```\{glossary\}\n(.*?)^```", glossary.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    entries: list[list[str]] = []
    in_names = False
    for line in "\n".join(blocks).splitlines():
        if line and not line.startswith((" ", ":")):
            entries[-1].append(line) if in_names else entries.append([line])
            in_names = True
        elif line:
            in_names = False
    return [tuple(names) for names in entries]


def link_terms(doctree: nodes.document, entries: Iterable[tuple[str, ...]], docname: str) -> list[str]:
    """Link each entry once, where a page explains it: where it stands in italics, else where it stands first.

    Returns:
        The linked entries, by their first name.
    """
    emphasised: dict[str, nodes.Element] = {}
    for node in doctree.findall(lambda n: isinstance(n, nodes.emphasis | nodes.strong)):
        if not _inside(node, nodes.title, nodes.reference):
            emphasised.setdefault(_plain(node.astext()), node)
    linked = []
    for names in entries:
        found = next((emphasised[_plain(name)] for name in names if _plain(name) in emphasised), None)
        if found is not None and not _inside(found, addnodes.pending_xref):
            _wrap(found, names[0], docname)
        elif found is not None or not _link_in_text(doctree, names, docname):
            continue
        linked.append(names[0])
    return linked


def _plain(text: str) -> str:
    """Return a phrase in small letters, without punctuation at its end and without a plural's s."""
    text = " ".join(text.split()).strip(".:,").lower()
    return re.sub(r"(?<=[^su])s$", "", text)


def _inside(node: nodes.Node, *kinds: type) -> bool:
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def _link_in_text(doctree: nodes.document, names: tuple[str, ...], docname: str) -> bool:
    """Link the first place in running text; names that are everyday words are left alone."""
    told = [name for name in names if name in PLAIN or " " in name or "-" in name or name.lower() != name]
    if not told:
        return False
    words = "|".join(re.escape(name).replace(r"\ ", r"\s+").replace("'", "['’]") for name in told)
    pattern = re.compile(rf"(?<![\w-])(?:{words})s?(?![\w-])", re.IGNORECASE)
    for text in list(_running_text(doctree)):
        match = pattern.search(text.astext())
        if match and (match[0].lower() != match[0] or not any(n.isupper() for n in told)):
            before, after = text[: match.start()], text[match.end() :]
            link = _reference(names[0], nodes.inline("", match[0]), docname)
            text.parent.replace(text, [part for part in (nodes.Text(before), link, nodes.Text(after)) if part])
            return True
    return False


def _running_text(doctree: nodes.document) -> Iterator[nodes.Text]:
    apart = (nodes.title, nodes.reference, addnodes.pending_xref, nodes.literal, nodes.literal_block, nodes.raw,
             nodes.math, nodes.math_block, nodes.image)  # fmt: skip
    for text in doctree.findall(nodes.Text):
        if _inside(text, nodes.paragraph) and not _inside(text, *apart):
            yield text


def _wrap(node: nodes.Element, term: str, docname: str) -> None:
    node.parent.replace(node, _reference(term, node.deepcopy(), docname))


def _reference(term: str, content: nodes.Node, docname: str) -> addnodes.pending_xref:
    """Return a link to the glossary, resolved by Sphinx once all pages are read; a wrong one is a warning."""
    kind = {"refdomain": "std", "reftype": "term", "reftarget": term, "refdoc": docname}
    return addnodes.pending_xref("", content, **kind, refexplicit=True, refwarn=True)


def _on_read(app: Sphinx, doctree: nodes.document) -> None:
    docname = app.env.docname
    if docname.startswith("notebooks/"):
        entries = read_terms(Path(app.srcdir) / "glossary.md")
        app.env.metadata[docname]["terms"] = link_terms(doctree, entries, docname)
        describe_images(doctree, read_descriptions(Path(app.env.doc2path(docname))), docname)


def read_descriptions(notebook: Path) -> dict[str, str]:
    """Return the alternative text of every figure of a notebook, by the SHA-256 of the figure's bytes."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                name = hashlib.sha256(base64.b64decode(png)).hexdigest()
                found[name] = output.get("metadata", {}).get("image/png", {}).get("alt", "")
    return found


def describe_images(doctree: nodes.document, descriptions: Mapping[str, str], docname: str) -> None:
    """Give every figure its alternative text, which MyST-NB drops; refuse a page with one that nobody described.

    MyST-NB names the file of a figure by the SHA-256 of its bytes.
    """
    for image in doctree.findall(nodes.image):
        image.setdefault("alt", descriptions.get(PurePosixPath(image["uri"]).stem, ""))
        if not image["alt"].strip():
            raise ExtensionError(f"{docname}: a figure has no alternative text; show it with run.show(…, alt=…).")


# ------------------------------------------------------------------------------------------- equations


def _visit_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_math_block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="equation">{to_mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


def _escape_wildcards(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep the star of a file name such as models/*.keras from opening an emphasis, in docstrings."""
    lines[:] = [re.sub(r"(?<=[/\w-])\*(?=\.\w)", r"\\*", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the above with Sphinx."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("doctree-read", _on_read)
    app.connect("autodoc-process-docstring", _escape_wildcards)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

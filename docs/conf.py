"""How Sphinx builds the pages: ``make docs``. Nothing is fetched, and a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import pages  # noqa: E402

import steepest  # noqa: E402
from steepest import losses, optim  # noqa: E402

project = "steepest"
copyright = "the steepest authors"
release = version = steepest.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "**/drawn-from.txt"]
source_suffix = {".md": "markdown"}

myst_heading_anchors = 3
autodoc_typehints = "none"  # the signature would be a page long; "Args" says what each one takes
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "steepest"
html_static_path = ["_static"]
html_extra_path = ["_generated/extra"]  # the pages that move
html_css_files = ["steepest.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Any) -> None:
    """Write the generated pages before they are read, and find what docstrings refer to."""
    app.add_config_value("draw_pictures", True, "env")
    app.connect(
        "config-inited", lambda app, config: pages.write(HERE / "_generated", pictures=config.draw_pictures)
    )
    app.connect("autodoc-process-docstring", pages.without_example)
    app.connect("missing-reference", find_public)
    app.connect("doctree-resolved", link_words)


def find_public(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Docstrings name a class where it is written; the pages have it where it is public."""
    from sphinx.util.nodes import make_refnode

    if node.get("refdomain") != "py":
        return None
    name = node.get("reftarget", "").rpartition(".")[2]
    known = {
        full: entry
        for full, entry in env.domaindata["py"]["objects"].items()
        if full.rpartition(".")[2] == name and entry.objtype in ("class", "function", "exception")
    }
    if len(known) != 1:
        return None
    entry = next(iter(known.values()))
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, name)


def link_words(app: Any, doctree: Any, docname: str) -> None:
    """In the hand-written pages, a loss's or optimizer's word leads to its page."""
    from docutils import nodes

    if docname.startswith("_generated"):
        return
    homes = {word: f"_generated/losses/{word}" for word in losses.LOSSES}
    homes |= {word: f"_generated/optimizers/{word}" for word in optim.OPTIMIZERS}
    for literal in list(doctree.findall(nodes.literal)):
        home = homes.get(literal.astext())
        if home is not None and not isinstance(literal.parent, nodes.reference):
            target = app.builder.get_relative_uri(docname, home)
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=target, internal=True))

"""Put a page together: one HTML file that needs nothing else and asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from steepest.backends.javascript import Program
from steepest.explain.interactive.mathematics import set_formula, set_lines
from steepest.explain.page import Explanation

__all__ = ["build"]

_FILES = files("steepest.explain.interactive")


def build(kind: str, explanation: Explanation, program: Program, data: dict[str, Any], **context: Any) -> str:
    """The whole document.

    Args:
        kind: ``"optimizer"`` or ``"loss"``: whose template and script.
        explanation: the words.
        program: every formula that the script calls.
        data: what the script reads, by names of the program and plain numbers.
        context: what else the template takes.
    """
    # As a literal of JavaScript's, which knows NaN and Infinity. No name in it can end the script.
    given = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    formulas = f"const data = {given};\nconst formulas = {{ {', '.join(program.names)} }};\n"
    script = "\n".join(['"use strict";', program.source, formulas, _file("common.js"), _file(f"{kind}.js")])
    template = _templates().get_template(f"{kind}.html.j2")
    return template.render(
        explanation=explanation,
        heading=explanation.title.partition(": ")[2],
        told=dict(explanation.sections),
        style=Markup(_file("page.css")),
        script=Markup(script),
        policy=_policy(script),
        **context,
    )


def _policy(script: str) -> str:
    """A content security policy: no request at all, and no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"


def _file(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


@cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["mathematics"] = lambda text: Markup(set_formula(text))
    templates.filters["statements"] = lambda text: tuple(
        [Markup(line) for line in part] if isinstance(part, list) else Markup(part)
        for part in set_lines(text)
    )
    return templates

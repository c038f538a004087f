"""Words and an SVG as HTML for a notebook, that needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from steepest.explain.figure import Figure

__all__ = ["drawn", "web_fragment"]

# Of the fragment alone, for a notebook has its own page and its own colours, dark ones too; a drawing has white paper.
_STYLE = """
.steepest-page { max-width: 60rem; margin: 0 auto; padding: 1.5rem; line-height: 1.5;
  font-family: Inter, "Segoe UI", "Helvetica Neue", Roboto, "Noto Sans", Arial, sans-serif; }
.steepest-page h1 { font-size: 1.4rem; }
.steepest-page dl { display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1.2rem; }
.steepest-page dt { opacity: .75; }
.steepest-page dd { margin: 0; overflow-wrap: anywhere; }
.steepest-page ul { margin: 0; padding-left: 1.1rem; }
.steepest-page figure { margin: 1.5rem 0 0; overflow-x: auto; background: #fff; color: #1f2933; }
.steepest-page svg { max-width: 100%; height: auto; }
@media (max-width: 40rem) { .steepest-page dl { grid-template-columns: 1fr; gap: 0; }
  .steepest-page dd { margin-bottom: .6rem; }
  .steepest-page svg { max-width: none; } }
"""


def drawn(drawing: str, figure: Figure) -> str:
    """A drawing, SVG, with the words that stand for it where it cannot be seen."""
    description = escape(f"{figure.title}. {' '.join([*figure.subtitle, *figure.caption])}", quote=True)
    # Where it is wider than the page it scrolls, by keyboard too.
    return f'<figure role="img" tabindex="0" aria-label="{description}">{drawing}</figure>\n'


def web_fragment(title: str, sections: Sequence[tuple[str, Sequence[str]]], drawing: str) -> str:
    """An explanation as a piece of HTML; ``drawing`` is HTML, or nothing."""
    terms = "\n".join(f"<dt>{escape(label)}</dt><dd>{_paragraphs(words)}</dd>" for label, words in sections)
    return (
        f'<div class="steepest-page">\n<style>{_STYLE}</style>\n<h1>{escape(title)}</h1>\n'
        f"<dl>\n{terms}\n</dl>\n{drawing}</div>"
    )


def _paragraphs(words: Sequence[str]) -> str:
    if len(words) == 1:
        return escape(words[0])
    return "<ul>" + "".join(f"<li>{escape(paragraph)}</li>" for paragraph in words) + "</ul>"

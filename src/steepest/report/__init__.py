"""The report: one offline HTML file made from the records of a comparison. It computes no metric."""

from __future__ import annotations

from steepest.report.build import build, write, write_page
from steepest.report.language import LANGUAGES, speaking
from steepest.report.notebook import in_notebook

__all__ = ["LANGUAGES", "build", "in_notebook", "speaking", "write", "write_page"]

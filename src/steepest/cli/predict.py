"""``steepest predict``: a saved model's predictions for the rows of a table, as CSV."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.files import check_file
from steepest.cli.options import Data
from steepest.files import write_file

__all__ = ["predict"]


def predict(
    model_dir: Annotated[
        Path,
        typer.Argument(
            help="A folder written by fit or by compare.", metavar="MODEL_DIR", show_default=False
        ),
    ],
    data: Data,
    out: Annotated[
        Path | None,
        typer.Option(help="The CSV file to write.", metavar="FILE", show_default="standard output"),
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="A column of probabilities for each class too.")
    ] = False,
) -> None:
    """Write a saved model's predictions for the rows of a table, as CSV."""
    if out is not None:
        check_file(out, "--out")

    import polars as pl

    from steepest.comparison.fitted import load

    model = load(model_dir)
    with _notes_to_stderr():
        columns = {"prediction": model.predict(data)}
        if proba:
            probabilities = model.predict_proba(data)
            columns |= {f"probability_{name}": probabilities[:, c] for c, name in enumerate(model.classes)}
    text = pl.DataFrame(columns).write_csv()
    if out is None:
        sys.stdout.buffer.write(text.encode())  # labels are UTF-8 whatever the terminal can show
    else:
        write_file(out, text.encode(), "--out {path}")


@contextmanager
def _notes_to_stderr() -> Iterator[None]:
    """What the library warns of (a category never seen, say), as a sentence each and once."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        yield
    for note in dict.fromkeys(str(warning.message) for warning in noted):
        sys.stderr.write(f"steepest: {note}\n")

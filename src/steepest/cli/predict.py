"""``steepest predict``: a saved model's predictions for the rows of a table, as CSV."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steepest.cli.files import check_file
from steepest.cli.options import Data
from steepest.errors import InputError, inert
from steepest.files import write_file

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

__all__ = ["predict"]

_ROWS_AT_ONCE = 1 << 18


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
        _check_apart(out, model_dir, data)

    import polars as pl

    from steepest.comparison.fitted import load

    model = load(model_dir)
    if proba and not model.classes:
        raise InputError("--proba goes with a model of classes; this one predicts numbers.")
    with _notes_to_stderr():
        columns = {"prediction": _no_formulas(model.predict(data))}
        if proba:
            probabilities = model.predict_proba(data)
            columns |= {
                f"probability_{_word(name)}": probabilities[:, c] for c, name in enumerate(model.classes)
            }
    lines = _csv(pl.DataFrame(columns))
    if out is not None:
        write_file(out, (text.encode() for text in lines), "--out {path}")
        return
    for text in lines:
        if sys.stdout.isatty():
            sys.stdout.write(inert(text))
        else:
            sys.stdout.buffer.write(text.encode())  # labels are UTF-8 whatever the terminal can show


def _word(label: Any) -> str:
    """A class as its cells have it."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _csv(frame: pl.DataFrame) -> Iterator[str]:
    """A frame as CSV, some rows at a time: all of it as text may be far larger than the numbers."""
    for first in range(0, max(frame.height, 1), _ROWS_AT_ONCE):
        yield frame[first : first + _ROWS_AT_ONCE].write_csv(include_header=first == 0)


def _check_apart(out: Path, model_dir: Path, data: str) -> None:
    """Predictions take the place of neither the table nor the model.

    Raises:
        InputError: they would.
    """
    from steepest.comparison.manifest import MANIFEST, WEIGHTS
    from steepest.data.source import files_of

    if any(_is_same(out, table) for table in (Path(os.path.expanduser(data)), *files_of(data))):
        raise InputError(f"--out {out} is the table itself; name another file.")
    places = (model_dir, model_dir / "model")
    if any(_is_same(out, place / name) for place in places for name in (MANIFEST, WEIGHTS)):
        raise InputError(f"--out {out} is a file of the model's; name another.")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them is not there, or can be no path
        return False


def _no_formulas(predictions: NDArray[Any]) -> NDArray[Any]:
    """Labels that a spreadsheet would compute, or run, with the apostrophe before them that makes them text to it."""
    import numpy as np

    if predictions.dtype.kind not in "UO":
        return predictions
    labels = [str(label) for label in predictions]
    marked = [f"'{label}" if _is_formula(label) else label for label in labels]
    if marked != labels:
        warnings.warn(
            "labels that a spreadsheet would take for a formula have an apostrophe before them in the CSV.",
            stacklevel=2,
        )
    return np.array(marked)


def _is_formula(label: str) -> bool:
    if len(label) < 2 or label[0] not in "=+-@\t\r":
        return False
    try:
        float(label)
    except ValueError:
        return True
    return False


@contextmanager
def _notes_to_stderr() -> Iterator[None]:
    """What the library warns of (a category never seen, say), as a sentence each and once."""
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        yield
    for note in dict.fromkeys(str(warning.message) for warning in noted):
        sys.stderr.write(f"steepest: {inert(note)}\n")

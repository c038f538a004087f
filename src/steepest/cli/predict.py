"""``steepest predict``: a saved model's predictions for the rows of a table, as CSV, TSV or Parquet."""

from __future__ import annotations

import io
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

_CSV, _TSV, _PARQUET = ",", "\t", "parquet"
_FORMS = {
    "": _CSV,
    ".csv": _CSV,
    ".txt": _CSV,
    ".tsv": _TSV,
    ".tab": _TSV,
    ".parquet": _PARQUET,
    ".pq": _PARQUET,
}


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
        typer.Option(
            help="The file to write: .csv, .tsv or .parquet.",
            metavar="FILE",
            show_default="CSV on standard output",
        ),
    ] = None,
    proba: Annotated[
        bool, typer.Option("--proba", help="A column of probabilities for each class too.")
    ] = False,
) -> None:
    """Write a saved model's predictions for the rows of a table."""
    form = _CSV
    if out is not None:
        check_file(out, "--out")
        _check_apart(out, model_dir, data)
        form = _form(out)

    import polars as pl

    from steepest.comparison.fitted import load

    model = load(model_dir)
    if proba and not model.classes:
        raise InputError("--proba goes with a model of classes; this one predicts numbers.")
    with _notes_to_stderr():
        predictions = model.predict(data)
        columns = {"prediction": predictions if form == _PARQUET else _no_formulas(predictions)}
        if proba:
            probabilities = model.predict_proba(data)
            columns |= {
                f"probability_{_word(name)}": probabilities[:, c] for c, name in enumerate(model.classes)
            }
    frame = pl.DataFrame(columns)
    if out is not None:
        content = [_parquet(frame)] if form == _PARQUET else (text.encode() for text in _lines(frame, form))
        write_file(out, content, "--out {path}")
        return
    for text in _lines(frame, form):
        if sys.stdout.isatty():
            sys.stdout.write(inert(text))
        else:
            sys.stdout.buffer.write(text.encode())  # labels are UTF-8 whatever the terminal can show


def _word(label: Any) -> str:
    """A class as its cells have it."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _form(out: Path) -> str:
    """What a file of this name holds: text, by the character that separates its cells, or Parquet.

    Raises:
        InputError: the name promises something else.
    """
    suffix = out.suffix.lower()
    if suffix not in _FORMS and (out.is_file() or not out.exists()):  # a device may have any name
        raise InputError(
            f"--out {out}: predictions are written as CSV, TSV or Parquet; a name that ends in .csv, .tsv or .parquet "
            "would do."
        )
    return _FORMS.get(suffix, _CSV)


def _parquet(frame: pl.DataFrame) -> bytes:
    whole = io.BytesIO()
    frame.write_parquet(whole)
    return whole.getvalue()


def _lines(frame: pl.DataFrame, separator: str) -> Iterator[str]:
    """A frame as text, some rows at a time: all of it may be far larger than the numbers."""
    for first in range(0, max(frame.height, 1), _ROWS_AT_ONCE):
        yield frame[first : first + _ROWS_AT_ONCE].write_csv(include_header=first == 0, separator=separator)


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

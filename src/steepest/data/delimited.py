"""Text files with one row a line: CSV, TSV and their kin. Strict: a row that does not fit is an error."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.backends.available import available_bytes, in_words
from steepest.data.kinds import MISSING_MARKERS
from steepest.data.table import check_names
from steepest.errors import InputError

__all__ = ["read_delimited", "read_pieces"]

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

_HINT = re.compile(
    rb'\A"?sep=[^\r\n]"?\r?\n', re.IGNORECASE
)  # a line for Excel alone; the separator shows anyhow

MOST_CELL_BYTES = 2**20
_PIECE_BYTES = 2**24
_MEMORY_A_BYTE = 8  # of the file: the text, its checks, and the cells; 6 to 7 were measured

# How files begin that are no text, whatever their names say.
_MAGIC = {
    b"PAR1": "a Parquet file: name it .parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook: export it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export it as CSV",
    b"\x1f\x8b": "a gzip archive: name it .csv.gz",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"%PDF": "a PDF: export the table as CSV",
}


def read_delimited(path: Path, *, is_one_of_many: bool = False) -> tuple[pl.DataFrame, str]:
    """The cells of a text file, as stripped text with nulls for what is missing.

    Args:
        path: the file. Its first line names the columns. A tab separates the cells of ``.tsv`` and ``.tab``;
            for other names the separator is found: a comma, a semicolon, a tab or a bar.
        is_one_of_many: whether it may have no rows; the others have some.

    Returns:
        The cells, and the separator.

    Raises:
        InputError: the file is empty, has no rows, is no UTF-8 text, or has a row of another length than its
            header.
    """
    name = repr(path.name)
    data = _text_bytes(_bytes_of(path, name), name)
    separator = _separator_of(path, data)
    frame = _table_of(data, separator, name)
    if frame.height == 0 and not is_one_of_many:
        raise InputError(f"{name} has a header but no rows; each line after the first is a row.")
    return frame, separator


def read_pieces(path: Path, piece_bytes: int) -> Iterator[tuple[pl.DataFrame, str, bytes]]:
    """The same a piece at a time: cells, separator and the bytes they were read from.

    Args:
        path: a file that is not compressed.
        piece_bytes: about how long a piece is; it ends with a row.

    Raises:
        InputError: as :func:`read_delimited`, rows or not; lines and rows are counted from the piece's beginning.
    """
    name = repr(path.name)
    header, separator, line = b"", ",", 1
    with path.open("rb") as file:
        for raw in _rows_of(file, piece_bytes):
            if not header:
                piece = _text_bytes(raw, name)
                separator = _separator_of(path, piece)
                header, told = piece[: _end_of_header(piece)], name
            else:
                told = f"{name} (counted from its line {line})"
                piece = _text_bytes(header + raw, told)
            yield _table_of(piece, separator, told), separator, raw
            line += raw.count(b"\n")
    if not header:
        _text_bytes(b"", name)  # says that the file is empty


def _rows_of(file: IO[bytes], piece_bytes: int) -> Iterator[bytes]:
    """The file in pieces that each end with a row."""
    held = b""
    while read := file.read(piece_bytes):
        held += read
        end = _end_of_rows(held)
        if end:
            yield held[:end]
            held = held[end:]
    if held:
        yield held


def _end_of_rows(data: bytes) -> int:
    """Where the last whole row ends: after the last end of a line that is in no quotes; 0 if there is none."""
    end = len(data)
    while (end := data.rfind(b"\n", 0, end)) >= 0:
        if data.count(b'"', 0, end) % 2 == 0:
            return end + 1
    return 0


def _end_of_header(data: bytes) -> int:
    end = data.find(b"\n")
    while data.count(b'"', 0, end) % 2:
        end = data.find(b"\n", end + 1)
    return end + 1


def _separator_of(path: Path, data: bytes) -> str:
    names = {suffix.lower() for suffix in path.suffixes}
    return "\t" if {".tsv", ".tab"} & names else _separator(data)


def _table_of(data: bytes, separator: str, name: str) -> pl.DataFrame:
    _check_cells(data, separator, name)
    header = _header(data, separator, name)
    data = data.rstrip(b"\r\n") + b"\n" if len(header) > 1 else data
    _check_quotes(data, separator, name)
    blank = _blank_rows(data, separator, len(header), name)
    frame = _cells(data, separator, name)
    if blank:
        frame = frame.with_row_index("\0row").filter(~pl.col("\0row").is_in(blank)).drop("\0row")
    if frame.width != len(header):
        raise InputError(
            f"The first line of {name} can be read as {len(header)} cells or as {frame.width}: it holds a carriage "
            "return or a quote out of its place; save it with one kind of line ends."
        )
    frame.columns = header
    return _clean(frame)


def _bytes_of(path: Path, name: str) -> bytes:
    """All of a file's bytes, which there is memory for."""
    most_bytes = available_bytes() / _MEMORY_A_BYTE
    if path.stat().st_size > most_bytes:
        raise _too_large(path.stat().st_size, most_bytes, name)
    data = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            data = _decompressed(data, most_bytes, name)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{name} is no complete gzip file ({error}); make it anew.") from None
    return data


def _text_bytes(data: bytes, name: str) -> bytes:
    """A file's bytes: UTF-8 text without a byte order mark, in lines that end in ``\\n``."""
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise InputError(f"{name} is not a text table; it begins like {what}.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{name} is UTF-16 text; save it as UTF-8.")
    if b"\0" in data:
        raise InputError(
            f"{name} is not a text table: it holds binary data; a CSV, TSV or Parquet file would do."
        )
    _check_utf8(data, name)
    data = _HINT.sub(b"", data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n"), count=1)
    if not data.strip():
        raise InputError(
            f"{name} is empty; the first line must name the columns, each further line is a row."
        )
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    return data if data.endswith(b"\n") else data + b"\n"


def _decompressed(data: bytes, most_bytes: float, name: str) -> bytes:
    """What a gzip archive holds; one of a few kilobytes can hold more than any memory."""
    pieces, num_bytes = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as archive:
        while piece := archive.read(_PIECE_BYTES):
            pieces.append(piece)
            num_bytes += len(piece)
            if num_bytes > most_bytes:
                raise _too_large(num_bytes, most_bytes, name)
    return b"".join(pieces)


def _too_large(num_bytes: int, most_bytes: float, name: str) -> InputError:
    needed, there = in_words(_MEMORY_A_BYTE * num_bytes), in_words(_MEMORY_A_BYTE * most_bytes)
    return InputError(
        f"{name} holds {in_words(num_bytes)} of text or more, which take {needed} of memory to read, and {there} are "
        "left; save it as Parquet, or give a part of its rows."
    )


def _check_cells(data: bytes, separator: str, name: str) -> None:
    """No cell is longer than a cell can be.

    Raises:
        InputError: one is; a separator, a line or a quote that is missing, most likely.
    """
    if len(data) <= MOST_CELL_BYTES:
        return
    characters = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(np.isin(characters, list(f'{separator}\n"'.encode())))
    lengths = np.diff(ends, prepend=-1, append=len(data)) - 1
    longest = int(lengths.argmax())
    if lengths[longest] > MOST_CELL_BYTES:
        line = data.count(b"\n", 0, int(ends[longest - 1]) + 1 if longest else 0) + 1
        raise InputError(
            f"Line {line} of {name} has a cell of {int(lengths[longest]):,} bytes, and {MOST_CELL_BYTES:,} would be "
            "many; a separator may be missing, or this is no table."
        )


def _check_utf8(data: bytes, name: str) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name} is not UTF-8 text: line {line} holds the byte 0x{data[error.start]:02x}; save it as"
            " UTF-8."
        ) from None


def _records(data: bytes, separator: str) -> Iterator[list[str]]:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="")
    return csv.reader(text, delimiter=separator)


def _separator(data: bytes) -> str:
    """The separator that cuts the first rows into the most columns, all rows alike if there is such a one."""
    head = data[:65536]
    # A row cut short by the end of the sample would say nothing about the separator.
    head = head[: head.rfind(b"\n") + 1] or data[: data.find(b"\n") + 1]
    found = (False, 1, ",")
    for separator in _SEPARATORS:
        widths = _widths(head, separator)
        alike = len(widths) > 0 and widths[0] > 1 and len(set(widths)) == 1
        if widths and (alike, widths[0]) > found[:2]:
            found = (alike, widths[0], separator)
    return found[2]


def _widths(head: bytes, separator: str) -> list[int]:
    widths: list[int] = []
    try:
        for record in _records(head, separator):
            if record:
                widths.append(len(record))
            if len(widths) == 20:
                break
    except csv.Error:
        return []
    return widths


def _header(data: bytes, separator: str, name: str) -> list[str]:
    try:
        header = [word.strip() for word in next(_records(data, separator))]
    except csv.Error as error:
        raise InputError(f"{name} is not a text table: its first line cannot be read ({error}).") from None
    check_names(header, name)
    return header


def _check_quotes(data: bytes, separator: str, name: str) -> None:
    """Every double quote opens or closes a cell, or is doubled inside one.

    Raises:
        InputError: naming the line of the first one that does not.
    """
    characters = np.frombuffer(data, dtype=np.uint8)
    quotes = np.flatnonzero(characters == ord('"'))
    opening, closing = quotes[::2], quotes[1::2]
    # A doubled quote closes and opens again. Before the first character the last one is seen: a newline.
    astray = [
        opening[~np.isin(characters[opening - 1], list(f'{separator}\n"'.encode()))],
        closing[~np.isin(characters[closing + 1], list(f'{separator}\r\n"'.encode()))],
        quotes[len(quotes) // 2 * 2 :],  # one that is never closed
    ]
    first = min((int(place[0]) for place in astray if len(place)), default=None)
    if first is not None:
        line = data.count(b"\n", 0, first) + 1
        raise InputError(
            f"Line {line} of {name} has a double quote that neither opens nor closes a cell, or is never"
            " closed; put the whole cell in double quotes, and double those inside it."
        )


def _blank_rows(data: bytes, separator: str, width: int, name: str) -> list[int]:
    """The rows (from 0) to be skipped as blank lines; every other row must have ``width`` cells.

    Raises:
        InputError: naming the first row that has not.
    """
    # Counting separators is fast; only where a count is off are the rows read one by one.
    if (_count_cells(data, separator) == width).all():
        return []
    blank = []
    try:
        for row, record in enumerate(_records(data, separator)):  # the header is row 0
            if not record and width > 1:
                blank.append(row - 1)
            elif record and len(record) != width:
                raise InputError(
                    f"Row {row} of {name} has {len(record)} cells where the header has {width} (cells are"
                    f" separated by {_SEPARATORS[separator]}); mend the row, or put cells that hold a"
                    " separator in double quotes."
                )
    except csv.Error as error:
        raise InputError(f"{name} cannot be read as a text table ({error}).") from None
    return blank


def _count_cells(data: bytes, separator: str) -> NDArray[np.int64]:
    """How many cells each line has, by counting separators outside quotes."""
    newline, quote = ord("\n"), ord('"')
    characters = np.frombuffer(data, dtype=np.uint8)
    marks = characters[(characters == ord(separator)) | (characters == newline) | (characters == quote)]
    quotes = marks == quote
    if quotes.any():
        # Between an odd quote and the next, a separator is text. A doubled quote changes sides twice.
        inside = np.logical_xor.accumulate(quotes)
        marks = marks[~(quotes | inside)]
    return np.diff(np.flatnonzero(marks == newline), prepend=-1)


def _cells(data: bytes, separator: str, name: str) -> pl.DataFrame:
    try:
        return pl.read_csv(data, separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{name} cannot be cut into rows and cells ({reason}).") from None


def _clean(frame: pl.DataFrame) -> pl.DataFrame:
    stripped = frame.with_columns(pl.all().str.strip_chars())
    missing = pl.all().is_in(MISSING_MARKERS)
    return stripped.with_columns(pl.when(~missing).then(pl.all()).name.keep())

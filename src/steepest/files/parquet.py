"""Parquet, decoded in a process of its own: the worst that a file can do is to end that process, and not this one.

polars decodes in Rust, whose allocator ends the process that asks for more than there is; a page that claims a run of
2^61 values does so, and no exception tells of it. So another process decodes, within limits of memory and of processor
time, and hands over what it found through a pipe, in Arrow's format and a batch at a time. It decodes the next batch
while this one is used.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from steepest.errors import InputError

__all__ = ["Decoded", "decoded", "headers", "unpacked_bytes", "whole"]

_BATCH_ROWS, _BATCH_BYTES = 1 << 16, 1 << 25
_MOST_SEC = 120  # of processor time for a batch; a tenth of a second is usual
_LEAST_BYTES, _MOST_BYTES = (
    1 << 28,
    1 << 34,
)  # of memory: for polars' own threads and buffers, and for any batch

# A message: whether it is a frame or JSON, how long it is, and so many bytes.
_HEAD = struct.Struct("<?Q")
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from steepest.files import parquet; parquet._decode()"


@dataclass(frozen=True)
class Decoded:
    """A Parquet file: its columns with their types, how many rows it claims, and the rows, to be had once."""

    path: Path
    schema: dict[str, pl.DataType]
    num_rows: int
    batches: Iterator[pl.DataFrame]

    def rows(self) -> pl.DataFrame:
        """All batches together."""
        return pl.concat([pl.DataFrame(schema=self.schema), *self.batches])


def decoded(paths: Sequence[Path], memory: float, most_rows: int | None = None) -> Iterator[Decoded]:
    """Each file in turn; the next one may be asked for when the rows of this one are used up.

    Args:
        paths: regular files.
        memory: how much of it decoding may take, in bytes, where the system can hold a process to it.
        most_rows: of each file; None: all.

    Raises:
        InputError: a file cannot be read, is no complete Parquet file, or cannot be decoded within these limits.
    """
    with _process(paths, memory, most_rows) as process:
        for path in paths:
            num_rows = _num_rows(process, path)
            schema = dict(_frame(process, path).schema)
            wanted = num_rows if most_rows is None else min(num_rows, most_rows)
            yield Decoded(path, schema, num_rows, _batches(process, path, wanted))


def headers(paths: Sequence[Path], memory: float) -> list[tuple[dict[str, pl.DataType], int]]:
    """The columns and the number of rows of each file, as :func:`decoded` gives them."""
    return [(file.schema, file.num_rows) for file in decoded(paths, memory, 0)]


def whole(path: Path, memory: float) -> pl.DataFrame:
    """All rows of one file, as :func:`decoded` gives them."""
    return next(file.rows() for file in decoded([path], memory))


def unpacked_bytes(frame: pl.DataFrame) -> int:
    """What a frame takes with every text written out, which is held once however often it stands there."""
    levels = [column for column in frame.get_columns() if column.dtype in (pl.Categorical, pl.Enum)]
    texts = sum(int(column.cat.len_bytes().cast(pl.UInt64).sum()) for column in levels)
    return int(frame.estimated_size()) + texts


# --- in the process that asks ----------------------------------------------------------------------------------------


@contextmanager
def _process(
    paths: Sequence[Path], memory: float, most_rows: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which ends with the block however that ends."""
    # -P: no module is taken out of the directory that the command happens to run in.
    command = [sys.executable, "-P", "-c", _CODE, json.dumps([str(place) for place in sys.path])]
    request = {
        "paths": [str(path) for path in paths],
        "memory": memory,
        "most_rows": most_rows,
        "batch_rows": _BATCH_ROWS,
        "most_sec": _MOST_SEC,
    }
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what Rust has to say when it gives up is for its developers
        )
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{paths[0].name!r} cannot be decoded: Parquet is decoded in a process of its own, and none can be started "
            f"({reason})."
        ) from None
    with process:
        try:
            assert process.stdin is not None
            with (
                suppress(BrokenPipeError),
                process.stdin,
            ):  # it has ended already, as what is read next will say
                process.stdin.write(json.dumps(request).encode())
            yield process
        finally:
            process.kill()


def _batches(process: subprocess.Popen[bytes], path: Path, wanted: int) -> Iterator[pl.DataFrame]:
    while wanted > 0:
        frame = _frame(process, path)
        wanted -= max(frame.height, 1)
        yield frame


def _frame(process: subprocess.Popen[bytes], path: Path) -> pl.DataFrame:
    is_frame, content = _message(process, path)
    if not is_frame:
        raise InputError(json.loads(content)["refused"])
    return pl.read_ipc(content)


def _num_rows(process: subprocess.Popen[bytes], path: Path) -> int:
    told: Mapping[str, Any] = json.loads(_message(process, path)[1])
    if "refused" in told:
        raise InputError(told["refused"])
    return int(told["num_rows"])


def _message(process: subprocess.Popen[bytes], path: Path) -> tuple[bool, bytes]:
    assert process.stdout is not None
    head = process.stdout.read(_HEAD.size)
    if len(head) == _HEAD.size:
        is_frame, num_bytes = _HEAD.unpack(head)
        content = process.stdout.read(num_bytes)
        if len(content) == num_bytes:
            return is_frame, content
    raise InputError(
        f"{path.name!r} cannot be decoded: the process that was to do it {_end(process.wait())}, so it is damaged, "
        "made to do harm, or takes more memory than there is; write it anew from its source."
    )


def _end(code: int) -> str:
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


# --- in the process that decodes -------------------------------------------------------------------------------------


def _decode() -> None:
    """Send what the request on standard input asks for: of each file the number of rows, the columns, then the rows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked, which ends this one
    request = json.load(sys.stdin)
    _limit_memory(request["memory"])
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0) as out:
        for path in request["paths"]:
            try:
                _send_file(out, path, request)
            except InputError as error:
                _send(out, False, json.dumps({"refused": str(error)}).encode())


def _send_file(out: IO[bytes], path: str, request: Mapping[str, Any]) -> None:
    with _refusing(path), open(path, "rb") as file:  # polars itself knows no path that is not Unicode
        if os.fstat(file.fileno()).st_size == 0:
            raise InputError(f"{Path(path).name!r} is empty.")
        _limit_time(request["most_sec"])
        rows = pl.scan_parquet(file, glob=False, hive_partitioning=False)
        num_rows = rows.select(pl.len()).collect().item()
        columns = rows.head(0).collect()
        _send(out, False, json.dumps({"num_rows": num_rows}).encode())
        _send_frame(out, columns)
        wanted = num_rows if request["most_rows"] is None else min(num_rows, request["most_rows"])
        step = max(1, min(request["batch_rows"], _BATCH_BYTES // (8 * max(columns.width, 1))))
        for at in range(0, wanted, step):
            _limit_time(request["most_sec"])
            batch = rows.slice(at, min(step, wanted - at)).collect()
            if (num_bytes := unpacked_bytes(batch)) > min(max(request["memory"], _LEAST_BYTES), _MOST_BYTES):
                raise InputError(
                    f"{Path(path).name!r} holds {num_bytes / 1e9:,.1f} GB in {batch.height:,} rows once unpacked, "
                    "for which there is not memory enough; leave out its columns of long texts."
                )
            _send_frame(out, batch)


@contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path!r} cannot be read ({error.strerror or error}).") from None
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        raise InputError(
            f"{Path(path).name!r} is no complete Parquet file: it is damaged, cut short, or of another kind."
        ) from None


def _send_frame(out: IO[bytes], frame: pl.DataFrame) -> None:
    content = io.BytesIO()
    frame.write_ipc(content)
    _send(out, True, content.getbuffer())


def _send(out: IO[bytes], is_frame: bool, content: bytes | memoryview) -> None:
    left = memoryview(content)
    out.write(_HEAD.pack(is_frame, len(left)))
    while left:
        left = left[out.write(left) :]


def _limit_memory(num_bytes: float) -> None:
    """What it takes beyond what it has now, on Linux; other systems do not hold a process to it."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        _lower(
            resource.RLIMIT_DATA, pages * resource.getpagesize() + min(max(num_bytes, _LEAST_BYTES), 2.0**60)
        )


def _limit_time(seconds: float) -> None:
    """So much more processor time, where there are such limits: not on Windows."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, used.ru_utime + used.ru_stime + seconds)


def _lower(kind: int, most: float) -> None:
    import resource

    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (int(most) if hard == resource.RLIM_INFINITY else min(int(most), hard), hard))

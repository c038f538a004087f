"""The journal: what each run gave, appended as it ends, so that a kill at any moment loses no finished run.

After the first line, one frame a run: its length and its CRC-32, then what the run gave as a line of JSON and a
safetensors file (curve, and weights where they are needed later). A frame goes to the operating system at once,
which a kill does not undo, and to the disk about every half second, so that a power failure costs seconds. A torn
tail does not fit its checksum: reading ends before it, and writing goes on there.

What is in it need not be kept in memory: a run is read back when it is asked for.

A journal belongs to one plan, which lies beside it; a run is known in it by its trial.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from steepest.comparison.earlier import Earlier
from steepest.comparison.plan import Setting, Trial
from steepest.errors import InputError
from steepest.training.run import STOP_REASONS, Curve, Record, Run

__all__ = ["Journal"]

_FIRST_LINE = b"steepest journal 1\n"
_FRAME = struct.Struct("<QI")
_SYNC_EVERY_SEC = 0.5


class Journal:
    """What the runs of a plan gave, in a file that only grows, by whole frames.

    Args:
        path: the file; made where there is none. What it holds already is known from the start.
        earlier: the runs of a finished comparison that this one extends.

    Raises:
        InputError: it is no journal, another process writes to it, or it cannot be written.
    """

    def __init__(self, path: Path, earlier: Earlier | None = None) -> None:
        self.earlier = earlier
        self._path = path
        self._known: dict[str, tuple[int, int]] = {}  # where each trial's frame has its content, and how long
        self._synced_at = time.monotonic()
        with _told(path):
            self._file: BinaryIO = open(  # noqa: SIM115
                path, "r+b" if path.exists() else "x+b", buffering=0, opener=_no_link
            )
            try:
                _lock(self._file, path)
                self._size_bytes = self._read()
                self._file.truncate(self._size_bytes)
                if self._size_bytes == 0:
                    self._write(_FIRST_LINE)
            except BaseException:
                self._file.close()
                raise

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, trial: Trial, run: Run) -> Record | None:
        """What the trial gave, if it has been run, read back from the file."""
        place = self._known.get(_key(trial))
        if place is None:
            return None if self.earlier is None else self.earlier.recall(trial, run)
        at, length = place
        with _told(self._path):
            self._file.seek(at)
            payload = self._file.read(length)
        _, facts = _decode(payload)
        return Record(run=run, **facts)

    def append(self, trial: Trial, record: Record) -> bool:
        """Write what a run gave, if it came to an end of its own; whether it was written, and can be recalled.

        Raises:
            InputError: the file system refuses. What was written before is whole.
        """
        if record.stop_reason == "interrupted":
            return False
        key = _key(trial)
        payload = _encode(key, record)
        if payload is None:
            return False
        with _told(self._path):
            at = self._size_bytes + _FRAME.size
            self._write(_FRAME.pack(len(payload), zlib.crc32(payload)) + payload)
            self._known[key] = at, len(payload)
            if time.monotonic() - self._synced_at >= _SYNC_EVERY_SEC:
                os.fsync(self._file.fileno())
                self._synced_at = time.monotonic()
        return True

    def close(self) -> None:
        """Write nothing more."""
        self._file.close()

    def _read(self) -> int:
        """Take note of all whole frames; how many bytes they are."""
        total_bytes = os.fstat(self._file.fileno()).st_size
        first = self._file.read(len(_FIRST_LINE))
        if first != _FIRST_LINE:
            if first and not _FIRST_LINE.startswith(first):
                raise InputError(f"{str(self._path)!r} is not a journal of steepest's; move it away.")
            return 0
        size_bytes = len(_FIRST_LINE)
        while (payload := _next_payload(self._file, total_bytes - size_bytes)) is not None:
            try:
                key, _ = _decode(payload)
            except (
                Exception
            ):  # whole, by its checksum, and yet none of ours: JSON and safetensors fail in many ways
                raise InputError(
                    f"The journal {str(self._path)!r} is damaged: what stands at byte {size_bytes} is no run's."
                ) from None
            self._known[key] = size_bytes + _FRAME.size, len(payload)
            size_bytes += _FRAME.size + len(payload)
        return size_bytes

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        self._file.seek(self._size_bytes)  # from wherever a run was last read back
        try:
            while view:
                view = view[self._file.write(view) :]
        except BaseException:  # a full disk, or a signal's exception between two parts of a frame
            self._file.truncate(self._size_bytes)
            raise
        self._size_bytes += len(data)


def _no_link(path: str, flags: int) -> int:
    """A link could lead anywhere, and a journal is written to."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o644)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The journal {str(path)!r} cannot be written: {error.strerror}. The runs that ended before are in it; "
            "mend that, then go on with --resume."
        ) from None


def _lock(file: BinaryIO, path: Path) -> None:
    """One writer at a time, where the system can tell; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"Another process is at work on {str(path.parent.parent)!r}; let it end, or stop it."
        ) from None


def _key(trial: Trial) -> str:
    cell, setting = trial.cell, trial.setting
    key: list[Any] = [cell.loss, cell.optimizer, cell.regime, trial.lr, trial.seed]
    if setting != Setting(cell, trial.lr):
        key += [setting.epochs, setting.loss_options, setting.optimizer_options]
    return json.dumps(key)


def _next_payload(file: BinaryIO, left_bytes: int) -> bytes | None:
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(head)
    if not 0 < length <= left_bytes - _FRAME.size:
        return None
    payload = file.read(length)
    return payload if zlib.crc32(payload) == checksum else None


def _encode(key: str, record: Record) -> bytes | None:
    """A frame's content; None where a module's state holds something that is no tensor: that run is done again."""
    arrays = {f"curve.{part.name}": getattr(record.curve, part.name) for part in fields(Curve)}
    simple = [part.name for part in fields(Record) if part.name not in ("run", "curve", "parameters")]
    head = {
        "key": key,
        "weights": _kind(record.parameters),
        "facts": {name: getattr(record, name) for name in simple},
    }
    if head["weights"] == "state":
        import torch
        from safetensors.torch import save as save_torch

        if not all(isinstance(tensor, torch.Tensor) for tensor in record.parameters.values()):
            return None
        tensors = {f"weights.{name}": _whole(tensor) for name, tensor in record.parameters.items()}
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        body = save_torch(tensors)
    else:
        from safetensors.numpy import save as save_numpy

        if head["weights"] == "array":
            arrays["weights"] = record.parameters
        body = save_numpy({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    # Python's JSON has NaN, and gives every float back as it was.
    return json.dumps(head, default=_resolved).encode() + b"\n" + body


def _decode(payload: bytes) -> tuple[str, dict[str, Any]]:
    end = payload.index(b"\n")
    head, body = json.loads(payload[:end]), payload[end + 1 :]
    facts = _checked(head["facts"])
    tensors: Mapping[str, Any]
    if head["weights"] == "state":
        from safetensors.torch import load as load_torch

        loaded = load_torch(body)
        state = {name: tensor for name, tensor in loaded.items() if name.startswith("weights.")}
        facts["parameters"] = {name.removeprefix("weights."): tensor for name, tensor in state.items()}
        tensors = {name: tensor.numpy() for name, tensor in loaded.items() if name not in state}
    else:
        from safetensors.numpy import load as load_numpy

        tensors = load_numpy(body)
        facts["parameters"] = tensors.get("weights")
    facts["curve"] = Curve(**{part.name: tensors[f"curve.{part.name}"] for part in fields(Curve)})
    if any(array.ndim != 1 for array in vars(facts["curve"]).values()):
        raise ValueError("a curve is a row of numbers")
    return str(head["key"]), facts


def _checked(facts: dict[str, Any]) -> dict[str, Any]:
    """What a run gave, apart from its curve and weights, each of its kind."""
    expected = {part.name: part.type for part in fields(Record)}
    for name in ("run", "curve", "parameters"):
        del expected[name]
    numbers = [*facts["hyperparameters"].values(), facts["validation_score"], facts["seconds"]]
    counts = [facts[name] for name, kind in expected.items() if kind == "int"]
    if (
        set(facts) != set(expected)
        or not all(isinstance(number, int | float) for number in numbers)
        or not all(type(count) is int for count in counts)
        or facts["stop_reason"] not in STOP_REASONS
    ):
        raise ValueError("this is no record")
    return facts


def _kind(parameters: Any) -> str | None:
    if parameters is None:
        return None
    return "state" if isinstance(parameters, Mapping) else "array"


def _whole(tensor: Any) -> Any:
    """A copy of its own: tied weights share their memory, which safetensors refuses."""
    return tensor.detach().cpu().contiguous().clone()


def _resolved(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item()

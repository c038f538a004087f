"""What is fuzzed: every reader of what another may have written, as a function of bytes.

Each takes any bytes at all and ends, soon and within bounds, in a result or in an ``InputError`` of one sentence.
Whatever else comes out of it is a fault.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from steepest.cli import parse
from steepest.comparison import fit, manifest
from steepest.comparison.budget import seconds_of
from steepest.comparison.canonical import canonical_json
from steepest.comparison.earlier import RUNS, VERDICT, Earlier
from steepest.comparison.extend import finished_plan
from steepest.comparison.fitted import load
from steepest.comparison.journal import _FIRST_LINE, Journal
from steepest.comparison.options import check_architecture, check_seed, check_seeds
from steepest.comparison.plan import Plan
from steepest.comparison.unfinished import go_on, question_of
from steepest.data import prepare, read
from steepest.errors import InputError
from steepest.estimators import SteepestClassifier, SteepestRegressor
from steepest.report import write

Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}


def target(reader: Callable[[bytes, Path], Any], name: str | None = None) -> Target:
    """A reader of bytes that are put where it asks for them, in a directory of its own."""

    def run(data: bytes) -> None:
        refused = "a sentence"
        with tempfile.TemporaryDirectory(prefix="fuzz-") as own, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reader(data, Path(own))
            except InputError as error:
                refused = str(error)
        assert refused.strip(), "no sentence"
        assert "\n" not in refused, f"more than one line: {refused}"

    TARGETS[name or reader.__name__] = run
    return run


def _use(table: Any) -> None:
    """Everything that becomes of a table before training."""
    prepare(table, table.columns[-1])


def _table(suffix: str, data: bytes, place: Path) -> None:
    path = place / f"table{suffix}"
    path.write_bytes(data)
    _use(read(path))


for name, suffix in (("csv", ".csv"), ("tsv", ".tsv"), ("gzipped", ".csv.gz"), ("parquet", ".parquet")):
    target(functools.partial(_table, suffix), name)


@target
def column(data: bytes, place: Path) -> None:
    """The cells of one column, a line each, beside a target: numbers, dates, categories and what looks like them."""
    cells = [cell.replace('"', '""') for cell in data.decode("utf-8", "replace").splitlines()]
    path = place / "table.csv"
    rows = [f'"{cell}",{number % 7}\n' for number, cell in enumerate(cells)]
    path.write_text("a,y\n" + "".join(rows), encoding="utf-8")
    with contextlib.suppress(InputError):
        _use(read(path))
    rows = [f'{number % 7},"{cell}"\n' for number, cell in enumerate(cells)]
    path.write_text("y,a\n" + "".join(rows), encoding="utf-8")  # now it is the target
    _use(read(path))


def _model(place: Path, content: dict[str, Any], weights: bytes) -> None:
    """A model whose manifest vouches for itself and for the weights, whatever they are: a stranger can do as much."""
    content = {name: value for name, value in content.items() if name != "manifest_sha256"}
    content |= {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    content["manifest_sha256"] = manifest._digest(content)
    (place / manifest.MANIFEST).write_text(canonical_json(content), encoding="utf-8", errors="surrogatepass")
    (place / manifest.WEIGHTS).write_bytes(weights)


@functools.cache
def _whole() -> dict[str, bytes]:
    """What is whole, to be put beside what is not."""
    from tests.fuzz.seeds import made

    return made()


def _json(data: bytes) -> dict[str, Any]:
    content = json.loads(data.decode("utf-8", "replace"))
    if not isinstance(content, dict):
        raise InputError("no object")
    return content


@target
def model_manifest(data: bytes, place: Path) -> None:
    """A manifest as it stands; and, where it is an object, one that vouches for itself."""
    (place / manifest.MANIFEST).write_bytes(data)
    (place / manifest.WEIGHTS).write_bytes(_whole()["weights"])
    with contextlib.suppress(InputError):
        load(place)
    try:
        content = _json(data)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(RecursionError):  # of the test's own writing
        _model(place, content, _whole()["weights"])
    for reader in (load, SteepestRegressor.load, SteepestClassifier.load):
        with contextlib.suppress(InputError):
            reader(place)
    load(place).predict(pl.read_csv(io.BytesIO(_whole()["csv"])))


@target
def model_weights(data: bytes, place: Path) -> None:
    _model(place, _json(_whole()["model_manifest"]), data)
    load(place)


@target
def plan(data: bytes, place: Path) -> None:
    found = Plan.from_json(data)
    found.in_words()
    Plan.from_json(found.to_json())


@target
def question(data: bytes, place: Path) -> None:
    (place / "question.json").write_bytes(data)
    question_of(place)


@target
def sums(data: bytes, place: Path) -> None:
    inside = place / "unfinished"
    inside.mkdir()
    (inside / "SHA256SUMS").write_bytes(data)
    (inside / "plan.json").write_bytes(_whole()["plan"])
    (inside / "question.json").write_bytes(_whole()["question"])
    go_on(place)


@target
def journal(data: bytes, place: Path) -> None:
    """A file as it stands; and a frame around it whose checksum fits."""
    (place / "journal").write_bytes(data)
    with contextlib.suppress(InputError):
        Journal(place / "journal").close()
    frame = struct.pack("<QI", len(data), zlib.crc32(data)) + data
    (place / "journal").write_bytes(_FIRST_LINE + frame)
    Journal(place / "journal").close()


@target
def finished(data: bytes, place: Path) -> None:
    (place / "verdict.json").write_bytes(data)
    (place / "plan.json").write_bytes(_whole()["plan"])
    finished_plan(place)


@target
def earlier(data: bytes, place: Path) -> None:
    (place / VERDICT).write_bytes(_whole()["verdict"])
    (place / RUNS).write_bytes(data)
    Earlier(place, Plan.from_json(_whole()["plan"]))


@target
def verdict(data: bytes, place: Path) -> None:
    """A report of records of which one is anything."""
    (place / "verdict.json").write_bytes(data)
    (place / "plan.json").write_bytes(_whole()["plan"])
    (place / "runs.parquet").write_bytes(_whole()["earlier"])
    write(place)


@target
def words(data: bytes, place: Path) -> None:
    """What a person types after an option."""
    text = data.decode("utf-8", "replace")
    for read_words in (
        parse.learning_rate,
        parse.batch_size,
        parse.batch_sizes,
        parse.hidden,
        seconds_of,
        lambda given: parse.names(given, "--losses"),
        lambda given: fit.check_loss_options("huber", parse.options(given, "--loss-options")),
        lambda given: fit.check_optimizer_options("adam", parse.options(given, "--optimizer-options")),
        check_seed,
        check_seeds,
        lambda given: check_architecture(given.split(","), "relu"),
    ):
        with contextlib.suppress(InputError):
            read_words(text)

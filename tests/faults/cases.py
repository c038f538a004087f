"""Every fault as data: how it is made to happen, what is said, and what survives. docs/faults.md is this table."""

from __future__ import annotations

import errno
import gzip
import importlib
import os
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from tests.faults.place import STOPPED, Place, as_another, open_to_all
from tests.fuzz.seeds import CORPUS

from steepest.backends import cpu
from steepest.comparison import compare as comparing
from steepest.comparison import model as models
from steepest.comparison import output
from steepest.data import delimited
from steepest.files import held, write
from steepest.training import native

_READ = importlib.import_module("steepest.data.read")  # the package has a function of that name

# What is left behind: all that stood there before, and nothing new; or what --resume makes whole, to the same bytes, if
# it is not whole yet; the fault itself sees to it.
Then = Literal["untouched", "resumes", "seen to"]

REFUSED, DONE = 2, 0


@dataclass(frozen=True)
class Fault:
    """One way in which the world goes wrong.

    Attributes:
        happens: what, in the words of the docs.
        inject: makes it happen, and runs the command that meets it.
        says: a part of the one sentence that is said; nothing, where there is nothing to say.
        then: what is left.
        code: the command's exit code.
        survives: what becomes of it, in the words of the docs.
    """

    happens: str
    inject: Callable[[Place], None]
    says: str
    then: Then
    survives: str
    code: int = REFUSED

    @property
    def name(self) -> str:
        return self.inject.__name__


@contextmanager
def limit(kind: int, most: int) -> Iterator[None]:
    """A limit of the system's on this process, for a while."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- the disk ------------------------------------------------------------------------------------------------------


def full_disk_in_the_runs(place: Place) -> None:
    size = (place.out / "unfinished" / "journal").stat().st_size
    with limit(resource.RLIMIT_FSIZE, size + 3000):
        place.resume()


def full_disk_in_the_records(place: Place) -> None:
    with place.patch.context() as patch:
        patch.setattr(output, "_to_disk", no_space)
        place.resume()


def full_disk_in_the_report(place: Place) -> None:
    with place.patch.context() as patch:
        patch.setattr(write.os, "fsync", no_space)
        patch.setattr(output, "_to_disk", lambda directory: None)
        place.resume()


def full_disk_in_the_plan(place: Place) -> None:
    with limit(resource.RLIMIT_FSIZE, 100):
        place.compare()
    assert not (place.root / "new").exists()


def full_disk_in_predictions(place: Place) -> None:
    target = place.root / "predictions.csv"
    target.write_text("earlier ones\n")
    with limit(resource.RLIMIT_FSIZE, 100):
        place.steepest("predict", place.finished, place.table, "--out", target)


def full_disk_at_standard_output(place: Place) -> None:
    place.process(["list", "--names"], shell="COMMAND > /dev/full")


def full_disk_in_the_kernel_cache(place: Place) -> None:
    cache = place.root / "kernels"
    with place.patch.context() as patch, limit(resource.RLIMIT_FSIZE, 300):
        patch.setenv("STEEPEST_CACHE_DIR", str(cache))
        kernel = cpu.compile_kernel(_twice, "float64(float64)")
    assert kernel(2.0) == 4.0
    assert not list(cache.iterdir()), "pieces are left"
    cache.rmdir()
    place.resume()


def _twice(x: float) -> float:
    return 2.0 * x


# --- places ----------------------------------------------------------------------------------------------------------


def output_is_a_file(place: Place) -> None:
    place.compare(out=place.table)


def output_under_a_file(place: Place) -> None:
    place.compare(out=place.table / "out")


def output_in_a_circle_of_links(place: Place) -> None:
    (place.root / "one").symlink_to("other")
    (place.root / "other").symlink_to("one")
    place.compare(out=place.root / "one" / "out")


def output_with_a_name_too_long(place: Place) -> None:
    place.compare(out=place.root / ("x" * 300))


def output_where_nothing_may_be_written(place: Place) -> None:
    with open_to_all() as other:
        shutil.copy(place.table, other / "table.csv")
        os.chmod(other, 0o555)
        command = ["compare", other / "table.csv", "--target", "y", "--out", other / "out"]
        place.steepest(*command, within=as_another())
        assert not (other / "out").exists()


def output_that_another_process_writes(place: Place) -> None:
    with held(place.out):
        place.resume()


def data_that_may_not_be_read(place: Place) -> None:
    with open_to_all() as other:
        shutil.copy(place.table, other / "table.csv")
        shutil.copytree(place.finished, other / "finished")
        os.chmod(other / "table.csv", 0o000)
        place.steepest("predict", other / "finished", other / "table.csv", within=as_another())


def names_that_are_not_unicode(place: Place) -> None:
    before = place.files()
    table = Path(os.fsdecode(os.fsencode(place.root) + b"/t\xff.csv"))
    shutil.copy(place.table, table)
    out = Path(os.fsdecode(os.fsencode(place.root) + b"/o\xff"))
    place.compare(table=table, out=out)
    place.steepest("compare", "--extend", out, "--more-seeds", "1", "-q")
    pl.read_csv(place.table).write_parquet(place.root / "t.parquet")
    parquet = table.with_suffix(".parquet")
    (place.root / "t.parquet").rename(parquet)
    code, place.code = place.code, None
    place.steepest("predict", out, parquet, "--out", table)
    place.code = place.code or code
    shutil.rmtree(out)
    table.unlink()
    parquet.unlink()
    place.before = before


# --- the data --------------------------------------------------------------------------------------------------------


def data_that_are_gone(place: Place) -> None:
    place.table.rename(place.root / "away.csv")
    place.resume()
    (place.root / "away.csv").rename(place.table)


def data_that_have_changed(place: Place) -> None:
    whole = place.table.read_bytes()
    place.table.write_bytes(whole.replace(b"1", b"2", 1))
    place.resume()
    place.table.write_bytes(whole)


def data_in_a_pipe(place: Place) -> None:
    os.mkfifo(place.root / "pipe.csv")
    place.compare(table=place.root / "pipe.csv")


def data_in_a_device_without_end(place: Place) -> None:
    (place.root / "zero.csv").symlink_to("/dev/zero")
    place.compare(table=place.root / "zero.csv")


def data_with_a_cell_beyond_reason(place: Place) -> None:
    path = place.root / "cell.csv"
    path.write_bytes(b"a,y\n1,2\n" + b"7" * (delimited.MOST_CELL_BYTES + 1) + b",3\n")
    place.compare(table=path)


def data_larger_than_memory(place: Place) -> None:
    with place.patch.context() as patch:
        patch.setattr(delimited, "available_bytes", lambda: 1000.0)
        place.compare()


def data_packed_beyond_memory(place: Place) -> None:
    path = place.root / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a,y\n" + b"1,2\n" * 10_000_000, 1))
    with place.patch.context() as patch:
        patch.setattr(delimited, "available_bytes", lambda: 20e6)
        place.compare(table=path)


def data_that_claim_more_than_they_hold(place: Place) -> None:
    path = place.root / "claim.parquet"
    pl.DataFrame({"a": pl.repeat(1, 50_000_000, eager=True)}).write_parquet(path, row_group_size=50_000_000)
    with place.patch.context() as patch:
        patch.setattr(_READ, "available_bytes", lambda: 20e6)
        place.compare(table=path)


def data_that_end_what_decodes_them(place: Place) -> None:
    path = place.root / "deadly.parquet"
    path.write_bytes((CORPUS / "parquet" / "3c19fd0063fa22e5").read_bytes())
    place.compare(table=path)


# --- files that are torn or changed ----------------------------------------------------------------------------------


def plan_torn(place: Place) -> None:
    path = place.out / "unfinished" / "plan.json"
    whole = path.read_bytes()
    place.tear(path)
    place.resume()
    path.write_bytes(whole)


def plan_changed(place: Place) -> None:
    path = place.out / "unfinished" / "plan.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"epochs": 2', b'"epochs": 3'))
    place.resume()
    path.write_bytes(whole)


def question_torn(place: Place) -> None:
    path = place.out / "unfinished" / "question.json"
    whole = path.read_bytes()
    place.tear(path)
    place.steepest("compare", "--resume", place.out, "-q")
    path.write_bytes(whole)


def journal_changed_in_its_middle(place: Place) -> None:
    place.turn(place.out / "unfinished" / "journal")
    place.resume()


def journal_that_is_a_link(place: Place) -> None:
    journal = place.out / "unfinished" / "journal"
    other = place.root / "diary"
    other.write_bytes(b"")
    journal.rename(place.root / "journal")
    journal.symlink_to(other)
    place.resume()
    assert other.read_bytes() == b"", "what the link leads to was written to"
    (place.root / "journal").rename(journal)


def checksums_gone(place: Place) -> None:
    (place.out / "unfinished" / "SHA256SUMS").unlink()
    place.resume()


def finished_runs_torn(place: Place) -> None:
    place.tear(place.finished / "runs.parquet")
    place.steepest("compare", "--extend", place.finished, "--more-seeds", "1", "-q")


def finished_verdict_changed(place: Place) -> None:
    path = place.finished / "verdict.json"
    path.write_bytes(path.read_bytes().replace(b"Use ", b"Never use "))
    place.steepest("report", place.finished)


def records_that_are_none(place: Place) -> None:
    (place.finished / "SHA256SUMS").unlink()
    (place.finished / "verdict.json").write_text('{"format": 1, "cells": 7}')
    place.steepest("report", place.finished)


def model_weights_changed(place: Place) -> None:
    place.turn(place.finished / "model" / "model.safetensors", 0.99)
    place.steepest("predict", place.finished, place.table)


def model_manifest_torn(place: Place) -> None:
    place.tear(place.finished / "model" / "manifest.json")
    place.steepest("predict", place.finished, place.table)


def model_that_is_a_link(place: Place) -> None:
    weights = place.finished / "model" / "model.safetensors"
    weights.rename(place.root / "weights")
    weights.symlink_to(place.root / "weights")
    place.steepest("predict", place.finished, place.table)


def kernel_cache_that_others_may_write_to(place: Place) -> None:
    cache = place.root / "kernels"
    cache.mkdir()
    os.chmod(cache, 0o777)
    cpu._warn_of.cache_clear()
    with place.patch.context() as patch, warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        patch.setenv("STEEPEST_CACHE_DIR", str(cache))
        for _ in range(2):
            assert cpu.compile_kernel(_twice, "float64(float64)")(2.0) == 4.0
    assert len(noted) == 1, "said once"
    assert not list(cache.iterdir())
    cache.rmdir()
    place.resume()
    place.err = f"{noted[0].message}\n"


# --- being stopped ---------------------------------------------------------------------------------------------------


def stopped_while_reading(place: Place) -> None:
    with place.patch.context() as patch:
        patch.setattr(comparing, "read", place.signals())
        place.compare()


def stopped_while_planning(place: Place) -> None:
    send, measure = place.signals(), comparing.measure

    def measured(*arguments: Any) -> Any:
        send()
        return measure(*arguments)

    with place.patch.context() as patch:
        patch.setattr(comparing, "measure", measured)
        place.compare("--budget", "60s")


def stopped_while_compiling(place: Place) -> None:
    send, job = place.signals(), native.Job.__init__

    def compiled(self: Any, *arguments: Any) -> None:
        send()
        job(self, *arguments)

    with place.patch.context() as patch:
        patch.setattr(native.Job, "__init__", compiled)
        place.resume()


def stopped_in_the_models_training(place: Place) -> None:
    send, epochs = place.signals(), models._epochs

    def counted(*arguments: Any) -> int:
        send()
        return epochs(*arguments)

    with place.patch.context() as patch:
        patch.setattr(models, "_epochs", counted)
        place.resume()


def stopped_while_writing(place: Place) -> None:
    send, to_disk = place.signals(), output._to_disk

    def written(directory: Path) -> None:
        send()
        to_disk(directory)

    with place.patch.context() as patch:
        patch.setattr(output, "_to_disk", written)
        place.resume()


def killed_between_two_names(place: Place) -> None:
    """The moment in which the old directory is away and the new one is not there yet."""
    away = place.root / ".out-abcdefgh"
    away.mkdir()
    place.out.rename(away / "before")
    (place.root / ".out-12345678").mkdir()  # what was being written
    place.resume()
    assert not list(place.root.glob(".out-*"))


def reader_that_leaves(place: Place) -> None:
    place.process(["explain", "adam"], shell="COMMAND | head -1; exit ${PIPESTATUS[0]}")


def standard_streams_closed(place: Place) -> None:
    place.process(["compare", "--resume", place.out, "-q"], shell="COMMAND >&- 2>&- <&-")


# --- what else there may be too little of, or wrong ------------------------------------------------------------------


def too_few_open_files(place: Place) -> None:
    place.steepest("predict", place.finished, place.table, within=limit(resource.RLIMIT_NOFILE, 3))


def network_beyond_memory(place: Place) -> None:
    place.steepest("fit", place.table, "--target", "y", "--hidden", "1000000000", "--out", place.root / "fit")


def clock_that_jumps(place: Place) -> None:
    now = iter(range(10**9, -(10**9), -(10**6)))
    with place.patch.context() as patch:
        patch.setattr(time, "time", lambda: float(next(now)))
        place.resume()


NAMED = "The file is named, nothing is half-loaded; put back, it goes on to the same bytes."
BEFORE = "What stood there stands there."

FAULTS = [
    Fault(
        "the disk is full while runs are written down",
        full_disk_in_the_runs,
        "File too large. The runs that ended before are in it; mend that, then go on with --resume",
        "resumes",
        "Every run that ended; `--resume` goes on to the same bytes.",
    ),
    Fault(
        "the disk is full while verdict, runs and model are written",
        full_disk_in_the_records,
        "cannot be written: No space left on device",
        "resumes",
        "Every run; `--resume` writes the same bytes.",
    ),
    Fault(
        "the disk is full while the report is written",
        full_disk_in_the_report,
        "report.html' cannot be written: No space left on device",
        "resumes",
        "Verdict, runs and model are there already; `--resume` adds the report.",
    ),
    Fault(
        "the disk is full before the first run",
        full_disk_in_the_plan,
        "cannot be written: File too large",
        "untouched",
        "Nothing has begun.",
    ),
    Fault(
        "the disk is full while predictions are written",
        full_disk_in_predictions,
        "cannot be written: File too large",
        "untouched",
        "The predictions that stood there stand there.",
    ),
    Fault(
        "the disk is full where standard output goes",
        full_disk_at_standard_output,
        "the system refuses: No space left on device",
        "untouched",
        "One sentence, exit code 2.",
    ),
    Fault(
        "the kernel cache has no room",
        full_disk_in_the_kernel_cache,
        "",
        "resumes",
        "Kernels are compiled anew; no pieces are left in the cache.",
        DONE,
    ),
    Fault("the output is a file", output_is_a_file, "is a file; name a directory", "untouched", BEFORE),
    Fault("the output lies under a file", output_under_a_file, "is a file", "untouched", BEFORE),
    Fault(
        "the output leads into a circle of links",
        output_in_a_circle_of_links,
        "is no place to write to: Symlink loop",
        "untouched",
        BEFORE,
    ),
    Fault(
        "the output's name is too long",
        output_with_a_name_too_long,
        "File name too long",
        "untouched",
        BEFORE,
    ),
    Fault(
        "the output may not be written to",
        output_where_nothing_may_be_written,
        "may not be written to",
        "untouched",
        "Refused before any work.",
    ),
    Fault(
        "two comparisons write to one output",
        output_that_another_process_writes,
        "Another process is at work on",
        "resumes",
        "The second is refused at once; the first never notices.",
    ),
    Fault(
        "the data may not be read",
        data_that_may_not_be_read,
        "Permission denied",
        "untouched",
        "One sentence, exit code 2.",
    ),
    Fault(
        "paths are not Unicode",
        names_that_are_not_unicode,
        "",
        "untouched",
        "All is done as with others; a sentence shows `?` in their place.",
        DONE,
    ),
    Fault("the data are gone", data_that_are_gone, "There is no file", "resumes", "Put back, it goes on."),
    Fault(
        "the data have changed",
        data_that_have_changed,
        "made for other data",
        "resumes",
        "Put back, it goes on.",
    ),
    Fault(
        "the data are a pipe",
        data_in_a_pipe,
        "is a pipe or a device",
        "untouched",
        "Refused, not waited for.",
    ),
    Fault(
        "the data are a device without end",
        data_in_a_device_without_end,
        "is a pipe or a device",
        "untouched",
        "Refused before memory is taken.",
    ),
    Fault(
        "the data have a cell beyond all reason",
        data_with_a_cell_beyond_reason,
        "Line 3 of 'cell.csv' has a cell of 1,048,577 bytes",
        "untouched",
        "Refused, with the line.",
    ),
    Fault(
        "the data are larger than the memory",
        data_larger_than_memory,
        "are left; save it as Parquet",
        "untouched",
        "Refused before they are read.",
    ),
    Fault(
        "the data are a small archive of much",
        data_packed_beyond_memory,
        "of text or more",
        "untouched",
        "Unpacked no further than there is memory.",
    ),
    Fault(
        "a Parquet file claims more values than it can hold",
        data_that_claim_more_than_they_hold,
        "claims 50,000,000 values",
        "untouched",
        "Refused before memory is taken.",
    ),
    Fault(
        "a Parquet file ends the process that decodes it",
        data_that_end_what_decodes_them,
        "'deadly.parquet' cannot be decoded: the process that was to do it was ended by SIGABRT",
        "untouched",
        "Refused: it is a process of its own.",
    ),
    Fault(
        "the plan of work under way is torn",
        plan_torn,
        "plan.json' is not what steepest wrote",
        "resumes",
        NAMED,
    ),
    Fault(
        "the plan of work under way was changed",
        plan_changed,
        "plan.json' is not what steepest wrote",
        "resumes",
        NAMED,
    ),
    Fault(
        "the question is torn", question_torn, "question.json' is not what steepest wrote", "resumes", NAMED
    ),
    Fault(
        "a bit of the journal is another",
        journal_changed_in_its_middle,
        "",
        "resumes",
        "The runs before it count, those after it are run again: the same bytes.",
        DONE,
    ),
    Fault(
        "the journal is a link to another file",
        journal_that_is_a_link,
        "Too many levels of symbolic links",
        "resumes",
        "The other file is not written to.",
    ),
    Fault(
        "the checksums are gone",
        checksums_gone,
        "",
        "resumes",
        "It goes on as with an older version's files.",
        DONE,
    ),
    Fault(
        "a finished comparison's runs are torn",
        finished_runs_torn,
        "runs.parquet' is not what steepest wrote",
        "untouched",
        "`--extend` is refused before it begins.",
    ),
    Fault(
        "a verdict was changed by hand",
        finished_verdict_changed,
        "verdict.json' is not what steepest wrote",
        "untouched",
        "No report of it is made.",
    ),
    Fault(
        "a verdict is JSON and yet none",
        records_that_are_none,
        "No page can be made of the records in",
        "untouched",
        "The report that stood there stands there.",
    ),
    Fault(
        "a bit of a model's weights is another",
        model_weights_changed,
        "model.safetensors is not what was saved",
        "untouched",
        "No prediction is made.",
    ),
    Fault(
        "a model's manifest is torn",
        model_manifest_torn,
        "is damaged: manifest.json is no JSON",
        "untouched",
        "No prediction is made.",
    ),
    Fault(
        "a model's file is a link",
        model_that_is_a_link,
        "it is a symbolic link",
        "untouched",
        "It is not followed.",
    ),
    Fault(
        "others may write to the kernel cache",
        kernel_cache_that_others_may_write_to,
        "others may write to it",
        "resumes",
        "Nothing is loaded from it or written to it; said once.",
        DONE,
    ),
    Fault(
        "SIGTERM while the data are read",
        stopped_while_reading,
        "interrupted",
        "untouched",
        "Nothing has begun.",
        STOPPED,
    ),
    Fault(
        "SIGTERM while it plans",
        stopped_while_planning,
        "interrupted",
        "untouched",
        "Nothing has begun.",
        STOPPED,
    ),
    Fault(
        "SIGTERM while kernels are compiled",
        stopped_while_compiling,
        "Go on with it",
        "resumes",
        "The next kernel is not begun.",
        STOPPED,
    ),
    Fault(
        "SIGTERM while the model is trained",
        stopped_in_the_models_training,
        "Go on with it",
        "resumes",
        "All runs; `--resume` trains the model.",
        STOPPED,
    ),
    Fault(
        "SIGTERM while the results are written",
        stopped_while_writing,
        "",
        "resumes",
        "They are written to the end.",
        DONE,
    ),
    Fault(
        "SIGKILL in the moment of renaming",
        killed_between_two_names,
        "",
        "resumes",
        "`--resume` puts back what stood there, and goes on.",
        DONE,
    ),
    Fault("the reader leaves (`| head`)", reader_that_leaves, "", "untouched", "No word about it.", DONE),
    Fault(
        "the standard streams are closed",
        standard_streams_closed,
        "",
        "resumes",
        "Nothing that is printed gets into a file.",
        DONE,
    ),
    Fault(
        "no file can be opened any more",
        too_few_open_files,
        "Too many open files",
        "untouched",
        "One sentence, exit code not 0.",
    ),
    Fault(
        "a network that no memory can hold",
        network_beyond_memory,
        "has 4,000,000,001 parameters",
        "untouched",
        "Refused before memory is taken.",
    ),
    Fault(
        "the clock jumps, forwards and backwards",
        clock_that_jumps,
        "",
        "resumes",
        "Nothing looks at it: budgets and times are by a clock that cannot be set.",
        DONE,
    ),
]

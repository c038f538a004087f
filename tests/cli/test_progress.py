"""What a person sees while a comparison runs."""

from __future__ import annotations

import io
import math
import os
import re
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from rich.file_proxy import FileProxy

from steepest.screen.live import Grid, LiveProgress
from steepest.screen.tally import Tally, print_notes
from steepest.screen.watch import PlainProgress, watch
from steepest.training.run import Curve, Record, Run

from .conftest import Fake


def plan(batch_sizes: tuple[Any, ...] = (32,)) -> Any:
    """What the display needs to know of a plan: two losses, three optimizers, four runs a cell."""
    losses, optimizers = ("mse", "mae"), ("sgd", "adam", "lion")
    return SimpleNamespace(
        losses=losses,
        optimizers=optimizers,
        batch_sizes=batch_sizes,
        schedules=("constant",),
        cells=[(a, b, c) for a in losses for b in optimizers for c in batch_sizes],
        runs_a_cell=4,
        in_words=lambda: ["Plan: 2 losses [sic].", "About 96 runs."],
    )


def record(
    score: float, *, lr: float = 0.01, loss: str = "mae", optimizer: str = "adam", batch_size: Any = 32
) -> Record:
    """A run that ended; it diverged if the score is NaN."""
    nothing = np.zeros(0)
    return Record(
        run=Run(loss, optimizer, lr, batch_size),
        hyperparameters={"lr": lr},
        num_epochs=1,
        num_steps=1,
        num_examples=32,
        stop_reason="diverged" if math.isnan(score) else "epochs",
        best_epoch=1,
        validation_score=score,
        curve=Curve(nothing.astype(np.int64), nothing.astype(np.int64), nothing, nothing),
        seconds=0.1,
        parameters=None,
    )


@pytest.fixture(autouse=True)
def metrics(fake: Fake) -> None:
    fake(
        "steepest.training.metrics",
        METRICS={
            "rmse": SimpleNamespace(title="RMSE", greater_is_better=False),
            "accuracy": SimpleNamespace(title="accuracy", greater_is_better=True),
        },
    )


@pytest.mark.parametrize(("metric", "best"), [("rmse", 51.0), ("accuracy", 53.0)])
def test_the_best_is_by_the_metric_and_divergences_are_counted(metric: str, best: float) -> None:
    tally = Tally()
    tally.start("tune", 4, metric)
    for score in (52.0, math.nan, 51.0, 53.0):
        tally.add(record(score))
    assert tally.best is not None
    assert tally.best.validation_score == best
    assert tally.num_done == 4
    assert tally.summary().endswith("; 1 diverged")


def test_a_new_stage_counts_anew_and_keeps_the_best() -> None:
    tally = Tally()
    tally.start("tune", 2, "rmse")
    tally.add(record(50.0))
    tally.start("confirm", 7, "rmse")
    assert (tally.num_done, tally.num_runs) == (0, 7)
    assert tally.summary() == "best so far mae + adam, rate 0.01: RMSE 50.00"


def test_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("steepest.screen.watch.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    plain = PlainProgress(Console(file=stream, width=120))
    plain.stage_started("tune", 1200, "rmse")
    for _ in range(1200):
        now[0] += 0.01
        plain.run_finished(record(50.0))
    plain.stage_finished()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "    0 s  tuning: 0 of 1,200 runs"
    assert lines[-1] == "   12 s  tuning: 1,200 of 1,200 runs; best so far mae + adam, rate 0.01: RMSE 50.00"
    assert len(lines) == 4  # one at the start, one every five seconds, one at the end


def test_lines_say_how_long_it_takes_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("steepest.screen.watch.time.monotonic", lambda: now[0])
    told = io.StringIO()
    plain = PlainProgress(Console(file=told, width=120))
    plain.plan_made(plan())  # six cells of four runs
    plain.stage_started("tune", 18, "rmse")
    for _ in range(18):
        now[0] += 60.0
        plain.run_finished(record(50.0))
    plain.stage_started("extend", 2, "rmse")  # the plan could not know of these
    for _ in range(2):
        now[0] += 60.0
        plain.run_finished(record(50.0))
    plain.stage_started("confirm", 6, "rmse")
    for _ in range(6):
        now[0] += 60.0
        plain.run_finished(record(50.0))
    lines = [line for line in told.getvalue().splitlines() if "of 18 runs" in line]
    assert "left" not in lines[0]  # nothing has ended yet
    assert "  tuning: 1 of 18 runs; about 23 min left; best so far" in lines[1]
    assert "; about 6 min left; " in lines[-1]
    last = told.getvalue().splitlines()
    assert "extending the rates: 2 of 2 runs; about 6 min left" in told.getvalue()
    assert "5 of 6 runs; about 60 s left" in last[-2]
    assert "left" not in last[-1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(100.0, "100 s"), (7140.0, "119 min"), (7200.0, "2 h"), (9e5, "10 d")]
)
def test_the_time_left_is_in_a_unit_to_plan_with(
    monkeypatch: pytest.MonkeyPatch, seconds: float, said: str
) -> None:
    now = [0.0]
    monkeypatch.setattr("steepest.screen.tally.time.monotonic", lambda: now[0])
    tally = Tally()
    tally.start("tune", 2, "rmse")
    now[0] += seconds
    tally.add(record(50.0))
    assert tally.time_left() == f"about {said} left"


def test_the_last_stage_is_all_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("steepest.screen.tally.time.monotonic", lambda: now[0])
    tally = Tally()
    tally.plan_made(plan())  # 24 runs
    tally.start("confirm", 4, "rmse")
    for _ in range(4):
        now[0] += 60.0
        tally.add(record(50.0))
    tally.start("default", 2, "rmse")
    assert tally.time_left() == "about 2 min left"


def test_runs_that_are_read_back_say_nothing_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("steepest.screen.tally.time.monotonic", lambda: now[0])
    tally = Tally()
    tally.start("tune", 100, "rmse")
    for _ in range(90):
        tally.add(replace(record(50.0), is_recalled=True))
    now[0] += 60.0
    assert tally.time_left() == ""
    tally.add(record(50.0))
    assert tally.time_left() == "about 9 min left"


def test_the_models_training_is_told_of_once_and_without_a_count() -> None:
    told = io.StringIO()
    plain = PlainProgress(Console(file=told, width=120))
    plain.stage_started("model", 0, "rmse")
    plain.stage_finished()
    assert re.fullmatch(r" +\d+ s  training the model that is handed over\n", told.getvalue())


def test_live_picture() -> None:
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    live = LiveProgress(screen)
    with live.drawn():
        live.stage_started("tune", 3, "rmse")
        live.run_finished(record(50.0))
        live.run_finished(record(math.nan))
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    last = drawn[drawn.rindex("tuning") :]
    assert "2/3" in last
    assert "best so far mae + adam, rate 0.01: RMSE 50.00; 1 diverged" in last


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_what_is_printed_beside_the_display_goes_where_it_would_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the display in a terminal; into a file as if there were none."""
    for stdout, is_kept in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr("sys.stdout", stdout)
        screen = Console(file=Terminal(), width=100, force_terminal=True, color_system=None)
        with LiveProgress(screen).drawn():
            sys.stdout.write("of a module\n")
        assert ("of a module" in stdout.getvalue()) == is_kept
        assert ("of a module" in screen.file.getvalue()) != is_kept  # type: ignore[attr-defined]


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="it is about forked data loaders' workers, and this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a data loader has none of the threads that may hold the display's lock just then."""
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setattr("sys.stderr", Terminal())
    screen = Console(file=Terminal(), width=100, force_terminal=True, color_system=None)
    with LiveProgress(screen).drawn():
        assert isinstance(sys.stdout, FileProxy)
        worker = os.fork()
        if worker == 0:
            os._exit(any(isinstance(stream, FileProxy) for stream in (sys.stdout, sys.stderr)))
        assert os.waitpid(worker, 0)[1] == 0
        assert isinstance(sys.stdout, FileProxy)


def drawn(grid: Grid, width: int = 100, height: int = 30) -> list[str]:
    screen = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    screen.print(grid.picture(width, height, ascii_only=False))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_the_grid_fills_in() -> None:
    grid = Grid(plan(), greater_is_better=False)
    for score in (53.0, math.nan, 51.0):
        grid.add(record(score))
    grid.add(record(52.0, loss="mse", optimizer="lion"))
    head, sgd, adam, lion = drawn(grid)
    assert head.split() == ["mse", "mae"]
    assert sgd.split() == ["sgd", "·", "──────", "·", "──────"]
    assert adam.split() == ["adam", "·", "──────", "51.00", "━━━━──", "✗1"]
    assert lion.split() == ["lion", "52.00", "━─────", "·", "──────"]
    assert grid.best == 51.0


def test_the_grid_knows_which_way_is_better() -> None:
    grid = Grid(plan(), greater_is_better=True)
    for score in (0.5, 0.75, math.nan, 0.25):
        grid.add(record(score))
    assert grid.best == 0.75


def test_a_small_terminal_gets_the_best_of_the_grid() -> None:
    grid = Grid(plan((1, "full")), greater_is_better=False)
    grid.add(record(50.0, optimizer="lion", batch_size="full"))
    grid.add(record(51.0, optimizer="sgd", batch_size=1, loss="mse"))
    lines = drawn(grid, width=45, height=8)
    assert [line.split("  ")[0] for line in lines[1:]] == ["lion, full batch", "sgd, batch 1", "and 10 more"]
    assert lines[0].split() == ["mae"]


def test_live_with_a_plan_counts_all_of_it() -> None:
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    live = LiveProgress(screen)
    with live.drawn():
        live.plan_made(plan())
        live.stage_started("tune", 12, "rmse")
        live.run_finished(record(50.0))
        live.stage_finished()
        live.stage_started("extend", 3, "rmse")
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    last = written[written.rindex("extending the rates") :]
    assert "1/27" in last  # 6 cells of 4 runs, and 3 that no plan knows beforehand
    assert "50.00" in last
    assert "Plan: 2 losses [sic]." in written


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_lines_are_broken_between_words_on_a_terminal_and_whole_in_a_file(is_terminal: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: is_terminal  # type: ignore[method-assign]
    screen = Console(file=stream, width=30, height=20, color_system=None)
    note = "twelve words of several lengths that do not fit on one line"
    print_notes(screen, [note])
    lines = stream.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == f"Note: {note}"
    assert (len(lines) > 1) == is_terminal


def test_quiet_is_no_observer_and_a_pipe_gets_lines() -> None:
    with watch(quiet=True) as observer:
        assert observer is None
    with watch(quiet=False) as observer:
        assert isinstance(observer, PlainProgress)


class Noted:
    """What programs put in the place of standard error: it takes lines, and says nothing of itself."""

    def __init__(self) -> None:
        self.told = ""

    def write(self, text: str) -> None:
        self.told += text

    def flush(self) -> None:
        pass


def test_what_stands_in_for_standard_error_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", noted := Noted())
    with watch(quiet=False) as progress:
        assert progress is not None
        progress.stage_started("tune", 3, "rmse")
    assert noted.told == "    0 s  tuning: 0 of 3 runs\n"


def test_a_notebook_gets_lines_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as its kernel has it, and as many a build server
    with watch(quiet=False) as progress:
        assert progress is not None
        progress.stage_started("tune", 3, "rmse")
    assert capsys.readouterr().err == "    0 s  tuning: 0 of 3 runs\n"


def test_without_a_standard_error_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a program without a terminal, where Python has None in its place."""
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        with watch(quiet=False) as progress:
            assert progress is None


def test_what_is_odd_about_the_data_is_said_before_anything_is_trained() -> None:
    told = io.StringIO()
    PlainProgress(Console(file=told, width=200)).data_read(["Column 'leak' [sic] gives the target away."])
    assert told.getvalue().splitlines() == [
        "Note: Column 'leak' [sic] gives the target away.",
        "Getting the kernels ready: about a minute where they have to be compiled, once.",
    ]
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    live = LiveProgress(screen)
    with live.drawn():
        live.data_read(["Column 'id' is left out."])
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert written.index("Note: Column 'id' is left out.") < written.rindex("getting the kernels ready")


def test_the_plan_is_said_before_the_first_stage() -> None:
    told = io.StringIO()
    observer = PlainProgress(Console(file=told, width=200))
    observer.plan_made(plan())
    observer.stage_started("tune", 1, "rmse")
    assert told.getvalue().splitlines()[:2] == ["Plan: 2 losses [sic].", "About 96 runs."]

"""Pruning within a cell: the better third goes on, no cell is lost, and what it cost is found and said."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steepest.comparison.conduct import conduct
from steepest.comparison.plan import Plan, Setting
from steepest.comparison.progress import Silent
from steepest.comparison.records import runs_frame
from steepest.comparison.splits import Split, Splits
from steepest.comparison.trials import Trials
from steepest.comparison.tune import Tuned, tune
from steepest.comparison.verdict import assemble
from steepest.data import Prepared, prepare
from steepest.screen.console import number
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Run, Stop

from .conftest import FakeEngine, trials_of

RUNGS = (0.1, 0.3)
BEST = {"best_rates": {"sgd": 0.1, "adam": 0.01}}


@pytest.fixture
def plan(plan_of: Callable[..., Plan]) -> Plan:
    return replace(plan_of(), rungs=RUNGS)


class SlowStart(FakeEngine):
    """Ranks rates below ``slow_below`` last while a run is short, though at full length the best is among them."""

    slow_below = 0.0

    def error(self, run: Run) -> float:
        is_short = (run.stop.max_epochs or 0) < 100
        return super().error(run) + (10.0 if is_short and run.lr < self.slow_below else 0.0)


def tuned(plan: Plan, engine: Any) -> tuple[list[Tuned], Trials]:
    trials = trials_of(plan, engine)
    return tune(plan, trials), trials


def judge(plan: Plan, prepared: Prepared, engine: Any, num_threads: int = 1) -> tuple[dict[str, Any], Any]:
    outcome = conduct(plan, Splits(plan, Split(prepared, engine)), num_threads, Silent(), threading.Event())
    verdict = assemble(
        plan,
        prepared,
        outcome.trials,
        outcome.contestants,
        outcome.winners,
        sentence=outcome.sentence,
        interrupted=outcome.interrupted,
        notes=outcome.notes,
        seconds=1.0,
    )
    return verdict, runs_frame(plan, outcome.trials)


def test_every_cell_is_pruned_alike_and_none_is_lost(plan: Plan, engine: Callable[..., FakeEngine]) -> None:
    fake = engine(base={("mse", "adam"): 0.01}, **BEST)  # a hundred times better than the others
    found, _ = tuned(plan, fake)
    tried = Counter((run.loss, run.optimizer, run.stop.max_epochs) for run in fake.runs)
    for cell in plan.cells:
        assert [tried[cell.loss, cell.optimizer, epochs] for epochs in (10, 30, 100)] == [
            3 * 16,
            3 * 6,
            3 * 4,
        ]
    assert [one.best for one in found] == [0.1, 0.01] * 2
    assert plan.runs_a_cell - 4 * 10 == 3 * (16 + 6 + 2 + 2)
    assert plan.epochs_a_cell - 4 * 10 * 100 == 3 * (16 * 10 + 6 * 30 + 4 * 100)


def test_the_plans_counts_are_what_runs(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    fake = engine(**BEST)
    judge(plan, prepared, fake)
    defaults_tried_too = 10 * sum(rate in plan.rates[name] for name, rate in plan.default_rates.items())
    assert len(fake.runs) <= len(plan.cells) * plan.runs_a_cell <= len(fake.runs) + 2 * defaults_tried_too
    few = replace(plan, epochs=1)
    assert (few.rung_epochs, few.rates_at_rungs, few.num_finished) == ((), (16,), 0)


def test_the_better_go_on_by_the_mean_over_seeds(plan: Plan, engine: Callable[..., FakeEngine]) -> None:
    _, trials = tuned(plan, engine(noise=0.3, **BEST))
    for cell in plan.cells:
        rates = plan.rates[cell.optimizer]
        means = {lr: trials.mean_score(Setting(cell, lr, 10), plan.tuning_seeds) for lr in rates}
        went_on = {trial.lr for trial in trials.entries if trial.cell == cell and trial.setting.epochs == 30}
        assert went_on == set(sorted(rates, key=means.__getitem__)[:6])


def test_a_rate_that_was_cut_wrongly_is_found_taken_and_told(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    fake = SlowStart(prepared.training_data(), curvature=0.5, **BEST)
    fake.slow_below = 0.05  # sgd's best rate is above it, adam's below
    verdict, _ = judge(plan, prepared, fake)
    pruning = verdict["pruning"]
    assert (pruning["rung_epochs"], pruning["rates"]) == ([10, 30], [16, 6, 2])
    assert pruning["num_finished"] == 2 * len(plan.cells)
    assert pruning["num_regretted"] == 2
    assert pruning["worst"]["optimizer"] == "adam"
    cells = {(cell["loss"], cell["optimizer"]): cell for cell in verdict["cells"] if cell["kind"] == "tuned"}
    assert cells["mse", "sgd"]["regret"] == 0
    # All that look good early lie from 0.1; the best that the first rung cut is 0.00464, beside the truly best.
    beaten, better = (fake.error(Run("mse", "adam", lr)) for lr in (0.1, 0.00464))
    assert cells["mse", "adam"]["regret"] == pytest.approx(beaten - better, abs=0.01)
    assert cells["mse", "adam"]["lr"] == 0.01
    assert pruning["regret"] == max(cell["regret"] for cell in cells.values()) > 0
    (note,) = (note for note in verdict["notes"] if note.startswith("Pruned after 10 and 30 of 100 epochs"))
    assert "In 2 of 4 pairs the best of them beat all that went on" in note
    assert f"{number(pruning['regret'])} RMSE" in note


def test_where_pruning_was_right_the_regret_is_none(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    verdict, runs = judge(plan, prepared, engine(**BEST))
    assert verdict["pruning"]["num_regretted"] == verdict["pruning"]["regret"] == 0
    assert any(note.endswith("a regret of 0.") for note in verdict["notes"])
    cut = runs.filter(runs["stop_reason"] == "pruned")
    assert set(cut["stage"]) == {"rung"}
    assert cut.height == verdict["pruning"]["num_pruned_runs"] == 4 * 3 * (10 + 4)
    assert set(runs.filter(runs["stage"] == "finish")["num_epochs"]) == {100}


def test_without_rungs_nothing_is_said_of_pruning(
    plan_of: Callable[..., Plan], prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    verdict, runs = judge(plan_of(), prepared, engine(**BEST))
    assert verdict["pruning"] is None
    assert {cell["regret"] for cell in verdict["cells"]} == {None}
    assert "rung" not in set(runs["stage"])


def test_where_all_that_went_on_diverge_others_take_their_place(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    fake = engine(diverges=lambda run: run.stop.max_epochs == 100 and run.lr > 0.001, **BEST)
    found, _ = tuned(plan, fake)
    assert {one.best for one in found} == {0.001}
    assert {one.regret for one in found} == {None}
    found, _ = tuned(plan, engine(diverges=lambda run: run.stop.max_epochs == 100))
    assert not any(one.at_edge for one in found)
    verdict, _ = judge(plan, prepared, engine(diverges=lambda run: run.stop.max_epochs == 100))
    assert any("what pruning cost is not known" in note for note in verdict["notes"])


def test_a_best_rate_at_the_edge_is_followed_further(plan: Plan, engine: Callable[..., FakeEngine]) -> None:
    found, trials = tuned(plan, engine(best_rates={"sgd": 0.1, "adam": 1.0}))
    (adam, *_) = (one for one in found if one.cell.optimizer == "adam")
    assert (adam.best, adam.at_edge) == (1.0, False)
    assert {trial.setting.epochs for trial, entry in trials.entries.items() if entry.stage == "extend"} == {
        None
    }


def test_the_same_on_one_thread_and_on_many(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine]
) -> None:
    (one, runs), (many, again) = (judge(plan, prepared, engine(**BEST), threads) for threads in (1, 4))
    assert one == many
    assert runs.equals(again)


@pytest.mark.parametrize("num_runs", [1, 100, 250, 285])
def test_an_interruption_among_the_rungs_has_an_answer(
    plan: Plan, prepared: Prepared, engine: Callable[..., FakeEngine], num_runs: int
) -> None:
    verdict, _ = judge(plan, prepared, engine(base={("mse", "adam"): 0.5}, interrupt_after=num_runs, **BEST))
    assert verdict["status"] == "interrupted"
    assert verdict["pruning"] is None
    assert len(verdict["winners"]) == 1
    if num_runs > 1:
        assert verdict["winners"][0]["optimizer"] == "adam"
        assert len(verdict["cells"]) == 4


@pytest.mark.parametrize("batch_size", ["full", 1, 16])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "nadam", "asgd", "rprop", "lamb"])
def test_a_short_run_is_the_beginning_of_the_long_one(pair: Any, optimizer: str, batch_size: Any) -> None:
    data = prepare(pair).training_data()
    short, long = (
        Run("huber", optimizer, 0.01, batch_size, 3, Architecture((5,), "tanh"), Stop(max_epochs=epochs))
        for epochs in (3, 8)
    )
    few, many = NativeEngine(data, "rmse").run_all([short, long], num_threads=1)
    assert few is not None
    assert many is not None
    for name in ("epoch", "step", "train_loss", "validation_score"):
        assert np.array_equal(getattr(few.curve, name), getattr(many.curve, name)[:3])
    assert few.validation_score == many.curve.validation_score[:3].min()

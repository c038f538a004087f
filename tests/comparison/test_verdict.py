"""From a plan to a verdict: fresh seeds, untouched test rows, winner sets, divergence, interruption."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from steepest.comparison.canonical import canonical_json
from steepest.comparison.conduct import Outcome, conduct
from steepest.comparison.plan import Plan
from steepest.comparison.progress import Silent
from steepest.comparison.records import runs_frame
from steepest.comparison.sentence import sentence
from steepest.comparison.splits import Split, Splits
from steepest.comparison.verdict import assemble
from steepest.data import Prepared

Verdict = dict[str, Any]


@pytest.fixture
def judge(prepared: Prepared) -> Callable[..., tuple[Verdict, Outcome]]:
    """``judge(plan, engine)``: the verdict on a plan, and everything behind it."""

    def judged(plan: Plan, engine: Any, num_threads: int = 1) -> tuple[Verdict, Outcome]:
        outcome = conduct(
            plan, Splits(plan, Split(prepared, engine)), num_threads, Silent(), threading.Event()
        )
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
        return verdict, outcome

    return judged


def pairs(cells: list[Verdict]) -> set[tuple[str, str]]:
    return {(cell["loss"], cell["optimizer"]) for cell in cells}


# The defaults (0.001) are a decade and more away from the best rates planted here: tuning helps.
CLEAR = {"best_rates": {"sgd": 0.1, "adam": 0.1}, "noise": 0.002}
WINNER = {("mse", "adam"): 0.5}


def test_a_planted_winner_is_the_only_one(plan_of: Any, engine: Any, judge: Any) -> None:
    verdict, _ = judge(plan_of(), engine(base=WINNER, **CLEAR))
    (winner,) = verdict["winners"]
    assert (winner["loss"], winner["optimizer"], winner["kind"], winner["lr"]) == (
        "mse",
        "adam",
        "tuned",
        0.1,
    )
    assert winner["score"] == pytest.approx(0.5, abs=0.005)
    assert winner["interval"][0] < winner["score"] < winner["interval"][1]
    assert winner["difference"] == [0, 0]
    assert verdict["sentence"].startswith("Use MSE with Adam at learning rate 0.1 (batch 32): test RMSE 0.5")
    assert verdict["sentence"].endswith("over 10 seeds), better than the other 3 pairs.")
    assert verdict["cells"][0] == winner
    assert all(cell["difference"][0] > 0.005 for cell in verdict["cells"][1:])
    # Ten seeds that all say the same give 2 / 2**10, times the seven tests.
    assert winner["p_value"] is None
    assert {cell["p_value"] for cell in verdict["cells"][1:]} == {7 * 2 / 2**10}


def test_a_planted_tie_is_called_one(plan_of: Any, engine: Any, judge: Any) -> None:
    verdict, _ = judge(plan_of(), engine(**CLEAR))
    assert len(pairs(verdict["winners"])) == 4
    assert {cell["kind"] for cell in verdict["winners"]} == {"tuned"}
    assert "No clear winner: 4 of 4 pairs are equally good" in verdict["sentence"]
    assert "the easiest to tune" in verdict["sentence"]


def test_a_difference_below_one_percent_is_a_tie(plan_of: Any, engine: Any, judge: Any) -> None:
    close = {("mse", "adam"): 0.996}
    verdict, _ = judge(plan_of(), engine(base=close, best_rates={"sgd": 0.1, "adam": 0.1}, noise=1e-5))
    assert len(pairs(verdict["winners"])) == 4


def test_an_untuned_default_that_nothing_beats_is_named(plan_of: Any, engine: Any, judge: Any) -> None:
    at_default = {"adam": 0.001, "sgd": 0.1}
    verdict, outcome = judge(plan_of(), engine(base=WINNER, best_rates=at_default))
    assert verdict["winners"][0]["kind"] == "default"
    assert verdict["winners"][0]["tuned"] is False
    assert verdict["sentence"].startswith("Nothing beat an untuned default: use MSE with Adam at its default")
    assert verdict["sentence"].endswith("better than the other 3 pairs.")
    kinds = [cell["kind"] for cell in verdict["cells"]]
    assert kinds.count("default") == kinds.count("tuned") == 4
    stages = {entry.stage for entry in outcome.trials.entries.values()}
    assert stages == {"tune", "confirm", "default"}


def test_the_default_at_the_best_rate_is_the_same_runs(plan_of: Any, engine: Any, judge: Any) -> None:
    fake = engine(best_rates={"adam": 0.001})
    plan = plan_of(losses=["mse"], optimizers=["adam"])
    verdict, _ = judge(plan, fake)
    assert len(fake.runs) == len(set(map(str, fake.runs))) == 3 * len(plan.rates["adam"]) + 3 * 10
    tuned, default = sorted(verdict["cells"], key=lambda cell: str(cell["kind"]), reverse=True)
    assert (tuned["score"], tuned["interval"]) == (default["score"], default["interval"])


def test_confirmation_takes_the_best_rate_and_its_neighbours_on_fresh_seeds(
    plan_of: Any, engine: Any, judge: Any
) -> None:
    plan, fake = plan_of(losses=["mse"], optimizers=["adam"]), engine(**CLEAR)
    judge(plan, fake)
    fresh = [run for run in fake.runs if run.seed in plan.confirmation_seeds]
    assert {run.lr for run in fresh} == {0.0464, 0.1, 0.215, 0.001}
    assert {run.seed for run in fresh} == set(plan.confirmation_seeds)
    assert not set(plan.confirmation_seeds) & {run.seed for run in fake.runs if run not in fresh}


def test_the_test_rows_are_touched_once_by_finalists_alone(
    plan_of: Any, engine: Any, judge: Any, prepared: Prepared
) -> None:
    plan, fake = plan_of(), engine(**CLEAR)
    verdict, outcome = judge(plan, fake)
    assert {rows for _, rows in fake.predicted} == {len(prepared.y_test)}
    touched = [str(run) for run, _ in fake.predicted]
    assert len(touched) == len(set(touched)) == 10 * len(verdict["cells"])
    finalists = {(cell["loss"], cell["optimizer"], cell["lr"]) for cell in verdict["cells"]}
    assert {(run.loss, run.optimizer, run.lr) for run, _ in fake.predicted} == finalists
    scored = [trial for trial, entry in outcome.trials.entries.items() if entry.test]
    assert {trial.seed for trial in scored} == set(plan.confirmation_seeds)
    assert set(verdict["cells"][0]["test"]) == {"rmse", "mae"}


def test_what_stays_at_the_edge_is_barred_though_it_is_best(plan_of: Any, engine: Any, judge: Any) -> None:
    fake = engine(base=WINNER, best_rates={"adam": 1e6, "sgd": 0.1}, curvature=0.01)
    verdict, _ = judge(plan_of(), fake)
    barred = [cell for cell in verdict["cells"] if cell["barred"]]
    assert {(cell["optimizer"], cell["kind"]) for cell in barred} == {("adam", "tuned")}
    assert all("not tuned" in cell["barred"] and not cell["tuned"] for cell in barred)
    assert verdict["cells"][-len(barred) :] == barred
    assert not any(cell["barred"] for cell in verdict["winners"])
    assert any("Barred from winning" in note for note in verdict["notes"])


def test_a_fresh_seed_that_diverges_bars_the_cell(plan_of: Any, engine: Any, judge: Any) -> None:
    plan = plan_of()
    unlucky = plan.confirmation_seeds[0]
    fake = engine(base=WINNER, diverges=lambda run: run.optimizer == "adam" and run.seed == unlucky, **CLEAR)
    verdict, _ = judge(plan, fake)
    barred = {(cell["optimizer"], cell["barred"]) for cell in verdict["cells"] if cell["barred"]}
    assert barred == {("adam", "diverged on 1 of 10 fresh seeds")}
    assert verdict["num_diverged"] > 0
    cell = next(cell for cell in verdict["cells"] if cell["barred"] and cell["kind"] == "tuned")
    assert "2 of 4 pairs" in verdict["sentence"]
    assert cell["num_seeds"] == 9
    assert cell["difference"] is None


def test_the_sentence_counts_who_took_part(plan_of: Any, engine: Any, judge: Any) -> None:
    fake = engine(base=WINNER, diverges=lambda run: run.loss == "mae" and run.optimizer == "sgd", **CLEAR)
    verdict, _ = judge(plan_of(), fake)
    assert verdict["sentence"].endswith("better than the other 2 pairs (1 barred).")
    verdict, _ = judge(plan_of(), engine(diverges=lambda run: run.loss + run.optimizer != "mseadam", **CLEAR))
    assert verdict["sentence"].endswith("; every other pair is barred.")
    verdict, _ = judge(plan_of(losses=["mse"], optimizers=["adam"]), engine(**CLEAR))
    assert verdict["sentence"].endswith(", better than its untuned default.")


def test_a_default_among_the_winners_is_not_called_worse(plan_of: Any, engine: Any, judge: Any) -> None:
    plan = plan_of(losses=["mse"], optimizers=["adam"])
    _, outcome = judge(plan, engine(**CLEAR))
    text = sentence(plan, outcome.contestants, outcome.contestants)
    assert text.endswith("; its untuned default is as good, as far as the seeds can tell.")


@pytest.mark.parametrize(
    ("size", "written"),
    [(51e-12, "5.100e-11 (95% interval 5.000e-11 to 5.200e-11"),
     (51.0, "51.0 (95% interval 50.0 to 52.0"), (51e3, "51,000 (95% interval 50,000 to 52,000"),
     (51e9, "5.100e+10 (95% interval 5.000e+10 to 5.200e+10")],
)  # fmt: skip
def test_scores_of_any_size_are_written_as_in_the_table(
    size: float, written: str, plan_of: Any, engine: Any, judge: Any
) -> None:
    plan = plan_of(losses=["mse"], optimizers=["adam"])
    _, outcome = judge(plan, engine(**CLEAR))
    unit = size / 51
    take = replace(outcome.winners[0], scores=np.full(10, size), interval=(50 * unit, 52 * unit))
    assert f"test RMSE {written} over 10 seeds)" in sentence(plan, [take], [take])


def test_where_everything_diverges_nothing_is_recommended(plan_of: Any, engine: Any, judge: Any) -> None:
    verdict, _ = judge(plan_of(), engine(diverges=lambda run: True))
    assert verdict["winners"] == []
    assert verdict["num_diverged"] == verdict["num_runs"]
    assert "No pair can be recommended: all 4 are barred" in verdict["sentence"]
    alone, _ = judge(plan_of(losses=["mse"], optimizers=["adam"]), engine(diverges=lambda run: True))
    assert "No pair can be recommended: the only one is barred (MSE with Adam" in alone["sentence"]
    assert all(cell["score"] is None and cell["interval"] == [None, None] for cell in verdict["cells"])
    json.loads(canonical_json(verdict))


def test_the_same_bytes_on_one_thread_and_on_many(plan_of: Any, engine: Any, judge: Any) -> None:
    plan = plan_of(batch_sizes=("full", 32))
    texts, frames = set(), []
    for num_threads in (1, 4):
        verdict, outcome = judge(plan, engine(**CLEAR), num_threads)
        texts.add(canonical_json(verdict))
        frames.append(runs_frame(plan, outcome.trials))
    assert len(texts) == 1
    assert frames[0].equals(frames[1])
    assert "8 combinations" in texts.pop()


def test_a_greater_metric_is_ranked_the_other_way(
    plan_of: Any, engine: Any, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from steepest.training.metrics import METRICS

    upwards = dataclasses.replace(METRICS["rmse"], greater_is_better=True)
    monkeypatch.setitem(METRICS, "rmse", upwards)
    fake = engine(base={("mse", "adam"): 2.0}, curvature=-0.1, best_rates={"sgd": 0.1, "adam": 0.1})
    verdict, _ = judge(plan_of(), fake)
    (winner,) = verdict["winners"]
    assert (winner["loss"], winner["optimizer"], winner["lr"]) == ("mse", "adam", 0.1)
    assert all(cell["difference"][1] < 0 for cell in verdict["cells"][1:])


@pytest.mark.parametrize("raises", [False, True], ids=["event", "KeyboardInterrupt"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.1, 1.4], ids="{} of tuning".format)
def test_an_interruption_keeps_what_finished(
    plan_of: Any, engine: Any, judge: Any, raises: bool, share: float
) -> None:
    plan = plan_of()
    num_tuning = len(plan.cells) * 3 * len(plan.rates["adam"])
    num_runs = max(1, round(share * num_tuning))
    fake = engine(base=WINNER, interrupt_after=num_runs, raises=raises, **CLEAR)
    verdict, outcome = judge(plan, fake)
    assert verdict["status"] == "interrupted"
    assert verdict["num_runs"] == num_runs == runs_frame(plan, outcome.trials).height
    assert fake.predicted == []
    assert verdict["sentence"].startswith("Interrupted: no verdict. So far ")
    assert len(verdict["winners"]) == 1
    # A pair that was not tried is not listed.
    assert len(verdict["cells"]) == (4 if share > 0 else 1)
    assert all(cell["score"] is not None for cell in verdict["cells"])
    for cell in verdict["cells"]:  # one seed says nothing of luck
        low, high = cell["interval"]
        assert (low is None and high is None) if cell["num_seeds"] == 1 else low < high
    if share > 0:
        assert pairs(verdict["winners"]) == {("mse", "adam")}
    json.loads(canonical_json(verdict))


def test_an_interruption_before_any_score_says_so(plan_of: Any, engine: Any, judge: Any) -> None:
    verdict, _ = judge(plan_of(), engine(diverges=lambda run: True, interrupt_after=5))
    assert verdict["winners"] == []
    assert "nothing to say yet" in verdict["sentence"]


def test_an_interruption_before_any_run_says_so(plan_of: Any, engine: Any, prepared: Prepared) -> None:
    stop_event = threading.Event()
    stop_event.set()
    fake = engine()
    plan = plan_of()
    outcome = conduct(plan, Splits(plan, Split(prepared, fake)), 1, Silent(), stop_event)
    assert outcome.interrupted
    assert fake.runs == []
    assert "nothing to say yet" in outcome.sentence
    assert runs_frame(plan_of(), outcome.trials).height == 0


def test_the_runs_say_what_was_read_back_and_what_was_scored(plan_of: Any, engine: Any, judge: Any) -> None:
    plan = plan_of(batch_sizes=("full",))
    verdict, outcome = judge(plan, engine(diverges=lambda run: run.lr > 0.5, **CLEAR))
    runs = runs_frame(plan, outcome.trials)
    assert runs.height == verdict["num_runs"]
    assert runs["run_id"].to_list() == list(range(runs.height))
    assert set(runs["batch_size"]) == {"full"}
    assert runs["hyper_lr"].to_list() == runs["lr"].to_list()
    assert runs["validation_score"].null_count() == runs["diverged"].sum() == verdict["num_diverged"] > 0
    scored = runs.filter(runs["test_rmse"].is_not_null())
    assert set(scored["stage"]) == {"confirm", "default"}
    assert scored.height == 10 * len(verdict["cells"])
    assert not any(
        value is not None and value != value for curve in runs["curve_validation"] for value in curve
    )


def test_a_winner_that_was_still_improving_is_said_to_be(plan_of: Any, engine: Any, judge: Any) -> None:
    """A fake run is best at its end; one that was best early has nothing said of it."""
    note = "still improving when its runs ended, at epoch 5; longer ones may choose another pair"
    verdict, _ = judge(plan_of(max_epochs=5), engine(base=WINNER, **CLEAR))
    assert any(note in said for said in verdict["notes"])
    early = engine(base=WINNER, **CLEAR)
    made = early.record

    def best_at_first(run: Any) -> Any:
        record = made(run)
        record.best_epoch = 4
        return record

    early.record = best_at_first
    verdict, _ = judge(plan_of(max_epochs=5), early)
    assert not any("still improving" in said for said in verdict["notes"])

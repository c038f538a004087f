"""``compare`` from a table to a directory, on the fake engine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from steepest.comparison.compare import Comparison, compare
from steepest.comparison.fitted import FittedModel, load
from steepest.comparison.plan import Plan
from steepest.data import Prepared, prepare
from steepest.errors import InputError
from steepest.training.native import NativeEngine
from steepest.training.run import Record

SMALL = {"losses": ["mse", "mae"], "optimizers": ["sgd", "adam"], "hidden": (), "splits": 1}
FILES = {"verdict.json", "plan.json", "runs.parquet", "model", "report.html", "question.json", "SHA256SUMS"}


@pytest.fixture
def fakes(engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every engine that is started is a fake one; the list of them."""
    started: list[Any] = []

    def start(data: Any, metric: str) -> Any:
        started.append(engine(data, best_rates={"sgd": 0.1, "adam": 0.1}, base={("mse", "adam"): 0.5}))
        return started[-1]

    monkeypatch.setattr("steepest.comparison.compare.start_engine", start)
    return started


@pytest.fixture
def blank_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing charts takes seconds, and is tested elsewhere."""
    monkeypatch.setattr("steepest.report.build", lambda verdict, plan, runs, lang: "<html>")


def texts(place: Path) -> dict[str, bytes]:
    """The files of a comparison, times apart."""
    verdict = json.loads((place / "verdict.json").read_text(encoding="utf-8"))
    verdict["seconds"] = 0.0
    names = ("plan.json", "model/model.safetensors", "model/manifest.json")
    return {"verdict": json.dumps(verdict).encode()} | {name: (place / name).read_bytes() for name in names}


@pytest.mark.usefixtures("fakes", "blank_report")
def test_a_comparison_writes_its_files_and_hands_over_the_model(pair: Any, tmp_path: Path) -> None:
    comparison = compare(pair, out=tmp_path / "out", **SMALL)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "verdict.json").read_text(encoding="utf-8")) == comparison.verdict
    assert pl.read_parquet(tmp_path / "out" / "runs.parquet").equals(comparison.runs)
    assert comparison.verdict["status"] == "complete"
    assert not comparison.interrupted
    assert comparison.model is not None
    again = load(tmp_path / "out" / "model")
    np.testing.assert_array_equal(again.predict(pair[0]), comparison.model.predict(pair[0]))


@pytest.mark.usefixtures("fakes")
def test_the_model_is_the_winners_trained_on_all_but_the_test_rows(pair: Any) -> None:
    comparison = compare(pair, max_epochs=7, **SMALL)
    winner, model, prepared = comparison.verdict["winners"][0], comparison.model, prepare(pair)
    assert isinstance(model, FittedModel)
    run = model.record.run
    assert (run.loss, run.optimizer, run.lr) == tuple(winner[name] for name in ("loss", "optimizer", "lr"))
    own = comparison.runs.filter(
        pl.col("loss") == winner["loss"],
        pl.col("optimizer") == winner["optimizer"],
        pl.col("lr") == winner["lr"],
        pl.col("stage") == "confirm",
    )
    assert own.height == 10
    assert run.seed == own.sort("validation_score")["seed"][0]
    assert set(own["best_epoch"]) == {7}  # a fake run improves to its end, so one goes on, ten times as long
    assert run.stop.max_epochs == 70
    assert run.schedule == "wsd"  # the comparison's were constant
    again = NativeEngine(prepared.all_but_test(), "rmse").run_all([run])[0]
    assert again.num_examples == 70 * 160
    np.testing.assert_array_equal(
        np.concatenate([part.ravel() for part in model.layers[0]]), again.parameters
    )
    errors = model.predict(pair[0][prepared_test_rows(prepared, pair)]) - prepared.y_test_original
    assert comparison.verdict["model"] == {
        "seed": run.seed,
        "epochs": 70,
        "schedule": "wsd",
        "num_rows": 160,
        "test": {
            "rmse": pytest.approx(np.sqrt((errors**2).mean()), rel=1e-5),
            "mae": pytest.approx(np.abs(errors).mean(), rel=1e-5),
        },
    }


@pytest.mark.usefixtures("fakes")
def test_a_model_whose_steps_are_without_noise_keeps_its_rate(pair: Any) -> None:
    comparison = compare(pair, max_epochs=7, batch_sizes=["full"], **SMALL)
    assert comparison.model is not None
    assert comparison.model.record.run.schedule == comparison.verdict["model"]["schedule"] == "constant"


def prepared_test_rows(prepared: Prepared, pair: Any) -> list[int]:
    """Where in the pair the test rows stand."""
    return [int(np.flatnonzero(pair[1] == target)[0]) for target in prepared.y_test_original]


@pytest.mark.usefixtures("fakes")
def test_a_model_that_diverges_on_more_rows_is_the_winners_best_run(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverges(NativeEngine):
        def run_all(self, runs: Any, **options: Any) -> Any:
            records = super().run_all(runs, **options)
            for record in records:
                record.stop_reason = "diverged"
            return records

    monkeypatch.setattr("steepest.comparison.model.start_engine", Diverges)
    comparison = compare(pair, **SMALL)
    model, winner = comparison.model, comparison.verdict["winners"][0]
    assert isinstance(model, FittedModel)
    assert comparison.verdict["model"] is None
    own = comparison.runs.filter(pl.col("lr") == winner["lr"], pl.col("stage") == "confirm")
    assert model.record.validation_score == own["validation_score"].min()
    np.testing.assert_allclose(model.predict(pair[0]) - pair[1], model.record.validation_score, atol=1e-5)


@pytest.mark.usefixtures("blank_report")
def test_the_same_bytes_again_on_more_threads_and_from_the_plan(
    fakes: list[Any], pair: Any, tmp_path: Path
) -> None:
    compare(pair, out=tmp_path / "one", num_threads=1, **SMALL)
    compare(pair, out=tmp_path / "many", num_threads=4, **SMALL)
    compare(pair, out=tmp_path / "planned", plan=tmp_path / "one" / "plan.json")
    assert texts(tmp_path / "one") == texts(tmp_path / "many") == texts(tmp_path / "planned")
    assert len(fakes) == 3


@pytest.mark.usefixtures("blank_report")
def test_a_trimmed_plan_is_run_again_without_measuring(fakes: list[Any], pair: Any, tmp_path: Path) -> None:
    compare(pair, out=tmp_path / "trimmed", budget="1s", num_threads=1, **SMALL)
    compare(pair, out=tmp_path / "planned", num_threads=1, plan=tmp_path / "trimmed" / "plan.json")
    assert texts(tmp_path / "trimmed") == texts(tmp_path / "planned")
    verdict = json.loads((tmp_path / "trimmed" / "verdict.json").read_text(encoding="utf-8"))
    assert any(note.startswith("To keep to the budget") for note in verdict["notes"])
    measured = [run for run in fakes[0].runs if run.stop.max_steps is not None]
    assert len(measured) == 1 + 2  # a first step apart, then one run an optimizer
    assert len(fakes[1].runs) == len(fakes[0].runs) - len(measured)


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"losses": ["mse"]}, "decided losses already"),
        ({"seeds": 5}, "decided seeds already"),
        ({"seed": 1}, "decided seed already"),
        ({"budget": "60s"}, "decided budget already"),
        ({"task": "binary"}, "decided task already"),
        ({"metric": "mae"}, "decided metric already"),
    ],
)
def test_a_plan_and_an_option_are_not_mixed(pair: Any, options: dict[str, Any], words: str) -> None:
    plan = compare(pair, **SMALL).plan
    with pytest.raises(InputError, match=words):
        compare(pair, plan=plan, **options)


@pytest.mark.usefixtures("fakes", "blank_report")
@pytest.mark.parametrize("option", ["group", "time"])
def test_the_plan_remembers_the_column_that_splits(pair: Any, tmp_path: Path, option: str) -> None:
    table = pl.DataFrame({"a": pair[0][:, 0], "g": np.arange(200) // 10, "y": pair[1]})
    compare(table, "y", out=tmp_path / "one", **{option: "g"}, **SMALL)
    again = compare(table, "y", out=tmp_path / "planned", plan=tmp_path / "one" / "plan.json")
    assert texts(tmp_path / "one") == texts(tmp_path / "planned")
    assert (again.verdict[option], again.verdict["num_features"]) == ("g", 1)
    assert again.model is not None
    again.model.predict(table.select("a"))  # the column is not asked for
    with pytest.raises(InputError, match=f"decided {option} already"):
        compare(table, "y", plan=again.plan, **{option: "a"})


def test_modules_come_in_their_parts_already(pair: Any) -> None:
    with pytest.raises(InputError, match="leave group out"):
        compare((pair, pair, pair), model=lambda: None, group="g")  # type: ignore[arg-type,return-value]


@pytest.mark.usefixtures("fakes")
def test_a_plan_for_other_data_is_refused(pair: Any) -> None:
    plan = compare(pair, **SMALL).plan
    with pytest.raises(InputError, match=r"made for other data.*; give the data that it was made for"):
        compare((pair[0] + 1, pair[1]), plan=plan)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"losses": ["nonsense"]}, "no loss 'nonsense'"),
        ({"seeds": 1}, "seeds"),
        ({"budget": "soon"}, "budget"),
        ({"num_threads": 0}, "num_threads"),
        ({"seed": "x"}, "seed"),
        ({"task": "ranking"}, "ranking"),
        ({"tune": "everything"}, "'rates' or 'all', not 'everything'"),
        ({"lang": "fr"}, "no language 'fr'"),
        ({"plan": "nowhere.json"}, "cannot be read"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(
    fakes: list[Any], pair: Any, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        compare(pair, out=tmp_path / "out", **options)
    assert fakes == []
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_may_not_be_written_is_refused_before_anything_runs(
    fakes: list[Any], pair: Any, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not written by steepest"):
        compare(pair, out=tmp_path, **SMALL)
    assert fakes == []


@pytest.mark.usefixtures("blank_report")
def test_ctrl_c_keeps_what_was_finished(
    pair: Any, tmp_path: Path, engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    fake = engine(base={("mae", "sgd"): 0.5})
    record = fake.record

    def pressed(run: Any) -> Record:
        if len(fake.runs) == 70:
            os.kill(os.getpid(), signal.SIGINT)
        return record(run)

    fake.record = pressed
    monkeypatch.setattr("steepest.comparison.compare.start_engine", lambda data, metric: fake)
    comparison = compare(pair, out=tmp_path / "out", num_threads=1, **SMALL)
    assert comparison.interrupted
    assert comparison.verdict["status"] == "interrupted"
    assert 70 <= comparison.runs.height <= 71
    assert comparison.model is not None
    assert comparison.model.record.run.loss == "mae"
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES - {"question.json"} | {"unfinished"}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("fakes")
def test_progress_is_told_of_every_stage_and_run(pair: Any) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def data_read(self, notes: Sequence[str]) -> None:
            self.notes = notes

        def plan_made(self, plan: Plan) -> None:
            assert any("a regression task" in note for note in self.notes)
            self.seen.append(" ".join(plan.in_words()))

        def stage_started(self, stage: str, num_runs: int, metric: str) -> None:
            self.seen.append((stage, num_runs, metric))

        def run_finished(self, record: Record) -> None:
            self.seen.append("run")

        def stage_finished(self) -> None:
            self.seen.append("end")

    watcher = Watcher()
    comparison = compare(pair, progress=watcher, **SMALL)
    stages = [item for item in watcher.seen if isinstance(item, tuple)]
    assert [stage for stage, _, _ in stages] == ["tune", "confirm", "default", "model"]
    assert sum(count for _, count, _ in stages) == watcher.seen.count("run") == comparison.runs.height
    assert watcher.seen.count("end") == 4
    told = watcher.seen[0]  # before the first run
    assert f"for each of the 4, {len(comparison.plan.rates['adam'])} learning rates on 3 seeds" in told
    assert f"About {4 * comparison.plan.runs_a_cell:,} runs" in told
    assert watcher.seen[1][2] == "rmse"


@pytest.mark.usefixtures("fakes")
def test_progress_can_be_drawn_as_on_the_command_line(pair: Any, capsys: pytest.CaptureFixture[str]) -> None:
    compare(pair, progress=True, **SMALL)
    told = capsys.readouterr()
    assert told.out == ""
    assert "Plan:" in told.err
    assert "best so far" in told.err
    for silent in (False, None):
        compare(pair, progress=silent, **SMALL)
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("wrong", [3, print, "yes"])
def test_who_cannot_be_told_of_progress_is_refused(pair: Any, wrong: Any) -> None:
    with pytest.raises(
        InputError, match=r"it is True, which draws .* or an object with the methods data_read"
    ):
        compare(pair, progress=wrong, **SMALL)


@pytest.mark.usefixtures("fakes")
def test_the_plan_that_is_told_says_what_the_budget_left_out(pair: Any) -> None:
    plan = compare(pair, budget="0.001s", num_threads=1, **SMALL).plan
    assert plan.left_out
    assert plan.in_words()[-len(plan.left_out) :] == list(plan.left_out)


@pytest.mark.usefixtures("fakes", "blank_report")
def test_a_report_that_cannot_be_written_is_the_users_error(pair: Any, tmp_path: Path) -> None:
    comparison = compare(pair, **SMALL)
    with pytest.raises(InputError, match="cannot be written"):
        comparison.report(tmp_path / "nowhere" / "report.html")


@pytest.mark.usefixtures("fakes")
def test_the_report_is_drawn_from_the_comparison(pair: Any, tmp_path: Path) -> None:
    comparison: Comparison = compare(pair, **SMALL)
    page = comparison.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert comparison.verdict["sentence"] in page


def test_rows_drawn_at_random_are_all_that_takes_part(
    fakes: list[Any], pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files larger than memory, too; the plan, a resumed and an extended comparison draw the same."""
    frame = pl.DataFrame({"a": pair[0][:, 0], "y": pair[1]})
    frame.write_parquet(tmp_path / "rows.parquet")
    monkeypatch.setattr("steepest.data.source.bytes_in_memory", lambda *_: 1e18)
    asked: dict[str, Any] = {"losses": ["mse", "mae"], "optimizers": ["sgd"], "hidden": ()}
    with pytest.raises(InputError, match=r"compare on some of them, drawn at random .*--rows 100000"):
        compare(tmp_path / "rows.parquet", "y", **asked)
    one = compare(tmp_path / "rows.parquet", "y", rows=120, seed=3, out=tmp_path / "out", **asked)
    assert sum(one.verdict["num_rows"].values()) == 120
    assert one.plan.rows == one.verdict["rows"] == 120
    assert "120 of 200 rows were drawn at random; the others take no part." in one.verdict["notes"]
    assert "On 120 rows drawn at random" in " ".join(one.plan.in_words())
    in_memory = compare(frame, "y", rows=120, seed=3, **asked)
    assert in_memory.verdict["data_sha256"] == one.verdict["data_sha256"]
    assert compare(frame, "y", rows=120, seed=4, **asked).verdict["data_sha256"] != one.verdict["data_sha256"]
    again = compare(tmp_path / "rows.parquet", plan=tmp_path / "out" / "plan.json")
    assert again.verdict | {"seconds": 0} == one.verdict | {"seconds": 0}
    more = compare(extend=tmp_path / "out", add_optimizers=["adam"])
    assert more.verdict["data_sha256"] == one.verdict["data_sha256"]
    assert len(more.plan.optimizers) == 2


@pytest.mark.parametrize("rows", [0, -3, 1.5, "many", True])
def test_rows_are_counted_in_whole_numbers(pair: Any, rows: Any) -> None:
    with pytest.raises(InputError, match="rows is a positive whole number"):
        compare(pair, rows=rows)


@pytest.mark.usefixtures("fakes")
def test_an_ignored_column_takes_no_part(pair: Any, tmp_path: Path) -> None:
    """Nor in a resumed or extended comparison, nor in the model, which does not miss it."""
    frame = pl.DataFrame({"a": pair[0][:, 0], "answer": pair[1], "y": pair[1]})
    frame.write_csv(tmp_path / "rows.csv")
    asked: dict[str, Any] = {"losses": ["mse"], "optimizers": ["sgd"], "hidden": ()}
    telling = [note for note in compare(frame, "y", **asked).verdict["notes"] if "all but gives away" in note]
    assert "'answer'" in telling[0]
    one = compare(tmp_path / "rows.csv", "y", ignore="answer", out=tmp_path / "out", **asked)
    assert one.verdict["num_features"] == 1
    assert one.verdict["ignore"] == ["answer"]
    assert not [note for note in one.verdict["notes"] if "'answer'" in note]
    assert "Without 'answer'." in one.plan.in_words()
    assert one.verdict["data_sha256"] == compare(frame.drop("answer"), "y", **asked).verdict["data_sha256"]
    again = compare(tmp_path / "rows.csv", plan=tmp_path / "out" / "plan.json")
    assert again.verdict | {"seconds": 0} == one.verdict | {"seconds": 0}
    more = compare(extend=tmp_path / "out", add_optimizers=["adam"])
    assert more.verdict["num_features"] == 1
    assert one.model is not None
    assert (one.model.predict(frame) == one.model.predict(frame.drop("answer"))).all()


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        (["anwser"], "There is no column 'anwser' to ignore in the data frame; did you mean 'answer'"),
        (["y"], "The target 'y' cannot be ignored"),
        (["answer", "answer"], "The column to ignore 'answer' is given twice"),
    ],
)
def test_what_cannot_be_ignored_is_said(pair: Any, ignore: list[str], words: str) -> None:
    frame = pl.DataFrame({"a": pair[0][:, 0], "answer": pair[1], "y": pair[1]})
    with pytest.raises(InputError, match=words):
        compare(frame, "y", ignore=ignore)

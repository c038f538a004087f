"""Words, scales, tables and summaries: the small parts the page is made of."""

from __future__ import annotations

import math
import re
import shlex
from importlib.resources import files
from typing import Any

import polars as pl
import pytest

from steepest.cli import parse
from steepest.report import charts, sections, summary, tables
from steepest.report.again import fit_command
from steepest.report.scale import ScoreRange, rate_range, score_range, ticks
from steepest.report.words import duration, fact, humanise, score_format, significant
from steepest.training.metrics import METRICS

from . import sample


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00215443469, "0.00215"),
        (0.1, "0.1"),
        (10.0, "10"),
        (0, "0"),
        (1e-5, "0.00001"),
        (1e-7, "1e-7"),
        (123456.0, "123,000"),
        (2.5e9, "2.5e9"),
        (-0.04, "−0.04"),
        (0.9996, "1"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
    ],
)
def test_significant(value: float | None, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.034, "0.034 s"),
        (8.24, "8.2 s"),
        (59.99, "60 s"),
        (131.7, "2 min 12 s"),
        (3600 * 3 + 301, "3 h 5 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_all_scores_get_the_decimals_of_the_smallest() -> None:
    written = score_format([0.0312, 2.5, None, math.nan])
    assert [written(0.0312), written(2.5), written(None), written(3.1416e9)] == [
        "0.03120",
        "2.50000",
        "–",
        "3.142e9",
    ]
    assert score_format([])(1.0) == "1.000"


def test_scores_beyond_eight_decimals_keep_their_digits() -> None:
    """Of farads and of lengths in an atom the report said 0.00000000."""
    written = score_format([1.4386e-13, 2.2e-6, 0.5])
    assert [written(score) for score in (1.4386e-13, -2.2e-6, 0.0, 0.5)] == [
        "1.439e-13",
        "−2.2e-6",
        "0.00000000",
        "0.50000000",
    ]
    assert score_format([0.5])(1e-9) == "0.0000", "a difference is written as finely as the scores are"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (60_000, "60,000"),
        (0.01, "0.01"),
        (["a", "b"], "a, b"),
        ([], "none"),
        ([0.1 * index for index in range(1, 9)], "8 values from 0.1 to 0.8"),
        (list(range(5_000, 5_010)), "10 values from 5000 to 5009"),
        ([{}, {}], "2 entries"),
        ([{"a": 1}], "a: 1"),
        ({}, "none"),
        (
            {"mse": "aims at the mean", "huber": {"delta": [0.1, 10.0, "log"]}},
            "mse: aims at the mean; huber: delta: 0.1 to 10, log",
        ),
        ("text", "text"),
    ],
)
def test_fact(value: Any, text: str) -> None:
    assert fact(value) == text


def test_names_become_words() -> None:
    assert humanise("budget_sec") == "budget seconds"
    assert humanise("rmse") == "RMSE"
    assert humanise("rungs") == "pruned at these shares of the epochs"


def test_metrics_are_named_and_directed_as_training_has_them() -> None:
    assert {name: humanise(name) for name in METRICS} == {
        name: metric.title for name, metric in METRICS.items()
    }
    assert {name for name, metric in METRICS.items() if metric.greater_is_better} == tables.GREATER_IS_BETTER
    assert set(tables.HOME_METRICS.values()) <= set(METRICS)


def test_a_range_leaves_out_what_is_bad_beyond_interest() -> None:
    span = score_range([1.0, 1.1, 1.2, 50.0], greater_is_better=False)
    assert span.low < 1.0 < 1.2 < span.high < 2.0
    assert span.bad_edge == span.high
    assert span.is_beyond(50.0)
    assert not span.is_beyond(1.2)
    assert span.percent(50.0) == 100
    assert span.goodness(1.0) > span.goodness(1.2) > span.goodness(50.0) == 0


def test_a_range_of_scores_to_maximise_is_bad_below() -> None:
    span = score_range([0.95, 0.94, 0.93, 0.1], greater_is_better=True)
    assert span.low == span.bad_edge > 0.5
    assert span.is_beyond(0.1)


@pytest.mark.parametrize("scores", [[], [2.0], [2.0, 2.0], [0.0], [None, math.nan], [-3.0, -3.0]])
def test_a_range_is_never_empty(scores: list[float | None]) -> None:
    for greater in (True, False):
        span = score_range(scores, greater)
        assert span.low < span.high
        assert all(span.low <= tick <= span.high for tick in ticks(span))


def test_ticks_are_round_and_inside() -> None:
    assert ticks(score_range([2.0, 2.1, 2.2, 2.3], False), 4) == [2.0, 2.1, 2.2, 2.3]


@pytest.mark.parametrize("unit", [1e-13, 1.0, 1e15])
def test_an_axis_does_not_hang_on_the_unit(unit: float) -> None:
    span = score_range([2.0 * unit, 2.1 * unit, 2.3 * unit], False)
    assert [span.percent(2.0 * unit), span.percent(2.3 * unit)] == [4.55, 95.45]
    assert ticks(span, 4) == pytest.approx([2.0 * unit, 2.1 * unit, 2.2 * unit, 2.3 * unit], rel=1e-9)


@pytest.mark.parametrize(("greater_is_better", "inwards"), [(False, 1), (True, -1)])
def test_crosses_lie_inside_the_edge_that_would_cut_them(greater_is_better: bool, inwards: int) -> None:
    span = ScoreRange(0.0, 1.0, greater_is_better)
    chart = charts.rate_chart(metric="score", span=span, rates=(1e-4, 1.0), loss="mse", batch="32")
    (cross,) = [layer["mark"] for layer in chart["layer"] if layer["mark"].get("text") == "×"]
    assert (
        cross["dy"] * inwards > 0.35 * cross["fontSize"]
    )  # half a cross is about a third of its font's size


def test_rates_have_air_at_both_ends() -> None:
    low, high = rate_range([0.001])
    assert low < 0.001 / 2 < 0.001 * 2 < high
    assert rate_range([]) == (1e-3, 1e-1)


def test_configurations_average_the_runs_that_ended_well() -> None:
    _, _, runs = sample.regression()
    found = summary.configurations(summary.check_runs(runs), greater_is_better=False)
    assert sum(row["num_seeds"] for row in found) == runs.height
    scores = [row["mean"] for row in found if not row["num_diverged"]]
    assert scores == sorted(scores)
    diverged = next(row for row in found if 0 < row["num_diverged"] < row["num_seeds"])
    own = runs.filter(*(pl.col(key) == diverged[key] for key in ("loss", "optimizer", "lr", "stage")))
    assert diverged["mean"] == pytest.approx(own.filter(~pl.col("diverged"))["validation_score"].mean())


def test_a_learning_curve_is_the_mean_of_its_seeds() -> None:
    verdict, _, runs = sample.regression()
    points, thinned = summary.learning_curves(summary.check_runs(runs), verdict["cells"])
    assert thinned is None
    one = [point for point in points if (point["loss"], point["optimizer"]) == ("mse", "adam")]
    cell = next(cell for cell in verdict["cells"] if (cell["loss"], cell["optimizer"]) == ("mse", "adam"))
    own = runs.filter(loss="mse", optimizer="adam", lr=cell["lr"], stage="confirm")
    last = own["curve_validation"].list.last()
    assert one[-1]["score"] == pytest.approx(last.mean(), rel=1e-4)
    assert one[-1]["high"] - one[-1]["score"] == pytest.approx(last.std() / math.sqrt(own.height), rel=1e-2)
    assert one[-1]["updates"] == 40 * 79
    assert one[-1]["examples"] == 40 * 2_505
    assert [point["updates"] for point in one] == sorted({point["updates"] for point in one})


def test_what_an_engine_counted_on_the_way_goes_before_what_is_spread_over_the_steps() -> None:
    verdict, _, runs = sample.regression()
    lengths = pl.col("curve_step").list.len()
    counted = runs.with_columns(
        curve_examples=pl.int_ranges(lengths, dtype=pl.Int64),
        curve_seconds=pl.when(pl.col("seed") % 2 == 0).then(
            pl.int_ranges(lengths, dtype=pl.Int64).cast(pl.List(pl.Float64))
        ),
    )
    plain, own = (
        summary.learning_curves(summary.check_runs(table), verdict["cells"])[0] for table in (runs, counted)
    )
    assert own[0]["examples"] == 0 < plain[0]["examples"]
    assert own[0]["seconds"] == pytest.approx(plain[0]["seconds"] / 2, rel=0.3)  # half the seeds say 0


def test_curves_are_thinned_but_keep_their_ends() -> None:
    points = [{"updates": index} for index in range(1_000)]
    thin = summary._thinned(points, 40)
    assert len(thin) <= 40
    assert (thin[0], thin[-1]) == (points[0], points[-1])


def test_every_cell_stands_once_and_winners_first() -> None:
    verdict, _, _ = sample.regression()
    cells, winners = verdict["cells"], verdict["winners"]
    span = tables.standing_range(cells, winners, greater_is_better=False)
    rows = tables.standing(cells, winners, span, str).rows
    assert len(rows) == len(cells)
    states = [row.state for row in rows]
    # A default that wins is drawn as both.
    own = ["default" if row["kind"] == "default" else "plain" for row in winners]
    assert states[: len(winners)] == [f"winner {state}" for state in own]
    assert not any("winner" in state for state in states[len(winners) :])
    assert rows[-1].state == "barred"
    for row in rows[: len(winners)]:
        assert row.low is not None
        assert row.middle is not None
        assert row.high is not None
        assert 0 < row.low < row.middle < row.high < 100


def test_a_matrix_has_every_pair_and_one_best() -> None:
    verdict, _, _ = sample.multiclass()
    matrices = tables.pair_matrices(verdict["cells"], True, str)
    assert [matrix.caption for matrix in matrices] == ["batch 32", "full batch"]
    cells = [cell for matrix in matrices for _, row in matrix.rows for cell in row]
    assert len(cells) == 2 * 6
    assert sum(cell.is_best for cell in cells) == 1
    assert max(cells, key=lambda cell: cell.heat).is_best


def test_optimizers_keep_apart_when_the_colours_run_out() -> None:
    looks = {(charts.colour(index), tuple(charts.dash(index))) for index in range(3 * charts.NUM_COLOURS)}
    assert len(looks) == 3 * charts.NUM_COLOURS


def luminance(colour: tuple[float, float, float]) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def blend(over: tuple[float, ...], under: tuple[float, ...], alpha: float) -> tuple[float, float, float]:
    red, green, blue = (alpha * top + (1 - alpha) * base for top, base in zip(over, under, strict=True))
    return red, green, blue


@pytest.fixture(params=["light", "dark"])
def palette(request: pytest.FixtureRequest) -> dict[str, tuple[float, float, float]]:
    style = files("steepest.report").joinpath("style.css").read_text(encoding="utf-8")
    roots = re.findall(r":root \{([^}]*)\}", style)
    block = roots[0] if request.param == "light" else roots[1]
    found = re.findall(r"--([\w-]+): #(..)(..)(..);", block)
    return {name: (int(r, 16) / 255, int(g, 16) / 255, int(b, 16) / 255) for name, r, g, b in found}


def test_text_has_the_contrast_that_is_asked_for(palette: dict[str, tuple[float, float, float]]) -> None:
    for paper in ("page", "surface"):
        for ink in ("ink", "muted", "accent", "warning"):
            assert contrast(palette[ink], palette[paper]) >= 4.5, (ink, paper)
    assert contrast(palette["on-accent"], palette["accent"]) >= 4.5
    assert contrast(palette["warning"], palette["warning-tint"]) >= 4.5
    assert contrast(palette["ink"], palette["warning-tint"]) >= 4.5
    hottest = blend(palette["accent"], palette["page"], 0.03 + 100 * 0.0037)
    assert contrast(palette["ink"], hottest) >= 4.5


def test_lines_stand_out_from_the_page(palette: dict[str, tuple[float, float, float]]) -> None:
    for index in range(charts.NUM_COLOURS):
        assert contrast(palette[f"series-{index}"], palette["page"]) >= 3, index


def test_the_command_trains_as_long_and_by_the_schedule_as_the_model_was() -> None:
    winner = {"loss": "mse", "optimizer": "adam", "lr": 0.001, "batch_size": 32, "schedule": "constant"}
    verdict = {
        "winners": [winner],
        "architecture": {"hidden": (8,), "activation": "relu"},
        "target": "y",
        "task": "regression",
        "metric": "mae",
        "epochs": 7,
    }
    command = fit_command({**verdict, "model": None}, "DATA", "DIR")
    assert "--target y --task regression --loss mse" in command
    assert command.endswith("--metric mae --out DIR")  # validation rows choose the epoch
    assert fit_command({**verdict, "model": {"epochs": 47}}, "DATA", "DIR").endswith(
        "--validation 0 --out DIR"
    )
    ignored = fit_command({**verdict, "ignore": ["a, b", "c", 'say "d"']}, "DATA", "DIR")
    words = shlex.split(ignored)
    assert parse.names(words[words.index("--ignore") + 1], "--ignore") == ("a, b", "c", 'say "d"')
    assert "--epochs 7 --hidden 8" in fit_command({**verdict, "model": None}, "DATA", "DIR")
    model = {"epochs": 47, "schedule": "wsd"}
    assert "--epochs 47 --schedule wsd --hidden 8" in fit_command({**verdict, "model": model}, "DATA", "DIR")
    earlier = {"epochs": 47}  # in a verdict written before models had a schedule
    assert "--epochs 47 --hidden 8" in fit_command({**verdict, "model": earlier}, "DATA", "DIR")


def test_the_report_tells_how_the_model_was_trained_and_what_it_scores() -> None:
    verdict: dict[str, Any] = {"metric": "rmse", "metric_title": "RMSE", "model": None}
    assert sections._about_model(verdict) is None  # it is one of the comparison's runs
    verdict["model"] = {"num_rows": 43152, "epochs": 47, "schedule": "wsd", "test": {"rmse": 0.50917}}
    assert sections._about_model(verdict) == (
        "It was trained on 43,152 rows, validation rows among them, for 47 epochs, the rate falling to zero over the "
        "last fifth. Its RMSE on the test rows is 0.509."
    )
    verdict["model"] |= {"schedule": "constant", "epochs": 1}
    assert "for 1 epoch. Its" in str(sections._about_model(verdict))


def test_the_largest_dots_of_a_calibration_are_whole() -> None:
    spec = charts.reliability_chart(predicted="predicted", observed="came true")
    (low, high), height = spec["layer"][2]["encoding"]["x"]["scale"]["domain"], 300
    radius = (320 / math.pi) ** 0.5
    assert -low / (high - low) * height > radius
    assert (high - 1) / (high - low) * height > radius

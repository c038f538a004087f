"""Names and cells of a stranger's table, wherever they are shown or written, are text and nothing else."""

from __future__ import annotations

import ast
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import polars as pl
import pytest
from tests.report import sample

import steepest
from steepest.cli.main import main
from steepest.cli.show import print_verdict, rows_table
from steepest.errors import InputError, inert
from steepest.report import build
from steepest.report.build import telling_of_records
from steepest.report.plain_torch import arrays_code, training_code
from steepest.screen.console import console

EVIL = [
    "'); evil(); print('",
    '"); evil(); print("',
    '"""\nevil()\n"""',
    "\\",
    "{evil()}",
    "\nevil()\n#",
    "\u2028evil()",
    "\x00",
]
TURNS = "\u202egnp.exe\u2066"
ESCAPES = "\x1b]0;title\x07\x1b[31m[bold]:smile:\x9b2J"


def calls(code: str) -> set[str]:
    """The names of all functions that a program calls."""
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("name", EVIL)
def test_no_name_in_generated_code_is_code(name: str) -> None:
    verdict, plan, _ = sample.ALL["regression"]()
    plan |= {"asked_task": name, "group": name, "time": name, "validation": 0.2, "test": 0.2}
    assert calls(arrays_code(name, plan)) == {"prepare", "np.savez"}
    winner, hyper = verdict["winners"][0], {"lr": 0.1, "delta": 1.0}
    honest = training_code(verdict, winner, hyper)
    assert honest is not None
    for changed in ({"metric_title": name}, {"target": name}, {"classes": [name]}):
        code = training_code(verdict | changed, winner, hyper)
        assert code is not None
        assert calls(code) == calls(honest)


@pytest.mark.parametrize("entry", ["seed", "epochs", "num_features", "hidden", "batch_size", "lr"])
def test_what_is_to_be_a_number_in_generated_code_is_one(entry: str) -> None:
    verdict, _, _ = sample.ALL["regression"]()
    winner = dict(verdict["winners"][0])
    if entry in winner:
        winner[entry] = "1); evil("
    elif entry == "hidden":
        verdict["architecture"] = verdict["architecture"] | {"hidden": ["1); evil("]}
    else:
        verdict[entry] = "1); evil("
    with pytest.raises(InputError, match="No page can be made"), telling_of_records(Path("out")):
        training_code(verdict, winner, {"lr": 0.1, "delta": 1.0})


def test_a_report_shows_what_would_turn_the_writing_as_an_escape() -> None:
    page = build(*sample.hostile(TURNS))
    assert "\u202e" not in page
    assert "\u2066" not in page
    assert r"\u202egnp.exe\u2066" in page


def test_a_terminal_obeys_no_name() -> None:
    out = io.StringIO()
    screen = console(out)
    screen.print(ESCAPES)
    screen.print(rows_table([{"name": ESCAPES, "value": 1.0}]))
    shown = out.getvalue()
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert shown.count(r"\x1b[31m[bold]:smile:\x9b2J") == 2


def test_a_verdict_of_names_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    verdict, _, _ = sample.hostile(ESCAPES)
    print_verdict(verdict, Path(ESCAPES))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("[bold]") >= 4


def test_an_error_of_names_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{ESCAPES},{TURNS}\n" + "1,2\n" * 9, encoding="utf-8")
    assert main(["fit", str(path), "--target", "zzz", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told == inert(told)
    assert r"\x1b" in told


@pytest.fixture(scope="module")
def formulas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of classes that a spreadsheet would compute."""
    place = tmp_path_factory.mktemp("formulas")
    labels = ["=1+1", "@SUM(A1)", "-", "+5", "-x", "\tx", "plain"]
    rows = [{"a": row % 7 + 0.01 * (row // 7), "y": labels[row % 7]} for row in range(140)]
    pl.DataFrame(rows).write_parquet(place / "t.parquet")
    steepest.fit(place / "t.parquet", "y", lr=0.1, hidden=(8,), max_epochs=30).save(place / "model")
    return place


def test_no_label_in_a_csv_is_a_formula(formulas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = formulas / "out.csv"
    assert (
        main(["predict", str(formulas / "model"), str(formulas / "t.parquet"), "--proba", "--out", str(out)])
        == 0
    )
    assert "have an apostrophe before them" in capsys.readouterr().err
    written = pl.read_csv(out, infer_schema=False)
    assert set(written["prediction"]) <= {"'=1+1", "'@SUM(A1)", "-", "+5", "'-x", "'\tx", "plain"}
    assert {"'=1+1", "'@SUM(A1)", "-", "+5"} <= set(written["prediction"])
    assert all(name == "prediction" or name.startswith("probability_") for name in written.columns)


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["prediction", "a"], ["prediction_"]),
        (["prediction", "prediction_"], ["prediction__"]),
        (["constant_0", "isnan_0", "cast_5"], ["prediction"]),
        (["x\n/..", "'); evil()"], ["prediction"]),
    ],
)
def test_columns_of_any_name_make_an_onnx_file_that_predicts(
    names: list[str], outputs: list[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({name: rng.normal(size=60) for name in names} | {"y": rng.normal(size=60)})
    model = steepest.fit(frame, "y", lr=0.01, hidden=(3,), max_epochs=1)
    model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == outputs
    given: Any = {name: frame[name].to_numpy()[:, None] for name in names}
    np.testing.assert_allclose(session.run(None, given)[0][:, 0], model.predict(frame), rtol=1e-5)

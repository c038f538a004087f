"""Estimators leave as safetensors and as ONNX, and predict the same afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

import steepest
from steepest import InputError, SteepestClassifier, SteepestRegressor
from steepest.comparison.forward import ACTIVATIONS

ROWS = np.random.default_rng(0).normal([3.0, 4000.0], [2.0, 50.0], size=(120, 2))
NUMBERS = 10.0 + ROWS[:, 0] - 0.02 * ROWS[:, 1]
PLACES = np.digitize(NUMBERS, np.quantile(NUMBERS, [0.3, 0.6]))


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (8, 4)])
def test_a_regressor_in_onnx_predicts_the_same(tmp_path: Path, activation: str, hidden: Any) -> None:
    model = SteepestRegressor(hidden=hidden, activation=activation, epochs=20, lr=0.01).fit(ROWS, NUMBERS)
    model.to_onnx(tmp_path / "model.onnx")
    (given,) = session(tmp_path / "model.onnx").run(["prediction"], {"X": ROWS})
    np.testing.assert_allclose(given[:, 0], model.predict(ROWS), rtol=1e-5)


def test_counts_in_onnx(tmp_path: Path) -> None:
    model = SteepestRegressor(loss="poisson_nll", hidden=(), epochs=20).fit(ROWS, PLACES.astype(float))
    model.to_onnx(tmp_path / "model.onnx")
    (given,) = session(tmp_path / "model.onnx").run(["prediction"], {"X": ROWS})
    np.testing.assert_allclose(given[:, 0], model.predict(ROWS), rtol=1e-5)


@pytest.mark.parametrize("names", [["a", "b"], [False, True], [-1, 7], ["a", "b", "c"], [1.0, 2.0, 4.0]])
def test_a_classifier_in_onnx_predicts_the_same(tmp_path: Path, names: list[Any]) -> None:
    labels = np.array(names)[np.minimum(PLACES, len(names) - 1)]
    model = SteepestClassifier(hidden=(4,), epochs=20, lr=0.01).fit(ROWS, labels)
    model.to_onnx(tmp_path / "model.onnx")
    label, shares = session(tmp_path / "model.onnx").run(["label", "probabilities"], {"X": ROWS})
    np.testing.assert_allclose(shares, model.predict_proba(ROWS), atol=1e-5)
    assert label.tolist() == model.predict(ROWS).tolist()


def test_two_classes_of_a_loss_with_an_output_each_in_onnx(tmp_path: Path) -> None:
    model = SteepestClassifier(loss="cross_entropy", hidden=(4,), epochs=20, lr=0.01).fit(ROWS, PLACES > 0)
    model.to_onnx(tmp_path / "model.onnx")
    label, shares = session(tmp_path / "model.onnx").run(["label", "probabilities"], {"X": ROWS})
    np.testing.assert_allclose(shares, model.predict_proba(ROWS), atol=1e-5)
    assert label.tolist() == model.predict(ROWS).tolist()


@pytest.mark.parametrize("hidden", [(), (4, 3), 12, "12"])
def test_its_widths_come_back_as_they_were_given(tmp_path: Path, hidden: Any) -> None:
    model = SteepestRegressor(hidden=hidden, epochs=1).fit(ROWS, NUMBERS)
    model.save(tmp_path / "model")
    again = SteepestRegressor.load(tmp_path / "model")
    assert again.hidden == hidden
    assert again.fit(ROWS, NUMBERS).predict(ROWS).tobytes() == model.predict(ROWS).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_regressor_comes_back(tmp_path: Path, dtype: Any) -> None:
    frame = pd.DataFrame(ROWS, columns=["a", "b"]).astype(dtype)
    model = SteepestRegressor(hidden=(4,), epochs=3, random_state=np.random.RandomState(1))
    model.fit(frame, NUMBERS).save(tmp_path / "model")
    again = SteepestRegressor.load(tmp_path / "model")
    assert again.predict(frame).tobytes() == model.predict(frame).tobytes()
    assert again.get_params() == {**model.get_params(), "random_state": None}
    assert again.feature_names_in_.tolist() == ["a", "b"]
    np.testing.assert_array_equal(again.loss_curve_, model.loss_curve_)
    # It learns on, as the one that was saved would.
    fixed = {"random_state": 3}
    more = [one.set_params(**fixed).partial_fit(frame, NUMBERS).predict(frame) for one in (again, model)]
    assert more[0].tobytes() == more[1].tobytes()


@pytest.mark.parametrize("unit", ["M8[D]", "M8[ns]", "m8[s]"])
def test_a_classifier_of_times_comes_back(tmp_path: Path, unit: str) -> None:
    labels = np.arange(3).astype(unit)[PLACES]
    model = SteepestClassifier(hidden=(), epochs=3).fit(ROWS, labels)
    model.save(tmp_path / "model")
    again = SteepestClassifier.load(tmp_path / "model").predict(ROWS)
    assert again.dtype == np.dtype(unit)
    assert (again == model.predict(ROWS)).all()
    with pytest.raises(InputError, match="ONNX has no type for class labels of"):
        model.to_onnx(tmp_path / "model.onnx")


def test_labels_that_cannot_be_saved_are_one_sentence(tmp_path: Path) -> None:
    model = SteepestClassifier(hidden=(), epochs=3).fit(ROWS, PLACES.astype(np.longdouble))
    with pytest.raises(InputError, match="The class labels are of type longdouble, which cannot be saved"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_classifier_comes_back(tmp_path: Path) -> None:
    labels = np.array(["low", "middle", "high"])[PLACES]
    model = SteepestClassifier(hidden=(), epochs=3, loss_options=None).fit(ROWS, labels)
    for place in ("one", "two"):
        model.save(tmp_path / place)
    for name in ("model.safetensors", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    again = SteepestClassifier.load(tmp_path / "one")
    assert again.predict(ROWS).tolist() == model.predict(ROWS).tolist()
    assert again.predict_proba(ROWS).tobytes() == model.predict_proba(ROWS).tobytes()
    assert again.classes_.dtype == model.classes_.dtype


def test_what_an_estimator_saved_is_read_by_its_class_alone(tmp_path: Path) -> None:
    SteepestRegressor(hidden=(), epochs=1).fit(ROWS, NUMBERS).save(tmp_path / "model")
    with pytest.raises(InputError, match=r"'SteepestRegressor'; its class's load reads it\.$"):
        steepest.load(tmp_path / "model")


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no model"):
        SteepestRegressor.load(tmp_path)
    place = tmp_path / "model"
    SteepestRegressor(hidden=(), epochs=1).fit(ROWS, NUMBERS).save(place)
    with pytest.raises(InputError, match="holds SteepestRegressor, not a SteepestClassifier"):
        SteepestClassifier.load(place)
    text = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(text.replace('"target_mean": ', '"target_mean": 1'))
    with pytest.raises(InputError, match="damaged"):
        SteepestRegressor.load(place)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        SteepestRegressor(hidden=(), epochs=1).fit(ROWS, NUMBERS).save(tmp_path / "mine")
    with pytest.raises(InputError, match="cannot be written"):
        SteepestRegressor(hidden=(), epochs=1).fit(ROWS, NUMBERS).to_onnx(tmp_path / "no" / "model.onnx")

"""scikit-learn's own checks, its tools, and what the estimators promise beyond them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import steepest
from steepest import InputError, SteepestClassifier, SteepestRegressor
from steepest.comparison.forward import ACTIVATIONS


@parametrize_with_checks([SteepestRegressor(), SteepestClassifier()])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float64]:
    """Features far from mean 0 and scale 1."""
    return np.random.default_rng(0).normal([3.0, 400.0, -0.01], [2.0, 50.0, 0.003], size=(150, 3))


@pytest.fixture(scope="module")
def numbers(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear function of the features."""
    return 1000.0 + 5.0 * rows[:, 0] - 0.2 * rows[:, 1] + 2000.0 * rows[:, 2]


@pytest.fixture(scope="module")
def labels(numbers: NDArray[np.float64]) -> NDArray[Any]:
    """Three classes along the numbers."""
    return np.array(["high", "low", "middle"])[np.digitize(numbers, np.quantile(numbers, [0.3, 0.6])) - 2]


def linear(**parameters: Any) -> SteepestRegressor:
    return SteepestRegressor(**{"hidden": (), "lr": 0.01, "epochs": 500, **parameters})


def test_regression_in_the_targets_own_units(rows: Any, numbers: Any) -> None:
    model = linear().fit(rows, numbers)
    assert model.score(rows, numbers) > 0.999
    assert (model.loss_, model.lr_, model.n_iter_) == ("mse", 0.01, 500)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_the_loss_named_is_the_loss_minimised() -> None:
    """A constant: MSE's is the mean, MAE's the median, the quantile loss's its quantile."""
    target = np.r_[np.zeros(90), np.full(59, 1.0), 100.0]
    constant = np.zeros((150, 1))
    found = {
        word: linear(loss=word, batch_size="full", epochs=3000, loss_options=options)
        .fit(constant, target)
        .predict(constant)[0]
        for word, options in (("mse", None), ("mae", None), ("quantile", {"quantile": 0.8}))
    }
    assert found["mse"] == pytest.approx(target.mean(), abs=1e-3)
    assert found["mae"] == pytest.approx(0.0, abs=0.2)
    assert found["quantile"] == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("names", [["a", "b"], [True, False], [7, -1], ["a", "b", "c"]])
def test_classes_of_any_kind(rows: Any, numbers: Any, names: list[Any]) -> None:
    places = np.digitize(numbers, np.quantile(numbers, np.arange(1, len(names)) / len(names)))
    model = SteepestClassifier(lr=0.01, epochs=200).fit(rows, np.array(names)[places])
    assert model.classes_.tolist() == sorted(names)
    assert model.score(rows, np.array(names)[places]) > 0.95
    shares = model.predict_proba(rows)
    assert shares.shape == (150, len(names))
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
    assert (model.predict(rows) == model.classes_[shares.argmax(axis=1)]).all()
    logarithms = model.predict_log_proba(rows)
    np.testing.assert_allclose(np.exp(logarithms), shares, rtol=1e-12)
    # A row far out, where a probability is 0 and its logarithm is not minus infinity.
    far = np.full((1, rows.shape[1]), 1e4)
    assert (model.predict_proba(far) == 0.0).any()
    assert np.isfinite(model.predict_log_proba(far)).all()


def test_a_pipeline_in_a_grid_search(rows: Any, labels: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), SteepestClassifier(epochs=40, batch_size=16, lr=0.01))
    grid = {"steepestclassifier__optimizer": ["adam", "momentum"], "steepestclassifier__hidden": [(), (8,)]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(rows, labels)
    assert search.best_score_ > 0.8
    assert cross_val_score(clone(search.best_estimator_), rows, labels, cv=3).min() > 0.7


@pytest.mark.parametrize(("form", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_frames_keep_their_names(rows: Any, numbers: Any, form: str, frame: Any) -> None:
    table = frame({name: rows[:, place] for place, name in enumerate("abc")})
    model = linear().fit(table, numbers)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(model.predict(table), linear().fit(rows, numbers).predict(rows), rtol=1e-12)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[["b", "a", "c"]])
    pipeline = make_pipeline(StandardScaler(), linear()).set_output(transform=form).fit(table, numbers)
    assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_seed_gives_the_same_bits(rows: Any, numbers: Any, dtype: Any) -> None:
    given = rows.astype(dtype)
    first, second = (SteepestRegressor(epochs=5).fit(given, numbers) for _ in range(2))
    assert first.layers_[0].weight.dtype == dtype
    assert first.predict(given).tobytes() == second.predict(given).tobytes()
    other = SteepestRegressor(epochs=5, random_state=1).fit(given, numbers)
    assert other.predict(given).tobytes() != first.predict(given).tobytes()
    drawn = [
        SteepestRegressor(epochs=5, random_state=np.random.RandomState(3)).fit(given, numbers) for _ in "ab"
    ]
    assert drawn[0].predict(given).tobytes() == drawn[1].predict(given).tobytes()


def test_how_the_rows_lie_in_memory_makes_no_difference(rows: Any, numbers: Any, labels: Any) -> None:
    """A pandas frame has its columns one after another, an array its rows."""
    columns_first = np.asfortranarray(rows)
    for cls, targets in ((SteepestRegressor, numbers), (SteepestClassifier, labels)):
        models = [cls(epochs=3).fit(given, targets) for given in (rows, columns_first)]
        for layer, other in zip(models[0].layers_, models[1].layers_, strict=True):
            assert layer.weight.tobytes() == other.weight.tobytes()
    outputs = [models[0].predict_proba(given) for given in (rows, columns_first)]
    assert outputs[0].tobytes() == outputs[1].tobytes()


def test_a_tuned_rate_is_better_than_a_bad_one(rows: Any, numbers: Any, labels: Any) -> None:
    model = SteepestRegressor(optimizer="sgd", lr="tuned", hidden=(), epochs=20).fit(rows, numbers)
    bad = SteepestRegressor(optimizer="sgd", lr=1e-5, hidden=(), epochs=20).fit(rows, numbers)
    assert model.score(rows, numbers) > 0.9 > bad.score(rows, numbers)
    assert SteepestClassifier(lr="tuned", epochs=20).fit(rows, labels).score(rows, labels) > 0.8


def test_partial_fit_goes_on(rows: Any, numbers: Any, labels: Any) -> None:
    model = SteepestRegressor(lr=0.01, hidden=())
    scores = [model.partial_fit(rows, numbers).score(rows, numbers) for _ in range(600)]
    assert scores[-1] > 0.99 > scores[0]
    assert model.n_iter_ == len(model.loss_curve_) == 600
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    with pytest.raises(InputError, match="other layers"):
        model.set_params(hidden=(8,)).partial_fit(rows, numbers)
    classifier = SteepestClassifier(lr=0.01)
    with pytest.raises(InputError, match="needs classes"):
        classifier.partial_fit(rows, labels)
    names = ["high", "low", "middle"]
    for _ in range(50):
        classifier.partial_fit(rows[:100], labels[:100], classes=names)
    assert classifier.score(rows[100:], labels[100:]) > 0.8
    with pytest.raises(InputError, match="'huge' is none of classes"):
        classifier.partial_fit(rows[:1], ["huge"])
    with pytest.raises(InputError, match="first partial_fit was given"):
        classifier.partial_fit(rows, labels, classes=["high", "low"])


def repeated(*arrays: Any, times: Any) -> list[Any]:
    return [np.repeat(array, times, axis=0) for array in arrays]


@pytest.mark.parametrize("loss", ["mse", "huber", "poisson_nll"])
def test_a_weight_of_two_is_the_row_twice(rows: Any, loss: str) -> None:
    """With all rows in one step: smaller batches have other rows."""
    target = np.random.default_rng(1).poisson(3.0, len(rows)).astype(float)
    times = np.arange(len(rows)) % 4  # some of them 0
    few = {"hidden": (8,), "batch_size": "full", "epochs": 50, "loss": loss, "lr": 0.01}
    weighted = SteepestRegressor(**few).fit(rows, target, sample_weight=0.5 * times)
    twice = SteepestRegressor(**few).fit(*repeated(rows, target, times=times))
    np.testing.assert_allclose(weighted.predict(rows), twice.predict(rows), rtol=1e-9)
    np.testing.assert_allclose(weighted.loss_curve_, twice.loss_curve_, rtol=1e-9)
    plain = SteepestRegressor(**few).fit(rows, target)
    assert np.abs(weighted.predict(rows) - plain.predict(rows)).max() > 0.01


@pytest.mark.parametrize("loss", ["bce", "cross_entropy", "logit_adjusted"])
@pytest.mark.parametrize("batch_size", ["full", 300, 1])
def test_weights_of_classes(rows: Any, labels: Any, loss: str, batch_size: Any) -> None:
    """A heavier class is predicted more often, in every way a step has; on all rows, as if it were repeated."""
    given = labels == "low" if loss == "bce" else labels
    wanted = True if loss == "bce" else "low"
    times = np.where(given == wanted, 5, 1)
    # 20 copies of 150 rows: more than go through the net at once.
    many, known, weights = repeated(rows, given, times, times=20)
    settings = {"hidden": (), "lr": 0.03, "epochs": 30, "loss": loss, "batch_size": batch_size}
    weighted = SteepestClassifier(**settings).fit(many, known, sample_weight=weights)
    plain = SteepestClassifier(**settings).fit(many, known)
    column = weighted.classes_.tolist().index(wanted)
    difference = (weighted.predict_proba(rows) - plain.predict_proba(rows))[:, column]
    if loss == "logit_adjusted":  # which takes the classes' sizes out again
        assert np.isfinite(difference).all()
    else:
        assert difference.mean() > 0.005
    if batch_size == "full":
        again = SteepestClassifier(**settings).fit(*repeated(many, known, times=weights))
        np.testing.assert_allclose(weighted.predict_proba(rows), again.predict_proba(rows), rtol=1e-9)


def test_equal_weights_change_nothing_but_rounding(rows: Any, numbers: Any) -> None:
    for size in (1, 7, 150):
        few = {"epochs": 3, "batch_size": size, "hidden": (8,)}
        plain = SteepestRegressor(**few).fit(rows, numbers)
        weighted = SteepestRegressor(**few).fit(rows, numbers, sample_weight=np.full(150, 3.0))
        np.testing.assert_allclose(weighted.predict(rows), plain.predict(rows), rtol=1e-9)


def test_weights_in_partial_fit_and_in_tuning(rows: Any, numbers: Any, labels: Any) -> None:
    times = np.arange(150) % 3
    whole = {"batch_size": "full", "hidden": ()}
    light, heavy = (SteepestRegressor(optimizer="sgd", lr=0.01, **whole) for _ in "ab")
    light.partial_fit(rows, numbers).partial_fit(rows, numbers, sample_weight=np.ones(150))
    heavy.partial_fit(rows, numbers).partial_fit(rows, numbers, sample_weight=np.full(150, 2.0))
    first = SteepestRegressor(optimizer="sgd", lr=0.01, **whole).partial_fit(rows, numbers).layers_[0].weight
    step = light.layers_[0].weight - first
    np.testing.assert_allclose(heavy.layers_[0].weight - first, 2.0 * step, rtol=1e-9)
    classifier = SteepestClassifier(**whole)
    classifier.partial_fit(rows, labels, classes=["high", "low", "middle"], sample_weight=times)
    assert np.isfinite(classifier.predict_proba(rows)).all()
    tuned = SteepestRegressor(lr="tuned", epochs=20, hidden=()).fit(rows, numbers, sample_weight=1.0 + times)
    assert tuned.score(rows, numbers) > 0.9


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (np.zeros(150), "at least one non-zero"),
        (np.full(150, -1.0), "[Nn]egative"),
        (np.ones(3), "sample_weight.shape"),
        (np.full(150, np.nan), "NaN"),
    ],
)
def test_wrong_weights_are_refused(rows: Any, numbers: Any, weights: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SteepestRegressor(epochs=1).fit(rows, numbers, sample_weight=weights)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of TorchScript itself
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (16, 8)])
def test_the_torch_module_predicts_the_same(rows: Any, numbers: Any, activation: str, hidden: Any) -> None:
    model = SteepestRegressor(hidden=hidden, activation=activation, epochs=30, lr=0.01).fit(rows, numbers)
    module = model.to_torch()
    assert {type(part).__module__.split(".")[0] for part in module.modules()} == {"torch"}
    saved = io.BytesIO()
    torch.save(module, saved)
    assert b"steepest" not in saved.getvalue()
    assert torch.equal(torch.jit.script(module)(torch.tensor(rows)), module(torch.tensor(rows)))
    with torch.no_grad():
        given = module(torch.tensor(rows, dtype=torch.float32))[:, 0].numpy()
    np.testing.assert_allclose(given, model.predict(rows), rtol=2e-5)


@pytest.mark.parametrize("mean", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("trained_on", [np.float32, np.float64])
def test_the_torch_module_keeps_the_digits_of_features_far_from_0(mean: float, trained_on: Any) -> None:
    draw = np.random.default_rng(0)
    far = (mean + draw.normal(size=(200, 3))).astype(trained_on)
    target = (far - mean) @ [1.0, 2.0, 3.0] + draw.normal(size=200)
    model = SteepestRegressor(hidden=(8,), epochs=5).fit(far, target)
    for rows in (far.astype(np.float32), far.astype(np.float64)):
        with torch.no_grad():
            given = model.to_torch()(torch.from_numpy(rows))[:, 0]
            whole = model.to_torch().float()(torch.from_numpy(rows))[:, 0]
        assert given.dtype == torch.float32
        assert torch.equal(given, whole)  # nothing in it that float() would round
        expected = model.predict(rows)
        assert np.abs(given.numpy() - expected).max() < 2e-6 * expected.std()


@pytest.mark.parametrize("two", [True, False])
def test_the_torch_module_gives_logits(rows: Any, labels: Any, two: bool) -> None:
    given = labels == "low" if two else labels
    model = SteepestClassifier(epochs=30, lr=0.01).fit(rows, given)
    with torch.no_grad():
        logits = model.to_torch()(torch.tensor(rows, dtype=torch.float32)).double()
    logits = torch.cat([torch.zeros_like(logits), logits], dim=1) if two else logits
    shares = torch.softmax(logits, dim=1)
    np.testing.assert_allclose(shares.numpy(), model.predict_proba(rows), atol=1e-4)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"loss": "bce"}, "does not fit a regression target"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"lr": -1.0}, "positive number"),
        ({"batch_size": 0}, "A batch size is"),
        ({"epochs": 0}, "epochs is a positive whole number"),
        ({"epochs": None}, "epochs is a positive whole number or 'auto', not None"),
        ({"hidden": (0,)}, "Hidden layers are"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"warmup": -0.1}, "warmup is a share of the steps"),
        ({"schedule": "linear", "epochs": 1}, "a single step"),
        ({"activation": "rlu"}, "did you mean 'relu'"),
        ({"random_state": -1}, "A seed is"),
        ({"loss_options": {"width": 1.0}}, "no option 'width'"),
        ({"optimizer_options": {"lr": 1.0}}, "Give the learning rate as lr"),
        ({"optimizer": "sgd", "lr": 1e6}, "Training diverged"),
    ],
)
def test_a_wrong_parameter_is_one_clear_sentence(
    rows: Any, numbers: Any, parameters: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        SteepestRegressor(**{"epochs": 5, **parameters}).fit(rows, numbers)


def test_what_fails_leaves_what_was_learned_before(rows: Any, numbers: Any, labels: Any) -> None:
    """Old layers beside the new rows' standardisation, or other classes, would predict without a word."""
    wild = {"optimizer": "sgd", "lr": 1e6}
    model = SteepestRegressor(hidden=(4,), epochs=5).fit(rows, numbers)
    classifier = SteepestClassifier(hidden=(4,), epochs=5).fit(rows, labels)
    before, shares = model.predict(rows), classifier.predict_proba(rows)
    with pytest.raises(InputError, match="Training diverged"):
        model.set_params(**wild).fit(rows * 3.0 + 1.0, numbers * 2.0)
    with pytest.raises(InputError, match="There is one class only"):
        classifier.fit(rows[:, :1], np.full(len(rows), "huge"))
    np.testing.assert_array_equal(model.predict(rows), before)
    np.testing.assert_array_equal(classifier.predict_proba(rows), shares)
    assert model.get_params()["lr"] == 1e6
    fresh = SteepestRegressor(**wild, epochs=5)
    with pytest.raises(InputError, match="Training diverged"):
        fresh.fit(rows, numbers)
    with pytest.raises(NotFittedError):
        fresh.predict(rows)


def test_weights_that_overflow_in_the_last_step_are_a_divergence(rows: Any, numbers: Any) -> None:
    wild = SteepestRegressor(optimizer="sgd", lr=1e300, batch_size=len(rows), epochs=1)
    for learn in (wild.partial_fit, wild.fit):
        with pytest.raises(InputError, match="Training diverged in epoch 1 at"):
            learn(rows, numbers)


def test_features_that_no_variance_can_be_had_of_are_refused(rows: Any, numbers: Any, labels: Any) -> None:
    for learn, y in ((SteepestRegressor().fit, numbers), (SteepestClassifier().fit, labels)):
        with pytest.raises(InputError, match=r"X holds numbers as large as \S+, too large"):
            learn(rows * 1e200, y)
    with pytest.raises(InputError, match=r"X holds numbers as large as \S+, too large"):
        SteepestRegressor().partial_fit(rows * 1e200, numbers)
    with pytest.raises(
        InputError, match=r"numbers as large as \S+, with weights as large as 1e\+300, too large"
    ):
        SteepestClassifier().fit(rows, labels, sample_weight=np.full(len(rows), 1e300))


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [
        (1e300, "y holds numbers as large as .* too large"),
        (1e-300, "y holds numbers that lie within .* too little"),
    ],
)
def test_targets_that_no_variance_can_be_had_of_are_refused(
    rows: Any, numbers: Any, factor: float, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        SteepestRegressor(epochs=2).fit(rows, numbers * factor)


def test_a_schedule(rows: Any, numbers: Any) -> None:
    constant, linear = (
        SteepestRegressor(epochs=20, lr=0.01, schedule=name).fit(rows, numbers)
        for name in ("constant", "linear")
    )
    assert (constant.loss_curve_ != linear.loss_curve_).any()
    assert linear.score(rows, numbers) > 0.9
    with pytest.raises(InputError, match="partial_fit knows no number of steps"):
        linear.partial_fit(rows, numbers)


def test_the_names_are_public() -> None:
    assert {"SteepestClassifier", "SteepestRegressor"} <= set(steepest.__all__)


def test_counts_are_predicted_in_their_own_units(rows: Any) -> None:
    rate = np.exp(0.5 + StandardScaler().fit_transform(rows) @ [0.5, -0.4, 0.2])
    counts = np.random.default_rng(3).poisson(rate).astype(float)
    model = SteepestRegressor(loss="poisson_nll", hidden=(), lr=0.03, epochs=200).fit(rows, counts)
    predicted = model.predict(rows)
    assert predicted.min() > 0.0
    assert np.corrcoef(np.log(predicted), np.log(rate))[0, 1] > 0.9
    assert abs(predicted.mean() - counts.mean()) < 0.1
    with torch.no_grad():
        logs = model.to_torch()(torch.tensor(rows, dtype=torch.float32))[:, 0]
    np.testing.assert_allclose(np.exp(logs.numpy()), predicted, rtol=1e-4)
    with pytest.raises(InputError, match="takes targets from 0 up; the smallest one here is -1"):
        model.fit(rows, counts - 1.0)

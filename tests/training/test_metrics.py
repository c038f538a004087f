"""The metrics inside the engines' pass are scikit-learn's, on the same predictions."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from steepest.losses import LOSSES
from steepest.training.metrics import LOGIT, LOGITS, METRICS, REAL, Metric, default_metric
from steepest.training.native import NativeEngine, to_predictions
from steepest.training.native_kernel import MICRO_BATCH
from steepest.training.run import Architecture, Run, Stop
from steepest.training.torch_engine import score_of

from .problems import problem

# scikit-learn says so when a class has no row in the validation part; the figure is right all the same.
pytestmark = [
    pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning"),
    pytest.mark.filterwarnings("ignore:A single label was found:UserWarning"),
]

# Validation rows: one, odd numbers, and about what goes through the net at once.
SIZES = (1, 2, 77, MICRO_BATCH - 1, MICRO_BATCH, MICRO_BATCH + 1, 3 * MICRO_BATCH + 5)
KINDS = {"regression": (REAL, 1), "binary": (LOGIT, 1), "two": (LOGITS, 2), "multiclass": (LOGITS, 5)}
FORMULAS = {
    REAL: LOSSES["mse"].formula,
    LOGIT: LOSSES["bce"].formula,
    LOGITS: LOSSES["cross_entropy"].formula,
}
CASES = [
    (metric, kind)
    for metric, entry in METRICS.items()
    for kind in KINDS
    if {"two": "binary"}.get(kind, kind) in entry.tasks
]


def through_the_kernel(metric: str, kind: int, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """The engine's way: micro-batches of feature-major outputs, then the finished figure."""
    dtype = str(outputs.dtype)
    kernel = METRICS[metric].kernel(dtype)
    rows, width = outputs.shape
    sums = np.zeros(2 + 2 * max(width, 2))
    pointers = kernel.function.argtypes

    def call(part: NDArray[Any], wanted: NDArray[Any], count: int) -> float:
        at = [ctypes.cast(array.ctypes.data, pointers[i]) for i, array in ((0, part), (1, wanted), (5, sums))]
        return float(kernel(at[0], at[1], count, width, kind, at[2], rows))

    for start in range(0, rows, MICRO_BATCH):
        part = np.ascontiguousarray(outputs[start : start + MICRO_BATCH].T)
        call(part, np.ascontiguousarray(targets[start : start + MICRO_BATCH]), part.shape[1])
    return call(outputs, targets, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("metric", "kind"), CASES)
def test_equals_scikit_learn(metric: str, kind: str, dtype: str) -> None:
    word, width = KINDS[kind]
    rng = np.random.default_rng(len(metric) + width)
    for rows in SIZES:
        for spread in (0.1, 3.0):
            outputs = (rng.normal(size=(rows, width)) * spread).astype(dtype)
            if word == REAL:
                targets = rng.normal(size=rows).astype(dtype)
            else:
                targets = rng.integers(0, max(width, 2), rows).astype(dtype)
            figure = through_the_kernel(metric, word, outputs, targets)
            whole = targets.astype(np.float64) if word == REAL else targets.astype(int)
            expected = METRICS[metric].compute(
                whole, to_predictions(outputs.astype(np.float64), FORMULAS[word])
            )
            assert figure == pytest.approx(expected, rel=1e-12, abs=1e-15), rows
            # A module's outputs, whose class indices are whole numbers; turned round, they lie otherwise.
            as_given = targets if word == REAL else targets.astype(int)
            for laid_out in (outputs, np.asfortranarray(outputs)):
                of_module = score_of(METRICS[metric], as_given, laid_out, FORMULAS[word])
                assert of_module == pytest.approx(expected, rel=1e-12, abs=1e-15), rows


def test_a_score_of_what_is_no_number_is_none() -> None:
    rmse, log_loss, targets = METRICS["rmse"], METRICS["log_loss"], np.array([1.0, 0.0])
    counts = LOSSES["poisson_nll"].formula
    assert math.isnan(score_of(rmse, targets, np.array([[math.inf], [0.0]]), FORMULAS[REAL]))
    assert math.isnan(score_of(log_loss, targets, np.array([[math.nan], [0.0]]), FORMULAS[LOGIT]))
    assert math.isnan(score_of(rmse, targets, np.array([[800.0], [0.0]]), counts))  # exp(800)
    assert score_of(rmse, targets, np.array([[0.0], [0.0]]), counts) == pytest.approx(math.sqrt(0.5))
    # A logit without end is a probability all the same.
    sure = score_of(log_loss, targets, np.array([[math.inf], [-math.inf]]), FORMULAS[LOGIT])
    assert sure == pytest.approx(0.0, abs=1e-15)


def test_probabilities_and_a_users_own_metric_go_by_predictions() -> None:
    targets, outputs = np.array([1, 0, 1]), np.array([[0.9], [0.2], [0.6]], dtype=np.float32)
    of_probabilities = score_of(METRICS["log_loss"], targets, outputs, LOSSES["bce_probability"].formula)
    assert of_probabilities == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.6])), rel=1e-6)

    def largest(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        assert predictions.shape == (3, 2)
        return float(predictions.max())

    own = Metric("largest", "largest", ("binary",), True, largest)
    assert score_of(own, targets, outputs, FORMULAS[LOGIT]) == pytest.approx(
        1 / (1 + math.exp(-0.9)), rel=1e-6
    )


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_confident_mistakes_cost_as_much_as_in_scikit_learn(kind: str) -> None:
    """Probabilities are held within [2**-52, 1 - 2**-52]: a single wild row cannot decide a ranking."""
    word, width = KINDS[kind]
    for size in (10.0, 36.0, 37.0, 100.0, 1e4):
        outputs = np.zeros((2, width), np.float32)
        outputs[:, 0] = size
        targets = np.array([0.0, 1.0], np.float32)  # for one logit: a mistake, then a hit
        figure = through_the_kernel("log_loss", word, outputs, targets)
        predictions = to_predictions(outputs.astype(np.float64), FORMULAS[word])
        assert figure == pytest.approx(
            METRICS["log_loss"].compute(targets.astype(int), predictions), rel=1e-9
        )
        assert figure < 36.05


@pytest.mark.parametrize("num_rows", [1, 2, 67, 1000, 10**6])
def test_what_right_answers_vouch_for(num_rows: int) -> None:
    """No statement has a smaller expected log loss where the next answer is wrong once in n + 2 times."""
    stated = np.linspace(0, 1, 100_001)[1:-1] * min(1.0, 10.0 / (num_rows + 2))
    wrong = 1.0 / (num_rows + 2)
    expected = -wrong * np.log(stated) - (1 - wrong) * np.log1p(-stated)
    targets = np.zeros(num_rows, np.int64)
    assert METRICS["log_loss"].least_told_apart(lambda: targets) == pytest.approx(expected.min(), rel=1e-6)
    assert stated[expected.argmin()] == pytest.approx(wrong, rel=1e-2)


def test_only_log_losses_reward_being_surer_without_end() -> None:
    targets = np.repeat([0, 1], [90, 10])
    leasts = {name: metric.least_told_apart(lambda: targets) for name, metric in METRICS.items()}
    of = METRICS["log_loss"].least_told_apart
    assert leasts["log_loss"] == of(lambda: np.zeros(100))
    assert leasts["balanced_log_loss"] == (of(lambda: np.zeros(90)) + of(lambda: np.zeros(10))) / 2
    assert {name for name, least in leasts.items() if least > -np.inf} == {"log_loss", "balanced_log_loss"}
    assert all(metric.least_told_apart(lambda: targets[:0]) == -np.inf for metric in METRICS.values())


def test_the_tables_own_words() -> None:
    assert list(METRICS) == [metric.name for metric in METRICS.values()]
    assert {task: default_metric(task) for task in ("regression", "binary", "multiclass")} == {
        "regression": "rmse",
        "binary": "log_loss",
        "multiclass": "log_loss",
    }
    for metric in METRICS.values():
        assert metric.greater_is_better == ("accuracy" in metric.name)
        assert metric.in_target_units == (metric.tasks == ("regression",))


PAIRS = [
    (metric, loss, task)
    for metric, entry in METRICS.items()
    for loss, cls in LOSSES.items()
    for task in cls.formula.tasks
    if task in entry.tasks
]


@pytest.mark.parametrize(("metric", "loss", "task"), PAIRS)
def test_the_record_tells_the_metric_of_its_own_predictions(metric: str, loss: str, task: str) -> None:
    """Every loss's kind of output: the figure in the record is the one its kept weights give, in target units."""
    sizes = (
        SIZES if (loss, metric) in (("mse", "rmse"), ("cross_entropy", "balanced_accuracy")) else (77, 257)
    )
    for rows in sizes:
        data = problem(task, rows=120, validation=rows)
        engine = NativeEngine(data, metric)
        run = Run(loss, "adam", 0.03, 32, architecture=Architecture((5,)), stop=Stop(4))
        (record,) = engine.run_all([run])
        assert record is not None
        predictions = engine.predict(run, record.parameters, data.x_validation)
        targets = data.y_validation if task == "regression" else data.y_validation.astype(int)
        expected = METRICS[metric].compute(targets, predictions)
        expected *= data.target_scale if METRICS[metric].in_target_units else 1.0
        # float32 outputs, summed in another order by BLAS.
        assert record.validation_score == pytest.approx(expected, rel=1e-5), rows
        assert record.validation_score == record.curve.validation_score[record.best_epoch - 1]

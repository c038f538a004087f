"""What cross-entropy is good and bad at: probabilities near 0 and 1, and imbalanced classes."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from steepest.losses import BCEWithLogitsLoss, CrossEntropyLoss
from steepest.training.metrics import METRICS
from steepest.training.native import NativeEngine
from steepest.training.run import Record, Run, Stop, TrainingData

from .problems import LINEAR, Array, new_run, train

SEEDS = range(4)


def naive_binary(x: Tensor, y: Tensor) -> Tensor:
    """The textbook formula, from a probability that has been rounded."""
    p = torch.sigmoid(x)
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p))


def naive_classes(x: Tensor, y: Tensor) -> Tensor:
    return -torch.log(torch.softmax(x, dim=1)).gather(1, y[:, None])


def value_and_gradient(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[float, Array]:
    x = x.clone().requires_grad_()
    value = loss(x, y).sum()
    value.backward()
    assert x.grad is not None
    return float(value.detach()), x.grad.double().flatten().numpy()


@pytest.mark.parametrize("x", [-200.0, -120.0, 20.0, 40.0, 100.0, 200.0])
def test_near_0_and_1_the_textbook_formula_fails_and_the_loss_from_logits_does_not(x: float) -> None:
    """Cross-entropy is bad near p = 0 and 1 if it is computed from the rounded probability: the value is lost
    or overflows, or the gradient is lost or NaN. From the logit both are right, to float32's rounding."""
    logit, target = torch.tensor([x]), torch.tensor([1.0])
    with mpmath.workdps(60):
        value = mpmath.log1p(mpmath.exp(-mpmath.mpf(x)))
        gradient = -1 / (1 + mpmath.exp(mpmath.mpf(x)))
        truth = float(value), float(gradient)
    smallest = float(np.finfo(np.float32).smallest_subnormal)
    close = {"rel": 1e-6, "abs": 2 * smallest}
    ours = value_and_gradient(BCEWithLogitsLoss(), logit, target)
    assert ours[0] == pytest.approx(truth[0], **close)
    assert ours[1][0] == pytest.approx(truth[1], **close)
    naive = value_and_gradient(naive_binary, logit, target)
    assert not np.allclose([naive[0], naive[1][0]], truth, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("first", [-200.0, -120.0, 20.0, 60.0, 80.0])
def test_the_same_holds_for_several_classes(first: float) -> None:
    """Softmax and logarithm taken apart lose a class's value or gradient where its probability rounds to 0 or
    1; together they are exact."""
    logits = [first, 0.0, 1.0]
    x, y = torch.tensor([logits]), torch.tensor([0])
    with mpmath.workdps(60):
        parts = [mpmath.exp(mpmath.mpf(logit)) for logit in logits]
        value = mpmath.log(sum(parts) / parts[0])
        slopes = [-(parts[1] + parts[2]) / sum(parts), parts[1] / sum(parts), parts[2] / sum(parts)]
        truth = float(value), np.array([float(slope) for slope in slopes])
    ours = value_and_gradient(CrossEntropyLoss(), x, y)
    assert ours[0] == pytest.approx(truth[0], rel=1e-6)
    np.testing.assert_allclose(ours[1], truth[1], rtol=1e-6, atol=1e-44)
    naive = value_and_gradient(naive_classes, x, y)
    assert not np.allclose([naive[0], *naive[1]], [truth[0], *truth[1]], rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_is_surely_wrong_recovers_from_logits_alone(seed: int) -> None:
    """Where training begins sure and wrong, every probability has rounded to 1: from probabilities the
    gradient is lost and nothing is ever learned; from logits the run recovers."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(200, 2))
    y = (x @ random.normal(size=2) > 0).astype(float)
    sure = np.array([0.0, 0.0, 50.0])  # weights, bias: p = 1 for all rows
    runs = [new_run(loss, "adam", 0.1, stop={"max_epochs": 3000}) for loss in ("bce", "bce_probability")]
    recovered, stuck = train(runs, x, y, task="binary", metric="accuracy", start=sure)
    np.testing.assert_array_equal(stuck.parameters, sure)

    def accuracy(record: Record) -> float:
        weights, bias = record.parameters[:2], record.parameters[2]
        return float(np.mean((x @ weights + bias > 0) == (y == 1)))

    assert accuracy(stuck) < 0.7
    assert accuracy(recovered) > 0.97


def classes(seed: int, share: float, num_rows: int = 4000) -> tuple[Array, Array]:
    """Two overlapping classes, the second of which has that share of the rows."""
    random = np.random.default_rng(seed)
    y = (random.random(num_rows) < share).astype(float)
    x = random.normal(size=(num_rows, 4))
    x[:, :2] += 1.2 * y[:, None]
    return x, y


def recalls(seed: int, share: float, loss: str, **options: float) -> tuple[float, float, float]:
    """On new rows: the frequent class's recall, the rare one's, and the balanced accuracy."""
    (x, y), (x_new, y_new) = classes(seed, share), classes(seed + 1000, share)
    as_target = np.int64 if loss == "cross_entropy" else np.float32
    data = TrainingData("binary", 2, x.astype(np.float32), y.astype(as_target),
                        x_new.astype(np.float32), y_new.astype(as_target))  # fmt: skip
    engine = NativeEngine(data, "log_loss")
    run = Run(loss, "adam", 0.01, 128, seed, LINEAR, Stop(max_epochs=30), loss_options=options)
    (record,) = engine.run_all([run])
    assert record is not None
    p = engine.predict(run, record.parameters, data.x_validation)
    right = p.argmax(axis=1) == y_new
    balanced = METRICS["balanced_accuracy"].compute(y_new.astype(np.int64), p)
    return float(right[y_new == 0].mean()), float(right[y_new == 1].mean()), balanced


@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_rare_class_is_outvoted(seed: int, loss: str) -> None:
    """Cross-entropy is bad at imbalanced classes: where the rare class has 2% of the rows, its recall is a
    fraction of the frequent one's and the balanced accuracy hardly better than a coin's; with as many rows
    of each, the same two classes are told apart."""
    frequent, rare, balanced = recalls(seed, 0.02, loss)
    assert frequent > 0.99
    assert rare < 0.3
    assert balanced < 0.65
    _, even, balanced_even = recalls(seed, 0.5, loss)
    assert even > 0.7
    assert balanced_even > 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_a_class_weight_lifts_the_rare_class(seed: int) -> None:
    """Weighing the rare class as much as the other (``pos_weight``) gives it its recall, and the balanced
    accuracy of even classes."""
    _, rare, balanced = recalls(seed, 0.02, "bce", pos_weight=0.98 / 0.02)
    assert rare > 0.6
    assert balanced > 0.72

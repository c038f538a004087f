"""Inputs on which torch is wrong and this package is right.

Each test shows both: the day torch is right too, its half fails, and the row can be struck from the list.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from steepest.optim import SGD, RMSprop

INF = math.inf
TAIL = 4.248354255291589e-18  # log(1 + exp(-40)), to 16 digits
CONFIDENT = 1.8715242938810946e-13  # log(1 + 2 exp(-30))


def loss_and_gradient(
    loss: nn.Module, logits: list[float], target: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    leaf = torch.tensor([logits], dtype=dtype, requires_grad=True)
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad[0]


# logit, target, what torch gives and the truth of the loss, what torch gives and the truth of the gradient
LOGITS = [
    (-40.0, 0.0, 0.0, TAIL, TAIL, TAIL),
    (40.0, 1.0, TAIL, TAIL, 0.0, -TAIL),
    (-INF, 0.0, math.nan, 0.0, 0.0, 0.0),
    (INF, 1.0, math.nan, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("logit", "target", "torch_loss", "loss", "torch_gradient", "gradient"), LOGITS)
def test_binary_cross_entropy_in_the_tails(
    logit: float, target: float, torch_loss: float, loss: float, torch_gradient: float, gradient: float,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    wanted = torch.tensor([[target]], dtype=dtype)
    close = {"rtol": 2e-7 if dtype == torch.float32 else 1e-15, "atol": 0.0}
    value, slope = loss_and_gradient(BCEWithLogitsLoss(), [logit], wanted, dtype)
    torch.testing.assert_close(value, torch.tensor(loss, dtype=dtype), **close)
    torch.testing.assert_close(slope, torch.tensor([gradient], dtype=dtype), **close)

    value, slope = loss_and_gradient(nn.BCEWithLogitsLoss(), [logit], wanted, dtype)
    torch.testing.assert_close(value, torch.tensor(torch_loss, dtype=dtype), equal_nan=True, **close)
    torch.testing.assert_close(slope, torch.tensor([torch_gradient], dtype=dtype), equal_nan=True, **close)


@pytest.mark.parametrize("path", ["fused", "torch.func"])
def test_cross_entropy_of_a_confident_right_answer(path: str) -> None:
    logits, target = torch.tensor([[30.0, 0.0, 0.0]]), torch.tensor([0])
    truth = {"rtol": 2e-7, "atol": 0.0}
    if path == "fused":
        value, gradient = loss_and_gradient(CrossEntropyLoss(), [30.0, 0.0, 0.0], target, torch.float32)
    else:
        gradient, value = torch.func.grad_and_value(CrossEntropyLoss())(logits, target)
        gradient = gradient[0]
    torch.testing.assert_close(value, torch.tensor(CONFIDENT), **truth)
    torch.testing.assert_close(gradient[0], torch.tensor(-CONFIDENT), **truth)
    torch.testing.assert_close(gradient[1:].sum(), torch.tensor(CONFIDENT), **truth)

    value, gradient = loss_and_gradient(nn.CrossEntropyLoss(), [30.0, 0.0, 0.0], target, torch.float32)
    assert value == 0.0
    assert gradient[0] == 0.0


def test_cross_entropy_with_every_target_ignored_keeps_torchs_nan() -> None:
    """The one row where torch's answer is kept: a mean of nothing."""
    logits, ignored = torch.randn(4, 3), torch.full((4,), -100)
    for loss in (CrossEntropyLoss(), nn.CrossEntropyLoss()):
        assert math.isnan(loss(logits, ignored))


def test_mse_of_a_column_and_a_row() -> None:
    column, row = torch.arange(4.0).reshape(4, 1), torch.arange(4.0)
    with pytest.raises(InputError, match=r"shape \(4, 1\) and the target \(4,\)"):
        MSELoss()(column, row)
    with pytest.warns(UserWarning, match="target size"):
        wrong = nn.MSELoss()(column, row)
    assert wrong == 2.5  # of equal numbers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fused_sgd_updates_every_element(dtype: torch.dtype) -> None:
    updated = {}
    for cls in (SGD, torch.optim.SGD):
        parameter = nn.Parameter(torch.ones(100, dtype=dtype))
        parameter.grad = torch.ones_like(parameter)
        cls([parameter], lr=0.5, fused=True).step()
        updated[cls] = int((parameter != 1).sum())
    assert updated == {SGD: 100, torch.optim.SGD: 4}


@pytest.mark.parametrize("kind", ["index", "weighted", "probabilities"])
def test_float16_cross_entropy_over_many_rows_is_finite(kind: str) -> None:
    rows = 70_000
    logits = torch.zeros(rows, 4, dtype=torch.float16)
    logits[:, 0] = 3.0
    target = torch.ones(rows, dtype=torch.int64)
    weight = torch.ones(4, dtype=torch.float16) if kind == "weighted" else None
    if kind == "probabilities":
        target = nn.functional.one_hot(target, 4).to(torch.float16)
    truth = 3.0 + math.log1p(3 * math.exp(-3.0))
    assert (
        abs(float(CrossEntropyLoss(weight=weight)(logits, target)) - truth) < 2e-3
    )  # half a unit at 3: 1e-3
    assert not torch.isfinite(nn.CrossEntropyLoss(weight=weight)(logits, target))


def test_ignored_rows_may_hold_anything() -> None:
    """Beyond the list: an infinite or NaN logit in an ignored row reaches no gradient."""
    results = []
    for loss in (CrossEntropyLoss(), nn.CrossEntropyLoss()):
        leaf = torch.tensor([[INF, 0.0], [math.nan, 1.0], [1.0, 2.0]], requires_grad=True)
        loss(leaf, torch.tensor([-100, -100, 1])).backward()
        results.append(leaf.grad)
    assert torch.equal(results[0][:2], torch.zeros(2, 2))
    assert torch.isnan(results[1]).any()


def test_centred_rmsprop_on_a_constant_gradient_stays_finite() -> None:
    """Beyond the list: the variance of a constant is 0, and rounding takes torch's below."""
    finite = {}
    for cls in (RMSprop, torch.optim.RMSprop):
        parameter = nn.Parameter(torch.ones(8))
        parameter.grad = torch.linspace(0.1, 3.0, 8)
        optimizer = cls([parameter], lr=1e-6, alpha=0.9, centered=True)
        for _ in range(400):
            optimizer.step()
        finite[cls] = bool(torch.isfinite(parameter).all())
    assert finite == {RMSprop: True, torch.optim.RMSprop: False}

"""Inputs on which torch is wrong, or refuses what has an answer, and this package is right.

Each test shows both: the day torch is right too, its half fails, and the row can be struck from the list. What is
meant to differ stands in ``differences.py``.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest import losses, optim
from steepest.errors import InputError
from steepest.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, functional
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


def test_cross_entropy_with_every_target_ignored_keeps_torchs_nan_or_gives_0() -> None:
    """The one row where torch's answer is kept: a mean of nothing; ``on_empty`` changes it."""
    logits, ignored = torch.randn(4, 3), torch.full((4,), -100)
    for loss in (CrossEntropyLoss(), nn.CrossEntropyLoss()):
        assert math.isnan(loss(logits, ignored))
    leaf = logits.clone().requires_grad_()
    nothing = CrossEntropyLoss(on_empty="zero")(leaf, ignored)
    nothing.backward()
    assert nothing == 0.0
    assert torch.equal(leaf.grad, torch.zeros(4, 3))


def test_mse_of_a_column_and_a_row() -> None:
    column, row = torch.arange(4.0).reshape(4, 1), torch.arange(4.0)
    with pytest.raises(InputError, match=r"shape \(4, 1\) and the target \(4,\)"):
        MSELoss()(column, row)
    with pytest.warns(UserWarning, match="target size"):
        wrong = nn.MSELoss()(column, row)
    assert wrong == 2.5  # of equal numbers
    assert MSELoss(strict_shape=False)(column, row) == 2.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fused_sgd_updates_every_element(dtype: torch.dtype) -> None:
    updated = {}
    for cls in (SGD, torch.optim.SGD):
        parameter = nn.Parameter(torch.ones(100, dtype=dtype))
        parameter.grad = torch.ones_like(parameter)
        cls([parameter], lr=0.5, fused=True).step()
        updated[cls] = int((parameter != 1).sum())
    assert updated == {SGD: 100, torch.optim.SGD: 4}


ROWS = 70_000  # whose losses add up to more than float16 holds


@pytest.mark.parametrize("kind", ["index", "weighted", "probabilities"])
def test_float16_cross_entropy_over_many_rows_is_finite(kind: str) -> None:
    logits = torch.zeros(ROWS, 4, dtype=torch.float16)
    logits[:, 0] = 3.0
    target = torch.ones(ROWS, dtype=torch.int64)
    weight = torch.ones(4, dtype=torch.float16) if kind == "weighted" else None
    if kind == "probabilities":
        target = nn.functional.one_hot(target, 4).to(torch.float16)
    truth = 3.0 + math.log1p(3 * math.exp(-3.0))
    value = float(CrossEntropyLoss(weight=weight)(logits, target))
    assert abs(value - truth) < 2e-3  # half a unit at 3: 1e-3
    assert not torch.isfinite(nn.CrossEntropyLoss(weight=weight)(logits, target))


@pytest.mark.parametrize("name", ["NLLLoss", "KLDivLoss"])
def test_float16_means_over_many_rows_are_finite(name: str) -> None:
    """``batchmean`` is a mean too: torch divides a sum that has overflowed already."""
    options = {"reduction": "batchmean"} if name == "KLDivLoss" else {}
    log_probabilities = torch.full((ROWS, 4), -2.0, dtype=torch.float16)
    target = torch.zeros(ROWS, dtype=torch.int64)
    if name == "KLDivLoss":
        target = nn.functional.one_hot(target, 4).to(torch.float16)
    assert getattr(losses, name)(**options)(log_probabilities, target) == 2.0
    assert not torch.isfinite(getattr(nn, name)(**options)(log_probabilities, target))


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


def test_divergence_of_a_share_of_nothing() -> None:
    """Beyond the list: a class that has no share in the target costs nothing, however impossible it is predicted."""
    prediction, target = torch.tensor([[-INF, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert functional.kl_div(prediction, target, reduction="batchmean") == 0.0
    assert math.isnan(nn.functional.kl_div(prediction, target, reduction="batchmean"))


def test_gradient_of_a_count_of_nothing() -> None:
    """Beyond the list: Stirling's terms are for counts above 1, and their NaN at 0 reaches torch's gradient."""
    gradients = []
    for function in (functional.poisson_nll_loss, nn.functional.poisson_nll_loss):
        count = torch.zeros(1, requires_grad=True)
        function(torch.tensor([2.0]), count, full=True).backward()
        gradients.append(count.grad)
    assert gradients[0] == -2.0  # of exp(x) - t x
    assert torch.isnan(gradients[1])


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8])
def test_class_indices_of_any_width(dtype: torch.dtype) -> None:
    """Beyond the list: a table's integers come as they are."""
    logits, target = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 0, 2])
    value = CrossEntropyLoss()(logits, target.to(dtype))
    assert value == CrossEntropyLoss()(logits, target)
    if dtype in (torch.int64, torch.uint8):
        torch.testing.assert_close(nn.CrossEntropyLoss()(logits, target.to(dtype)), value)
    else:
        with pytest.raises(RuntimeError, match="expected target dtype to be Long or Byte"):
            nn.CrossEntropyLoss()(logits, target.to(dtype))


def test_class_weights_of_another_type() -> None:
    """Beyond the list: weights are numbers, whatever their type."""
    log_probabilities, target = torch.log_softmax(torch.eye(3), 1), torch.tensor([0, 1, 1])
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    expected = losses.NLLLoss(weight=weight.float())(log_probabilities, target)
    assert losses.NLLLoss(weight=weight)(log_probabilities, target) == expected
    with pytest.raises(RuntimeError, match="expected scalar type"):
        nn.NLLLoss(weight=weight)(log_probabilities, target)


def test_numbers_in_the_state_keep_their_digits() -> None:
    """Beyond the list: NAdam's product of momenta, one factor a step."""
    steps, decay, beta = 50, 4e-3, 0.9
    truth = math.prod(beta * (1 - 0.5 * 0.96 ** (step * decay)) for step in range(1, steps + 1))
    error = {}
    for cls in (optim.NAdam, torch.optim.NAdam):
        parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
        parameter.grad = torch.ones_like(parameter)
        optimizer = cls([parameter], betas=(beta, 0.999), momentum_decay=decay)
        for _ in range(steps):
            optimizer.step()
        error[cls] = abs(float(optimizer.state[parameter]["mu_product"]) / truth - 1)
    assert error[optim.NAdam] < 1e-14
    assert error[torch.optim.NAdam] > 1e-9


def test_sparse_adam_in_float16_of_a_small_gradient_is_finite() -> None:
    """torch's eps of 1e-8 is 0 in float16, and so is the average of squares."""
    ends = []
    for cls in (optim.SparseAdam, torch.optim.SparseAdam):
        parameter = nn.Parameter(torch.ones(2, 1, dtype=torch.float16))
        parameter.grad = torch.full((2, 1), 1e-3, dtype=torch.float16).to_sparse(1)
        cls([parameter], lr=1e-9).step()
        ends.append(parameter.detach())
    assert ends[0].isfinite().all()
    assert not ends[1].isfinite().any()


def adafactors(start: Tensor, gradient: Tensor, **options: Any) -> list[Tensor]:
    """How far ours moves and torch's."""
    moves = []
    for cls in (optim.Adafactor, torch.optim.Adafactor):
        parameter = nn.Parameter(start.clone())
        parameter.grad = gradient.clone()
        cls([parameter], **options).step()
        moves.append((parameter.detach() - start).double())
    return moves


def test_adafactor_in_float16_with_ordinary_gradients() -> None:
    """torch's product of two mean squares leaves the type: above it, nothing moves; below, digits are lost."""
    start, even = torch.ones(8, 8, dtype=torch.float16), torch.ones(8, 8, dtype=torch.float16)
    ours, theirs = adafactors(start, 20.0 * even, lr=0.1)
    assert (ours + 0.1).abs().max() < 1e-3
    assert not theirs.any()

    rows = even.clone()
    rows[4:] /= 4  # rows of a quarter of the others' gradient take the same step
    ours, theirs = adafactors(start, 0.05 * rows, lr=0.1)
    assert (ours + 0.1).abs().max() < 1e-3
    assert (theirs + 0.1).abs().max() > 3e-3


def test_adafactor_in_float16_of_long_rows() -> None:
    """The root of 300 squares of 16 is 277, and torch squares it in float16."""
    parameter = nn.Parameter(torch.ones(2, 300, dtype=torch.float16))
    parameter.grad = torch.full_like(parameter, 16.0)
    optimizer, peer = optim.Adafactor([parameter]), torch.optim.Adafactor([parameter])
    optimizer.step()
    assert (optimizer.state[parameter]["row_var"] == 256).all()
    peer.step()
    assert not peer.state[parameter]["row_var"].isfinite().any()


def test_adafactor_with_the_papers_eps_where_a_gradient_is_0() -> None:
    start, gradient = torch.ones(2, 2), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    ours, theirs = adafactors(start, gradient, eps=(1e-30, 1e-3))
    assert not ours[0].any()
    assert (ours[1] < 0).all()
    assert theirs.isnan().any()


def test_adafactors_lengths_of_many_numbers_keep_their_digits() -> None:
    start = torch.full((2000, 1500), 0.1)
    gradient = torch.ones_like(start)
    ours, theirs = adafactors(start, gradient, lr=0.5)
    truth = -0.5 * float(start[0, 0])
    assert (ours / truth - 1).abs().max() < 2e-7
    assert (theirs / truth - 1).abs().max() > 1e-4

"""Cross-entropy's own arguments: every kind of target, weights, what is ignored, smoothing, any dimensions."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.losses import CrossEntropyLoss
from steepest.losses.functional import cross_entropy

from .samples import generator

REDUCTIONS = ("none", "mean", "sum")
WIDTHS = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
CLOSE = {"rtol": 2e-14, "atol": 1e-15}  # a few units in the last place of torch's own float64

# The dimensions of the logits; classes lie in the second (the first of one).
SHAPES = [(5,), (7, 5), (1, 5), (3, 5, 4), (2, 5, 3, 2), (2, 3, 1, 1, 2)]


def drawn(shape: tuple[int, ...], kind: str) -> tuple[Tensor, Tensor]:
    rng = generator("cross-entropy", shape, kind)
    logits = torch.tensor(rng.normal(size=shape) * 3)
    dimension = min(1, len(shape) - 1)
    if kind == "index":
        without = shape[:dimension] + shape[dimension + 1 :]
        return logits, torch.tensor(rng.integers(0, shape[dimension], without))
    shares = torch.softmax(torch.tensor(rng.normal(size=shape)) * 2, dimension)
    if kind == "one-hot":
        shares = (shares == shares.amax(dimension, keepdim=True)).double()
    return logits, shares


def both(
    logits: Tensor, target: Tensor, upstream: Tensor | None = None, **options: Any
) -> list[tuple[Tensor, Tensor]]:
    results = []
    for function in (cross_entropy, nn.functional.cross_entropy):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf, target, **options)
        loss.backward(torch.linspace(0.5, 1.5, loss.numel(), dtype=loss.dtype).reshape(loss.shape))
        assert leaf.grad is not None
        results.append((loss.detach(), leaf.grad))
    return results


OPTIONS = [
    dict(zip(("weighted", "label_smoothing", "reduction"), values, strict=True))
    for values in itertools.product((False, True), (0.0, 0.1, 1.0), REDUCTIONS)
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
@pytest.mark.parametrize("kind", ["index", "one-hot", "probabilities"])
def test_every_option_equals_torch_in_any_dimensions(kind: str, options: dict[str, Any]) -> None:
    options = dict(options)
    weighted = options.pop("weighted")
    for shape in SHAPES:
        logits, target = drawn(shape, kind)
        classes = shape[min(1, len(shape) - 1)]
        weight = torch.linspace(0.25, 3, classes, dtype=torch.float64) if weighted else None
        for ours, theirs in zip(*both(logits, target, weight=weight, **options), strict=True):
            torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("ignored", [-100, 2, 0, -1, 77])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_equal_torch(weighted: bool, reduction: str, ignored: int) -> None:
    logits, target = drawn((6, 5, 4), "index")
    target[::2, 1] = ignored
    target[3] = ignored
    weight = torch.linspace(0.25, 3, 5, dtype=torch.float64) if weighted else None
    for smoothing in (0.0, 0.3):
        ours, theirs = both(
            logits,
            target,
            weight=weight,
            reduction=reduction,
            ignore_index=ignored,
            label_smoothing=smoothing,
        )
        torch.testing.assert_close(ours[0], theirs[0], **CLOSE)
        torch.testing.assert_close(ours[1], theirs[1], **CLOSE)
        assert not ours[1].movedim(1, -1)[target == ignored].any()


@pytest.mark.parametrize("dtype", WIDTHS)
def test_class_indices_of_any_width(dtype: torch.dtype) -> None:
    logits, target = drawn((9, 5), "index")
    target[4] = 3
    for ignored in (-100, 3):
        wide = cross_entropy(logits, target, ignore_index=ignored)
        assert torch.equal(cross_entropy(logits, target.to(dtype), ignore_index=ignored), wide)


def test_a_byte_that_wraps_round_is_not_ignored() -> None:
    """-100 is 156 to a uint8; class 156 is a class."""
    logits, _ = drawn((3, 200), "index")
    target = torch.tensor([156, 0, 199])
    whole = cross_entropy(logits, target, reduction="none")
    assert torch.equal(cross_entropy(logits, target.to(torch.uint8), reduction="none"), whole)
    assert torch.equal(cross_entropy(logits, target.to(torch.uint8)), cross_entropy(logits, target))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_indices_one_hot_and_certain_probabilities_are_one_loss(reduction: str) -> None:
    logits, target = drawn((7, 5), "index")
    one_hot = nn.functional.one_hot(target, 5)
    results = []
    for given in (target, one_hot.double()):
        leaf = logits.clone().requires_grad_()
        loss = cross_entropy(leaf, given, reduction=reduction)
        loss.sum().backward()
        results.append((loss.detach(), leaf.grad))
    for by_index, by_share in zip(*results, strict=True):
        torch.testing.assert_close(by_index, by_share, rtol=1e-15, atol=0)


def test_masked_classes() -> None:
    """A class at -inf has probability 0: no loss and no gradient of its own, infinite loss where it is true."""
    logits = torch.tensor([[1.0, -math.inf, 2.0], [0.5, 0.25, -math.inf]], dtype=torch.float64)
    for target in (
        torch.tensor([2, 0]),
        torch.tensor([[0.25, 0.0, 0.75], [1.0, 0.0, 0.0]], dtype=torch.float64),
    ):
        leaf = logits.clone().requires_grad_()
        loss = cross_entropy(leaf, target)
        loss.backward()
        open_only = [logits[0, [0, 2]], logits[1, :2]]
        wanted = [target[0] // 2, target[1]] if target.dim() == 1 else [target[0, [0, 2]], target[1, :2]]
        apart = torch.stack([cross_entropy(x, t) for x, t in zip(open_only, wanted, strict=True)]).mean()
        torch.testing.assert_close(loss.detach(), apart, rtol=1e-15, atol=0)
        assert leaf.grad is not None
        assert leaf.grad[0, 1] == leaf.grad[1, 2] == 0
        assert torch.isfinite(leaf.grad).all()
    assert cross_entropy(logits, torch.tensor([1, 2])) == math.inf


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_by_probability_targets_equals_torchs(weighted: bool, reduction: str) -> None:
    """Of one-hot targets too, where a share of 0 has a slope of its own."""
    for kind in ("one-hot", "probabilities"):
        logits, shares = drawn((4, 5), kind)
        weight = torch.linspace(0.25, 3, 5, dtype=torch.float64) if weighted else None
        gradients = []
        for function in (cross_entropy, nn.functional.cross_entropy):
            leaf = shares.clone().requires_grad_()
            loss = function(logits, leaf, weight=weight, reduction=reduction, label_smoothing=0.1)
            gradients += torch.autograd.grad(loss.sum(), leaf)
        torch.testing.assert_close(*gradients, **CLOSE)


def test_all_ignored() -> None:
    logits = torch.randn(4, 3, dtype=torch.float64)
    for reduction in REDUCTIONS:
        ours, theirs = both(logits, torch.full((4,), -100), reduction=reduction)
        for mine, its in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, its, equal_nan=True)


def test_not_a_number_stays_one() -> None:
    for place in range(3):
        logits = torch.zeros(2, 3)
        logits[0, place] = math.nan
        leaf = logits.requires_grad_()
        values = cross_entropy(leaf, torch.tensor([0, 0]), reduction="none")
        assert torch.isnan(values).tolist() == [True, False]
        values.sum().backward()
        assert leaf.grad is not None
        assert torch.isnan(leaf.grad).any(1).tolist() == [True, False]


FEW = torch.tensor([0, 1, 2])
# logits' shape, target, options, the error and what its sentence must hold
WRONG: list[tuple[tuple[int, ...], Tensor, dict[str, Any], type[Exception], list[str]]] = [
    ((3, 4), FEW[:2], {}, InputError, ["(3, 4)", "(2,)"]),
    ((3, 4), torch.zeros(3, 5), {}, InputError, ["(3, 4)", "(3, 5)", "probability"]),
    ((3, 4, 2), torch.zeros(3, dtype=torch.int64), {}, InputError, ["(3, 4, 2)", "(3, 2)", "class-index"]),
    ((), torch.tensor(0), {}, InputError, ["single number"]),
    ((3, 4), torch.tensor([0, 1, 4]), {}, IndexError, ["0 to 4", "[0, 3]"]),
    ((3, 4), torch.tensor([0, -1, 2]), {}, IndexError, ["-1 to 2"]),
    ((3, 4), FEW.to(torch.uint8), {"weight": torch.ones(3)}, InputError, ["(3,)", "(4,)"]),
    ((3, 4), FEW, {"label_smoothing": 1.5}, InputError, ["1.5", "[0, 1]"]),
    ((3, 4), torch.tensor([True, False, True]), {}, InputError, ["torch.bool"]),
    ((3, 4), FEW, {"reduction": "avg"}, InputError, ["'avg'"]),
]


@pytest.mark.parametrize(("shape", "target", "options", "error", "words"), WRONG)
def test_wrong_input_is_refused(
    shape: tuple[int, ...], target: Tensor, options: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        CrossEntropyLoss(**options)(torch.zeros(shape), target)
    assert all(word in str(caught.value) for word in words), str(caught.value)

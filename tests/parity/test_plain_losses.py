"""A plain loss goes a way of its own, to the same bits; what is not plainly fit for it goes the way of all others."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from steepest.backends import cpu_plain, cpu_tensors
from steepest.bench.losses import draw, loss_of
from steepest.losses import (
    LOSSES,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HuberLoss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    fused,
)

WITH_KERNELS = [word for word, loss in LOSSES.items() if loss.formula.gradient is not None]


@pytest.fixture(autouse=True)
def _has_table() -> None:
    if cpu_tensors.look_up_at() is None:
        pytest.skip("tensors are looked up through DLPack's table of C functions, and this torch has none")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the plain way took it, call by call."""
    answers: list[bool] = []
    function = cpu_plain.Plain.__call__

    def told(*arguments: Any) -> bool:
        answers.append(function(*arguments))
        return answers[-1]

    monkeypatch.setattr(cpu_plain.Plain, "__call__", told)
    return answers


def results(loss: Callable[[Tensor, Tensor], Tensor], input: Tensor, target: Tensor) -> list[Tensor]:
    x = input.detach().requires_grad_()
    value = loss(x, target)
    with torch.no_grad():
        alone = loss(x, target)
    return [value.detach(), alone, *torch.autograd.grad(value, x)]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # the KL divergence's
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("word", WITH_KERNELS)
def test_the_same_bits(
    word: str, dtype: torch.dtype, reduction: str, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:
    is_softmax = LOSSES[word].formula.family == "softmax"
    shapes = (
        [(7, 3), (33, 10), (5, 200), (2, 4, 3), (7000, 10), (90, 400), (30, 500, 3)]
        if is_softmax
        else [(1,), (37,), (3, 5, 2), (), (300, 150), (700, 150)]
    )
    for shape in shapes:
        input, target = draw(word, shape[:2])
        if len(shape) == 3 and is_softmax:
            input = input.unsqueeze(-1) + torch.arange(3.0)
            target = torch.stack([target, target, target.flip(0)], -1)
        elif not is_softmax:
            input, target = (t.reshape(-1)[:1].reshape(()) if shape == () else t for t in (input, target))
        input = input.to(dtype)
        target = target.to(dtype) if target.is_floating_point() else target
        loss = loss_of(word, (*shape[:1], shape[1]) if is_softmax else shape, reduction=reduction)
        plain = results(loss, input, target)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(fused, "_may_be_plain", lambda *_: False)
            whole = results(loss, input, target)
        for mine, theirs in zip(plain, whole, strict=True):
            assert mine.dtype == dtype
            assert torch.equal(mine, theirs), (shape, mine, theirs)
    if word not in ("logit_adjusted", "class_balanced"):  # weights and offsets go with the others
        assert taken
        assert all(taken)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("rows", [50, 5000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_bits_with_weights(
    rows: int, dtype: torch.dtype, smoothing: float, reduction: str, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:  # fmt: skip
    weight = torch.rand(10, dtype=dtype)
    loss = CrossEntropyLoss(weight, ignore_index=3, reduction=reduction, label_smoothing=smoothing)
    input, target = draw("cross_entropy", (rows, 10))
    plain = results(loss, input.to(dtype), target)
    monkeypatch.setattr(fused, "_may_be_plain", lambda *_: False)
    for mine, theirs in zip(plain, results(loss, input.to(dtype), target), strict=True):
        assert torch.equal(mine, theirs)
    assert len(taken) == 2
    assert all(taken)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "word", ["nll", "nll, ignored", "nll, places", "nll, a row", "margins", "squared margins"]
)
def test_the_same_bits_of_rows(
    word: str, dtype: torch.dtype, weighted: bool, reduction: str, monkeypatch: pytest.MonkeyPatch, taken: list[bool]
) -> None:  # fmt: skip
    input, target = draw("cross_entropy", (50, 10))
    input, weight = input.to(dtype), torch.rand(10, dtype=dtype) if weighted else None
    if "places" in word:
        input, target = input.reshape(5, 10, 2, 5), target.reshape(5, 2, 5)
    if "a row" in word:
        input, target = input[0], target[0]
    is_ignored = {"ignore_index": 3} if "ignored" in word else {}
    if "margins" in word:
        loss: Any = MultiMarginLoss(1 + ("squared" in word), margin=0.7, weight=weight, reduction=reduction)
    else:
        loss = NLLLoss(weight, reduction=reduction, **is_ignored)
    plain = results(loss, input, target)
    monkeypatch.setattr(fused, "_may_be_plain", lambda *_: False)
    for mine, theirs in zip(plain, results(loss, input, target), strict=True):
        assert torch.equal(mine, theirs)
    assert taken == [True, True]


def case(**changes: Any) -> Callable[[], tuple[Any, Tensor, Tensor]]:
    loss = changes.pop("loss", MSELoss())

    def make() -> tuple[Any, Tensor, Tensor]:
        given = {"input": torch.linspace(-2, 2, 12), "target": torch.linspace(1, -1, 12), **changes}
        return loss, given["input"], given["target"]

    return make


LOGITS, CLASSES = torch.linspace(-2, 2, 12).reshape(4, 3), torch.tensor([0, 2, 1, 2])
_TURNED = torch.complex(torch.zeros(1), torch.ones(1)).conj().imag
OTHERS: dict[str, Callable[[], tuple[Any, Tensor, Tensor]]] = {
    "every other": case(input=torch.linspace(-2, 2, 24)[::2]),
    "every other target": case(target=torch.linspace(-2, 2, 24)[::2]),
    "turned": case(input=torch.ones(3, 4).t(), target=torch.zeros(4, 3)),
    "negated": case(input=torch._neg_view(torch.linspace(-2, 2, 12))),
    "negated target": case(target=torch._neg_view(torch.linspace(-2, 2, 12))),
    "one negated number": case(input=_TURNED, target=torch.zeros(1)),
    "half": case(input=torch.ones(12).half(), target=torch.zeros(12).half()),
    "two types": case(target=torch.zeros(12, dtype=torch.float64)),
    "empty": case(input=torch.ones(0), target=torch.ones(0)),
    "large and every other": case(input=torch.ones(80_000)[::2], target=torch.zeros(40_000)),
    "target that learns": case(target=torch.ones(12, requires_grad=True)),
    "narrow classes": case(loss=CrossEntropyLoss(), input=LOGITS, target=CLASSES.int()),
    "every other class": case(loss=CrossEntropyLoss(), input=LOGITS, target=CLASSES.repeat_interleave(2)[::2]),
    "probabilities": case(loss=CrossEntropyLoss(), input=LOGITS, target=LOGITS.softmax(1)),
    "all ignored": case(loss=CrossEntropyLoss(), input=LOGITS, target=torch.full((4,), -100)),
    "no weight": case(loss=CrossEntropyLoss(torch.zeros(3)), input=LOGITS, target=CLASSES),
    "every class ignored": case(loss=NLLLoss(), input=LOGITS, target=torch.full((4,), -100)),
    "one row's margins": case(loss=MultiMarginLoss(), input=LOGITS[0], target=CLASSES[0]),
    "narrow classes' margins": case(loss=MultiMarginLoss(), input=LOGITS, target=CLASSES.int()),
    "weight": case(loss=BCEWithLogitsLoss(torch.ones(12)), target=torch.ones(12)),
    "switch": case(loss=MSELoss(output_dtype=torch.float64)),
    "values": case(loss=HuberLoss(reduction="none")),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_others_go_the_other_way(name: str, taken: list[bool]) -> None:
    loss, input, target = OTHERS[name]()
    theirs = next(base for base in type(loss).__mro__ if base.__module__ == "torch.nn.modules.loss")
    arguments = {word: getattr(loss, word) for word in ("weight", "label_smoothing") if hasattr(loss, word)}
    if name == "target that learns":
        target = target.detach().requires_grad_()
    expected = theirs(reduction=loss.reduction, **arguments)(
        input, target.long() if "narrow" in name else target
    )
    torch.testing.assert_close(
        loss(input, target), expected, equal_nan=True, check_dtype=name != "switch",
        rtol=2e-3 if name == "half" else None, atol=1e-5 if name == "half" else None,
    )  # fmt: skip
    assert not any(taken)


@pytest.mark.parametrize("weight", [torch.ones(3).double(), torch.ones(3).requires_grad_()])
def test_weights_that_torch_refuses_go_the_other_way(weight: Tensor, taken: list[bool]) -> None:
    weighted, plain = CrossEntropyLoss(weight)(LOGITS, CLASSES), CrossEntropyLoss()(LOGITS, CLASSES)
    torch.testing.assert_close(weighted.detach(), plain, check_dtype=False)
    assert len(taken) == 1 or not taken[0]  # the other is the plain loss


@pytest.mark.parametrize(
    ("input", "target", "error"),
    [
        (LOGITS, torch.tensor([0, 3, 1, 2]), IndexError),
        (LOGITS, torch.tensor([0, -1, 1, 2]), IndexError),
        (LOGITS, torch.tensor([0, -(1 << 63), 1, 2]), IndexError),
        (LOGITS, CLASSES[:3], ValueError),
        (LOGITS, CLASSES.reshape(2, 2), ValueError),
        (LOGITS.int(), CLASSES, ValueError),
        (LOGITS.tolist(), CLASSES, ValueError),
        (LOGITS.repeat(9000, 1), torch.tensor([0, 3, 1, 2]).repeat(9000), IndexError),
        (LOGITS.repeat(9000, 1), CLASSES, ValueError),
    ],
)
@pytest.mark.parametrize(
    "loss", [CrossEntropyLoss(), NLLLoss(), MultiMarginLoss()], ids=lambda loss: loss.formula.name
)
def test_what_does_not_fit_is_told_as_ever(
    input: Any, target: Any, error: type[Exception], loss: Any
) -> None:
    with pytest.raises(error, match=f"^{loss.formula.name}: "):
        loss(input, target)


def test_shapes_of_one_size_are_two_shapes() -> None:
    with pytest.raises(ValueError, match="must be equal"):
        MSELoss()(torch.zeros(3, 4), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="must be equal"):
        MSELoss()(torch.zeros(12), torch.zeros(3, 4))


@pytest.mark.parametrize("size", [8, 40_000])
def test_a_second_backward_pass_and_a_second_derivative(size: int) -> None:
    x, classes = torch.linspace(-3, 3, 3 * size).reshape(size, 3).requires_grad_(), torch.arange(size) % 3
    loss = CrossEntropyLoss()(x, classes)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    kept = first.clone()
    first.mul_(5.0)  # the caller's own
    again = torch.autograd.grad(loss, x, retain_graph=True)[0]
    (smooth,) = torch.autograd.grad(loss, x, create_graph=True)
    assert torch.equal(again, kept)
    torch.testing.assert_close(smooth, kept)
    assert torch.autograd.grad(smooth.square().sum(), x)[0].abs().sum() > 0


@pytest.mark.parametrize("size", [8, 40_000])
def test_the_logits_are_let_go_with_the_backward_pass(size: int) -> None:
    """The loss is often still there when the next logits are made."""
    layer = torch.nn.Linear(2, 3)
    logits = layer(torch.ones(size, 2))
    gone = weakref.ref(logits)
    loss = CrossEntropyLoss()(logits, torch.zeros(size, dtype=torch.int64))
    loss.backward()
    del logits
    gc.collect()
    assert gone() is None
    assert loss.item() > 0


@pytest.mark.parametrize("size", [8, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_beyond_the_range_is_infinite(dtype: torch.dtype, size: int) -> None:
    x = torch.full((size,), torch.finfo(dtype).max / 2, dtype=dtype, requires_grad=True)
    loss = MSELoss()(x, torch.zeros_like(x))
    loss.backward()
    assert loss.item() == float("inf")
    assert MSELoss(output_dtype=torch.float32)(x, torch.zeros_like(x)).item() == float("inf")
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_an_input_that_was_changed_since_is_noticed() -> None:
    x = torch.ones(4, requires_grad=True) * 2
    loss = MSELoss()(x, torch.zeros(4))
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_the_table_all_goes_the_other_way(monkeypatch: pytest.MonkeyPatch, taken: list[bool]) -> None:
    monkeypatch.setattr(cpu_plain, "finds_on", lambda device: False)
    made = cpu_plain._compiled, cpu_plain.pointwise, cpu_plain.softmax
    for function in made:
        function.cache_clear()
    try:
        assert CrossEntropyLoss()(LOGITS, CLASSES) == pytest.approx(
            float(torch.nn.functional.cross_entropy(LOGITS, CLASSES))
        )
        assert taken == [False]
    finally:
        for function in made:
            function.cache_clear()

"""The switches every loss takes beyond torch's arguments."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.losses import LOSSES, BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, functional

from .gpu_device import WITHOUT_A_CARD
from .samples import DTYPES, generator

ONE_OF_EACH = ("mse", "bce", "cross_entropy")


def sample(name: str, dtype: str = "float32", rows: int = 6) -> tuple[Tensor, Tensor]:
    rng = generator("switches", name)
    x = torch.tensor(rng.normal(size=(rows, 4)) * 3).to(DTYPES[dtype])
    if name == "cross_entropy":
        return x, torch.tensor(rng.integers(0, 4, rows))
    return x, torch.tensor(rng.uniform(size=(rows, 4))).to(DTYPES[dtype])


def loss_and_gradient(loss: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_()
    value = loss(leaf * 1.0, y)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


# --- wrong values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize(
    ("switches", "error", "says"),
    [
        ({"on_empty": "one"}, InputError, "choose 'nan' or 'zero'"),
        ({"strict_shape": "yes"}, InputError, "True or False"),
        ({"inplace": 1}, InputError, "True or False"),
        ({"output_dtype": torch.int64}, InputError, "floating torch.dtype"),
        ({"normalizer": 0.0}, InputError, "greater than 0"),
        ({"normalizer": torch.ones(2)}, InputError, "one number"),
        ({"normalizer": 3.0, "reduction": "sum"}, InputError, "reduction='mean'"),
        ({"inplce": True}, TypeError, "inplace"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(name: str, switches: dict[str, object], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        LOSSES[name](**switches)


def test_switches_are_shown() -> None:
    assert repr(CrossEntropyLoss(on_empty="zero")) == "CrossEntropyLoss(on_empty=zero)"
    assert repr(MSELoss()) == "MSELoss()"


# --- on_empty --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])  # the kernel, the reference
def test_every_target_ignored(dtype: str) -> None:
    x, _ = sample("cross_entropy", dtype)
    y = torch.full((6,), -100)
    for loss in (CrossEntropyLoss(), nn.CrossEntropyLoss()):
        value, gradient = loss_and_gradient(loss, x, y)
        assert math.isnan(value)
    value, gradient = loss_and_gradient(CrossEntropyLoss(on_empty="zero"), x, y)
    assert value == 0.0
    assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_no_element_at_all(name: str, dtype: str) -> None:
    x, y = sample(name, dtype, rows=0)
    assert math.isnan(LOSSES[name]()(x, y))
    value, gradient = loss_and_gradient(LOSSES[name](on_empty="zero"), x, y)
    assert value == 0.0
    assert gradient.shape == x.shape


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_is_not_empty_is_as_without(name: str) -> None:
    x, y = sample(name)
    for ours, plain in zip(
        loss_and_gradient(LOSSES[name](on_empty="zero"), x, y),
        loss_and_gradient(LOSSES[name](), x, y),
        strict=True,
    ):
        assert torch.equal(ours, plain)


# --- normalizer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_micro_batches_add_up_to_the_whole_batch(name: str, dtype: str) -> None:
    """Where each micro-batch takes its own mean, short ones weigh too much."""
    x, y = sample(name, dtype, rows=11)
    if name == "cross_entropy":
        y[[0, 1, 2, 7]] = -100
    count = (y != -100).sum() if name == "cross_entropy" else x.numel()
    whole, of_whole = loss_and_gradient(LOSSES[name](), x, y)
    parts = [
        loss_and_gradient(LOSSES[name](normalizer=count), x[rows], y[rows])
        for rows in (slice(0, 4), slice(4, 11))
    ]
    torch.testing.assert_close(sum(value for value, _ in parts), whole)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), of_whole)
    own = [LOSSES[name]()(x[rows], y[rows]) for rows in (slice(0, 4), slice(4, 11))]
    assert not torch.allclose(torch.stack(own).mean(), whole, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_normalizer_replaces_the_sum_of_the_weights(dtype: str) -> None:
    x, y = sample("cross_entropy", dtype)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0]).to(DTYPES[dtype])
    total = functional.cross_entropy(x.double(), y, weight.double(), reduction="sum")
    value = CrossEntropyLoss(weight, normalizer=8.0, output_dtype=torch.float32)(x, y)
    torch.testing.assert_close(value.double(), total / 8, rtol=1e-6, atol=0)


# --- output_dtype ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_half_logits_give_a_wide_loss(name: str, reduction: str) -> None:
    x, y = sample(name, "bfloat16")
    wide = LOSSES[name](reduction=reduction, output_dtype=torch.float32)
    truth = LOSSES[name](reduction=reduction)(x.double(), y.double() if y.is_floating_point() else y)
    value, gradient = loss_and_gradient(wide, x, y)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(value.double(), truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_wider_result_has_the_wider_digits(name: str) -> None:
    x, y = sample(name)
    truth = LOSSES[name](reduction="none")(x.double(), y.double() if y.is_floating_point() else y)
    value = LOSSES[name](reduction="none", output_dtype=torch.float64)(x, y)
    torch.testing.assert_close(value, truth, rtol=1e-14, atol=0)
    assert LOSSES[name](output_dtype=torch.float16)(x, y).dtype == torch.float16


# --- inplace ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_gradient_lies_where_the_input_was(name: str, dtype: str, reduction: str) -> None:
    x, y = sample(name, dtype)
    leaf = x.clone().requires_grad_()
    logits = leaf * 2.0
    value = LOSSES[name](reduction=reduction, inplace=True)(logits, y)
    plain_leaf = x.clone().requires_grad_()
    plain_logits = plain_leaf * 2.0
    plain_logits.retain_grad()
    plain = LOSSES[name](reduction=reduction)(plain_logits, y)
    (3.0 * plain).backward()
    (3.0 * value).backward()
    assert torch.equal(value, plain)
    assert torch.equal(logits.detach(), plain_logits.grad)
    assert torch.equal(leaf.grad, plain_leaf.grad)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_graph_that_needs_the_input_says_so(name: str) -> None:
    x, y = sample(name)
    logits = x.clone().requires_grad_().exp()  # exp keeps its result for its gradient
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        LOSSES[name](inplace=True)(logits, y).backward()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_second_pass_says_what_is_gone(name: str) -> None:
    x, y = sample(name)
    value = LOSSES[name](inplace=True)(x.clone().requires_grad_() * 2.0, y)
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="needs inplace=False"):
        value.backward()
    leaf = x.clone().requires_grad_()
    value = LOSSES[name](inplace=True)(leaf * 2.0, y)
    with pytest.raises(RuntimeError, match="needs inplace=False"):
        torch.autograd.grad(value, leaf, create_graph=True)


# The CPU has no kernel of bfloat16; a GPU has, and overwrites as it is told to.
@pytest.mark.parametrize(
    "kind",
    [
        "leaf",
        "no gradient",
        "no_grad",
        "transposed",
        "expanded",
        "none",
        *([] if WITHOUT_A_CARD else ["bfloat16"]),
    ],
)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_may_not_be_overwritten_is_not(name: str, kind: str) -> None:
    x, y = sample(name, "bfloat16" if kind == "bfloat16" else "float32", rows=4)
    if kind == "expanded":
        x = x[:1]
    leaf = x.clone().requires_grad_(kind != "no gradient")
    logits = leaf if kind == "leaf" else leaf * 1.0
    if kind == "transposed":
        logits = logits.t()
    if kind == "expanded":
        logits = logits.expand(4, 4)
    before = logits.detach().clone()
    with torch.set_grad_enabled(kind != "no_grad"):
        value = LOSSES[name](inplace=True, reduction="none" if kind == "none" else "mean")(logits, y)
    assert torch.equal(logits.detach(), before)
    if value.requires_grad:
        value.sum().backward()
        assert leaf.grad is not None


# --- integer targets, vectors of weights -----------------------------------------------------------------------


@pytest.mark.parametrize("integer", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_class_indices_of_any_width(integer: torch.dtype) -> None:
    x, y = sample("cross_entropy")
    truth, of_truth = loss_and_gradient(nn.CrossEntropyLoss(), x, y)
    value, gradient = loss_and_gradient(CrossEntropyLoss(), x, y.to(integer))
    torch.testing.assert_close(value, truth)
    torch.testing.assert_close(gradient, of_truth)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (5, 1, 1), (1, 3, 4), (5, 3, 4), (5, 1, 4), (2, 5, 3, 1)])
def test_weights_of_any_shape_take_the_kernel(shape: tuple[int, ...], dtype: str) -> None:
    """By class, by sample, by both, for all: bit for bit what written-out weights give."""
    rng = generator("operands", shape)
    draw = lambda *size: torch.tensor(rng.uniform(0.2, 3, size)).to(DTYPES[dtype])  # noqa: E731
    x, y = draw(2, 5, 3, 4) - 1.5, draw(2, 5, 3, 4) / 3.5
    weight, pos_weight = draw(*shape), draw(*shape)
    results = []
    for options in (
        {"weight": weight, "pos_weight": pos_weight},
        {
            "weight": weight.expand(x.shape).contiguous(),
            "pos_weight": pos_weight.expand(x.shape).contiguous(),
        },
    ):
        leaf = x.clone().requires_grad_()
        value = BCEWithLogitsLoss(**options)(leaf, y)
        assert "Fused" in type(value.grad_fn).__name__
        value.backward()
        results.append((value.detach(), leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    theirs = nn.BCEWithLogitsLoss(weight.double(), pos_weight=pos_weight.double())(x.double(), y.double())
    torch.testing.assert_close(
        results[0][0].double(), theirs, rtol=1e-6 if dtype == "float32" else 1e-14, atol=0
    )

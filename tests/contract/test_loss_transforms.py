"""Higher derivatives, ``torch.func`` and ``torch.compile``, for every loss of the registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from steepest.losses import LOSSES

from .samples import generator, parameters_of, pointwise_samples

REDUCTIONS = ("none", "mean", "sum")


def smooth_points(name: str) -> tuple[Tensor, Tensor]:
    """A few inputs in float64 at which the loss is smooth: away from ties and from a threshold's bend."""
    formula = LOSSES[name].formula
    if formula.family == "softmax":
        rng = generator(name, "smooth")
        return torch.tensor(rng.normal(size=(4, 3))), torch.tensor(rng.integers(0, 3, 4))
    predictions, targets = pointwise_samples(formula, "float64", tails=False)
    apart = (predictions - targets).abs()
    smooth = apart > 0.1
    if "delta" in formula.parameters:
        smooth &= (apart - parameters_of(formula)[0]).abs() > 0.1
    return predictions[smooth][:8], targets[smooth][:8]


def loss_of(name: str, reduction: str = "mean") -> Callable[[Tensor, Tensor], Tensor]:
    return LOSSES[name](reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_gradcheck_and_gradgradcheck(name: str, reduction: str) -> None:
    predictions, targets = smooth_points(name)
    leaf = predictions.requires_grad_()
    function = lambda x: loss_of(name, reduction)(x, targets)  # noqa: E731
    assert gradcheck(function, (leaf,))
    assert gradgradcheck(function, (leaf,))


@pytest.mark.parametrize("name", LOSSES)
def test_the_fused_gradient_and_its_differentiable_form_agree(name: str) -> None:
    predictions, targets = smooth_points(name)
    leaf = predictions.requires_grad_()
    loss = loss_of(name)(leaf, targets)
    assert "Fused" in type(loss.grad_fn).__name__
    (fused,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (differentiable,) = torch.autograd.grad(loss, leaf, create_graph=True)
    torch.testing.assert_close(fused, differentiable.detach(), rtol=1e-14, atol=1e-17)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("name", LOSSES)
def test_func_grad_and_hessian(name: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name)
    leaf = predictions.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, targets), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(predictions, targets), expected, rtol=1e-14, atol=1e-17)
    hessian = torch.func.hessian(loss)(predictions, targets)
    reverse = torch.autograd.functional.hessian(lambda x: loss(x, targets), predictions)
    torch.testing.assert_close(hessian, reverse, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_vmap(name: str, reduction: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name, reduction)
    stacked = torch.stack([predictions, predictions * 0.5, predictions * 0.25])
    wanted = targets.expand(3, *targets.shape)
    together = torch.vmap(loss)(stacked, wanted)
    alone = torch.stack([loss(x, t) for x, t in zip(stacked, wanted, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=1e-17)
    gradients = torch.vmap(torch.func.grad(lambda x, t: loss(x, t).sum()))(stacked, wanted)
    leaf = stacked.clone().requires_grad_()
    sum(loss(x, t).sum() for x, t in zip(leaf, wanted, strict=True)).backward()
    torch.testing.assert_close(gradients, leaf.grad, rtol=1e-13, atol=1e-16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("name", LOSSES)
def test_compiles_as_one_graph(name: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    results = []
    for function in (loss, compiled):
        leaf = predictions.clone().requires_grad_()
        value = function(leaf, targets)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for ours, its in zip(*results, strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-14, atol=1e-17)

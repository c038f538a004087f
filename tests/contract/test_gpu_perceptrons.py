"""The Triton kernels of many perceptrons at once: a layer forward and back against float64 sums."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steepest.training.activations import ACTIVATIONS

from .gpu_device import gpu

pytest.importorskip("triton", reason="Triton comes with torch's CUDA and ROCm builds, and is not here")

from steepest.backends import cuda_perceptrons as kernels

SIZES = [(1, 1, 1), (7, 5, 65), (33, 65, 5), (70, 1, 130)]  # rows, inputs, outputs
EPS = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}
MEMBERS, GROUPS = 3, 2


@pytest.fixture
def device() -> str:
    return gpu()


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype, device: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)


class Case:
    """A layer of three members on two groups of rows, its numbers in the middle of others that are none of its."""

    def __init__(
        self, size: tuple[int, int, int], dtype: torch.dtype, device: str, activation: Any, bias: bool
    ):
        rows, inputs, outputs = size
        end = 3 + inputs * outputs
        self.layer = kernels.Layer(inputs, outputs, 3, end if bias else None, activation)
        self.flat = drawn((MEMBERS, end + outputs + 2), 0, dtype, device)
        self.x = drawn((GROUPS, rows, inputs), 1, dtype, device)
        self.which = torch.tensor([1, 0, 1], device=device)
        self.slopes = drawn((MEMBERS, rows, outputs), 2, dtype, device)
        wide = self.flat.cpu().double()
        self.weight = wide[:, 3:end].reshape(MEMBERS, outputs, inputs)
        self.bias = wide[:, None, end : end + outputs] * bias
        self.own = self.x.cpu().double()[[1, 0, 1]]  # each member's rows


def check_sums(found: Tensor, truth: Tensor, sizes: Tensor, num_terms: int) -> None:
    """A sum in the type of ``found`` is off by at most a rounding a term, of the sum of the terms' sizes."""
    bar = (num_terms + 2) * EPS[found.dtype] * sizes
    off = (found.cpu().double() - truth).abs()
    assert found.shape == truth.shape
    # float64 is held against float64, whose own sums are as far off.
    assert (off <= bar * (2 if found.dtype == torch.float64 else 1)).all(), (off / bar).max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products_forward_and_back(
    device: str, size: tuple[int, int, int], dtype: torch.dtype, bias: bool
) -> None:
    case = Case(size, dtype, device, None, bias)
    sums, outputs = kernels.through(case.layer, case.flat, case.x, case.which, keeps=True)
    assert sums is outputs
    turned = case.weight.mT
    check_sums(
        outputs, case.own @ turned + case.bias, case.own.abs() @ turned.abs() + case.bias.abs(), size[1] + 1
    )
    gradients = torch.full_like(case.flat, 7.0)
    kernels.to_weights(case.layer, case.slopes, case.x, case.which, gradients)
    slopes, end = case.slopes.cpu().double().mT, 3 + size[1] * size[2]
    found = gradients[:, 3:end].reshape(MEMBERS, size[2], size[1])
    check_sums(found, slopes @ case.own, slopes.abs() @ case.own.abs(), size[0])
    if bias:
        found = gradients[:, end : end + size[2]]
        check_sums(found, slopes.sum(2), slopes.abs().sum(2), size[0])
    else:
        assert (gradients[:, end:] == 7.0).all()
    assert (gradients[:, :3] == 7.0).all()
    assert (gradients[:, -2:] == 7.0).all()


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_ride_along(device: str, name: str, dtype: torch.dtype) -> None:
    """What is kept is what the activation is of, so that both it and its derivative can be held against torch's."""
    one, size = ACTIVATIONS[name], (33, 5, 65)
    case = Case(size, dtype, device, (one.value, one.gradient), bias=True)
    sums, outputs = kernels.through(case.layer, case.flat, 4 * case.x, case.which, keeps=True)
    unkept, again = kernels.through(case.layer, case.flat, 4 * case.x, case.which, keeps=False)
    assert unkept is again
    assert torch.equal(again, outputs)
    z = sums.cpu().double().requires_grad_()
    truth = one.module()(z)
    check_roundings(outputs, truth.detach(), truth.detach().abs().clamp(min=1.0))
    truth.sum().backward()
    assert z.grad is not None
    slopes = case.slopes.clone()
    kernels.multiply_by_derivative(slopes, sums, (one.value, one.gradient))
    # A derivative is a difference of numbers up to 1, one of them times z.
    wide = case.slopes.cpu().double()
    check_roundings(slopes, wide * z.grad, wide.abs() * (1.0 + z.detach().abs()))
    above = kernels.Layer(65, 7, 1, None, None)
    flat, back = drawn((MEMBERS, 2 + 65 * 7), 5, dtype, device), drawn((MEMBERS, 33, 7), 6, dtype, device)
    found = kernels.to_inputs(above, flat, back, sums, (one.value, one.gradient))
    weight, back = flat.cpu().double()[:, 1:-1].reshape(MEMBERS, 7, 65), back.cpu().double()
    sizes = (back.abs() @ weight.abs()) * (z.grad.abs() + 2.0)  # the derivative has roundings of its own
    check_sums(found, (back @ weight) * z.grad, sizes, 7)


def check_roundings(found: Tensor, truth: Tensor, sizes: Tensor) -> None:
    off = (found.cpu().double() - truth).abs() / sizes
    assert off.max() <= 6 * EPS[found.dtype], off.max() / EPS[found.dtype]


def test_a_member_is_the_same_bits_alone(device: str) -> None:
    case = Case((33, 65, 5), torch.float32, device, None, bias=True)
    _, together = kernels.through(case.layer, case.flat, case.x, case.which, keeps=False)
    gradients = torch.zeros_like(case.flat)
    kernels.to_weights(case.layer, case.slopes, case.x, case.which, gradients)
    for member in range(MEMBERS):
        own = slice(member, member + 1)
        _, alone = kernels.through(case.layer, case.flat[own], case.x, case.which[own], keeps=False)
        assert torch.equal(alone[0], together[member])
        gradient = torch.zeros_like(case.flat[own])
        kernels.to_weights(case.layer, case.slopes[own], case.x, case.which[own], gradient)
        assert torch.equal(gradient[0], gradients[member])


def test_what_is_not_finite_is_of_its_member_alone(device: str) -> None:
    case = Case((7, 5, 65), torch.float32, device, None, bias=True)
    case.flat[1] = torch.inf
    case.slopes[1] = torch.nan
    _, outputs = kernels.through(case.layer, case.flat, case.x, case.which, keeps=False)
    gradients = torch.zeros_like(case.flat)
    kernels.to_weights(case.layer, case.slopes, case.x, case.which, gradients)
    for found in (outputs, gradients):
        assert [bool(one.isfinite().all()) for one in found] == [True, False, True]

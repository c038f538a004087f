"""The Gaussian likelihood's kernel gives what its formula in torch's operations gives, at the edges too."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from steepest.losses import GaussianNLLLoss, several

NAN, INF = float("nan"), float("inf")
EDGES = [0.0, 1.0, -2.0, NAN, INF, -INF, 1e-3, 1e20]
VARIANCES = [0.0, 1e-7, 1e-6, 1.0, NAN, INF, 1e-30, 1e30]


def both_ways(loss: Any, tensors: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """Values and gradients, by the kernel and without it."""
    found = []
    for takes in (several.takes, lambda *_: False):
        with monkeypatch.context() as patched:
            patched.setattr(several, "takes", takes)
            value = loss(*tensors)
            upstream = torch.linspace(0.5, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
            wanted = [tensor for tensor in tensors if tensor.requires_grad]
            first = torch.autograd.grad(value, wanted, upstream, retain_graph=True)
            again = torch.autograd.grad(value, wanted, upstream)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True) if not a.isnan().any())
            found.append([value.detach(), *first])
    return found


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_edges(dtype: torch.dtype, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.tensor(list(itertools.product(EDGES, EDGES, VARIANCES)), dtype=dtype)
    tensors = [column.clone().requires_grad_() for column in rows.unbind(1)]
    ours, expected = both_ways(GaussianNLLLoss(full=full, reduction="none"), tensors, monkeypatch)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(
            mine,
            theirs,
            rtol=1e-6 if dtype == torch.float32 else 1e-10,
            atol=1e-9,
            equal_nan=True,  # (m - y)² = v
        )


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("switches", [{}, {"reduction": "sum"}, {"normalizer": 7.0}, {"reduction": "none"}])
def test_gradients_where_they_are_wanted(
    switches: dict[str, Any], wanted: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.rand((5, 3), generator=generator) + 0.1 for _ in range(3)]
    tensors[1] = tensors[1].t().contiguous().t()  # in another order
    for place in wanted:
        tensors[place].requires_grad_()
    ours, expected = both_ways(GaussianNLLLoss(**switches), tensors, monkeypatch)
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_kernel_is_what_runs_and_others_go_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    monkeypatch.setattr(several.Part, "run", lambda *given: (ran.append(1), 3.0)[1])  # a sum that shows
    mean, var = torch.ones(4, 3), torch.ones(4, 3)
    assert float(GaussianNLLLoss(reduction="sum")(mean, mean, var)) == 3.0
    others = [(mean, var[:, 0]), (mean.half(), var.half()), (mean, var.double()), (mean[:0], var[:0])]
    for given, variance in others:
        GaussianNLLLoss()(given, given, variance)
    assert len(ran) == 1

"""How a step is shared: the rows, and what their mean divides by. No process is started."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steepest import losses
from steepest.errors import InputError
from steepest.losses import LOSSES
from steepest.losses.denominator import denominator
from steepest.losses.functional import cross_entropy
from steepest.training.distributed.order import Order, micro_batches
from steepest.training.random import data_order

CLASSES = 5


@pytest.mark.parametrize(("rows", "batch_size"), [(65, 16), (64, 16), (7, 7), (10, 3)])
def test_every_row_comes_once_an_epoch_on_any_number_of_ranks(rows: int, batch_size: int) -> None:
    order = Order(rows, batch_size, seed=4)
    for epoch in range(2):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [next(order.batches(step, step + 1)) for step in steps]
        assert np.array_equal(np.concatenate(batches), data_order(rows, 4, epoch))
        for batch, ranks, count in product(batches, (1, 2, 3, 4, 8), (1, 2, 3)):
            parts = [micro_batches(batch, rank, ranks, count) for rank in range(ranks)]
            assert {len(part) for part in parts} == {count}  # all go through as many passes
            assert all(len(micro.rows) for part in parts for micro in part)  # none is empty
            taken = [micro.rows for part in parts for micro in part if micro.counts]
            assert np.array_equal(np.concatenate(taken), batch)


def test_a_step_has_the_same_rows_wherever_the_training_was_taken_up_again() -> None:
    order = Order(65, 16, seed=1)
    whole = list(order.batches(0, 23))
    for start in (0, 3, 5, 14):
        for expected, found in zip(whole[start:], order.batches(start, 23), strict=True):
            assert np.array_equal(expected, found)


def test_a_short_last_step_is_left_out_where_the_loader_says_so() -> None:
    assert Order(65, 16, 0).steps_per_epoch == 5
    assert Order(65, 16, 0, drops_last=True).steps_per_epoch == 4
    assert all(len(batch) == 16 for batch in Order(65, 16, 0, drops_last=True).batches(0, 9))


# --- denominators ------------------------------------------------------------------------------------------------


def sample(name: str, rows: int) -> tuple[Tensor, Tensor]:
    """Predictions and targets that a loss takes."""
    draw = torch.Generator().manual_seed(7)
    formula = LOSSES[name].formula
    x = torch.randn(rows, CLASSES, generator=draw, dtype=torch.float64)
    if formula.family == "softmax":
        index = torch.randint(CLASSES, (rows,), generator=draw)
        index[[2, 9]] = -100
        return x, index
    y = torch.rand(x.shape, generator=draw, dtype=torch.float64)
    if formula.prediction == "probability":
        x = torch.sigmoid(x)
    if formula.target == "sign":
        y = torch.where(y < 0.5, -1.0, 1.0)
    return x, y


def shared(loss: Any, x: Tensor, y: Tensor, ranks: int, count: int) -> tuple[float, Tensor]:
    """The mean loss and its gradient, put together as ranks do: from their parts, each averaged over the ranks."""
    total = 0.0
    parts = [micro_batches(np.arange(len(x)), rank, ranks, count) for rank in range(ranks)]
    for part in parts:
        total += sum(denominator(loss, y[micro.rows]) for micro in part if micro.counts)
    loss.switches = {"normalizer": total / ranks}
    mean, gradient = 0.0, torch.zeros_like(x)
    for part in parts:
        for micro in part:
            own = x[micro.rows].requires_grad_()
            value = loss(own, y[micro.rows]) * float(micro.counts)
            value.backward()
            mean += float(value.detach()) / ranks
            gradient[micro.rows] += own.grad / ranks
    loss.switches = {}
    return mean, gradient


# What a module is trained with; the KL divergence warns of its own mean, and has a test of its own below.
TRAINED = [
    name
    for name, loss in LOSSES.items()
    if loss.formula.class_terms is None and loss.formula.family != "composite" and name != "kl_div"
]


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("rows", "ranks", "count"), [(13, 2, 1), (13, 3, 2), (3, 4, 2)])
def test_parts_give_the_mean_and_gradient_of_the_whole(name: str, rows: int, ranks: int, count: int) -> None:
    x, y = (part[:rows] for part in sample(name, 13))
    loss = LOSSES[name]()
    whole = x.clone().requires_grad_()
    expected = loss(whole, y)
    expected.backward()
    mean, gradient = shared(loss, x, y, ranks, count)
    assert mean == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, whole.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("make", [losses.CrossEntropyLoss, losses.NLLLoss])
def test_weights_and_ignored_rows_count_as_in_the_whole(make: Any) -> None:
    x, y = sample("cross_entropy", 13)
    y[8:] = -100  # the last ranks have no row that counts
    loss = make(weight=torch.linspace(0.5, 3.0, CLASSES, dtype=torch.float64))
    x = x.log_softmax(1)
    whole = x.clone().requires_grad_()
    expected = loss(whole, y)
    expected.backward()
    for ranks, count in ((2, 1), (4, 3)):
        mean, gradient = shared(loss, x, y, ranks, count)
        assert mean == pytest.approx(float(expected.detach()), rel=1e-12)
        torch.testing.assert_close(gradient, whole.grad, rtol=1e-11, atol=1e-14)


def test_a_mean_of_means_would_be_another_one() -> None:
    """What this is for: the average of ranks' own means is not the mean."""
    x, y = sample("cross_entropy", 13)
    whole = float(cross_entropy(x, y))
    halves = [float(cross_entropy(x[part], y[part])) for part in (slice(0, 6), slice(6, 13))]
    assert abs(sum(halves) / 2 - whole) > 1e-3


def test_probabilities_count_rows_and_values_elements() -> None:
    assert denominator(losses.CrossEntropyLoss(), torch.rand(4, CLASSES)) == 4.0
    assert denominator(losses.CrossEntropyLoss(), torch.tensor([[1, -100], [0, 2]])) == 3.0
    assert denominator(losses.MSELoss(), torch.rand(4, 2)) == 8.0
    assert denominator(losses.KLDivLoss(reduction="batchmean"), torch.rand(4, 2)) == 4.0
    assert denominator(losses.MultiMarginLoss(), torch.tensor([1, 2, 0])) == 3.0


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(InputError, match="no sum over rows"):
        denominator(losses.DiceLoss(), torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(InputError, match="use reduction='mean'"):
        denominator(losses.MSELoss(reduction="sum"), torch.rand(3))

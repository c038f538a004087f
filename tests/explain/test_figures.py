"""What is drawn is what runs: curves against autograd, paths against torch's own optimizers."""

from __future__ import annotations

import math

import pytest
import torch

from steepest.explain.figure import BESIDE, CONTOUR, Figure, Line, broken_at_jumps
from steepest.explain.loss_figure import loss_figure
from steepest.explain.optimizer_figure import optimizer_figure
from steepest.explain.ravine import NEAR, OPTIMUM, best_descent, descend, hessian, rates
from steepest.explain.regime_figure import NUM_EPOCHS, NUM_ROWS, optimum, regime_figure
from steepest.explain.regime_figure import descend as descend_table
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

TORCH = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}


def own(figure: Figure, panel: int) -> list[Line]:
    return [line for line in figure.panels[panel].lines if line.series >= 0]


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_drawn_is_the_derivative_of_the_value_drawn(name: str) -> None:
    figure = loss_figure(LOSSES[name].formula)
    assert figure.panels[0].title == "value"
    for value, gradient in zip(own(figure, 0), own(figure, 1), strict=True):
        slopes = {x: y for x, y in zip(gradient.x, gradient.y, strict=True) if math.isfinite(y)}
        for i in range(1, len(value.x) - 1, 7):
            left, x, right = value.x[i - 1 : i + 2]
            if name == "cross_entropy":  # drawn against p, by the logit: dp / dx = p (1 - p)
                left, right = (math.log(p / (1 - p)) for p in (left, right))
            between = (slopes[value.x[i - 1]], slopes[value.x[i + 1]])
            difference = (value.y[i + 1] - value.y[i - 1]) / (right - left)
            assert min(between) - 0.02 <= difference <= max(between) + 0.02, (name, x)


def test_values_at_points_known_by_hand() -> None:
    drawn = {
        name: dict(zip(line.x, line.y, strict=True))
        for name in ("mse", "mae", "huber")
        for line in own(loss_figure(LOSSES[name].formula), 0)
        if line.name in (name, "delta = 1")
    }
    assert drawn["mse"][3.0] == 9.0
    assert drawn["mae"][-3.0] == 3.0
    assert drawn["huber"][3.0] == 2.5


@pytest.mark.parametrize(
    ("name", "jumps"), [("mae", 1), ("quantile", 3), ("mse", 0), ("huber", 0), ("bce", 0)]
)
def test_a_kink_is_drawn_as_a_jump_with_its_own_point(name: str, jumps: int) -> None:
    gradients = loss_figure(LOSSES[name].formula).panels[1]
    lifted = [line for line in gradients.lines if line.series >= 0 and any(map(math.isnan, line.y))]
    assert len(lifted) == jumps
    assert [(mark.x, mark.y) for mark in gradients.marks] == ([(0.0, 0.0)] if jumps else [])


def test_a_steep_smooth_curve_is_not_broken() -> None:
    x = [0.02 + 0.0024 * i for i in range(401)]
    assert broken_at_jumps(x, [1 / value for value in x]) == (tuple(x), tuple(1 / value for value in x))


@pytest.mark.parametrize("name", ["huber", "quantile"])
def test_the_default_shape_is_among_those_drawn(name: str) -> None:
    ((parameter, default),) = LOSSES[name].formula.parameters.items()
    assert f"{parameter} = {default:g}" in {line.name for line in own(loss_figure(LOSSES[name].formula), 0)}


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_beside_is_another_loss(name: str) -> None:
    beside = {line.name for line in loss_figure(LOSSES[name].formula).legend if line.series == BESIDE}
    assert name not in beside


@pytest.mark.parametrize("name", TORCH)
def test_a_path_is_the_one_torch_takes(name: str) -> None:
    cls, options = TORCH[name]
    ours = descend(OPTIMIZERS[name], [0.002, 0.01], num_steps=30)
    for i, lr in enumerate([0.002, 0.01]):
        p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        optimizer = cls([p], lr=lr, **options)
        for step in range(30):
            torch.testing.assert_close(ours[step, i], p.detach(), rtol=1e-10, atol=1e-12)
            optimizer.zero_grad()
            ((p - OPTIMUM) @ hessian() @ (p - OPTIMUM) / 2).backward()
            optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_drawn_is_the_best_of_the_grid(name: str) -> None:
    entry = OPTIMIZERS[name]
    grid = rates(entry)
    assert grid[0] == pytest.approx(entry.rates[0])
    assert grid[-1] == pytest.approx(entry.rates[1])
    best = best_descent(entry)
    assert best.lr in grid
    assert all(share <= NEAR for share in best.distances[best.num_steps :])
    assert best.distances[best.num_steps - 1] > NEAR
    for lr in grid[::16]:
        path = descend(entry, [lr])[:, 0]
        far = (path - OPTIMUM).norm(dim=1) / OPTIMUM.norm()
        outside = [step for step, share in enumerate(far.tolist()) if not share <= NEAR]
        assert max(outside) + 1 >= best.num_steps


def test_momentum_needs_fewer_steps_down_the_ravine() -> None:
    assert 2 * best_descent(OPTIMIZERS["momentum"]).num_steps < best_descent(OPTIMIZERS["sgd"]).num_steps


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_an_optimizer_is_drawn_whole_beside_plain_descent(name: str) -> None:
    figure = optimizer_figure(OPTIMIZERS[name])
    assert [line.name for line in figure.legend] == [name, "sgd"]
    window = figure.panels[0].window
    for line in figure.panels[0].lines:
        if line.series != CONTOUR:
            assert window.left <= min(line.x) <= max(line.x) <= window.right
            assert window.bottom <= min(line.y) <= max(line.y) <= window.top
    assert any(f"{best_descent(OPTIMIZERS[name]).num_steps} for {name}" in said for said in figure.caption)


def test_the_regimes_are_drawn_as_they_run() -> None:
    full = descend_table(NUM_ROWS)
    assert len(full) == NUM_EPOCHS + 1
    assert len(descend_table(1)) == NUM_EPOCHS * NUM_ROWS + 1
    far = (full - optimum()).norm(dim=1)
    assert bool((far[1:] < far[:-1]).all())  # the full batch comes nearer at every step
    for batch_size in (1, 8):  # the others leave again
        away = (descend_table(batch_size) - optimum()).norm(dim=1)
        assert bool((away[1:] > away[:-1]).any())
    assert [line.series for line in regime_figure().legend] == [0, 1, 2]

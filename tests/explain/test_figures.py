"""What is drawn is what runs: curves against autograd, paths against torch's own optimizers."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch

from steepest.explain.descent import Descent, best_descent, descend, rates
from steepest.explain.figure import BESIDE, CONTOUR, Figure, Line, broken_at_jumps
from steepest.explain.loss_figure import loss_figure
from steepest.explain.optimizer_figure import optimizer_figure
from steepest.explain.regime_figure import NUM_EPOCHS, NUM_ROWS, optimum, regime_figure
from steepest.explain.regime_figure import descend as descend_table
from steepest.explain.surfaces import RAVINE, hessian
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

START = torch.tensor(RAVINE.start, dtype=torch.float64)
OPTIMUM = torch.tensor(RAVINE.minima[0], dtype=torch.float64)
NEAR, MAX_STEPS = RAVINE.near, RAVINE.max_steps
WATCHED = 2 * MAX_STEPS  # passing near is not taken for staying there

DRAWN = [name for name in LOSSES if LOSSES[name].formula.family != "composite"]
TORCH: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "rprop": (torch.optim.Rprop, {}),
    "asgd": (torch.optim.ASGD, {}),
}
# Torch has none: the paths are held to our own optimizers' steps, which the contract holds to their papers.
OURS = [name for name in OPTIMIZERS if name not in {*TORCH, "momentum_ema"}]


@cache
def best(name: str) -> Descent:
    return best_descent(OPTIMIZERS[name])


@cache
def drawn(name: str) -> Figure:
    return optimizer_figure(OPTIMIZERS[name])


def own(figure: Figure, panel: int) -> list[Line]:
    return [line for line in figure.panels[panel].lines if line.series >= 0]


@pytest.mark.parametrize("name", DRAWN)
def test_the_gradient_drawn_is_the_derivative_of_the_value_drawn(name: str) -> None:
    figure = loss_figure(LOSSES[name].formula)
    assert figure.panels[0].title == "value"
    for value, gradient in zip(own(figure, 0), own(figure, 1), strict=True):
        slopes = {x: y for x, y in zip(gradient.x, gradient.y, strict=True) if math.isfinite(y)}
        for i in range(1, len(value.x) - 1, 7):
            left, x, right = value.x[i - 1 : i + 2]
            if LOSSES[name].formula.family == "softmax":  # against p, by the logit: dp / dx = p (1 - p)
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
    ("name", "jumps", "marks"),
    [
        ("mae", 1, [(0.0, 0.0)]),
        ("quantile", 3, [(0.0, 0.0)]),
        ("hinge", 2, []),  # the point itself belongs to the flat side
        ("hinge_embedding", 1, []),
        *((name, 0, []) for name in DRAWN if name not in ("mae", "quantile", "hinge", "hinge_embedding")),
    ],
)
def test_a_kink_is_drawn_as_a_jump_with_its_own_point(
    name: str, jumps: int, marks: list[tuple[float, float]]
) -> None:
    gradients = loss_figure(LOSSES[name].formula).panels[1]
    lifted = [line for line in gradients.lines if line.series >= 0 and any(map(math.isnan, line.y))]
    assert len(lifted) == jumps
    assert [(mark.x, mark.y) for mark in gradients.marks] == marks


def test_the_hinges_kinks_are_where_the_margin_is_met() -> None:
    for line in own(loss_figure(LOSSES["hinge"].formula), 1):
        (gap,) = [i for i, y in enumerate(line.y) if math.isnan(y)]
        side = 1.0 if line.name == "target y = 1" else -1.0
        assert line.x[gap - 1] <= side <= line.x[gap + 1]
        assert {line.y[gap - 1], line.y[gap + 1]} == {-side, 0.0}


def test_a_steep_smooth_curve_is_not_broken() -> None:
    x = [0.02 + 0.0024 * i for i in range(401)]
    assert broken_at_jumps(x, [1 / value for value in x]) == (tuple(x), tuple(1 / value for value in x))


@pytest.mark.parametrize(
    "name", [n for n in DRAWN if LOSSES[n].formula.prediction == "real" and LOSSES[n].formula.parameters]
)
def test_the_default_shape_is_among_those_drawn(name: str) -> None:
    default = ", ".join(f"{word} = {value:g}" for word, value in LOSSES[name].formula.parameters.items())
    lines = {line.name for line in own(loss_figure(LOSSES[name].formula), 0)}
    assert default in lines
    assert len(lines) == 3


def test_errors_are_drawn_as_far_as_tukeys_loss_turns_flat() -> None:
    for line in own(loss_figure(LOSSES["tukey"].formula), 1):
        assert line.y[0] == line.y[-1] == 0.0
        assert max(line.y) > 0


@pytest.mark.parametrize("name", DRAWN)
def test_what_stands_beside_is_another_loss(name: str) -> None:
    beside = {line.name for line in loss_figure(LOSSES[name].formula).legend if line.series == BESIDE}
    assert name not in beside
    assert bool(beside) == (LOSSES[name].formula.prediction == "real")


def test_a_drawing_that_is_cross_entropys_says_so() -> None:
    plain = own(loss_figure(LOSSES["cross_entropy"].formula), 0)[0]
    same = {
        name
        for name in DRAWN
        if name != "cross_entropy" and own(loss_figure(LOSSES[name].formula), 0)[0].y == plain.y
    }
    assert same == {"logit_adjusted", "class_balanced"}
    for name in DRAWN:
        said = " ".join(loss_figure(LOSSES[name].formula).caption)
        assert ("Drawn for classes of equal size, where it is cross_entropy." in said) == (name in same)


def path_of(cls: Any, lr: float, options: dict[str, Any], num_steps: int) -> torch.Tensor:
    """The path down the ravine that an optimizer's own steps take."""
    p = torch.nn.Parameter(START.clone())
    optimizer = cls([p], lr=lr, **options)
    path = [p.detach().clone()]
    for _ in range(num_steps):
        optimizer.zero_grad()
        ((p - OPTIMUM) @ hessian() @ (p - OPTIMUM) / 2).backward()
        optimizer.step()
        path.append(p.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize("name", TORCH)
def test_a_path_is_the_one_torch_takes(name: str) -> None:
    cls, options = TORCH[name]
    rtol = 1e-6 if name in ("nadam", "asgd") else 1e-10  # torch keeps mu_product, eta and mu in float32
    ours = descend(OPTIMIZERS[name], [0.002, 0.01], num_steps=30)
    for i, lr in enumerate([0.002, 0.01]):
        torch.testing.assert_close(ours[:, i], path_of(cls, lr, options, 30), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", [*OURS, "momentum_ema"])
def test_a_path_is_the_one_our_optimizer_takes(name: str) -> None:
    entry = OPTIMIZERS[name]
    ours = descend(entry, [0.002, 0.01], num_steps=30)
    for i, lr in enumerate([0.002, 0.01]):
        theirs = path_of(entry.cls, lr, dict(entry.options), 30)
        torch.testing.assert_close(ours[:, i], theirs, rtol=1e-10, atol=1e-12)


def test_the_start_has_a_length() -> None:
    assert bool((START != 0).all())  # a layer-wise rule would begin with a step of another kind


def outside(path: torch.Tensor) -> list[int]:
    """The steps of a path after which it is not near the optimum."""
    far = (path - OPTIMUM).norm(dim=1) / (START - OPTIMUM).norm()
    return [step for step, share in enumerate(far.tolist()) if not share <= NEAR]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_drawn_is_the_best_of_the_grid(name: str) -> None:
    entry, chosen = OPTIMIZERS[name], best(name)
    grid = rates(entry)
    assert grid[0] == pytest.approx(entry.rates[0])
    assert grid[-1] == pytest.approx(entry.rates[1])
    assert chosen.lr in grid[1:-1]
    assert len(chosen.path) == MAX_STEPS + 1
    tried = [chosen.lr, *grid[::8]]
    paths = descend(entry, tried, WATCHED)
    torch.testing.assert_close(paths[: MAX_STEPS + 1, 0], chosen.path)
    arrivals = [max(outside(paths[:, i])) + 1 for i in range(len(tried))]
    if chosen.arrives:  # and nothing else does sooner
        assert arrivals[0] == chosen.num_steps <= min(arrivals)
    else:  # nothing else does in time, nor keeps nearer afterwards
        assert min(arrivals) > MAX_STEPS
        later = (paths[MAX_STEPS:] - OPTIMUM).norm(dim=2).nan_to_num(nan=math.inf).amax(dim=0)
        assert later[0] == later.min()


def test_it_is_watched_longer_than_it_is_counted() -> None:
    # At this rate RMSProp is near after 316 steps, up to the last that counts, and then leaves again.
    path = descend(OPTIMIZERS["rmsprop"], [10 ** (-31 / 16)], WATCHED)[:, 0]
    last = outside(path)
    assert max(step for step in last if step <= MAX_STEPS) < MAX_STEPS - 50 < MAX_STEPS + 50 < max(last)
    assert not best("rmsprop").arrives


def test_momentum_needs_fewer_steps_down_the_ravine() -> None:
    assert 2 * best("momentum").num_steps < best("sgd").num_steps


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "sgd"])
def test_an_optimizer_is_drawn_whole_beside_plain_descent(name: str) -> None:
    figure = drawn(name)
    assert [line.name for line in figure.legend] == [name, "sgd"]
    window = figure.panels[0].window
    for line in figure.panels[0].lines:
        if line.series != CONTOUR:
            assert window.left < min(line.x) <= max(line.x) < window.right
            assert window.bottom < min(line.y) <= max(line.y) < window.top
    for mark in figure.panels[0].marks:
        assert window.left < mark.x < window.right
        assert window.bottom < mark.y < window.top
    longest = max(best("sgd").num_steps, best(name).num_steps)
    for line in own(figure, 1):
        assert len(line.y) == min(longest, MAX_STEPS) + 1
        assert line.x[-1] == figure.panels[1].window.right
    assert (window.right - window.left) < 2  # one path does not make all others a dot
    said = " ".join(figure.caption)
    count = f"{best(name).num_steps}" if best(name).arrives else f"more than {MAX_STEPS}"
    assert f"at its best rate: {count} for {name} (lr = {best(name).lr:.2g}), " in said


def test_most_paths_are_drawn_to_one_scale() -> None:
    windows = [drawn(name).panels[0].window for name in OPTIMIZERS if name != "sgd"]
    assert sum(window == windows[0] for window in windows) >= len(windows) - 2


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

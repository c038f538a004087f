"""What the pages print as formulas, held against the code that runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

Function = Callable[..., float]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """A formula and a gradient as printed, the same in plain Python, and options to try beside the defaults."""

    formula: str
    gradient: str
    value_in_python: Function
    gradient_in_python: Function
    options: tuple[tuple[float, ...], ...] = ()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def sign(x: float) -> float:
    return (x > 0) - (x < 0)


def binary_focal(x: float, y: float, a: float, g: float) -> float:
    p = sigmoid(x)
    return -a * y * (1 - p) ** g * math.log(p) - (1 - a) * (1 - y) * p**g * math.log(1 - p)


def binary_focal_gradient(x: float, y: float, a: float, g: float) -> float:
    p = sigmoid(x)
    return (1 - a) * (1 - y) * p**g * (p - g * (1 - p) * math.log(1 - p)) - a * y * (1 - p) ** g * (
        1 - p - g * p * math.log(p)
    )


def asymmetric(x: float, y: float, g_neg: float, g_pos: float, clip: float) -> float:
    p = sigmoid(x)
    m = max(p - clip, 0)
    return -y * (1 - p) ** g_pos * math.log(p) - (1 - y) * m**g_neg * math.log(1 - m)


def asymmetric_gradient(x: float, y: float, g_neg: float, g_pos: float, clip: float) -> float:
    p = sigmoid(x)
    m = max(p - clip, 0)
    first = 0.0
    if p > clip:
        first = (1 - y) * p * (1 - p) * m**g_neg * (1 / (1 - m) - g_neg * math.log(1 - m) / m)
    return first - y * (1 - p) ** g_pos * (1 - p - g_pos * p * math.log(p))


POINTWISE = {
    "mse": Said("mean of (p - y)²", "2 (p - y)", lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    "mae": Said(
        "mean of |p - y|", "sign(p - y), 0 where p = y", lambda p, y: abs(p - y), lambda p, y: sign(p - y)
    ),
    "huber": Said(
        "mean of (p - y)² / 2 where |p - y| ≤ δ, else δ (|p - y| - δ/2)",
        "p - y, held within ±δ",
        lambda p, y, d: (p - y) ** 2 / 2 if abs(p - y) <= d else d * (abs(p - y) - d / 2),
        lambda p, y, d: min(max(p - y, -d), d),
        ((0.3,),),
    ),
    "quantile": Said(
        "mean of q (y - p) where y ≥ p, else (1 - q) (p - y)",
        "-q where y > p, 1 - q where y < p, 0 where p = y",
        lambda p, y, q: q * (y - p) if y >= p else (1 - q) * (p - y),
        lambda p, y, q: -q if y > p else 1 - q if y < p else 0.0,
        ((0.9,),),
    ),
    "smooth_l1": Said(
        "mean of (p - y)² / (2β) where |p - y| < β, else |p - y| - β/2",
        "(p - y) / β, held within ±1",
        lambda p, y, b: (p - y) ** 2 / (2 * b) if abs(p - y) < b else abs(p - y) - b / 2,
        lambda p, y, b: min(max((p - y) / b, -1), 1),
        ((0.3,), (4.0,)),
    ),
    "log_cosh": Said(
        "mean of log cosh(p - y)",
        "tanh(p - y)",
        lambda p, y: math.log(math.cosh(p - y)),
        lambda p, y: math.tanh(p - y),
    ),
    "charbonnier": Said(
        "mean of δ² (√(1 + ((p - y) / δ)²) - 1)",
        "(p - y) / √(1 + ((p - y) / δ)²)",
        lambda p, y, d: d**2 * (math.sqrt(1 + ((p - y) / d) ** 2) - 1),
        lambda p, y, d: (p - y) / math.sqrt(1 + ((p - y) / d) ** 2),
        ((0.3,), (4.0,)),
    ),
    "cauchy": Said(
        "mean of c²/2 log(1 + ((p - y) / c)²)",
        "(p - y) / (1 + ((p - y) / c)²)",
        lambda p, y, c: c**2 / 2 * math.log(1 + ((p - y) / c) ** 2),
        lambda p, y, c: (p - y) / (1 + ((p - y) / c) ** 2),
        ((0.3,), (4.0,)),
    ),
    "tukey": Said(
        "mean of c²/6 (1 - (1 - ((p - y) / c)²)³) where |p - y| ≤ c, else c²/6",
        "(p - y) (1 - ((p - y) / c)²)² where |p - y| ≤ c, else 0",
        lambda p, y, c: c**2 / 6 * (1 - (1 - ((p - y) / c) ** 2) ** 3) if abs(p - y) <= c else c**2 / 6,
        lambda p, y, c: (p - y) * (1 - ((p - y) / c) ** 2) ** 2 if abs(p - y) <= c else 0.0,
        ((0.8,), (4.0,)),
    ),
    "barron": Said(
        "mean of |α - 2| / α ((1 + ((p - y) / c)² / |α - 2|)^(α/2) - 1)",
        "(p - y) / c² (1 + ((p - y) / c)² / |α - 2|)^(α/2 - 1)",
        lambda p, y, a, c: abs(a - 2) / a * ((1 + ((p - y) / c) ** 2 / abs(a - 2)) ** (a / 2) - 1),
        lambda p, y, a, c: (p - y) / c**2 * (1 + ((p - y) / c) ** 2 / abs(a - 2)) ** (a / 2 - 1),
        ((-2.0, 1.0), (0.5, 3.0), (1.9, 0.3), (3.0, 2.0)),
    ),
    "bce": Said(
        "mean of -(w y log p + (1 - y) log(1 - p)), p = sigmoid(x)",
        "(1 - y) p - w y (1 - p), which is p - y where w = 1",
        lambda x, y, w: -(w * y * math.log(sigmoid(x)) + (1 - y) * math.log(1 - sigmoid(x))),
        lambda x, y, w: (1 - y) * sigmoid(x) - w * y * (1 - sigmoid(x)),
        ((5.0,),),
    ),
    "bce_probability": Said(
        "mean of -(y log p + (1 - y) log(1 - p))",
        "(p - y) / (p (1 - p))",
        lambda p, y: -(y * math.log(p) + (1 - y) * math.log(1 - p)),
        lambda p, y: (p - y) / (p * (1 - p)),
    ),
    "binary_focal": Said(
        "mean of -α y (1 - p)^γ log p - (1 - α) (1 - y) p^γ log(1 - p), p = sigmoid(x)",
        "(1 - α) (1 - y) p^γ (p - γ (1 - p) log(1 - p)) - α y (1 - p)^γ (1 - p - γ p log p)",
        binary_focal,
        binary_focal_gradient,
        ((0.9, 0.5), (0.5, 0.0)),
    ),
    "asymmetric": Said(
        "mean of -y (1 - p)^γ⁺ log p - (1 - y) m^γ⁻ log(1 - m), m = max(p - clip, 0), p = sigmoid(x)",
        "(1 - y) p (1 - p) m^γ⁻ (1 / (1 - m) - γ⁻ log(1 - m) / m) - y (1 - p)^γ⁺ (1 - p - γ⁺ p log p), "
        "the first term 0 where p ≤ clip",
        asymmetric,
        asymmetric_gradient,
        ((1.0, 2.0, 0.2), (2.0, 0.0, 0.6)),
    ),
    "soft_margin": Said(
        "mean of log(1 + exp(-y x))",
        "-y sigmoid(-y x)",
        lambda x, y: math.log(1 + math.exp(-y * x)),
        lambda x, y: -y * sigmoid(-y * x),
    ),
    "hinge": Said(
        "mean of max(0, m - y x)",
        "-y where y x < m, else 0",
        lambda x, y, m: max(0, m - y * x),
        lambda x, y, m: -y if y * x < m else 0.0,
        ((0.0,), (2.5,)),
    ),
    "squared_hinge": Said(
        "mean of max(0, m - y x)²",
        "-2 y max(0, m - y x)",
        lambda x, y, m: max(0, m - y * x) ** 2,
        lambda x, y, m: -2 * y * max(0, m - y * x),
        ((0.0,), (2.5,)),
    ),
    "hinge_embedding": Said(
        "mean of x where y = 1, max(0, m - x) where y = -1",
        "1 where y = 1; -1 where y = -1 and x ≤ m, else 0",
        lambda x, y, m: x if y == 1 else max(0, m - x),
        lambda x, y, m: 1.0 if y == 1 else -1.0 if x <= m else 0.0,
        ((0.4,), (2.5,)),
    ),
    "kl_div": Said(
        "mean of y (log y - x), x a log-probability; summed over classes it is the divergence",
        "-y",
        lambda x, y: y * (math.log(y) - x) if y else 0.0,  # 0 giving 0
        lambda x, y: -y,
    ),
    "poisson_nll": Said(
        "mean of exp(x) - y x, x the logarithm of the mean",
        "exp(x) - y",
        lambda x, y: math.exp(x) - y * x,
        lambda x, y: math.exp(x) - y,
    ),
    "gamma": Said(
        "mean of y exp(-x) + x, x the logarithm of the mean",
        "1 - y exp(-x)",
        lambda x, y: y * math.exp(-x) + x,
        lambda x, y: 1 - y * math.exp(-x),
    ),
    "tweedie": Said(
        "mean of y exp((1 - p) x) / (p - 1) + exp((2 - p) x) / (2 - p), x the logarithm of the mean",
        "exp((2 - p) x) - y exp((1 - p) x)",
        lambda x, y, p: y * math.exp((1 - p) * x) / (p - 1) + math.exp((2 - p) * x) / (2 - p),
        lambda x, y, p: math.exp((2 - p) * x) - y * math.exp((1 - p) * x),
        ((1.1,), (1.9,)),
    ),
}
POINTS = {
    "real": [(-2.5, 1.0), (0.3, 0.3), (0.7, 0.2), (4.0, -1.0), (3.0, 2.0)],
    "logit": [(-2.0, 1.0), (0.0, 0.25), (1.5, 0.0), (3.0, 1.0), (-4.0, 0.0)],
    "probability": [(0.1, 1.0), (0.5, 0.25), (0.9, 0.0), (0.7, 1.0)],
    "margin": [(-2.0, 1.0), (0.0, 1.0), (0.0, -1.0), (1.0, 1.0), (-1.0, -1.0), (3.0, 1.0), (0.4, -1.0)],
    "distance": [(0.0, 1.0), (0.0, -1.0), (0.4, -1.0), (1.0, -1.0), (1.5, 1.0), (3.0, -1.0)],
    "log_probability": [(-0.1, 1.0), (-2.0, 0.25), (-0.7, 0.0), (-30.0, 0.6)],
    "log_rate": [(-2.0, 1.0), (0.0, 3.0), (1.5, 0.5), (0.7, 2.0)],
}


def tensor(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64)


@pytest.mark.parametrize("name", POINTWISE)
def test_a_pointwise_loss_is_what_its_page_says(name: str) -> None:
    said, formula = POINTWISE[name], LOSSES[name].formula
    assert (formula.formula, formula.gradient_formula) == (said.formula, said.gradient)
    defaults = tuple(formula.parameters.values())
    assert bool(said.options) == bool(defaults)
    for options in (defaults, *said.options):
        for p, y in POINTS[formula.prediction]:
            given = tensor(p), tensor(y), *map(tensor, options)
            value, gradient = said.value_in_python(p, y, *options), said.gradient_in_python(p, y, *options)
            assert float(formula.value(*given)) == pytest.approx(value, rel=1e-9), (p, y, options)
            assert float(formula.gradient(*given)) == pytest.approx(gradient, rel=1e-9), (p, y, options)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")  # by what kl_div's page says, too
@pytest.mark.parametrize("name", POINTWISE)
def test_the_mean_on_the_page_is_what_the_class_gives(name: str) -> None:
    formula = LOSSES[name].formula
    assert formula.formula.startswith("mean of ")
    points = POINTS[formula.prediction]
    p, y = (torch.tensor(numbers, dtype=torch.float64) for numbers in zip(*points, strict=True))
    each = [POINTWISE[name].value_in_python(*point, *formula.parameters.values()) for point in points]
    assert float(LOSSES[name]()(p, y)) == pytest.approx(sum(each) / len(each), rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 2.0, -math.inf])
def test_barrons_loss_has_the_limits_of_what_its_page_says(alpha: float) -> None:
    near = -1e7 if alpha == -math.inf else alpha + 1e-7
    said, formula = POINTWISE["barron"], LOSSES["barron"].formula
    for p, y in POINTS["real"]:
        given = tensor(p), tensor(y), tensor(alpha), tensor(0.7)
        limit = said.value_in_python(p, y, near, 0.7)
        assert float(formula.value(*given)) == pytest.approx(limit, rel=1e-5, abs=1e-6)
        slope = said.gradient_in_python(p, y, near, 0.7)
        assert float(formula.gradient(*given)) == pytest.approx(slope, rel=1e-5, abs=1e-6)


# Logits of two rows and three classes, and targets of both kinds.
X = [[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]]
SHARES = [[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]
CLASSES = [2, 0]
RARE = [1000.0, 100.0, 10.0]  # rows of each class


def softmax(x: list[float]) -> list[float]:
    whole = sum(math.exp(number) for number in x)
    return [math.exp(number) / whole for number in x]


def one_hot(index: int) -> list[float]:
    return [float(c == index) for c in range(3)]


@dataclass(frozen=True)
class SaidByRow:
    """What a softmax loss's page prints; a class's term, and the gradient it prints, in plain Python."""

    formula: str
    gradient: str
    term: Function  # of p_c: the row's loss is sum_c y_c term(p_c)
    slope: Function  # of p_c, by log p_c
    options: tuple[dict[str, float], ...] = ({},)


SOFTMAX = {
    "cross_entropy": SaidByRow(
        "mean over rows of -Σ_c y_c log p_c, p = softmax(x)",
        "p_c - y_c, by the logit x_c",
        lambda p: -math.log(p),
        lambda p: -1.0,
    ),
    "focal": SaidByRow(
        "mean over rows of -Σ_c y_c (1 - p_c)^γ log p_c, p = softmax(x)",
        "-(1 - p)^γ (1 - γ p log p / (1 - p)), by log p",
        lambda p, gamma=2.0: -((1 - p) ** gamma) * math.log(p),
        lambda p, gamma=2.0: -((1 - p) ** gamma) * (1 - gamma * p * math.log(p) / (1 - p)),
        ({}, {"gamma": 0.5}, {"gamma": 0.0}),
    ),
    "generalized_cross_entropy": SaidByRow(
        "mean over rows of Σ_c y_c (1 - p_c^q) / q, p = softmax(x)",
        "-p^q, by log p",
        lambda p, q=0.7: (1 - p**q) / q,
        lambda p, q=0.7: -(p**q),
        ({}, {"q": 1.0}, {"q": 0.1}),
    ),
    "poly_cross_entropy": SaidByRow(
        "mean over rows of Σ_c y_c (-log p_c + ε (1 - p_c)), p = softmax(x)",
        "-(1 + ε p), by log p",
        lambda p, epsilon=1.0: -math.log(p) + epsilon * (1 - p),
        lambda p, epsilon=1.0: -(1 + epsilon * p),
        ({}, {"epsilon": -1.0}, {"epsilon": 3.0}),
    ),
}


def run(loss: Any, shares: bool, x: list[list[float]] = X) -> tuple[float, Array]:
    """A loss of three classes and its gradient by the logits."""
    logits = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    target = torch.tensor(SHARES, dtype=torch.float64) if shares else torch.tensor(CLASSES)
    value = loss(logits, target)
    value.backward()
    assert logits.grad is not None
    return float(value.detach()), logits.grad.numpy()


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("name", SOFTMAX)
def test_a_softmax_loss_is_what_its_page_says(name: str, shares: bool) -> None:
    said, formula = SOFTMAX[name], LOSSES[name].formula
    assert (formula.formula, formula.gradient_formula) == (said.formula, said.gradient)
    targets = SHARES if shares else [one_hot(index) for index in CLASSES]
    for options in said.options:
        value, gradient = run(LOSSES[name](**options), shares)
        rows, slopes = [], []
        for x, y in zip(X, targets, strict=True):
            p = softmax(x)
            rows.append(sum(y_c * said.term(p_c, **options) for y_c, p_c in zip(y, p, strict=True)))
            by_log_p = [y_c * said.slope(p_c, **options) for y_c, p_c in zip(y, p, strict=True)]
            # log p_c depends on its own logit by 1 - p_c, on another by -p
            slopes.append([by_log_p[c] - p[c] * sum(by_log_p) for c in range(3)])
            if said.gradient == "p_c - y_c, by the logit x_c":
                assert slopes[-1] == pytest.approx([p_c - y_c for p_c, y_c in zip(p, y, strict=True)])
        assert value == pytest.approx(sum(rows) / 2, rel=1e-12)
        assert gradient == pytest.approx(np.array(slopes) / 2, rel=1e-9, abs=1e-15)
        # the formula object's own slope, which is what the page prints where it is by log p
        for p_c in (0.01, 0.4, 0.97):
            own = formula.gradient(tensor(math.log(p_c)), *({**formula.parameters, **options}.values()))
            assert float(own) == pytest.approx(said.slope(p_c, **options), rel=1e-9)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_logit_adjusted_is_what_its_page_says(tau: float, shares: bool) -> None:
    formula = LOSSES["logit_adjusted"].formula
    assert formula.formula == (
        "mean over rows of -Σ_c y_c log p_c, p = softmax(x + τ log π), π the classes' shares of the rows"
    )
    assert formula.gradient_formula == "p_c - y_c, by the logit x_c"
    value, gradient = run(LOSSES["logit_adjusted"](RARE, tau=tau), shares)
    targets = SHARES if shares else [one_hot(index) for index in CLASSES]
    pi = [count / sum(RARE) for count in RARE]
    p = [softmax([x_c + tau * math.log(pi_c) for x_c, pi_c in zip(x, pi, strict=True)]) for x in X]
    assert value == pytest.approx(-float((np.array(targets) * np.log(p)).sum()) / 2, rel=1e-12)
    assert gradient == pytest.approx((np.array(p) - targets) / 2, rel=1e-9)


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("beta", [0.999, 0.9])
def test_class_balanced_is_what_its_page_says(beta: float, shares: bool) -> None:
    formula = LOSSES["class_balanced"].formula
    assert formula.formula == (
        "mean over rows of -Σ_c w_c y_c log p_c, w_c in proportion to (1 - β) / (1 - β^n_c), Σ_c w_c = C, "
        "p = softmax(x); of class indices the sum divided by that of the rows' w_y"
    )
    assert formula.gradient_formula == "p_c Σ_k w_k y_k - w_c y_c, by the logit x_c"
    value, gradient = run(LOSSES["class_balanced"](RARE, beta=beta), shares)
    y = np.array(SHARES if shares else [one_hot(index) for index in CLASSES])
    w = np.array([(1 - beta) / (1 - beta**n) for n in RARE])
    w *= 3 / w.sum()
    p = np.array([softmax(x) for x in X])
    divisor = 2 if shares else w[CLASSES].sum()
    assert value == pytest.approx(-float((w * y * np.log(p)).sum()) / divisor, rel=1e-9)
    slopes = p * (w * y).sum(axis=1, keepdims=True) - w * y
    assert gradient == pytest.approx(slopes / divisor, rel=1e-9)


# ---------------------------------------------------------------------------- losses of whole tensors


def gradients(value: torch.Tensor, *tensors: torch.Tensor) -> list[Array]:
    return [slope.numpy() for slope in torch.autograd.grad(value, tensors)]


def leaf(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=True)


def check_texts(name: str, formula: str, gradient: str) -> None:
    said = LOSSES[name].formula
    assert (said.formula, said.gradient_formula) == (formula, gradient)


def test_nll_is_what_its_page_says() -> None:
    check_texts(
        "nll",
        "sum over rows of -w_y x_y, x log-probabilities, divided by the sum of their w_y",
        "-w_y by x_y, 0 by the others",
    )
    w, x = [0.5, 2.0, 3.0], leaf(X)
    value = LOSSES["nll"](weight=tensor_of(w))(x, torch.tensor(CLASSES))
    kept = [(row, c, w[c]) for row, c in enumerate(CLASSES)]
    whole = sum(w_y for _, _, w_y in kept)
    assert value.item() == pytest.approx(sum(-w_y * X[row][c] for row, c, w_y in kept) / whole)
    told = np.zeros((2, 3))
    for row, c, w_y in kept:
        told[row, c] = -w_y
    assert gradients(value, x)[0] == pytest.approx(told / whole)


def tensor_of(numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("power", "margin"), [(1, 1.0), (2, 1.0), (1, 0.3), (2, 2.5)])
def test_multi_margin_is_what_its_page_says(power: int, margin: float, weighted: bool) -> None:
    check_texts(
        "multi_margin",
        "mean over rows of w_y / C Σ_{j≠y} max(0, margin - x_y + x_j)^p",
        "p w_y / C (margin - x_y + x_j)^(p-1) by a score x_j where that is above 0, else 0; minus their sum by x_y",
    )
    w, x = [0.5, 2.0, 3.0] if weighted else [1.0, 1.0, 1.0], leaf(X)
    loss = LOSSES["multi_margin"](p=power, margin=margin, weight=tensor_of(w) if weighted else None)
    value = loss(x, torch.tensor(CLASSES))
    told, whole = np.zeros((2, 3)), 0.0
    for row, (scores, c) in enumerate(zip(X, CLASSES, strict=True)):
        for j in {0, 1, 2} - {c}:
            gap = margin - scores[c] + scores[j]
            whole += w[c] / 3 * max(0, gap) ** power
            told[row, j] = power * w[c] / 3 * gap ** (power - 1) if gap > 0 else 0.0
        told[row, c] = -told[row].sum()
    assert value.item() == pytest.approx(whole / 2)
    assert gradients(value, x)[0] == pytest.approx(told / 2)


def test_multilabel_soft_margin_is_what_its_page_says() -> None:
    check_texts(
        "multilabel_soft_margin",
        "mean over samples of -1/C Σ_c w_c (y_c log p_c + (1 - y_c) log(1 - p_c)), p = sigmoid(x)",
        "w_c (p_c - y_c) / C, by the logit x_c",
    )
    w, x, y = np.array([0.5, 2.0, 3.0]), leaf(X), np.array(SHARES)
    value = LOSSES["multilabel_soft_margin"](weight=tensor_of(w))(x, tensor_of(y))
    p = 1 / (1 + np.exp(-np.array(X)))
    rows = -1 / 3 * (w * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum(axis=1)
    assert value.item() == pytest.approx(rows.mean())
    assert gradients(value, x)[0] == pytest.approx(w * (p - y) / 3 / 2)


@pytest.mark.parametrize("shares", [False, True])
def test_linear_cross_entropy_is_what_its_page_says(shares: bool) -> None:
    check_texts(
        "linear_cross_entropy",
        "mean over rows of -Σ_c y_c log p_c, p = softmax(W x + b)",
        "Wᵀ(p - y) by x; (p - y) xᵀ by W; p - y by b",
    )
    loss = LOSSES["linear_cross_entropy"](2, 3, bias=True, dtype=torch.float64)
    weight, bias = (parameter.detach().numpy().copy() for parameter in loss.parameters())
    rows = np.array([[0.5, -1.0], [2.0, 0.25]])
    x = leaf(rows)
    value = loss(x, tensor_of(SHARES) if shares else torch.tensor(CLASSES))
    y = np.array(SHARES if shares else [one_hot(index) for index in CLASSES])
    p = np.array([softmax(list(weight @ row + bias)) for row in rows])
    assert value.item() == pytest.approx(-float((y * np.log(p)).sum()) / 2)
    by_x, by_weight, by_bias = gradients(value, x, *loss.parameters())
    assert by_x == pytest.approx(np.array([weight.T @ miss for miss in p - y]) / 2)
    assert by_weight == pytest.approx(
        sum(np.outer(miss, row) for miss, row in zip(p - y, rows, strict=True)) / 2
    )
    assert by_bias == pytest.approx((p - y).sum(axis=0) / 2)


REGION_X = [[[1.0, -0.5, 2.0, -2.0]], [[0.0, 3.0, -1.0, 0.5]]]  # two samples, one label, four elements
REGION_Y = [[[1.0, 0.0, 1.0, 0.25]], [[0.0, 1.0, 0.0, 1.0]]]


@pytest.mark.parametrize("smooth", [1e-5, 2.0])
def test_dice_is_what_its_page_says(smooth: float) -> None:
    check_texts(
        "dice",
        "mean over samples and classes of 1 - (2 Σ p y + s) / (Σ p + Σ y + s), the sums over the elements",
        "(1 - 2 y - L) / (Σ p + Σ y + s) by a p, L the loss; by its logit through p",
    )
    x = leaf(REGION_X)
    value = LOSSES["dice"](mode="multilabel", smooth=smooth)(x, tensor_of(REGION_Y))
    p, y = 1 / (1 + np.exp(-np.array(REGION_X))), np.array(REGION_Y)
    below = p.sum(axis=-1, keepdims=True) + y.sum(axis=-1, keepdims=True) + smooth
    each = 1 - (2 * (p * y).sum(axis=-1, keepdims=True) + smooth) / below
    assert value.item() == pytest.approx(each.mean())
    assert gradients(value, x)[0] == pytest.approx((1 - 2 * y - each) / below * p * (1 - p) / 2)


@pytest.mark.parametrize(("alpha", "beta", "smooth"), [(0.5, 0.5, 1e-5), (0.3, 0.7, 2.0), (2.0, 0.0, 0.5)])
def test_tversky_is_what_its_page_says(alpha: float, beta: float, smooth: float) -> None:
    check_texts(
        "tversky",
        "mean over samples and classes of 1 - (TP + s) / (TP + α FP + β FN + s), TP = Σ p y, FP = Σ p (1 - y), "
        "FN = Σ (1 - p) y, the sums over the elements",
        "((α (1 - y) - β y) (1 - L) - y L) / (TP + α FP + β FN + s) by a p, L the loss; by its logit through p",
    )
    x = leaf(REGION_X)
    value = LOSSES["tversky"](mode="multilabel", alpha=alpha, beta=beta, smooth=smooth)(
        x, tensor_of(REGION_Y)
    )
    p, y = 1 / (1 + np.exp(-np.array(REGION_X))), np.array(REGION_Y)
    tp, fp, fn = (part.sum(axis=-1, keepdims=True) for part in (p * y, p * (1 - y), (1 - p) * y))
    below = tp + alpha * fp + beta * fn + smooth
    each = 1 - (tp + smooth) / below
    assert value.item() == pytest.approx(each.mean())
    by_p = ((alpha * (1 - y) - beta * y) * (1 - each) - y * each) / below
    assert gradients(value, x)[0] == pytest.approx(by_p * p * (1 - p) / 2)


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_the_classes_of_an_overlap_are_by_softmax(name: str) -> None:
    x = np.array([[[0.5, 2.0], [-1.0, 0.0], [2.0, 0.1]]])  # a sample, three classes, two elements
    value = LOSSES[name](smooth=1.0)(tensor_of(x), torch.tensor([[2, 0]]))
    p = np.exp(x[0]) / np.exp(x[0]).sum(axis=0)
    y = np.array([[0, 1], [0, 0], [1, 0]])
    s = 1.0 if name == "dice" else 2.0  # at α = β = 1/2 the second is the first, twice its s
    each = 1 - (2 * (p * y).sum(axis=1) + s) / (p.sum(axis=1) + y.sum(axis=1) + s)
    assert float(value) == pytest.approx(each.mean())


@pytest.mark.parametrize("eps", [1e-6, 0.4])
def test_gaussian_nll_is_what_its_page_says(eps: float) -> None:
    check_texts(
        "gaussian_nll",
        "mean of (log v + (m - y)² / v) / 2, v = max(variance, ε)",
        "(m - y) / v by the mean m; (1 - (m - y)² / v) / (2 v) by the variance",
    )
    m, y, variance = (np.array(numbers) for numbers in ([0.5, -1.0, 2.0], [0.0, 1.0, 2.5], [0.25, 1.0, 3.0]))
    mean, var = leaf(m), leaf(variance)
    value = LOSSES["gaussian_nll"](eps=eps)(mean, tensor_of(y), var)
    v = np.maximum(variance, eps)
    assert value.item() == pytest.approx(((np.log(v) + (m - y) ** 2 / v) / 2).mean())
    by_mean, by_variance = gradients(value, mean, var)
    assert by_mean == pytest.approx((m - y) / v / 3)
    assert by_variance == pytest.approx((1 - (m - y) ** 2 / v) / (2 * v) / 3)


@pytest.mark.parametrize("margin", [0.0, 0.7])
def test_margin_ranking_is_what_its_page_says(margin: float) -> None:
    check_texts(
        "margin_ranking",
        "mean of max(0, m - y (x₁ - x₂))",
        "-y by x₁ and y by x₂ where y (x₁ - x₂) ≤ m, else 0",
    )
    first, second, y = ([0.5, 2.0, 1.0, -1.0], [0.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0])
    x = [leaf(first), leaf(second)]
    value = LOSSES["margin_ranking"](margin)(*x, tensor_of(y))
    gaps = [margin - c * (a - b) for a, b, c in zip(first, second, y, strict=True)]
    assert value.item() == pytest.approx(sum(max(0, gap) for gap in gaps) / 4)
    told = (
        np.array([-c if c * (a - b) <= margin else 0.0 for a, b, c in zip(first, second, y, strict=True)]) / 4
    )
    by_first, by_second = gradients(value, *x)
    assert by_first == pytest.approx(told)
    assert by_second == pytest.approx(-told)


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_cosine_embedding_is_what_its_page_says(margin: float) -> None:
    check_texts(
        "cosine_embedding",
        "mean over pairs of 1 - c where y = 1, max(0, c - m) where y = -1; c = a·b / √((a·a + ε) (b·b + ε))",
        "(c u - v) / |a| by a where y = 1, (v - c u) / |a| where y = -1 and c ≥ m, else 0; |a| is √(a·a + ε), "
        "u = a / |a|, v = b / |b|; by b alike",
    )
    assert "ε is 1e-12" in LOSSES["cosine_embedding"].formula.domain
    a, b = (
        np.array([[1.0, 2.0], [3.0, -1.0], [1.0, 0.5], [1e-6, 0.0]]),
        np.array([[2.0, 1.0], [1.0, 1.0], [-1.0, 0.25], [2e-6, 1e-6]]),
    )
    y = [1.0, -1.0, -1.0, 1.0]
    x = [leaf(a), leaf(b)]
    value = LOSSES["cosine_embedding"](margin)(*x, tensor_of(y))
    whole, told = 0.0, [np.zeros((4, 2)), np.zeros((4, 2))]
    for row, (p, q, sign) in enumerate(zip(a, b, y, strict=True)):
        lengths = math.sqrt(p @ p + 1e-12), math.sqrt(q @ q + 1e-12)
        u, v = p / lengths[0], q / lengths[1]
        c = float(u @ v)
        whole += 1 - c if sign == 1 else max(0, c - margin)
        factor = 1.0 if sign == 1 else -float(c >= margin)
        told[0][row], told[1][row] = factor * (c * u - v) / lengths[0], factor * (c * v - u) / lengths[1]
    assert value.item() == pytest.approx(whole / 4)
    for mine, its in zip(gradients(value, *x), told, strict=True):
        assert mine == pytest.approx(its / 4)


TRIPLETS = [
    np.array([[0.0, 0.0], [1.0, 2.0], [0.5, 0.5]]),
    np.array([[1.0, 1.0], [2.0, 1.0], [9.0, 0.5]]),
    np.array([[1.5, -1.0], [9.0, 9.0], [0.5, 0.0]]),
]


@pytest.mark.parametrize(("p", "eps"), [(2.0, 1e-6), (2.0, 0.25), (3.0, 0.1)])
def test_triplet_margin_is_what_its_page_says(p: float, eps: float) -> None:
    check_texts(
        "triplet_margin",
        "mean over triplets of max(0, m + ‖a - p + ε‖ - ‖a - n + ε‖)",
        "u - w by a, -u by p, w by n where the hinge is not below 0, else 0; of the Euclidean norm "
        "u = (a - p + ε) / ‖a - p + ε‖, w = (a - n + ε) / ‖a - n + ε‖",
    )
    x = [leaf(part) for part in TRIPLETS]
    value = LOSSES["triplet_margin"](margin=0.8, p=p, eps=eps)(*x)
    whole, told = 0.0, [np.zeros((3, 2)) for _ in x]
    for row, (a, b, c) in enumerate(zip(*TRIPLETS, strict=True)):
        near, far = a - b + eps, a - c + eps
        lengths = [float((np.abs(d) ** p).sum()) ** (1 / p) for d in (near, far)]
        gap = 0.8 + lengths[0] - lengths[1]
        whole += max(0, gap)
        u, w = (
            np.sign(d) * (np.abs(d) / length) ** (p - 1)
            for d, length in zip((near, far), lengths, strict=True)
        )
        if p == 2:
            assert u == pytest.approx(near / lengths[0])
        for part, slope in zip(told, (u - w, -u, w), strict=True):
            part[row] = slope * (gap >= 0)
    assert value.item() == pytest.approx(whole / 3)
    for mine, its in zip(gradients(value, *x), told, strict=True):
        assert mine == pytest.approx(its / 3)


def test_triplet_margin_with_distance_is_what_its_page_says() -> None:
    check_texts(
        "triplet_margin_with_distance",
        "mean of max(0, m + d(a, p) - d(a, n)), d the distance that is given",
        "that of d(a, p) less that of d(a, n) where the hinge is not below 0, else 0",
    )
    x = [leaf(part) for part in TRIPLETS]
    value = LOSSES["triplet_margin_with_distance"](
        distance_function=lambda a, b: ((a - b) ** 2).sum(-1), margin=1.5
    )(*x)
    a, b, c = TRIPLETS
    gaps = 1.5 + ((a - b) ** 2).sum(-1) - ((a - c) ** 2).sum(-1)
    assert value.item() == pytest.approx(np.maximum(gaps, 0).mean())
    assert gradients(value, *x)[0] == pytest.approx((2 * (a - b) - 2 * (a - c)) * (gaps >= 0)[:, None] / 3)


def test_multilabel_margin_is_what_its_page_says() -> None:
    check_texts(
        "multilabel_margin",
        "mean over rows of 1/C Σ_{k∈Y} Σ_{j∉Y} max(0, 1 - x_k + x_j), Y the row's classes",
        "1/C by x_j and -1/C by x_k for each pair with 1 - x_k + x_j above 0, else 0",
    )
    x = leaf(X)
    value = LOSSES["multilabel_margin"]()(x, torch.tensor([[2, 0, -1], [1, -1, 0]]))
    told, whole = np.zeros((2, 3)), 0.0
    for row, own in enumerate(({2, 0}, {1})):
        for k in own:
            for j in {0, 1, 2} - own:
                gap = 1 - X[row][k] + X[row][j]
                whole += max(0, gap) / 3
                told[row, j] += (gap > 0) / 3
                told[row, k] -= (gap > 0) / 3
    assert value.item() == pytest.approx(whole / 2)
    assert gradients(value, x)[0] == pytest.approx(told / 2)


def test_ctc_is_what_its_page_says() -> None:
    check_texts(
        "ctc",
        "mean over sequences of -log(Σ_a Π_t exp(x_{t,a_t})) / S, a all alignments: paths of T classes that are y once "
        "repeats and then blanks are taken out",
        "(exp(x_{t,c}) - q_{t,c}) / S by x_{t,c}, as in torch; 0 in frames that do not count",
    )
    logits = np.array([[X[0]], [X[0][::-1]], [X[1]]])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    x = leaf(np.log(p))
    value = LOSSES["ctc"]()(x, torch.tensor([[1, 2]]), (3,), (2,))
    paths = [(1, 2, 0), (1, 2, 2), (1, 1, 2), (1, 0, 2), (0, 1, 2)]
    weights = [np.prod([p[t, 0, c] for t, c in enumerate(path)]) for path in paths]
    share = np.zeros((3, 1, 3))
    for path, weight in zip(paths, weights, strict=True):
        for t, c in enumerate(path):
            share[t, 0, c] += weight / sum(weights)
    assert value.item() == pytest.approx(-np.log(sum(weights)) / 2)
    assert gradients(value, x)[0] == pytest.approx((p - share) / 2)


def test_every_loss_is_held_to_its_words() -> None:
    with_weights = {"logit_adjusted", "class_balanced"}
    of_whole_tensors = {
        "nll", "multi_margin", "multilabel_soft_margin", "linear_cross_entropy", "dice", "tversky", "gaussian_nll",
        "margin_ranking", "cosine_embedding", "triplet_margin", "triplet_margin_with_distance", "multilabel_margin",
        "ctc",
    }  # fmt: skip
    assert set(POINTWISE) == {name for name in LOSSES if LOSSES[name].formula.family == "pointwise"}
    assert set(SOFTMAX) | with_weights == {n for n in LOSSES if LOSSES[n].formula.family == "softmax"}
    assert of_whole_tensors == {n for n in LOSSES if LOSSES[n].formula.family == "composite"}


# ---------------------------------------------------------------------------- optimizers


def sgd(p: Array, g: list[Array], lr: float) -> Array:
    for gradient in g:
        p = p - lr * gradient
    return p


def momentum(p: Array, g: list[Array], lr: float, momentum: float) -> Array:
    b = np.zeros_like(p)
    for gradient in g:
        b = momentum * b + gradient
        p = p - lr * b
    return p


def nesterov(p: Array, g: list[Array], lr: float, momentum: float) -> Array:
    b = np.zeros_like(p)
    for gradient in g:
        b = momentum * b + gradient
        p = p - lr * (gradient + momentum * b)
    return p


def momentum_ema(p: Array, g: list[Array], lr: float, momentum: float) -> Array:
    v = np.zeros_like(p)
    for gradient in g:
        v = momentum * v + (1 - momentum) * gradient
        p = p - lr * v
    return p


def rmsprop(p: Array, g: list[Array], lr: float, alpha: float, eps: float) -> Array:
    s = np.zeros_like(p)
    for gradient in g:
        s = alpha * s + (1 - alpha) * gradient**2
        p = p - lr * gradient / (np.sqrt(s) + eps)
    return p


def adam(
    p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
) -> Array:
    (beta1, beta2), m, v = betas, np.zeros_like(p), np.zeros_like(p)
    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        p = (1 - lr * weight_decay) * p - lr * m_hat / (np.sqrt(v_hat) + eps)
    return p


def adagrad(p: Array, g: list[Array], lr: float, eps: float) -> Array:
    s = np.zeros_like(p)
    for gradient in g:
        s = s + gradient**2
        p = p - lr * gradient / (np.sqrt(s) + eps)
    return p


def adadelta(p: Array, g: list[Array], lr: float, rho: float, eps: float) -> Array:
    v = u = np.zeros_like(p)
    for gradient in g:
        v = rho * v + (1 - rho) * gradient**2
        d = np.sqrt(u + eps) / np.sqrt(v + eps) * gradient
        u = rho * u + (1 - rho) * d**2
        p = p - lr * d
    return p


def adamax(p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float) -> Array:
    (beta1, beta2), m, u = betas, np.zeros_like(p), np.zeros_like(p)
    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        u = np.maximum(beta2 * u, np.abs(gradient) + eps)
        p = p - lr * m / (1 - beta1**t) / u
    return p


def nadam(
    p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float, momentum_decay: float
) -> Array:
    (beta1, beta2), m, v = betas, np.zeros_like(p), np.zeros_like(p)

    def mu(t: int) -> float:
        return beta1 * (1 - 0.96 ** (t * momentum_decay) / 2)

    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        so_far = math.prod(mu(i) for i in range(1, t + 1))
        ahead = (1 - mu(t)) / (1 - so_far) * gradient + mu(t + 1) / (1 - so_far * mu(t + 1)) * m
        p = p - lr * ahead / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p


def radam(p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float) -> Array:
    (beta1, beta2), m, v = betas, np.zeros_like(p), np.zeros_like(p)
    end = 2 / (1 - beta2) - 1
    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m_hat = m / (1 - beta1**t)
        rho = end - 2 * t * beta2**t / (1 - beta2**t)  # the paper's ρ and r
        if rho <= 5:
            p = p - lr * m_hat
        else:
            r = math.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho))
            p = p - lr * r * m_hat * math.sqrt(1 - beta2**t) / (np.sqrt(v) + eps)
    return p


def rprop(
    p: Array, g: list[Array], lr: float, etas: tuple[float, float], step_sizes: tuple[float, float]
) -> Array:
    before, s = np.zeros_like(p), np.full_like(p, lr)
    for gradient in g:
        keeps, turns = gradient * before > 0, gradient * before < 0
        s = np.clip(np.where(keeps, etas[1] * s, np.where(turns, etas[0] * s, s)), *step_sizes)
        gradient = np.where(turns, 0.0, gradient)
        p = p - s * np.sign(gradient)
        before = gradient
    return p


def asgd(p: Array, g: list[Array], lr: float, lambd: float, alpha: float) -> Array:
    eta = lr
    for t, gradient in enumerate(g, start=1):
        p = (1 - lambd * eta) * p - eta * gradient
        eta = lr / (1 + lambd * lr * t) ** alpha
    return p


def lion(p: Array, g: list[Array], lr: float, betas: tuple[float, float], weight_decay: float) -> Array:
    (beta1, beta2), m = betas, np.zeros_like(p)
    for gradient in g:
        p = (1 - lr * weight_decay) * p - lr * np.sign(beta1 * m + (1 - beta1) * gradient)
        m = beta2 * m + (1 - beta2) * gradient
    return p


def adopt(p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float) -> Array:
    (beta1, beta2), m, v = betas, np.zeros_like(p), g[0] ** 2
    for t, gradient in enumerate(g[1:], start=2):
        limit = (t - 1) ** 0.25
        m = beta1 * m + (1 - beta1) * np.clip(gradient / np.maximum(np.sqrt(v), eps), -limit, limit)
        p = p - lr * m
        v = beta2 * v + (1 - beta2) * gradient**2
    return p


def ademamix(
    p: Array,
    g: list[Array],
    lr: float,
    betas: tuple[float, float, float],
    alpha: float,
    eps: float,
    weight_decay: float,
) -> Array:
    (beta1, beta2, beta3), m1, m2, v = betas, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, gradient in enumerate(g, start=1):
        m1 = beta1 * m1 + (1 - beta1) * gradient
        m2 = beta3 * m2 + (1 - beta3) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        m1_hat, v_hat = m1 / (1 - beta1**t), v / (1 - beta2**t)
        p = (1 - lr * weight_decay) * p - lr * (m1_hat + alpha * m2) / (np.sqrt(v_hat) + eps)
    return p


def adan(
    p: Array, g: list[Array], lr: float, betas: tuple[float, float, float], eps: float, weight_decay: float
) -> Array:
    (beta1, beta2, beta3), m, d, n = betas, np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    last = g[0]
    for t, gradient in enumerate(g, start=1):
        c, last = gradient - last, gradient
        m = beta1 * m + (1 - beta1) * gradient
        d = beta2 * d + (1 - beta2) * c
        n = beta3 * n + (1 - beta3) * (gradient + beta2 * c) ** 2
        m_hat, d_hat, n_hat = m / (1 - beta1**t), d / (1 - beta2**t), n / (1 - beta3**t)
        p = (p - lr * (m_hat + beta2 * d_hat) / (np.sqrt(n_hat) + eps)) / (1 + lr * weight_decay)
    return p


def length(p: Array) -> float:
    return math.sqrt(sum(number**2 for number in p))


def lamb(
    p: Array, g: list[Array], lr: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Array:
    (beta1, beta2), m, v = betas, np.zeros_like(p), np.zeros_like(p)
    for t, gradient in enumerate(g, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        u = m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + eps) + weight_decay * p
        p = p - lr * (length(p) / length(u) if length(p) and length(u) else 1.0) * u
    return p


def lars(
    p: Array,
    g: list[Array],
    lr: float,
    momentum: float,
    trust_coefficient: float,
    weight_decay: float,
    eps: float,
) -> Array:
    b = np.zeros_like(p)
    for gradient in g:
        factor = 1.0
        if length(p) and length(gradient):
            factor = trust_coefficient * length(p) / (length(gradient) + weight_decay * length(p) + eps)
        b = momentum * b + factor * (gradient + weight_decay * p)
        p = p - lr * b
    return p


@dataclass(frozen=True)
class Told:
    """An update as printed, the same in plain Python, and its options where they are not the entry's own.

    ``legend`` is what the page says of the symbols after the update itself.
    """

    update: str
    in_python: Callable[..., Array]
    defaults: dict[str, Any]
    others: dict[str, Any]
    legend: str = ""


OPTIMIZERS_TOLD = {
    "sgd": Told(
        "p ← p - lr g;  g is the mean gradient of all rows (batch), of some (mini-batch) or of one",
        sgd,
        {},
        {},
    ),
    "momentum": Told(
        "b ← μ b + g;  p ← p - lr b", momentum, {"momentum": 0.9}, {"momentum": 0.5}, "μ is momentum"
    ),
    "nesterov": Told(
        "b ← μ b + g;  p ← p - lr (g + μ b)", nesterov, {"momentum": 0.9}, {"momentum": 0.5}, "μ is momentum"
    ),
    "momentum_ema": Told(
        "v ← β v + (1 - β) g;  p ← p - lr v",
        momentum_ema,
        {"momentum": 0.9},
        {"momentum": 0.5},
        "β is momentum",
    ),
    "rmsprop": Told(
        "s ← α s + (1 - α) g²;  p ← p - lr g / (√s + ε)",
        rmsprop,
        {"alpha": 0.99, "eps": 1e-8},
        {"alpha": 0.6, "eps": 0.1},
        "α is alpha, ε eps",
    ),
    "adam": Told(
        "m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  p ← p - lr m̂ / (√v̂ + ε)",
        adam,
        {"betas": (0.9, 0.999), "eps": 1e-8},
        {"betas": (0.5, 0.8), "eps": 0.1},
        "m̂ = m / (1 - β₁ᵗ), v̂ = v / (1 - β₂ᵗ) in step t; β₁, β₂ are betas, ε eps",
    ),
    "adamw": Told(
        "m̂, v̂ as in adam;  p ← (1 - lr λ) p - lr m̂ / (√v̂ + ε)",
        adam,
        {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
        {"betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.7},
        "λ is weight_decay",
    ),
    "adagrad": Told(
        "s ← s + g²;  p ← p - lr g / (√s + ε)", adagrad, {"eps": 1e-10}, {"eps": 0.1}, "ε is eps"
    ),
    "adadelta": Told(
        "v ← ρ v + (1 - ρ) g²;  d = √(u + ε) / √(v + ε) g;  u ← ρ u + (1 - ρ) d²;  p ← p - lr d",
        adadelta,
        {"rho": 0.9, "eps": 1e-6},
        {"rho": 0.5, "eps": 0.1},
        "ρ is rho, ε eps",
    ),
    "adamax": Told(
        "m ← β₁ m + (1 - β₁) g;  u ← max(β₂ u, |g| + ε);  p ← p - lr m̂ / u",
        adamax,
        {"betas": (0.9, 0.999), "eps": 1e-8},
        {"betas": (0.5, 0.8), "eps": 0.1},
        "m̂ = m / (1 - β₁ᵗ) in step t; β₁, β₂ are betas, ε eps",
    ),
    "nadam": Told(
        "m, v̂ as in adam;  p ← p - lr [(1 - μₜ) / (1 - μ₁…μₜ) g + μₜ₊₁ / (1 - μ₁…μₜ₊₁) m] / (√v̂ + ε)",
        nadam,
        {"betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 0.004},
        {"betas": (0.5, 0.8), "eps": 0.1, "momentum_decay": 2.0},
        "μₜ = β₁ (1 - 0.96^(tψ) / 2), so from β₁ / 2 up to β₁; ψ is momentum_decay, ε eps",
    ),
    "radam": Told(
        "m̂, v as in adam;  p ← p - lr m̂ while ρ ≤ 5, then  p ← p - lr r m̂ √(1 - β₂ᵗ) / (√v + ε)",
        radam,
        {"betas": (0.9, 0.999), "eps": 1e-8},
        {"betas": (0.5, 0.8), "eps": 0.1},
        "ρ, r from β₂ and the step t alone: how many gradients v averages, and a factor that rises to 1",
    ),
    "rprop": Told(
        "s ← η₊ s where g keeps its sign, s ← η₋ s and g ← 0 where it turns;  p ← p - s sign(g)",
        rprop,
        {"etas": (0.5, 1.2), "step_sizes": (1e-6, 50)},
        {"etas": (0.25, 3.0), "step_sizes": (0.008, 0.02)},
        "s begins at lr and stays within step_sizes; η₋, η₊ are etas",
    ),
    "asgd": Told(
        "p ← (1 - λη) p - η g;  a ← a + μ (p - a);  in step t, for the next one: η = lr / (1 + λ lr t)^α, "
        "μ = 1 / max(1, t - t₀)",
        asgd,
        {"lambd": 1e-4, "alpha": 0.75},
        {"lambd": 0.5, "alpha": 2.0},
        "λ is lambd, α alpha, t₀ t0",
    ),
    "lion": Told(
        "p ← (1 - lr λ) p - lr sign(β₁ m + (1 - β₁) g);  m ← β₂ m + (1 - β₂) g",
        lion,
        {"betas": (0.9, 0.99), "weight_decay": 0.0},
        {"betas": (0.5, 0.8), "weight_decay": 0.7},
        "β₁, β₂ are betas, λ is weight_decay",
    ),
    "adopt": Told(
        "m ← β₁ m + (1 - β₁) clip(g / max(√v, ε), ±(t - 1)^¼);  p ← p - lr m;  v ← β₂ v + (1 - β₂) g²",
        adopt,
        {"betas": (0.9, 0.9999), "eps": 1e-6},
        {"betas": (0.5, 0.8), "eps": 0.7},
        "in step t; the first only sets v = g²; β₁, β₂ are betas, ε eps",
    ),
    "ademamix": Told(
        "m₁ ← β₁ m₁ + (1 - β₁) g;  m₂ ← β₃ m₂ + (1 - β₃) g;  v ← β₂ v + (1 - β₂) g²;  "
        "p ← (1 - lr λ) p - lr (m̂₁ + α m₂) / (√v̂ + ε)",
        ademamix,
        {"betas": (0.9, 0.999, 0.9999), "alpha": 2.0, "eps": 1e-8, "weight_decay": 0.0},
        {"betas": (0.5, 0.8, 0.9), "alpha": 5.0, "eps": 0.1, "weight_decay": 0.7},
        "m̂₁, v̂ as in adam; β₁, β₂, β₃ are betas, α alpha, λ weight_decay, ε eps",
    ),
    "adan": Told(
        "m ← β₁ m + (1 - β₁) g;  d ← β₂ d + (1 - β₂) c;  n ← β₃ n + (1 - β₃) (g + β₂ c)²;  "
        "p ← (p - lr (m̂ + β₂ d̂) / (√n̂ + ε)) / (1 + lr λ)",
        adan,
        {"betas": (0.98, 0.92, 0.99), "eps": 1e-8, "weight_decay": 0.0},
        {"betas": (0.5, 0.8, 0.9), "eps": 0.1, "weight_decay": 0.7},
        "c is the gradient's change since the last step; m̂, d̂, n̂ as in adam; β₁, β₂, β₃ are betas, "
        "λ weight_decay, ε eps",
    ),
    "lamb": Told(
        "u = m̂ / (√v̂ + ε) + λ p;  p ← p - lr (‖p‖ / ‖u‖) u",
        lamb,
        {"betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0},
        {"betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.7},
        "m̂, v̂ as in adam; ‖·‖ over a layer's tensor; ‖p‖ / ‖u‖ is 1 where either is 0; λ is weight_decay, ε eps",
    ),
    "lars": Told(
        "b ← μ b + η ‖p‖ / (‖g‖ + λ ‖p‖ + ε) (g + λ p);  p ← p - lr b",
        lars,
        {"momentum": 0.9, "trust_coefficient": 1e-3, "weight_decay": 0.0, "eps": 1e-8},
        {"momentum": 0.5, "trust_coefficient": 0.2, "weight_decay": 0.7, "eps": 0.1},
        "‖·‖ over a layer's tensor; where ‖p‖ or ‖g‖ is 0, the factor of (g + λ p) is 1; μ is momentum, "
        "η trust_coefficient, λ weight_decay, ε eps",
    ),
}
P = [1.5, -0.5, 0.25]
# A turn of sign, a run of one sign, a 0 and a jump of scale are among them; more than five, for radam's two forms.
G = [
    [0.5, -0.25, 2.0],
    [-0.25, -0.5, 1.0],
    [2.0, -1.0, 0.0],
    [1.0, 0.125, -3.0],
    [-3.0, 40.0, -0.5],
    [0.75, 3.0, 0.25],
    [0.5, -2.0, 0.5],
    [0.1, -0.3, 1.5],
]


def taken(name: str, options: dict[str, Any], start: list[float] = P) -> tuple[Array, Any]:
    """Where the optimizer goes from the start along the gradients, and its state there."""
    entry = OPTIMIZERS[name]
    p = torch.nn.Parameter(tensor_of(start))
    optimizer = entry.cls([p], lr=0.01, **{**entry.options, **options})
    for gradient in G:
        p.grad = tensor_of(gradient)
        optimizer.step()
    return p.detach().numpy(), optimizer.state[p]


@pytest.mark.parametrize("name", OPTIMIZERS_TOLD)
def test_an_optimizer_is_what_its_page_says(name: str) -> None:
    told = OPTIMIZERS_TOLD[name]
    legend = f"   ({told.legend})" if told.legend else ""
    assert OPTIMIZERS[name].formula == told.update + legend
    gradients = [np.array(gradient) for gradient in G]
    for given, options in (({}, told.defaults), (told.others, told.others)):
        assert options.keys() == told.defaults.keys()
        stands = taken(name, given)[0]
        assert stands == pytest.approx(told.in_python(np.array(P), gradients, 0.01, **options), rel=1e-12)


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_a_layer_of_length_0_moves_as_its_page_says(name: str) -> None:
    told, gradients = OPTIMIZERS_TOLD[name], [np.array(gradient) for gradient in G]
    stands = taken(name, {}, start=[0.0, 0.0, 0.0])[0]
    assert stands.any()
    assert stands == pytest.approx(told.in_python(np.zeros(3), gradients, 0.01, **told.defaults), rel=1e-12)


@pytest.mark.parametrize("t0", [0, 3, 1_000_000])
def test_asgd_averages_as_its_page_says(t0: int) -> None:
    stands, state = taken("asgd", {"t0": t0, "lambd": 0.1, "alpha": 0.5})
    p, a, eta, mu = np.array(P), np.zeros(3), 0.01, 1.0
    for t, gradient in enumerate(G, start=1):
        p = (1 - 0.1 * eta) * p - eta * np.array(gradient)
        a = a + mu * (p - a)
        eta, mu = 0.01 / (1 + 0.1 * 0.01 * t) ** 0.5, 1 / max(1, t - t0)
    assert stands == pytest.approx(p, rel=1e-12)
    assert state["ax"].numpy() == pytest.approx(a, rel=1e-12)


def test_radams_factor_rises_to_1_as_its_page_says() -> None:
    end = 2 / (1 - 0.999) - 1
    rhos = [end - 2 * t * 0.999**t / (1 - 0.999**t) for t in range(1, 20_000)]
    factors = [
        math.sqrt((rho - 4) * (rho - 2) * end / ((end - 4) * (end - 2) * rho)) for rho in rhos if rho > 5
    ]
    assert rhos[0] == pytest.approx(1.0)  # of one gradient
    assert len(rhos) - len(factors) == 5  # the steps of the first form
    assert factors == sorted(factors)
    assert 0.99 < factors[-1] <= 1


def test_every_optimizer_is_held_to_its_words() -> None:
    assert set(OPTIMIZERS_TOLD) == set(OPTIMIZERS)

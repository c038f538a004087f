"""What the pages print as formulas, held against the code that runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS

Function = Callable[..., float]


@dataclass(frozen=True)
class Said:
    """A formula and a gradient as printed, and the same in plain Python."""

    formula: str
    gradient: str
    value_in_python: Function
    gradient_in_python: Function


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def sign(x: float) -> float:
    return (x > 0) - (x < 0)


LOSSES_SAID = {
    "mse": Said("mean of (p - y)²", "2 (p - y)", lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    "mae": Said(
        "mean of |p - y|", "sign(p - y), 0 where p = y", lambda p, y: abs(p - y), lambda p, y: sign(p - y)
    ),
    "huber": Said(
        "mean of (p - y)² / 2 where |p - y| ≤ δ, else δ (|p - y| - δ/2)",
        "p - y, held within ±δ",
        lambda p, y, d: (p - y) ** 2 / 2 if abs(p - y) <= d else d * (abs(p - y) - d / 2),
        lambda p, y, d: min(max(p - y, -d), d),
    ),
    "quantile": Said(
        "mean of q (y - p) where y ≥ p, else (1 - q) (p - y)",
        "-q where y > p, 1 - q where y < p, 0 where p = y",
        lambda p, y, q: q * (y - p) if y >= p else (1 - q) * (p - y),
        lambda p, y, q: -q if y > p else 1 - q if y < p else 0.0,
    ),
    "bce": Said(
        "mean of -(w y log p + (1 - y) log(1 - p)), p = sigmoid(x)",
        "(1 - y) p - w y (1 - p), which is p - y where w = 1",
        lambda x, y, w: -(w * y * math.log(sigmoid(x)) + (1 - y) * math.log(1 - sigmoid(x))),
        lambda x, y, w: (1 - y) * sigmoid(x) - w * y * (1 - sigmoid(x)),
    ),
    "bce_probability": Said(
        "mean of -(y log p + (1 - y) log(1 - p))",
        "(p - y) / (p (1 - p))",
        lambda p, y: -(y * math.log(p) + (1 - y) * math.log(1 - p)),
        lambda p, y: (p - y) / (p * (1 - p)),
    ),
}
POINTS = {
    "real": [(-2.5, 1.0), (0.3, 0.3), (0.7, 0.2), (4.0, -1.0)],
    "logit": [(-2.0, 1.0), (0.0, 0.25), (1.5, 0.0), (3.0, 1.0)],
    "probability": [(0.1, 1.0), (0.5, 0.25), (0.9, 0.0), (0.7, 1.0)],
}
OPTIONS = {"huber": [(1.0,), (0.3,)], "quantile": [(0.5,), (0.9,)], "bce": [(1.0,), (5.0,)]}


@pytest.mark.parametrize("name", LOSSES_SAID)
def test_a_pointwise_loss_is_what_its_page_says(name: str) -> None:
    said, formula = LOSSES_SAID[name], LOSSES[name].formula
    assert (formula.formula, formula.gradient_formula) == (said.formula, said.gradient)
    for options in OPTIONS.get(name, [()]):
        for p, y in POINTS[formula.prediction]:
            at = torch.tensor(p, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
            limits = [torch.tensor(option, dtype=torch.float64) for option in options]
            assert float(formula.value(*at, *limits)) == pytest.approx(said.value_in_python(p, y, *options))
            assert float(formula.gradient(*at, *limits)) == pytest.approx(
                said.gradient_in_python(p, y, *options)
            )


def test_cross_entropy_is_what_its_page_says() -> None:
    formula = LOSSES["cross_entropy"].formula
    assert formula.formula == "mean over rows of -Σ_c y_c log p_c, p = softmax(x)"
    assert formula.gradient_formula == "p_c - y_c, by the logit x_c"
    x = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]], dtype=torch.float64)
    loss = LOSSES["cross_entropy"]()(x, y)
    p = torch.softmax(x.detach(), dim=1)
    assert float(loss.detach()) == pytest.approx(float(-(y * torch.log(p)).sum(dim=1).mean()))
    loss.backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, (p - y) / 2)  # the mean of two rows


def test_every_loss_is_held_to_its_words() -> None:
    assert set(LOSSES_SAID) | {"cross_entropy"} == set(LOSSES)


def plain(p: float, g: list[float], lr: float) -> float:
    for gradient in g:
        p = p - lr * gradient
    return p


def momentum(p: float, g: list[float], lr: float) -> float:
    b = 0.0
    for gradient in g:
        b = 0.9 * b + gradient
        p = p - lr * b
    return p


def nesterov(p: float, g: list[float], lr: float) -> float:
    b = 0.0
    for gradient in g:
        b = 0.9 * b + gradient
        p = p - lr * (gradient + 0.9 * b)
    return p


def momentum_ema(p: float, g: list[float], lr: float) -> float:
    v = 0.0
    for gradient in g:
        v = 0.9 * v + (1 - 0.9) * gradient
        p = p - lr * v
    return p


def rmsprop(p: float, g: list[float], lr: float) -> float:
    s = 0.0
    for gradient in g:
        s = 0.99 * s + (1 - 0.99) * gradient**2
        p = p - lr * gradient / (math.sqrt(s) + 1e-8)
    return p


def adam(p: float, g: list[float], lr: float, decay: float = 0.0) -> float:
    m = v = 0.0
    for t, gradient in enumerate(g, start=1):
        m = 0.9 * m + (1 - 0.9) * gradient
        v = 0.999 * v + (1 - 0.999) * gradient**2
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        p = (1 - lr * decay) * p - lr * m_hat / (math.sqrt(v_hat) + 1e-8)
    return p


def adamw(p: float, g: list[float], lr: float) -> float:
    return adam(p, g, lr, decay=0.01)


OPTIMIZERS_SAID: dict[str, tuple[str, Callable[[float, list[float], float], float]]] = {
    "sgd": ("p ← p - lr g", plain),
    "momentum": ("b ← μ b + g;  p ← p - lr b", momentum),
    "nesterov": ("b ← μ b + g;  p ← p - lr (g + μ b)", nesterov),
    "momentum_ema": ("v ← β v + (1 - β) g;  p ← p - lr v", momentum_ema),
    "rmsprop": ("s ← α s + (1 - α) g²;  p ← p - lr g / (√s + ε)", rmsprop),
    "adam": ("m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  p ← p - lr m̂ / (√v̂ + ε)", adam),
    "adamw": ("m̂, v̂ as in adam;  p ← (1 - lr λ) p - lr m̂ / (√v̂ + ε)", adamw),
}


@pytest.mark.parametrize("name", OPTIMIZERS_SAID)
def test_an_optimizer_is_what_its_page_says(name: str) -> None:
    entry = OPTIMIZERS[name]
    formula, in_python = OPTIMIZERS_SAID[name]
    assert entry.formula.startswith(formula)
    gradients = [0.5, -0.25, 2.0, 1.0, -3.0]
    p = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = entry.cls([p], lr=0.01, **entry.options)
    for gradient in gradients:
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert float(p.detach()) == pytest.approx(in_python(1.5, gradients, 0.01), rel=1e-12)


def test_every_optimizer_is_held_to_its_words() -> None:
    assert set(OPTIMIZERS_SAID) == set(OPTIMIZERS)

"""A residual CNN and a small GPT, trained by torch's loss and optimizer and by ours: one curve, not two."""

from __future__ import annotations

import codecs
import this
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from steepest import losses, optim

NUM_STEPS = 40
# A rounding in one step grows in the next ones: what is left of float32's 6e-8 and float64's 1e-16 after 40 steps.
# A different formula, eps or bias correction is off by 1e-3 and more.
BARS = {torch.float32: 2e-4, torch.float64: 1e-11}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "RMSprop": {"lr": 1e-3, "eps": 1e-4},
    "Adam": {"lr": 2e-3, "eps": 1e-4},
    "AdamW": {"lr": 2e-3, "eps": 1e-4, "weight_decay": 0.1},
}


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(x + self.body(x))


def resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), Residual(16), nn.Conv2d(16, 32, 3, stride=2), Residual(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip


def images(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    digits = load_digits()
    x = torch.tensor(digits.images / 16.0, dtype=dtype).unsqueeze(1)
    y = torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(1))
    return [(x[rows], y[rows]) for rows in order.split(32)][:NUM_STEPS]


class GPT(nn.Module):
    def __init__(self, vocabulary: int, width: int = 32, context: int = 24) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.randn(context, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=self.place.dtype)
        hidden = self.blocks(self.token(tokens) + self.place, mask=mask, is_causal=True)
        return self.head(hidden).transpose(1, 2)  # (N, C, d1): classes second, as torch's losses want them


TEXT = codecs.decode(this.s, "rot13")


def gpt() -> nn.Module:
    return GPT(len(set(TEXT)))


def sentences(dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    letters = sorted(set(TEXT))
    tokens = torch.tensor([letters.index(letter) for letter in TEXT])
    rng = torch.Generator().manual_seed(2)
    starts = torch.randint(len(tokens) - 25, (NUM_STEPS, 8), generator=rng)
    windows = tokens[starts.unsqueeze(-1) + torch.arange(25)]
    return [(rows[:, :-1], rows[:, 1:]) for rows in windows]


def curve(
    build: Callable[[], nn.Module],
    batches: list[tuple[Tensor, Tensor]],
    dtype: torch.dtype,
    loss: nn.Module,
    optimizer: Callable[..., torch.optim.Optimizer],
    options: dict[str, Any],
) -> Tensor:
    torch.manual_seed(0)
    model = build().to(dtype)
    stepper = optimizer(model.parameters(), **options)
    values = []
    for x, y in batches:
        stepper.zero_grad()
        value = loss(model(x), y)
        value.backward()
        stepper.step()
        values.append(value.detach().double())
    return torch.stack(values)


@pytest.mark.parametrize("dtype", BARS, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("build", "data"), [(resnet, images), (gpt, sentences)], ids=["resnet", "gpt"])
def test_the_curves_lie_on_each_other(
    build: Callable[[], nn.Module],
    data: Callable[[torch.dtype], list[tuple[Tensor, Tensor]]],
    name: str,
    dtype: torch.dtype,
) -> None:
    batches, options = data(dtype), OPTIMIZERS[name]
    theirs = curve(build, batches, dtype, nn.CrossEntropyLoss(), getattr(torch.optim, name), options)
    ours = curve(build, batches, dtype, losses.CrossEntropyLoss(), getattr(optim, name), options)
    assert theirs[-5:].mean() < 0.9 * theirs[:5].mean()  # it learns
    apart = ((ours - theirs).abs() / theirs).max()
    assert apart < BARS[dtype], f"{apart:.2g} apart"

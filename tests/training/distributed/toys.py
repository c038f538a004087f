"""Modules and data small enough for many trainings: `steepest fit --model toys:gpt --data toys:text` in this folder."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

CHARACTERS, LENGTH = 11, 6


def _example() -> Any:
    """The GPT of `examples/small_gpt.py`, smaller still."""
    path = Path(__file__).parents[3] / "examples" / "small_gpt.py"
    spec = importlib.util.spec_from_file_location("small_gpt", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(LENGTH=LENGTH, WIDTH=8, CHARACTERS=range(CHARACTERS))
    return module


SMALL_GPT = _example()


def gpt() -> nn.Module:
    return SMALL_GPT.SmallGPT().double()


class Tied(nn.Module):
    """The head's weights are the embedding's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, 4)
        self.head = nn.Linear(4, CHARACTERS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, codes: Tensor) -> Tensor:
        hidden: Tensor = self.head(torch.tanh(self.embed(codes)))
        return hidden


def tied() -> nn.Module:
    return Tied().double()


class Unused(Tied):
    """With parameters that its outputs do not hang on."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = nn.Linear(2, 2)


def unused() -> nn.Module:
    return Unused().double()


def slow_gpt() -> nn.Module:
    model = gpt()
    model.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    return model


def text() -> list[tuple[Tensor, Tensor]]:
    """65 rows, so that steps of 16 end on a lone one; a fifth of the targets is padding, and all of row 3's."""
    draw = torch.Generator().manual_seed(0)
    codes = torch.randint(CHARACTERS, (74, LENGTH + 1), generator=draw)
    targets = (codes[:, :-1] * 3 + codes[:, 1:]) % CHARACTERS
    targets[torch.rand(targets.shape, generator=draw) < 0.2] = -100
    targets[3] = -100
    return [(codes[:65, :-1], targets[:65]), (codes[65:, :-1], targets[65:])]


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def numbers() -> Any:
    """Regression from a data set, without validation rows."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(37, 3, generator=draw)
    return TensorDataset(x, x.sum(1))


def numbers_with_nan() -> Any:
    """One row whose gradient is not finite."""
    x, y = numbers().tensors
    x[5, 1] = float("nan")
    return x, y


class Breaking(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        if index == 30:
            raise OSError("the disk is gone")
        return super().__getitem__(index)


def breaking() -> Any:
    return Breaking(*numbers().tensors)

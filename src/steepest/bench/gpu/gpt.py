"""A small GPT in bfloat16 on a GPU: our loss and optimizer in the place of torch's, time a token and peak memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from steepest.bench.gpu.device import are_finite, make_cold, on_device, peak_of, poison
from steepest.bench.gpu.peers import compiled
from steepest.bench.work import OURS, Contestant, Field, Ratio, Work

__all__ = ["alone", "works"]

TORCH, LAST_LAYER = "torch", f"{OURS}, the last layer in the loss"
_STEPS, _RATE = 5, 3e-4


class Size(NamedTuple):
    """Of a GPT: words it knows, words of a text, layers, heads, numbers a word; and texts of a batch."""

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    texts: int

    @property
    def tokens(self) -> int:
        """Of all steps of a sample."""
        return _STEPS * self.texts * self.context


SIZE = Size(50_304, 1024, 12, 12, 768, 16)  # GPT-2's smallest
QUICK = Size(50, 8, 1, 2, 16, 2)


def works(quick: bool, device: str) -> list[Work]:
    """As it stands, and compiled."""
    size = QUICK if quick else SIZE
    return [_work(size, device, is_compiled) for is_compiled in (False, True)]


def _work(size: Size, device: str, is_compiled: bool) -> Work:
    made = "torch.compile" if is_compiled else "eager"
    shape = f"{size.layers} layers of {size.width}, {size.vocabulary:,} words, batch {size.texts} x {size.context:,}"
    bars = (
        Ratio((TORCH,), 1.0),
        Ratio((TORCH,), 1.0, "peak memory"),
        Ratio((LAST_LAYER,)),
        Ratio((LAST_LAYER,), None, "peak memory"),
    )
    return Work(
        f"a small GPT, {shape}, bfloat16, AdamW, {made}, a token of a step",
        partial(_field, size, device, is_compiled),
        bars,
    )


def _field(size: Size, device: str, is_compiled: bool) -> Field:
    def one(name: str) -> Contestant:
        facts = peak_of("gpt", whole=True, size=size, contestant=name, device=device, is_compiled=is_compiled)
        return _contestant(name, size, device, is_compiled, facts)

    return {name: one(name) for name in (OURS, TORCH, LAST_LAYER)}


def alone(size: Sequence[int], contestant: str, device: str, is_compiled: bool) -> Contestant:
    """One contestant, for a process of its own."""
    return _contestant(contestant, Size(*size), device, is_compiled, dict)


def _contestant(name: str, size: Size, device: str, is_compiled: bool, facts: Any) -> Contestant:
    torch.manual_seed(0)
    model = Gpt(size).to(device, torch.bfloat16)
    optimizer = _optimizer(name, model)
    loss = compiled(_loss(name, model)) if is_compiled else _loss(name, model)
    texts = torch.empty(_STEPS, size.texts, size.context + 1, dtype=torch.int64, device=device)

    def fresh() -> None:
        texts.random_(size.vocabulary)
        poison(model.words.weight)
        make_cold(device)

    def work() -> list[Tensor]:
        losses = []
        for text in texts:
            optimizer.zero_grad()
            value = loss(text[:, :-1], text[:, 1:])
            value.backward()
            optimizer.step()
            losses.append(value.detach())
        return losses

    return on_device(
        device, fresh, work, are_finite, torch.__version__, units=float(size.tokens), facts=facts
    )


def _optimizer(name: str, model: nn.Module) -> Any:
    if name == TORCH:
        return torch.optim.AdamW(model.parameters(), lr=_RATE, fused=True)
    from steepest.optim import AdamW

    return AdamW(model.parameters(), lr=_RATE)


def _loss(name: str, model: Gpt) -> Callable[[Tensor, Tensor], Tensor]:
    """Of a batch of texts and what follows each word."""
    from steepest.losses import CrossEntropyLoss
    from steepest.losses.linear_cross_entropy import linear_cross_entropy

    last = model.words.weight  # of the embedding and of the last layer
    ours, theirs = CrossEntropyLoss(), nn.CrossEntropyLoss()

    def in_one(text: Tensor, following: Tensor) -> Tensor:
        return linear_cross_entropy(model(text).flatten(0, 1), last, following.flatten())

    def apart(text: Tensor, following: Tensor) -> Tensor:
        logits = functional.linear(model(text).flatten(0, 1), last)
        value: Tensor = (theirs if name == TORCH else ours)(logits, following.flatten())
        return value

    return in_one if name == LAST_LAYER else apart


# --- the model ---------------------------------------------------------------------------------------------------


class Gpt(nn.Module):
    """Words and places in, what a linear layer makes words of out; Radford et al. 2019."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.words = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Embedding(size.context, size.width)
        self.layers = nn.ModuleList(Layer(size.width, size.heads) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, text: Tensor) -> Tensor:
        x = self.words(text) + self.places.weight[: text.shape[1]]
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.norm(x)
        return y


class Layer(nn.Module):
    """Attention to the words before, and a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.queries_keys_values(self.before(x)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).flatten(2))
        y: Tensor = x + self.perceptron(self.between(x))
        return y

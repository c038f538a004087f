"""Which optimizer for a small GPT that learns English, character by character?

The text ships with Python: the language reference behind ``help()``. Each example is a line of characters, each target
the same line moved on by one, so the module's outputs are (rows, length, characters). Prints the verdict, writes a
report, and lets the trained module go on with a sentence. On two cores it takes about two minutes:

    .venv/bin/python examples/small_gpt.py
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import steepest

LENGTH, WIDTH, HEADS, LAYERS = 32, 32, 2, 2
TEXT = "\n".join(topics[name] for name in sorted(topics)).replace("*", "").replace('"', "")[:30_000]
CHARACTERS = sorted(set(TEXT))
CODES = torch.tensor([CHARACTERS.index(character) for character in TEXT])


class Block(nn.Module):
    """Causal attention and a two-layer perceptron, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.mixed = nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length, width) to the same."""
        rows, length, _ = x.shape
        parts = self.query_key_value(self.norms[0](x)).view(rows, length, 3, HEADS, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(seen.transpose(1, 2).reshape(rows, length, WIDTH))
        return x + self.perceptron(self.norms[1](x))  # type: ignore[no-any-return]


class SmallGPT(nn.Module):
    """Characters to the logits of the next one, at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(len(CHARACTERS), WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)), nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, len(CHARACTERS))

    def forward(self, codes: Tensor) -> Tensor:
        """(rows, length) to (rows, length, characters)."""
        places = torch.arange(codes.shape[1], device=codes.device)
        return self.head(self.blocks(self.characters(codes) + self.places(places)))  # type: ignore[no-any-return]


def parts(num_characters: int = len(TEXT)) -> list[tuple[Tensor, Tensor]]:
    """Train, validation and test: the first four fifths of the text, and two tenths that follow."""
    count = (num_characters - 1) // LENGTH
    lines = CODES[: count * LENGTH].view(count, LENGTH)
    next_ones = CODES[1 : count * LENGTH + 1].view(count, LENGTH)
    ends = [0, int(0.8 * count), int(0.9 * count), count]
    return [(lines[a:b], next_ones[a:b]) for a, b in pairwise(ends)]


def go_on(module: nn.Module, beginning: str, num_characters: int = 120) -> str:
    """The beginning and what the module makes of it, drawn at random from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    codes = [CHARACTERS.index(character) for character in beginning]
    with torch.no_grad():
        for _ in range(num_characters):
            logits = module(torch.tensor([codes[-LENGTH:]]))[0, -1]
            codes.append(int(torch.multinomial(torch.softmax(logits / 0.7, 0), 1, generator=generator)))
    return "".join(CHARACTERS[code] for code in codes)


def main(
    out: str = "steepest-small-gpt", num_characters: int = len(TEXT), **options: Any
) -> steepest.Comparison:
    """Compare, print the verdict, and leave the report in ``out``; ``options`` are ``compare``'s."""
    asked = {
        "losses": ["cross_entropy"],
        "optimizers": ["adamw", "momentum"],
        "batch_sizes": [32],
        "max_epochs": 4,
    }
    comparison = steepest.compare(
        model=SmallGPT, data=parts(num_characters), out=out, progress=True, **{**asked, **options}
    )
    print(comparison.verdict["sentence"])
    if comparison.model is not None:
        print(go_on(comparison.model.module, "The statement "))
    print(f"Report: {out}/report.html")
    return comparison


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", nargs="?", default="steepest-small-gpt", help="the folder of the results (%(default)s)"
    )
    main(parser.parse_args().out)

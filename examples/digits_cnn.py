"""Which loss and which optimizer for a small convolutional network on images of handwritten digits?

The network is an ordinary ``torch.nn.Module`` with batch norm and dropout; the 1,797 images come with scikit-learn.
Prints the verdict and writes a report. On two cores it takes a minute or two:

    .venv/bin/python examples/digits_cnn.py
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import steepest


class SmallCNN(nn.Module):
    """Two convolutions and a linear layer: 8 x 8 pixels to 10 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, images: Tensor) -> Tensor:
        """(rows, 1, 8, 8) to (rows, 10)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def digits() -> list[tuple[Tensor, Tensor]]:
    """Train, validation and test: three fifths, a fifth and a fifth, each with its share of every digit."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    targets = torch.tensor(labels)
    rest, test = train_test_split(range(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=0.25, stratify=labels[rest], random_state=0)
    return [(images[part], targets[part]) for part in (train, validation, test)]


def main(out: str = "steepest-digits", **options: Any) -> steepest.Comparison:
    """Compare, print the verdict, and leave the report in ``out``; ``options`` are ``compare``'s."""
    asked = {
        "losses": ["cross_entropy", "focal"],
        "optimizers": ["momentum", "adam"],
        "batch_sizes": [64],
        "max_epochs": 4,
    }
    comparison = steepest.compare(
        model=SmallCNN, data=digits(), out=out, progress=True, **{**asked, **options}
    )
    images, labels = digits()[2]
    print(comparison.verdict["sentence"])
    if comparison.model is not None:
        right = (comparison.model.predict(images) == labels.numpy()).mean()
        print(f"The module handed over reads {right:.1%} of the test digits right.")
    print(f"Report: {out}/report.html")
    return comparison


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", nargs="?", default="steepest-digits", help="the folder of the results (%(default)s)"
    )
    main(parser.parse_args().out)

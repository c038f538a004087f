"""Which optimizer for a small GAN that learns to draw points on a ring?

A training of one's own, in which two networks learn against each other: ``compare`` tells the function what to train
with and asks for a score. Here that is the energy distance of the points drawn to points of the ring that were held
back: 0 where they cannot be told apart. Prints the verdict and writes a report. On two cores it takes about a minute:

    .venv/bin/python examples/ring_gan.py

The same from the command line, with the progress:

    .venv/bin/steepest compare --train examples/ring_gan.py:gan --optimizers momentum,rmsprop,adam \\
        --metric "min energy distance"
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import Tensor, nn

import steepest
from steepest.losses.functional import binary_cross_entropy_with_logits

STEPS_AN_EPOCH, ROWS_A_STEP = 30, 64


def ring(num_points: int, seed: int) -> Tensor:
    """Points (num_points, 2) about the circle of radius 1."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(num_points, generator=generator)
    radius = 1 + 0.05 * torch.randn(num_points, generator=generator)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


TRAIN, VALIDATION, TEST = ring(2_000, 0), ring(500, 1), ring(500, 2)


def energy_distance(a: Tensor, b: Tensor) -> float:
    """Of two samples (rows, 2): 0 where they are of one distribution (Székely and Rizzo 2013)."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def network(num_inputs: int, num_outputs: int) -> nn.Module:
    """A perceptron with two hidden layers."""
    layers = [nn.Linear(num_inputs, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, num_outputs)]
    return nn.Sequential(*layers)


def gan(trial: steepest.TrainingTrial) -> float:
    """Train both networks as the trial says; its score on the test points."""
    generator, discriminator = network(4, 2), network(2, 1)
    draws, tells = trial.optimizer(generator.parameters()), trial.optimizer(discriminator.parameters())
    real, drawn = torch.ones(ROWS_A_STEP, 1), torch.zeros(ROWS_A_STEP, 1)

    def score(points: Tensor) -> float:
        with torch.no_grad():
            return energy_distance(generator(torch.randn(len(points), 4)), points)

    for _ in range(trial.epochs):
        for _ in range(STEPS_AN_EPOCH):
            points = TRAIN[torch.randint(len(TRAIN), (ROWS_A_STEP,))]
            made = generator(torch.randn(ROWS_A_STEP, 4))
            tells.zero_grad()
            loss = binary_cross_entropy_with_logits(discriminator(points), real)
            loss = loss + binary_cross_entropy_with_logits(discriminator(made.detach()), drawn)
            loss.backward()
            tells.step()
            draws.zero_grad()
            binary_cross_entropy_with_logits(discriminator(made), real).backward()
            draws.step()
        trial.report(score(VALIDATION))
    return score(TEST)


def main(out: str = "steepest-ring-gan", **options: Any) -> steepest.Comparison:
    """Compare, print the verdict, and leave the report in ``out``; ``options`` are ``compare``'s."""
    asked = {"optimizers": ["momentum", "rmsprop", "adam"], "metric": "min energy distance", "max_epochs": 10}
    comparison = steepest.compare(train=gan, out=out, progress=True, **{**asked, **options})
    print(comparison.verdict["sentence"])
    print(f"Report: {out}/report.html")
    return comparison


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "out", nargs="?", default="steepest-ring-gan", help="the folder of the results (%(default)s)"
    )
    main(parser.parse_args().out)

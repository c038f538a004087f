"""How long a comparison of a small module takes alone, and beside programs that want the processors too.

    python benchmarks/beside_others.py

As many processes as there are processors count for ever meanwhile. 88 runs of a net of 64, 32 and 10 units on
scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sklearn.datasets import load_digits
from torch import nn

import steepest


def small_net() -> nn.Module:
    """64, 32 and 10 units, with batch norm."""
    return nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


@contextmanager
def others(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def seconds() -> float:
    """What the comparison takes."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype("float32")
    data = [(pixels[part], labels[part]) for part in (slice(1000), slice(1000, 1400), slice(1400, None))]
    started = time.perf_counter()
    steepest.compare(
        model=small_net,
        data=data,
        losses=["cross_entropy"],
        optimizers=["adam"],
        max_epochs=4,
        together=False,
    )
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    seconds()  # what is compiled, once
    count = os.cpu_count() or 1
    print(f"{torch.get_num_threads()} threads of torch's, {count} processors")
    print(f"alone: {seconds():.1f} s")
    with others(count):
        print(f"beside {count} processes that never rest: {seconds():.1f} s")


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    main()

"""The global random numbers of torch, numpy and Python: seeded for what the user's code draws, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["borrowed", "seed_all"]


@contextmanager
def borrowed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every global generator for a while; then the caller's numbers go on as if nothing had been."""
    cuda = [device] if device.type == "cuda" else []
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=cuda):
        try:
            seed_all(seed, device)
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


def seed_all(seed: int, device: torch.device) -> None:
    """Seed torch's generator (and the device's), numpy's and Python's.

    Args:
        seed: from 0; numpy takes the lower 32 bits.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)

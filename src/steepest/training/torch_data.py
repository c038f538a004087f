"""Rows for the torch engine: tensors, arrays, or any map-style ``torch.utils.data.Dataset``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from steepest.errors import InputError

__all__ = ["Rows", "as_rows"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Examples that can be fetched by number, as a batch of inputs and a batch of targets."""

    source: Any  # (inputs, targets) tensors, or a Dataset
    targets: Tensor  # all of them, (rows, ...)
    collate: Any = default_collate

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, index: NDArray[np.int64]) -> tuple[Any, Tensor]:
        """The examples of those numbers, in that order."""
        if isinstance(self.source, tuple):
            at = torch.as_tensor(index)
            return self.source[0][at], self.source[1][at]
        inputs, targets = self.collate([self.source[int(i)] for i in index])
        return inputs, targets

    def digest(self, hasher: Any) -> None:
        """Feed the content into a hash: all of it for tensors, the targets for other data sets."""
        tensors = self.source if isinstance(self.source, tuple) else (self.targets,)
        for tensor in tensors:
            hasher.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
            hasher.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())


def as_rows(data: Any, name: str) -> Rows:
    """Rows from ``(X, y)`` arrays or tensors, a Dataset of ``(input, target)`` pairs, or a DataLoader of one.

    Args:
        data: the examples. A DataLoader gives its data set and its way to collate; order and batch size
            are the comparison's.
        name: "train", "validation" or "test", for messages.

    Raises:
        InputError: nothing that can be fetched by number, no rows, or inputs and targets of unlike length.
    """
    if isinstance(data, DataLoader):
        return _from_dataset(data.dataset, name, data.collate_fn)
    if isinstance(data, Dataset):
        return _from_dataset(data, name, default_collate)
    if isinstance(data, Sequence) and len(data) == 2:
        inputs, targets = (_tensor(part, name) for part in data)
        if len(inputs) != len(targets):
            raise InputError(
                f"The {name} data has {len(inputs)} inputs and {len(targets)} targets; there must be as many."
            )
        if not len(inputs):
            raise InputError(f"The {name} data has no rows.")
        return Rows((inputs, targets), targets)
    raise InputError(
        f"The {name} data is a {type(data).__name__}; give (inputs, targets), a Dataset or a DataLoader."
    )


def _tensor(part: Any, name: str) -> Tensor:
    try:
        tensor = torch.as_tensor(np.ascontiguousarray(part) if not isinstance(part, Tensor) else part)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {name} data cannot be read as numbers: {error}.") from None
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _from_dataset(dataset: Any, name: str, collate: Any) -> Rows:
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(f"The {name} data set cannot be fetched by number; give a map-style Dataset.")
    if not len(dataset):
        raise InputError(f"The {name} data has no rows.")
    try:
        targets = torch.as_tensor(np.stack([np.asarray(dataset[i][1]) for i in range(len(dataset))]))
    except (TypeError, IndexError, KeyError, ValueError) as error:
        raise InputError(
            f"The {name} data set does not give (input, target) pairs of one shape: {error}."
        ) from None
    if targets.dtype == torch.float64:
        targets = targets.float()
    return Rows(dataset, targets, collate)


def digest_of(parts: Sequence[Rows]) -> str:
    """The sha256 of train, validation and test together."""
    hasher = hashlib.sha256()
    for part in parts:
        part.digest(hasher)
    return hasher.hexdigest()

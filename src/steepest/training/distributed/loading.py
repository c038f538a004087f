"""Data by number: rows that any rank can fetch, of what a comparison of modules takes too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from steepest.errors import InputError
from steepest.training.torch_data import Tensors, as_rows, count_items, first_digest
from steepest.training.torch_loading import Items, has_own_order, settings_of

__all__ = ["Part", "as_parts"]

_ORDER = (
    "a training on any number of processes decides itself which rows a step takes: give (inputs, targets), a map-style "
    "Dataset or a DataLoader of one"
)


@dataclass(frozen=True, eq=False)
class Part:
    """The training or the validation rows.

    Attributes:
        name: "train" or "validation", for messages.
        num_rows: how many there are.
        sha256: of tensors, all that is in them; of a data set, its first two examples. Empty where these are other ones
            each time they are read.
        targets: all of them, where they lie in memory.
        batch_size: of the loader they came from; None where they came from none.
        drops_last: whether that loader leaves a short last batch out.
    """

    name: str
    source: Tensors | Items
    num_rows: int
    sha256: str
    targets: Tensor | None = None
    batch_size: int | None = None
    drops_last: bool = False

    def fetch(self, chunks: Iterable[Any]) -> Iterator[tuple[Any, Tensor]]:
        """Inputs and targets of the rows whose numbers each chunk holds."""
        return self.source.fetch(chunks)


def as_parts(data: Any) -> tuple[Part, Part | None]:
    """Training rows, and validation rows if there are any.

    Args:
        data: training data alone, ``(inputs, targets)``, a Dataset or a DataLoader; or a sequence of two or three such
            (training, validation, test). The last, which ``compare`` would judge by, is not looked at.

    Raises:
        InputError: it is something else, has no rows, or an order of its own.
    """
    if _is_one(data):
        return _part(data, "train"), None
    if not isinstance(data, Sequence) or isinstance(data, str) or len(data) not in (2, 3):
        raise InputError(
            f"The data is a {type(data).__name__}; it must be (inputs, targets), a Dataset or a DataLoader, or "
            "(train, validation) of such."
        )
    return _part(data[0], "train"), _part(data[1], "validation")


def _is_one(data: Any) -> bool:
    if isinstance(data, (Dataset, DataLoader)):
        return True
    return isinstance(data, Sequence) and len(data) == 2 and all(map(_is_array, data))


def _is_array(part: Any) -> bool:
    return isinstance(part, (Tensor, np.ndarray))


def _part(data: Any, name: str) -> Part:
    if isinstance(getattr(data, "dataset", data), IterableDataset):
        raise InputError(f"The {name} data is an IterableDataset; {_ORDER}.")
    if isinstance(data, DataLoader):
        if has_own_order(data):
            raise InputError(
                f"The {name} data comes from a loader whose sampler does more than shuffle; {_ORDER}."
            )
        source = Items(name, data.dataset, data.collate_fn, settings_of(data))
        return _of_items(source, name, data.batch_size, data.drop_last)
    if isinstance(data, Dataset):
        return _of_items(Items(name, data), name)
    rows = as_rows(data, name)
    assert isinstance(rows.source, Tensors)
    return Part(name, rows.source, len(rows), rows.sha256, rows.targets)


def _of_items(source: Items, name: str, batch_size: int | None = None, drops_last: bool = False) -> Part:
    count = count_items(source, name)
    if not count:
        raise InputError(f"The {name} data has no rows.")
    first, again = (first_digest(source, min(count, 2)) for _ in range(2))
    return Part(
        name, source, count, first if first == again else "", batch_size=batch_size, drops_last=drops_last
    )

"""Rows for the torch engine: tensors, arrays, or any data set or loader of torch's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from steepest.errors import InputError, told
from steepest.training.seeds import borrowed
from steepest.training.torch_loading import (
    Items,
    OwnBatches,
    Stream,
    as_targets,
    has_own_order,
    settings_of,
)

__all__ = ["AT_ONCE", "Rows", "Tensors", "as_rows", "count_items", "digest_of", "first_digest"]

AT_ONCE = 256  # rows that go through a module together where nothing is learned
_MOST_ROWS = 100_000_000  # of a stream: one that goes on is taken for endless
_CPU = torch.device("cpu")
_NUMBERS = {
    "inputs": "Give one array of numbers, or a Dataset, whose inputs may be tuples and dictionaries too.",
    "targets": "Classes are numbers too: 0, 1, ...",
}


class Source(Protocol):
    """Where examples come from."""

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """Inputs and targets, so many rows at a time, in that order (if the order is not the source's own)."""
        ...


@dataclass(frozen=True)
class Tensors:
    """Inputs and targets that lie in memory."""

    inputs: Tensor
    targets: Tensor

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """The rows of those numbers, in that order, so many at a time."""
        places = torch.as_tensor(np.asarray(order, dtype=np.int64))
        if self.inputs.device == self.targets.device:
            places = places.to(self.inputs.device)  # all at once: a batch waits for no device
        return self.fetch(places.split(batch_size))

    def on(self, device: torch.device) -> Tensors:
        """The same in a device's memory."""
        return Tensors(self.inputs.to(device), self.targets.to(device))

    @property
    def num_bytes(self) -> int:
        """What they take."""
        return self.inputs.nbytes + self.targets.nbytes

    def fetch(self, chunks: Iterable[Sequence[int] | Tensor]) -> Iterator[tuple[Any, Tensor]]:
        """The rows of those numbers, chunk by chunk."""
        for numbers in chunks:
            at = torch.as_tensor(numbers if isinstance(numbers, Tensor) else np.asarray(numbers, np.int64))
            yield self.inputs[at], self.targets[at]


@dataclass(frozen=True, eq=False)
class Rows:
    """The examples of one part, as the engine takes them.

    Attributes:
        name: "train", "validation" or "test", for messages.
        targets: all of them in the order of a pass, (rows, ...); flat where rows have unlike many.
        num_rows: how many examples a pass gives.
        sha256: of the content.
        batch_size: the rows a batch of the loader they came from; None where they came from none.
        batches_are_own: the order and the batches are the loader's, and no other can be had.
        drops_last: whether the loader leaves a short last batch out of training.
        is_repeatable: whether one seed gives the same inputs again. Where not, they are not in ``sha256``.
    """

    name: str
    source: Source
    targets: Tensor
    num_rows: int
    sha256: str
    batch_size: int | None = None
    batches_are_own: bool = False
    drops_last: bool = False
    is_repeatable: bool = True

    def __len__(self) -> int:
        return self.num_rows

    def batches(self, order: Sequence[int] | None, batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """Inputs and targets, batch by batch; ``order`` None is that of ``targets``."""
        return self.source.batches(range(self.num_rows) if order is None else order, batch_size)

    def passed(self) -> Iterator[tuple[Any, Tensor]]:
        """One pass in the order of ``targets``.

        Raises:
            InputError: it gives other targets than the first pass did, so no score would mean anything.
        """
        at = 0
        flat = self.targets.reshape(-1)
        for inputs, targets in self.batches(None, self.batch_size or AT_ONCE):
            again = targets.reshape(-1)
            if not torch.equal(again, flat[at : at + len(again)]):
                raise self._unlike()
            at += len(again)
            yield inputs, targets
        if at != len(flat):
            raise self._unlike()

    def _unlike(self) -> InputError:
        return InputError(
            f"The {self.name} data gives other targets in a second pass than in the first; rows that are scored "
            "must be the same in every pass, and in the same order."
        )


def as_rows(data: Any, name: str) -> Rows:
    """Rows from ``(X, y)`` arrays or tensors, a Dataset of ``(input, target)`` pairs, or a DataLoader.

    Every example is read once here: for the targets, the count and the digest.

    Args:
        data: the examples. A DataLoader gives its data set, its batch size, its way to collate and its workers; the
            order of the rows is the comparison's, unless its sampler does more than shuffle, or the data set is
            an IterableDataset: then the order (and with a batch sampler, the batches) are its own.
        name: "train", "validation" or "test", for messages.

    Raises:
        InputError: no rows, inputs and targets of unlike length, or data whose code fails.
    """
    if isinstance(data, DataLoader):
        return _of_loader(data, name)
    if isinstance(data, IterableDataset):
        return _read(Stream(name, data), name, None)
    if isinstance(data, Dataset):
        return _of_items(Items(name, data), name)
    if isinstance(data, Sequence) and not isinstance(data, str) and len(data) == 2:
        return _of_arrays(data, name)
    raise InputError(
        f"The {name} data is a {type(data).__name__}; give (inputs, targets), a Dataset or a DataLoader."
    )


def _of_arrays(data: Sequence[Any], name: str) -> Rows:
    inputs, targets = _tensor(data[0], name, "inputs"), _tensor(data[1], name, "targets")
    if inputs.dim() == 0 or targets.dim() == 0 or len(inputs) != len(targets):
        counts = " and ".join(
            f"{len(part) if part.dim() else 'no'} {word}"
            for part, word in ((inputs, "inputs"), (targets, "targets"))
        )
        several = "; several inputs a row are a Dataset's, whose items are ((a, b), target)"
        raise InputError(
            f"The {name} data has {counts}; there must be as many{several * isinstance(data[0], tuple)}."
        )
    if not len(inputs):
        raise InputError(f"The {name} data has no rows.")
    targets = as_targets(targets, name)
    hasher = hashlib.sha256()
    # Of float64 the digest is float32's, which plans and checkpoints of before hold.
    _feed(hasher, (inputs.float() if inputs.dtype == torch.float64 else inputs, targets))
    return Rows(name, Tensors(inputs, targets), targets, len(targets), hasher.hexdigest())


def _tensor(part: Any, name: str, what: str) -> Tensor:
    """Inputs or targets as one dense tensor that is no part of a graph of the user's."""
    if isinstance(part, Tensor):
        if part.layout != torch.strided:
            raise InputError(f"The {name} data's {what} are a sparse tensor; give a dense one (to_dense()).")
        return part.detach()
    try:
        array = np.ascontiguousarray(part)
        # torch warns of memory that may not be written to, such as a pandas column's.
        return torch.as_tensor(array if array.flags.writeable else array.copy())
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The {name} data's {what} cannot be read as numbers: {told(error)} {_NUMBERS[what]}"
        ) from error


def _of_loader(loader: DataLoader[Any], name: str) -> Rows:
    if has_own_order(loader):
        return _read(OwnBatches(name, loader), name, loader.batch_size, batches_are_own=True)
    kind = Stream if isinstance(loader.dataset, IterableDataset) else Items
    source = kind(name, loader.dataset, loader.collate_fn, settings_of(loader))
    if isinstance(source, Items):
        return _of_items(source, name, loader.batch_size, loader.drop_last)
    return _read(source, name, loader.batch_size, drops_last=loader.drop_last)


def _of_items(source: Items, name: str, batch_size: int | None = None, drops_last: bool = False) -> Rows:
    num_rows = count_items(source, name)
    return _read(source, name, batch_size, num_rows=num_rows, drops_last=drops_last)


def count_items(source: Items, name: str) -> int:
    """How many examples a map-style data set has.

    Raises:
        InputError: it is none, or its length fails.
    """
    if not hasattr(source.dataset, "__len__") or not hasattr(source.dataset, "__getitem__"):
        raise InputError(
            f"The {name} data set has no __len__ or no __getitem__; give a map-style Dataset with both, or an "
            "IterableDataset."
        )
    try:
        return len(source.dataset)
    except Exception as error:
        raise InputError(f"The {name} data set's length cannot be told: {told(error)}") from error


def _read(
    source: Source,
    name: str,
    batch_size: int | None,
    *,
    num_rows: int = 0,
    batches_are_own: bool = False,
    drops_last: bool = False,
) -> Rows:
    """One pass over all examples (``num_rows`` of them, where that is known)."""
    first, again = (first_digest(source, min(num_rows, 2)) for _ in range(2))
    is_repeatable = first == again
    hasher = hashlib.sha256()
    targets: list[Tensor] = []
    total = 0
    with borrowed(0, _CPU):
        for inputs, some in source.batches(range(num_rows), batch_size or AT_ONCE):
            _feed(hasher, (inputs, some) if is_repeatable else some)
            targets.append(some)
            total += len(some)
            if total > _MOST_ROWS:
                raise InputError(
                    f"The {name} data has given {total:,} rows and no end; give a pass that ends."
                )
    if not total:
        raise InputError(f"The {name} data has no rows.")
    return Rows(
        name,
        source,
        _together(targets, name),
        total,
        hasher.hexdigest(),
        batch_size=batch_size or (round(total / len(targets)) if batches_are_own else None),
        batches_are_own=batches_are_own,
        drops_last=drops_last,
        is_repeatable=is_repeatable,
    )


def first_digest(source: Source, num_rows: int) -> str:
    """Of the first examples alone, on the same seed each time."""
    hasher = hashlib.sha256()
    with borrowed(0, _CPU):
        for batch in islice(source.batches(range(num_rows), 2), 1):
            _feed(hasher, batch)
    return hasher.hexdigest()


def _together(batches: Sequence[Tensor], name: str) -> Tensor:
    if len({batch.dtype for batch in batches}) > 1:
        kinds = " and ".join(sorted({str(batch.dtype).removeprefix("torch.") for batch in batches}))
        raise InputError(f"The {name} data's targets are of unlike types from batch to batch: {kinds}.")
    if len({batch.shape[1:] for batch in batches}) > 1:  # padded batch by batch
        return torch.cat([batch.reshape(-1) for batch in batches])
    return torch.cat(list(batches))


def _feed(hasher: Any, content: Any) -> None:
    """Feed a batch into a hash: numbers and texts in any nesting; of other objects, their class."""
    if isinstance(content, np.ndarray) and content.dtype != object:
        content = torch.as_tensor(np.ascontiguousarray(content))
    if isinstance(content, Tensor):
        tensor = content.detach().cpu()
        hasher.update(repr((tuple(tensor.shape), str(tensor.dtype))).encode())
        if tensor.layout == torch.strided:
            tensor = tensor.resolve_conj().resolve_neg().contiguous()
            hasher.update(tensor.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(content, Mapping):
        for key, value in content.items():
            hasher.update(repr(key).encode())
            _feed(hasher, value)
    elif isinstance(content, (list, tuple)):
        hasher.update(repr((type(content).__name__, len(content))).encode())
        for value in content:
            _feed(hasher, value)
    elif isinstance(content, (str, bytes, int, float, bool, type(None))):
        hasher.update(repr(content).encode())
    else:
        hasher.update(type(content).__qualname__.encode())


def digest_of(parts: Sequence[Rows]) -> str:
    """The sha256 of train, validation and test together."""
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()

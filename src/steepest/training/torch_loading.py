"""Batches out of a user's own data set by torch's DataLoader; what fails in their code is named as theirs."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
    get_worker_info,
)

from steepest.errors import InputError, told

__all__ = ["Items", "OwnBatches", "Stream", "as_targets", "has_own_order", "settings_of"]

# Of a user's loader, what its copies keep. Workers are started anew each epoch, or their random numbers would go on.
_SETTINGS = ("num_workers", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context")


@dataclass(frozen=True)
class Items:
    """A map-style data set, fetched by number."""

    name: str
    dataset: Any
    collate: Any = default_collate
    settings: dict[str, Any] = field(default_factory=dict)

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """The examples of those numbers, in that order, so many at a time."""
        return self.fetch([order[start : start + batch_size] for start in range(0, len(order), batch_size)])

    def fetch(self, chunks: Iterable[Sequence[int]]) -> Iterator[tuple[Any, Tensor]]:
        """The examples of those numbers, chunk by chunk."""
        loader: DataLoader[Any] = DataLoader(
            _Items(self.dataset, self.name),
            batch_sampler=_Chunks(chunks),
            collate_fn=_Collate(self.collate, self.name),
            **self.settings,
        )
        return _pairs(loader, self.name)


@dataclass(frozen=True)
class Stream:
    """An IterableDataset: its own order, our batches."""

    name: str
    dataset: Any
    collate: Any = default_collate
    settings: dict[str, Any] = field(default_factory=dict)

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """One pass over the examples, whatever the order asked for."""
        loader: DataLoader[Any] = DataLoader(
            _Stream(self.dataset, self.name),
            batch_size=batch_size,
            collate_fn=_Collate(self.collate, self.name),
            **self.settings,
        )
        return _pairs(loader, self.name)


@dataclass(frozen=True)
class OwnBatches:
    """A DataLoader whose sampler, or whose data set, decides the order and the batches."""

    name: str
    loader: Any

    def batches(self, order: Sequence[int], batch_size: int) -> Iterator[tuple[Any, Tensor]]:
        """One pass over the loader's own batches, whatever was asked for."""
        given = self.loader
        is_stream = isinstance(given.dataset, IterableDataset)
        sampling: dict[str, Any] = {"batch_sampler": given.batch_sampler}
        if given.batch_sampler is None:
            sampling = {"batch_size": None} | ({} if is_stream else {"sampler": given.sampler})
        loader: DataLoader[Any] = DataLoader(
            _Stream(given.dataset, self.name) if is_stream else _Items(given.dataset, self.name),
            collate_fn=_Collate(given.collate_fn, self.name),
            generator=given.generator,
            **sampling,
            **settings_of(given),
        )
        with _seeded(_generators(given)):
            yield from _pairs(loader, self.name)


def settings_of(loader: DataLoader[Any]) -> dict[str, Any]:
    """How a loader fetches: its workers and what goes with them."""
    return {name: getattr(loader, name) for name in _SETTINGS}


def has_own_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader's sampler is more than a shuffle: weights, a part of the rows, batches of its own making."""
    if isinstance(loader.dataset, IterableDataset):
        return loader.batch_size is None
    sampler = loader.sampler
    is_plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(sampler.data_source)
    )
    return not is_plain or type(loader.batch_sampler) is not BatchSampler


# --- whose fault it is -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Failure:
    """What went wrong in a worker process, sent over in place of a batch."""

    sentence: str
    trace: str


def _failed(where: str, error: Exception) -> _Failure:
    """The failure, where the process that waits for batches is another one; raised, where it is this one."""
    sentence = f"{where}: {told(error)}"
    if get_worker_info() is None:
        raise InputError(sentence) from error
    return _Failure(sentence, traceback.format_exc())


class _Guarded:
    """Stands in for the user's data set in a DataLoader; attributes, those a worker_init_fn sets too, are its own."""

    _set: Any

    def __init__(self, dataset: Any, name: str) -> None:
        self.__dict__["_set"], self.__dict__["_part"] = dataset, name

    def __getattr__(self, name: str) -> Any:
        if name in ("_set", "_part"):  # not there yet: this is being copied
            raise AttributeError(name)
        return getattr(self._set, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._set, name, value)


class _Items(_Guarded, Dataset[Any]):
    def __len__(self) -> int:
        return len(self._set)

    def __getitem__(self, index: Any) -> Any:
        try:
            return self._set[index]
        except Exception as error:
            return _failed(f"The {self._part} data set failed on item {index}", error)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        together = getattr(self._set, "__getitems__", None)
        if together is None:
            return [self[int(index)] for index in indices]
        try:
            return together([int(index) for index in indices])  # type: ignore[no-any-return]
        except Exception as error:
            return [
                _failed(
                    f"The {self._part} data set failed on one of the items {list(map(int, indices))}", error
                )
            ]


class _Stream(_Guarded, IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        number = 0
        try:
            for example in self._set:
                yield example
                number += 1
        except Exception as error:
            yield _failed(f"The {self._part} data set failed on item {number}", error)


class _Chunks(Sampler[list[int]]):
    """Chunks of row numbers, which are made as they are asked for."""

    def __init__(self, chunks: Iterable[Sequence[int]]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return (list(chunk) for chunk in self._chunks)


class _Collate:
    def __init__(self, function: Any, name: str) -> None:
        self.function, self.name = function, name

    def __call__(self, examples: Any) -> Any:
        among = examples if isinstance(examples, list) else [examples]
        failures = [example for example in among if isinstance(example, _Failure)]
        if failures:
            return failures[0]
        try:
            return self.function(examples)
        except Exception as error:
            return _failed(f"The {self.name} data's collate function failed", error)


def _pairs(loader: DataLoader[Any], name: str) -> Iterator[tuple[Any, Tensor]]:
    """The loader's batches, each as inputs and targets.

    Raises:
        InputError: the user's code failed, or a batch is no pair.
    """
    batches = _told_iteration(loader, name)
    for batch in batches:
        if isinstance(batch, _Failure):
            raise InputError(batch.sentence) from RuntimeError(batch.trace)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise InputError(
                f"The {name} data gives batches that are a {type(batch).__name__}{size}; each must be a pair "
                "(inputs, targets), where inputs may be a tuple or a dict: the collate_fn of a DataLoader can make "
                "them so."
            )
        inputs, targets = batch
        yield inputs, as_targets(targets, name)


def _told_iteration(loader: DataLoader[Any], name: str) -> Iterator[Any]:
    try:
        yield from loader
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The {name} data's loader failed: {told(error)}") from error


def as_targets(given: Any, name: str) -> Tensor:
    """A batch's targets, or all of them: numbers of floating point in float32, all others as they are.

    Raises:
        InputError: they are no numbers, or not one a row.
    """
    try:
        targets = torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The {name} data's targets cannot be read as numbers: {told(error)}") from error
    if targets.dim() == 0:
        raise InputError(f"The {name} data gives one target for a whole batch; there must be one a row.")
    if targets.is_complex():
        raise InputError(
            f"The {name} data's targets are complex numbers; give real ones, such as torch.view_as_real makes of them."
        )
    return targets.float() if targets.is_floating_point() else targets


def _generators(loader: Any) -> list[torch.Generator]:
    """The random generators a loader's order comes from, beside torch's global one."""
    owners = (loader, loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


@contextmanager
def _seeded(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Seeded from torch's global numbers for a pass; afterwards they stand where they stood."""
    before = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(int(torch.randint(2**31, ())))
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)

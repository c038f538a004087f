"""The processes of one training (torch's ranks): who this one is, what all add up, and what all agree on."""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, rendezvous  # type: ignore[attr-defined]

from steepest.errors import InputError, told

__all__ = ["AgreedError", "RankError", "Ranks", "joined"]


class AgreedError(InputError):
    """An error that ends all ranks.

    Attributes:
        is_told: whether another rank tells it.
    """

    def __init__(self, words: str, is_told: bool) -> None:
        super().__init__(words)
        self.is_told = is_told


class RankError(AgreedError):
    """An error of one rank in the middle of a step, which ends the others as they wait for it."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        device: where its modules and batches go.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Each number, added up over all ranks in float64."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(numbers, dtype=dtype, device=self.device)
        try:
            dist.all_reduce(sums)
        except RuntimeError as error:
            raise self.failure(f"Another process of the training has ended: {told(error)}") from error
        return sums.tolist()

    def failure(self, words: str, when: str = "") -> RankError:
        """The error for what failed on this rank while others go on: the first one to come here tells it.

        Args:
            words: the sentence.
            when: such as ``"in step 3"``.
        """
        try:
            is_told = dist.distributed_c10d._get_default_store().add("steepest/failures", 1) > 1
        except RuntimeError:  # whoever keeps the store has ended already
            is_told = True
        where = f"on rank {self.rank} of {self.world_size}" if self.world_size > 1 else ""
        place = ", ".join(part for part in (where, when) if part)
        return RankError(f"{place[:1].upper()}{place[1:]}: {words}" if place else words, is_told)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Work that may fail on some ranks: then it has failed on all.

        Raises:
            AgreedError: on every rank, with the words of the first one that failed.
        """
        error: InputError | None = None
        try:
            yield
        except InputError as failure:
            error = failure
        said: list[str | None] = [None] * self.world_size
        dist.all_gather_object(said, None if error is None else str(error))
        failed = [(rank, words) for rank, words in enumerate(said) if words is not None]
        if failed:
            rank, words = failed[0]
            where = "" if len(failed) == self.world_size else f"On rank {rank} of {self.world_size}: "
            raise AgreedError(where + words, is_told=not self.is_first) from error


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, or the group there is already; alone, be a group of one.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``, a GPU where there are any. Each rank of a machine takes the GPU of
            its number there.

    Raises:
        InputError: there is no such device, or not one for each rank, or the others cannot be reached.
    """
    place = _device(device)
    own = not dist.is_initialized()
    if own:
        _stay_here()
        _join(place)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    except BaseException as error:
        # Where others wait in the middle of a step, a farewell would wait for them.
        are_waiting = isinstance(error, RankError) and dist.get_world_size() > 1
        if own and dist.is_initialized() and not are_waiting:
            dist.destroy_process_group()
        raise
    if own:
        dist.destroy_process_group()


def _device(word: str) -> torch.device:
    if word not in ("auto", "cpu", "cuda"):
        raise InputError(f"The device is {word!r}; choose auto, cpu or cuda.")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if word == "cpu" or (word == "auto" and not count):
        return torch.device("cpu")
    number, on_machine = (int(os.environ.get(name, of_one)) for name, of_one in _LOCAL.items())
    if on_machine > count:
        raise InputError(
            f"{on_machine} processes on this machine want a GPU each, and it has {count}; start fewer, or give "
            "--device cpu."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


_LOCAL = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def _stay_here() -> None:
    """Where all ranks are on this machine, their sockets are on its loopback, unless told otherwise."""
    if os.environ.get("LOCAL_WORLD_SIZE", "1") != os.environ.get("WORLD_SIZE", "1"):
        return
    names = {name for _, name in socket.if_nameindex()} if hasattr(socket, "if_nameindex") else set()
    for loopback in names & {"lo", "lo0"}:
        for variable in _INTERFACES:
            os.environ.setdefault(variable, loopback)


def _join(device: torch.device) -> None:
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        if {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ):
            store, rank, world_size = _meeting()
        else:
            store, rank, world_size = HashStore(), 0, 1  # listens nowhere
        # A second group would find what the first has left: each has names of its own.
        number = next(_JOINS)
        if number == 0:
            # Gloo's threads end with their group, and may need the interpreter for it: what still refers to a group
            # (sharded modules, in cycles) goes before Python ends around them, which would abort the process.
            atexit.register(gc.collect)
        store = PrefixStore(f"steepest-{number}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"The processes of the training cannot reach each other: {told(error)}") from error


_JOINS = itertools.count()


@cache
def _meeting() -> tuple[Any, int, int]:
    """Where the processes find each other, as the environment says; this one's number, and how many there are."""
    return next(rendezvous("env://"))  # type: ignore[no-any-return]

"""Checkpoints of a training on several ranks: every rank writes its parts, any number of ranks reads them.

A checkpoint is a folder ``step-000000120`` of safetensors files, by torch.distributed.checkpoint, and
``training.json``, which names them with their sizes and says where the training stands. It is written beside its place
and renamed into it; the one before it is kept. Nothing in it is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.nn.parallel import DistributedDataParallel

from steepest.errors import InputError, told
from steepest.training.distributed.ranks import Ranks

__all__ = ["Checkpoints"]

_FORMAT = 1
_WHERE = "training.json"
_NUM_KEPT = 2


class Checkpoints:
    """The checkpoints in a folder that all ranks see.

    Args:
        folder: where they are; made with the first one.
        ranks: who writes and reads together. Every method is called by all of them.
    """

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks

    def save(
        self, step: int, where: Mapping[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the checkpoint of a step, and remove all but the one before it.

        Args:
            where: what else it takes to go on; JSON's values.

        Raises:
            InputError: the file system refuses. The checkpoints from before are still there.
        """
        fresh = self.folder / f".{_name(step)}"
        with self.ranks.agreed(), _told(fresh):
            if self.ranks.is_first:
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)
        has_state = bool(optimizer.state)  # asked for one it has not, torch would make it by a step
        with self.ranks.agreed(), _told(fresh), _quiet():
            state = get_optimizer_state_dict(module, optimizer) if has_state else None
            named = _named(get_model_state_dict(module), state, _aliases(module))
            # safetensors refuses others, such as a channels_last convolution's.
            tensors = {name: tensor.contiguous() for name, tensor in named.items()}
            save(tensors, storage_writer=HuggingFaceStorageWriter(str(fresh), save_distributed=True))
        with self.ranks.agreed(), _told(fresh):
            if self.ranks.is_first:
                sizes = {path.name: path.stat().st_size for path in sorted(fresh.iterdir())}
                about = {
                    "format": _FORMAT,
                    "step": step,
                    "has_optimizer_state": has_state,
                    "files": sizes,
                    **where,
                }
                (fresh / _WHERE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
                _put_in_place(fresh, self.folder / _name(step))
                for path in self._all()[:-_NUM_KEPT]:
                    shutil.rmtree(path)

    def last(self) -> dict[str, Any] | None:
        """Where the training stood at the last whole checkpoint; None if there is none."""
        for path in reversed(self._all()):
            about = _read(path)
            if about is not None:
                return about
        return None

    def load(self, about: Mapping[str, Any], module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put a checkpoint's weights and state into a module and an optimizer.

        Args:
            about: what :meth:`last` gave.

        Raises:
            InputError: it is of another module or optimizer, or cannot be read.
        """
        path = self.folder / _name(about["step"])
        with self.ranks.agreed():
            try:
                weights = get_model_state_dict(module)
                state: Any = (
                    get_optimizer_state_dict(module, optimizer) if about["has_optimizer_state"] else None
                )
                with _quiet():  # into the tensors as they lie
                    reader = HuggingFaceStorageReader(str(path))
                    if state is not None:
                        state["state"] = _begun(state["state"], reader.read_metadata().state_dict_metadata)
                    load(_named(weights, state, _aliases(module)), storage_reader=reader)
                set_model_state_dict(module, weights)
                if state is not None:
                    not_all = StateDictOptions(strict=False)
                    set_optimizer_state_dict(module, optimizer, state, options=not_all)
            except InputError:
                raise
            except (Exception, CheckpointException) as error:
                raise InputError(
                    f"The checkpoint {str(path)!r} does not fit this module and optimizer, or cannot be read: "
                    f"{told(_cause(error))}"
                ) from error

    def clear_unfinished(self) -> None:
        """Remove what a kill in the middle of a checkpoint has left."""
        if self.ranks.is_first:
            for left in self.folder.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _aliases(module: nn.Module) -> set[str]:
    """The names of tied tensors but for each one's first: safetensors takes a tensor once, and so is it read back."""
    inner = module.module if isinstance(module, DistributedDataParallel) else module
    seen: set[int] = set()
    aliases = set()
    for name, tensor in chain(
        inner.named_parameters(remove_duplicate=False), inner.named_buffers(remove_duplicate=False)
    ):
        if id(tensor) in seen:
            aliases.add(name.replace("_orig_mod.", ""))  # state dictionaries leave torch.compile's out
        seen.add(id(tensor))
    return aliases


def _named(
    weights: Mapping[str, Any], state: Mapping[str, Any] | None, aliases: Collection[str]
) -> dict[str, Any]:
    """The tensors of weights and state by their names in the module, whatever it is wrapped in."""
    tensors = {f"model.{name}": value for name, value in weights.items() if name not in aliases}
    for name, entries in ({} if state is None else state["state"]).items():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in entries.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


def _begun(state: Mapping[str, Any], kept: Collection[str]) -> dict[str, Any]:
    """The state of parameters that a checkpoint has any of: one that had no gradient yet has none."""
    return {
        name: entries
        for name, entries in state.items()
        if any(f"optimizer.{name}.{key}" in kept for key in entries)
    }


def _read(path: Path) -> dict[str, Any] | None:
    """What a checkpoint says of itself, if all it names is there."""
    try:
        about = json.loads((path / _WHERE).read_text(encoding="utf-8"))
        whole = all((path / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return about if whole and about.get("format") == _FORMAT else None


def _put_in_place(fresh: Path, place: Path) -> None:
    """Everything on the disk before the name is: a power failure leaves a whole checkpoint or none."""
    for path in fresh.iterdir():
        _sync(path)
    _sync(fresh)
    if place.exists():  # of a training that was begun anew from an earlier one
        shutil.rmtree(place)
    fresh.rename(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told(fresh: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (Exception, CheckpointException) as error:
        cause = _cause(error)
        reason = getattr(cause, "strerror", None) or told(cause).rstrip(".")
        raise InputError(f"The checkpoint {str(fresh.parent)!r} cannot be written: {reason}.") from error


def _cause(error: BaseException) -> BaseException:
    """What failed on a rank, where torch.distributed.checkpoint wraps it, in what is no ``Exception``."""
    failures = error.failures if isinstance(error, CheckpointException) else {}
    return next((cause for cause, _ in failures.values()), error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings of its own deprecated ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

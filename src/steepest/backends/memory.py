"""Memory for large results: huge pages, and the memory of a result let go serves the next one.

The first write to a page of fresh memory is a fault that the system answers with zeros, which can take longer than the
kernel that writes. On Linux results of a MiB or more lie on 2 MiB pages where the system gives them, and what
is let go is kept for the next result of about the size. All but the latest is marked as free (``MADV_FREE``), so the
system takes it back when memory is short, without a word from here; marking takes longer than a small kernel.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from collections import deque
from typing import Any

import torch
from torch import Tensor

__all__ = ["empty_like_huge", "release"]

_HUGE_PAGE_BYTES = 1 << 21
_LEAST_BYTES = 1 << 20  # the C library keeps smaller ones itself
_WARM_BYTES = 1 << 25  # of what was let go last are not marked: about what a processor's cache holds
_SPARE = 1.125  # how much larger than asked for a block may be
_HAS_BLOCKS = sys.platform == "linux" and hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MADV_FREE")


class _Block:
    """A piece of memory from the system; handed out again and again."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._map = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self._lease: Any = None
        self.is_marked = False

    def lend(self, like: Tensor, size: int) -> Tensor:
        """A tensor in this memory, which comes back to the pool when the last tensor that shares it is gone."""
        # An object of its own for each loan: its end is the loan's.
        self.is_marked = False
        buffer = (ctypes.c_char * self.num_bytes).from_buffer(self._map)
        self._lease = weakref.ref(buffer, lambda _: _take_back(self))
        _lent.add(self)
        return torch.frombuffer(buffer, dtype=like.dtype, count=size).view(like.shape)

    def mark(self) -> None:
        """The system may have the pages back whenever it needs them; only for a block that nobody else can be lent."""
        self._map.madvise(mmap.MADV_FREE)
        self.is_marked = True


_resting: deque[_Block] = deque()  # those let go, the longest ago first
# A block and the word it waits for hold each other alone: the garbage collector would take both, and the word not come.
_lent: set[_Block] = set()


def empty_like_huge(tensor: Tensor) -> Tensor:
    """An unwritten, contiguous tensor of the same shape and type, in memory that is warm where that can be had.

    >>> import torch
    >>> empty_like_huge(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """
    num_bytes = tensor.nbytes
    if num_bytes < _LEAST_BYTES or not _HAS_BLOCKS or not tensor.is_cpu:
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    try:
        block = _warm(num_bytes) or _Block(-(-num_bytes // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES)
    except (OSError, ValueError):  # no memory to be had this way: torch says so, or finds some
        release()
        return torch.empty_like(tensor, memory_format=torch.contiguous_format)
    return block.lend(tensor, tensor.numel())


def release() -> None:
    """Give all memory that is kept for later results back to the system."""
    _resting.clear()


def _warm(num_bytes: int) -> _Block | None:
    for block in reversed(tuple(_resting)):
        if num_bytes <= block.num_bytes <= max(num_bytes * _SPARE, num_bytes + _HUGE_PAGE_BYTES):
            try:
                _resting.remove(block)
            except ValueError:  # another thread was quicker
                continue
            return block
    return None


def _take_back(block: _Block) -> None:
    _lent.discard(block)
    if block.num_bytes > _WARM_BYTES:
        block.mark()
    _resting.append(block)
    _mark_all_but_the_latest()
    while sum(kept.num_bytes for kept in tuple(_resting)) > _most_kept():
        try:
            _resting.popleft()
        except IndexError:
            return


def _mark_all_but_the_latest() -> None:
    num_warm = 0
    for block in reversed(tuple(_resting)):
        if block.is_marked:
            continue
        num_warm += block.num_bytes
        if num_warm > _WARM_BYTES:
            try:
                _resting.remove(block)  # so that no other thread is lent what is marked here
            except ValueError:
                continue
            block.mark()
            _resting.appendleft(block)


def _most_kept() -> int:
    """An eighth of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8

"""Memory for large results: huge pages where the system gives them."""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["empty_like_huge"]

_HUGE_PAGE_BYTES = 1 << 21
_LEAST_BYTES = 1 << 23


def empty_like_huge(tensor: Tensor) -> Tensor:
    """An unwritten, contiguous tensor of the same shape and type, on huge pages where that saves time.

    The first write to a page of fresh memory is a fault that the system answers with zeros; with pages of 4 KiB
    that can take longer than the kernel that writes. On Linux the whole 2 MiB pages inside a result of 8 MiB or
    more are asked for as such, before they are touched; elsewhere, and where the system declines, nothing happens.

    >>> import torch
    >>> empty_like_huge(torch.zeros(3, 2)).shape
    torch.Size([3, 2])
    """
    result = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    size = result.numel() * result.element_size()
    if size >= _LEAST_BYTES and result.device.type == "cpu":
        advise = _madvise()
        if advise is not None:
            start = -(-result.data_ptr() // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES
            stop = (result.data_ptr() + size) // _HUGE_PAGE_BYTES * _HUGE_PAGE_BYTES
            advise(start, stop - start, mmap.MADV_HUGEPAGE)
    return result


@cache
def _madvise() -> Any:
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function

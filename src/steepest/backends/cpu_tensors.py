"""Where many tensors lie, looked up in one call.

Asking a thousand tensors one by one for their addresses and layouts takes longer than stepping them. PyTorch answers
through DLPack's table of C functions (``__dlpack_c_exchange_api__``), an interface made for this; where a version of it
has none, the tensors are asked one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import carray, types
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends import cpu

__all__ = ["Places"]

_FIND = types.int64(
    types.int64,
    types.int64,
    types.CPointer(types.int64),
    types.CPointer(types.int64),
    types.CPointer(types.int64),
)  # function that looks up, number of tensors, these, type and size of each, room for the addresses
_LOOK_UP = types.int32(types.int64, types.CPointer(types.int64))
_POSITION = 5  # of the function in DLPack's table, after a header of two words

look_up: Any
as_integers: Any


def _find(function: int, count: int, tensors: Any, layouts: Any, found: Any) -> int:
    """How many tensors, up to the first that does not, lie contiguous in this machine's memory and are as expected."""
    objects, expected, where = carray(tensors, count), carray(layouts, 2 * count), carray(found, count)
    words = np.zeros(6, np.int64)  # a DLTensor: address, device, dimensions and type, shape, strides, offset
    for k in range(count):
        if look_up(function, objects[k], words) != 0:
            return k
        if words[1] & 0xFFFFFFFF != 1 or words[2] >> 32 != expected[2 * k]:
            return k
        dims = words[2] & 0xFFFFFFFF
        shape, strides = carray(as_integers(words[3]), dims), carray(as_integers(words[4]), dims)
        size = 1
        for d in range(dims - 1, -1, -1):
            if shape[d] != 1 and strides[d] != size:
                return k
            size *= shape[d]
        if size != expected[2 * k + 1]:
            return k
        where[k] = words[0] + words[5]
    return count


@cache
def _finder() -> tuple[Any, int] | None:
    """The compiled search, called with the interpreter's lock held, and torch's function."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(read(capsule, b"dlpack_exchange_api"), ctypes.POINTER(ctypes.c_uint64))
    is_known = table[0] & 0xFFFFFFFF == 1  # the interface's major version
    if not is_known or not table[_POSITION]:
        return None
    bindings = {"look_up": cpu.call(_LOOK_UP), "as_integers": cpu.pointer_at(types.int64)}
    kernel = cpu.compile_kernel(_find, _FIND, bindings)
    pointer = ctypes.c_void_p
    prototype = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer, pointer, pointer)
    return prototype(kernel.address), table[_POSITION]


def _type_of(tensor: Tensor) -> int:
    """DLPack's type: its kind, the bits of an element, one lane."""
    if tensor.dtype.is_floating_point:
        kind = 4 if tensor.dtype == torch.bfloat16 else 2
    else:
        kind = int(tensor.dtype == torch.uint8)
    return kind | tensor.element_size() * 8 << 8 | 1 << 16


class Places:
    """The types and sizes that some tensors have, and where tensors like them lie.

    Args:
        like: contiguous tensors in this machine's memory, of real numbers.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._dtypes = [tensor.dtype for tensor in like]
        self._sizes = [tensor.numel() for tensor in like]
        layouts = [(_type_of(tensor), tensor.numel()) for tensor in like]
        self._layouts = np.array(layouts, dtype=np.int64).reshape(-1, 2)
        self._layouts_at = self._layouts.ctypes.data

    def find(self, tensors: Iterable[Tensor]) -> NDArray[np.int64] | None:
        """Their addresses, or None if any is not as before; as many as before."""
        finder = _finder()
        if finder is None:
            return self._ask(list(tensors))
        function, look_up = finder
        count = len(self._sizes)
        objects = np.fromiter(tensors, dtype=object, count=count)
        found = np.empty(count, dtype=np.int64)
        try:
            num_found = function(look_up, count, objects.ctypes.data, self._layouts_at, found.ctypes.data)
        except (BufferError, RuntimeError, TypeError):  # a sparse tensor, or no tensor at all
            return None
        return found if num_found == count else None

    def _ask(self, tensors: list[Tensor]) -> NDArray[np.int64] | None:
        if not (
            all(tensor.layout == torch.strided and tensor.device.type == "cpu" for tensor in tensors)
            and [tensor.dtype for tensor in tensors] == self._dtypes
            and [tensor.numel() for tensor in tensors] == self._sizes
            and all(map(Tensor.is_contiguous, tensors))
        ):
            return None
        return np.array(list(map(Tensor.data_ptr, tensors)), dtype=np.int64)

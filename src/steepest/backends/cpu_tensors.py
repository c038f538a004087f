"""Where many tensors lie, on a CPU or a GPU, looked up in one call.

Asking a thousand tensors one by one for their addresses and layouts takes longer than stepping them. PyTorch answers
through DLPack's table of C functions (``__dlpack_c_exchange_api__``), an interface made for this; where a version of it
has none, the tensors are asked one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from steepest.backends import cpu

__all__ = ["KeptPlaces", "Places"]

_FIND = types.int64(
    types.int64,
    types.int64,
    types.CPointer(types.int64),
    types.CPointer(types.int64),
    types.CPointer(types.int64),
)  # function that looks up, number of tensors, these, type, size and device of each, room for the addresses
_FIND_KEPT = types.int64(
    types.int64,
    types.int64,
    types.int64,
    types.CPointer(types.int64),
    types.CPointer(types.int64),
    types.CPointer(types.int64),
    types.CPointer(types.int64),
)  # the same; after the first the function that gets an entry, and after the layouts the lines to ask for
_LOOK_UP = types.int32(types.int64, types.CPointer(types.int64))
_GET_ENTRY = types.int64(types.int64, types.int64)
_POSITION = 5  # of the function in DLPack's table, after a header of two words
_SMALL = 1 << 14  # elements
_LINE = 64  # bytes that the memory gives at a time
_NUM_LINES = 6  # of a tensor
_AHEAD = 8  # tensors: so long before their turn the memory is asked for them
_NO_SUCH_TENSOR = (
    BufferError,
    RuntimeError,
    SystemError,
    TypeError,
)  # a sparse one, or not even a dictionary
_ASIDE = -1  # where a tensor lies that is not as expected

look_up: Any
get_entry: Any
place: Any
as_integers: Any
num_lines: int


def _prefetch(typingctx: Any, address: Any) -> Any:
    """Ask the memory for a line that will be read soon. Nothing comes of an address that holds no longer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name, pointer, number = "llvm.prefetch.p0", ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        to_read, to_stay, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(args[0], pointer), to_read, to_stay, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


prefetch: Any = intrinsic(_prefetch)


def _place(function: int, tensor: int, words: Any, kind: int, size: int, device: int) -> Any:
    """Where a tensor begins, if it lies contiguous in this device's memory and is of this type and size."""
    if look_up(function, tensor, words) != 0:
        return _ASIDE
    if words[1] != device or words[2] >> 32 != kind:
        return _ASIDE
    dims = words[2] & 0xFFFFFFFF
    shape, strides = carray(as_integers(words[3]), dims), carray(as_integers(words[4]), dims)
    contiguous = 1
    for d in range(dims - 1, -1, -1):
        if shape[d] != 1 and strides[d] != contiguous:
            return _ASIDE
        contiguous *= shape[d]
    if contiguous != size:
        return _ASIDE
    return words[0] + words[5]


def _find(function: int, count: int, tensors: Any, layouts: Any, found: Any) -> int:
    """How many tensors, up to the first that does not, lie and are as expected."""
    objects, expected, where = carray(tensors, count), carray(layouts, 3 * count), carray(found, count)
    words = np.zeros(6, np.int64)  # a DLTensor: address, device, dimensions and type, shape, strides, offset
    for k in range(count):
        where[k] = place(
            function, objects[k], words, expected[3 * k], expected[3 * k + 1], expected[3 * k + 2]
        )
        if where[k] == _ASIDE:
            return k
    return count


def _find_kept(
    function: int, getter: int, count: int, kept: Any, layouts: Any, lines: Any, found: Any
) -> int:
    """The same for tensors known beforehand, given by themselves after a 0, or as an entry: a dictionary and a key."""
    given, expected, where = carray(kept, 2 * count), carray(layouts, 3 * count), carray(found, count)
    ahead = carray(lines, num_lines * count)
    words = np.zeros(6, np.int64)
    for k in range(-_AHEAD, count):
        # Told early, the memory answers while other tensors are looked up.
        if k + _AHEAD < count:
            for line in range(num_lines):
                prefetch(ahead[num_lines * (k + _AHEAD) + line])
        if k < 0:
            continue
        tensor = given[2 * k + 1]
        if given[2 * k] != 0:
            tensor = get_entry(getter, given[2 * k], tensor)
            if tensor == 0:  # no such entry
                return k
        where[k] = place(function, tensor, words, expected[3 * k], expected[3 * k + 1], expected[3 * k + 2])
        if where[k] == _ASIDE:
            return k
    return count


@cache
def _finder() -> tuple[Any, Any] | None:
    """The compiled searches, called with the interpreter's lock held and told of torch's and Python's functions."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(read(capsule, b"dlpack_exchange_api"), ctypes.POINTER(ctypes.c_uint64))
    is_known = table[0] & 0xFFFFFFFF == 1  # the interface's major version
    if not is_known or not table[_POSITION]:
        return None
    get = ctypes.cast(ctypes.pythonapi.PyDict_GetItemWithError, ctypes.c_void_p).value
    bindings = {"look_up": cpu.call(_LOOK_UP), "as_integers": cpu.pointer_at(types.int64)}
    bindings = {
        "place": cpu.bind(_place, bindings), "get_entry": cpu.call(_GET_ENTRY), "prefetch": prefetch,
        "num_lines": _NUM_LINES,
    }  # fmt: skip
    look_up = int(table[_POSITION])
    return (
        partial(_prototype(4)(cpu.compile_kernel(_find, _FIND, bindings).address), look_up),
        partial(_prototype(6)(cpu.compile_kernel(_find_kept, _FIND_KEPT, bindings).address), look_up, get),
    )


@cache
def _finds_on(device: torch.device) -> bool:
    """Whether the search sees a tensor of this device where torch says that it lies."""
    finder = _finder()
    assert finder is not None
    probe = torch.zeros(3, device=device)
    objects = np.fromiter([probe], dtype=object, count=1)  # np.array would ask the tensor for its numbers
    layout = np.array([_type_of(probe), 3, _device_of(probe)], dtype=np.int64)
    found = np.zeros(1, dtype=np.int64)
    try:
        number = finder[0](1, objects.ctypes.data, layout.ctypes.data, found.ctypes.data)
    except _NO_SUCH_TENSOR:
        return False
    return bool(number == 1 and found[0] == probe.data_ptr())


def _prototype(num_arguments: int) -> Any:
    """Of a function that takes so many words after its first, and may leave an error behind."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * (1 + num_arguments))


def _type_of(tensor: Tensor) -> int:
    """DLPack's type: its kind, the bits of an element, one lane."""
    if tensor.dtype.is_floating_point:
        kind = 4 if tensor.dtype == torch.bfloat16 else 2
    else:
        kind = int(tensor.dtype == torch.uint8)
    return kind | tensor.element_size() * 8 << 8 | 1 << 16


def _device_of(tensor: Tensor) -> int:
    """DLPack's device: its kind, and which one."""
    if tensor.device.type == "cpu":
        return 1
    kind = 10 if torch.version.hip else 2
    return kind | (tensor.device.index or 0) << 32


class Places:
    """The types, sizes and devices that some tensors have, and where tensors like them lie.

    Args:
        like: contiguous tensors in a CPU's or GPU's memory, of real numbers.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._dtypes = [tensor.dtype for tensor in like]
        self._sizes = [tensor.numel() for tensor in like]
        self._devices = [tensor.device for tensor in like]
        self._finder = _finder()
        if self._finder is not None and not all(map(_finds_on, set(self._devices))):
            self._finder = None
        layouts = [(_type_of(tensor), tensor.numel(), _device_of(tensor)) for tensor in like]
        self._layouts = np.array(layouts, dtype=np.int64).reshape(-1, 3)
        self._layouts_at = self._layouts.ctypes.data

    def find(self, tensors: Iterable[Tensor]) -> NDArray[np.int64] | None:
        """Their addresses, or None if any is not as before; as many as before."""
        finder = self._finder
        if finder is None:
            return self._ask(list(tensors))
        objects = np.fromiter(tensors, dtype=object, count=len(self._sizes))
        return self._search(finder[0], objects.ctypes.data, self._layouts_at)

    def _search(self, function: Any, *given: int) -> NDArray[np.int64] | None:
        count = len(self._sizes)
        found = np.empty(count, dtype=np.int64)
        try:
            num_found = function(count, *given, found.ctypes.data)
        except _NO_SUCH_TENSOR:
            return None
        return found if num_found == count else None

    def _ask(self, tensors: list[Tensor]) -> NDArray[np.int64] | None:
        if not (
            all(tensor.layout == torch.strided for tensor in tensors)
            and [tensor.device for tensor in tensors] == self._devices
            and [tensor.dtype for tensor in tensors] == self._dtypes
            and [tensor.numel() for tensor in tensors] == self._sizes
            and all(map(Tensor.is_contiguous, tensors))
        ):
            return None
        return np.array(list(map(Tensor.data_ptr, tensors)), dtype=np.int64)


class KeptPlaces(Places):
    """The same for tensors known beforehand: themselves, or entries of dictionaries, looked up anew each time.

    Args:
        tensors: themselves.
        entries: dictionary and key of each.
    """

    def __init__(self, tensors: Sequence[Tensor], entries: Sequence[tuple[dict[str, Any], str]]) -> None:
        in_entries = [dictionary[key] for dictionary, key in entries]
        together = [*tensors, *in_entries]
        super().__init__(together)
        self._tensors, self._entries = tensors, entries
        kept = [(0, id(tensor)) for tensor in tensors] + [(id(owner), id(key)) for owner, key in entries]
        self._kept = np.array(kept, dtype=np.int64).reshape(-1, 2)
        lines = [_lines(tensor, owner) for tensor, (owner, _) in zip(together, kept, strict=True)]
        self._lines = np.array(lines, dtype=np.int64).reshape(-1, _NUM_LINES)
        self._given = (self._kept.ctypes.data, self._layouts_at, self._lines.ctypes.data)
        # torch counts Python among a tensor's owners anew for each look-up, unless it has another owner all along:
        # half of the time. What is kept so lives until the next step even if it leaves its dictionary.
        self._owners = [
            tensor.__dlpack__(stream=None if tensor.device.type == "cpu" else -1)  # -1: nothing waits for it
            for tensor in in_entries
            if self._finder is not None and tensor.numel() <= _SMALL and not tensor.requires_grad
        ]

    def find_kept(self) -> NDArray[np.int64] | None:
        """Their addresses, or None if any is not there or not as before."""
        if self._finder is not None:
            return self._search(self._finder[1], *self._given)
        try:
            return self._ask([*self._tensors, *(dictionary[key] for dictionary, key in self._entries)])
        except KeyError:
            return None


def _lines(tensor: Tensor, owner: int) -> tuple[int, ...]:
    """Where torch and Python keep what a look-up reads."""
    inside = tensor._cdata
    return (owner, id(tensor), inside, inside + _LINE, inside + 2 * _LINE, tensor.untyped_storage()._cdata)

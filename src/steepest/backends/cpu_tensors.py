"""Where many tensors lie, on a CPU or a GPU, looked up in one call.

Asking a thousand tensors one by one for their addresses and layouts takes longer than stepping them. PyTorch answers
through DLPack's table of C functions (``__dlpack_c_exchange_api__``), an interface made for this; where a version of it
has none, the tensors are asked one by one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from enum import IntEnum
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

__all__ = ["LOOK_UP", "NO_SUCH_TENSOR", "KeptPlaces", "Order", "Places", "finds_on", "look_up_at", "order_of"]

_FIND = types.int64(
    types.int64, types.int64, types.int64, types.int64, types.CPointer(types.int64), types.CPointer(types.int64)
)  # fmt: skip
# functions that look a tensor up and get one of a list, number of tensors, the list, type, size and device of each,
# room for the addresses
_FIND_KEPT = types.int64(
    types.int64, types.int64, types.int64, types.CPointer(types.int64), types.CPointer(types.int64),
    types.CPointer(types.int64), types.CPointer(types.int64), types.boolean,
)  # fmt: skip
# the same; the second function gets an entry; after the layouts the lines to ask for, and the addresses, to be found
# out or compared
LOOK_UP = types.int32(types.int64, types.CPointer(types.int64))
_GET_ENTRY = types.int64(types.int64, types.int64)
_POSITION = 5  # of the function in DLPack's table, after a header of two words
_SMALL = 1 << 14  # elements
_LINE = 64  # bytes that the memory gives at a time
_NUM_LINES = 6  # of a tensor
_AHEAD = 8  # tensors: so long before their turn the memory is asked for them
NO_SUCH_TENSOR = (
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
    """Where a tensor begins, if it lies dense in this device's memory, in this order, and is of this type and size."""
    if look_up(function, tensor, words) != 0:
        return _ASIDE
    if words[1] != device or words[2] >> 32 != kind & 0xFFFFFFFF:
        return _ASIDE
    dims, channels_last = words[2] & 0xFFFFFFFF, kind >> 32 != 0
    shape, strides = carray(as_integers(words[3]), dims), carray(as_integers(words[4]), dims)
    contiguous = 1
    for step in range(dims):  # from the dimension whose elements are neighbours to the outermost
        d = dims - 1 - step
        if channels_last:
            d = 1 if step == 0 else (d + 1 if d > 0 else 0)
        if shape[d] != 1 and strides[d] != contiguous:
            return _ASIDE
        contiguous *= shape[d]
    if contiguous != size:
        return _ASIDE
    return words[0] + words[5]


def _find(function: int, getter: int, count: int, tensors: int, layouts: Any, found: Any) -> int:
    """How many tensors, up to the first that does not, lie and are as expected."""
    expected, where = carray(layouts, 3 * count), carray(found, count)
    words = np.zeros(6, np.int64)  # a DLTensor: address, device, dimensions and type, shape, strides, offset
    for k in range(count):
        tensor = get_entry(getter, tensors, k)
        where[k] = place(function, tensor, words, expected[3 * k], expected[3 * k + 1], expected[3 * k + 2])
        if where[k] == _ASIDE:
            return k
    return count


def _find_kept(
    function: int, getter: int, count: int, kept: Any, layouts: Any, lines: Any, places: Any, is_first: bool
) -> int:
    """The same for tensors known beforehand, given by themselves after a 0, or as an entry: a dictionary and a key.

    Each must lie where it lay, but for the first time.
    """
    given, expected, where = carray(kept, 2 * count), carray(layouts, 3 * count), carray(places, count)
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
        here = place(function, tensor, words, expected[3 * k], expected[3 * k + 1], expected[3 * k + 2])
        if is_first:
            where[k] = here
        if here == _ASIDE or here != where[k]:
            return k
    return count


@cache
def look_up_at() -> int | None:
    """Where torch's function lies that says where a tensor lies; it is called with the interpreter's lock held."""
    capsule = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return None
    read = ctypes.pythonapi.PyCapsule_GetPointer
    read.restype, read.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = ctypes.cast(read(capsule, b"dlpack_exchange_api"), ctypes.POINTER(ctypes.c_uint64))
    is_known = table[0] & 0xFFFFFFFF == 1  # the interface's major version
    return int(table[_POSITION]) or None if is_known else None


@cache
def _finder() -> tuple[Any, Any] | None:
    """The compiled searches, told of torch's and Python's functions."""
    look_up = look_up_at()
    if look_up is None:
        return None
    get = ctypes.cast(ctypes.pythonapi.PyDict_GetItemWithError, ctypes.c_void_p).value
    get_one = ctypes.cast(ctypes.pythonapi.PyList_GetItem, ctypes.c_void_p).value
    bindings = {"look_up": cpu.call(LOOK_UP), "as_integers": cpu.pointer_at(types.int64)}
    bindings = {
        "place": cpu.bind(_place, bindings), "get_entry": cpu.call(_GET_ENTRY), "prefetch": prefetch,
        "num_lines": _NUM_LINES,
    }  # fmt: skip
    return (
        partial(_prototype(5)(cpu.compile_kernel(_find, _FIND, bindings).address), look_up, get_one),
        partial(_prototype(7)(cpu.compile_kernel(_find_kept, _FIND_KEPT, bindings).address), look_up, get),
    )


@cache
def finds_on(device: torch.device) -> bool:
    """Whether the search sees a tensor of this device where torch says that it lies."""
    finder = _finder()
    if finder is None:
        return False
    probe = torch.zeros(3, device=device)
    objects = [probe]
    layout = np.array([_type_of(probe), 3, _device_of(probe)], dtype=np.int64)
    found = np.zeros(1, dtype=np.int64)
    try:
        number = finder[0](1, id(objects), layout.ctypes.data, found.ctypes.data)
    except NO_SUCH_TENSOR:
        return False
    return bool(number == 1 and found[0] == probe.data_ptr())


def _prototype(num_arguments: int) -> Any:
    """Of a function that takes so many words after its first, and may leave an error behind."""
    return ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * (1 + num_arguments))


class Order(IntEnum):
    """In which order a dense tensor's elements lie."""

    CONTIGUOUS = 0
    CHANNELS_LAST = 1  # of images or volumes: (N, C, ...) as if it were (N, ..., C)


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def order_of(tensor: Tensor) -> Order | None:
    """The order of a strided tensor's elements; None if there is none, or gaps between them."""
    if tensor.is_contiguous():
        return Order.CONTIGUOUS
    kind = _CHANNELS_LAST.get(tensor.dim())
    return Order.CHANNELS_LAST if kind is not None and tensor.is_contiguous(memory_format=kind) else None


def _kind_of(tensor: Tensor) -> int:
    """Its type, and above it the order of its elements."""
    order = order_of(tensor)
    assert order is not None
    return _type_of(tensor) | order << 32


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
    """The types, sizes, orders and devices that some tensors have, and where tensors like them lie.

    Args:
        like: dense tensors, of an `Order`, in a CPU's or GPU's memory, of real numbers.
    """

    def __init__(self, like: Sequence[Tensor]) -> None:
        self._dtypes = [tensor.dtype for tensor in like]
        self._sizes = [tensor.numel() for tensor in like]
        self._devices = [tensor.device for tensor in like]
        self._finder = _finder()
        if self._finder is not None and not all(map(finds_on, set(self._devices))):
            self._finder = None
        self._orders = [order_of(tensor) for tensor in like]
        layouts = [(_kind_of(tensor), tensor.numel(), _device_of(tensor)) for tensor in like]
        self._layouts = np.array(layouts, dtype=np.int64).reshape(-1, 3)
        self._found = np.empty(len(layouts), dtype=np.int64)
        # Asking NumPy for an address takes as long as a search.
        self.found_at: int = self._found.ctypes.data
        self._places = self._layouts.ctypes.data, self.found_at

    def find(self, tensors: list[Tensor]) -> NDArray[np.int64] | None:
        """Their addresses, until the next search, at ``found_at``; None if any is not as before, or their number."""
        count = len(self._sizes)
        if len(tensors) != count:
            return None
        if self._finder is None:
            asked = self._ask(tensors)
            if asked is None:
                return None
            self._found[:] = asked
            return self._found
        try:
            num_found = self._finder[0](count, id(tensors), *self._places)
        except NO_SUCH_TENSOR:
            return None
        return self._found if num_found == count else None

    def _ask(self, tensors: list[Tensor]) -> NDArray[np.int64] | None:
        if not (
            all(tensor.layout == torch.strided for tensor in tensors)
            and [tensor.device for tensor in tensors] == self._devices
            and [tensor.dtype for tensor in tensors] == self._dtypes
            and [tensor.numel() for tensor in tensors] == self._sizes
            and list(map(order_of, tensors)) == self._orders
        ):
            return None
        return np.array(list(map(Tensor.data_ptr, tensors)), dtype=np.int64)


class KeptPlaces(Places):
    """Whether tensors known beforehand lie where they did: themselves, or entries of dictionaries, looked up anew.

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
        layouts_at, found_at = self._places
        self._given = (self._kept.ctypes.data, layouts_at, self._lines.ctypes.data, found_at)
        self._are_kept = self._look(is_first=True)
        # torch counts Python among a tensor's owners anew for each look-up, unless it has another owner all along:
        # half of the time. What is kept so lives until the next step even if it leaves its dictionary.
        self._owners = [
            _owned(tensor)
            for tensor in in_entries
            if self._finder is not None and tensor.numel() <= _SMALL and not tensor.requires_grad
        ]

    def hold(self) -> bool:
        """Whether all are there and as before."""
        return self._are_kept and self._look(is_first=False)

    def _look(self, *, is_first: bool) -> bool:
        count = len(self._sizes)
        if self._finder is not None:
            try:
                return bool(self._finder[1](count, *self._given, is_first) == count)
            except NO_SUCH_TENSOR:
                return False
        try:
            found = self._ask([*self._tensors, *(dictionary[key] for dictionary, key in self._entries)])
        except KeyError:
            return False
        if is_first and found is not None:
            self._found[:] = found
        return found is not None and np.array_equal(found, self._found)


def _owned(tensor: Tensor) -> Any:
    """What is an owner of a tensor as long as it lives; torch makes it of the current GPU's tensors alone."""
    if tensor.device.type == "cpu":
        return tensor.__dlpack__()
    with torch.cuda.device(tensor.device):
        return tensor.__dlpack__(stream=-1)  # nothing waits for it


def _lines(tensor: Tensor, owner: int) -> tuple[int, ...]:
    """Where torch and Python keep what a look-up reads."""
    inside = tensor._cdata
    return (owner, id(tensor), inside, inside + _LINE, inside + 2 * _LINE, tensor.untyped_storage()._cdata)

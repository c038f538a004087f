"""Formulas as C functions: bound to the CPU vocabulary, compiled by Numba, cached on disk.

Everything the CPU backend runs is a ``numba.cfunc``: reached through a plain address, called without the
interpreter lock, and able to call another kernel whose address it is given. So the native engine is
compiled once and meets any loss, optimizer, activation or metric as a pointer, users' own included.

The cache is keyed by a digest of every function that went into a kernel (its bytecode, constants and
whatever it calls), its signature, the Numba version and the processor: a changed formula is a new entry,
an unchanged one survives an upgrade. Numba's own cache looks only at the file of the outermost function and
would hand out stale code.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import pickle  # Numba's own form of compiled code, in the user's private cache, never exchanged
import stat
import struct
import sys
import tempfile
import threading
import types as python_types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite
import numba
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, sigutils
from numba.core.caching import CompileResultCacheImpl, _Cache
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from steepest.backends import reference
from steepest.backends.cpu_vocabulary import AS_PART, FASTMATH, VOCABULARY

__all__ = ["Kernel", "bind", "by_address", "cache_directory", "call", "compile_kernel", "pointer_at"]

_REFERENCE = {id(getattr(reference, name)): entry for name, entry in VOCABULARY.items()}
_NAMING = (
    2  # a change in how compiled functions are named makes old entries of the cache unfit beside new ones
)
call_as_told: Any = None  # bound when an entry is compiled
_OPTIONS = {"nopython": True, "error_model": "numpy", "boundscheck": False}


@dataclass(frozen=True)
class Kernel:
    """A compiled C function: its address, for other kernels, and itself, for Python (lock released)."""

    name: str
    address: int
    function: Any
    signature: Any
    _keep_alive: Any

    def __call__(self, *arguments: Any) -> Any:
        """Call it with the interpreter lock released."""
        return self.function(*arguments)

    @functools.cached_property
    def told(self) -> Told:
        """The same for a kernel that returns nothing, with all arguments in one record."""
        letters = ["d" if argument == types.float64 else "q" for argument in self.signature[0]]
        entry = _entry_of(self.signature)
        call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(entry.address)
        return Told(struct.Struct("=q" + "".join(letters)), call, entry.address)


def by_address(kernel: Kernel, prototype: Any) -> Any:
    """The kernel as a function of this C type, with addresses as plain integers; it keeps the kernel."""
    function = prototype(kernel.address)
    function.kernel = kernel
    return function


class Told(NamedTuple):
    """How a kernel is called by a record: 64 bits for its address and each of its arguments.

    From Python that is a third of a call with twenty arguments; and a thread is started with one.
    """

    layout: struct.Struct
    call: Callable[[bytes], None]
    address: int


def bind(function: Callable[..., Any], extra: Mapping[str, Any] | None = None, *, inline: bool = True) -> Any:
    """The same function with reference operations replaced by the CPU's, compiled on first use.

    A formula is inlined, so that the loop around it becomes SIMD code; ``inline=False`` is for long parts.

    Names that stand for vocabulary entries, whatever they were imported as, are rebound; other functions of
    the formula's module are bound in turn; ``extra`` names come first.
    """
    bound = _rebind(function, dict(extra or {}))
    if not inline:
        # Kernels loaded from the cache share functions of one name, and Numba's names count from 1 in each process.
        hasher = hashlib.sha256()
        _fingerprint(bound, hasher, set())
        bound.__name__ = bound.__qualname__ = f"{function.__name__}_{hasher.hexdigest()[:32]}"
    return njit(bound, fastmath=FASTMATH, forceinline=inline, **AS_PART)


def _rebind(function: Callable[..., Any], extra: dict[str, Any]) -> python_types.FunctionType:
    assert isinstance(function, python_types.FunctionType), f"{function!r} is not a plain function"
    scope: dict[str, Any] = {"__builtins__": __builtins__, "__name__": function.__module__}
    for name in _names(function.__code__):
        if name in extra:
            scope[name] = extra[name]
        elif name in function.__globals__:
            value = function.__globals__[name]
            if id(value) in _REFERENCE:
                value = _REFERENCE[id(value)]
            elif _is_formula(value):
                value = bind(value, extra)
            scope[name] = value
    bound = python_types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def _is_formula(value: Any) -> bool:
    """A plain function of ours or the user's, as against Numba's and NumPy's, which Numba knows itself."""
    if not isinstance(value, python_types.FunctionType):
        return False
    return value.__module__.partition(".")[0] not in ("numba", "numpy", "math")


def compile_kernel(
    template: Callable[..., Any], signature: str | Any, bindings: Mapping[str, Any] | None = None
) -> Kernel:
    """Compile ``template`` to a C function of ``signature``, or load it from the cache.

    ``bindings`` gives the template's free names their meaning: bound formulas, constants, types.
    """
    python_function = _rebind(template, dict(bindings or {}))
    # Numba takes a scope by name from globals; nested templates must not see each other's bindings.
    normalized = sigutils.normalize_signature(signature)
    compiled: Any = CFunc(python_function, normalized, locals={}, options={**_OPTIONS, "fastmath": FASTMATH})
    compiled._cache = _DiskCache(template.__name__, _digest(python_function, str(normalized)))
    with _COMPILE_LOCK:
        compiled.compile()
    return Kernel(template.__name__, compiled.address, compiled.ctypes, normalized, compiled)


_COMPILE_LOCK = threading.RLock()


def call(signature: Any) -> Any:
    """An intrinsic ``f(address, *arguments)``: calls the C function of that signature at an address."""
    normalized = sigutils.normalize_signature(signature)
    arguments, returned = normalized

    @intrinsic
    def call_address(typingctx: Any, address: Any, *values: Any) -> Any:
        def codegen(context: Any, builder: Any, full_signature: Any, args: Any) -> Any:
            as_ir = [context.get_value_type(argument) for argument in arguments]
            pointer_type = ir.FunctionType(context.get_value_type(returned), as_ir).as_pointer()
            pointer = builder.inttoptr(args[0], pointer_type)
            # Variadic arguments arrive as one tuple.
            given = cgutils.unpack_tuple(builder, args[1])
            sources = full_signature.args[1]
            cast = [
                # An array goes as the address of its data.
                context.make_array(source)(context, builder, value).data
                if isinstance(source, types.Array)
                else context.cast(builder, value, source, target)
                for value, source, target in zip(given, sources, arguments, strict=True)
            ]
            return builder.call(pointer, cast)

        return returned(address, types.StarArgTuple.from_types(values)), codegen

    return call_address


def _next_piece(typingctx: Any, counter: Any) -> Any:
    """The counter's number, which is one more afterwards, whoever else counts."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), codegen


next_piece: Any = intrinsic(_next_piece)


def _half_vectors(typingctx: Any) -> Any:
    """The function it is called in uses vectors of at most 256 bits.

    A loop that waits for memory does not gain by wider ones, and on some processors stores them in two halves.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        attributes = builder.function.attributes
        attributes.add("noinline")  # its caller's attributes would count
        set.add(
            attributes, '"prefer-vector-width"="256"'
        )  # llvmlite passes such pairs on, but has no name for them
        return context.get_dummy_value()

    return types.void(), codegen


half_vectors: Any = intrinsic(_half_vectors)


def call_record(signature: tuple[Any, Any]) -> Any:
    """An intrinsic ``f(record)``: calls the C function of that normalized signature as the record says.

    It must return nothing. The record is words of 64 bits: the function's address, then its arguments, a double by
    its bits.
    """
    arguments, returned = signature

    @intrinsic
    def call_as_told(typingctx: Any, record: Any) -> Any:
        def codegen(context: Any, builder: Any, full_signature: Any, args: Any) -> Any:
            as_ir = [context.get_value_type(argument) for argument in arguments]
            words = [
                builder.load(builder.gep(args[0], [ir.Constant(ir.IntType(64), place)]))
                for place in range(1 + len(as_ir))
            ]
            function = ir.FunctionType(ir.VoidType(), as_ir).as_pointer()
            given = [_from_word(builder, word, kind) for word, kind in zip(words[1:], as_ir, strict=True)]
            builder.call(builder.inttoptr(words[0], function), given)
            return context.get_dummy_value()

        assert returned == types.void
        return types.void(types.CPointer(types.int64)), codegen

    return call_as_told


def _entry(record: Any) -> None:
    call_as_told(record)


@functools.cache
def _entry_of(signature: Any) -> Kernel:
    """The function of one argument that calls kernels of this signature as their records say."""
    return compile_kernel(
        _entry, types.void(types.CPointer(types.int64)), {"call_as_told": call_record(signature)}
    )


def _from_word(builder: Any, word: Any, kind: Any) -> Any:
    if isinstance(kind, ir.PointerType):
        return builder.inttoptr(word, kind)
    if isinstance(kind, ir.IntType):
        return word if kind.width == 64 else builder.trunc(word, kind)
    return builder.bitcast(word, kind)


def pointer_at(dtype: Any) -> Any:
    """An intrinsic ``f(address)``: the address as a C pointer to numbers of that Numba type."""
    pointer = types.CPointer(dtype)

    @intrinsic
    def as_pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(pointer))

        return pointer(types.int64), codegen

    return as_pointer


# --- the cache ---------------------------------------------------------------------------------------------


def cache_directory() -> Path:
    """Where compiled kernels are kept: ``$STEEPEST_CACHE_DIR``, or the system's place for caches."""
    given = os.environ.get("STEEPEST_CACHE_DIR")
    if given:
        return Path(given)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "steepest"


class _DiskCache(_Cache):
    """One file a kernel, named by its digest, written whole or not at all.

    What is read is run, so it is read only where nobody else can have written it.
    """

    def __init__(self, name: str, digest: str) -> None:
        self._path = cache_directory() / f"{name.strip('_')}-{digest}.numba"

    @property
    def cache_path(self) -> str:
        return str(self._path.parent)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()  # loaded code needs the runtime's symbols
        # A torn or foreign file is no reason to fail: the kernel is compiled anew.
        with contextlib.suppress(Exception):
            checksum, payload = _own_bytes(self._path).split(b"\n", 1)
            if hashlib.sha256(payload).hexdigest().encode() == checksum:
                return _rebuild(target_context, pickle.loads(payload))  # noqa: S301
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        payload = pickle.dumps(data._reduce(), protocol=4)
        checksum = hashlib.sha256(payload).hexdigest().encode()
        with contextlib.suppress(OSError):  # a read-only home costs time, not results
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_own(os.stat(self._path.parent)):
                return
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".new-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(checksum + b"\n" + payload)
                os.replace(temporary, self._path)
            except BaseException:  # a full disk keeps no pieces
                os.unlink(temporary)
                raise

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...


def _own_bytes(path: Path) -> bytes:
    """What a file of the cache holds, if it and its directory are this user's own, as ssh has it for keys.

    Raises:
        OSError: it cannot be read, or somebody else may have written it.
    """
    if not _is_own(os.stat(path.parent)):
        _warn_of(str(path.parent))
        raise PermissionError
    with open(path, "rb") as file:
        if not _is_own(os.fstat(file.fileno())):
            _warn_of(str(path.parent))
            raise PermissionError
        return file.read()


def _is_own(found: os.stat_result) -> bool:
    """Whether only this user, or the system's administrator, can have written it. Elsewhere there are no such modes."""
    if not hasattr(os, "getuid"):
        return True
    return found.st_uid in (0, os.getuid()) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@functools.cache
def _warn_of(directory: str) -> None:
    """Once for each directory."""
    warnings.warn(
        f"The cache of compiled kernels, {directory!r}, is not used: others may write to it or to a file in it, and "
        "what it holds is run. Remove it, or name another by STEEPEST_CACHE_DIR; until then kernels are compiled anew.",
        RuntimeWarning,
        stacklevel=2,
    )


def _rebuild(target_context: Any, reduced: Any) -> Any:
    rebuild: Any = CompileResultCacheImpl.rebuild
    return rebuild(None, target_context, reduced)


def _digest(function: Callable[..., Any], signature: str) -> str:
    hasher = hashlib.sha256()
    codegen = numba.core.registry.cpu_target.target_context.codegen()
    for part in (
        numba.__version__,
        llvmlite.__version__,
        sys.version,
        codegen.magic_tuple(),
        signature,
        _OPTIONS,
        _NAMING,
    ):
        hasher.update(repr(part).encode())
    _fingerprint(function, hasher, set())
    return hasher.hexdigest()[:32]


def _fingerprint(value: Any, hasher: Any, seen: set[int]) -> None:
    """Feed in everything that decides what a function does: its code and whatever its names stand for."""
    function = getattr(value, "py_func", None) or getattr(value, "_defn", None) or value
    if not isinstance(function, python_types.FunctionType):
        hasher.update(_stable_text(function).encode())
        return
    if id(function) in seen:  # not its code: two closures of one code are two functions
        return
    seen.add(id(function))
    hasher.update(_compile_options(value).encode())
    _fingerprint_code(function.__code__, hasher)
    hasher.update(repr((function.__defaults__, function.__kwdefaults__)).encode())
    for cell in function.__closure__ or ():
        _fingerprint(cell.cell_contents, hasher, seen)
    for name in _names(function.__code__):
        if name in function.__globals__:
            hasher.update(name.encode())
            _fingerprint(function.__globals__[name], hasher, seen)


def _compile_options(value: Any) -> str:
    """How Numba was asked to compile a function (fastmath, ...); a set's order differs between processes."""
    options = getattr(value, "targetoptions", {})
    return repr(
        [
            (name, sorted(option) if isinstance(option, (set, frozenset)) else option)
            for name, option in sorted(options.items())
        ]
    )


def _fingerprint_code(code: python_types.CodeType, hasher: Any) -> None:
    hasher.update(code.co_code)
    hasher.update(repr((code.co_names, code.co_varnames)).encode())
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            _fingerprint_code(constant, hasher)
        elif not isinstance(constant, str):  # docstrings and annotations change nothing
            hasher.update(repr(constant).encode())


def _names(code: python_types.CodeType) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, python_types.CodeType):
            names += _names(constant)
    return names


def _stable_text(value: Any) -> str:
    """A text that is the same in every process: never an address."""
    if isinstance(value, python_types.ModuleType):
        return value.__name__
    if isinstance(value, (int, float, str, bool, tuple, type(None))):
        return repr(value)
    return f"{type(value).__module__}.{type(value).__qualname__}:{getattr(value, '__name__', str(value))}"

"""The cache of compiled kernels: the same code is found again, other code never, and no state of the disk matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import carray, njit, types
from numba.core.ccallback import CFunc

from steepest.backends import cpu

SIGNATURE = types.float64(types.CPointer(types.float64), types.int64)
formula: Any = None  # bound when a kernel is compiled

value: Any = None
gradient: Any = None


def _total(values: Any, n: int) -> float:
    given = carray(values, n)
    total = 0.0
    for i in range(n):
        total += formula(given[i])
    return total


def written(text: str, **scope: Any) -> Callable[..., Any]:
    """A function from its text, as if it stood in this module."""
    names: dict[str, Any] = {"__name__": __name__, **scope}
    exec(text, names)
    return names["f"]


def factory(factor: float) -> Callable[[float], float]:
    def f(x: float) -> float:
        return x * factor

    return f


def compiled(function: Callable[..., Any], signature: Any = SIGNATURE) -> cpu.Kernel:
    return cpu.compile_kernel(_total, signature, {"formula": cpu.bind(function)})


def total(kernel: cpu.Kernel, *values: float) -> float:
    given = np.array(values)
    return float(kernel(given.ctypes.data_as(kernel.function.argtypes[0]), len(given)))


def digest(function: Any, signature: Any = "float64(float64)") -> str:
    def template(x: float) -> Any:
        return formula(x)

    return cpu._digest(cpu._rebind(template, {"formula": function}), signature)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEEPEST_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, whatever is not on disk cannot be had."""

    def refuse(self: CFunc) -> None:
        raise AssertionError("compiled again")

    return lambda: monkeypatch.setattr(CFunc, "_compile_uncached", refuse)


PLAIN = "def f(x):\n    return 2.0 * x + 1.0\n"
# What may change in a formula, and its text: each must be another kernel than PLAIN.
CHANGED = {
    "a constant": "def f(x):\n    return 2.5 * x + 1.0\n",
    "an operation": "def f(x):\n    return 2.0 * x - 1.0\n",
    "a default": "def f(x, factor=2.0):\n    return factor * x + 1.0\n",
    "another default": "def f(x, factor=3.0):\n    return factor * x + 1.0\n",
}


def test_the_same_code_has_the_same_digest() -> None:
    assert digest(cpu.bind(written(PLAIN))) == digest(cpu.bind(written(PLAIN)))
    told = [f'def f(x):\n    """{text}"""\n    return 2.0 * x  # {text}\n' for text in ("Twice.", "Doubled.")]
    assert digest(cpu.bind(written(told[0]))) == digest(cpu.bind(written(told[1])))


@pytest.mark.parametrize("change", CHANGED)
def test_other_code_has_another_digest(change: str) -> None:
    others = [digest(cpu.bind(written(text))) for text in (PLAIN, *CHANGED.values())]
    assert others.count(digest(cpu.bind(written(CHANGED[change])))) == 1


def test_what_a_formula_calls_is_part_of_it() -> None:
    caller = "def f(x):\n    return helper(x) + 1.0\n"
    deep = "def f(x):\n    return middle(x) + 1.0\n"
    digests = set()
    for factor in ("2.0", "3.0"):
        helper = written(f"def f(x):\n    return {factor} * x\n")
        digests.add(digest(cpu.bind(written(caller, helper=helper))))
        middle = written("def f(x):\n    return helper(x)\n", helper=helper)
        digests.add(digest(cpu.bind(written(deep, middle=middle))))
    assert len(digests) == 4


def test_a_global_constant_is_part_of_it() -> None:
    text = "def f(x):\n    return factor * x\n"
    assert digest(cpu.bind(written(text, factor=2.0))) != digest(cpu.bind(written(text, factor=3.0)))


def test_two_closures_of_one_text_are_two_functions() -> None:
    """A formula and its gradient may come from one factory: each one's own numbers count."""

    def template(x: float) -> Any:
        return value(x) + gradient(x)

    def of(a: float, b: float) -> str:
        bound = {"value": cpu.bind(factory(a)), "gradient": cpu.bind(factory(b))}
        return cpu._digest(cpu._rebind(template, bound), "float64(float64)")

    digests = {(a, b): of(a, b) for a in (2.0, 3.0) for b in (2.0, 3.0)}
    assert len(set(digests.values())) == 4
    assert of(2.0, 3.0) == digests[2.0, 3.0]


def test_how_a_function_is_compiled_is_part_of_it() -> None:
    function = written(PLAIN)
    options = [{}, {"fastmath": True}, {"fastmath": {"contract", "nsz"}}, {"error_model": "numpy"}]
    digests = {digest(njit(**given)(function)) for given in options}
    assert len(digests) == len(options)
    assert digest(njit(fastmath={"contract", "nsz"})(function)) == digest(
        njit(fastmath={"nsz", "contract"})(function)
    )


def test_the_signature_is_part_of_it() -> None:
    function = cpu.bind(written(PLAIN))
    assert digest(function, "float64(float64)") != digest(function, "float32(float32)")


def test_every_process_finds_the_same_digest(tmp_path: Path) -> None:
    """Names of files that change with the hash seed or an address would compile everything at each start."""
    program = (
        "from steepest.losses import LOSSES\n"
        "from steepest.backends import cpu_losses\n"
        "f = LOSSES['bce'].formula\n"
        "cpu_losses.pointwise(f.value, f.gradient, 1, 'float32')\n"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "STEEPEST_CACHE_DIR": str(tmp_path)}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=300)
        assert len(list(tmp_path.iterdir())) == 1


def test_a_kernel_is_found_again(cache: Path, no_compiler: Callable[[], None]) -> None:
    first = compiled(written(PLAIN))
    files = list(cache.iterdir())
    assert [file.suffix for file in files] == [".numba"]
    no_compiler()
    second = compiled(written(PLAIN))
    assert first.address != second.address
    assert total(first, 1.0, 2.0) == total(second, 1.0, 2.0) == 8.0
    with pytest.raises(AssertionError, match="compiled again"):
        compiled(written(CHANGED["a constant"]))
    assert list(cache.iterdir()) == files


def test_changed_code_is_never_taken_from_the_disk(cache: Path) -> None:
    results = [total(compiled(factory(factor)), 1.0, 2.0) for factor in (2.0, 3.0, 2.0)]
    assert results == [6.0, 9.0, 6.0]
    assert len(list(cache.iterdir())) == 2


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[: len(content) // 2],
    "one bit turned": lambda content: content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
    "another's": lambda content: b"0" * 64 + b"\n" + b"not a kernel",
    "not even a line": lambda content: b"\x00" * 10,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_torn_file_is_compiled_anew_and_mended(
    damage: str, cache: Path, no_compiler: Callable[[], None]
) -> None:
    compiled(written(PLAIN))
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(DAMAGES[damage](whole))
    assert total(compiled(written(PLAIN)), 1.0, 2.0) == 8.0
    assert list(cache.iterdir()) == [file]
    no_compiler()
    assert total(compiled(written(PLAIN)), 1.0, 2.0) == 8.0


def test_a_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only home costs time, not results."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("STEEPEST_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    assert total(compiled(written(PLAIN)), 1.0, 2.0) == 8.0
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_a_directory_that_cannot_be_written_to(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(cpu.tempfile, "mkstemp", refuse)
    assert total(compiled(written(PLAIN)), 1.0, 2.0) == 8.0
    assert not list(cache.iterdir())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of files are POSIX's")
@pytest.mark.parametrize("whose", ["another's directory", "open directory", "another's file", "open file"])
def test_what_others_may_have_written_is_not_loaded(
    whose: str, cache: Path, monkeypatch: pytest.MonkeyPatch, no_compiler: Callable[[], None]
) -> None:
    compiled(written(PLAIN))
    (file,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    path = cache if "directory" in whose else file
    if "open" in whose:
        path.chmod(path.stat().st_mode | 0o020)
    else:
        other = path.stat().st_ino
        is_own = cpu._is_own
        monkeypatch.setattr(cpu, "_is_own", lambda found: found.st_ino != other and is_own(found))
    no_compiler()
    cpu._warn_of.cache_clear()
    with (
        pytest.warns(RuntimeWarning, match="is not used"),
        pytest.raises(AssertionError, match="compiled again"),
    ):
        compiled(written(PLAIN))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of files are POSIX's")
def test_whose_a_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tmp_path.stat()
    assert cpu._is_own(found)
    monkeypatch.setattr(os, "getuid", lambda: found.st_uid + 1)
    assert cpu._is_own(found) == (found.st_uid == 0)
    changed = os.stat_result((*found[:4], 12345, *found[5:]))
    assert not cpu._is_own(changed)


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEEPEST_CACHE_DIR", str(tmp_path / "here"))
    assert cpu.cache_directory() == tmp_path / "here"
    monkeypatch.delenv("STEEPEST_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cpu.cache_directory() == tmp_path / "caches" / "steepest"


def test_kernels_of_other_processes_keep_their_parts_apart(cache: Path) -> None:
    """Parts that are not inlined have names, which count from 1 in each process: two from the cache must not be one."""
    program = """
import sys
import torch
from steepest.losses import from_formula
text = {"half": "0.5 * log_p", "double": "2.0 * log_p"}
for name in sys.argv[1:]:
    scope = {}
    exec(f"def value(log_p): return -{text[name]}", scope)
    loss = from_formula(scope["value"], family="softmax", name=name)()
    x = torch.zeros(2, 2, requires_grad=True)
    loss(x, torch.zeros(2, dtype=torch.long)).backward()
    print(float(x.grad[0, 1]))
"""
    for names in (["half"], ["double"], ["half", "double"]):
        done = subprocess.run(
            [sys.executable, "-c", program, *names], capture_output=True, text=True, check=True, timeout=120
        )
        expected = {"half": 0.125, "double": 0.5}
        assert [float(line) for line in done.stdout.split()] == [expected[name] for name in names]

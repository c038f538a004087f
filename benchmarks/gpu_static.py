"""What the compiler makes of the GPU kernels, and what limits them by published rates: predicted, not measured.

    python benchmarks/gpu_static.py [--only TEXT;...] [--cards CARD;...]

Needs no card. Losses and optimizers are called as users call them, on tensors without memory (torch's device `meta`) of
the sizes that count; Triton compiles what they launch, for the real arguments, and nothing runs. nvdisasm shows the
machine code. Of each kernel the shortest way through that moves the most bytes is counted: branches for the edges of
tensors and for rare numbers are left out, a loop's instructions are divided by the elements that one turn loads.

The prediction is the slowest of the kernel's limits, as if everything overlapped: memory, each kind of arithmetic, and
the four instructions that a multiprocessor issues a clock. What waiting and a small number of warps cost is not in it.

The figures go to ``benchmarks/results/predicted_gpu.json``, where `benchmarks/write_table.py` has them from.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

import steepest
from steepest.backends import cuda_devices
from steepest.losses import LOSSES, kernels
from steepest.optim.storage import CODED

RESULTS = Path(__file__).parent / "results" / "predicted_gpu.json"
TOOLS = Path(nvidia.__file__).parent / "bin"


# --- cards --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """Published: the makers' data sheets, and the CUDA C++ programming guide's table of arithmetic throughput."""

    arch: int
    multiprocessors: int
    clock: float  # Hz, boost
    bandwidth: float  # bytes a second
    rates: dict[str, int]  # results a clock and multiprocessor


def _rates(float64: int, float32: int, conversion: int) -> dict[str, int]:
    return {
        "float64": float64, "conversion": conversion, "float32": float32, "integer": 64, "special": 16, "shuffle": 32,
        "issue": 128,
    }  # fmt: skip


CARDS = {
    "H100 SXM": Card(90, 132, 1.98e9, 3.35e12, _rates(64, 128, 16)),
    "A100 SXM": Card(80, 108, 1.41e9, 2.039e12, _rates(32, 64, 16)),
    "RTX 4090": Card(89, 128, 2.52e9, 1.008e12, _rates(2, 128, 2)),
}

_KINDS = {
    "float64": r"D(ADD|MUL|FMA|SETP|MNMX)",
    "conversion": r"(F2F|F2I|I2F|FRND)\S*64",
    "float32": r"(FADD|FMUL|FFMA|HADD2|HMUL2|HFMA2|IMAD)",
    "special": r"(MUFU|F2F|F2I|I2F|FRND|POPC|FLO)",
    "shuffle": r"(SHFL|LDS|STS|LDSM|REDUX)",
    "memory": r"(LDG|STG|LDL|STL|ATOM|RED\b)",
    "integer": r"(I|U?LOP|U?SHF|LEA|F?SEL|FSEL|FMNMX|FSETP|FCHK|PRMT|VIMNMX|PLOP|MOV|CS2R|F2FP|P2R|R2P)",
}


def kind_of(instruction: str) -> str | None:
    """By which pipe it goes; None for what only takes its turn (branches, barriers, constants, uniform numbers)."""
    return next((kind for kind, pattern in _KINDS.items() if re.match(pattern, instruction)), None)


# --- machine code ---------------------------------------------------------------------------------------------------


@dataclass
class Part:
    """Instructions without a branch in their midst, and where they lead."""

    counts: Counter[str]
    widths: Counter[str]
    loaded: int  # bytes a thread
    stored: int
    next: list[int]


def parts_of(text: str) -> list[Part]:
    """A kernel's machine code as parts, in their order; what it calls for rare numbers is left out."""
    places: dict[str, int] = {}
    parts, open_part = [_part()], True
    jumps: list[tuple[int, str]] = []
    for line in text.splitlines():
        label = re.match(r"(\.L_x_\d+):", line)
        code = re.search(r"/\*[0-9a-f]{4,}\*/\s+(@\S+\s+)?([A-Z][\w.]*)([^;]*);", line)
        if line.startswith("$"):
            break
        if label:
            if open_part:
                parts[-1].next.append(len(parts))
            places[label[1]] = len(parts)
            parts.append(_part())
            open_part = True
        if not code:
            continue
        if not open_part:
            parts.append(_part())
            open_part = True
        condition, word, rest = code.groups()
        if word.startswith("NOP"):
            continue
        _count(parts[-1], word)
        target = re.search(r"`\((\.L_x_\d+)\)", rest)
        if word.startswith(("BRA", "EXIT", "CALL", "RET")):
            if word.startswith("BRA") and target:
                jumps.append((len(parts) - 1, target[1]))
            if word.startswith("CALL"):
                parts[-1].counts["call"] += 10_000  # never the shortest way
            # of threads that have parted (.DIV) or come together (.CONV) only
            if condition or word.startswith("CALL") or word in ("BRA.DIV", "BRA.CONV"):
                parts[-1].next.append(len(parts))
            open_part = False
    for place, label_ in jumps:
        parts[place].next.append(places[label_])
    return parts


def _part() -> Part:
    return Part(Counter(), Counter(), 0, 0, [])


def _count(part: Part, word: str) -> None:
    part.counts["issue"] += 1
    kind = kind_of(word)
    if kind:
        part.counts[kind] += 1
    if kind == "memory":
        width = re.search(r"\.(128|64|U?S?16|U?S?8)\b", word)
        num_bytes = int(re.sub(r"\D", "", width[1])) // 8 if width else 4
        part.widths[f"{word[:3]} {8 * num_bytes}"] += 1
        if word.startswith("LDG"):
            part.loaded += num_bytes
        if word.startswith("STG"):
            part.stored += num_bytes


@dataclass
class Way:
    """What a thread does on its way through some parts."""

    counts: Counter[str]
    widths: Counter[str]
    loaded: int
    stored: int

    def then(self, other: Part | Way) -> Way:
        return Way(
            self.counts + other.counts, self.widths + other.widths, self.loaded + other.loaded,
            self.stored + other.stored,
        )  # fmt: skip


def way_through(parts: list[Part], first: int, within: set[int]) -> Way | None:
    """From part ``first`` to where it leads no further: of the ways that move the most bytes the shortest."""
    best: dict[int, dict[tuple[int, int], Way]] = {first: {(0, 0): Way(Counter(), Counter(), 0, 0)}}
    ended: dict[tuple[int, int], Way] = {}
    places = forward(parts, first, within)
    for step, place in enumerate(places):
        later = set(places[step + 1 :])
        for way in best.get(place, {}).values():
            here = way.then(parts[place])
            follows = [n for n in parts[place].next if n in later]
            for known in [best.setdefault(n, {}) for n in follows] if follows else [ended]:
                bytes_ = (here.loaded, here.stored)
                if bytes_ not in known or here.counts["issue"] + here.counts["call"] < (
                    known[bytes_].counts["issue"] + known[bytes_].counts["call"]
                ):
                    known[bytes_] = here
    return ended[max(ended, key=lambda moved: (sum(moved), -ended[moved].counts["issue"]))] if ended else None


def forward(parts: list[Part], first: int, within: set[int]) -> list[int]:
    """Parts in an order in which they follow one another, from ``first`` on; loops' ways back are left out."""
    seen, done = {first}, []
    open_: list[tuple[int, Iterator[int]]] = [(first, iter(parts[first].next))]
    while open_:
        place, follows = open_[-1]
        for n in follows:
            if n in within and n not in seen:
                seen.add(n)
                open_.append((n, iter(parts[n].next)))
                break
        else:
            done.append(place)
            open_.pop()
    return done[::-1]


def turns_that_load(parts: list[Part]) -> list[Way]:
    """One turn of each loop that goes through memory and has no other in it; they follow one another."""
    before: list[set[int]] = [set() for _ in parts]
    for place, part in enumerate(parts):
        for n in part.next:
            before[n].add(place)
    loops: dict[int, set[int]] = {}
    for head, ends in _loop_ends(parts).items():
        body, waiting = {head}, list(ends)
        while waiting:  # all that leads to the loop's end without its head
            place = waiting.pop()
            if place not in body:
                body.add(place)
                waiting += before[place]
        loops[head] = body
    innermost = {
        head: body
        for head, body in loops.items()
        if not any(inner in body for inner in loops if inner != head)
    }
    turns = [way_through(parts, head, body) for head, body in sorted(innermost.items())]
    return [turn for turn in turns if turn is not None and turn.loaded]


def _loop_ends(parts: list[Part]) -> dict[int, list[int]]:
    """Each loop's head, and the parts from which it begins anew."""
    order = {place: step for step, place in enumerate(forward(parts, 0, set(range(len(parts)))))}
    ends: dict[int, list[int]] = {}
    for place, part in enumerate(parts):
        for n in part.next:
            if place in order and n in order and order[n] <= order[place]:
                ends.setdefault(n, []).append(place)
    return ends


# --- what is compiled -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traffic:
    """Bytes of an element that a kernel reads and writes; of a kernel with loops, those that one of them reads."""

    read: float
    written: float
    turn: float = 0


class NoCard:
    """Stands where Triton asks for a device."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_device(self) -> int:
        return self.arch

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)


def launches(call: Callable[[], Any], arch: int) -> Iterator[tuple[str, int, Any]]:
    """The kernels that a call would launch: name, programs, and what they compile to."""
    made: list[tuple[str, int, Any]] = []
    plain = JITFunction.run

    def compiled_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = plain(self, *args, grid=grid, warmup=True, **options)
        programs = 1
        for size in grid:
            programs *= size
        made.append((self.__name__, programs, kernel))
        return kernel

    before = driver._active
    driver.set_active(NoCard(arch))
    cuda_devices.DEVICES.add("meta")
    JITFunction.run = compiled_only
    try:
        call()
    finally:
        JITFunction.run = plain
        driver._active = before
        cuda_devices.DEVICES.discard("meta")
    return iter(made)


def machine_code(cubin: bytes) -> tuple[str, dict[str, int]]:
    """The text of a kernel, and its registers, shared memory and stack (where registers are spilled to)."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run(
            [TOOLS / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True
        ).stdout
        usage = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", usage))
    return text, {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]),
        "shared": int(found["SHARED"]),
    }


def figures(kernel: Any, programs: int, num_elements: int, traffic: Traffic) -> dict[str, Any]:
    """What a kernel does to an element."""
    text, usage = machine_code(kernel.asm["cubin"])
    parts, threads = parts_of(text), 32 * kernel.metadata.num_warps
    ways = [(turn, turn.loaded / traffic.turn) for turn in turns_that_load(parts) if traffic.turn]
    if not ways:
        way = way_through(parts, 0, set(range(len(parts))))
        assert way is not None
        ways = [(way, num_elements / programs / threads)]
    counts = {
        kind: round(sum(way.counts[kind] / elements for way, elements in ways), 2)
        for kind in (*CARDS["H100 SXM"].rates, "memory")
    }
    widths = sum((way.widths for way, _ in ways), Counter())
    warps = kernel.metadata.num_warps
    a_block = -(-usage["registers"] // 8) * 8 * 32 * warps  # registers are handed out by eight
    at_once = min(64 // warps, 65536 // a_block) * warps
    return {
        **usage, "warps": at_once, "bytes": [traffic.read, traffic.written], "counts": counts, "widths": dict(widths)
    }  # fmt: skip


def prediction(found: dict[str, Any], card: Card) -> tuple[str, float]:
    """What limits a kernel, and seconds an element."""
    a_clock = card.multiprocessors * card.clock
    seconds = {kind: found["counts"][kind] / rate / a_clock for kind, rate in card.rates.items()}
    seconds["memory"] = sum(found["bytes"]) / card.bandwidth
    return max(seconds.items(), key=lambda item: item[1])


# --- works ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A call, and what its kernels move."""

    name: str
    call: Callable[[], Any]
    num_elements: int
    kernels: dict[str, Traffic]


def _empty(*shape: int, dtype: torch.dtype = torch.float32, learns: bool = False) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta", requires_grad=learns)


def _pointwise(word: str, dtype: torch.dtype, count: int) -> None:
    formula, x = LOSSES[word].formula, _empty(count, dtype=dtype)
    parameters = len(formula.parameters)
    kernels.run_pointwise(formula, (0.5,) * parameters, [None] * (parameters + 1), x, x, x, 1, 1.0)


def _cross_entropy(dtype: torch.dtype, rows: int, classes: int) -> None:
    steepest.losses.CrossEntropyLoss()(
        _empty(rows, classes, dtype=dtype, learns=True), _empty(rows, dtype=torch.int64)
    )


def _step(make: Callable[[list[torch.nn.Parameter]], Any], dtype: torch.dtype, count: int) -> None:
    parameter = torch.nn.Parameter(_empty(count, dtype=dtype))
    parameter.grad = torch.empty_like(parameter)
    optimizer = make([parameter])
    if optimizer.defaults.get("state_dtype") == "8bit":
        # Laid out by hand: codes are made in memory, and here is none.
        state = optimizer.state[parameter]
        state["step"] = torch.empty((), device="meta")
        for slot in optimizer.rule_of(optimizer.param_groups[0]).slots:
            state[slot + CODED] = torch.empty_like(parameter, dtype=torch.uint8)
            state[f"{slot}_scale{CODED}"] = _empty(-(-count // 256), dtype=torch.int16)
    optimizer.step()


def works() -> list[Work]:
    """Every pointwise loss, cross-entropy with long and short rows, and steps."""
    made = []
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        kind = str(dtype).removeprefix("torch.")
        for word, entry in LOSSES.items():
            if entry.formula is not None and entry.formula.family == "pointwise":
                count = 100_000_000
                made.append(
                    Work(
                        f"{word}, {kind}",
                        partial(_pointwise, word, dtype, count),
                        count,
                        {"_pointwise": Traffic(2 * size, size)},
                    )
                )
        for rows, classes in ((16384, 131_072), (4096, 1000), (65536, 10)):
            kernels = {"_whole": Traffic(size, size)}
            if classes > 4096:
                kernels = {"_row": Traffic(2 * size, size, size)}
            call = partial(_cross_entropy, dtype, rows, classes)
            made.append(Work(f"cross_entropy {rows} x {classes}, {kind}", call, rows * classes, kernels))
        optim, count = steepest.optim, 1_000_000_000
        for name, make, state in (
            ("SGD, momentum", partial(optim.SGD, lr=0.1, momentum=0.9), size),
            ("RMSprop", optim.RMSprop, size),
            ("Adam", optim.Adam, 2 * size),
            ("AdamW", optim.AdamW, 2 * size),
        ):
            step = {"_step": Traffic(2 * size + state, size + state)}
            made.append(Work(f"{name}, {kind}", partial(_step, make, dtype, count), count, step))
        # Two states of a byte, and a scale of four for each 256 of them.
        state = 2 * (1 + 4 / 256)
        step = {"_step": Traffic(2 * size + state, size + state)}
        make = partial(optim.Adam, state_dtype="8bit")
        made.append(Work(f"Adam, 8-bit state, {kind}", partial(_step, make, dtype, count), count, step))
    return made


def main() -> None:
    """Compile, count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="works whose name has one of these texts, between semicolons"
    )
    parser.add_argument("--cards", default=";".join(CARDS), help="some of: " + "; ".join(CARDS))
    parser.add_argument("--keep", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args()
    words = options.only.split(";")
    rows = []
    for work in works():
        if not any(word in work.name for word in words):
            continue
        for name in options.cards.split(";"):
            for kernel, programs, compiled in launches(work.call, CARDS[name].arch):
                if kernel not in work.kernels:
                    continue
                found = figures(compiled, programs, work.num_elements, work.kernels[kernel])
                limit, seconds = prediction(found, CARDS[name])
                share = sum(found["bytes"]) / CARDS[name].bandwidth / seconds
                row = {
                    "work": work.name,
                    "kernel": kernel,
                    "card": name,
                    "limit": limit,
                    "share": round(share, 3),
                }
                rows.append({**row, **found})
                usage = " ".join(
                    f"{word}={found[word]}" for word in ("registers", "warps", "stack", "shared")
                )
                counts = " ".join(f"{kind}={number:g}" for kind, number in found["counts"].items())
                widths = " ".join(f"{width}:{number}" for width, number in found["widths"].items())
                print(
                    f"{work.name:38} {kernel:10} {name} {limit} {share:.0%} {usage} {counts} {widths}",
                    flush=True,
                )
    if options.keep:
        tools = subprocess.run(
            [TOOLS / "ptxas", "--version"], capture_output=True, text=True, check=True
        ).stdout
        version = re.search(r"V[\d.]+", tools)
        about = {"triton": triton.__version__, "ptxas": version[0] if version else "unknown"}
        RESULTS.write_text(
            json.dumps({"predicted, not measured": about, "rows": rows}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()

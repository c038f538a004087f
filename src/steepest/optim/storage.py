"""In what types a group's parameters and state are kept, beside that of the parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.backends.cpu_storage import BLOCK, EIGHT_BIT, Layout, has_float16
from steepest.backends.cpu_tensors import Order, order_of
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.optim.rule import FactoredRule, Rule
from steepest.optim.sharded import is_sharded
from steepest.optim.table import StepTable

__all__ = ["CODED", "LOST", "Rounding", "StateType", "Storage"]

StateType = torch.dtype | Literal["8bit"] | None
Rounding = Literal["nearest", "stochastic", "kahan"]

CODED = "_8bit"  # ends the state's name for a slot's codes
LOST = "lost"  # the state's name for what a compensated parameter's last rounding lost
_DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
_HALF = (torch.bfloat16, torch.float16)
_STATE_TYPES: tuple[StateType, ...] = (None, torch.float32, torch.bfloat16, "8bit")
_ROUNDINGS = ("nearest", "stochastic", "kahan")


@dataclass(frozen=True)
class Storage:
    """What a group asks for; as it stands, everything is kept in the parameter's type, as torch does.

    Args:
        state_type: of the averages in the state: a dtype, ``"8bit"``, or None, the parameter's.
        rounding: how half-precision parameters are rounded.
    """

    state_type: StateType = None
    rounding: str = "nearest"

    @staticmethod
    def of(name: str, rule: Rule | FactoredRule, options: Mapping[str, Any]) -> Storage:
        """What a group's options ask for.

        Raises:
            InputError: a value that there is not, or that the optimizer has no use for.
        """
        state_type, rounding = options.get("state_dtype"), options.get("rounding", "nearest")
        if state_type not in _STATE_TYPES:
            raise InputError(
                f"{name}: state_dtype is {state_type!r}; choose torch.float32, torch.bfloat16, '8bit', or None for the "
                "parameters' own."
            )
        if rounding not in _ROUNDINGS:
            raise InputError(f"{name}: rounding is {rounding!r}; choose from {', '.join(_ROUNDINGS)}.")
        if state_type in (torch.bfloat16, "8bit") and not rule.averages:
            raise InputError(
                f"{name}: state_dtype is {state_type!r}, and nothing in its state can be kept so; leave it out."
            )
        return Storage(state_type, rounding)

    @property
    def is_plain(self) -> bool:
        """Whether all is as torch keeps it."""
        return self == Storage()

    def form(self, rule: Rule | FactoredRule, slot: str) -> str | None:
        """How a slot is kept, in the words of :class:`Layout`; None: as it comes."""
        if self.state_type == torch.float32:
            return "float32"
        if self.state_type is None or slot not in rule.averages:
            return None
        if self.state_type == "8bit":
            return f"{rule.averages[slot]}8"
        return "stochastic_bfloat16"

    def entries(self, rule: Rule | FactoredRule, parameter: Tensor) -> tuple[str, ...]:
        """The state's names for what a step needs, in the order of a table's row."""
        kept = [(slot, self.form(rule, slot) in EIGHT_BIT) for slot in rule.slots]
        slots = [_codes(slot) if narrow else slot for slot, narrow in kept]
        headers = [_header(slot) for slot, narrow in kept if narrow]
        return (*slots, *headers, *((LOST,) if self._compensates(parameter) else ()))

    def _compensates(self, parameter: Tensor) -> bool:
        return self.rounding == "kahan" and parameter.dtype in _HALF

    def check(self, name: str, parameter: Tensor) -> None:
        """Refuse a parameter that cannot be kept so.

        Raises:
            InputError: it has the wrong type, or does not lie contiguous where a kernel steps it.
        """
        if self.is_plain:
            return
        if parameter.dtype not in (torch.float32, *_HALF):
            raise InputError(
                f"{name}: state_dtype and rounding are for float32, bfloat16 and float16 parameters; one is "
                f"{str(parameter.dtype).removeprefix('torch.')}."
            )
        if self.state_type == "8bit" and is_sharded(parameter):
            raise InputError(
                f"{name}: state_dtype='8bit' scales blocks of numbers, which parameters in parts (DTensor) would cut; "
                "take torch.bfloat16, or leave it out."
            )
        if not _is_reached(parameter) or order_of(parameter) is None:
            raise InputError(
                f"{name}: state_dtype and rounding are for contiguous and channels_last parameters in a CPU's or GPU's "
                f"memory; one of shape {tuple(parameter.shape)} is not."
            )
        if self.state_type == "8bit" and order_of(parameter) != Order.CONTIGUOUS:
            raise InputError(
                f"{name}: state_dtype='8bit' is for contiguous parameters; one of shape {tuple(parameter.shape)} is "
                "channels_last. Take torch.bfloat16, or leave it out."
            )

    def keep(self, rule: Rule | FactoredRule, state: MutableMapping[str, Any], parameter: Tensor) -> None:
        """Bring a parameter's state, fresh or loaded, into the form asked for.

        Raises:
            InputError: loaded 8-bit numbers are not this parameter's.
        """
        for slot in rule.slots:
            form = self.form(rule, slot)
            if slot not in state and _codes(slot) in state:
                _check_codes(slot, state, parameter)
                if form in EIGHT_BIT:
                    continue
                state[slot] = decoded(state.pop(_codes(slot)), state.pop(_header(slot)), rule.averages[slot])
            if form in EIGHT_BIT:
                state[_codes(slot)], state[_header(slot)] = encoded(state.pop(slot), rule.averages[slot])
            elif form is not None:
                state[slot] = state[slot].to(_dtype_of(form))
            if slot in state:
                state[slot] = _lying_like(parameter, state[slot])
        if self._compensates(parameter):
            if LOST not in state:
                state[LOST] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        else:
            state.pop(LOST, None)

    def layout(
        self,
        rule: Rule | FactoredRule,
        tensors: Sequence[Tensor],
        shapes: Sequence[tuple[int, ...]] | None = None,
    ) -> Layout | None:
        """How a row's tensors lie in memory, or None if no kernel steps such.

        Args:
            rule, tensors: as a step has them.
            shapes: of the slots, where they are not the parameter's; all is contiguous then.
        """
        parameter, gradient, *slots = tensors[: 2 + len(rule.slots)]
        if gradient.dtype != parameter.dtype or not all(map(_lies_well, tensors)):
            return None
        if [t.shape for t in (gradient, *slots)] != [
            parameter.shape,
            *(shapes or [parameter.shape] * len(slots)),
        ]:
            return None
        order = order_of(parameter) if shapes is None else Order.CONTIGUOUS
        if any(order_of(t) != order for t in (parameter, gradient, *slots)):
            return None
        forms = [
            self.form(rule, name) or _DTYPES.get(t.dtype) for name, t in zip(rule.slots, slots, strict=True)
        ]
        kind = _DTYPES.get(parameter.dtype)
        if kind is None or None in forms or _lacks_float16(parameter, (kind, *forms)):
            return None
        rounding = self.rounding if parameter.dtype in _HALF else "nearest"
        return Layout(kind, tuple(form for form in forms if form), rounding)


def _is_reached(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" or runs_on(tensor)


def _lacks_float16(parameter: Tensor, kinds: Sequence[str | None]) -> bool:
    return "float16" in kinds and not runs_on(parameter) and not has_float16()


def _lies_well(tensor: Tensor) -> bool:
    return (
        _is_reached(tensor)
        and order_of(tensor) is not None
        and type(tensor) in (Tensor, torch.nn.Parameter)  # subclasses may keep their numbers elsewhere
        and not tensor.is_neg()
        and not tensor.is_inference()
    )


def _check_codes(slot: str, state: Mapping[str, Any], parameter: Tensor) -> None:
    """What a kernel reads and writes by the parameter's size is of that size."""
    codes, header = state[_codes(slot)], state.get(_header(slot))
    num_blocks = math.ceil(parameter.numel() / BLOCK)
    if (
        isinstance(header, Tensor)
        and (codes.shape, codes.dtype) == (parameter.shape, torch.uint8)
        and (header.shape, header.dtype) == ((num_blocks,), torch.int16)
        and codes.is_contiguous()
        and header.is_contiguous()
    ):
        return
    told = f"of shape {tuple(header.shape)}" if isinstance(header, Tensor) else "missing"
    raise InputError(
        f"The 8-bit state {slot!r} is not this parameter's: its codes are of shape {tuple(codes.shape)} and its scales "
        f"{told}, where a parameter of shape {tuple(parameter.shape)} has codes of that shape and {num_blocks} scales. "
        "Load a state that was saved for these parameters."
    )


def _lying_like(parameter: Tensor, slot: Tensor) -> Tensor:
    """A slot, loaded perhaps into a module of another memory format, in the order of its parameter's elements."""
    order = order_of(parameter)
    if type(slot) is not Tensor or slot.shape != parameter.shape or order in (None, order_of(slot)):
        return slot  # of a parameter with gaps there is none that its slots could take
    return torch.empty_like(parameter, dtype=slot.dtype, requires_grad=False).copy_(slot)


def _dtype_of(form: str) -> torch.dtype:
    return torch.bfloat16 if form == "stochastic_bfloat16" else torch.float32


def _codes(slot: str) -> str:
    return slot + CODED


def _header(slot: str) -> str:
    return f"{slot}_scale{CODED}"


# --- numbers to codes and back: a step whose rule does nothing else ---------------------------------------------


def _nothing(step: float) -> tuple[float, ...]:
    return ()


def _write(p: Any, g: Any, slot: Any) -> Any:
    return p, p


def _read(p: Any, g: Any, slot: Any) -> Any:
    return slot, slot


_WRITE, _READ = (Rule(update, _nothing, ("slot",), ()) for update in (_write, _read))


def encoded(numbers: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Numbers as 8-bit codes of their shape, and a header for every 256 of them."""
    device, count = numbers.device, math.ceil(numbers.numel() / BLOCK)
    if numbers.numel() > 1 and not numbers.any():
        # As averages begin: a GPU's do not go through the main memory.
        code, head = encoded(numbers.new_zeros(1), kind)
        return code.expand(numbers.shape).clone(), head.expand(count).clone()
    numbers = numbers.to("cpu", torch.float32).contiguous()
    codes = torch.zeros(numbers.shape, dtype=torch.uint8, device="cpu")
    header = torch.zeros(count, dtype=torch.int16, device="cpu")
    _pass(_WRITE, kind, [numbers, numbers, codes, header])
    return codes.to(device), header.to(device)


def decoded(codes: Tensor, header: Tensor, kind: str) -> Tensor:
    """The numbers, float32, that codes mean."""
    numbers = torch.zeros(codes.shape, dtype=torch.float32, device="cpu")
    _pass(_READ, kind, [numbers, numbers, codes.to("cpu", copy=True), header.to("cpu", copy=True)])
    return numbers.to(codes.device)


def _pass(rule: Rule, kind: str, tensors: list[Tensor]) -> None:
    StepTable(rule, Layout("float32", (f"{kind}8",)), [tensors], [0]).step(2.0, [])

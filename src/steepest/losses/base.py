"""What the loss modules share."""

from __future__ import annotations

from typing import Any

from steepest.errors import arguments_of
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["LossModule"]


class LossModule:
    """Mixed into an ``nn.Module``: a loss that knows its formula and its switches."""

    formula: LossFormula
    reduction: str
    switches: Switches = Switches()  # of a subclass that leaves the constructor out

    def _set_switches(self, switches: Switches) -> None:
        """Keep what was asked for beyond torch's arguments; called last by a constructor."""
        own = arguments_of(type(self)) if switches else ()
        check_switches(self.formula.name, switches, self.reduction, own)
        self.switches = switches

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults, beside torch's own."""
        shown: Any = getattr(super(), "extra_repr", lambda: "")()
        return ", ".join(filter(None, [shown, *(f"{word}={value}" for word, value in self.switches.items())]))

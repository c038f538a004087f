"""What a training on several ranks is asked for, and the record of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from steepest.training.distributed.parallel import Parallel
from steepest.training.run import Run

__all__ = ["Epoch", "ModuleRecord", "ModuleRun", "Standing"]


@dataclass(frozen=True)
class ModuleRun:
    """One training of a module.

    Attributes:
        run: loss, optimizer, rate, seed and the number of epochs or steps; ``batch_size`` rows a step, over all ranks.
        accumulate: a rank's rows of a step go through the module in so many micro-batches.
        parallel: ``"ddp"`` or ``"fsdp"``.
        checkpoint_every: steps between checkpoints.
    """

    run: Run
    accumulate: int = 1
    parallel: Parallel = "ddp"
    checkpoint_every: int = 1000


@dataclass(frozen=True)
class Epoch:
    """What was measured over an epoch; the mean loss over its rows as each step met them."""

    epoch: int
    step: int
    train_loss: float
    validation_loss: float | None
    seconds: float


@dataclass
class Standing:
    """Where a training stands after a step: all that a checkpoint has to say beside weights and state.

    Attributes:
        step: steps taken or skipped.
        num_skipped: those left out, for a gradient that is not finite or for want of a row that counts.
        loss_sum, loss_count: the epoch's losses so far and their denominators, added up.
        seconds: of training, over all the times it was gone on with.
        curve: the epochs that have ended.
        launches: the number of ranks and the way, and the step from which on.
    """

    step: int = 0
    num_skipped: int = 0
    loss_sum: float = 0.0
    loss_count: float = 0.0
    seconds: float = 0.0
    curve: list[Epoch] = field(default_factory=list)
    launches: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Standing:
        """What :meth:`as_json` gave."""
        own = {each.name: kept[each.name] for each in fields(cls)}
        return cls(**{**own, "curve": [Epoch(**epoch) for epoch in own["curve"]]})


@dataclass(frozen=True)
class ModuleRecord:
    """What a training gave.

    Attributes:
        run: what was asked for.
        standing: where it ended.
        stop_reason: ``"epochs"``, ``"steps"`` or ``"interrupted"``.
        hyperparameters: read back from the live optimizer and loss.
        state: the weights, all of them, on the first rank; None on the others, and where it was interrupted.
    """

    run: ModuleRun
    standing: Standing
    stop_reason: str
    hyperparameters: dict[str, float]
    state: dict[str, Any] | None

"""Runs handed out in shards, and each one's record taken once, whatever becomes of those who train them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from steepest.errors import InputError

__all__ = ["Shards"]

# A task costs a few milliseconds, whatever it trains: a hundredth of this is nothing, and a stage's end still waits
# for no more than one shard.
_SHARD_SEC = 2.0
_FIRST = 4  # runs, while none has said how long it takes
# So many shards a processor are left to be handed out whenever one is: the last ones are small, and end together.
_SHARDS_TO_COME = 2
_MOST_LOSSES = 3


class Shards:
    """The runs of a stage, by their indices.

    Args:
        homes: what each run is trained on; a shard has one home.
    """

    def __init__(self, homes: Sequence[Hashable]) -> None:
        self._homes = homes
        self._waiting = deque(range(len(homes)))
        self._alone: deque[int] = deque()  # each ended its worker, or may have
        self._losses = [0] * len(homes)
        self._ended = [False] * len(homes)
        self._num_ended, self._total_sec = 0, 0.0

    @property
    def all_ended(self) -> bool:
        """Whether every run has given its record."""
        return self._num_ended == len(self._homes)

    def take(self, num_processors: int) -> list[int]:
        """The next shard: runs that follow each other, so that all pairs get on alike; empty where none waits."""
        if self._alone:
            return [self._alone.popleft()]
        size = max(1, min(self._lasting(), len(self._waiting) // (_SHARDS_TO_COME * num_processors)))
        shard: list[int] = []
        while self._waiting and len(shard) < size:
            if shard and self._homes[self._waiting[0]] != self._homes[shard[0]]:
                break
            shard.append(self._waiting.popleft())
        return shard

    def _lasting(self) -> int:
        """How many runs take about as long as a shard should."""
        if not self._num_ended:
            return _FIRST
        return int(_SHARD_SEC * self._num_ended / max(self._total_sec, 1e-9))

    def end(self, index: int, seconds: float) -> bool:
        """A run's record is here; whether it is the first one."""
        if self._ended[index]:
            return False
        self._ended[index] = True
        self._num_ended += 1
        self._total_sec += seconds
        return True

    def lose(self, shard: Sequence[int], why: str, *, with_node: bool) -> None:
        """A shard's worker is gone: what gave no record waits again.

        Runs of a shard are trained in order, so the first of those may be what ended it. It goes alone from now on.

        Args:
            why: in a sentence's words.
            with_node: its node is gone too, which is no run's fault.

        Raises:
            InputError: a run has ended its worker again and again.
        """
        left = [index for index in shard if not self._ended[index]]
        if not left:
            return
        first, *others = left
        self._losses[first] += not with_node
        if self._losses[first] > _MOST_LOSSES:
            raise InputError(
                f"A run ended its worker on the cluster {self._losses[first]} times ({why}); the nodes may have too "
                "little memory. What has ended is kept; without the cluster, --resume goes on with it."
            )
        self._alone.append(first)
        self._waiting.extendleft(reversed(others))

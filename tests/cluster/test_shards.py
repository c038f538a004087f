"""Runs in shards: each is handed out, and its record taken once, whatever is lost on the way."""

from __future__ import annotations

import random

import pytest

from steepest.comparison.shards import Shards
from steepest.errors import InputError


@pytest.mark.parametrize("seed", range(20))
def test_no_run_is_lost_or_doubled(seed: int) -> None:
    """Workers that die at random, and records that come twice."""
    draw = random.Random(seed)
    homes = sorted(draw.choices("abc", k=300))
    shards, taken = Shards(homes), []
    under_way: list[list[int]] = []
    while not shards.all_ended:
        while len(under_way) < 6 and (shard := shards.take(3)):
            assert len({homes[index] for index in shard}) == 1
            under_way.append(shard)
        shard = under_way.pop(draw.randrange(len(under_way)))
        done = shard if draw.random() < 0.8 else shard[: draw.randrange(len(shard) + 1)]
        taken += [index for index in done if shards.end(index, 0.01)]
        assert not any(shards.end(index, 0.01) for index in done)
        shards.lose(shard, "by chance", with_node=True)
    assert sorted(taken) == list(range(300))
    assert not shards.take(3)


def test_a_shard_lasts_and_the_last_ones_are_small() -> None:
    shards = Shards(["a"] * 10_000)
    sizes = []
    while shard := shards.take(2):
        sizes.append(len(shard))
        for index in shard:
            shards.end(index, 0.01)
    assert sizes[0] == 4  # while nobody knows how long a run takes
    assert max(sizes) == 200  # two seconds of runs of 10 ms
    assert sizes[-5:] == [1] * 5
    assert len(sizes) < 10_000 / 100


def test_runs_follow_each_other_in_the_plans_order() -> None:
    shards = Shards(["a"] * 50)
    order = []
    while shard := shards.take(4):
        order += shard
    assert order == list(range(50))


def test_what_ends_its_worker_goes_alone_and_is_named_in_the_end() -> None:
    """The first run of a shard without a record may be at fault; those behind it are not."""
    shards = Shards(["a"] * 40)
    first = shards.take(1)
    shards.end(first[0], 0.01)
    for _ in range(3):
        shards.lose(first, "OutOfMemoryError", with_node=False)
        first = shards.take(1)
        assert first == [1]
    shards.lose(first, "NodeDiedError", with_node=True)
    assert shards.take(1) == [1]
    with pytest.raises(InputError, match=r"ended its worker on the cluster 4 times \(OutOfMemoryError\)"):
        shards.lose([1], "OutOfMemoryError", with_node=False)
    assert shards.take(1)[:2] == [2, 3]

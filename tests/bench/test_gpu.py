"""The GPU's benchmark, without one: it refuses in a sentence, and its works run, timed by the clock."""

from __future__ import annotations

import pytest
import torch

from steepest.bench import gpu, modules, run
from steepest.bench.losses import COMPILED
from steepest.bench.peers import Absent
from steepest.bench.work import OURS, Contestant
from steepest.errors import InputError


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said where there is no GPU, and here is one")
def test_without_a_card_it_says_so() -> None:
    with pytest.raises(InputError, match="needs a GPU, and torch sees none here"):
        run("losses", device="cuda")


def test_what_has_no_form_on_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="compare runs on the CPU alone"):
        run("compare", device="cuda")
    with pytest.raises(InputError, match="no device 'mps'"):
        run("losses", device="mps")


@pytest.mark.parametrize("suite", ["losses", "optimizers"])
def test_every_contestant_does_its_work(suite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(loss: object) -> None:
        raise Absent("compiling takes longer than this test")

    monkeypatch.setattr(gpu, "compiled", absent)
    for work in gpu.works(suite, quick=True, device="cpu"):
        field = work.build()
        assert OURS in field
        assert len(field) > 1
        for name, contestant in field.items():
            if name != COMPILED:
                assert isinstance(contestant, Contestant), f"{work.name}, {name}: {contestant}"
                assert contestant.before is not None
                contestant.before()
                measured = contestant.call()
                assert measured is not None
                assert measured["time"] > 0.0


def test_many_runs_are_measured_beside_vmap() -> None:
    """On the CPU by another name, where ours goes through vmap too."""
    for work in gpu.works("training", quick=True, device="cpu:0"):
        field = work.build()
        assert modules.VMAPPED in field
        for contestant in field.values():
            assert isinstance(contestant, Contestant)
            contestant.call()

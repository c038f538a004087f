"""Memory of results let go serves the next ones, and no other."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from steepest.backends import memory
from steepest.losses import MSELoss

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory is torch's own")

LARGE = 1_000_000


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    memory.release()
    yield
    memory.release()


def made(count: int = LARGE) -> Tensor:
    return memory.empty_like_huge(torch.zeros(count))


def test_what_is_let_go_is_handed_out_again() -> None:
    first = made()
    place = first.data_ptr()
    del first
    assert made().data_ptr() == place
    assert made(LARGE - 1000).data_ptr() == place
    assert made(2 * LARGE).data_ptr() != place


def test_the_garbage_collector_takes_none_of_it() -> None:
    first = made()
    place = first.data_ptr()
    gc.collect()
    del first
    assert len(memory._resting) == 1
    assert not memory._lent
    assert made().data_ptr() == place


def test_what_is_still_seen_is_not() -> None:
    whole = made()
    whole.fill_(3.0)
    part = whole[5:7]
    del whole
    others = [made().fill_(4.0) for _ in range(3)]
    assert part.tolist() == [3.0, 3.0]
    assert len({other.data_ptr() for other in others}) == 3


def test_gradients_of_several_steps_stay_apart() -> None:
    x = torch.linspace(-1, 1, LARGE).requires_grad_()
    kept = []
    for step in range(3):
        (gradient,) = torch.autograd.grad(MSELoss(reduction="sum")(x, torch.full((LARGE,), float(step))), x)
        kept.append(gradient)
    for step, gradient in enumerate(kept):
        torch.testing.assert_close(gradient, 2.0 * (x.detach() - step))


def test_no_more_is_kept_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_most_kept", lambda: 9 << 20)
    results = [made() for _ in range(5)]
    del results
    assert sum(block.num_bytes for block in memory._resting) <= 9 << 20
    assert memory._resting


def test_all_but_the_latest_is_the_systems_when_it_is_short() -> None:
    results = [made() for _ in range(12)]
    del results
    warm = [block.num_bytes for block in memory._resting if not block.is_marked]
    assert 0 < sum(warm) <= memory._WARM_BYTES < sum(block.num_bytes for block in memory._resting)
    made(10 * LARGE)
    assert all(block.is_marked for block in memory._resting if block.num_bytes > memory._WARM_BYTES)
    made()  # lent, and so written to: no longer marked
    assert not memory._resting[-1].is_marked


def test_threads_never_get_the_same() -> None:
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            mine = made().fill_(float(number))
            if float(mine.min()) != number or float(mine.max()) != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_where_the_system_refuses_torch_finds_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(num_bytes: int) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(memory, "_Block", refuse)
    assert made().shape == (LARGE,)

"""Addresses of many tensors at once: those that torch gives one by one, and none where a tensor is another kind."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from steepest.backends import cpu_tensors
from steepest.backends.cpu_tensors import KeptPlaces, Places
from steepest.optim import Adam


@pytest.fixture(params=["in one call", "one by one", "where one call misses the device"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "one by one":
        monkeypatch.setattr(cpu_tensors, "_finder", lambda: None)
    elif request.param != "in one call":
        monkeypatch.setattr(cpu_tensors, "finds_on", lambda device: False)
    elif cpu_tensors._finder() is None:
        pytest.skip("addresses are asked through DLPack's table of C functions, and this torch has none")


SHAPES = [(64,), (), (0,), (3, 1, 5), (1, 7), (2, 3)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int16]


@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses_are_torchs(dtype: torch.dtype) -> None:
    whole = torch.zeros(400, dtype=dtype)
    tensors = [torch.zeros(shape, dtype=dtype) for shape in SHAPES] + [whole[7:300]]
    found = Places(tensors).find(tensors)
    assert found is not None
    assert found.tolist() == [tensor.data_ptr() for tensor in tensors]


IMAGES = {(2, 3, 4, 5): torch.channels_last, (2, 3, 4, 5, 6): torch.channels_last_3d}


@pytest.mark.parametrize("shape", IMAGES)
def test_channels_last_is_an_order_of_its_own(shape: tuple[int, ...]) -> None:
    plain = torch.zeros(shape)
    turned = plain.contiguous(memory_format=IMAGES[shape])
    strange = torch.zeros(shape[::-1]).permute(*range(len(shape))[::-1])
    for first, second in ((plain, turned), (turned, plain), (turned, strange), (plain, strange)):
        places = Places([torch.zeros(3), first])
        assert places.find([torch.zeros(3), first.clone(memory_format=torch.preserve_format)]) is not None
        assert places.find([torch.zeros(3), second]) is None
    # Of one channel, or one place, both orders are the same.
    for alike in (turned[:, :1], turned[:, :, :1, :1]):
        alike = alike.clone(memory_format=IMAGES[shape]) if alike.dim() == 4 else alike[..., :1].clone()
        assert Places([alike.contiguous()]).find([alike]) is not None


OTHERS: dict[str, Callable[[], object]] = {
    "longer": lambda: torch.zeros(65),
    "wider": lambda: torch.zeros(64, dtype=torch.float64),
    "as narrow, of another kind": lambda: torch.zeros(64, dtype=torch.int32),
    "every other": lambda: torch.zeros(128)[::2],
    "turned": lambda: torch.zeros(8, 8).t(),
    "sparse": lambda: torch.zeros(64).to_sparse(),
    "elsewhere": lambda: torch.zeros(64, device="meta"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_tensor_is_not_found(name: str) -> None:
    tensors: list[object] = [torch.zeros(64) for _ in range(5)]
    places = Places(tensors)  # type: ignore[arg-type]
    tensors[3] = OTHERS[name]()
    assert places.find(tensors) is None  # type: ignore[arg-type]
    tensors[3] = torch.zeros(8, 1, 8)
    assert places.find(tensors) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_tensor_in_an_entry_is_not_found(name: str) -> None:
    states: list[dict[str, object]] = [{"a": torch.zeros(64), "b": torch.zeros(())} for _ in range(3)]
    places = KeptPlaces([], [(state, key) for state in states for key in "ba"])
    assert places.hold()
    kept, states[1]["a"] = states[1]["a"], OTHERS[name]()
    assert not places.hold()
    del states[1]["a"]
    assert not places.hold()
    states[1]["a"] = kept
    assert places.hold()
    states[1]["a"] = torch.zeros(64)  # like it, and elsewhere
    assert not places.hold()


def test_a_large_tensor_is_let_go_with_its_entry() -> None:
    state = {"large": torch.zeros(1 << 20)}
    places = KeptPlaces([], [(state, "large")])
    assert places.hold()
    gone = weakref.ref(state["large"])
    state["large"] = torch.zeros(1 << 20)
    assert gone() is None
    assert (
        not places.hold() or state["large"].data_ptr() == places._found[0]
    )  # the same memory is given again at times


@pytest.mark.parametrize("what", ["gradient", "data", "state", "state's data", "negated", "state entry"])
def test_a_step_sees_what_was_put_elsewhere(what: str) -> None:
    """After two steps the addresses are known; the third has to follow what moved."""
    ours, torchs = ([torch.nn.Parameter(torch.linspace(-1, 1, 9)) for _ in range(4)] for _ in range(2))
    pair = (Adam(ours, lr=0.1), ours), (torch.optim.Adam(torchs, lr=0.1), torchs)
    for step in range(5):
        for optimizer, parameters in pair:
            for k, parameter in enumerate(parameters):
                parameter.grad = torch.full((9,), 0.5 + k + step)
            chosen = parameters[2]
            state = optimizer.state[chosen]
            if step >= 2 and what == "gradient":
                chosen.grad = torch.arange(18.0)[::2]
            elif step >= 2 and what == "negated":
                chosen.grad = torch._neg_view(torch.arange(9.0))
            elif step == 2 and what == "data":
                chosen.data = chosen.data.clone() + 1.0
            elif step == 2 and what == "state":
                state["exp_avg"] = state["exp_avg"].clone() * 2.0
            elif step == 2 and what == "state's data":
                state["exp_avg"].data = state["exp_avg"].data.clone() * 2.0
            elif step == 2 and what == "state entry":
                optimizer.state[chosen] = {name: value.clone() for name, value in state.items()}
                optimizer.state[chosen]["step"].fill_(40.0)
            optimizer.step()
    for mine, theirs in zip(ours, torchs, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs.detach().numpy(), rtol=0, atol=2e-6)


def test_a_tensor_of_another_gpu_than_the_current_one_is_owned_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch has it: an error for tensors of any other."""
    current = [torch.device("cuda:0")]

    @contextmanager
    def device(there: torch.device) -> Iterator[None]:
        current.append(there)
        yield
        current.pop()

    def owned(stream: int) -> str:
        if current[-1] != torch.device("cuda:1"):
            raise BufferError("Can't export tensors on a different CUDA device index.")
        return f"owner, for stream {stream}"

    monkeypatch.setattr(torch.cuda, "device", device)
    tensor: Any = SimpleNamespace(device=torch.device("cuda:1"), __dlpack__=owned)
    assert cpu_tensors._owned(tensor) == "owner, for stream -1"
    assert len(current) == 1


@pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="it is about a GPU that is not the current one, which takes two; torch sees fewer here",
)
def test_a_second_gpu_s_parameters_are_stepped() -> None:
    parameter = torch.nn.Parameter(torch.zeros(3, device="cuda:1"))
    optimizer = Adam([parameter], lr=0.25, eps=0.0)
    for _ in range(3):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.allclose(parameter.cpu(), torch.full((3,), -0.75))

"""Neither the default type and device of torch nor what a loaded dictionary lacks changes a step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from steepest.optim import OPTIMIZERS, SGD, Adam, AdamW, Muon, RMSprop


@pytest.fixture
def _as_before() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)


def trained(make: Any, steps: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, Any]:
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 6, dtype=dtype, device="cpu").reshape(2, 3))
    optimizer = make([parameter])
    for step in range(steps):
        parameter.grad = torch.full_like(parameter, 0.5 + step % 3)
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("word", OPTIMIZERS)
def test_the_default_type_changes_nothing(word: str, default: torch.dtype) -> None:
    entry = OPTIMIZERS[word]

    def make(parameters: Any) -> Any:
        return entry.cls(parameters, lr=1e-3, **entry.options)

    expected, _ = trained(make, 300)
    torch.set_default_dtype(default)
    found, optimizer = trained(make, 300)
    assert torch.equal(found, expected)
    state = optimizer.state[optimizer.param_groups[0]["params"][0]]
    assert float(state.get("step", 300)) == 300


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("word", [word for word in OPTIMIZERS if word != "adagrad"])  # torch's begins there
def test_the_default_device_changes_nothing(word: str) -> None:
    entry = OPTIMIZERS[word]

    def make(parameters: Any) -> Any:
        return entry.cls(parameters, lr=1e-3, **entry.options)

    expected, _ = trained(make, 3)
    torch.set_default_device("meta")
    assert torch.equal(trained(make, 3)[0], expected)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64, "meta"])
def test_8_bit_state_is_read_and_written_under_other_defaults(default: Any) -> None:
    def make(parameters: Any, **options: Any) -> Any:
        return AdamW(parameters, lr=0.1, **options)

    expected, eight = trained(lambda p: make(p, state_dtype="8bit"), 3)
    saved = copy.deepcopy(eight.state_dict())
    (torch.set_default_device if default == "meta" else torch.set_default_dtype)(default)
    assert torch.equal(trained(lambda p: make(p, state_dtype="8bit"), 3)[0], expected)
    _, plain = trained(make, 1)
    saved["param_groups"] = plain.state_dict()["param_groups"]
    plain.load_state_dict(saved)
    parameter = plain.param_groups[0]["params"][0]
    parameter.grad = torch.zeros_like(parameter)
    plain.step()
    average = plain.state[parameter]["exp_avg"]
    assert average.dtype == torch.float32
    assert 0.1 < float(average.min()) < float(average.max()) < 1.0


@pytest.mark.usefixtures("_as_before")
def test_a_count_in_another_type_is_loaded() -> None:
    """torch counts in float64 where that is the default."""
    torch.set_default_dtype(torch.float64)
    _, theirs = trained(torch.optim.Adam, 5, torch.float64)
    ours = trained(Adam, 5, torch.float64)[1]
    assert theirs.state_dict()["state"][0]["step"].dtype == torch.float64
    ours.load_state_dict(theirs.state_dict())
    parameter = ours.param_groups[0]["params"][0]
    for _ in range(2):
        parameter.grad = torch.ones_like(parameter)
        ours.step()
    assert ours.state[parameter]["step"].item() == 7
    assert ours._tables  # the quick way, which reads float32


@pytest.mark.parametrize(
    ("cls", "theirs", "options"),
    [
        (SGD, torch.optim.SGD, {"momentum": 0.9, "convention": "ema"}),
        (SGD, torch.optim.SGD, {"momentum": 0.9, "convention": "keras"}),
        (Adam, torch.optim.Adam, {"convention": "optax", "eps_root": 0.01}),
        (RMSprop, torch.optim.RMSprop, {"convention": "tf1"}),
        (AdamW, torch.optim.AdamW, {"state_dtype": torch.float32}),
        (Muon, torch.optim.Muon, {"orthogonalize_dtype": torch.float32}),
    ],
)
def test_options_that_torch_does_not_know_stay_when_its_dictionary_is_loaded(
    cls: Any, theirs: Any, options: dict[str, Any]
) -> None:
    known = {"momentum": options["momentum"]} if "momentum" in options else {}
    one, two = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    other = {word: value for word, value in options.items() if word not in known}
    ours = cls([{"params": [one], **other}, {"params": [two]}], lr=0.1, **known)
    groups = [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2)]
    ours.load_state_dict(theirs([{"params": [p]} for p in groups], lr=0.2, **known).state_dict())
    for word, value in other.items():
        assert ours.param_groups[0][word] == value
        assert ours.param_groups[1].get(word, ours.defaults.get(word)) == ours.defaults.get(word)
    assert ours.param_groups[0]["lr"] == 0.2

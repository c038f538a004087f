"""State in fewer bits, half-precision parameters that lose nothing, steps in the backward pass."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest import optim
from steepest.errors import InputError
from steepest.optim import storage
from steepest.optim.storage import decoded, encoded

KINDS = [torch.bfloat16, "8bit"]


def _walk(optimizer: Any, parameters: list[nn.Parameter], num_steps: int, begin: int = 0) -> None:
    """Steps towards 1, 2, ... with gradients that differ a thousandfold and are a little noisy, each step's its own."""
    for step in range(begin, begin + num_steps):
        generator = torch.Generator().manual_seed(step)
        for k, parameter in enumerate(parameters, 1):
            wide = parameter.detach().float()
            scale = torch.logspace(-1.5, 1.5, wide.numel()).reshape(wide.shape)
            noise = 0.1 * torch.randn(wide.shape, generator=generator)
            parameter.grad = (scale * ((wide - k) + noise)).to(parameter.dtype)
        optimizer.step()


def _parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in ((700,), (3, 5), (1,), (256,))]


# --- numbers as 8-bit codes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_codes_are_close_and_right_on_average(kind: str) -> None:
    numbers = torch.randn(40_000, generator=torch.Generator().manual_seed(1))
    numbers = numbers if kind == "signed" else numbers.square()
    back = decoded(*encoded(numbers, kind), kind)
    far = numbers.abs() > 1e-3
    assert ((back - numbers).abs()[far] / numbers.abs()[far]).max() <= 2**-3
    assert abs(float((back - numbers).sum() / numbers.abs().sum())) < 1e-3
    assert bool((back * numbers >= 0).all())


@pytest.mark.parametrize("kind", ["signed", "unsigned"])
@pytest.mark.parametrize(
    "numbers",
    [
        [0.0] * 300,
        [1.0] * 257,
        [3.4028235e38, 1e-38, 0.0],
        [1e-45, 2e-45, 0.0],
        [1e-30, 1e30],
        [math.inf, 1.0],
    ],
    ids=["zeros", "equal", "largest", "smallest", "far apart", "infinite"],
)
def test_codes_at_the_edges(kind: str, numbers: list[float]) -> None:
    given = torch.tensor(numbers)
    back = decoded(*encoded(given, kind), kind)
    assert back.shape == given.shape
    assert not bool(back.isnan().any())
    largest = float(given.max())
    top = back[given == largest]
    if 1e-37 < largest < math.inf:
        assert bool((top >= largest * 7 / 8).all())
        assert bool((top <= largest * 9 / 8).all())
    if kind == "signed":
        assert bool((back[given == 0.0] == 0.0).all())
    elif largest > 1e-37:
        assert bool((back[given > 0.0] > 0.0).all())  # nothing is divided by a 0 that it is not


# --- optimizers -------------------------------------------------------------------------------------------------

MAKERS: dict[str, Callable[..., Any]] = {
    "Adam": lambda p, **o: optim.Adam(p, lr=0.05, **o),
    "Adam amsgrad": lambda p, **o: optim.Adam(p, lr=0.05, amsgrad=True, **o),
    "AdamW": lambda p, **o: optim.AdamW(p, lr=0.05, **o),
    "Adamax": lambda p, **o: optim.Adamax(p, lr=0.05, **o),
    "NAdam": lambda p, **o: optim.NAdam(p, lr=0.05, **o),
    "RAdam": lambda p, **o: optim.RAdam(p, lr=0.05, **o),
    "Adagrad": lambda p, **o: optim.Adagrad(p, lr=0.3, initial_accumulator_value=0.1, **o),
    "Adadelta": lambda p, **o: optim.Adadelta(p, lr=20.0, **o),
    "RMSprop": lambda p, **o: optim.RMSprop(p, lr=0.02, momentum=0.5, **o),
    "momentum": lambda p, **o: optim.SGD(p, lr=2e-3, momentum=0.9, **o),
    "nesterov": lambda p, **o: optim.SGD(p, lr=2e-3, momentum=0.9, nesterov=True, **o),
    "Lion": lambda p, **o: optim.Lion(p, lr=0.02, **o),
    "Adan": lambda p, **o: optim.Adan(p, lr=0.05, **o),
    "AdEMAMix": lambda p, **o: optim.AdEMAMix(p, lr=0.05, **o),
    "ADOPT": lambda p, **o: optim.ADOPT(p, lr=0.05, **o),
    "LAMB": lambda p, **o: optim.LAMB(p, lr=0.05, **o),
    "LARS": lambda p, **o: optim.LARS(p, lr=0.01, momentum=0.9, **o),
    "ScheduleFreeAdamW": lambda p, **o: optim.ScheduleFreeAdamW(p, lr=0.05, **o),
}


def _distance(parameters: list[nn.Parameter]) -> float:
    return float(sum(((p.detach().float() - k) ** 2).sum() for k, p in enumerate(parameters, 1)))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "8bit") for name in MAKERS),
        *((name, torch.bfloat16) for name in ("Adam", "momentum", "LAMB")),
    ],
    ids=str,
)
def test_narrow_state_gets_as_far(name: str, kind: Any) -> None:
    torch.manual_seed(0)
    reached = []
    for options in ({}, {"state_dtype": kind}):
        parameters = _parameters()
        start = _distance(parameters)
        _walk(MAKERS[name](parameters, **options), parameters, 60)
        reached.append(_distance(parameters) / start)
    assert reached[0] < 0.999  # the walk is worth the name
    assert reached[1] < reached[0] + 0.02


def _num_bytes(optimizer: torch.optim.Optimizer) -> int:
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor.dim())


@pytest.mark.parametrize(("kind", "most"), [(None, 8.0), (torch.bfloat16, 4.0), ("8bit", 2.02)], ids=str)
def test_adams_state_takes_so_many_bytes_a_number(kind: Any, most: float) -> None:
    parameters = [nn.Parameter(torch.zeros(2560))]
    optimizer = optim.Adam(parameters, state_dtype=kind)
    _walk(optimizer, parameters, 2)
    assert most * 0.99 * 2560 <= _num_bytes(optimizer) <= most * 2560


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("name", ["Adam", "momentum", "NAdam"])
def test_saved_in_the_middle_it_goes_on_to_the_same_bits(name: str, kind: Any) -> None:
    whole, cut = _parameters(), _parameters()
    _walk(MAKERS[name](whole, state_dtype=kind), whole, 12)
    begun = MAKERS[name](cut, state_dtype=kind)
    _walk(begun, cut, 6)
    saved = copy.deepcopy(begun.state_dict())
    resumed = MAKERS[name](cut, state_dtype=kind)
    resumed.load_state_dict(saved)
    _walk(resumed, cut, 6, begin=6)
    for mine, theirs in zip(cut, whole, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_threads_change_nothing(kind: Any) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            parameter = nn.Parameter(torch.linspace(-1, 1, 1_200_007))
            optimizer = optim.Adam([parameter], lr=0.01, state_dtype=kind)
            for step in range(3):
                parameter.grad = torch.sin(parameter.detach() * (step + 7))
                optimizer.step()
            found.append(parameter.detach().clone())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_torchs_state_is_taken_and_ours_is_never_mistaken_by_torch() -> None:
    ours, theirs = _parameters(), _parameters()
    torchs = torch.optim.Adam(theirs, lr=0.05)
    _walk(torchs, theirs, 5)
    narrow = optim.Adam(ours, lr=0.05, state_dtype="8bit")
    for mine, given in zip(ours, theirs, strict=True):
        mine.data.copy_(given.detach())
    narrow.load_state_dict(torchs.state_dict())
    _walk(narrow, ours, 1)
    assert set(narrow.state[ours[0]]) == {
        "step", "exp_avg_8bit", "exp_avg_scale_8bit", "exp_avg_sq_8bit", "exp_avg_sq_scale_8bit"
    }  # fmt: skip
    assert float(narrow.state[ours[0]]["step"]) == 6.0
    again = torch.optim.Adam(_parameters(), lr=0.05)
    again.load_state_dict(narrow.state_dict())
    with pytest.raises(KeyError, match="exp_avg"):
        _walk(again, again.param_groups[0]["params"], 1)
    wide = optim.Adam(ours, lr=0.05)
    wide.load_state_dict(narrow.state_dict())
    for group in wide.param_groups:
        group["state_dtype"] = None
    _walk(wide, ours, 1)
    assert set(wide.state[ours[0]]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("wrong", ["codes", "scales", "no scales", "wide scales", "every other code"])
@pytest.mark.parametrize("kind", ["8bit", None])
def test_eight_bits_of_another_parameter_are_refused(kind: Any, wrong: str) -> None:
    """A kernel reads and writes as many as the parameter has elements."""
    saved = nn.Parameter(torch.ones(600))
    before = optim.Adam([saved], state_dtype="8bit")
    _walk(before, [saved], 2)
    state = before.state_dict()
    slots = state["state"][0]
    slots |= {
        "codes": {"exp_avg_8bit": torch.zeros(10, dtype=torch.uint8)},
        "scales": {"exp_avg_scale_8bit": slots["exp_avg_scale_8bit"][:1]},
        "no scales": {"exp_avg_scale_8bit": None},
        "wide scales": {"exp_avg_scale_8bit": slots["exp_avg_scale_8bit"].float()},
        "every other code": {"exp_avg_8bit": torch.zeros(1200, dtype=torch.uint8)[::2]},
    }[wrong]
    parameter = nn.Parameter(torch.ones(600))
    after = optim.Adam([parameter])
    after.load_state_dict(state)
    for group in after.param_groups:
        group["state_dtype"] = kind
    with pytest.raises(InputError, match="The 8-bit state 'exp_avg' is not this parameter's"):
        _walk(after, [parameter], 1)
    assert torch.equal(parameter.detach(), torch.ones(600))


# --- half-precision parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_are_lost_by_nearest_rounding_alone(dtype: torch.dtype) -> None:
    """1,000 steps of a 2,000th: half of a place of bfloat16 at 1 is a 256th, of float16 a 2,048th."""
    rate = 2.0**-12 if dtype == torch.float16 else 2.0**-9
    ends = {}
    for rounding in ("nearest", "stochastic", "kahan"):
        parameter = nn.Parameter(torch.ones(4096, dtype=dtype))
        optimizer = optim.SGD([parameter], lr=rate, rounding=rounding)
        for _ in range(256):
            parameter.grad = torch.full_like(parameter, -0.25)
            optimizer.step()
        ends[rounding] = parameter.detach().float()
    true = 1.0 + 64 * rate
    assert bool((ends["nearest"] == 1.0).all())
    assert float(ends["stochastic"].mean() - true) == pytest.approx(0.0, abs=2e-3)
    assert bool(((ends["kahan"] - true).abs() <= true * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("kind", [None, torch.float32, torch.bfloat16, "8bit"], ids=str)
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
def test_half_precision_follows_single(kind: Any, rounding: str) -> None:
    exact, rounded = _parameters(), _parameters(torch.bfloat16)
    _walk(optim.Adam(exact, lr=0.05), exact, 40)
    _walk(optim.Adam(rounded, lr=0.05, state_dtype=kind, rounding=rounding), rounded, 40)
    for mine, theirs in zip(rounded, exact, strict=True):
        assert mine.dtype == torch.bfloat16
        assert bool((mine.float() - theirs).abs().mean() < 0.06 * theirs.abs().mean())


def test_plain_half_precision_steps_as_torchs() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        ours, theirs = _parameters(dtype), _parameters(dtype)
        _walk(optim.Adam(ours, lr=0.05), ours, 10)
        _walk(torch.optim.Adam(theirs, lr=0.05, fused=True), theirs, 10)
        for mine, given in zip(ours, theirs, strict=True):
            torch.testing.assert_close(
                mine, given, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps
            )


# --- steps in the backward pass -----------------------------------------------------------------------------------


def _net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))


@pytest.mark.parametrize("name", ["Adam", "momentum", "ADOPT", "LAMB"])
def test_steps_in_the_backward_pass_are_the_same_bits(name: str) -> None:
    x = torch.randn(16, 5, generator=torch.Generator().manual_seed(2))
    nets = _net(), _net()
    optimizers = [
        MAKERS[name](list(net.parameters()), **options)
        for net, options in zip(nets, ({}, {"in_backward": True}), strict=True)
    ]
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 3) for optimizer in optimizers]
    for _ in range(8):
        for net, optimizer, schedule in zip(nets, optimizers, schedules, strict=True):
            optimizer.zero_grad()
            (net(x) - 1.0).square().mean().backward()
            if optimizer is optimizers[1]:
                assert all(parameter.grad is None for parameter in net.parameters())
            optimizer.step()
            schedule.step()
    for mine, theirs in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(mine, theirs)


def test_gradients_are_never_all_there() -> None:
    net = nn.Sequential(*(nn.Linear(32, 32) for _ in range(10)))
    optim.Adam(net.parameters(), in_backward=True)  # let go at once: its steps end with it
    optimizer = optim.Adam(net.parameters(), in_backward=True)
    alive: list[int] = []
    for layer in net:
        layer.weight.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad is not None for p in net.parameters()))
        )
    before = [p.detach().clone() for p in net.parameters()]
    net(torch.randn(4, 32)).square().sum().backward()
    assert max(alive) <= 2
    assert not any(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert {float(state["step"]) for state in optimizer.state.values()} == {1.0}
    del optimizer
    gc.collect()
    net(torch.randn(4, 32)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_copy_steps_its_own_parameters() -> None:
    net = _net()
    optimizer = optim.SGD(net.parameters(), lr=0.1, in_backward=True)
    other, its_own = copy.deepcopy((net, optimizer))
    before = [p.detach().clone() for p in net.parameters()]
    other(torch.ones(2, 5)).sum().backward()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert its_own.in_backward
    assert not any(
        torch.equal(p, q) for p, q in zip(other.parameters(), before, strict=True) if p.numel() > 1
    )


# --- wrong input --------------------------------------------------------------------------------------------------


def _half() -> Tensor:
    return nn.Parameter(torch.zeros(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: optim.Adam(_parameters(), state_dtype=torch.int8), "choose torch.float32, torch.bfloat16, '8bit'"),
        (lambda: optim.Adam(_parameters(), rounding="up"), "choose from nearest, stochastic, kahan"),
        (lambda: optim.Rprop(_parameters(), state_dtype="8bit"), "nothing in its state can be kept so"),
        (lambda: optim.SGD(_parameters(), state_dtype="8bit"), "nothing in its state can be kept so"),
        (lambda: optim.Adam([_half()], state_dtype="8bit"), "one is float64"),
        (
            lambda: optim.Adam([nn.Parameter(torch.zeros(4, 6).t())], state_dtype="8bit"),
            r"one of shape \(6, 4\) is not",
        ),
        (lambda: optim.Adam(_parameters(), in_backward=1), "it is True or False"),
        (lambda: optim.Adam(_parameters(), in_backward=True, skip_nonfinite=True), "leave one"),
        (
            lambda: optim.Adam([nn.Parameter(torch.zeros(2), requires_grad=False)], in_backward=True),
            "requires_grad=False",
        ),
        (lambda: optim.Muon([nn.Parameter(torch.zeros(2, 2))], state_dtype="8bit"), "whole matrices"),
        (lambda: optim.Adam(_parameters(), state_dtpe="8bit"), "state_dtype"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(make: Callable[[], object], says: str) -> None:
    with pytest.raises((InputError, TypeError), match=says):
        make()


def test_a_sparse_gradient_is_refused_where_torch_would_keep_the_state_its_own_way() -> None:
    parameter = nn.Parameter(torch.ones(4))
    optimizer = optim.SGD([parameter], lr=0.1, momentum=0.9, state_dtype="8bit")
    parameter.grad = torch.tensor([0.0, 1.0, 0.0, 0.0]).to_sparse()
    with pytest.raises(InputError, match="SGD: these options are for dense, real parameters and gradients"):
        optimizer.step()


def test_a_way_of_keeping_that_is_set_between_steps_is_heeded() -> None:
    parameter = nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = optim.AdamW([parameter], lr=1e-3, weight_decay=0)

    def step(times: int) -> None:
        for _ in range(times):
            parameter.grad = torch.ones_like(parameter)
            optimizer.step()

    step(3)
    assert float(parameter.detach()[0]) == 1.0  # steps below half a place are lost
    optimizer.param_groups[0]["rounding"] = "kahan"
    step(100)
    assert float(parameter.detach()[0]) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("kind", ["signed", "unsigned"])
def test_averages_that_begin_at_0_are_not_encoded_number_by_number(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a GPU would go through the main memory: 8 bytes a parameter, before its first step."""
    zeros = torch.zeros(3, 300)
    zeros[1, 7] = 1.0
    codes, header = encoded(zeros, kind)
    sizes = []
    plain = storage._pass

    def noted(rule: Any, kind: str, tensors: list[Tensor]) -> None:
        sizes.append(tensors[0].numel())
        plain(rule, kind, tensors)

    monkeypatch.setattr(storage, "_pass", noted)
    found = encoded(torch.zeros(3, 300), kind)
    assert sizes == [1]
    assert torch.equal(found[0][0], codes[0])
    assert torch.equal(found[1][2:], header[2:])  # of blocks without the 1
    assert [(t.shape, t.dtype, t.is_contiguous()) for t in found] == [
        (t.shape, t.dtype, True) for t in (codes, header)
    ]

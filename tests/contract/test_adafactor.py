"""What is particular to Adafactor: averages of rows and columns, in every shape, cut for threads, beside torch's."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.optim import Adafactor
from steepest.optim.table import GroupTable

from .published_beyond import PUBLISHED
from .samples import DTYPES, generator

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097)
SMALL = (
    *[shape for n in SIZES for shape in ((n,), (1, n), (n, 1))],
    (), (64, 65), (4097, 3), (3, 4097), (2, 3, 4), (5, 1, 9), (1, 1, 1), (7, 8, 3, 3), (2, 1, 9, 65),
)  # fmt: skip
# Cut into pieces: elements, rows, columns, parts of several matrices, several matrices a piece; uneven ends.
LARGE = ((270_001,), (1201, 307), (307, 1201), (300_007, 1), (1, 300_007), (2, 601, 701), (1001, 20, 19))
OPTIONS: dict[str, Any] = {"lr": 0.3, "weight_decay": 0.1}  # from step 12 on 1 / sqrt(t) is the smaller
NUM_STEPS = 20
# In roundings of what a parameter and its steps add up to. Measured at worst: 9, and 18 in float16, which holds few
# digits of small gradients' squares; torch 658 in float32, whose norms add up one number after the other.
BAR = 12.0
FLOAT16S_BAR = 20.0


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def numbers(*words: object, shape: tuple[int, ...], dtype: torch.dtype, spread: bool = False) -> Tensor:
    """Normal, or over two orders of magnitude, some of them 0."""
    rng = generator("adafactor", *words)
    drawn = rng.normal(size=shape)
    if spread:
        drawn = drawn * 10.0 ** rng.uniform(-1.5, 0.5, shape) * (rng.uniform(size=shape) > 0.02)
    return torch.tensor(drawn).to(dtype)


def walked(
    cls: Any,
    dtype: torch.dtype,
    shapes: tuple[tuple[int, ...], ...],
    steps: int,
    arranged: Any = None,
    **options: Any,
) -> tuple[Any, list[nn.Parameter]]:
    arranged = arranged or (lambda x: x)
    given = [nn.Parameter(arranged(numbers("start", shape, shape=shape, dtype=dtype))) for shape in shapes]
    optimizer = cls(given, **{**OPTIONS, **options})
    for t in range(steps):
        for shape, parameter in zip(shapes, given, strict=True):
            parameter.grad = arranged(numbers(t, shape, shape=shape, dtype=dtype, spread=True))
        optimizer.step()
    return optimizer, given


@cache
def truth(dtype: torch.dtype, shape: tuple[int, ...], steps: int) -> list[Any]:
    """Where the parameter is before the first and after each step, with digits to spare."""
    wide = np.longdouble if dtype == torch.float64 else np.float64
    given = {
        "maximize": False, "eps": (None, 1e-3), "d": 1.0, "beta2_decay": -0.8, "spacing": torch.finfo(dtype).eps,
        **OPTIONS,
    }  # fmt: skip
    path = [numbers("start", shape, shape=shape, dtype=dtype).double().numpy().astype(wide)]
    state: dict[str, Any] = {}
    for t in range(1, steps + 1):
        gradient = numbers(t - 1, shape, shape=shape, dtype=dtype, spread=True).double().numpy().astype(wide)
        path.append(PUBLISHED["Adafactor"](path[-1], gradient, state, t, given))
    return path


def roundings_off(path: list[Any], dtype: torch.dtype, end: Tensor) -> Any:
    moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
    return np.abs(end.detach().double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shapes", "steps"), [(SMALL, NUM_STEPS), (LARGE, 3)], ids=["small", "large"])
def test_every_shape_against_the_published_rule_and_torch(
    shapes: tuple[tuple[int, ...], ...], steps: int, dtype: str
) -> None:
    """Within the bar, and where a half type's own roundings are larger, no farther off than torch."""
    held = DTYPES[dtype]
    optimizer, ours = walked(Adafactor, held, shapes, steps)
    assert [type(table) for table in optimizer._tables.values()] == [
        GroupTable
    ]  # all went through the kernels
    _, theirs = walked(torch.optim.Adafactor, held, shapes, steps)
    for shape, mine, its in zip(shapes, ours, theirs, strict=True):
        path = truth(held, shape, steps)
        off, torchs = roundings_off(path, held, mine), roundings_off(path, held, its)
        bar = FLOAT16S_BAR if held == torch.float16 else BAR
        assert np.max(off) <= bar, f"{shape}: {np.max(off):.2f} roundings off"
        # Of a few numbers one may be right by luck, and torch's are NaN where its squares leave the type.
        if held.itemsize == 2 and mine.numel() > 60:
            assert not np.mean(off) > np.mean(torchs), (
                f"{shape}: {np.mean(off):.2f}, torch {np.mean(torchs):.2f}"
            )


ARRANGED = {
    "transposed": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2) if x.dim() > 1 else x,
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
}


@pytest.mark.parametrize("arrangement", ARRANGED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_in_memory_makes_no_difference(arrangement: str, dtype: str) -> None:
    shapes = ((65,), (8, 9), (2, 3, 4), (7, 8, 3, 3))
    held = DTYPES[dtype]
    _, given = walked(Adafactor, held, shapes, NUM_STEPS, ARRANGED[arrangement])
    for shape, parameter in zip(shapes, given, strict=True):
        assert np.max(roundings_off(truth(held, shape, NUM_STEPS), held, parameter)) <= BAR


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(dtype: str) -> None:
    ends = []
    for number in (1, 2, 3):
        with threads(number):
            ends.append(walked(Adafactor, DTYPES[dtype], (*LARGE, *SMALL[:5], *((64, 64),) * 90), 3)[1])
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


def test_empty_parameters_are_left_alone() -> None:
    """torch divides by their size."""
    shapes = ((0,), (0, 5), (5, 0), (2, 0, 3), (4, 3))
    optimizer, given = walked(Adafactor, torch.float32, shapes, 3)
    _, alone = walked(Adafactor, torch.float32, shapes[-1:], 3)
    assert torch.equal(given[-1], alone[0])
    for parameter in given:
        assert optimizer.state[parameter]["step"] == 3
        assert all(kept.isfinite().all() for kept in optimizer.state[parameter].values())
    with pytest.raises(ZeroDivisionError):
        walked(torch.optim.Adafactor, torch.float32, shapes, 1)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("order", ["ours first", "torch first"])
def test_state_goes_both_ways_in_the_middle_of_a_run(order: str, foreach: bool) -> None:
    shapes = ((), (9,), (4, 5), (2, 3, 2), (600, 500))
    first, second = (Adafactor, torch.optim.Adafactor)[:: 1 if order == "ours first" else -1]
    _, alone = walked(torch.optim.Adafactor, torch.float64, shapes, 14, foreach=foreach)
    before, given = walked(first, torch.float64, shapes, 7, foreach=foreach)
    moved = [nn.Parameter(parameter.detach().clone()) for parameter in given]
    after = second(moved, lr=0.5)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for t in range(7, 14):
        for shape, parameter in zip(shapes, moved, strict=True):
            parameter.grad = numbers(t, shape, shape=shape, dtype=torch.float64, spread=True)
        after.step()
    for mine, its in zip(moved, alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_state_has_torchs_names_types_and_shapes(dtype: str) -> None:
    states = [
        walked(cls, DTYPES[dtype], SMALL, 2)[0].state_dict()["state"]
        for cls in (Adafactor, torch.optim.Adafactor)
    ]
    described = [
        {
            key: {name: (kept.dtype, kept.shape) for name, kept in slots.items()}
            for key, slots in state.items()
        }
        for state in states
    ]
    assert described[0] == described[1]


# --- the ends of the formula -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4,), (2, 3), (600, 500)])
@pytest.mark.parametrize("eps1", [0.0, 1e-30, None])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_zero_move_nothing_whatever_eps(
    shape: tuple[int, ...], eps1: float | None, dtype: str
) -> None:
    for arranged in (lambda x: x, ARRANGED["with gaps"]):
        start = torch.full(shape, 2.0, dtype=DTYPES[dtype])
        parameter = nn.Parameter(arranged(start.clone()))
        optimizer = Adafactor([parameter], eps=(eps1, 1e-3))
        for _ in range(2):
            parameter.grad = arranged(torch.zeros_like(start))
            optimizer.step()
        assert torch.equal(parameter, start)


def test_a_row_that_never_had_a_gradient_stays_and_the_others_move() -> None:
    parameter = nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.ones(3, 4)
    parameter.grad[1] = 0.0
    Adafactor([parameter], eps=(1e-30, 1e-3)).step()
    assert torch.equal(parameter[1], torch.ones(4))
    assert (parameter[[0, 2]] < 1.0).all()


def test_a_nan_spreads_as_far_as_in_torch() -> None:
    for shape in ((5,), (2, 3), (2, 2, 3)):
        ends = []
        for cls in (Adafactor, torch.optim.Adafactor):
            parameter = nn.Parameter(torch.ones(shape))
            parameter.grad = torch.full(shape, 0.5)
            parameter.grad.view(-1)[1] = torch.nan
            cls([parameter], lr=0.1).step()
            ends.append(parameter.detach())
        torch.testing.assert_close(*ends, equal_nan=True)


def test_each_parameter_has_its_own_eps_where_none_is_given() -> None:
    """torch takes that of the first in a group for all of them."""
    ends = {}
    for cls, others in itertools.product((Adafactor, torch.optim.Adafactor), (False, True)):
        first = [nn.Parameter(torch.ones(2, dtype=torch.bfloat16))] * others
        parameter = nn.Parameter(torch.ones(2))
        optimizer = cls([*first, parameter], lr=0.1, d=1e9)
        for one in (*first, parameter):
            one.grad = torch.full_like(one, 1e-4)
        optimizer.step()
        ends[cls, others] = parameter.detach()
    assert torch.equal(ends[Adafactor, True], ends[Adafactor, False])
    assert torch.equal(ends[Adafactor, False], ends[torch.optim.Adafactor, False])
    assert not torch.equal(ends[torch.optim.Adafactor, True], ends[torch.optim.Adafactor, False])


def test_a_step_is_a_share_of_the_parameters_length() -> None:
    for scale, slope in ((1.0, 1.0), (1e-1, 1e3), (1e6, 1e-2)):
        start = scale * numbers("length", shape=(30, 40), dtype=torch.float64)
        parameter = nn.Parameter(start.clone())
        parameter.grad = slope * numbers("slope", shape=(30, 40), dtype=torch.float64)
        Adafactor([parameter], lr=0.01).step()
        assert float((parameter.detach() - start).norm() / start.norm()) == pytest.approx(0.01, rel=0.02)


# --- switches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(301,), (40, 30), (700, 500), (3, 20, 20)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("rounding", ["nearest", "kahan", "stochastic"])
def test_half_precision_with_wide_averages(shape: tuple[int, ...], dtype: str, rounding: str) -> None:
    """``rounding`` keeps steps of a tenth of a place, which are lost without it; the averages are float32."""
    held = DTYPES[dtype]
    place = torch.finfo(held).eps
    parameter = nn.Parameter(torch.ones(shape, dtype=held))
    optimizer = Adafactor([parameter], lr=place / 10, state_dtype=torch.float32, rounding=rounding)
    for _ in range(50):
        parameter.grad = torch.full_like(parameter, -1.0)
        optimizer.step()
    for name, kept in optimizer.state[parameter].items():
        assert kept.dtype == (held if name == "lost" else torch.float32)
    grown = float(parameter.detach().double().mean()) - 1.0
    assert grown == pytest.approx(0.0 if rounding == "nearest" else 5.0 * place, abs=0.5 * place)


def test_random_rounding_is_each_parameters_own_and_the_same_in_every_run() -> None:
    ends = []
    for number in (1, 3):
        with threads(number):
            given = [nn.Parameter(torch.ones(700, 500, dtype=torch.bfloat16)) for _ in range(2)]
            optimizer = Adafactor(given, lr=1e-3, rounding="stochastic")
            for parameter in given:
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            ends += given
    assert torch.equal(ends[0], ends[2])
    assert torch.equal(ends[1], ends[3])
    assert not torch.equal(ends[0], ends[1])


def test_wide_averages_of_a_state_are_kept_and_torchs_are_widened() -> None:
    theirs, given = walked(torch.optim.Adafactor, torch.bfloat16, ((4, 5), (6,)), 3)
    wide = Adafactor(given, state_dtype=torch.float32)
    wide.load_state_dict(theirs.state_dict())
    for parameter in given:
        parameter.grad = torch.ones_like(parameter)
    wide.step()
    again = Adafactor(given, state_dtype=torch.float32)
    again.load_state_dict(copy.deepcopy(wide.state_dict()))
    for parameter in given:
        for one, other in zip(wide.state[parameter].values(), again.state[parameter].values(), strict=True):
            assert one.dtype == other.dtype == torch.float32
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.bfloat16, "8bit"])
def test_narrow_averages_are_refused(kind: Any) -> None:
    with pytest.raises(
        InputError, match=r"^Adafactor: state_dtype is .* nothing in its state can be kept so"
    ):
        Adafactor([nn.Parameter(torch.zeros(2, 2))], state_dtype=kind)


def test_kept_forms_are_refused_where_no_kernel_goes() -> None:
    parameter = nn.Parameter(
        torch.ones(2, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    )
    optimizer = Adafactor([parameter], rounding="kahan")
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(
        InputError, match=r"^Adafactor: state_dtype and rounding are for whole, contiguous .*\(2, 3, 4, 5\)"
    ):
        optimizer.step()
    assert (parameter == 1).all()


def test_steps_in_the_backward_pass_are_the_same() -> None:
    ends = []
    for in_backward in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        optimizer = Adafactor(model.parameters(), weight_decay=0.1, in_backward=in_backward)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(8, 5)).square().sum().backward()
            assert all((parameter.grad is None) == in_backward for parameter in model.parameters())
            optimizer.step()
        ends.append(nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*ends)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_listed_twice_is_stepped_twice() -> None:
    ends = []
    for cls in (Adafactor, torch.optim.Adafactor):
        first, second = (nn.Parameter(numbers(n, shape=(4, 5), dtype=torch.float64)) for n in range(2))
        optimizer = cls([first, second, first], lr=0.05)
        for t in range(3):
            for parameter in (first, second):
                parameter.grad = numbers(t, shape=(4, 5), dtype=torch.float64)
            optimizer.step()
        ends += [torch.stack([first, second])]
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_gradients_and_parameters_may_move_between_steps() -> None:
    """Addresses are kept from step to step only while they hold."""
    ends = []
    for moves in (False, True):
        parameters = [
            nn.Parameter(numbers(shape, shape=shape, dtype=torch.float32))
            for shape in ((9,), (8, 9), (600, 500))
        ]
        optimizer = Adafactor(parameters, **OPTIONS)
        for t in range(6):
            for parameter in parameters:
                if moves and t == 3:
                    parameter.data = parameter.data.clone()
                    optimizer.state[parameter] = copy.deepcopy(optimizer.state[parameter])
                if t != 4:  # the same gradients once more
                    parameter.grad = numbers(t, shape=tuple(parameter.shape), dtype=torch.float32)
            optimizer.step()
        ends.append(parameters)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "Learning rate"), ({"beta2_decay": 0.1}, "beta2_decay"), ({"eps": (-1.0, 1e-3)}, "epsilon1"),
        ({"eps": (None, -1.0)}, "epsilon2"), ({"d": 0.5}, "threshold d"), ({"weight_decay": -1.0}, "weight_decay"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_as_torch_does(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Adafactor([nn.Parameter(torch.zeros(1))], **options)

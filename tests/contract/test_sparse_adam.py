"""SparseAdam: the rows of sparse gradients against the published rule, torch's class, and what neither may touch."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.optim import SparseAdam

from .samples import DTYPES, generator

# Numbers of rows, the length of one, entries of a gradient (rows come several times), sparse dimensions.
CASES = [
    (1, (1,), 3, 1), (9, (7,), 5, 1), (64, (8,), 40, 1), (33, (9,), 65, 1), (20, (63,), 12, 1), (20, (65,), 31, 1),
    (5, (4097,), 4, 1), (3000, (64,), 5000, 1), (17, (), 9, 1), (12, (2, 3), 8, 1), (6, (5, 4), 12, 2),
]  # fmt: skip
NUM_STEPS = 20
RATE = 0.01
# In roundings of what a parameter and its steps add up to. Measured at worst: 8 (float32), 10 (float64), 13 (halves).
BAR = 16.0


def start(case: tuple[Any, ...], dtype: torch.dtype) -> Tensor:
    return torch.tensor(generator("sparse start", case).normal(size=(case[0], *case[1]))).to(dtype)


def gradient(case: tuple[Any, ...], step: int, dtype: torch.dtype) -> Tensor:
    """Every third one without a row twice, one without entries; such that float16 holds the squares' averages."""
    num_rows, row, count, depth = case
    rng = generator("sparse gradient", case, step)
    shape = (num_rows, *row)
    count = 0 if step == 5 else count
    indices = np.stack([rng.integers(size, size=count) for size in shape[:depth]])
    values = rng.normal(size=(count, *shape[depth:])) * 10.0 ** rng.uniform(-1, 1, (count, *shape[depth:]))
    made = torch.sparse_coo_tensor(
        torch.tensor(indices), torch.tensor(values).to(dtype), shape, check_invariants=True
    )
    return made.coalesce() if step % 3 == 0 else made


def walked(
    cls: Any, dtype: torch.dtype, steps: range, arranged: Any = None, **options: Any
) -> tuple[Any, list[Any]]:
    given = [nn.Parameter((arranged or (lambda x: x))(start(case, dtype))) for case in CASES]
    optimizer = cls(given, **{"lr": RATE, **options})
    go_on(optimizer, given, dtype, steps)
    return optimizer, given


def go_on(optimizer: Any, given: list[Any], dtype: torch.dtype, steps: range) -> None:
    for step in steps:
        for case, parameter in zip(CASES, given, strict=True):
            parameter.grad = gradient(case, step, dtype)
        optimizer.step()


def true_path(
    case: tuple[Any, ...], dtype: torch.dtype, betas: tuple[float, float], eps: float, sign: int
) -> list[Any]:
    # Kingma and Ba 2015, the end of section 2, in the rows that a gradient has
    wide = np.longdouble if dtype == torch.float64 else np.float64
    path = [start(case, dtype).double().numpy().astype(wide)]
    m, v, one = 0 * path[0], 0 * path[0], wide(1)
    beta1, beta2 = (one * beta for beta in betas)
    for t in range(1, NUM_STEPS + 1):
        given, p = gradient(case, t - 1, dtype), path[-1].copy()
        g, has = 0 * p, np.zeros(p.shape, bool)
        for place, value in zip(given._indices().T.tolist(), given._values().double().numpy(), strict=True):
            g[tuple(place)] += sign * value.astype(wide)
            has[tuple(place)] = True
        m[has] = beta1 * m[has] + (1 - beta1) * g[has]
        v[has] = beta2 * v[has] + (1 - beta2) * g[has] ** 2
        rate = RATE * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        p[has] -= rate * m[has] / (np.sqrt(v[has]) + eps)
        path.append(p)
    return path


def roundings_off(path: list[Any], dtype: torch.dtype, end: Tensor) -> Any:
    moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
    return np.abs(end.detach().double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.0, 0.5), "eps": 1e-4, "maximize": True}], ids=["plain", "away"]
)
@pytest.mark.parametrize("arrangement", ["dense", "with gaps"])
def test_twenty_steps_against_the_published_rule_and_torch(
    options: dict[str, Any], dtype: str, arrangement: str
) -> None:
    held = DTYPES[dtype]
    arranged = (lambda x: torch.stack([x, x], -1)[..., 0]) if arrangement == "with gaps" else None
    # A half type's state loses averages that move by less than a place, torch's too: in float32 it is the rule's error.
    wide = {} if held.itemsize > 2 or arranged else {"state_dtype": torch.float32}
    _, ours = walked(SparseAdam, held, range(NUM_STEPS), arranged, **options, **wide)
    _, theirs = walked(torch.optim.SparseAdam, held, range(NUM_STEPS), **options)
    sign = -1 if options.get("maximize") else 1
    all_off, all_torchs = [], []
    for case, mine, its in zip(CASES, ours, theirs, strict=True):
        path = true_path(case, held, options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8), sign)
        off, torchs = roundings_off(path, held, mine), roundings_off(path, held, its)
        limit = BAR
        if held.itemsize == 2 and not wide:  # torch's end in infinities where float16 has no eps
            limit = max(BAR, np.nan_to_num(np.max(torchs), nan=np.inf))
        assert np.max(off) <= limit, (case, np.max(off))
        all_off.append(off.ravel())
        all_torchs.append(torchs.ravel())
    if held.itemsize == 2:
        assert not np.mean(np.concatenate(all_off)) > np.mean(np.concatenate(all_torchs))


def test_rows_without_a_gradient_are_left_alone_bit_for_bit() -> None:
    parameter = nn.Parameter(torch.randn(6, 3))
    before = parameter.detach().clone()
    optimizer = SparseAdam([parameter])
    for rows in ([1, 4, 1], [4]):
        values = torch.ones(len(rows), 3)
        parameter.grad = torch.sparse_coo_tensor(torch.tensor([rows]), values, (6, 3), check_invariants=True)
        optimizer.step()
    still = [0, 2, 3, 5]
    assert torch.equal(parameter[still], before[still])
    assert (parameter[[1, 4]] != before[[1, 4]]).all()
    state = optimizer.state[parameter]
    assert not state["exp_avg"][still].any()
    torch.testing.assert_close(state["exp_avg"][[1, 4]], torch.tensor([[0.2] * 3, [0.19] * 3]))
    assert state["step"] == 2


@pytest.mark.parametrize("arrangement", ["dense", "with gaps"])
def test_entries_of_one_row_are_added_up_exactly(arrangement: str) -> None:
    """4097 entries of 1: torch's sum of them in float16 stops at 2048."""
    values = torch.ones(4097, 1, dtype=torch.float16)
    found = {}
    for cls in (SparseAdam, torch.optim.SparseAdam):
        there = torch.zeros(2, 1 if arrangement == "dense" else 3, dtype=torch.float16)
        parameter = nn.Parameter(there[:, :1])
        parameter.grad = torch.sparse_coo_tensor(
            torch.zeros(1, 4097, dtype=torch.int64), values, (2, 1), check_invariants=True
        )
        optimizer = cls([parameter], betas=(0.5, 0.999))
        optimizer.step()
        found[cls] = float(optimizer.state[parameter]["exp_avg"][0])
    assert found == {SparseAdam: 2048.0, torch.optim.SparseAdam: 1024.0}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_number_of_threads_changes_no_bit(dtype: str) -> None:
    before, ends = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            ends.append(walked(SparseAdam, DTYPES[dtype], range(3))[1])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


# --- state ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ours first", "torch first"])
def test_state_goes_both_ways_in_the_middle_of_a_run(order: str) -> None:
    classes = (SparseAdam, torch.optim.SparseAdam)
    first, second = classes if order == "ours first" else classes[::-1]
    whole, alone = walked(torch.optim.SparseAdam, torch.float64, range(14))
    before, given = walked(first, torch.float64, range(7))
    moved = [nn.Parameter(parameter.detach().clone()) for parameter in given]
    after = second(moved, lr=0.5)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    go_on(after, moved, torch.float64, range(7, 14))
    for mine, its in zip(moved, alone, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-12, atol=1e-14)
    for mine, its in zip(after.state.values(), whole.state.values(), strict=True):
        assert {key: type(kept) for key, kept in mine.items()} == {
            key: type(kept) for key, kept in its.items()
        }
        assert mine["step"] == its["step"] == 14


def test_saving_and_loading_changes_nothing() -> None:
    _, whole = walked(SparseAdam, torch.float32, range(8))
    first, given = walked(SparseAdam, torch.float32, range(4))
    second = SparseAdam(given, lr=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    go_on(second, given, torch.float32, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(given, whole, strict=True))
    other = copy.deepcopy(second)
    assert other.state_dict()["state"].keys() == second.state_dict()["state"].keys()


@pytest.mark.parametrize("rounding", ["nearest", "kahan", "stochastic"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_loses_no_small_steps(dtype: str, rounding: str) -> None:
    held = DTYPES[dtype]
    place = torch.finfo(held).eps
    table = nn.Embedding(50, 40, sparse=True, dtype=held)
    nn.init.ones_(table.weight)
    optimizer = SparseAdam(table.parameters(), lr=place / 10, state_dtype=torch.float32, rounding=rounding)
    for _ in range(50):
        optimizer.zero_grad()
        table(torch.arange(0, 50, 2)).sum().neg().backward()
        optimizer.step()
    assert optimizer.state[table.weight]["exp_avg"].dtype == torch.float32
    grown = table.weight.detach().double()[::2].mean().item() - 1.0
    assert grown == pytest.approx(0.0 if rounding == "nearest" else 5.0 * place, abs=0.5 * place)
    assert (table.weight[1::2] == 1).all()


def test_a_step_that_is_not_finite_is_left_out_and_one_in_the_backward_pass_is_the_same() -> None:
    ends = []
    for switches in ({}, {"skip_nonfinite": True}, {"in_backward": True}):
        torch.manual_seed(1)
        table = nn.Embedding(6, 3, sparse=True)
        optimizer = SparseAdam(table.parameters(), lr=0.1, **switches)  # type: ignore[arg-type]
        for step in range(4):
            optimizer.zero_grad()
            if step == 2 and "skip_nonfinite" in switches:
                (table(torch.tensor([2])) * torch.nan).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            table(torch.tensor([1, 2, 2, step])).square().sum().backward()
            assert (table.weight.grad is None) == ("in_backward" in switches)
            optimizer.step()
        assert optimizer.num_skipped_steps == ("skip_nonfinite" in switches)
        ends.append(table.weight.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


# --- refusals ------------------------------------------------------------------------------------------------------


def test_dense_gradients_are_refused_before_anything_moves() -> None:
    sparse, dense = nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(4, 5))
    sparse.grad, dense.grad = torch.ones(3, 2).to_sparse(1), torch.ones(4, 5)
    optimizer = SparseAdam([{"params": [sparse]}, {"params": [dense]}])
    with pytest.raises(InputError, match=r"^SparseAdam is for sparse gradients, .* shape \(4, 5\) is dense"):
        optimizer.step()
    assert (sparse == 1).all()
    assert not optimizer.state
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        torch.optim.SparseAdam([dense]).step()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_index_that_a_parameter_has_not_is_an_error_and_moves_nothing(depth: int, wrong: int) -> None:
    parameter = nn.Parameter(torch.ones(3, 3))
    indices = torch.tensor([[1, wrong], [0, 0]])[:depth]
    optimizer = SparseAdam([parameter])
    for values in (torch.ones(2, *[3] * (2 - depth)),):
        parameter.grad = torch.sparse_coo_tensor(indices, values, (3, 3), check_invariants=False)
        with pytest.raises(IndexError, match=rf"index is \[{wrong}"):
            optimizer.step()
    assert (parameter == 1).all()
    parameter.grad = torch.sparse_coo_tensor([[2]], torch.ones(1, 3), (3, 3), check_invariants=True)
    optimizer.step()
    assert (parameter[:2] == 1).all()
    assert (parameter[2] < 1).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, "8bit"])
def test_narrow_averages_are_refused(kind: Any) -> None:
    with pytest.raises(
        InputError, match=r"^SparseAdam: state_dtype is .* nothing in its state can be kept so"
    ):
        SparseAdam([nn.Parameter(torch.zeros(2, 2))], state_dtype=kind)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "learning rate"),
        ({"eps": 0.0}, "epsilon"),
        ({"betas": (1.0, 0.9)}, "beta parameter at index 0"),
    ],
)
def test_wrong_arguments_are_refused_as_torch_does(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SparseAdam([nn.Parameter(torch.zeros(1))], **options)
    for wrong in (torch.ones(2, dtype=torch.complex64), torch.ones(2, 2).to_sparse()):
        with pytest.raises(ValueError, match="SparseAdam"):
            SparseAdam([wrong])

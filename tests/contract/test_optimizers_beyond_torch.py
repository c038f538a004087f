"""The optimizers beyond torch, Adafactor and Muon: against the published rules, through a save, in all tensors."""

from __future__ import annotations

import copy
import inspect
import io
import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.optim import OPTIMIZERS, adafactor, adan, ademamix, adopt, lamb, lars, lion, muon, schedule_free
from steepest.training.modules import build_module
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Run, Stop, TrainingData

from .published_beyond import CHOICES, PUBLISHED
from .samples import DTYPES, generator

MODULES = (lion, adopt, ademamix, adan, lamb, lars, schedule_free, adafactor, muon)
CLASSES: dict[str, Any] = {
    name: getattr(module, name) for module in MODULES for name in module.__all__ if name != "ENTRIES"
}
ENTRIES = {entry.name: entry for module in MODULES for entry in module.ENTRIES}
SCHEDULE_FREE = ("ScheduleFreeSGD", "ScheduleFreeAdamW")
MATRICES = ((1, 1), (3, 7), (8, 8), (9, 4), (65, 63))
SHAPES = ((1,), (7,), (8,), (9,), (63,), (64,), (65,), (4097,), *MATRICES)
NUM_STEPS = 20
RATES = {"LARS": 1.0, "ScheduleFreeSGD": 0.1}  # 0.01 for the others

# Errors in roundings of what a parameter and its steps add up to. Measured at worst: 16 (float32), 17 (float64).
# Muon's iteration, here in float64 throughout, makes more of a float64 parameter's (26): its polynomial has a slope
# of 3.4 at 0, to the fifth power 485.
BAR = 20.0
MUONS_BAR = 40.0


def rate(name: str) -> float:
    return RATES.get(name, 0.01)


def option_sets(name: str) -> list[dict[str, Any]]:
    """Every combination of the choices that the constructor accepts."""
    sets = []
    for values in itertools.product(*CHOICES[name].values()):
        options = dict(zip(CHOICES[name], values, strict=True))
        try:
            CLASSES[name]([nn.Parameter(torch.zeros(1, 1))], **options)
        except InputError:
            continue
        sets.append(options)
    return sets


CASES = [(name, options) for name in CLASSES for options in option_sets(name)]
USED = [
    ("Lion", {"weight_decay": 0.1}),
    ("ADOPT", {"weight_decay": 0.1, "decouple": True}),
    ("AdEMAMix", {"weight_decay": 0.1, "T_alpha_beta3": 11}),
    ("Adan", {"weight_decay": 0.1}),
    ("LAMB", {"weight_decay": 0.1}),
    ("LARS", {"weight_decay": 0.1}),
    ("LARS", {"momentum": 0.0}),
    ("ScheduleFreeSGD", {"weight_decay": 0.1, "warmup_steps": 7}),
    ("ScheduleFreeAdamW", {"weight_decay": 0.1, "warmup_steps": 7}),
    ("Adafactor", {"weight_decay": 0.1}),
    ("Muon", {}),
]
each = pytest.mark.parametrize("name", CLASSES)
use = pytest.mark.parametrize(("name", "options"), USED)


def described(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "-".join(f"{name}={choice}" for name, choice in value.items() if choice) or "plain"


def shapes(name: str) -> tuple[tuple[int, ...], ...]:
    return MATRICES if name == "Muon" else SHAPES


@cache
def starts(name: str, dtype: torch.dtype) -> list[Tensor]:
    rng = generator("start")
    return [torch.tensor(rng.normal(size=shape)).to(dtype) for shape in shapes(name)]


@cache
def gradients(name: str, dtype: torch.dtype) -> list[list[Tensor]]:
    """One list a step: over five orders of magnitude, and now and then exactly 0. The half types, whose squares
    would underflow in the state (torch's too), get one order."""
    rng = generator("gradients")
    low, high = (-1, 0) if dtype in (torch.float16, torch.bfloat16) else (-4, 1)

    def draw(shape: tuple[int, ...]) -> Tensor:
        scale = 10.0 ** rng.uniform(low, high, shape) * (rng.uniform(size=shape) > 0.02)
        return torch.tensor(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape) * scale).to(dtype)

    return [[draw(shape) for shape in shapes(name)] for _ in range(NUM_STEPS)]


def step(optimizer: Any, parameters: list[nn.Parameter], row: list[Tensor]) -> None:
    for parameter, gradient in zip(parameters, row, strict=True):
        parameter.grad = gradient.clone()
    optimizer.step()


def walked(name: str, options: dict[str, Any], dtype: torch.dtype) -> tuple[Any, list[nn.Parameter]]:
    parameters = [nn.Parameter(start.clone()) for start in starts(name, dtype)]
    optimizer = CLASSES[name](parameters, lr=rate(name), **options)
    for row in gradients(name, dtype):
        step(optimizer, parameters, row)
    return optimizer, parameters


def true_paths(name: str, options: dict[str, Any], dtype: torch.dtype) -> tuple[list[Any], list[Any]]:
    """For each shape where the parameter is before the first and after each step, and the state at the end."""
    wide = np.longdouble if dtype == torch.float64 else np.float64
    signature = inspect.signature(CLASSES[name]).parameters.values()
    given = {parameter.name: parameter.default for parameter in signature} | {"lr": rate(name)} | options
    given["spacing"] = torch.finfo(dtype).eps
    as_wide = lambda tensor: tensor.double().numpy().astype(wide)  # noqa: E731
    paths, states = [], []
    for i, start in enumerate(starts(name, dtype)):
        path, state = [as_wide(start)], {}
        for t, row in enumerate(gradients(name, dtype), 1):
            path.append(PUBLISHED[name](path[-1], as_wide(row[i]), state, t, given))
        paths.append(path)
        states.append(state)
    return paths, states


def errors_in_roundings(
    paths: list[Any], dtype: torch.dtype, ends: list[Any], truths: list[Any]
) -> list[Any]:
    """The error of every element, in roundings of what the parameter and its steps add up to."""
    errors = []
    for path, end, true in zip(paths, ends, truths, strict=True):
        moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
        off = np.abs(end.detach().double().numpy() - true) / (moved * torch.finfo(dtype).eps / 2)
        errors.append(off.flatten())
    return errors


def roundings_off(paths: list[Any], dtype: torch.dtype, ends: list[Any], truths: list[Any]) -> float:
    return float(np.max(np.concatenate(errors_in_roundings(paths, dtype, ends, truths))))


# --- the published rules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=described)
def test_twenty_steps_against_the_published_rule(name: str, options: dict[str, Any], dtype: str) -> None:
    held = DTYPES[dtype]
    paths, states = true_paths(name, options, held)
    if name == "Muon":  # the iteration's own precision is the next test's subject
        options = {**options, "orthogonalize_dtype": torch.float64}
    optimizer, ends = walked(name, options, held)
    off = roundings_off(paths, held, ends, [path[-1] for path in paths])
    assert off <= (MUONS_BAR if name == "Muon" else BAR), f"{off:.2f} roundings off"
    if name in SCHEDULE_FREE:
        optimizer.eval()
        off = roundings_off(paths, held, ends, [state["x"] for state in states])
        assert off <= BAR, f"the average is {off:.2f} roundings off"


# How far a half type is off its rule computed in float64, in its own roundings: every step rounds the parameter and
# each slot. Measured: 6 on average, 16 at the worst element. Lion's sign flips where a rounded momentum cancels.
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@use
def test_half_types_are_finite_and_near_the_truth(name: str, options: dict[str, Any], dtype: str) -> None:
    held = DTYPES[dtype]
    paths, _ = true_paths(name, options, held)
    if name == "Muon":  # in torch's bfloat16 it would be its own error that is seen
        options = {**options, "orthogonalize_dtype": torch.float32}
    _, ends = walked(name, options, held)
    assert all(end.isfinite().all() for end in ends)
    off = np.concatenate(errors_in_roundings(paths, held, ends, [path[-1] for path in paths]))
    assert np.mean(off) <= 8.0
    assert name == "Lion" or np.max(off) <= BAR


# --- states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@use
def test_saving_and_loading_changes_nothing(name: str, options: dict[str, Any], dtype: str) -> None:
    """Through a file that holds no code, in the middle of a run (and of a schedule-free one's evaluation)."""
    held = DTYPES[dtype]
    _, whole = walked(name, options, held)
    parts = [nn.Parameter(start.clone()) for start in starts(name, held)]
    first = CLASSES[name](parts, lr=rate(name), **options)
    for row in gradients(name, held)[:9]:
        step(first, parts, row)
    if name in SCHEDULE_FREE:
        first.eval()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = CLASSES[name](parts, lr=0.5)
    second.load_state_dict(torch.load(file, weights_only=True))
    if name in SCHEDULE_FREE:
        second.train()
    for row in gradients(name, held)[9:]:
        step(second, parts, row)
    for a, b in zip(parts, whole, strict=True):
        assert torch.equal(a, b)


@use
def test_a_copy_goes_its_own_way(name: str, options: dict[str, Any]) -> None:
    given = [nn.Parameter(start.clone()) for start in starts(name, torch.float64)]
    optimizer = CLASSES[name](given, lr=rate(name), **options)
    step(optimizer, given, gradients(name, torch.float64)[0])
    other = copy.deepcopy(optimizer)
    before = [parameter.detach().clone() for parameter in given]
    copies = other.param_groups[0]["params"]
    step(other, copies, gradients(name, torch.float64)[1])
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    step(optimizer, given, gradients(name, torch.float64)[1])
    assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


# --- kinds of gradients and parameters ------------------------------------------------------------------------


@each
def test_maximizing_is_minimizing_the_negative(name: str) -> None:
    if "maximize" not in inspect.signature(CLASSES[name]).parameters:
        assert name == "Muon"  # torch's has no such argument
        return
    results = []
    for sign in (1.0, -1.0):
        given = [nn.Parameter(start.clone()) for start in starts(name, torch.float32)]
        optimizer = CLASSES[name](given, lr=rate(name), weight_decay=0.1, maximize=sign > 0)
        for row in gradients(name, torch.float32):
            step(optimizer, given, [sign * gradient for gradient in row])
        results.append(given)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@use
def test_layout_in_memory_makes_no_difference(name: str, options: dict[str, Any]) -> None:
    rng = generator("layout")
    start = torch.tensor(rng.normal(size=(6, 5)))
    row = [torch.tensor(rng.normal(size=(6, 5))) for _ in range(5)]
    results = []
    for arranged in (
        lambda x: x.clone(),
        lambda x: x.T.contiguous().T,
        lambda x: torch.stack([x, x], 2)[..., 0],
    ):
        parameter = nn.Parameter(arranged(start))
        optimizer = CLASSES[name]([parameter], lr=rate(name), **options)
        for gradient in row:
            parameter.grad = arranged(gradient)
            optimizer.step()
        results.append(parameter.detach())
    # Muon's products in bfloat16 may be added up in another order.
    close = {"rtol": 0.0, "atol": 1e-3} if name == "Muon" else {"rtol": 1e-12, "atol": 1e-14}
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], **close)


@pytest.mark.parametrize("value", [0.0, 2.0])
@each
def test_gradients_of_zero_move_nothing(name: str, value: float) -> None:
    start = torch.full((3, 4), value)
    parameter = nn.Parameter(start.clone())
    optimizer = CLASSES[name]([parameter], lr=rate(name), weight_decay=0.0)
    for _ in range(3):
        parameter.grad = torch.zeros(3, 4)
        optimizer.step()
    assert torch.equal(parameter, start)
    for held in optimizer.state[parameter].values():
        assert held.isfinite().all()


@each
def test_parameters_without_a_gradient_are_left_alone(name: str) -> None:
    still, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = CLASSES[name]([still, moved], lr=rate(name), weight_decay=0.1)
    for _ in range(2):
        moved.grad = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
        optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert still not in optimizer.state
    assert not torch.equal(moved, torch.ones(2, 2))


@each
def test_sparse_gradients_and_complex_parameters_are_refused(name: str) -> None:
    parameter = nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.sparse_coo_tensor(
        torch.tensor([[1]]), torch.ones(1, 2), (3, 2), check_invariants=True
    )
    with pytest.raises(InputError, match=f"^{name} is for dense, real parameters and gradients"):
        CLASSES[name]([parameter], lr=rate(name)).step()
    turning = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    turning.grad = torch.ones(3, 2, dtype=torch.complex64)
    with pytest.raises(InputError, match=f"^{name} is for dense, real parameters and gradients"):
        CLASSES[name]([turning], lr=rate(name)).step()
    assert torch.equal(parameter, torch.ones(3, 2))


@each
def test_a_step_that_is_not_finite_can_be_left_out(name: str) -> None:
    row = gradients(name, torch.float32)[0]
    results = []
    for broken in (False, True):
        given = [nn.Parameter(start.clone()) for start in starts(name, torch.float32)]
        optimizer = CLASSES[name](given, lr=rate(name), skip_nonfinite=True)
        step(optimizer, given, row)
        if broken:
            step(optimizer, given, [*row[:-1], torch.full_like(row[-1], torch.nan)])
        step(optimizer, given, row)
        assert optimizer.num_skipped_steps == broken
        results.append(given)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@each
def test_the_rate_may_be_a_tensor_and_change(name: str) -> None:
    results = []
    for held in (rate(name), torch.tensor(rate(name), dtype=torch.float64)):
        given = [nn.Parameter(start.clone()) for start in starts(name, torch.float64)]
        optimizer = CLASSES[name](given, lr=held)
        step(optimizer, given, gradients(name, torch.float64)[0])
        optimizer.param_groups[0]["lr"] = held / 2
        step(optimizer, given, gradients(name, torch.float64)[1])
        results.append(given)
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    for name, cls in CLASSES.items():
        parameter = nn.Parameter(torch.ones(2, 2))
        optimizer = cls([parameter], lr=rate(name))
        calls = []

        def closure(parameter: nn.Parameter = parameter, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            parameter.grad = None
            loss = (parameter**2).sum()
            loss.backward()
            return loss

        assert optimizer.step(closure).item() == 4.0
        assert calls == [1]


# --- one optimizer at a time -----------------------------------------------------------------------------------


def test_lion_moves_by_its_rate_whatever_the_gradient() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.tensor([1e-30, -1e30, 0.0, 3.0])
    lion.Lion([parameter], lr=0.25).step()
    assert parameter.tolist() == [-0.25, 0.25, 0.0, -0.25]


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("clip_exp", [None, 0.25])
def test_adopts_first_step_moves_nothing_whatever_the_gradient(eps: float, clip_exp: float | None) -> None:
    start = torch.tensor([1.0, 2.0, 3.0, 4.0])
    parameter = nn.Parameter(start.clone())
    parameter.grad = torch.tensor([0.0, 1e-30, 1e18, -3.0])
    optimizer = adopt.ADOPT([parameter], lr=0.1, eps=eps, clip_exp=clip_exp, weight_decay=0.1, decouple=True)
    optimizer.step()
    assert torch.equal(parameter, start)
    assert torch.equal(optimizer.state[parameter]["exp_avg_sq"], parameter.grad**2)
    assert not optimizer.state[parameter]["exp_avg"].any()


@pytest.mark.parametrize(
    ("clip_exp", "ends"), [(0.0, [-2.0, -1.5]), (0.5, [-1 - 2**0.5, -1.5]), (None, [-3e6, -1.5])]
)
def test_adopts_limit_grows_with_the_step(clip_exp: float | None, ends: list[float]) -> None:
    """Without memory: v is the last squared gradient, and a step is the quotient of two, held to the limit."""
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = adopt.ADOPT([parameter], lr=1.0, betas=(0.0, 0.0), clip_exp=clip_exp)
    for gradient in ([1.0, 1.0], [1e6, 0.5], [2e12, 0.5]):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    np.testing.assert_allclose(parameter.detach(), ends, rtol=1e-14)


@pytest.mark.parametrize(
    "betas", [(0.9, 0.999, 0.9999), (0.0, 0.999, 0.9), (0.9, 0.999, 0.5), (0.9, 0.999, 0.0)]
)
def test_ademamixs_slow_memory_grows_evenly_in_half_life(betas: tuple[float, float, float]) -> None:
    """beta3 is read off the slow average: it takes in (1 - beta3) of a gradient that comes for the first time."""
    total = 8
    half_life = lambda beta: np.log(0.5) / np.log(beta) if beta > 0 else 0.0  # noqa: E731
    for t in range(1, total + 3):
        parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = ademamix.AdEMAMix([parameter], betas=betas, T_alpha_beta3=total)
        for step_number in range(1, t + 1):
            parameter.grad = torch.full((1,), float(step_number == t), dtype=torch.float64)
            optimizer.step()
        beta3 = 1.0 - optimizer.state[parameter]["exp_avg_slow"].item()
        share = min(t / total, 1.0)
        even = (1 - share) * half_life(betas[0]) + share * half_life(betas[2])
        assert half_life(beta3) == pytest.approx(min(even, half_life(betas[2])), rel=1e-6, abs=1e-9)


def test_adan_keeps_the_last_gradient_and_sees_no_change_at_first() -> None:
    parameter = nn.Parameter(torch.ones(3))
    optimizer = adan.Adan([parameter])
    for gradient in (torch.tensor([1.0, -2.0, 0.0]), torch.tensor([3.0, 1.0, 0.0])):
        parameter.grad = gradient
        optimizer.step()
        assert torch.equal(optimizer.state[parameter]["pre_grad"], gradient)
    change = 0.08 * torch.tensor([2.0, 3.0, 0.0])
    torch.testing.assert_close(optimizer.state[parameter]["exp_avg_diff"], change)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_a_layer_moves_by_a_share_of_its_length(name: str) -> None:
    """However long the layer and its gradient are, and however many elements it has."""
    options = {"LAMB": {"lr": 0.01, "eps": 0.0}, "LARS": {"lr": 10.0, "eps": 0.0, "momentum": 0.0}}[name]
    for scale, slope, size in ((1.0, 1.0, 5), (1e-12, 1e3, 9), (1e12, 1e-6, 70_001)):
        rng = generator("length", size)
        start = scale * torch.tensor(rng.normal(size=size))
        parameter = nn.Parameter(start.clone())
        parameter.grad = slope * torch.tensor(rng.normal(size=size))
        CLASSES[name]([parameter], **options).step()
        share = (parameter.detach() - start).norm() / start.norm()
        assert float(share) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_a_layer_of_zeros_still_moves(name: str) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1.0, -1.0, 1.0])
    CLASSES[name]([parameter], lr=0.5).step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.5, 0.5, -0.5]))


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_evaluating_in_between_changes_nothing(name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        _, undisturbed = walked(name, {}, dtype)
        given = [nn.Parameter(start.clone()) for start in starts(name, dtype)]
        optimizer = CLASSES[name](given, lr=rate(name))
        for row in gradients(name, dtype):
            step(optimizer, given, row)
            training = [parameter.detach().clone() for parameter in given]
            optimizer.eval()
            optimizer.eval()  # a second call is none
            assert len(optimizer.state[given[0]]["z"]) == 1
            optimizer.train()
            optimizer.train()
            assert all(torch.equal(a, b) for a, b in zip(given, training, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(given, undisturbed, strict=True))


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_a_step_in_evaluation_mode_is_refused(name: str) -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = CLASSES[name]([parameter])
    optimizer.eval()  # before the first step all three sequences are one
    assert torch.equal(parameter, torch.ones(2))
    parameter.grad = torch.ones(2)
    with pytest.raises(InputError, match=r"evaluation mode.*train\(\)"):
        optimizer.step()
    assert torch.equal(parameter, torch.ones(2))
    loaded = CLASSES[name]([parameter])
    loaded.load_state_dict(optimizer.state_dict())
    with pytest.raises(InputError, match="evaluation mode"):
        loaded.step()
    loaded.train()
    loaded.step()
    assert not torch.equal(parameter, torch.ones(2))


def test_schedule_free_descent_ends_lower_than_the_weights_it_trains() -> None:
    """The average is what it is for: on a noisy quadratic it is nearer to the optimum than y is."""
    rng = generator("noisy")
    parameter = nn.Parameter(torch.full((50,), 5.0))
    optimizer = schedule_free.ScheduleFreeSGD([parameter], lr=0.5)
    for _ in range(400):
        parameter.grad = parameter.detach() + torch.tensor(rng.normal(size=50), dtype=torch.float32)
        optimizer.step()
    training = float(parameter.detach().norm())
    optimizer.eval()
    assert float(parameter.detach().norm()) < 0.9 * training


AS_TORCH = [
    (options, dtype)
    for options in (*option_sets("Muon"), {"ns_steps": 0}, {"ns_coefficients": (1.5, -0.5, 0.0)})
    for dtype in ("float32", "float64", "bfloat16")
    if options.get("nesterov", True) or dtype != "bfloat16"  # the next test
]


@pytest.mark.parametrize(("options", "dtype"), AS_TORCH, ids=described)
def test_muon_is_torchs_bit_for_bit(options: dict[str, Any], dtype: str) -> None:
    held = DTYPES[dtype]
    _, ours = walked("Muon", options, held)
    theirs = [nn.Parameter(start.clone()) for start in starts("Muon", held)]
    optimizer = torch.optim.Muon(theirs, lr=rate("Muon"), **options)
    for row in gradients("Muon", held):
        step(optimizer, theirs, row)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_muon_leaves_its_momentum_alone_where_torch_overwrites_it() -> None:
    gradient = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    averages = []
    for cls in (muon.Muon, torch.optim.Muon):
        parameter = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
        parameter.grad = gradient.clone()
        optimizer = cls([parameter], momentum=0.5, nesterov=False)
        optimizer.step()
        averages.append(optimizer.state[parameter]["momentum_buffer"])
    assert torch.equal(averages[0], gradient / 2)
    if torch.equal(averages[1], averages[0]):
        pytest.fail("torch no longer overwrites it: take the difference out of Muon's docstring")


def test_muons_state_goes_both_ways_with_torchs() -> None:
    row = gradients("Muon", torch.float32)
    results = []
    for first, second in itertools.product((muon.Muon, torch.optim.Muon), repeat=2):
        given = [nn.Parameter(start.clone()) for start in starts("Muon", torch.float32)]
        before = first(given, lr=0.02)
        step(before, given, row[0])
        after = second(given)
        after.load_state_dict(before.state_dict())
        step(after, given, row[1])
        results.append(given)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.bfloat16, 0.2), (torch.float32, 1e-4), (torch.float64, 1e-12)]
)
def test_muons_iteration_is_as_exact_as_asked_for(dtype: torch.dtype, bound: float) -> None:
    """Against the polynomial applied to the singular values themselves."""
    a, b, c = 3.4445, -4.775, 2.0315
    for shape in ((3, 7), (8, 8), (65, 63)):
        u = torch.tensor(generator("iteration", shape).normal(size=shape))
        left, values, right = torch.linalg.svd(u, full_matrices=False)
        values = values / u.norm()
        for _ in range(5):
            values = a * values + b * values**3 + c * values**5
        found = muon.orthogonalized(u, (a, b, c), 5, 1e-7, dtype)
        assert float((found.double() - left @ torch.diag(values) @ right).abs().max()) <= bound


# --- arguments -------------------------------------------------------------------------------------------------

WRONG = [
    ("Lion", {"lr": -1.0}, "lr is -1.0"),
    ("Lion", {"lr": float("nan")}, "lr is nan"),
    ("Lion", {"lr": torch.ones(2)}, "lr is a tensor of 2 elements"),
    ("Lion", {"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
    ("Lion", {"betas": (0.9,)}, "give 2 numbers"),
    ("Lion", {"weight_decay": -0.1}, "weight_decay is -0.1"),
    ("ADOPT", {"eps": -1.0}, "eps is -1.0"),
    ("ADOPT", {"clip_exp": -0.25}, "clip_exp is -0.25"),
    ("ADOPT", {"betas": (0.9, -0.1)}, "betas is"),
    ("AdEMAMix", {"alpha": -1.0}, "alpha is -1.0"),
    ("AdEMAMix", {"T_alpha_beta3": 0}, "T_alpha_beta3 is 0"),
    ("AdEMAMix", {"betas": (0.9, 0.999)}, "give 3 numbers"),
    ("Adan", {"betas": (0.98, 0.92, 1.5)}, "betas is"),
    ("Adan", {"lr": float("inf")}, "lr is inf"),
    ("LAMB", {"weight_decay": -1.0}, "weight_decay is -1.0"),
    ("LARS", {"momentum": 1.0}, "momentum is 1.0"),
    ("LARS", {"momentum": 0.0, "nesterov": True}, "nesterov is a form of momentum"),
    ("LARS", {"trust_coefficient": 0.0}, "trust_coefficient is 0"),
    ("ScheduleFreeSGD", {"momentum": 0.0}, "momentum is 0.0"),
    ("ScheduleFreeSGD", {"warmup_steps": -1}, "warmup_steps is -1"),
    ("ScheduleFreeAdamW", {"betas": (0.0, 0.999)}, "the average is lost"),
    ("ScheduleFreeAdamW", {"r": -1.0}, "r is -1.0"),
    ("Muon", {"orthogonalize_dtype": torch.float16}, "orthogonalize_dtype is torch.float16"),
    ("Muon", {"ns_steps": 100}, "ns_steps is 100"),
    ("Muon", {"ns_coefficients": (1.0, 2.0)}, "give 3"),
]


@pytest.mark.parametrize(("name", "options", "words"), WRONG)
def test_wrong_arguments_are_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CLASSES[name]([nn.Parameter(torch.zeros(2, 2))], **options)


def test_muon_is_for_matrices() -> None:
    for shape in ((3,), (2, 2, 2), ()):
        with pytest.raises(ValueError, match="2D"):
            muon.Muon([nn.Parameter(torch.zeros(shape))])


@each
def test_unknown_switches_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=r"skip_nonfinte.*skip_nonfinite"):
        CLASSES[name]([nn.Parameter(torch.zeros(2, 2))], skip_nonfinte=True)


# --- the native engine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ENTRIES)
def test_the_native_engine_takes_the_same_steps(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network over full batches in float64: a loop in torch ends at the same weights."""
    entry = ENTRIES[word]
    monkeypatch.setitem(OPTIMIZERS, word, entry)
    rng = generator("engine")
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    data = TrainingData("regression", 1, x, y, x, y)
    architecture = Architecture((4,), "tanh")
    sizes = [3, 4, 1]
    start = 0.5 * rng.normal(size=sum((i + 1) * o for i, o in itertools.pairwise(sizes)))
    options = {"weight_decay": 0.01}
    run = Run(
        "mse",
        word,
        entry.default_lr,
        "full",
        architecture=architecture,
        optimizer_options=options,
        stop=Stop(max_epochs=25),
    )
    (record,) = NativeEngine(data, "rmse", "float64").run_all([run], initial=start)
    assert record is not None
    model = build_module(sizes, architecture, start)
    optimizer = entry.cls(model.parameters(), lr=entry.default_lr, **options)
    inputs, targets = torch.tensor(x), torch.tensor(y)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs)[:, 0], targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(record.curve.train_loss, losses, rtol=1e-10)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("word", ENTRIES)
def test_an_entry_says_what_is_so(word: str) -> None:
    entry = ENTRIES[word]
    assert entry.name == word
    assert not entry.compared_by_default
    assert entry.default_lr == inspect.signature(entry.cls).parameters["lr"].default
    assert entry.rates[0] <= entry.default_lr <= entry.rates[1]

"""What is particular to torch's further optimizers: rule by rule, and what their state goes through."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steepest.errors import InputError
from steepest.optim import adadelta, adagrad, adamax, asgd, nadam, radam, rprop

from .published_torch import CHOICES, PUBLISHED
from .samples import DTYPES, generator

MODULES = (adagrad, adadelta, adamax, nadam, radam, rprop, asgd)
ENTRIES = {entry.name: entry for module in MODULES for entry in module.ENTRIES}
CLASSES: dict[str, Any] = {entry.cls.__name__: entry.cls for entry in ENTRIES.values()}
PEERS: dict[str, Any] = {name: getattr(torch.optim, name) for name in CLASSES}
SCALARS = {"NAdam": ("mu_product",), "ASGD": ("eta", "mu")}

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097)
NUM_STEPS = 20
RATE = 0.01
BAR = 20.0  # one rounding a step, in units of half the type's spacing at what the parameter and its steps add up to
MEANING = 1000.0  # so far off torch may be and still mean the same: its RAdam in float64, 848
CLOSE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}  # float64: some steps of a few roundings each

by_class = pytest.mark.parametrize("name", CLASSES)


def option_sets(name: str) -> list[dict[str, Any]]:
    """Each argument alone away from its default, and all of them at once."""
    away = {key: values[1:] for key, values in CHOICES[name].items()}
    for key, parameter in inspect.signature(CLASSES[name]).parameters.items():
        if key in ("maximize", "decoupled_weight_decay"):
            away[key] = (True,)
        elif key == "weight_decay":
            away[key] = (0.1,)
        assert key not in away or parameter.default not in away[key]
    alone: list[dict[str, Any]] = [{key: value} for key, values in away.items() for value in values]
    return [{}, *alone, {key: values[0] for key, values in away.items()}]


CASES = [(name, options) for name in CLASSES for options in option_sets(name)]
used = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


@contextlib.contextmanager
def scalars_in(dtype: torch.dtype) -> Iterator[None]:
    """torch keeps mu_product, eta and mu in the default type, which for float64 parameters is too narrow."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64 if dtype == torch.float64 else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def starts(dtype: torch.dtype) -> list[Tensor]:
    rng = generator("further optimizers, start")
    return [torch.tensor(rng.normal(size=size)).to(dtype) for size in SIZES]


def gradients(dtype: torch.dtype) -> list[list[Tensor]]:
    """One list a step: over five orders of magnitude, and now and then exactly 0."""
    rng = generator("further optimizers, gradients")
    draw = lambda n: rng.normal(size=n) * 10.0 ** rng.uniform(-4, 1, n) * (rng.uniform(size=n) > 0.02)  # noqa: E731
    return [[torch.tensor(draw(size)).to(dtype) for size in SIZES] for _ in range(NUM_STEPS)]


def walked(cls: Any, options: dict[str, Any], dtype: torch.dtype) -> list[Tensor]:
    parameters = [nn.Parameter(start) for start in starts(dtype)]
    optimizer = cls(parameters, lr=RATE, **options)
    for row in gradients(dtype):
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


def true_paths(name: str, options: dict[str, Any], dtype: torch.dtype) -> list[list[Any]]:
    """For each size: where the parameter is before the first and after each step, with digits to spare."""
    wide = np.longdouble if dtype == torch.float64 else np.float64
    signature = inspect.signature(CLASSES[name]).parameters
    given = {key: parameter.default for key, parameter in signature.items()} | {"lr": RATE} | options
    paths: list[list[Any]] = [[start.double().numpy().astype(wide)] for start in starts(dtype)]
    states: list[dict[str, Any]] = [{} for _ in SIZES]
    for t, row in enumerate(gradients(dtype), 1):
        for path, state, gradient in zip(paths, states, row, strict=True):
            path.append(PUBLISHED[name](path[-1], gradient.double().numpy().astype(wide), state, t, given))
    return paths


def roundings_off(paths: list[list[Any]], dtype: torch.dtype, ends: list[Tensor]) -> float:
    """The largest error, in roundings of what the parameter and its steps add up to."""
    worst = 0.0
    for path, end in zip(paths, ends, strict=True):
        moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
        off = np.abs(end.double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)
        worst = max(worst, float(np.max(off)))
    return worst


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@used
def test_twenty_steps_against_the_published_rule(name: str, options: dict[str, Any], dtype: str) -> None:
    held = DTYPES[dtype]
    paths = true_paths(name, options, held)
    with scalars_in(held):
        its = roundings_off(paths, held, walked(PEERS[name], options, held))
    assert its <= MEANING, f"torch is {its:.2f} roundings off: it means something else by these options"
    off = roundings_off(paths, held, walked(CLASSES[name], options, held))
    assert off <= min(BAR, 1.5 * its + 3), f"{off:.2f} roundings off, torch {its:.2f}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@used
def test_half_types_are_no_further_off_than_torch(name: str, options: dict[str, Any], dtype: str) -> None:
    held = DTYPES[dtype]
    paths = true_paths(name, options, held)

    def mean_error(ends: list[Tensor]) -> float:
        errors = [np.abs(end.double().numpy() - path[-1]) for path, end in zip(paths, ends, strict=True)]
        return float(np.mean(np.concatenate(errors)))

    ours = mean_error(walked(CLASSES[name], options, held))
    theirs = mean_error(walked(PEERS[name], {**options, "foreach": False}, held))
    assert np.isfinite(ours)
    assert ours <= 1.02 * theirs or not np.isfinite(theirs)  # 4314 elements: luck is worth a per cent or two


# --- state -----------------------------------------------------------------------------------------------------


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    rng = generator("further optimizers", shapes)
    return [nn.Parameter(torch.tensor(rng.normal(size=shape)).to(dtype)) for shape in shapes]


def steps(optimizer: Any, given: list[nn.Parameter], numbers: range) -> None:
    for step in numbers:
        for i, parameter in enumerate(given):
            rng = generator("further optimizers", i, step)
            parameter.grad = torch.tensor(rng.normal(size=parameter.shape)).to(parameter.dtype)
        optimizer.step()


def same(mine: list[nn.Parameter], its: list[nn.Parameter], **tolerance: Any) -> None:
    for a, b in zip(mine, its, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), **(tolerance or CLOSE))


SHAPES = ((3,), (4, 5), (2, 3, 2))


@pytest.mark.parametrize("order", ["ours first", "torch first"])
@used
def test_state_goes_both_ways_in_the_middle_of_a_run(name: str, options: dict[str, Any], order: str) -> None:
    first, second = (CLASSES, PEERS) if order == "ours first" else (PEERS, CLASSES)
    with scalars_in(torch.float64):
        alone, given = parameters(*SHAPES), parameters(*SHAPES)
        steps(PEERS[name](alone, lr=RATE, **options), alone, range(14))
        before = first[name](given, lr=RATE, **options)
        steps(before, given, range(7))
        moved = [nn.Parameter(parameter.detach().clone()) for parameter in given]
        after = second[name](moved, lr=0.5)  # every option comes with the state
        after.load_state_dict(copy.deepcopy(before.state_dict()))
        steps(after, moved, range(7, 14))
        same(moved, alone)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@by_class
def test_the_state_has_torchs_names_shapes_and_types(name: str, dtype: str) -> None:
    states = []
    for cls in (CLASSES[name], PEERS[name]):
        given = parameters(*SHAPES, dtype=DTYPES[dtype])
        optimizer = cls(given, lr=RATE)
        steps(optimizer, given, range(2))
        states.append(optimizer.state_dict()["state"])
    assert states[0].keys() == states[1].keys()
    for mine, its in zip(states[0].values(), states[1].values(), strict=True):
        assert mine.keys() == its.keys()
        for key in its:
            assert mine[key].shape == its[key].shape, key
            if key not in SCALARS.get(name, ()):  # those may be wider than torch's
                assert mine[key].dtype == its[key].dtype, key
    assert set(SCALARS.get(name, ())) <= set(states[0][0])


def test_the_number_mu_product_is_dozats() -> None:
    given = parameters((3,))
    optimizer = nadam.NAdam(given, momentum_decay=0.1)
    steps(optimizer, given, range(5))
    expected = np.prod([0.9 * (1 - 0.5 * 0.96 ** (0.1 * t)) for t in range(1, 6)])
    assert float(optimizer.state[given[0]]["mu_product"]) == pytest.approx(expected, rel=1e-14)


# --- what torch alone can do -----------------------------------------------------------------------------------


@by_class
def test_sparse_gradients_as_torch(name: str) -> None:
    results: list[Any] = []
    for cls in (CLASSES[name], PEERS[name]):
        layer = nn.Embedding(5, 2, sparse=True, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(parameters((5, 2))[0])
        optimizer = cls(layer.parameters(), lr=0.1)
        try:
            with (
                torch.sparse.check_sparse_tensor_invariants()
            ):  # torch warns unless asked for them, or not to
                for rows in ([0, 1], [1, 1, 4], [2]):
                    optimizer.zero_grad()
                    (layer(torch.tensor(rows)) ** 2).sum().backward()
                    optimizer.step()
            results.append(layer.weight.detach())
        except RuntimeError as error:
            results.append(str(error))
    if name == "Adagrad":
        torch.testing.assert_close(*results, **CLOSE)
    else:
        assert results[0] == results[1] == f"{name} does not support sparse gradients"


@by_class
def test_complex_parameters_as_torch(name: str) -> None:
    results = []
    for cls in (CLASSES[name], PEERS[name]):
        given = [nn.Parameter(torch.view_as_complex(parameters((3, 2))[0].detach().clone()))]
        optimizer = cls(given, lr=0.1)
        for step in range(3):
            rng = generator("complex", step)
            given[0].grad = torch.complex(*(torch.tensor(rng.normal(size=3)) for _ in range(2)))
            optimizer.step()
        results.append(given)
    same(*results)


@by_class
def test_a_differentiable_step_as_torch(name: str) -> None:
    results = []
    for cls in (CLASSES[name], PEERS[name]):
        start = parameters((4,))[0].detach().clone().requires_grad_()
        parameter = start * 1.0
        optimizer = cls([parameter], lr=0.1, differentiable=True)
        parameter.grad = torch.linspace(-1, 1, 4, dtype=torch.float64)
        optimizer.step()
        results.append(torch.autograd.grad((parameter**2).sum(), start)[0])
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.parametrize(
    "name", [name for name in CLASSES if name != "Adagrad"]
)  # which has no such argument
def test_capturable_is_torchs(name: str) -> None:
    """torch takes it on accelerators alone, and says so in the step."""
    messages = []
    for cls in (CLASSES[name], PEERS[name]):
        given = parameters((3,))
        with pytest.raises(AssertionError, match="If capturable=True") as caught:
            steps(cls(given, lr=0.1, capturable=True), given, range(1))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@by_class
def test_a_step_with_a_bad_gradient_is_left_out(name: str) -> None:
    options = {"skip_nonfinite": True}
    given, spared = parameters((4,)), parameters((4,))
    optimizer, other = CLASSES[name](given, lr=RATE, **options), CLASSES[name](spared, lr=RATE, **options)
    steps(optimizer, given, range(3))
    steps(other, spared, range(3))
    given[0].grad = torch.tensor([1.0, float("nan"), 0.0, 1.0], dtype=torch.float64)
    optimizer.step()
    assert (optimizer.num_skipped_steps, other.num_skipped_steps) == (1, 0)
    steps(optimizer, given, range(3, 6))
    steps(other, spared, range(3, 6))
    same(given, spared, rtol=0, atol=0)
    with pytest.raises(TypeError, match="skip_nonfinit"):
        CLASSES[name](given, skip_nonfinit=True)


# --- rule by rule ----------------------------------------------------------------------------------------------


def test_adagrad_makes_its_state_before_the_first_step() -> None:
    given = parameters((2,), (3,))
    optimizer = adagrad.Adagrad(given, initial_accumulator_value=0.5)
    for parameter in given:
        assert optimizer.state[parameter]["sum"].tolist() == [0.5] * len(parameter)
        assert float(optimizer.state[parameter]["step"]) == 0.0


@pytest.mark.parametrize("joins_later", [False, True])
def test_an_adagrad_group_begins_at_its_own_value(joins_later: bool) -> None:
    given = parameters((2,), (2,))
    groups: list[dict[str, Any]] = [
        {"params": given[:1]},
        {"params": given[1:], "initial_accumulator_value": 3.0},
    ]
    optimizer = adagrad.Adagrad(groups[: 2 - joins_later], initial_accumulator_value=0.5)
    if joins_later:
        optimizer.add_param_group(groups[1])
    steps(optimizer, given, range(1))
    for parameter, start in zip(given, (0.5, 3.0), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(optimizer.state[parameter]["sum"], start + parameter.grad**2, **CLOSE)


def test_asgd_takes_the_rate_of_the_step_before() -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = asgd.ASGD([parameter], lr=0.5, lambd=0.1, alpha=0.75)
    lengths = []
    for _ in range(4):
        before = float(parameter.detach())
        parameter.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        lengths.append(before - float(parameter.detach()))
    etas = [0.5, *(0.5 / (1 + 0.1 * 0.5 * t) ** 0.75 for t in (1, 2, 3))]
    at = 0.0
    for length, eta in zip(lengths, etas, strict=True):
        assert length == pytest.approx(eta * (1 + 0.1 * at), rel=1e-12)
        at -= length


def test_asgd_averages_where_it_has_been_from_t0_on() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
    optimizer = asgd.ASGD([parameter], lr=0.1, t0=4)
    path = []
    for step in range(12):
        steps(optimizer, [parameter], range(step, step + 1))
        path.append(parameter.detach().clone())
        average = optimizer.state[parameter]["ax"]
        if step < 5:
            assert torch.equal(average, path[-1])
    # mu is worked out a step ahead: 1 is taken up to step 6, then 1/2, 1/3, ...
    torch.testing.assert_close(average, torch.stack(path[5:]).mean(0), **CLOSE)


def test_rprop_stays_where_the_sign_turns_and_forgets_the_gradient() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = rprop.Rprop([parameter], lr=0.25, etas=(0.5, 2.0))
    ends = []
    for gradient in ([1.0, 1.0, 0.0], [2.0, -3.0, 1.0], [1.0, -3.0, 1.0]):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        ends.append(parameter.detach().tolist())
    assert ends == [[-0.25, -0.25, 0.0], [-0.75, -0.25, -0.25], [-1.75, -0.125, -0.75]]
    assert optimizer.state[parameter]["prev"].tolist() == [1.0, -3.0, 1.0]
    assert optimizer.state[parameter]["step_size"].tolist() == [1.0, 0.125, 0.5]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_rprop_knows_the_sign_of_the_smallest_gradients(dtype: str) -> None:
    """torch takes the sign of their product, which rounds to 0."""
    parameter = nn.Parameter(torch.zeros(2, dtype=DTYPES[dtype]))
    optimizer = rprop.Rprop([parameter], lr=0.25, etas=(0.5, 2.0))
    least = torch.finfo(DTYPES[dtype]).smallest_normal
    for gradient in ([least, least], [least, -least]):
        parameter.grad = torch.tensor(gradient, dtype=DTYPES[dtype])
        optimizer.step()
    assert parameter.detach().tolist() == [-0.75, -0.25]


def test_rprop_starts_at_lr_and_knows_no_rate_afterwards() -> None:
    given, other = parameters((4,)), parameters((4,))
    for these, later in ((given, 0.1), (other, 7.0)):
        optimizer = rprop.Rprop(these, lr=0.1)
        steps(optimizer, these, range(2))
        optimizer.param_groups[0]["lr"] = later
        steps(optimizer, these, range(2, 5))
    same(given, other, rtol=0, atol=0)


@pytest.mark.parametrize(("beta2", "first"), [(0.999, 6), (0.75, 8), (0.5, None)])
def test_radam_divides_once_it_knows_the_variance(beta2: float, first: int | None) -> None:
    """Until then a step is as long as the gradient is large."""
    small, large = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    optimizer = radam.RAdam([small, large], lr=0.1, betas=(0.9, beta2), eps=0.0)
    for t in range(1, 21):
        before = [float(parameter.detach()) for parameter in (small, large)]
        small.grad, large.grad = (torch.full((1,), size, dtype=torch.float64) for size in (1.0, 1000.0))
        optimizer.step()
        moved = [b - float(p.detach()) for b, p in zip(before, (small, large), strict=True)]
        divided = first is not None and t >= first
        assert moved[1] / moved[0] == pytest.approx(1.0 if divided else 1000.0, rel=1e-9)


def test_radam_moves_before_it_divides_whatever_v_is() -> None:
    """g**2 is past float32's range; the first steps do not need it."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.tensor([1e30])
    radam.RAdam([parameter], lr=1e-30).step()
    assert float(parameter.detach()) == pytest.approx(-1.0, rel=1e-6)


def test_adamax_needs_no_squares() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([1e-30, 1.0, 1e30])
    adamax.Adamax([parameter], lr=0.125, eps=0.0).step()
    assert parameter.detach().tolist() == [-0.125] * 3


# --- arguments -------------------------------------------------------------------------------------------------


@by_class
def test_is_torchs_class_with_torchs_arguments(name: str) -> None:
    assert issubclass(CLASSES[name], PEERS[name])
    mine = inspect.signature(CLASSES[name]).parameters
    theirs = inspect.signature(PEERS[name]).parameters
    assert list(mine) == [*theirs, "switches"]
    for word, parameter in theirs.items():
        assert (mine[word].default, mine[word].kind) == (parameter.default, parameter.kind)


@by_class
def test_every_argument_reaches_torch(name: str) -> None:
    """Each away from its default and from the others."""
    given: dict[str, Any] = {
        "lr": 0.3, "lr_decay": 0.11, "weight_decay": 0.12, "initial_accumulator_value": 0.13, "eps": 0.14,
        "rho": 0.15, "betas": (0.16, 0.17), "momentum_decay": 0.18, "etas": (0.19, 1.3), "step_sizes": (0.2, 0.21),
        "lambd": 0.22, "alpha": 0.23, "t0": 0.24, "maximize": True, "decoupled_weight_decay": True,
    }  # fmt: skip
    taken = {key: given[key] for key in inspect.signature(PEERS[name]).parameters if key in given}
    for flag in ("foreach", "capturable", "differentiable", "fused"):
        if flag in inspect.signature(PEERS[name]).parameters:
            options = {**taken, flag: True}
            mine, its = (cls(parameters((2,)), **options).defaults for cls in (CLASSES[name], PEERS[name]))
            assert mine == its


WRONG: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    *((name, {"lr": -0.1}, ValueError, "learning rate") for name in CLASSES),
    ("Adagrad", {"lr_decay": -1.0}, ValueError, "lr_decay"),
    ("Adadelta", {"rho": 1.5}, ValueError, "rho"),
    ("Adamax", {"betas": (1.0, 0.9)}, ValueError, "beta"),
    ("NAdam", {"momentum_decay": -1.0}, ValueError, "momentum_decay"),
    ("RAdam", {"eps": -1.0}, ValueError, "epsilon"),
    ("Rprop", {"etas": (1.2, 0.5)}, ValueError, "eta"),
    ("Rprop", {"step_sizes": (50, 1e-6)}, InputError, "in this order"),
    ("ASGD", {"lambd": -1.0}, InputError, "lambd is -1"),
    ("ASGD", {"alpha": float("nan")}, InputError, "alpha is nan"),
]


@pytest.mark.parametrize(("name", "options", "error", "words"), WRONG, ids=str)
def test_wrong_arguments_are_refused(
    name: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        CLASSES[name](parameters((1,)), **options)


@pytest.mark.parametrize("word", ENTRIES)
def test_an_entry_says_what_its_class_does_untuned(word: str) -> None:
    entry = ENTRIES[word]
    assert entry.default_lr == inspect.signature(entry.cls).parameters["lr"].default
    assert entry.rates[0] < entry.default_lr < entry.rates[1]
    assert entry.cls.__name__.lower() == word

"""Every optimizer as a drop-in for the torch class of its name: state, groups, closures, hooks, schedulers, scaling."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from steepest.errors import InputError
from steepest.optim import OPTIMIZERS, SGD, Adam, AdamW, RMSprop

from .optimizer_truth import option_sets, peer_options
from .published_torch import PUBLISHED as FURTHER  # test_optimizers_of_torch.py runs these
from .samples import generator

CLASSES = {entry.cls.__name__: entry.cls for entry in OPTIMIZERS.values()}
PEERS = {name: getattr(torch.optim, name) for name in CLASSES if hasattr(torch.optim, name)}
# Ways to use a class that keep different state; each is run against torch's.
USED = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("RMSprop", {"weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True, "maximize": True}),
]
CLOSE = {"rtol": 1e-12, "atol": 1e-14}  # float64: some steps of a few roundings each
use = pytest.mark.parametrize(("name", "options"), USED)


def parameters(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    rng = generator("parameters", shapes)
    return [nn.Parameter(torch.tensor(rng.normal(size=shape)).to(dtype)) for shape in shapes]


def set_gradients(given: list[nn.Parameter], step: int) -> None:
    for i, parameter in enumerate(given):
        rng = generator("gradient", i, step)
        parameter.grad = torch.tensor(rng.normal(size=parameter.shape)).to(parameter.dtype)


def steps(optimizer: Any, given: list[nn.Parameter], numbers: range) -> None:
    for step in numbers:
        set_gradients(given, step)
        optimizer.step()


def same(a: list[nn.Parameter], b: list[nn.Parameter], **tolerance: Any) -> None:
    for mine, its in zip(a, b, strict=True):
        torch.testing.assert_close(mine.detach(), its.detach(), **(tolerance or CLOSE))


SHAPES = ((3,), (4, 5), (2, 3, 2))


@pytest.mark.parametrize("name", PEERS)
def test_is_torchs_class_with_torchs_arguments(name: str) -> None:
    ours, theirs = CLASSES[name], PEERS[name]
    assert issubclass(ours, theirs)
    mine = inspect.signature(ours).parameters
    for word, parameter in inspect.signature(theirs).parameters.items():
        assert mine[word].default == parameter.default
        assert mine[word].kind == parameter.kind
    assert list(mine)[: len(inspect.signature(theirs).parameters)] == list(
        inspect.signature(theirs).parameters
    )


@pytest.mark.parametrize("name", [name for name in PEERS if name not in FURTHER])
def test_every_class_with_a_peer_is_used_below(name: str) -> None:
    if len(list(option_sets(CLASSES[name]))) > 1:
        assert any(used == name for used, _ in USED), f"add {name} to USED"


# --- state ---------------------------------------------------------------------------------------------------


@use
@pytest.mark.parametrize("order", ["ours first", "torch first"])
def test_state_goes_both_ways_in_the_middle_of_a_run(name: str, options: dict[str, Any], order: str) -> None:
    first, second = (CLASSES, PEERS) if order == "ours first" else (PEERS, CLASSES)
    alone, given = parameters(*SHAPES), parameters(*SHAPES)
    steps(PEERS[name](alone, lr=0.01, **options), alone, range(14))

    before = first[name](given, lr=0.01, **options)
    steps(before, given, range(7))
    state = copy.deepcopy(before.state_dict())
    moved = [nn.Parameter(parameter.detach().clone()) for parameter in given]
    after = second[name](moved, lr=0.5)  # every option comes with the state
    after.load_state_dict(state)
    steps(after, moved, range(7, 14))
    same(moved, alone)
    for key, value in after.state_dict()["state"].get(0, {}).items():
        if isinstance(value, Tensor) and key != "step":
            assert value.dtype == torch.float64


@use
def test_the_state_has_torchs_names_types_and_shapes(name: str, options: dict[str, Any]) -> None:
    states = []
    for classes in (CLASSES, PEERS):
        given = parameters(*SHAPES, dtype=torch.float32)
        optimizer = classes[name](given, lr=0.01, **options)
        steps(optimizer, given, range(2))
        states.append(optimizer.state_dict()["state"])
    assert states[0].keys() == states[1].keys()
    for mine, its in zip(states[0].values(), states[1].values(), strict=True):
        described = [
            {key: (value.dtype, value.shape) for key, value in slots.items() if value is not None}
            for slots in (mine, its)
        ]
        assert described[0] == described[1]


@use
def test_saving_and_loading_changes_nothing(name: str, options: dict[str, Any]) -> None:
    given, other = parameters(*SHAPES), parameters(*SHAPES)
    whole = CLASSES[name](given, lr=0.01, **options)
    steps(whole, given, range(10))
    first = CLASSES[name](other, lr=0.01, **options)
    steps(first, other, range(4))
    second = CLASSES[name](other, lr=0.01, **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, other, range(4, 10))
    same(other, given, rtol=0, atol=0)


@use
def test_the_state_of_half_types_keeps_its_type(name: str, options: dict[str, Any]) -> None:
    given = parameters((5,), dtype=torch.bfloat16)
    optimizer = CLASSES[name](given, lr=0.01, **options)
    steps(optimizer, given, range(2))
    for key, value in optimizer.state[given[0]].items():
        if isinstance(value, Tensor) and key != "step":
            assert value.dtype == torch.bfloat16


def test_a_slot_that_joins_later_leaves_the_others_alone() -> None:
    """Momentum switched on in the middle of a run: the mean square keeps what it has seen."""
    given = parameters((4,))
    optimizer = RMSprop(given, lr=0.01)
    steps(optimizer, given, range(3))
    before = optimizer.state[given[0]]["square_avg"].clone()
    optimizer.param_groups[0]["momentum"] = 0.9
    set_gradients(given, 3)
    optimizer.step()
    expected = 0.99 * before + 0.01 * given[0].grad ** 2
    torch.testing.assert_close(optimizer.state[given[0]]["square_avg"], expected, **CLOSE)


# --- groups and arguments ------------------------------------------------------------------------------------


@use
def test_parameter_groups(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters(*SHAPES, (6,))
        optimizer = classes[name](
            [{"params": given[:1], "lr": 0.1}, {"params": given[1:3], "weight_decay": 0.3}],
            lr=0.01,
            **options,
        )
        steps(optimizer, given[:3], range(3))
        optimizer.add_param_group({"params": given[3:], "lr": 0.02})
        steps(optimizer, given, range(3, 6))
        results.append(given)
    same(*results)


@use
def test_a_rate_that_is_a_tensor(name: str, options: dict[str, Any]) -> None:
    results = []
    for rate in (0.01, torch.tensor(0.01, dtype=torch.float64)):
        given = parameters(*SHAPES)
        optimizer = CLASSES[name](given, lr=rate, **options)
        steps(optimizer, given, range(3))
        if isinstance(rate, Tensor):
            rate.mul_(2)  # as a scheduler of tensors does
        else:
            optimizer.param_groups[0]["lr"] = 0.02
        steps(optimizer, given, range(3, 6))
        results.append(given)
    same(*results, rtol=0, atol=0)


@use
@pytest.mark.parametrize("flags", [{"foreach": True}, {"foreach": False}, {"fused": True}, {"fused": False}])
def test_torchs_ways_are_accepted_and_change_nothing(
    name: str, options: dict[str, Any], flags: dict[str, bool]
) -> None:
    if not set(flags) <= set(inspect.signature(PEERS[name]).parameters):
        with pytest.raises(TypeError):
            CLASSES[name](parameters(*SHAPES), **flags)
        return
    results = []
    for given_flags in ({}, flags):
        given = parameters(*SHAPES, dtype=torch.float32)
        steps(CLASSES[name](given, lr=0.01, **options, **given_flags), given, range(5))
        results.append(given)
    same(*results, rtol=0, atol=0)


@use
def test_parameters_without_a_gradient_are_left_alone(name: str, options: dict[str, Any]) -> None:
    given = parameters(*SHAPES)
    before = given[1].detach().clone()
    optimizer = CLASSES[name](given, lr=0.01, **options)
    set_gradients(given, 0)
    given[1].grad = None
    optimizer.step()
    assert torch.equal(given[1].detach(), before)
    assert not optimizer.state.get(given[1])
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in given)
    set_gradients(given, 1)
    optimizer.zero_grad(set_to_none=False)
    assert all(not parameter.grad.any() for parameter in given)


@pytest.mark.parametrize(
    ("name", "entry"), [("Adam", "step"), ("Adagrad", "step"), ("NAdam", "step"), ("NAdam", "mu_product")]
)
def test_a_count_that_somebody_sets_is_that_parameters_alone(name: str, entry: str) -> None:
    """While all tensors lie where they did, and one of them is not the others' like any longer."""
    both = [(CLASSES[name], parameters(*SHAPES)), (PEERS[name], parameters(*SHAPES))]
    for cls, given in both:
        optimizer = cls(given, lr=0.1)
        steps(optimizer, given, range(3))
        optimizer.state[given[1]][entry].mul_(0.5)
        steps(optimizer, given, range(3, 6))
    for mine, theirs in zip(both[0][1], both[1][1], strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize(
    ("name", "options"), [*USED, *((name, {}) for name in sorted(PEERS.keys() - {name for name, _ in USED}))]
)
def test_a_parameter_listed_twice_is_stepped_twice(name: str, options: dict[str, Any]) -> None:
    ends = []
    for cls in (CLASSES[name], PEERS[name]):
        first, second = given = parameters((4, 5), (3,))
        steps(cls([first, second, first], lr=0.05, **options), given, range(5))
        ends.append(given)
    same(*ends)


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Lion", {}),
        ("Adan", {}),
        ("Adam", {"convention": "keras"}),
        ("SGD", {"momentum": 0.9, "convention": "ema"}),
    ],
)
def test_a_parameter_listed_twice_where_torch_has_no_such_step(name: str, options: dict[str, Any]) -> None:
    """Two steps, one after the other, of the same gradient."""
    (twice,), (once,) = parameters((4, 5)), parameters((4, 5))
    mine, plain = (CLASSES[name](given, lr=0.05, **options) for given in ([twice, twice], [once]))
    for step in range(4):
        steps(mine, [twice], range(step, step + 1))
        steps(plain, [once], range(step, step + 1))
        plain.step()
    same([twice], [once])
    with pytest.raises(
        InputError, match=r"in_backward is for .* listed once; one of shape \(4, 5\) is listed twice"
    ):
        CLASSES[name]([twice, twice], in_backward=True, **options)


@use
def test_closures(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters((4,))
        optimizer = classes[name](given, lr=0.01, **options)

        def closure(given: list[nn.Parameter] = given, optimizer: Any = optimizer) -> Tensor:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = (given[0] ** 2).sum()
            loss.backward()
            return loss

        expected = float((given[0].detach() ** 2).sum())
        with torch.no_grad():
            assert float(optimizer.step(closure).detach()) == expected
        assert float(optimizer.step(closure).detach()) != expected
        results.append(given)
    same(*results)


@use
@pytest.mark.parametrize("sparse", [False, True])
def test_step_hooks_are_called_once(name: str, options: dict[str, Any], sparse: bool) -> None:
    """Sparse gradients are torch's to handle: its own step has hooks of its own, which must stay out."""
    steps(
        PEERS[name](given := parameters((2,)), lr=0.01, **options), given, range(1)
    )  # torch hooks its class now
    layer = nn.Embedding(4, 2, sparse=sparse, dtype=torch.float64)
    optimizer = CLASSES[name](layer.parameters(), lr=0.01, **options)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    layer(torch.tensor([1, 2])).sum().backward()
    if sparse and not torch_takes_sparse(name, options):
        with pytest.raises(RuntimeError, match="sparse"):
            optimizer.step()
        return
    optimizer.step()
    assert calls == ["before", "after"]


def torch_takes_sparse(name: str, options: dict[str, Any]) -> bool:
    layer = nn.Embedding(4, 2, sparse=True)
    layer(torch.tensor([1, 2])).sum().backward()
    try:
        PEERS[name](layer.parameters(), lr=0.01, **options).step()
    except RuntimeError:
        return False
    return True


SCHEDULES: list[Callable[[Any], Any]] = [
    lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=8, cycle_momentum=False),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], milestones=[3]
    ),
]


@use
@pytest.mark.parametrize("schedule", range(len(SCHEDULES)))
def test_learning_rate_schedules(name: str, options: dict[str, Any], schedule: int) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters((5,))
        optimizer = classes[name](given, lr=0.01, **options)
        scheduler = SCHEDULES[schedule](optimizer)
        for step in range(6):
            steps(optimizer, given, range(step, step + 1))
            scheduler.step()
        results.append(given)
    same(*results)


@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_a_schedule_of_the_momentum(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters((5,))
        optimizer = classes[name](given, lr=0.01, **options)
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8)
        for step in range(6):
            steps(optimizer, given, range(step, step + 1))
            scheduler.step()
        results.append(given)
    same(*results)


@use
@pytest.mark.parametrize("flags", [{}, {"fused": True}])
@pytest.mark.parametrize("overflow", [False, True])
def test_gradient_scaling(name: str, options: dict[str, Any], flags: dict[str, bool], overflow: bool) -> None:
    """GradScaler leaves unscaling to torch's fused kernels; here it must not."""
    if not set(flags) <= set(inspect.signature(PEERS[name]).parameters):
        return
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters((6,), dtype=torch.float32)
        optimizer = classes[name](given, lr=0.01, **options, **(flags if classes is CLASSES else {}))
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(3):
            optimizer.zero_grad()
            factor = float("inf") if overflow and step == 1 else 1.0
            loss = (given[0] * given[0].detach()).sum() * factor
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer) if step == 2 else None
            scaler.step(optimizer)
            scaler.update()
        results.append(given)
    same(*results, rtol=2e-6, atol=1e-7)


@use
def test_clipped_gradients_and_a_copied_optimizer(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        model = nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            for parameter, start in zip(model.parameters(), parameters((2, 3), (2,)), strict=True):
                parameter.copy_(start)
        optimizer = classes[name](model.parameters(), lr=0.1, **options)
        for step in range(4):
            set_gradients(list(model.parameters()), step)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        together = copy.deepcopy({"model": model, "optimizer": optimizer})
        steps(together["optimizer"], list(together["model"].parameters()), range(4, 6))
        results.append(list(together["model"].parameters()))
    same(*results)


# --- tensors that are not plain ------------------------------------------------------------------------------


@use
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parameters_that_do_not_lie_side_by_side(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    start = parameters((6, 4), dtype=dtype)[0].detach()
    scattered = [start.t(), start[:, ::2], start[:1].expand(6, 4).clone().t()]
    results = []
    for make in (lambda x: x.clone(memory_format=torch.preserve_format), lambda x: x.contiguous().clone()):
        given = [nn.Parameter(make(x)) for x in scattered]
        given.append(
            nn.Parameter(torch.zeros(2, 3, 4, 5, dtype=dtype).contiguous(memory_format=torch.channels_last))
        )
        optimizer = CLASSES[name](given, lr=0.01, **options)
        for step in range(5):
            set_gradients(given, step)
            # The gradient need not lie as the parameter does.
            given[0].grad = given[0].grad.t().contiguous().t()
            optimizer.step()
        results.append(given)
    assert not results[0][0].is_contiguous()
    eps = torch.finfo(dtype).eps
    same(*results, rtol=16 * eps, atol=16 * eps)


def _images(dtype: torch.dtype, *, channels_last: bool) -> list[nn.Parameter]:
    made = parameters((4, 3, 2, 5), (2, 3, 2, 2, 3), (7,), dtype=dtype)
    if channels_last:
        for parameter, form in zip(made, (torch.channels_last, torch.channels_last_3d), strict=False):
            parameter.data = parameter.data.contiguous(memory_format=form)
    return made


def _steps_as_laid_out(optimizer: Any, given: list[nn.Parameter], numbers: range) -> None:
    """With gradients as backward passes make them: in their parameters' order."""
    for step in numbers:
        set_gradients(given, step)
        for parameter in given:
            assert parameter.grad is not None
            parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)
        optimizer.step()


ELEMENTWISE = [
    (name, options) for name in CLASSES if name != "Muon" for options in option_sets(CLASSES[name])
]


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_last_parameters_are_stepped_by_the_kernels(
    name: str, options: dict[str, Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch lays out the weights of convolutions; to the same bits, where no norm is a sum in their order."""
    from steepest.optim import fused

    def refused(*_: Any) -> None:
        raise AssertionError("a step in tensor operations")

    monkeypatch.setattr(fused, "_reference_step", refused)
    results = []
    for channels_last in (False, True):
        given = _images(dtype, channels_last=channels_last)
        optimizer = CLASSES[name](given, **options)
        _steps_as_laid_out(optimizer, given, range(4))
        results.append(given)
        assert given[0].is_contiguous() != channels_last
        slots = [slot for slot in optimizer.state[given[0]].values() if slot.shape == given[0].shape]
        assert all(slot.stride() == given[0].stride() for slot in slots)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if name in ("LARS", "LAMB") else {"rtol": 0.0, "atol": 0.0}
    same(*results, **tolerance)


def test_a_state_goes_from_one_memory_format_to_the_other() -> None:
    plain = _images(torch.float32, channels_last=False)
    first = Adam(plain, lr=0.1)
    steps(first, plain, range(3))
    state = copy.deepcopy(first.state_dict())
    steps(first, plain, range(3, 5))
    turned = _images(torch.float32, channels_last=True)
    second = Adam(turned, lr=0.1)
    _steps_as_laid_out(second, turned, range(3))
    second.load_state_dict(state)
    _steps_as_laid_out(second, turned, range(3, 5))
    same(turned, plain, rtol=0.0, atol=0.0)
    assert second.state[turned[0]]["exp_avg"].stride() == turned[0].stride()
    assert second.state[turned[0]]["exp_avg"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "made", [lambda: torch.ones(4, 8)[:, ::2], lambda: torch.ones(4, 8).t()], ids=["gaps", "turned"]
)
def test_a_state_is_the_same_tensor_from_step_to_step(made: Callable[[], Tensor]) -> None:
    parameter = nn.Parameter(made())
    optimizer = Adam([parameter])
    steps(optimizer, [parameter], range(1))
    before = optimizer.state[parameter]["exp_avg"]
    steps(optimizer, [parameter], range(1, 3))
    assert optimizer.state[parameter]["exp_avg"] is before


@pytest.mark.parametrize("options", [{"state_dtype": torch.bfloat16}, {"rounding": "kahan"}], ids=str)
def test_other_layouts_of_the_state_take_channels_last(options: dict[str, Any]) -> None:
    results = []
    for channels_last in (False, True):
        given = _images(torch.bfloat16, channels_last=channels_last)
        optimizer = AdamW(given, lr=0.1, **options)
        _steps_as_laid_out(optimizer, given, range(6))
        results.append(given)
    if "rounding" in options:
        same(*results, rtol=0.0, atol=0.0)
    else:  # bfloat16 averages are rounded at random, by the place in memory
        same(*results, rtol=0.05, atol=0.02)


def test_blocks_of_eight_bits_and_gradients_that_lie_otherwise_are_refused() -> None:
    given = _images(torch.float32, channels_last=True)
    with pytest.raises(InputError, match=r"is for contiguous parameters; one of shape .* is channels_last"):
        Adam(given, state_dtype="8bit")
    optimizer = Adam(given, state_dtype=torch.bfloat16)
    set_gradients(given, 0)
    with pytest.raises(InputError, match="gradients in the CPU's memory that lie as their parameters do"):
        optimizer.step()


@use
def test_sizes_of_nothing_and_of_one_number(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        given = parameters((), (0,), (0, 3), (1,))
        steps(classes[name](given, lr=0.01, **options), given, range(3))
        results.append(given)
    same(*results)


@use
def test_sparse_gradients_as_torch(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        layer = nn.Embedding(5, 2, sparse=True, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(parameters((5, 2))[0])
        optimizer = classes[name](layer.parameters(), lr=0.1, **options)
        try:
            for rows in ([0, 1], [1, 1, 4], [2]):
                optimizer.zero_grad()
                (layer(torch.tensor(rows)) ** 2).sum().backward()
                optimizer.step()
            results.append(layer.weight.detach())
        except RuntimeError as error:
            results.append(str(error))
    if isinstance(results[1], str):
        assert results[0] == results[1]
    else:
        torch.testing.assert_close(*results, **CLOSE)


@use
def test_complex_parameters_as_torch(name: str, options: dict[str, Any]) -> None:
    results = []
    for classes in (CLASSES, PEERS):
        real = parameters((3, 2))[0].detach()
        given = [nn.Parameter(torch.view_as_complex(real.clone()))]
        steps_given = [
            torch.complex(*(torch.tensor(generator(s, part).normal(size=3)) for part in "ri"))
            for s in range(3)
        ]
        optimizer = classes[name](given, lr=0.1, **options)
        for gradient in steps_given:
            given[0].grad = gradient.clone()
            optimizer.step()
        results.append(given)
    same(*results)


@use
def test_a_differentiable_step_as_torch(name: str, options: dict[str, Any]) -> None:
    """The step as a part of the graph, as meta-learning has it."""
    results = []
    for classes in (CLASSES, PEERS):
        rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        start = parameters((4,))[0].detach().clone().requires_grad_()
        parameter = start * 1.0
        optimizer = classes[name]([parameter], lr=0.1, differentiable=True, **options)
        optimizer.param_groups[0]["lr"] = rate if name == "SGD" else 0.1
        parameter.grad = torch.linspace(-1, 1, 4, dtype=torch.float64)
        optimizer.step()
        results.append(torch.autograd.grad((parameter**2).sum(), start)[0])
    torch.testing.assert_close(*results, **CLOSE)


# --- momentum as a moving average ----------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "tolerance"), [(0.5, 0.0), (0.9, 1e-14), (0.99, 1e-14)])
def test_the_average_is_torchs_momentum_at_a_smaller_rate(beta: float, tolerance: float) -> None:
    """Rate L equals torch's L (1 - beta): to the bit where 1 - beta is a power of two, else to rounding."""
    results = []
    for make in (
        lambda given: SGD(given, lr=0.25, momentum=beta, convention="ema", weight_decay=0.1),
        lambda given: torch.optim.SGD(given, lr=0.25 * (1 - beta), momentum=beta, weight_decay=0.1),
    ):
        given = parameters((50,))
        steps(make(given), given, range(20))
        results.append(given)
    same(*results, rtol=tolerance, atol=tolerance)


def test_the_average_is_not_torchs_dampening() -> None:
    """``dampening = beta`` has the same later steps, and another first one."""
    averaged, dampened = parameters((5,)), parameters((5,))
    start = averaged[0].detach().clone()
    for given, optimizer in (
        (averaged, SGD(averaged, lr=0.1, momentum=0.9, convention="ema")),
        (dampened, torch.optim.SGD(dampened, lr=0.1, momentum=0.9, dampening=0.9)),
    ):
        steps(optimizer, given, range(1))
    torch.testing.assert_close((averaged[0] - start) * 10, dampened[0] - start, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_the_average_refuses_what_only_torch_can_do(kind: str) -> None:
    """torch's own step would take it for its own momentum, and be silently wrong."""
    parameter = nn.Parameter(torch.ones(3, dtype=torch.complex64 if kind == "complex" else torch.float32))
    dense = torch.ones_like(parameter)
    parameter.grad = dense.to_sparse() if kind == "sparse" else dense
    with pytest.raises(InputError, match="dense, real"):
        SGD([parameter], lr=0.1, momentum=0.9, convention="ema").step()
    assert torch.equal(parameter.detach(), torch.ones_like(parameter))


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: SGD([], lr=0.1), ValueError, "empty parameter list"),
    (lambda: SGD(parameters((1,)), lr=-0.1), ValueError, "learning rate"),
    (lambda: SGD(parameters((1,)), lr=0.1, nesterov=True), ValueError, "momentum"),
    (lambda: SGD(parameters((1,)), convention="optax"), InputError, "choose from torch, ema, keras, tf1"),
    (
        lambda: SGD(parameters((1,)), momentum=0.9, nesterov=True, convention="ema"),
        InputError,
        "no form with nesterov",
    ),
    (
        lambda: SGD(parameters((1,)), momentum=0.9, dampening=0.5, convention="ema"),
        InputError,
        "dampening is 0.5, which convention='ema' has no form for",
    ),
    (lambda: SGD([{"params": parameters((1,)), "convention": "x"}]), InputError, "convention is 'x'"),
    (lambda: RMSprop(parameters((1,)), convention="ema"), InputError, "choose from torch, keras, tf1, optax"),
    (lambda: RMSprop(parameters((1,)), convention="tf1", capturable=True), InputError, "capturable is True"),
    (lambda: Adam(parameters((1,)), convention="tf1"), InputError, "choose from torch, keras, optax"),
    (
        lambda: Adam(parameters((1,)), convention="keras", eps_root=1e-8),
        InputError,
        "only convention='optax'",
    ),
    (lambda: AdamW(parameters((1,)), convention="optax", eps_root=-1.0), InputError, "at least 0"),
    (lambda: Adam(parameters((1,)), skip_nonfinit=True), TypeError, "did you mean 'skip_nonfinite'"),
    (lambda: Adam(parameters((1,)), skip_nonfinite=1), InputError, "True or False"),
    (lambda: Adam(parameters((1,)), betas=(1.0, 0.9)), ValueError, "beta"),
    (lambda: Adam(parameters((1,)), eps=-1.0), ValueError, "epsilon"),
    (lambda: RMSprop(parameters((1,)), alpha=-0.5), ValueError, "alpha"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_wrong_arguments_are_refused(case: int) -> None:
    make, error, words = WRONG[case]
    with pytest.raises(error, match=words):
        make()


# --- a model -------------------------------------------------------------------------------------------------


@use
def test_a_small_network_trains_as_with_torch(name: str, options: dict[str, Any]) -> None:
    rng = generator("network")
    inputs, targets = torch.tensor(rng.normal(size=(64, 4))), torch.tensor(rng.normal(size=(64, 2)))
    results = []
    for classes in (CLASSES, PEERS):
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
        with torch.no_grad():
            for parameter, start in zip(
                model.parameters(), parameters((8, 4), (8,), (2, 8), (2,)), strict=True
            ):
                parameter.copy_(start * 0.3)
        optimizer = classes[name](model.parameters(), lr=0.01, **options)
        for _ in range(50):
            optimizer.zero_grad(set_to_none=False)
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        results.append(list(model.parameters()))
    same(*results, rtol=1e-9, atol=1e-10)


def test_peer_options_are_what_the_ema_test_uses() -> None:
    averaged = peer_options("SGD", {"momentum": 0.9, "convention": "ema"}, 1.0)
    assert averaged == {"momentum": 0.9, "lr": pytest.approx(0.1)}
    assert peer_options("SGD", {"momentum": 0.9, "convention": "keras"}, 1.0) is None
    assert len(list(itertools.chain.from_iterable(option_sets(cls) for cls in CLASSES.values()))) > 40


# --- torch.compile ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # the compiler's
@pytest.mark.parametrize("lr", ["number", "tensor"])
@pytest.mark.parametrize("cls", [SGD, RMSprop, AdamW])
def test_a_compiled_training_step_is_the_plain_one(cls: Any, lr: str) -> None:
    """The step is left out of the graph around it, hooks, scheduler and all."""
    x, y = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3), torch.arange(4) % 2
    curves, called = [], []
    for compiled in (False, True):
        torch.compiler.reset()
        model = nn.Linear(3, 2, dtype=torch.float64)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
        optimizer = cls(model.parameters(), lr=0.1 if lr == "number" else torch.tensor(0.1))
        optimizer.register_step_post_hook(lambda *_: called.append(compiled))  # noqa: B023
        scheduler = lr_scheduler.StepLR(optimizer, 2, 0.5)

        def train() -> Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = nn.functional.cross_entropy(model(x), y)  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            return loss.detach()

        step = torch.compile(train, backend="aot_eager") if compiled else train
        curve = []
        for _ in range(5):
            curve.append(float(step()))
            scheduler.step()
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-12)
    assert curves[0][-1] < curves[0][0]
    assert called == [False] * 5 + [True] * 5


def test_a_misspelt_option_is_told_the_right_one() -> None:
    with pytest.raises(
        TypeError, match="Adam: there is no keyword 'wieght_decay'; did you mean 'weight_decay'"
    ):
        Adam([nn.Parameter(torch.ones(1))], wieght_decay=0.1)  # type: ignore[call-arg]

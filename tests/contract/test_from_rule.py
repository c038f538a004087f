"""Rules of one's own: state, scalars, norms over a tensor, through kernel, tensor operations and native engine."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from steepest.backends.reference import maximum, sqrt
from steepest.errors import InputError
from steepest.optim import OPTIMIZERS, Adam
from steepest.optim.from_rule import from_rule
from steepest.training.native import NativeEngine
from steepest.training.run import Architecture, Run, Stop, TrainingData

from .samples import generator

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097, 200_003)
NUM_STEPS = 5
BAR = 12.0  # roundings of what the parameter and its steps add up to, five steps of some operations each
Wide = NDArray[Any]


# Five slots with every kind of beginning, and two scalars.
def many_slots(p: Any, g: Any, a: Any, b: Any, c: Any, d: Any, e: Any, rate: Any, beta: Any) -> Any:
    a = a + beta * (g - a)
    b = b + beta * (g * g - b)
    c = maximum(c, b)
    d = d + beta * (a - d)
    e = e + beta * (p - e)
    return p - rate * (a + d) / (sqrt(c) + beta) - beta * (p - e), a, b, c, d, e


def advance(step: float, lr: float, beta: float, start: float, mu: float, total: float) -> tuple[float, ...]:
    mu = mu * (1.0 - beta / step)
    total = total + mu
    return mu, total, lr * (1.0 + mu) / total, beta


def many_slots_truth(p: Wide, gradients: list[Wide], lr: float, beta: float, start: float) -> list[Wide]:
    a, b, c, d, e = gradients[0], 0 * p, start + 0 * p, 0 * p, p
    path, mu, total = [p], p.dtype.type(1), p.dtype.type(start)
    for t, g in enumerate(gradients, 1):
        mu = mu * (1 - p.dtype.type(beta) / t)
        total = total + mu
        a, b = a + beta * (g - a), b + beta * (g * g - b)
        c = np.maximum(c, b)
        d, e = d + beta * (a - d), e + beta * (p - e)
        p = p - lr * (1 + mu) / total * (a + d) / (np.sqrt(c) + beta) - beta * (p - e)
        path.append(p)
    return path


ManySlots: Any = from_rule(
    many_slots,
    ["a", "b", "c", "d", "e"],
    {"lr": 0.01, "beta": 0.25, "start": 0.5},
    coefficients=advance,
    initial={"a": "gradient", "c": "start", "e": "parameter", "mu": 1.0, "total": "start"},
    scalars=["mu", "total"],
)


# Steps of a length that is a share of the parameter's own.
def scaled(p: Any, g: Any, m: Any, lr: Any, beta: Any, ratio: Any) -> Any:
    m = m + beta * (g - m)
    return p - lr * ratio * m, m


def scaled_measure(p: Any, g: Any, m: Any, lr: Any, beta: Any) -> Any:
    return p, m + beta * (g - m)


def scaled_trust(norm_p: float, norm_m: float, lr: float, beta: float) -> float:
    return norm_p / norm_m if norm_p > 0.0 and norm_m > 0.0 else 1.0


def scaled_truth(p: Wide, gradients: list[Wide], lr: float, beta: float) -> list[Wide]:
    m, path = 0 * p, [p]
    for g in gradients:
        m = m + beta * (g - m)
        p = p - lr * np.sqrt(np.sum(p * p) / np.sum(m * m)) * m
        path.append(p)
    return path


Scaled: Any = from_rule(scaled, ["m"], {"lr": 0.01, "beta": 0.25}, measure=scaled_measure, trust=scaled_trust)
RULES: list[tuple[Any, Callable[..., list[Wide]], dict[str, float]]] = [
    (ManySlots, many_slots_truth, {"lr": 0.01, "beta": 0.25, "start": 0.5}),
    (Scaled, scaled_truth, {"lr": 0.01, "beta": 0.25}),
]
rules = pytest.mark.parametrize("rule", range(len(RULES)), ids=["many slots", "scaled"])


def drawn(dtype: torch.dtype, sizes: tuple[int, ...] = SIZES) -> tuple[list[torch.Tensor], list[Any]]:
    rng = generator("from_rule")
    starts = [torch.tensor(rng.normal(size=size)).to(dtype) for size in sizes]
    gradients = [[torch.tensor(rng.normal(size=size)).to(dtype) for size in sizes] for _ in range(NUM_STEPS)]
    return starts, gradients


def stepped(optimizer: Any, parameters: list[nn.Parameter], gradients: list[Any]) -> None:
    for row in gradients:
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


@rules
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scattered", [False, True], ids=["kernel", "tensor operations"])
def test_against_plain_numpy(rule: int, dtype: torch.dtype, scattered: bool) -> None:
    cls, truth, options = RULES[rule]
    wide = np.longdouble if dtype == torch.float64 else np.float64
    starts, gradients = drawn(dtype)
    given = [nn.Parameter(s[:, None].expand(-1, 2).clone()[:, 0] if scattered else s.clone()) for s in starts]
    assert given[-1].is_contiguous() != scattered
    stepped(cls(given, **options), given, gradients)
    for i, parameter in enumerate(given):
        as_wide = [row[i].double().numpy().astype(wide) for row in gradients]
        path = truth(starts[i].double().numpy().astype(wide), as_wide, **options)
        moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
        off = np.abs(parameter.detach().double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)
        assert float(np.max(off)) <= BAR


@rules
def test_threads_change_nothing(rule: int) -> None:
    cls, _, options = RULES[rule]
    ends = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            starts, gradients = drawn(torch.float32)
            given = [nn.Parameter(start) for start in starts]
            optimizer = cls(given, **options)
            stepped(optimizer, given, gradients)
        finally:
            torch.set_num_threads(before)
        ends.append([p.detach() for p in given] + [x for p in given for x in optimizer.state[p].values()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@rules
def test_saving_and_loading_in_the_middle(rule: int) -> None:
    cls, _, options = RULES[rule]
    starts, gradients = drawn(torch.float32, (5, 64))
    whole, halves = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    stepped(cls(whole, **options), whole, gradients)
    first = cls(halves, **options)
    stepped(first, halves, gradients[:2])
    second = cls(halves)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    third = copy.deepcopy({"optimizer": second, "parameters": halves})
    stepped(third["optimizer"], third["parameters"], gradients[2:])
    assert all(torch.equal(a, b) for a, b in zip(whole, third["parameters"], strict=True))


def test_scalars_stand_in_the_state_in_float64() -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    optimizer = ManySlots([parameter])
    optimizer.step()
    state = optimizer.state[parameter]
    assert state["mu"].dtype == torch.float64
    assert state["mu"].shape == ()
    assert float(state["mu"]) == 0.75
    assert state["a"].dtype == torch.bfloat16


def data() -> TrainingData:
    rng = generator("from_rule data")
    x = rng.normal(size=(60, 4)).astype(np.float64)
    y = np.tanh(x @ rng.normal(size=4))
    parts = {"x_train": x[:40], "y_train": y[:40], "x_validation": x[40:], "y_validation": y[40:]}
    return TrainingData(task="regression", num_classes=0, **parts)


@rules
def test_in_the_native_engine(rule: int) -> None:
    """The same steps as the class on torch's modules; weights and biases have norms of their own."""
    cls, _, options = RULES[rule]
    word = f"rule_{rule}"
    measured: dict[str, Any] = (
        {"measure": scaled_measure, "trust": scaled_trust}
        if cls is Scaled
        else {"coefficients": advance, "scalars": ["mu", "total"], "initial": cls.rule.initial}
    )
    from_rule(cls.rule.update, cls.rule.slots, options, name=word, **measured)
    table = data()
    run = Run("mse", word, 0.02, "full", architecture=Architecture((5, 3), "tanh"), stop=Stop(30))
    (record,) = NativeEngine(table, "rmse", dtype="float64").run_all([run])
    assert record is not None
    assert record.hyperparameters.items() >= {**options, "lr": 0.02}.items()
    assert not set(record.hyperparameters) & set(cls.rule.scalars)

    from steepest.training.random import initial_parameters

    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1)).double()
    start = torch.as_tensor(initial_parameters([4, 5, 3, 1], run.seed)).double()
    nn.utils.vector_to_parameters(start, model.parameters())
    optimizer = cls(model.parameters(), **{**options, "lr": 0.02})
    scores = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((model(torch.tensor(table.x_train))[:, 0] - torch.tensor(table.y_train)) ** 2).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            error = model(torch.tensor(table.x_validation))[:, 0] - torch.tensor(table.y_validation)
            scores.append(float((error**2).mean().sqrt()))
    np.testing.assert_allclose(record.curve.validation_score, scores, rtol=1e-11)


def test_a_rule_like_adam_is_adam() -> None:
    """A user's text of Adam takes the library's steps, to the bit."""
    from steepest.optim.adam import coefficients, coupled

    Mine: Any = from_rule(
        coupled,
        ["exp_avg", "exp_avg_sq"],
        {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "maximize": 0.0},
        coefficients=coefficients,
    )
    starts, gradients = drawn(torch.float32, (65,))
    ends = []
    for cls in (Mine, Adam):
        given = [nn.Parameter(start.clone()) for start in starts]
        stepped(cls(given, lr=0.01), given, gradients)
        ends.append(given[0].detach())
    assert torch.equal(*ends)


def test_a_name_enters_the_registry() -> None:
    cls = from_rule(lambda p, g, lr: (p - lr * g,), name="plain", defaults={"lr": 0.5}, rates=(1e-3, 10.0))
    entry = OPTIMIZERS["plain"]
    assert entry.cls is cls
    assert entry.default_lr == 0.5
    assert entry.rates == (1e-3, 10.0)
    assert not entry.compared_by_default
    with pytest.raises(InputError, match="'plain' already"):
        from_rule(lambda p, g, lr: (p - lr * g,), name="plain")


def test_a_class_of_ones_own_has_the_switches() -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, math.nan, 0.0])
    optimizer = ManySlots([parameter], skip_nonfinite=True)
    optimizer.step()
    assert optimizer.num_skipped_steps == 1
    assert torch.equal(parameter.detach(), torch.ones(3))


def test_what_only_torch_can_step_is_refused() -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(InputError, match="dense, real"):
        ManySlots([parameter]).step()


def plain(p: Any, g: Any, lr: Any) -> Any:
    return (p - lr * g,)


def with_b(p: Any, g: Any, b: Any, lr: Any) -> Any:
    return p - lr * b, b


ONE = [nn.Parameter(torch.ones(1))]


WithB = from_rule(with_b, ["b"], {"lr": 0.5})


def test_a_class_bears_the_rules_name_and_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules, __name__, types.SimpleNamespace(WithB=WithB)
    )  # pytest's is no module to import
    assert (WithB.__module__, WithB.__qualname__) == (__name__, "WithB")
    assert from_rule(plain, name="my-plain").__name__ == "MyPlain"
    assert pickle.loads(pickle.dumps(WithB)) is WithB  # noqa: S301
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = WithB([p], lr=0.25)
    optimizer.step()
    again = pickle.loads(pickle.dumps(optimizer))  # noqa: S301
    assert type(again) is WithB
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    (q,) = again.param_groups[0]["params"]
    q.grad = torch.ones(3)
    for one in (optimizer, again):
        one.step()
    assert torch.equal(p, q)


def in_place(p: Any, g: Any, lr: Any) -> Any:
    p -= lr * g
    return (p,)


def decays_the_gradient(p: Any, g: Any, b: Any, lr: Any) -> Any:
    g += 0.1 * p
    return p - lr * g, b


WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: from_rule(lambda p, g, lr: p - lr * g), InputError, "returned a Tensor; it must return a tuple"),
    (lambda: from_rule(lambda p, g, b, lr: (p,), ["b"]), InputError, "1 values; .* tuple of 2: the new.*, b"),
    (lambda: from_rule(lambda p, g, lr: (p.sum(),)), InputError, "one number an element"),
    (lambda: from_rule(plain, ["b"]), InputError, "takes .p, g, lr.; it must take 4 arguments"),
    (
        lambda: from_rule(lambda p, g, a, lr: (p - lr * g,), (), {"lr": 1, "a": 1}),
        InputError,
        "in this order",
    ),
    (lambda: from_rule(plain, (), {"rate": 1.0}), InputError, "it must have lr too"),
    (lambda: from_rule(plain, (), {"lr": "fast"}), InputError, "default of lr is 'fast'"),  # type: ignore[dict-item]
    (lambda: from_rule(with_b, ["lr"]), InputError, "'lr' is given twice"),
    (lambda: from_rule(with_b, "b"), InputError, r"state is the word 'b'; give a list of names: \['b'\]"),
    (lambda: from_rule(plain, scalars="mu"), InputError, "scalars is the word 'mu'"),
    (
        lambda: from_rule(in_place),
        InputError,
        r"update writes into its argument p .*; write p = p - \.\.\. instead",
    ),
    (lambda: from_rule(decays_the_gradient, ["b"]), InputError, "writes into its argument g"),
    (lambda: from_rule(with_b, ["step"]), InputError, "'step' is taken"),
    (lambda: from_rule(with_b, ["my b"]), InputError, "is no name"),
    (lambda: from_rule(with_b, ["b"], initial={"c": 1.0}), InputError, "'c', which is neither"),
    (lambda: from_rule(with_b, ["b"], initial={"b": "wd"}), InputError, "parameter, gradient, lr"),
    (lambda: from_rule(with_b, ["b"], initial={"b": math.inf}), InputError, "give a finite number"),
    (lambda: from_rule(lambda p, g, lr: (p - lr * g.abs(),)), InputError, "does not compile .*maximum"),
    (lambda: from_rule(lambda p, g, lr: (p - lr * torch.sqrt(g),)), InputError, "Unknown attribute 'sqrt'"),
    (lambda: from_rule(lambda p, g, lr: (p - lr * np.sqrt(g),)), InputError, "failed on a trial"),
    (lambda: from_rule(lambda p, g, lr: (p - lr * g if g > 0 else p,)), InputError, "where, in place of if"),
    (lambda: from_rule(lambda p, g, *lr: (p,)), InputError, "one by one"),
    (lambda: from_rule(nn.Identity()), InputError, "a plain Python function"),
    (
        lambda: from_rule(plain, coefficients=lambda step, rate: (rate,)),
        InputError,
        "it must take .step, lr.",
    ),
    (lambda: from_rule(plain, coefficients=lambda step, lr: lr), InputError, "a tuple of numbers"),
    (lambda: from_rule(plain, coefficients=lambda step, lr: (1 / (step - 1),)), InputError, "ZeroDivision"),
    (lambda: from_rule(plain, scalars=["mu"]), InputError, "give coefficients too"),
    (lambda: from_rule(plain, measure=plain), InputError, "both or neither"),
    (lambda: from_rule(plain, name="adam"), InputError, "'adam' already"),
    (lambda: from_rule(plain, name="my rule"), InputError, "one word"),
    (lambda: from_rule(plain, name="mine", rates=(1.0, 0.1)), InputError, "the smaller first"),
    (lambda: ManySlots(ONE, lr=-1.0), InputError, "must not be below 0"),
    (lambda: ManySlots(ONE, beta=math.nan), InputError, "give a finite number"),
    (lambda: ManySlots(ONE, gamma=1.0), TypeError, "no keyword 'gamma'"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_wrong_rules_are_refused(case: int) -> None:
    make, error, words = WRONG[case]
    before = dict(OPTIMIZERS)
    with pytest.raises(error, match=words) as told:
        make()
    assert "\n" not in str(told.value)
    assert before == OPTIMIZERS


TAKEN = (
    "switches", "lost", "rounding", "state_dtype", "skip_nonfinite", "in_backward", "capturable", "differentiable",
    "params", "self", "step", "betas", "initial_lr", "param_names", "b_8bit",
)  # fmt: skip


@pytest.mark.parametrize("word", TAKEN)
def test_a_name_that_cannot_work_is_refused_when_the_rule_is_read(word: str) -> None:
    refused = pytest.raises(InputError, match=rf"^from_rule: the name '{word}' is taken .*; give another\.$")
    with refused:
        from_rule(lambda p, g, lr, a: (p - a * lr * g,), defaults={"lr": 0.5, word: 1.0})
    with refused:
        from_rule(lambda p, g, a, lr: (p - lr * g, a), state=[word], defaults={"lr": 0.5})


@pytest.mark.parametrize("word", ["foreach", "fused", "maximize", "convention", "beta1", "eps", "momentum"])
def test_names_of_torchs_options_are_numbers_like_others(word: str) -> None:
    cls: Any = from_rule(lambda p, g, lr, a: (p - a * lr * g,), defaults={"lr": 0.5, word: 1.0})
    parameter = nn.Parameter(torch.ones(3))
    optimizer = cls([parameter], **{word: 0.5})
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    parameter.grad = torch.ones(3)
    optimizer.step()
    optimizer.zero_grad()
    assert parameter.tolist() == [0.75] * 3


def test_a_comparison_takes_beta1_as_the_rule_does() -> None:
    from_rule(
        lambda p, g, lr, beta1: (p - beta1 * lr * g,), defaults={"lr": 0.5, "beta1": 1.0}, name="own_beta"
    )
    try:
        assert OPTIMIZERS["own_beta"].arguments({"beta1": 0.25}) == {"beta1": 0.25}
    finally:
        del OPTIMIZERS["own_beta"]

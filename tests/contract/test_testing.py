"""The contract for outsiders: it lets right losses and optimizers pass, and says of each planted fault what it is."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest.backends.reference import exp, expm1, log, log1p, maximum, power, sign, softplus, sqrt, where
from steepest.errors import InputError
from steepest.losses import LOSSES, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss
from steepest.losses.from_formula import from_formula
from steepest.optim import OPTIMIZERS, SGD, Adam
from steepest.optim.fused import FusedStep
from steepest.optim.rule import Rule
from steepest.testing import check_loss, check_optimizer, exact
from steepest.testing.samples import generator

# --- losses that are right -----------------------------------------------------------------------------------


def cauchy(p: Any, y: Any, c: Any = 1.0) -> Any:
    e = (p - y) / c
    return 0.5 * c * c * log1p(e * e)


def hinge(x: Any, y: Any) -> Any:
    return maximum(0.0, 1.0 - x * y)


def deviance(x: Any, y: Any) -> Any:
    return exp(x) - y * x


def focal(log_p: Any, gamma: Any = 2.0) -> Any:
    return -log_p * power(-expm1(log_p), gamma)


def coin(x: Any, y: Any) -> Any:
    return (1.0 - y) * softplus(x) + y * softplus(-x)


def drawn(*shape: int) -> Tensor:
    return torch.tensor(generator("testing", shape).normal(size=shape))


RIGHT: dict[str, Callable[[], Any]] = {
    "mse": lambda: LOSSES["mse"],
    "huber": lambda: HuberLoss("sum", delta=0.3),
    "huber, switched": lambda: HuberLoss(normalizer=7.0, on_empty="zero"),
    "quantile": lambda: LOSSES["quantile"](0.9),
    "bce": lambda: BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
    "bce_probability": lambda: LOSSES["bce_probability"],
    "cross_entropy": lambda: CrossEntropyLoss,
    "cross_entropy, weighted": lambda: CrossEntropyLoss(
        torch.tensor([1.0, 2.0, 0.5]), ignore_index=0, label_smoothing=0.1
    ),
    "own, pointwise": lambda: from_formula(cauchy)(c=0.5),
    "own, margin": lambda: from_formula(hinge, prediction="margin", target="sign"),
    "own, counts": lambda: from_formula(deviance, prediction="log_rate", target="count"),
    "own, logits": lambda: from_formula(coin, prediction="logit", target="probability"),
    "own, softmax": lambda: from_formula(focal, family="softmax")(gamma=1.5),
}


@pytest.mark.parametrize("case", RIGHT)
def test_right_losses_pass(case: str) -> None:
    check_loss(RIGHT[case]())


def test_samples_of_the_users_own() -> None:
    index = torch.tensor(generator("index").integers(0, 3, (12, 2)))
    check_loss(CrossEntropyLoss(), samples=(drawn(12, 3, 2), index))
    check_loss(CrossEntropyLoss(), samples=(drawn(12, 3), torch.softmax(drawn(13, 3)[1:], 1)))
    weighted = BCEWithLogitsLoss(weight=torch.rand(3) + 0.5, pos_weight=torch.rand(3) + 0.5)
    check_loss(weighted, samples=(drawn(12, 3), (drawn(12, 3) > 0).double()))
    check_loss(
        nn.BCEWithLogitsLoss(), samples=(drawn(12, 3), (drawn(12, 3) > 0).double())
    )  # no formula at all


# --- losses with a fault -------------------------------------------------------------------------------------


def root(p: Any, y: Any) -> Any:
    return sqrt((p - y) * (p - y))


def overflowing(x: Any, y: Any) -> Any:
    return log(1.0 + exp(-x * y))


def cancelling(p: Any, y: Any) -> Any:
    return sqrt(1.0 + (p - y) * (p - y)) - 1.0


def cancelling_softmax(log_p: Any) -> Any:
    return -log_p + log(1.0 - exp(log_p)) * (1.0 - exp(log_p))


def pinball(p: Any, y: Any, q: Any) -> Any:
    return where(y > p, -q, 1.0 - q)


def sided(p: Any, y: Any) -> Any:
    return where(p >= y, 1.0, -1.0)


def with_formula(base: type[nn.Module], **changes: Any) -> type[nn.Module]:
    formula: Any = base.formula  # type: ignore[attr-defined]
    return type(base.__name__, (base,), {"formula": dataclasses.replace(formula, **changes)})


def with_forward(change: Callable[..., Tensor], base: Any = HuberLoss) -> Any:
    """A loss whose result ``change(self, value, input, target)`` has tampered with."""

    class Faulty(base):  # type: ignore[misc]
        def forward(self, input: Tensor, target: Tensor) -> Tensor:
            return change(self, super().forward(input, target), input, target)

    return Faulty


class _Doubled(torch.autograd.Function):
    """What is handed back forgets what came from above."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, input: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = input.detach().requires_grad_()
            ctx.slope = torch.autograd.grad(nn.functional.huber_loss(leaf, leaf.detach() * 0.5), leaf)[0]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Any:
        return None, ctx.slope


class ForgetsWhatIsAbove(HuberLoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if self.reduction == "mean":
            result: Tensor = _Doubled.apply(super().forward(input.detach(), target), input)  # type: ignore[no-untyped-call]
            return result
        return super().forward(input, target)


class HalfSum(nn.Module):
    """float16's own sum: a mean leaves the range."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        values = (input - target).abs() * 40.0
        if self.reduction == "none":
            return values
        return values.sum(dtype=input.dtype) / (values.numel() if self.reduction == "mean" else 1)


def sees_memory(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
    scattered = not input.is_contiguous()
    return value + input.sum() * 0.01 if scattered else value


class InFloat32(HuberLoss):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nn.functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


def writes_to_the_input(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
    with torch.no_grad():
        input.mul_(1.0)
    return value


def writes_to_the_target(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
    target.mul_(1.0)
    return value


def zero_on_empty(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
    return input.sum() if input.numel() == 0 and self.reduction == "mean" else value


def once_only(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
    """The second derivative is lost."""
    if not value.requires_grad:
        return value
    with torch.enable_grad():
        slope = torch.autograd.grad(value.sum(), input, retain_graph=True)[0].detach()
    along = slope * (input - input.detach())
    return value.detach() + (along if self.reduction == "none" else along.sum())


FAULTY: dict[str, tuple[Callable[[], Any], str]] = {
    "gradient of another": (
        lambda: with_formula(HuberLoss, gradient=lambda p, y, d: p - y),
        r"HuberLoss: the gradient's text gives .* at prediction .*, where the value's derivative is",
    ),
    "gradient of another, softmax": (
        lambda: with_formula(CrossEntropyLoss, gradient=lambda log_p: -1.1 + 0.0 * log_p),
        r"the gradient's text gives -1\.1 at log_p .*, where the value's derivative is -1",
    ),
    "NaN at ties": (lambda: from_formula(root), r"RootLoss: the gradient at prediction .* is NaN"),
    "overflow": (
        lambda: from_formula(overflowing, prediction="margin", target="sign"),
        r"the value at prediction .* is inf, where the formula's own text gives \d",
    ),
    "cancellation": (lambda: from_formula(cancelling), r"the value at prediction .* units in the last place"),
    "cancellation, softmax": (
        lambda: from_formula(cancelling_softmax, family="softmax"),
        r"at logits \[.* (is NaN|units in the last place)",
    ),
    "computed in float32": (
        lambda: InFloat32,
        r"the (value|gradient) at .*\(float32\).* units in the last place",
    ),
    "a value off": (
        lambda: with_forward(lambda self, v, x, y: v * (1 + 1e-12)),
        "the value at prediction .* units in the last",
    ),
    "mean twice as large": (
        lambda: with_forward(lambda self, v, x, y: 2 * v if self.reduction == "mean" else v),
        "the mean of 1 rows",
    ),
    "mean over the next multiple of 8": (
        lambda: with_forward(
            lambda self, v, x, y: v * x.numel() / (-(-x.numel() // 8) * 8) if self.reduction == "mean" else v
        ),
        "the mean of 1 rows",
    ),
    "sum without its gradient": (
        lambda: with_forward(
            lambda self, v, x, y: v.detach() + x.sum() * 0 if self.reduction == "sum" else v
        ),
        "the sum's gradient of 1 rows",
    ),
    "backward without what is above": (lambda: ForgetsWhatIsAbove, "gradient of 1 rows"),
    "strides": (lambda: with_forward(sees_memory), "of a view that takes every second number differs"),
    "the input written to": (lambda: with_forward(writes_to_the_input), "the prediction is written to"),
    "the target written to": (lambda: with_forward(writes_to_the_target), "the target is written to"),
    "half types": (lambda: HalfSum, "a float16 value is not finite"),
    "no gradient on empty": (lambda: with_forward(zero_on_empty), "the mean over an empty input is 0.0"),
    "no second derivative": (
        lambda: with_forward(once_only),
        "second derivative|differentiated again",
    ),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_losses_are_told(case: str) -> None:
    make, words = FAULTY[case]
    samples = (drawn(64), torch.zeros(64, dtype=torch.float64)) if case == "half types" else None
    loss = make()
    with pytest.raises(AssertionError, match=words) as caught:
        check_loss(loss, samples=samples)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_transforms_that_fail_are_told() -> None:
    def looks_at_numbers(self: Any, value: Tensor, input: Tensor, target: Tensor) -> Tensor:
        return value if float(input.detach().sum()) < 1e30 else value * 2

    with pytest.raises(AssertionError, match="checking that transforms agree: RuntimeError"):
        check_loss(with_forward(looks_at_numbers))


def test_what_cannot_be_checked_is_said() -> None:
    with pytest.raises(InputError, match="has no reduction"):
        check_loss(nn.Linear(1, 1))
    with pytest.raises(InputError, match="give them as samples="):
        check_loss(nn.MSELoss())
    with pytest.raises(InputError, match="Linear is not made without arguments; give the loss itself"):
        check_loss(nn.Linear)


# --- optimizers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_right_optimizers_pass(name: str) -> None:
    entry = OPTIMIZERS[name]
    check_optimizer(entry.cls, **entry.options)


@pytest.mark.parametrize("options", [{"weight_decay": 0.1, "amsgrad": True}, {"lr": 0.1, "maximize": True}])
def test_options_are_handed_on(options: dict[str, Any]) -> None:
    check_optimizer(Adam, **options)


def test_a_class_without_a_rule() -> None:
    check_optimizer(torch.optim.SGD, momentum=0.9)
    with pytest.raises(
        AssertionError, match="gradients of 0 from the start make a parameter NaN or infinite"
    ):
        check_optimizer(torch.optim.Adam)  # in float16 its eps is 0


def faulty_step(change: Callable[[Any, Callable[[], Any]], Any], base: Any = Adam) -> Any:
    """An optimizer that does ``change(self, step)`` for its step."""

    class Faulty(base):  # type: ignore[misc]
        def step(self, closure: Any = None) -> Any:
            return change(self, lambda: super(Faulty, self).step(closure))

    return Faulty


def _update(p: Any, g: Any, rate: Any, extra: Any) -> Any:
    return (p - rate * sign(g) * extra,)


def _coefficients(step: float, lr: float) -> tuple[float, ...]:
    return lr, 1.0


class SignDescent(FusedStep, torch.optim.Optimizer):
    counts_steps = False

    def __init__(self, params: Any, lr: float = 0.01) -> None:
        super().__init__(params, {"lr": lr})

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        return Rule(_update, _coefficients, (), ("lr",))

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        return {"lr": float(group["lr"])}


def test_a_rule_of_the_users_own() -> None:
    check_optimizer(SignDescent)


class Inexact(SignDescent):
    """Its step is not its rule's: the kernel is handed another rate."""

    def _step_group(self, group: dict[str, Any]) -> None:
        super()._step_group({**group, "lr": group["lr"] * (1 + 1e-4)})


class OnlyEights(SGD):
    """As a vectorised kernel without its last elements, in the half types alone."""

    def _step_group(self, group: dict[str, Any]) -> None:
        kept = [(p, p.detach().clone()) for p in group["params"] if p.dtype == torch.bfloat16]
        super()._step_group(group)
        for p, before in kept:
            last = p.numel() - p.numel() % 8
            p.data.view(-1)[last:] = before.view(-1)[last:]


class LosesTheEnd(SGD):
    def _step_group(self, group: dict[str, Any]) -> None:
        kept = [(p, p.detach()[-1].clone()) for p in group["params"] if p.numel() > 100_000]
        super()._step_group(group)
        for p, before in kept:
            p.data[-1] = before


class Forgets(Adam):
    def state_dict(self) -> dict[str, Any]:
        state = copy.deepcopy(super().state_dict())
        for slots in state["state"].values():
            slots["exp_avg"].zero_()
        return state


class OneRate(SGD):
    def _step_group(self, group: dict[str, Any]) -> None:
        super()._step_group({**group, "lr": self.param_groups[0]["lr"]})


def _with_scaled_gradients(self: Any, step: Callable[[], Any]) -> Any:
    result = step()
    for group in self.param_groups:
        for p in group["params"]:
            if p.grad is not None:
                p.grad.mul_(0.5)
    return result


def _moving_all(self: Any, step: Callable[[], Any]) -> Any:
    result = step()
    for group in self.param_groups:
        for p in group["params"]:
            if p.grad is None:
                p.data.mul_(0.9)
    return result


def _nan_at_zero(self: Any, step: Callable[[], Any]) -> Any:
    result = step()
    for group in self.param_groups:
        for p in group["params"]:
            if p.grad is not None and p.numel() == 9 and not p.grad.any():
                p.data.div_(p.grad)
    return result


def _silent(self: Any, step: Callable[[], Any]) -> None:
    step()


def _refusing(self: Any, step: Callable[[], Any]) -> Any:
    if self.param_groups[0]["params"][0].dtype == torch.float16:
        raise ValueError("no float16 here\nnor there")
    return step()


def _by_memory(self: Any, step: Callable[[], Any]) -> Any:
    result = step()
    for group in self.param_groups:
        for p in group["params"]:
            if not p.is_contiguous():
                p.data.mul_(1.001)
    return result


FAULTY_OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "another rate": (
        Inexact,
        {},
        r"after 20 steps element \d+ of \d+ \(float32\) is .*, where its rule gives",
    ),
    "last elements of a half type": (
        OnlyEights,
        {"momentum": 0.9},
        r"after one step element .* of 7 \(bfloat16\)",
    ),
    "the end of a long tensor": (
        LosesTheEnd,
        {},
        "is not updated like its parts: element 200002",
    ),
    "state that is not saved": (Forgets, {}, "saved and loaded after 4 of 10 steps, it goes another way"),
    "groups": (OneRate, {}, "two groups differ from two optimizers"),
    "gradients written to": (faulty_step(_with_scaled_gradients, SGD), {}, "a step writes to the gradients"),
    "missing gradients": (faulty_step(_moving_all, SGD), {}, "a parameter without a gradient is moved"),
    "zero gradients": (
        faulty_step(_nan_at_zero, SGD),
        {},
        "gradients of 0 from the start make a parameter NaN",
    ),
    "closures": (
        faulty_step(_silent, SGD),
        {},
        r"step\(closure\) returns None; it must return what the closure does",
    ),
    "an error": (
        faulty_step(_refusing, SGD),
        {},
        r"checking that half types .*: ValueError: no float16 here\.$",
    ),
    "layout": (faulty_step(_by_memory, SGD), {}, "does not lie side by side"),
}


@pytest.mark.parametrize("case", FAULTY_OPTIMIZERS)
def test_faulty_optimizers_are_told(case: str) -> None:
    cls, options, words = FAULTY_OPTIMIZERS[case]
    with pytest.raises(AssertionError, match=words) as caught:
        check_optimizer(cls, **options)
    assert "\n" not in str(caught.value)


# --- what truth is -------------------------------------------------------------------------------------------


def test_the_exact_words_are_the_vocabulary() -> None:
    from steepest.backends import reference

    assert set(exact.VOCABULARY) == set(reference.__all__) - {"compute_dtype"}


def test_without_mpmath_one_sentence_says_what_to_do() -> None:
    script = "import sys; sys.modules['mpmath'] = None\nimport steepest.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install mpmath" in done.stderr.splitlines()[-1]

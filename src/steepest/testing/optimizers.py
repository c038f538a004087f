"""The contract of an optimizer, one check after the other."""

from __future__ import annotations

import builtins
import copy
import inspect
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from steepest.backends import reference
from steepest.optim import Rule
from steepest.optim.fused import FusedStep
from steepest.testing.samples import DTYPES, generator

__all__ = ["check_optimizer"]

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097)
NUM_STEPS = 20
RATE = 0.01
# Errors are counted in roundings of what a parameter and its steps add up to: three a step.
ROUNDINGS = 3 * NUM_STEPS
# A rule that takes signs may turn a rounding into a step; so many of the largest tensor's 4097 elements may.
TURNED = 2

Wide = NDArray[Any]
Gradients = list[list[Tensor]]  # one list a step, one gradient a parameter


def check_optimizer(optimizer_class: type[torch.optim.Optimizer], **options: Any) -> None:
    """Hold an optimizer to the library's contract.

    Twenty steps in float32 and float64 over sizes about the width of vectors, against the rule's own text on
    wider numbers (a class without a rule: float32 against its own float64); half types; a long tensor is
    updated like its parts; zero and missing gradients; gradients are left as they were; saving and loading
    in the middle of a run; parameter groups; closures; parameters that do not lie side by side.

    Args:
        optimizer_class: a ``torch.optim.Optimizer``. One whose update looks at whole tensors says so by its
            rule's ``measure`` or by ``elementwise = False``, and need not update a tensor like its parts.
        options: what it is made with, beside the parameters; a rate of 0.01 where there is none.

    Raises:
        AssertionError: something does not hold; the sentence says what, and where.

    >>> from steepest.optim import Adam
    >>> check_optimizer(Adam, weight_decay=0.1)
    """
    if "lr" in inspect.signature(optimizer_class).parameters:
        options = {"lr": RATE, **options}
    checked = _Checked(optimizer_class, options)
    checked.run(_follows_its_rule)
    checked.run(_half_types_are_as_exact_as_they_can_be)
    checked.run(_a_long_tensor_is_its_parts)
    checked.run(_gradients_are_left_alone)
    checked.run(_zero_gradients_do_no_harm)
    checked.run(_missing_gradients_move_nothing)
    checked.run(_saved_and_loaded_it_goes_on)
    checked.run(_groups_are_apart)
    checked.run(_closures_are_called)
    checked.run(_layout_does_not_matter)


class _Checked:
    """The class and its options."""

    def __init__(self, optimizer_class: Any, options: dict[str, Any]) -> None:
        self.cls: Any = optimizer_class
        self.options = options
        self.name = optimizer_class.__name__
        probe = self.make([nn.Parameter(torch.zeros(1))])
        # A step of the class's own may do more than its rule says.
        steps_by_rule = issubclass(self.cls, FusedStep) and (
            inspect.unwrap(self.cls.step) is inspect.unwrap(FusedStep.step)
        )
        self.rule: Rule | None = self.cls.rule_of(probe.param_groups[0]) if steps_by_rule else None
        measures = self.rule is not None and self.rule.measure is not None
        self.elementwise = getattr(optimizer_class, "elementwise", not measures)

    def make(self, parameters: Sequence[Any], **more: Any) -> Any:
        return self.cls(parameters, **{**self.options, **more})

    def run(self, check: Callable[[Any], None]) -> None:
        """One check; whatever else the optimizer raises there is its failure too."""
        try:
            check(self)
        except AssertionError:
            raise
        except Exception as error:
            checking = check.__name__.strip("_").replace("_", " ")
            first = str(error).strip().partition("\n")[0]
            self.require(False, f"checking that {checking}: {type(error).__name__}: {first}")

    def require(self, holds: bool, sentence: str) -> None:
        if not holds:
            given = ", ".join(f"{word}={value}" for word, value in self.options.items())
            raise AssertionError(f"{self.name}({given}): {sentence}.")

    def walked(self, starts: Sequence[Tensor], gradients: Gradients, **more: Any) -> list[Tensor]:
        """Where the parameters are after a step for each list of gradients."""
        parameters = [nn.Parameter(start.clone()) for start in starts]
        _steps(self.make(parameters, **more), parameters, gradients)
        return [parameter.detach() for parameter in parameters]


def _steps(optimizer: Any, parameters: Sequence[Tensor], gradients: Gradients) -> None:
    for row in gradients:
        for parameter, gradient in zip(parameters, row, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def _starts(dtype: torch.dtype, sizes: Sequence[int] = SIZES) -> list[Tensor]:
    rng = generator("starts")
    return [torch.tensor(rng.normal(size=size)).to(dtype) for size in sizes]


def _gradients(dtype: torch.dtype, sizes: Sequence[int] = SIZES, num_steps: int = NUM_STEPS) -> Gradients:
    """Over five orders of magnitude, and now and then exactly 0."""
    rng = generator("gradients")

    def draw(n: int) -> Wide:
        return rng.normal(size=n) * 10.0 ** rng.uniform(-4, 1, n) * (rng.uniform(size=n) > 0.02)

    return [[torch.tensor(draw(size)).to(dtype) for size in sizes] for _ in range(num_steps)]


# --- against the rule ----------------------------------------------------------------------------------------

_WORDS: dict[str, Callable[..., Any]] = {
    **{word: getattr(np, word) for word in ("abs", "exp", "expm1", "log", "log1p", "maximum", "minimum")},
    **{word: getattr(np, word) for word in ("power", "sign", "sqrt", "tanh", "where")},
    "erf": special.erf,
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "softplus": lambda x: np.logaddexp(0, x),
}


def _on_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule's function with the vocabulary's words, its helpers' too, as numpy's."""
    assert isinstance(function, types.FunctionType)
    words = {id(getattr(reference, word)): its for word, its in _WORDS.items()}
    scope: dict[str, Any] = {"__builtins__": builtins}
    for name, value in function.__globals__.items():
        of_the_rule = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        scope[name] = words.get(id(value), _later(value) if of_the_rule else value)
    return types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )


def _later(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: _on_arrays(function)(*arguments)


def _path(checked: _Checked, start: Wide, gradients: list[Wide]) -> list[Wide]:
    """Where the parameter is before the first and after each step, in the arrays' own precision."""
    rule = checked.rule
    assert rule is not None
    group = checked.make([nn.Parameter(torch.zeros(1))]).param_groups[0]
    hyper = checked.cls.hyperparameters_of(group)
    update = _on_arrays(rule.update)
    scalars = rule.scalars_at_first(hyper)
    beginnings = {"parameter": start, "gradient": gradients[0]}
    slots = []
    for name in rule.slots:
        begin = rule.begins_at(name, hyper)
        slots.append(beginnings[begin] if isinstance(begin, str) else np.full_like(start, begin))
    path = [start]
    for t, gradient in enumerate(gradients, 1):
        step = float(t) if checked.cls.counts_steps else min(float(t), 2.0)
        numbers = rule.coefficients(step, *hyper.values(), *scalars)
        scalars = list(numbers[: len(scalars)])
        factors = [start.dtype.type(number) for number in numbers[len(scalars) :]]
        if rule.measure is not None and rule.trust is not None:
            measured = _on_arrays(rule.measure)(path[-1], gradient, *slots, *factors)
            norms = [float(np.sqrt(np.sum(np.square(part)))) for part in measured]
            factors.append(start.dtype.type(rule.trust(*norms, *map(float, factors))))
        new = update(path[-1], gradient, *slots, *factors)
        path.append(np.broadcast_to(new[0], start.shape))
        slots = [np.broadcast_to(slot, start.shape) for slot in new[1:]]
    return path


def _own_path(checked: _Checked, start: Tensor, gradients: list[Tensor]) -> list[Wide]:
    """The same for a class without a rule, by itself in float64."""
    parameter = nn.Parameter(start.double())
    optimizer = checked.make([parameter])
    path = [parameter.detach().numpy().copy()]
    for gradient in gradients:
        parameter.grad = gradient.double()
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return path


def _follows_its_rule(checked: _Checked) -> None:
    for dtype in ("float32", "float64"):
        held = DTYPES[dtype]
        wide = np.longdouble if dtype == "float64" else np.float64
        starts, gradients = _starts(held), _gradients(held)
        for i, end in enumerate(checked.walked(starts, gradients)):
            if checked.rule is not None:
                as_wide = [row[i].double().numpy().astype(wide) for row in gradients]
                path = _path(checked, starts[i].double().numpy().astype(wide), as_wide)
            elif dtype == "float32":
                path = _own_path(checked, starts[i], [row[i] for row in gradients])
            else:
                continue
            off = _roundings_off(path, end, held)
            turned = int(np.count_nonzero(off > ROUNDINGS))
            at = int(np.argmax(off))
            checked.require(
                turned <= (TURNED if len(off) == max(SIZES) else 0),
                f"after {NUM_STEPS} steps element {at} of {len(off)} ({dtype}) is {float(end[at]):.9g}, where "
                f"{'its rule' if checked.rule else 'float64'} gives {float(path[-1][at]):.9g}: "
                f"{off[at]:.3g} roundings off, {ROUNDINGS} are allowed",
            )


def _roundings_off(path: list[Wide], end: Tensor, dtype: torch.dtype) -> Wide:
    """Each element's error, in roundings of what the parameter and its steps add up to."""
    moved = np.abs(path[0]) + sum(np.abs(b - a) for a, b in itertools.pairwise(path))
    off: Wide = np.abs(end.double().numpy() - path[-1]) / (moved * torch.finfo(dtype).eps / 2)
    return np.where(np.isnan(off), np.inf, off)


def _half_types_are_as_exact_as_they_can_be(checked: _Checked) -> None:
    """One step as exact as the type, twenty finite; the parameter keeps its type."""
    for dtype in ("bfloat16", "float16"):
        held = DTYPES[dtype]
        rng = generator("half")
        # Neither so small that a square is 0 in float16, nor so large that it is infinite.
        drawn = [
            [rng.choice([-1.0, 1.0], size) * rng.uniform(0.5, 2.0, size) for size in SIZES]
            for _ in range(NUM_STEPS)
        ]
        starts, gradients = _starts(held), [[torch.tensor(part).to(held) for part in row] for row in drawn]
        for start, row, first, last in zip(
            starts,
            gradients[0],
            checked.walked(starts, gradients[:1]),
            checked.walked(starts, gradients),
            strict=True,
        ):
            place = f"of {len(start)} ({dtype})"
            checked.require(
                bool(last.isfinite().all()), f"after {NUM_STEPS} steps an element {place} is not finite"
            )
            if checked.rule is None:
                path = _own_path(checked, start, [row])
            else:
                path = _path(checked, start.double().numpy(), [row.double().numpy()])
            off = _roundings_off(path, first, held)
            at = int(np.argmax(off))
            checked.require(
                bool(off[at] <= 4.0),
                f"after one step element {at} {place} is {float(first[at]):.6g}, where float64 gives "
                f"{float(path[-1][at]):.6g}",
            )


# --- what does not depend on the rule ------------------------------------------------------------------------


def _same(checked: _Checked, ours: Sequence[Tensor], theirs: Sequence[Tensor], sentence: str) -> None:
    for mine, its in zip(ours, theirs, strict=True):
        bad = (mine != its).flatten().nonzero().flatten()
        if bad.numel():
            at = int(bad[0])
            checked.require(
                False,
                f"{sentence}: element {at} of {mine.numel()} is {float(mine.flatten()[at]):.9g} and "
                f"{float(its.flatten()[at]):.9g}",
            )


def _a_long_tensor_is_its_parts(checked: _Checked) -> None:
    """Large tensors may be cut, for threads or vectors; the last element counts as the first."""
    if not checked.elementwise:
        return
    for dtype in ("float32", "float64"):
        rng = generator("long")
        start, gradient = (torch.tensor(rng.normal(size=200_003)).to(DTYPES[dtype]) for _ in range(2))
        whole = checked.walked([start], [[gradient], [gradient / 2], [gradient / 3]])
        pieces = [list((gradient / step).split(9_973)) for step in (1, 2, 3)]
        parts = checked.walked(start.split(9_973), pieces)
        _same(checked, whole, [torch.cat(parts)], f"a long tensor ({dtype}) is not updated like its parts")


def _gradients_are_left_alone(checked: _Checked) -> None:
    for dtype in DTYPES.values():
        parameters = [nn.Parameter(start) for start in _starts(dtype, (5, 64))]
        optimizer = checked.make(parameters)
        for row in _gradients(dtype, (5, 64), 3):
            for parameter, gradient in zip(parameters, row, strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
            after = [parameter.grad for parameter in parameters if parameter.grad is not None]
            _same(checked, after, row, f"a step writes to the gradients ({dtype})")


def _zero_gradients_do_no_harm(checked: _Checked) -> None:
    sizes = (1, 9, 64)
    for dtype in DTYPES.values():
        nothing = [[torch.zeros(size, dtype=dtype) for size in sizes]] * 3
        for given, when in (
            (nothing, "from the start"),
            (_gradients(dtype, sizes, 2) + nothing, "after others"),
        ):
            ends = checked.walked(_starts(dtype, sizes), given)
            finite = all(bool(end.isfinite().all()) for end in ends)
            checked.require(finite, f"gradients of 0 {when} make a parameter NaN or infinite ({dtype})")


def _missing_gradients_move_nothing(checked: _Checked) -> None:
    parameters = [nn.Parameter(start) for start in _starts(torch.float64, (3, 3))]
    before = parameters[1].detach().clone()
    optimizer = checked.make(parameters)
    for row in _gradients(torch.float64, (3, 3), 2):
        parameters[0].grad = row[0]
        optimizer.step()
    _same(checked, [parameters[1].detach()], [before], "a parameter without a gradient is moved")


def _saved_and_loaded_it_goes_on(checked: _Checked) -> None:
    sizes = (1, 9, 65)
    for dtype in DTYPES.values():
        gradients = _gradients(dtype, sizes, 10)
        whole = checked.walked(_starts(dtype, sizes), gradients)
        parameters = [nn.Parameter(start) for start in _starts(dtype, sizes)]
        first = checked.make(parameters)
        _steps(first, parameters, gradients[:4])
        moved = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
        second = checked.make(moved)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        _steps(second, moved, gradients[4:])
        ends = [parameter.detach() for parameter in moved]
        _same(checked, ends, whole, f"saved and loaded after 4 of 10 steps, it goes another way ({dtype})")


def _groups_are_apart(checked: _Checked) -> None:
    """Two groups are as two optimizers, also where the second joins later."""
    if "lr" not in checked.options:
        return
    sizes, rates = (9, 65), (checked.options["lr"], 0.3 * checked.options["lr"])
    starts, gradients = _starts(torch.float64, sizes), _gradients(torch.float64, sizes, 5)
    apart = [
        checked.walked([starts[i]], [[row[i]] for row in gradients], lr=rates[i])[0]
        for i in range(len(sizes))
    ]
    for later in (False, True):
        parameters = [nn.Parameter(start.clone()) for start in starts]
        second = {"params": [parameters[1]], "lr": rates[1]}
        optimizer = checked.make(
            [{"params": [parameters[0]]}] if later else [{"params": [parameters[0]]}, second]
        )
        if later:
            optimizer.add_param_group(second)
        _steps(optimizer, parameters, gradients)
        ends = [parameter.detach() for parameter in parameters]
        _same(
            checked,
            ends,
            apart,
            f"two groups{' (one added later)' if later else ''} differ from two optimizers",
        )


def _closures_are_called(checked: _Checked) -> None:
    parameter = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = checked.make([parameter])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    returned = optimizer.step(closure)
    checked.require(
        returned is not None and float(returned.detach()) == 3.0,
        f"step(closure) returns {returned!r}; it must return what the closure does",
    )
    for _ in range(2):  # a first step may only begin an average
        optimizer.step(closure)
    checked.require(bool((parameter.detach() != 1.0).all()), "three steps move nothing")


def _layout_does_not_matter(checked: _Checked) -> None:
    """Transposed and strided parameters go where contiguous ones do, to a few roundings."""
    for dtype in (torch.float32, torch.float64):
        start = torch.tensor(generator("layout").normal(size=(6, 8))).to(dtype)
        rows = [[torch.tensor(generator("slopes", step).normal(size=(8, 6))).to(dtype)] for step in range(5)]
        results = []
        for parameter in (nn.Parameter(start.t()), nn.Parameter(start.t().contiguous())):
            _steps(checked.make([parameter]), [parameter], rows)
            results.append(parameter.detach())
        off = (results[0] - results[1]).abs().max()
        checked.require(
            bool(off <= 64 * torch.finfo(dtype).eps * (1 + results[1].abs().max())),
            f"a parameter that does not lie side by side ends {float(off):.3g} away from its copy ({dtype})",
        )

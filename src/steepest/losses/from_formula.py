"""A loss from a formula of the user's own."""

from __future__ import annotations

import inspect
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from steepest.backends.derive import as_text, derivative
from steepest.errors import InputError
from steepest.losses.apply import pointwise_loss, softmax_loss
from steepest.losses.base import LossModule
from steepest.losses.formula import Interval, LossFormula
from steepest.losses.switches import Switches
from steepest.naming import class_name

__all__ = ["from_formula"]

Function = Callable[..., Any]
Family = Literal["pointwise", "softmax"]

_TASKS = {("real", "real"): ("regression",), ("logit", "probability"): ("binary",)}
_MOST_PARAMETERS = 3  # as many as a kernel takes
_LONGEST = 160  # characters of a formula that a page prints


def from_formula(
    value: Function,
    gradient: Function | None = None,
    *,
    name: str | None = None,
    family: Family = "pointwise",
    prediction: str = "real",
    target: str = "real",
    tasks: Sequence[str] | None = None,
    title: str | None = None,
    formula: str | None = None,
    valid: Mapping[str, Interval | tuple[float, float]] | None = None,
) -> type[nn.Module]:
    """A loss class from a formula, computed by the same fused kernels as the library's own losses.

    Args:
        value: ``value(prediction, target, **parameters)``, or ``value(log_p, **parameters)`` for the softmax
            family, in the vocabulary of :mod:`steepest.backends.reference`. What follows the first arguments
            are the loss's own parameters, at most three; each has a number as its default.
        gradient: the derivative of ``value`` by its first argument, with the same arguments; left out, it is
            derived (:func:`steepest.backends.derive.derivative`). A stated one may be more exact.
        name: the word under which ``compare`` and ``LOSSES`` know the loss; ``None``: it is not registered.
        family: ``"pointwise"``: element by element; ``"softmax"``: of a class's log-probability, weighted by
            the target's share of the class.
        prediction: what the model's output means: ``"real"``, ``"logit"``, ``"probability"``,
            ``"log_probability"``, ``"log_rate"`` or ``"margin"`` (``"logits"`` for the softmax family).
        target: ``"real"``, ``"probability"``, ``"sign"`` (-1 or 1), ``"count"`` or ``"positive"``
            (``"class"`` for the softmax family).
        tasks: where a comparison may use it, out of regression, binary and multiclass; ``None``: regression for
            real predictions of real targets, binary for logits of 0 and 1, both kinds of classes for softmax.
        title: what a report calls it; ``None``: its name.
        formula: what a page prints as its formula; ``None``: the formula as written.
        valid: the numbers a parameter may take, an open interval ``(low, high)`` or an
            :class:`~steepest.losses.formula.Interval`; one that is not named may take any.

    Returns:
        A subclass of ``nn.Module`` with the constructor ``(reduction="mean", **parameters, **switches)``, see
        :class:`~steepest.losses.switches.Switches`; a softmax loss also takes ``weight``, ``ignore_index`` and
        ``label_smoothing``, as torch's cross-entropy.

    Raises:
        InputError: the name is taken; the formula uses what is not of the vocabulary, or chooses by Python's
            ``if``; a parameter has no default; the gradient is not the value's derivative.

    Numerics: as the formula's own: float32 is computed in float64 and rounded once, the half types in float32.
    A derived gradient is autograd's at ties and kinks, and takes nothing from a branch that is not chosen.

    >>> import torch
    >>> from steepest.backends.reference import log1p
    >>> def cauchy(p, y, c=1.0):
    ...     e = (p - y) / c
    ...     return 0.5 * c * c * log1p(e * e)
    >>> CauchyLoss = from_formula(cauchy)
    >>> x = torch.tensor([1.0], requires_grad=True)
    >>> loss = CauchyLoss(c=2.0)(x, torch.tensor([3.0]))
    >>> loss.backward()
    >>> round(float(loss.detach()), 6), x.grad.tolist()
    (1.386294, [-1.0])
    """
    called = str(name or getattr(value, "__name__", "loss"))
    if family not in get_args(Family):
        raise InputError(f"{called}: family is {family!r}; choose pointwise or softmax.")
    if family == "softmax":
        prediction, target = (
            ("logits" if prediction == "real" else prediction),
            ("class" if target == "real" else target),
        )
    _check_domain(called, family, prediction, target)
    parameters = _parameters(called, value, 1 if family == "softmax" else 2)
    _check_name(called, registered=name is not None)
    count = len(parameters) + (1 if family == "softmax" else 2)
    derived = derivative(value, 0, count)
    if as_text(derived, count) == "0.0":
        raise InputError(
            f"{called}: the value does not depend on its first argument, so there is nothing to learn."
        )
    if gradient is not None:
        as_text(gradient, count)  # refuses what no kernel can compute
    intervals = _intervals(called, parameters, valid or {})
    _check_gradient(called, value, derived, gradient, _points(prediction, target), parameters, intervals)
    chosen = derived if gradient is None else gradient
    made = LossFormula(
        name=called,
        title=title or called.replace("_", " "),
        family=family,
        value=value,
        gradient=chosen,
        prediction=prediction,  # type: ignore[arg-type]
        target=target,  # type: ignore[arg-type]
        tasks=_tasks(called, family, prediction, target, tasks),
        formula=formula or f"mean of {_printed(value, count)}",
        gradient_formula=_printed(chosen, count),
        domain=f"predictions: {prediction}; targets: {target}".replace("_", " "),
        source=f"{value.__module__}.{value.__qualname__}",
        good_at=(),
        bad_at=(),
        parameters=MappingProxyType(parameters),
        valid=MappingProxyType(intervals),
        compared_by_default=False,
    )
    loss = _module(made, value.__module__)
    if name is not None:
        from steepest.losses import LOSSES

        LOSSES[name] = loss
    return loss


# --- what is checked -----------------------------------------------------------------------------------------


def _check_name(name: str, *, registered: bool) -> None:
    from steepest.losses import LOSSES

    if not name.isidentifier():
        raise InputError(
            f"The name {name!r} is no word: use letters, digits and underscores, a letter first (name='my_loss')."
        )
    if registered and name in LOSSES:
        raise InputError(
            f"The name {name} is taken by {LOSSES[name].__name__}; choose another, "
            f"or free it first with del steepest.losses.LOSSES[{name!r}]."
        )


def _check_domain(name: str, family: str, prediction: str, target: str) -> None:
    hints = get_type_hints(LossFormula)
    of_classes = {"prediction": ("logits",), "target": ("class",)}
    for word, given in (("prediction", prediction), ("target", target)):
        known = [w for w in get_args(hints[word]) if (w in of_classes[word]) == (family == "softmax")]
        if given not in known:
            raise InputError(f"{name}: {word} is {given!r}; the {family} family takes {', '.join(known)}.")


def _parameters(name: str, value: Function, num_first: int) -> dict[str, float]:
    """The loss's own parameters and their defaults, from the formula's signature."""
    if not isinstance(value, types.FunctionType):
        raise InputError(f"{name}: the value is {value!r}; write it as a plain function with def.")
    given = list(inspect.signature(value).parameters.values())
    first = "(log_p, ...)" if num_first == 1 else "(prediction, target, ...)"
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if len(given) < num_first or any(p.kind not in by_place for p in given):
        raise InputError(
            f"{name}: the value takes {inspect.signature(value)}; write it as {first}, each by position."
        )
    own = given[num_first:]
    if len(own) > _MOST_PARAMETERS:
        raise InputError(
            f"{name}: the value has {len(own)} parameters of its own; {_MOST_PARAMETERS} is the most."
        )
    taken = {*dir(nn.Module), *Switches.__annotations__, "input", "target", "weight", "reduction", "formula"}
    taken |= {"switches", "ignore_index", "label_smoothing"}
    for parameter in own:
        default = parameter.default
        if not isinstance(default, (int, float)) or isinstance(default, bool):
            what = "no default" if default is inspect.Parameter.empty else f"the default {default!r}"
            raise InputError(
                f"{name}: its parameter {parameter.name} has {what}; give it a number ({parameter.name}=1.0)."
            )
        if parameter.name in taken:
            raise InputError(
                f"{name}: a parameter may not be called {parameter.name}, which a loss has already."
            )
    return {parameter.name: float(parameter.default) for parameter in own}


def _intervals(
    name: str, parameters: Mapping[str, float], valid: Mapping[str, Interval | tuple[float, float]]
) -> dict[str, Interval]:
    intervals = {word: Interval(*given) for word, given in valid.items()}
    for word, interval in intervals.items():
        if word not in parameters:
            known = f"its parameters are {', '.join(parameters)}" if parameters else "it has no parameters"
            raise InputError(f"{name}: valid speaks of {word!r}; {known}.")
        if not interval.holds(parameters[word]):
            raise InputError(
                f"{name}: {word} is {parameters[word]:g} by default, which does not lie in {interval}."
            )
    return {word: intervals.get(word, Interval(-math.inf, math.inf)) for word in parameters}


def _tasks(
    name: str, family: str, prediction: str, target: str, tasks: Sequence[str] | None
) -> tuple[str, ...]:
    if tasks is None:
        return ("binary", "multiclass") if family == "softmax" else _TASKS.get((prediction, target), ())
    given = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    for task in given:
        if task not in ("regression", "binary", "multiclass"):
            raise InputError(
                f"{name}: there is no task {task!r}; choose from regression, binary and multiclass."
            )
    return given


def _points(prediction: str, target: str) -> tuple[Tensor, ...]:
    """A few inputs of the formula's domain, none of them at a tie."""
    rng = np.random.default_rng(20)
    n = 32
    if prediction == "logits":  # a class's log-probability
        return (torch.tensor(np.log(rng.uniform(0.01, 0.99, n))),)
    predictions = {
        "probability": rng.uniform(0.02, 0.98, n),
        "log_probability": np.log(rng.uniform(0.01, 0.99, n)),
    }.get(prediction, rng.normal(size=n) * 2)
    targets = {
        "probability": np.concatenate([rng.uniform(0, 1, n - 8), np.arange(8) % 2]),
        "sign": rng.choice([-1.0, 1.0], n),
        "count": rng.poisson(2.0, n).astype(np.float64),
        "positive": rng.uniform(0.1, 5.0, n),
    }.get(target, rng.normal(size=n) * 2)
    return torch.tensor(predictions), torch.tensor(targets)


def _check_gradient(
    name: str,
    value: Function,
    derived: Function,
    gradient: Function | None,
    points: tuple[Tensor, ...],
    parameters: Mapping[str, float],
    intervals: Mapping[str, Interval],
) -> None:
    """The value is a number somewhere, and the stated gradient its derivative there, whatever the parameters."""
    for factor in (1.0, 0.7, 1.3):
        given = {word: factor * default for word, default in parameters.items()}
        if not all(interval.holds(given[word]) for word, interval in intervals.items()):
            continue
        numbers = list(given.values())
        values = _at(name, value, points, numbers)
        if factor == 1.0 and not torch.isfinite(values).any():
            raise InputError(
                f"{name}: the value is nowhere finite where it was tried; do prediction and target say what it takes?"
            )
        if gradient is None:
            continue
        expected, stated = _at(name, derived, points, numbers), _at(name, gradient, points, numbers)
        off = (stated - expected).abs() > 1e-6 * torch.maximum(stated.abs(), expected.abs()) + 1e-9
        wrong = (
            (torch.isfinite(values) & torch.isfinite(expected) & (off | stated.isnan())).nonzero().flatten()
        )
        if wrong.numel():
            at = int(wrong[0])
            words = ("log_p",) if len(points) == 1 else ("prediction", "target")
            place = [f"{word} {float(point[at]):.6g}" for word, point in zip(words, points, strict=True)]
            place += [f"{word} {number:g}" for word, number in given.items()]
            raise InputError(
                f"{name}: the gradient is {float(stated[at]):.6g} at {', '.join(place)}, where the value's derivative "
                f"is {float(expected[at]):.6g}; correct it, or leave it out to have it derived."
            )


def _at(name: str, function: Function, points: tuple[Tensor, ...], numbers: list[float]) -> Tensor:
    try:
        result = torch.as_tensor(function(*points, *numbers), dtype=torch.float64)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{name}: {function.__name__} fails on tensors: {error}") from None
    return result.expand(points[0].shape)


def _printed(function: Function, count: int) -> str:
    text = as_text(function, count)
    return text if len(text) <= _LONGEST else f"{function.__name__}{inspect.signature(function)}"


# --- the class -----------------------------------------------------------------------------------------------


class _FromFormula(LossModule, nn.Module):
    """The constructor and the forward of a loss whose formula came at run time."""

    _own: tuple[str, ...]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__()
        signature = inspect.signature(type(self))
        try:
            given = signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}{signature}: {error}") from None
        given.apply_defaults()
        switches = given.arguments.pop("switches")
        for word, setting in given.arguments.items():
            if word == "weight":
                self.register_buffer("weight", setting)
            else:
                setattr(self, word, setting)
        self._set_switches(switches)

    def parameters_given(self) -> tuple[Any, ...]:
        """The formula's own parameters, in its order."""
        return tuple(getattr(self, word) for word in self._own)

    def extra_repr(self) -> str:
        own = [f"{word}={getattr(self, word)}" for word in self._own]
        return ", ".join(filter(None, [*own, f"reduction={self.reduction!r}", super().extra_repr()]))


class _Pointwise(_FromFormula):
    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return pointwise_loss(
            self.formula, input, target, self.parameters_given(), reduction=self.reduction, **self.switches
        )


class _Softmax(_FromFormula):
    weight: Tensor | None
    ignore_index: int
    label_smoothing: float

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return softmax_loss(
            self.formula, input, target, self.parameters_given(),
            weight=self.weight, ignore_index=self.ignore_index, label_smoothing=self.label_smoothing,
            reduction=self.reduction, **self.switches,
        )  # fmt: skip


def _module(formula: LossFormula, home: str) -> type[nn.Module]:
    """The class of a formula; its name is the formula's, as ``cauchy`` gives ``CauchyLoss``."""
    words = class_name(formula.name)
    title = words if re.search("[Ll]oss$", words) else f"{words}Loss"
    kind = inspect.Parameter
    arguments = [kind("reduction", kind.POSITIONAL_OR_KEYWORD, default="mean", annotation=str)]
    for word, default in formula.parameters.items():
        arguments.append(kind(word, kind.POSITIONAL_OR_KEYWORD, default=default, annotation=float))
    if formula.family == "softmax":
        arguments.append(kind("weight", kind.KEYWORD_ONLY, default=None))
        arguments.append(kind("ignore_index", kind.KEYWORD_ONLY, default=-100))
        arguments.append(kind("label_smoothing", kind.KEYWORD_ONLY, default=0.0))
    arguments.append(kind("switches", kind.VAR_KEYWORD))
    base = _Softmax if formula.family == "softmax" else _Pointwise
    members = {
        "formula": formula,
        "_own": tuple(formula.parameters),
        "__signature__": inspect.Signature(arguments),
        "__doc__": f"{formula.title}: {formula.formula}.",
        "__module__": home,
        "__qualname__": title,
    }
    return type(title, (base,), members)

"""The contract of a loss, one check after the other."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from steepest.errors import InputError
from steepest.losses import LossFormula
from steepest.testing.exact import ONE, ZERO, exactly, in_full_precision, mp, ulp
from steepest.testing.samples import DTYPES, generator, pointwise_samples, softmax_samples

__all__ = ["check_loss"]

SIZES = (1, 7, 8, 9, 63, 64, 65, 4097)  # about the widths of vectors and of a kernel's blocks
REDUCTIONS = ("none", "mean", "sum")
# float64 roundings a result may be off beyond what its inputs' last digits decide, and units in the last place beyond
# these: float32 is rounded once more, and softmax losses have exponentials in float32.
ROUNDINGS = 16
_UNITS = {("pointwise", "float32"): 0.51, ("softmax", "float32"): 4.0}

Block = tuple[Tensor, ...]


def check_loss(loss: type[nn.Module] | nn.Module, *, samples: Sequence[Tensor] | None = None) -> None:
    """Hold a loss to the library's contract.

    For a loss with a formula: value and gradient, in float32 and float64, against the formula's own text in
    256-bit arithmetic; the gradient is the value's derivative; no NaN, at ties neither. For every loss:
    the reductions, backward included, over sizes about the kernels' blocks; strided and empty inputs; half
    types; ``gradcheck`` and ``gradgradcheck``; ``torch.func.grad`` and ``vmap``; inputs are left as they were.

    Args:
        loss: a loss class, made with its defaults, or a loss; with an argument ``reduction``.
        samples: what the loss is called with, the prediction first and rows along the first dimension, away from
            kinks; ``None``: drawn by what the formula says it takes (a composite loss needs them).

    Raises:
        AssertionError: something does not hold; the sentence says what, and where.
        InputError: there are no samples and no formula to draw them by.

    Numerics: a result may be off by 16 float64 roundings of itself and of what one rounding of its inputs
    changes in it: cancellation in the problem is allowed, cancellation in its text is not.

    >>> from steepest.losses import HuberLoss
    >>> check_loss(HuberLoss(delta=0.5))
    """
    checked = _Checked(loss, samples)
    for block in checked.plain:
        checked.run(_inputs_are_left_alone, block)
    if checked.formula is not None:
        checked.run(_gradient_is_the_derivative)
        checked.run(_values_and_gradients_are_exact)
    for block in checked.plain:
        checked.run(_reductions_belong_together, block)
        checked.run(_layout_does_not_matter, block)
        checked.run(_half_types_are_finite, block)
        checked.run(_transforms_agree, block)
    checked.run(_empty_inputs_do_as_torch)
    checked.run(_derivatives_are_those_of_differences)


class _Checked:
    """The loss, what its formula is, and the inputs it is tried with."""

    def __init__(self, loss: type[nn.Module] | nn.Module, samples: Sequence[Tensor] | None) -> None:
        self.module: Any = _made(loss) if isinstance(loss, type) else loss
        self.name = type(self.module).__name__
        if not hasattr(self.module, "reduction"):
            raise InputError(
                f"{self.name} has no reduction; a loss to check takes reduction='none', 'mean' or 'sum'."
            )
        given: LossFormula | None = getattr(self.module, "formula", None)
        self.formula = given if given is not None and given.family != "composite" else None
        if samples is None and self.formula is None:
            raise InputError(
                f"{self.name} has no formula of one element or one row to draw inputs by; give them as "
                "samples=(prediction, target)."
            )
        self.samples = None if samples is None else tuple(samples)
        self.ordinary_mean = self.formula is not None and (
            getattr(self.module, "weight", None) is None
            and getattr(self.module, "pos_weight", None) is None
            and not {"normalizer", "output_dtype"} & set(getattr(self.module, "switches", {}))
        )

    def with_reduction(self, reduction: str) -> Callable[..., Tensor]:
        other = copy.copy(self.module)
        other.reduction = reduction
        if reduction != "mean" and "normalizer" in getattr(other, "switches", {}):
            other.switches = {word: value for word, value in other.switches.items() if word != "normalizer"}
        return other  # type: ignore[no-any-return]

    def parameters(self) -> list[float]:
        """The formula's own parameters: the module's, where it has them, else their defaults."""
        assert self.formula is not None
        found = [getattr(self.module, word, default) for word, default in self.formula.parameters.items()]
        defaults = self.formula.parameters.values()
        return [_number(one, default) for one, default in zip(found, defaults, strict=True)]

    def parameters_at(self, block: Block) -> list[list[Any]]:
        """The same for each element of a pointwise block: a parameter may be a tensor, as pos_weight."""
        assert self.formula is not None
        columns = []
        for word, default in self.formula.parameters.items():
            given: Any = getattr(self.module, word, default)
            many = isinstance(given, Tensor) and given.numel() > 1
            tensor = given if many else torch.tensor(_number(given, default), dtype=torch.float64)
            columns.append(exactly(torch.broadcast_to(tensor, block[0].shape)))
        return [list(row) for row in zip(*columns, strict=True)] or [[]] * block[0].numel()

    def class_vector(self, name: str) -> Tensor | None:
        """What a softmax loss holds for each class: weights, or an offset."""
        given = getattr(self.module, name, None)
        return given if isinstance(given, Tensor) else None

    def _num_classes(self) -> int | None:
        vectors = [self.class_vector(name) for name in ("weight", "offset")]
        return next((vector.numel() for vector in vectors if vector is not None), None)

    def blocks(self, dtype: str) -> list[Block]:
        """The inputs of one type: the samples given, or those drawn, tails included."""
        if self.samples is not None:
            return [_cast(self.samples, DTYPES[dtype])]
        assert self.formula is not None
        if self.formula.family == "softmax":
            return [*softmax_samples(dtype, self._num_classes())]
        return [pointwise_samples(self.formula, dtype)]

    @property
    def plain(self) -> list[Block]:
        """The same in float64, without tails."""
        if self.samples is not None or self.formula is None:
            return self.blocks("float64")
        if self.formula.family == "softmax":
            return [*softmax_samples("float64", self._num_classes(), tails=False)]
        return [pointwise_samples(self.formula, "float64", tails=False)]

    def run(self, check: Callable[..., None], *arguments: Any) -> None:
        """One check; whatever else the loss raises there is its failure too."""
        try:
            check(self, *arguments)
        except AssertionError:
            raise
        except Exception as error:
            checking = check.__name__.strip("_").replace("_", " ")
            first = str(error).strip().partition("\n")[0]
            self.require(False, f"checking that {checking}: {type(error).__name__}: {first}")

    def require(self, holds: bool, sentence: str) -> None:
        if not holds:
            raise AssertionError(f"{self.name}: {sentence}.")


def _made(loss: type[nn.Module]) -> nn.Module:
    try:
        return loss()
    except TypeError as error:
        raise InputError(
            f"{loss.__name__} is not made without arguments; give the loss itself ({error})."
        ) from None


def _number(given: Any, default: float) -> float:
    """A parameter as a number; of None or of several numbers, its default."""
    if given is None or (isinstance(given, Tensor) and given.numel() != 1):
        return float(default)
    return float(given)


def _cast(block: Sequence[Tensor], dtype: torch.dtype) -> Block:
    return tuple(part.detach().to(dtype) if part.is_floating_point() else part for part in block)


def _value_and_gradient(
    loss: Callable[..., Tensor], block: Block, upstream: float | None = 1.0
) -> tuple[Tensor, Tensor]:
    """The loss and its gradient; ``upstream`` for each of its elements, None: another one for each."""
    leaf = block[0].detach().requires_grad_()  # where it lies, as it lies
    result = loss(leaf, *block[1:])
    given = torch.full_like(result, upstream or 0.0)
    if upstream is None:
        given = torch.linspace(0.5, 2.0, result.numel(), dtype=result.dtype).reshape(result.shape)
    (gradient,) = torch.autograd.grad(result, leaf, given)
    return result.detach(), gradient


# --- against truth -------------------------------------------------------------------------------------------


def _values_and_gradients_are_exact(checked: _Checked) -> None:
    formula = checked.formula
    assert formula is not None
    rows = _softmax_rows if formula.family == "softmax" else _pointwise_rows
    for dtype in ("float32", "float64"):
        for block in checked.blocks(dtype):
            values, gradients = _value_and_gradient(checked.with_reduction("none"), block)
            slopes = _by_row(gradients, values).tolist()
            for value, own, row in zip(values.flatten().tolist(), slopes, rows(checked, block), strict=True):
                place = f"at {row.place} ({dtype})"
                _close(checked, "value", value, row.value, dtype, place)
                for slope, truth in zip(own, row.gradient, strict=True):
                    _close(checked, "gradient", slope, truth, dtype, place)


def _by_row(gradients: Tensor, values: Tensor) -> Tensor:
    """Gradients as one row a value: of one number, or of one a class."""
    of_classes = gradients.dim() > 1 and gradients.shape != values.shape
    return (gradients.movedim(1, -1) if of_classes else gradients).reshape(values.numel(), -1)


class _Truth:
    """What a number is, by how much it moves when its inputs do, each by its own size, and what it adds up from."""

    def __init__(self, exact: Any, sensitivity: Any, terms: Any = ZERO) -> None:
        self.exact, self.sensitivity, self.terms = exact, sensitivity, terms

    def times(self, factor: Any) -> _Truth:
        return _Truth(None if self.exact is None else factor * self.exact, abs(factor) * self.sensitivity)


class _Row:
    def __init__(self, place: str, value: _Truth, gradient: list[_Truth]) -> None:
        self.place, self.value, self.gradient = place, value, gradient


def _close(checked: _Checked, what: str, computed: float, truth: _Truth, dtype: str, place: str) -> None:
    assert checked.formula is not None
    checked.require(not math.isnan(computed), f"the {what} {place} is NaN")
    if truth.exact is None or not mp.isfinite(truth.exact):
        return  # the text has no number there: that it is not NaN is all that can be said
    held = mp.mpf(2) ** (128 if dtype == "float32" else 1024)
    if abs(truth.exact) >= held:
        return
    allowed = ROUNDINGS * mp.mpf(2) ** -53 * (abs(truth.exact) + truth.sensitivity)
    size = max(abs(truth.exact), truth.terms)
    allowed += _UNITS.get((checked.formula.family, dtype), 1.0) * ulp(size, dtype)
    off = abs(mp.mpf(computed) - truth.exact)
    checked.require(
        bool(off <= allowed),
        f"the {what} {place} is {computed:.9g}, where the formula's own text gives {float(truth.exact):.9g}: off by "
        f"{float(off / ulp(truth.exact, dtype)):.3g} units in the last place, "
        f"{float(allowed / ulp(truth.exact, dtype)):.3g} are allowed",
    )


_STEP = mp.mpf(2) ** -100


def _evaluated(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    try:
        return mp.mpf(function(*arguments))
    except (ZeroDivisionError, TypeError):  # a root of a negative number is no mpf
        return None


def _truth(function: Callable[..., Any], arguments: Sequence[Any]) -> _Truth:
    exact = _evaluated(function, arguments)
    sensitivity = ZERO
    if exact is None or not mp.isfinite(exact):
        return _Truth(exact, sensitivity)
    for i, argument in enumerate(arguments):
        moved = _evaluated(function, [*arguments[:i], argument * (1 + _STEP), *arguments[i + 1 :]])
        # A jump is a kink's, where the text says which side counts; it is no sensitivity.
        if (
            moved is not None
            and mp.isfinite(moved)
            and abs(moved - exact) < mp.sqrt(_STEP) * (1 + abs(exact))
        ):
            sensitivity += abs(moved - exact) / _STEP
    return _Truth(exact, sensitivity)


def _pointwise_rows(checked: _Checked, block: Block) -> Iterator[_Row]:
    formula = checked.formula
    assert formula is not None
    assert formula.gradient is not None
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    weight = checked.class_vector("weight")
    weights = exactly(torch.broadcast_to(torch.tensor(1.0) if weight is None else weight, block[0].shape))
    columns = zip(exactly(block[0]), exactly(block[1]), checked.parameters_at(block), weights, strict=True)
    for p, y, given, factor in columns:
        place = f"prediction {float(p)!r}, target {float(y)!r}"
        truths = [_truth(function, [p, y, *given]) for function in (value, gradient)]
        yield _Row(place, truths[0].times(factor), [truths[1].times(factor)])


def _softmax_rows(checked: _Checked, block: Block) -> Iterator[_Row]:
    """Rows of logits, by ``log p = -log(1 + sum over the others of exp(x_i - x_j))``, in which nothing cancels."""
    formula = checked.formula
    assert formula is not None
    assert formula.gradient is not None
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in checked.parameters()]
    weight, offset = checked.class_vector("weight"), checked.class_vector("offset")
    smoothing = mp.mpf(getattr(checked.module, "label_smoothing", 0.0))
    ignored = getattr(checked.module, "ignore_index", -100)
    for row, wanted in zip(*_rows_of_classes(block), strict=True):
        x, classes = exactly(row), range(len(row))
        place = f"logits {_short(row)}, target {_short(wanted)}"
        if not wanted.is_floating_point() and int(wanted) == ignored:
            yield _Row(place, _Truth(ZERO, ZERO), [_Truth(ZERO, ZERO)] * len(x))
            continue
        rounded = ZERO  # what the addition of an offset may lose
        if offset is not None:
            x = [one + more for one, more in zip(x, exactly(offset), strict=True)]
            rounded = max(map(abs, x))
        soft = wanted.is_floating_point()
        shares = exactly(wanted) if soft else [ONE * (j == int(wanted)) for j in classes]
        shares = [smoothing / len(x) + (1 - smoothing) * share for share in shares]
        if weight is not None:
            held = exactly(weight.to(row.dtype))  # as torch's, in the logits' type
            shares = [share * w for share, w in zip(shares, held, strict=True)]
        e = [mp.exp(one - max(x)) for one in x]
        others = [sum((e[i] for i in classes if i != j), ZERO) for j in classes]
        log_p = [-mp.log1p(others[j] / e[j]) for j in classes]
        kept = [j for j in classes if shares[j] != 0]
        values = {j: _truth(value, [log_p[j], *given]) for j in kept}
        slopes = {j: _truth(gradient, [log_p[j], *given]) for j in kept}
        if any(truth.exact is None for truth in (*values.values(), *slopes.values())):
            yield _Row(place, _Truth(None, ZERO), [_Truth(None, ZERO)] * len(x))
            continue
        c = [shares[j] * slopes[j].exact if j in kept else ZERO for j in classes]
        loose = [shares[j] * slopes[j].sensitivity if j in kept else ZERO for j in classes]
        p = [e[j] / sum(e) for j in classes]
        gradients = []
        for j in classes:
            own, rest = c[j] * others[j] / sum(e), sum((c[i] for i in classes if i != j), ZERO) * p[j]
            moved = loose[j] + sum(loose, ZERO) * p[j]
            terms = abs(own) + abs(rest)
            gradients.append(_Truth(own - rest, terms * (1 + rounded) + moved, terms))
        exact = sum((shares[j] * values[j].exact for j in kept), ZERO)
        sensitivity = sum(
            (abs(shares[j]) * (abs(values[j].exact) + values[j].sensitivity) for j in kept), ZERO
        )
        sensitivity += rounded * sum((abs(slope.exact) for slope in gradients), ZERO)
        yield _Row(place, _Truth(exact, sensitivity), gradients)


def _rows_of_classes(block: Block) -> Block:
    """Logits (C,), (N, C) or (N, C, d1, ...) and their targets, as rows."""
    logits, target = block
    if logits.dim() == 1:
        return logits.unsqueeze(0), target.unsqueeze(0)
    rows = logits.movedim(1, -1).reshape(-1, logits.shape[1])
    return rows, target.movedim(1, -1).reshape(rows.shape) if target.is_floating_point() else target.flatten()


def _short(numbers: Tensor) -> str:
    listed = numbers.tolist()
    if not isinstance(listed, list):
        return repr(listed)
    return "[" + ", ".join(f"{n:.6g}" for n in listed[:6]) + (", ...]" if len(listed) > 6 else "]")


def _gradient_is_the_derivative(checked: _Checked) -> None:
    """In 256 bits, by central differences: value and gradient belong together, whoever wrote them."""
    formula = checked.formula
    assert formula is not None
    assert formula.gradient is not None
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in checked.parameters()]
    if formula.family == "softmax":
        points = [[mp.log(mp.mpf(share))] for share in generator("shares").uniform(0.01, 0.99, 40)]
    else:
        points = [list(pair) for pair in zip(*map(exactly, checked.plain[0]), strict=True)]
    step = mp.mpf(10) ** -25
    for first, *others in points:
        rest = [*others, *given]
        ends = [_evaluated(value, [first + side * step, *rest]) for side in (1, -1)]
        stated = _evaluated(gradient, [first, *rest])
        if None in (*ends, stated) or not all(map(mp.isfinite, ends)):
            continue
        difference = (ends[0] - ends[1]) / (2 * step)
        words = ["log_p"] if formula.family == "softmax" else ["prediction", "target"]
        place = ", ".join(f"{word} {float(at):.6g}" for word, at in zip(words, [first, *others], strict=True))
        checked.require(
            bool(abs(difference - stated) <= mp.mpf(10) ** -18 * (1 + abs(difference))),
            f"the gradient's text gives {float(stated):.9g} at {place}, where the value's derivative is "
            f"{float(difference):.9g}",
        )


# --- for every loss ------------------------------------------------------------------------------------------


def _inputs_are_left_alone(checked: _Checked, block: Block) -> None:
    for dtype, reduction in itertools.product(("float32", "float64"), REDUCTIONS):
        held = _cast(block, DTYPES[dtype])
        given = [part.clone() for part in held]
        given[0].requires_grad_()
        where = f"(reduction={reduction!r}, {dtype})"
        result = checked.with_reduction(reduction)(*given)
        _unchanged(checked, given, held, where)
        result.sum().backward()
        _unchanged(checked, given, held, where)


def _unchanged(checked: _Checked, given: Sequence[Tensor], held: Block, where: str) -> None:
    words = ["the prediction", "the target", *(f"argument {i}" for i in range(2, len(given)))]
    for word, after, before in zip(words, given, held, strict=False):
        same = after._version == 0 and torch.equal(after.detach(), before)
        checked.require(same, f"{word} is written to {where}")


def _reductions_belong_together(checked: _Checked, block: Block) -> None:
    """Sum and mean are those of the values, and a gradient is as many times larger as what comes from above."""
    for size, dtype in itertools.product(SIZES, ("float32", "float64")):
        rng = generator(size)
        rows = torch.tensor(rng.integers(0, len(block[0]), size))
        held = _cast([part[rows] for part in block], DTYPES[dtype])
        values, slopes = _value_and_gradient(checked.with_reduction("none"), held)
        total, total_slopes = _value_and_gradient(checked.with_reduction("sum"), held)
        mean, mean_slopes = _value_and_gradient(checked.with_reduction("mean"), held)
        where = f"of {size} rows ({dtype})"
        eps = torch.finfo(DTYPES[dtype]).eps
        close = _Close(checked, eps, where)
        exact = math.fsum(values.double().flatten().tolist())
        weight = math.fsum(values.double().abs().flatten().tolist())
        close.number("the sum", float(total), exact, weight)
        if checked.ordinary_mean:
            close.number("the mean", float(mean), exact / values.numel(), weight / values.numel())
        close.tensor("the sum's gradient", total_slopes, slopes)
        ratio = float(mean.double() / total.double()) if float(total) else 1.0 / values.numel()
        if abs(float(total)) > 0.01 * weight:  # else the quotient has no digits
            close.tensor("the mean's gradient", mean_slopes, total_slopes * ratio, 64)
        for reduction, plain in (("none", slopes), ("sum", total_slopes), ("mean", mean_slopes)):
            _, scaled = _value_and_gradient(checked.with_reduction(reduction), held, 3.0)
            close.tensor(f"three times the gradient of reduction={reduction!r}", scaled, plain * 3.0)
        _, varied = _value_and_gradient(checked.with_reduction("none"), held, None)
        if varied.shape == values.shape:
            upstream = torch.linspace(0.5, 2.0, values.numel(), dtype=values.dtype).reshape(values.shape)
            close.tensor("the gradient of weighted values", varied, slopes * upstream)


class _Close:
    """Comparisons of results that differ by roundings alone."""

    def __init__(self, checked: _Checked, eps: float, where: str) -> None:
        self.checked, self.eps, self.where = checked, eps, where

    def number(self, what: str, computed: float, expected: float, scale: float, roundings: float = 8) -> None:
        near = abs(computed - expected) <= roundings * self.eps * scale
        near = near or not math.isfinite(expected) or computed == expected
        self.checked.require(
            near, f"{what} {self.where} is {computed:.9g}, where the values give {expected:.9g}"
        )

    def tensor(
        self, what: str, computed: Tensor, expected: Tensor, roundings: float = 8, floor: float = 0.0
    ) -> None:
        off = (computed.double() - expected.double()).abs()
        largest = float(expected.double().abs().nan_to_num(0.0, 0.0, 0.0).max()) if expected.numel() else 0.0
        # torch's own operations may cancel inside an element; a formula's kernel has no such excuse.
        allowed = roundings * self.eps * (expected.double().abs() + self.eps * largest) + floor
        if self.checked.formula is None:
            allowed = 8 * allowed + roundings * self.eps * largest
        bad = (~(off <= allowed) & expected.isfinite()).flatten().nonzero().flatten()  # NaN is bad too
        if bad.numel():
            at = int(bad[0])
            self.checked.require(
                False,
                f"{what} {self.where} is {float(computed.flatten()[at]):.9g} at element {at}, where "
                f"{float(expected.flatten()[at]):.9g} was expected",
            )


def _layout_does_not_matter(checked: _Checked, block: Block) -> None:
    """Strided inputs give what their contiguous copies give: a kernel's to the bit, torch's to a few roundings."""
    for dtype, reduction in itertools.product(("float32", "float64"), REDUCTIONS):
        held = _cast(block, DTYPES[dtype])
        strided = tuple(torch.stack([part, torch.zeros_like(part)], dim=-1)[..., 0] for part in held)
        every_second = tuple(part[::2] for part in held)
        copied = tuple(part.clone(memory_format=torch.contiguous_format) for part in every_second)
        upstream = None if reduction == "none" else 1.0
        close = _Close(checked, torch.finfo(DTYPES[dtype]).eps, f"(reduction={reduction!r}, {dtype})")
        for how, scattered, plain in (("number", strided, held), ("row", every_second, copied)):
            results = [
                _value_and_gradient(checked.with_reduction(reduction), given, upstream)
                for given in (scattered, plain)
            ]
            for what, mine, its in zip(("value", "gradient"), *results, strict=True):
                if checked.formula is None:
                    close.tensor(f"the {what} of a view that takes every second {how}", mine, its)
                    continue
                same = torch.equal(mine.isnan(), its.isnan()) and torch.equal(
                    mine.nan_to_num(), its.nan_to_num()
                )
                checked.require(
                    same,
                    f"the {what} of a view that takes every second {how} differs from its copy's {close.where}",
                )


def _half_types_are_finite(checked: _Checked, block: Block) -> None:
    for dtype, reduction in itertools.product(("float16", "bfloat16"), REDUCTIONS):
        held = _cast(block, DTYPES[dtype])
        copies = 1 if reduction == "none" else max(1, 65_536 // len(held[0]))
        if reduction == "sum":
            copies = 1  # a long sum may leave float16's range; a mean may not
        many = tuple(part.repeat(copies, *[1] * (part.dim() - 1)) for part in held)
        value, gradient = _value_and_gradient(checked.with_reduction(reduction), many)
        wide, _ = _value_and_gradient(checked.with_reduction(reduction), _cast(many, torch.float64))
        fits = wide.abs() < torch.finfo(DTYPES[dtype]).max
        checked.require(
            bool((value.isfinite() | ~fits | ~wide.isfinite()).all()),
            f"a {dtype} value is not finite (reduction={reduction!r}, {len(many[0])} rows)",
        )
        checked.require(not gradient.isnan().any(), f"a {dtype} gradient is NaN (reduction={reduction!r})")
        checked.require(
            gradient.dtype == DTYPES[dtype],
            f"the gradient of a {dtype} prediction is {gradient.dtype}; it must be the prediction's type",
        )
        if reduction != "none" and wide.isfinite() and fits:
            off = abs(float(value) - float(wide))
            allowed = 4 * torch.finfo(DTYPES[dtype]).eps * max(abs(float(wide)), 1e-3)
            checked.require(
                off <= allowed,
                f"the {dtype} {reduction} is {float(value):.6g}, where float64 gives {float(wide):.6g}",
            )


def _empty_inputs_do_as_torch(checked: _Checked) -> None:
    block = checked.plain[0]
    for dtype, reduction in itertools.product(("float32", "float64", "bfloat16"), REDUCTIONS):
        held = tuple(part[:0] for part in _cast(block, DTYPES[dtype]))
        value, gradient = _value_and_gradient(checked.with_reduction(reduction), held)
        checked.require(
            gradient.shape == held[0].shape,
            f"the gradient of an empty input has shape {tuple(gradient.shape)}",
        )
        if reduction == "none":
            checked.require(
                value.numel() == 0, f"an empty input has {value.numel()} values, reduction='none'"
            )
        elif reduction == "sum":
            checked.require(float(value) == 0.0, f"the sum over an empty input is {float(value)}, not 0")
        elif checked.ordinary_mean:
            zero = getattr(checked.module, "switches", {}).get("on_empty") == "zero"
            checked.require(
                float(value) == 0.0 if zero else math.isnan(float(value)),
                f"the mean over an empty input is {float(value)}; torch's is NaN (on_empty='zero' makes it 0)",
            )


def _transforms_agree(checked: _Checked, block: Block) -> None:
    """``torch.func.grad`` and ``vmap`` give what autograd gives, and the gradient can be differentiated."""
    few = tuple(part[:12] for part in block)
    loss = checked.with_reduction("mean")
    _, expected = _value_and_gradient(loss, few)
    close = _Close(checked, 1e-13, "(float64)")
    floor = 1e-15  # other operations cancel elsewhere
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own forward mode
        close.tensor("torch.func.grad", torch.func.grad(loss)(*few), expected, floor=floor)
        if len(few[0]) == 12:
            stacked = [part.unflatten(0, (3, 4)) for part in few]
            alone = torch.stack([loss(*(part[i] for part in stacked)) for i in range(3)])
            close.tensor("torch.vmap", torch.vmap(loss)(*stacked), alone, floor=floor)
    leaf = few[0].clone().requires_grad_()
    (double,) = torch.autograd.grad(loss(leaf, *few[1:]), leaf, create_graph=True)
    close.tensor("the gradient that can be differentiated again", double.detach(), expected, floor=floor)


def _derivatives_are_those_of_differences(checked: _Checked) -> None:
    block = _smooth(checked)
    checked.require(
        len(block[0]) > 0, "it is smooth at none of the inputs, so its derivatives cannot be checked"
    )
    leaf = block[0].clone().requires_grad_()
    for reduction in REDUCTIONS:
        loss = checked.with_reduction(reduction)
        function = lambda x, loss=loss: loss(x, *block[1:])  # noqa: E731
        for what, check in (("gradient", gradcheck), ("second derivative", gradgradcheck)):
            holds = check(function, (leaf,), raise_exception=False)
            checked.require(
                holds,
                f"the {what} is not that of the values' differences (reduction={reduction!r}, {check.__name__})",
            )


def _smooth(checked: _Checked) -> Block:
    """A few of the inputs, where the formula's gradient has a slope that is the same nearby: away from kinks."""
    block = checked.plain[0]
    if checked.formula is None or checked.formula.family == "softmax":
        return tuple(part[:4] for part in block)
    assert checked.formula.gradient is not None
    gradient = in_full_precision(checked.formula.gradient)
    given = [mp.mpf(parameter) for parameter in checked.parameters()]

    def slope(p: Any, y: Any, step: Any) -> Any:
        ends = [_evaluated(gradient, [p + side * step, y, *given]) for side in (1, -1)]
        return None if None in ends else (ends[0] - ends[1]) / (2 * step)

    kept = []
    for i, (p, y) in enumerate(zip(exactly(block[0]), exactly(block[1]), strict=True)):
        wide, narrow = slope(p, y, mp.mpf(2) ** -8), slope(p, y, mp.mpf(2) ** -60)
        if wide is not None and narrow is not None and abs(wide - narrow) < 0.02 * (abs(narrow) + 0.02):
            kept.append(i)
    picked = torch.tensor(kept[:8], dtype=torch.int64)
    return tuple(part[picked] for part in block)

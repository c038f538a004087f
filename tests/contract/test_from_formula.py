"""Losses from a user's formula: a class like the library's own, through the same kernels, or one clear sentence."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from steepest.backends.reference import (
    abs,
    exp,
    expm1,
    log,
    log1p,
    maximum,
    minimum,
    power,
    softplus,
    where,
)
from steepest.errors import InputError
from steepest.losses import LOSSES, BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, huber
from steepest.losses.formula import Interval
from steepest.losses.from_formula import from_formula
from steepest.testing.samples import generator


def cauchy(p: Any, y: Any, c: Any = 1.0) -> Any:
    e = (p - y) / c
    return 0.5 * c * c * log1p(e * e)


def cauchy_gradient(p: Any, y: Any, c: Any) -> Any:
    e = (p - y) / c
    return c * e / (1.0 + e * e)


def huber_again(p: Any, y: Any, delta: Any = 1.0) -> Any:
    e = abs(p - y)
    c = minimum(e, delta)
    return c * (e - 0.5 * c)


def hinge(x: Any, y: Any, margin: Any = 1.0) -> Any:
    return maximum(0.0, margin - x * y)


def coin(x: Any, y: Any) -> Any:
    return (1.0 - y) * softplus(x) + y * softplus(-x)


def counted(x: Any, y: Any) -> Any:
    return exp(x) - y * x


def surprise(log_p: Any) -> Any:
    return -log_p


def focal_again(log_p: Any, gamma: Any = 2.0) -> Any:
    return -log_p * power(-expm1(log_p), gamma)


def pair(
    *words: object, n: int = 300, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor]:
    rng = generator(*words)
    return torch.tensor(rng.normal(size=n) * 3).to(dtype), torch.tensor(rng.normal(size=n)).to(dtype)


def through(
    loss: Callable[..., torch.Tensor], *given: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, str]:
    leaf = given[0].clone().requires_grad_()
    value = loss(leaf, *given[1:])
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient, type(value.grad_fn).__name__


# --- the class -----------------------------------------------------------------------------------------------


def test_the_class_is_like_the_librarys_own() -> None:
    made: Any = from_formula(cauchy, valid={"c": (0.0, math.inf)})
    assert issubclass(made, nn.Module)
    assert made.__name__ == "CauchyLoss"
    assert made.__module__ == __name__
    assert str(inspect.signature(made)) == "(reduction: str = 'mean', c: float = 1.0, **switches)"
    assert repr(made(c=2)) == "CauchyLoss(c=2, reduction='mean')"
    loss = made("sum", 0.5, strict_shape=False)
    assert (loss.reduction, loss.c, loss.switches) == ("sum", 0.5, {"strict_shape": False})
    formula = made.formula
    assert (formula.name, formula.title, formula.tasks) == ("cauchy", "cauchy", ("regression",))
    assert formula.formula == "mean of ((0.5 * c) * c) * log1p(((p - y) / c) * ((p - y) / c))"
    assert formula.parameters == {"c": 1.0}
    assert formula.valid == {"c": Interval(0.0, math.inf)}
    assert not formula.compared_by_default
    again = copy.deepcopy(loss)
    p, y = pair("copy")
    assert torch.equal(again(p, y), loss(p, y))


def test_it_runs_in_the_fused_kernel_and_knows_its_parameters() -> None:
    p, y = pair("fused")
    value, gradient, how = through(from_formula(cauchy)("none", c=2.0), p, y)
    assert "Fused" in how
    e = (p - y) / 2.0
    torch.testing.assert_close(value, 2.0 * torch.log1p(e * e), rtol=1e-14, atol=0)
    torch.testing.assert_close(gradient, 2.0 * e / (1.0 + e * e), rtol=1e-14, atol=0)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_built_in_written_again_is_the_built_in(dtype: torch.dtype, reduction: str) -> None:
    """With the same gradient to the bit; with a derived one to a few roundings."""
    p, y = pair("again", dtype=dtype)
    p[:5] = y[:5]
    p[5:10] = y[5:10] + 0.75  # at the bend
    expected = through(HuberLoss(reduction, delta=0.75), p, y)
    stated = through(from_formula(huber_again, huber.gradient)(reduction, delta=0.75), p, y)
    assert all(torch.equal(ours, its) for ours, its in zip(stated[:2], expected[:2], strict=True))
    value, gradient, _ = through(from_formula(huber_again)(reduction, delta=0.75), p, y)
    assert torch.equal(value, expected[0])
    torch.testing.assert_close(gradient, expected[1], rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_logits_margins_and_counts() -> None:
    x, _ = pair("logits")
    y = torch.tensor(generator("classes").integers(0, 2, len(x))).double()
    made = from_formula(coin, prediction="logit", target="probability")
    for ours, its in zip(through(made(), x, y)[:2], through(BCEWithLogitsLoss(), x, y)[:2], strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-14, atol=1e-17)
    margin = from_formula(hinge, prediction="margin", target="sign")
    _, gradient, _ = through(margin("none"), x, 2 * y - 1)
    torch.testing.assert_close(gradient, torch.where((2 * y - 1) * x < 1, 1 - 2 * y, 0.0 * y), rtol=0, atol=0)
    rate = from_formula(counted, prediction="log_rate", target="count")
    _, gradient, _ = through(rate("none"), x, y)
    torch.testing.assert_close(gradient, torch.exp(x) - y, rtol=1e-14, atol=1e-15)
    domains = [(made, ("binary",)), (margin, ()), (rate, ())]
    assert [loss.formula.tasks for loss, _ in domains] == [tasks for _, tasks in domains]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options", [{}, {"ignore_index": 1}, {"label_smoothing": 0.2}, {"weight": (1.0, 0.5, 2.0)}]
)
def test_the_softmax_family(options: dict[str, Any]) -> None:
    rng = generator("softmax family")
    x, index = torch.tensor(rng.normal(size=(50, 3)) * 4), torch.tensor(rng.integers(0, 3, 50))
    given = {k: torch.tensor(v, dtype=torch.float64) if k == "weight" else v for k, v in options.items()}
    made = from_formula(surprise, family="softmax")
    assert made.formula.tasks == ("binary", "multiclass")  # type: ignore[attr-defined]
    for ours, its in zip(
        through(made(**given), x, index), through(CrossEntropyLoss(**given), x, index), strict=True
    ):
        assert ours == its if isinstance(ours, str) else torch.equal(ours, its)  # type: ignore[arg-type]
    focal = from_formula(focal_again, family="softmax")
    _, gradient, how = through(focal(gamma=1.5, **given), x, index)
    leaf = x.clone().requires_grad_()
    (again,) = torch.autograd.grad(focal(gamma=1.5, **given)(leaf, index), leaf, create_graph=True)
    assert "Fused" in how
    torch.testing.assert_close(gradient, again.detach(), rtol=1e-12, atol=1e-16)


def test_the_switches_are_the_librarys() -> None:
    made = from_formula(cauchy)
    p, y = pair("switches", n=12)
    with pytest.raises(InputError, match="strict_shape=False"):
        made()(p.reshape(12, 1), y)
    assert made("none", strict_shape=False)(p.reshape(12, 1), y).shape == (12, 12)
    assert float(made(on_empty="zero")(p[:0], y[:0])) == 0.0
    torch.testing.assert_close(made(normalizer=3.0)(p, y), made("sum")(p, y) / 3.0)
    assert made(output_dtype=torch.float64)(p.float(), y.float()).dtype == torch.float64
    with pytest.raises(TypeError, match="there is no keyword 'strict_shap'; did you mean 'strict_shape'"):
        made(strict_shap=False)
    with pytest.raises(TypeError, match=r"CauchyLoss.*multiple values"):
        made("mean", 1.0, c=2.0)
    with pytest.raises(InputError, match=r"c is -1\.0; it must lie in \(0, inf\)"):
        from_formula(cauchy, valid={"c": (0.0, math.inf)})(c=-1.0)(p, y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
def test_it_compiles_as_one_graph() -> None:
    p, y = pair("compiled")
    for made in (from_formula(cauchy), from_formula(huber_again)):
        loss = made()
        expected, gradient, _ = through(loss, p, y)
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        value, slope, _ = through(compiled, p, y)
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)
        torch.testing.assert_close(slope, gradient, rtol=1e-12, atol=1e-17)


def test_a_parameter_may_learn() -> None:
    p, y = pair("learning")
    c = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    from_formula(cauchy)(c=c)(p, y).backward()
    assert c.grad is not None
    step = 1e-6
    ends = [float(from_formula(cauchy)(c=1.5 + side * step)(p, y)) for side in (1, -1)]
    assert float(c.grad) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7)


# --- names ---------------------------------------------------------------------------------------------------


def test_a_name_registers_the_loss() -> None:
    unnamed = from_formula(cauchy)
    assert unnamed not in LOSSES.values()
    made: Any = from_formula(cauchy, name="my_cauchy", title="My loss", formula="as I like it", tasks=())
    assert LOSSES["my_cauchy"] is made
    assert (made.__name__, made.formula.name, made.formula.title) == ("MyCauchyLoss", "my_cauchy", "My loss")
    assert (made.formula.formula, made.formula.tasks) == ("as I like it", ())
    with pytest.raises(InputError, match=r"my_cauchy is taken by MyCauchyLoss.*del .*LOSSES\['my_cauchy'\]"):
        from_formula(cauchy, name="my_cauchy")
    with pytest.raises(InputError, match="mse is taken by MSELoss"):
        from_formula(cauchy, name="mse")


def test_a_page_explains_it() -> None:
    from steepest.explain import explain

    from_formula(cauchy, name="my_cauchy")
    page = str(explain("my_cauchy"))
    assert "log1p(((p - y) / c) * ((p - y) / c))" in page
    assert f"{__name__}.cauchy" in page


def test_a_comparison_takes_it_by_name() -> None:
    import steepest

    from_formula(cauchy, name="my_cauchy", valid={"c": (0.0, math.inf)})
    rng = generator("compared")
    x = rng.normal(size=(120, 2))
    y = x @ [1.0, -2.0] + rng.normal(size=120) * 0.1
    compared = steepest.compare(
        (x, y), losses=["my_cauchy", "mse"], optimizers=["adam"], hidden=(), max_epochs=2, task="regression"
    )
    assert {cell["loss"] for cell in compared.verdict["cells"]} == {"my_cauchy", "mse"}
    with pytest.raises(InputError, match="my_cauch"):
        steepest.compare((x, y), losses=["my_cauch"], task="regression")


# --- what is refused -----------------------------------------------------------------------------------------


def wrong_gradient(p: Any, y: Any, c: Any) -> Any:
    return (p - y) / c


def nan_gradient(p: Any, y: Any, c: Any) -> Any:
    return log(-1.0 - p * p)


def right_by_default(p: Any, y: Any, c: Any) -> Any:
    e = p - y
    return e / (1.0 + e * e)


@pytest.mark.parametrize("gradient", [wrong_gradient, nan_gradient, right_by_default])
def test_a_gradient_that_is_not_the_derivative(gradient: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"cauchy: the gradient is .* at prediction .*, where the value's"):
        from_formula(cauchy, gradient)
    from_formula(cauchy, cauchy_gradient)


def branching(p: Any, y: Any) -> Any:
    return p - y if p > y else y - p


def of_torch(p: Any, y: Any) -> Any:
    return torch.nn.functional.softplus(p - y)


def without_default(p: Any, y: Any, c: Any) -> Any:
    return c * (p - y)


def by_word(p: Any, y: Any, *, c: Any = 1.0) -> Any:
    return c * (p - y)


def of_nothing(p: Any, y: Any) -> Any:
    return y * 2.0


def nowhere(p: Any, y: Any) -> Any:
    return log(-1.0 - p * p)


def named_forward(p: Any, y: Any, forward: Any = 1.0) -> Any:
    return forward * p


def many(p: Any, y: Any, a: Any = 1.0, b: Any = 1.0, c: Any = 1.0, d: Any = 1.0) -> Any:
    return a * b * c * d * p


def text_default(p: Any, y: Any, a: Any = "x") -> Any:
    return p


def constants_chosen(p: Any, y: Any) -> Any:
    return where(p > y, 0.7, 0.3) * (p - y) * (p - y)


REFUSED: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (branching, {}, r"branching uses Python's if.*write where\(condition, a, b\)"),
    (of_torch, {}, r"of_torch uses torch\.nn\.functional\.softplus.*a formula may use.*softplus"),
    (without_default, {}, r"its parameter c has no default; give it a number \(c=1\.0\)"),
    (text_default, {}, "its parameter a has the default 'x'"),
    (by_word, {}, "each by position"),
    (surprise, {}, r"write it as \(prediction, target, ...\)"),
    (of_nothing, {}, "does not depend on its first argument"),
    (nowhere, {}, "nowhere finite"),
    (named_forward, {}, "may not be called forward"),
    (many, {}, "4 parameters of its own; 3 is the most"),
    (cauchy, {"family": "composite"}, "choose pointwise or softmax"),
    (cauchy, {"prediction": "logits"}, "prediction is 'logits'; the pointwise family takes real, logit"),
    (cauchy, {"target": "class"}, "target is 'class'; the pointwise family takes real"),
    (surprise, {"family": "softmax", "prediction": "logit"}, "the softmax family takes logits"),
    (cauchy, {"valid": {"d": (0, 1)}}, "valid speaks of 'd'; its parameters are c"),
    (cauchy, {"valid": {"c": (2, 3)}}, r"c is 1 by default, which does not lie in \(2, 3\)"),
    (cauchy, {"tasks": ["ranking"]}, "there is no task 'ranking'"),
    (cauchy, {"name": "my loss"}, "'my loss' is no word"),
    (lambda p, y: p - y, {}, "'<lambda>' is no word"),
    (np.square, {}, "write it as a plain function with def"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_refused_and_how(case: int) -> None:
    value, options, words = REFUSED[case]
    before = dict(LOSSES)
    with pytest.raises(InputError, match=words) as caught:
        from_formula(value, **options)
    assert "\n" not in str(caught.value)
    assert before == LOSSES


def test_numbers_chosen_by_where_keep_their_digits() -> None:
    """In the kernel and in tensor operations, where two numbers alone would make a float32 tensor."""
    p, y = pair("chosen")
    loss = from_formula(constants_chosen)("none")
    value, gradient, _ = through(loss, p, y)
    factor = torch.where(
        p > y, torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    )
    torch.testing.assert_close(value, factor * (p - y) ** 2, rtol=1e-15, atol=0)
    torch.testing.assert_close(gradient, 2.0 * factor * (p - y), rtol=1e-15, atol=0)
    leaf = p.clone().requires_grad_()
    (again,) = torch.autograd.grad(loss(leaf, y).sum(), leaf, create_graph=True)
    torch.testing.assert_close(again.detach(), gradient, rtol=1e-14, atol=0)


def test_a_formula_that_would_write_over_the_predictions_is_refused() -> None:
    def in_place(p: Any, y: Any) -> Any:
        p -= y
        return p * p

    with pytest.raises(InputError, match=r"in_place uses \+=, -=.* write e = e - y"):
        from_formula(in_place)

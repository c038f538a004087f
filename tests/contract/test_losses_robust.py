"""The robust, the positive-target and the margin losses: against 256-bit truth, at their limits, beside their peers.

``STEEPEST_TEST_DRAWS`` sets how many inputs each loss is held to its truth on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from scipy.optimize import least_squares
from sklearn import metrics
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from steepest.backends import reference_losses
from steepest.errors import InputError
from steepest.losses.barron import GeneralRobustLoss, general_robust_loss
from steepest.losses.cauchy import CauchyLoss, cauchy_loss
from steepest.losses.charbonnier import CharbonnierLoss, charbonnier_loss
from steepest.losses.gamma import GammaNLLLoss, gamma_nll_loss
from steepest.losses.hinge import HingeLoss, hinge_loss
from steepest.losses.log_cosh import LogCoshLoss, log_cosh_loss
from steepest.losses.squared_hinge import SquaredHingeLoss, squared_hinge_loss
from steepest.losses.tukey import TukeyLoss, tukey_loss
from steepest.losses.tweedie import TweedieLoss, tweedie_loss

from . import truth_robust
from .exact import INF, ONE, mp
from .samples import DTYPES, generator
from .truth import EXPONENTS, exactly, ulp, ulps_off

DRAWS = int(os.environ.get("STEEPEST_TEST_DRAWS", "300"))
Loss = Callable[..., Tensor]
Parameters = tuple[float, ...]

LOSSES: dict[str, tuple[Any, Loss]] = {
    "log_cosh": (LogCoshLoss, log_cosh_loss),
    "charbonnier": (CharbonnierLoss, charbonnier_loss),
    "cauchy": (CauchyLoss, cauchy_loss),
    "tukey": (TukeyLoss, tukey_loss),
    "barron": (GeneralRobustLoss, general_robust_loss),
    "gamma": (GammaNLLLoss, gamma_nll_loss),
    "tweedie": (TweedieLoss, tweedie_loss),
    "hinge": (HingeLoss, hinge_loss),
    "squared_hinge": (SquaredHingeLoss, squared_hinge_loss),
}
REAL = ("log_cosh", "charbonnier", "cauchy", "tukey", "barron")
ALPHAS = (
    1.0,
    2.0,
    0.0,
    -math.inf,
    math.inf,
    -2.0,
    1.9999999999999996,
    2.0000001,
    1e-300,
    1e-9,
    -1e-4,
    4.0,
    -30.0,
)
CASES: list[tuple[str, Parameters]] = [
    ("log_cosh", ()),
    *(("charbonnier", (delta,)) for delta in (1.0, 0.7, 1e-3, 1e5)),
    *(("cauchy", (c,)) for c in (1.0, 0.7, 1e-3, 1e5)),
    *(("tukey", (c,)) for c in (4.685, 0.7 * 4.685, 1e-3, 1e5)),
    *(("barron", (alpha, 1.0)) for alpha in ALPHAS),
    *(("barron", given) for given in ((0.7, 0.7), (1.5, 3.0), (-2.0, 0.5), (0.3, 2.0))),
    ("gamma", ()),
    *(("tweedie", (power,)) for power in (1.5, 1.05, 1.35, 1.0001, 1.999)),
    *(("hinge", (margin,)) for margin in (1.0, 0.7, 0.0)),
    *(("squared_hinge", (margin,)) for margin in (1.0, 0.7)),
]

# Units in the last place. float32 is computed in float64 and rounded once.
BARS = {"float32": 0.51, "float64": 4.0}
OF_AUTOGRAD = {
    # Its slope of x**a is a x**(a - 1), and for this a the subtraction rounds: log(x) times that is the error.
    ("barron", (0.3, 2.0)): 256.0,
    # The slope of the power alone is subnormal where the gradient, the error times it, is not.
    ("barron", (-30.0, 1.0)): 16.0,
}
SPARE = 6  # of float64, in units of the larger term: what a float32 result may be off beyond its rounding


def drawn(name: str, parameters: Parameters, dtype: str, n: int) -> tuple[Tensor, Tensor]:
    rng, info = generator(name, parameters, dtype, n), np.finfo(dtype)
    if name == "gamma":
        columns = truth_robust.positive_pairs(rng, info, n)
    elif name == "tweedie":
        columns = truth_robust.count_pairs(rng, info, n)
    elif name in REAL:
        scales = [abs(scale) for scale in parameters if scale and math.isfinite(scale)]
        columns = truth_robust.real_pairs(rng, info, n, *scales)
    else:
        columns = truth_robust.margin_pairs(rng, info, n, *parameters)
    return torch.tensor(columns[0]).to(DTYPES[dtype]), torch.tensor(columns[1]).to(DTYPES[dtype])


@cache
def truths(
    name: str, parameters: Parameters, dtype: str, n: int
) -> tuple[list[Any], list[Any], list[tuple[Any, ...]]]:
    """Values, gradients, and the exact arguments of them."""
    value, gradient = truth_robust.KNOWN[name]
    given = [mp.mpf(parameter) for parameter in parameters]
    rows = [(p, y, *given) for p, y in zip(*map(exactly, drawn(name, parameters, dtype, n)), strict=True)]
    return [value(*row) for row in rows], [gradient(*row) for row in rows], rows


def far_off(computed: float, truth: Any, dtype: str, term: Any, condition: Any) -> float:
    """Units in the last place off truth, or of a larger term; divided by what the error of ``p - y`` grows by."""
    if dtype == "float64":
        return ulps_off(computed, truth, dtype, term) / float(condition)
    off = ulps_off(computed, truth, dtype)
    if not 0.0 < off < math.inf or term is None or mp.isinf(term):
        return off
    return max(0.0, off - float(SPARE * ulp(abs(term), "float64") / ulp(truth, dtype)))


def at_the_end(truth: Any) -> bool:
    """Within a factor of 16 of the largest float64: the sums and products on the way to it may overflow."""
    return bool(abs(truth) < INF and abs(truth) > mp.mpf(2) ** (EXPONENTS["float64"][1] - 3))


def overflows(truth: Any) -> bool:
    """Finite, and beyond every float64."""
    return bool(mp.mpf(2) ** (EXPONENTS["float64"][1] + 1) <= abs(truth) < INF)


def reference(name: str, p: Tensor, y: Tensor, parameters: Parameters) -> Tensor:
    return reference_losses.pointwise(LOSSES[name][0].formula.value, p, y, parameters, None, "none")


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_values_and_gradients(name: str, parameters: Parameters, backend: str, dtype: str) -> None:
    p, y = drawn(name, parameters, dtype, DRAWS)
    leaf = p.clone().requires_grad_()
    if backend == "cpu":
        loss = LOSSES[name][1](leaf, y, "none", *parameters)
        assert "Fused" in type(loss.grad_fn).__name__
    else:
        loss = reference(name, leaf, y, parameters)
    (gradient,) = torch.autograd.grad(loss, leaf, torch.ones_like(loss))
    values, slopes, rows = truths(name, parameters, dtype, DRAWS)
    term_of_value = truth_robust.LARGER_TERM_OF_VALUE.get(name)
    term_of_slope = truth_robust.LARGER_TERM.get((backend, name))
    bar = BARS[dtype]
    of_slopes = bar
    if dtype == "float64":
        bar = of_slopes = truth_robust.BARS.get((backend, name), bar)
        if backend == "reference":
            of_slopes = OF_AUTOGRAD.get((name, parameters), bar)
    for i, row in enumerate(rows):
        where = f"at {p[i].item()!r}, {y[i].item()!r}"
        conditions = truth_robust.barron_condition(*row) if name == "barron" else (ONE, ONE)
        ends = at_the_end(values[i]), at_the_end(slopes[i])
        if not (name == "tweedie" and ends[0]):
            term = term_of_value and term_of_value(*row)
            off = far_off(float(loss[i].detach()), values[i], dtype, term, conditions[0])
            assert off <= bar, f"value off by {off:.3g} ulp {where}"
        if (name == "tweedie" or backend == "reference") and any(ends):
            continue
        if name == "barron" and backend == "reference" and overflows(values[i]) and not overflows(slopes[i]):
            continue  # autograd of a value that is infinite for the type; the kernel has a formula of its own
        term = term_of_slope and term_of_slope(*row)
        off = far_off(float(gradient[i]), slopes[i], dtype, term, conditions[1])
        assert off <= of_slopes, f"gradient off by {off:.3g} ulp {where}"


# --- higher derivatives ---------------------------------------------------------------------------------------


def smooth(name: str) -> tuple[Tensor, Tensor]:
    """Points of both signs, on either side of every bend and away from it."""
    if name in REAL:
        p = torch.tensor([-9.0, -2.3, -1.3, -0.4, 0.0, 0.4, 0.8, 1.7, 7.0], dtype=torch.float64)
        return p, torch.zeros_like(p) if name != "tukey" else torch.full_like(p, 0.01)
    p = torch.tensor([-2.3, -1.3, -0.4, 0.1, 0.4, 0.8, 1.7], dtype=torch.float64)
    if name in ("gamma", "tweedie"):
        return p, torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1, 7.0, 1.0], dtype=torch.float64)
    return p, torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0], dtype=torch.float64)


# Finite differences see nothing of a very small or a very large scale.
OF_USUAL_SCALE = [
    case
    for case in CASES
    if all(not 0 < abs(word) < 1e-2 and (abs(word) < 100 or math.isinf(word)) for word in case[1])
]


@pytest.mark.parametrize(("name", "parameters"), OF_USUAL_SCALE, ids=str)
def test_gradcheck_and_gradgradcheck(name: str, parameters: Parameters) -> None:
    p, y = smooth(name)
    if name == "barron" and parameters[0] == math.inf:
        p = p.clamp(-2, 2)
    leaf = p.requires_grad_()
    function = lambda x: LOSSES[name][1](x, y, "mean", *parameters)  # noqa: E731
    assert gradcheck(function, (leaf,))
    assert gradgradcheck(function, (leaf,))


@pytest.mark.parametrize("name", REAL)
def test_the_second_derivative_at_a_tie_is_one(name: str) -> None:
    at = torch.tensor([2.5], dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(lambda x: LOSSES[name][1](x, at, "sum"), at.clone())[0]
    torch.testing.assert_close(curvature, torch.ones(1, dtype=torch.float64), rtol=1e-15, atol=0.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_barrons_second_derivative_at_a_tie_is_one(alpha: float) -> None:
    at = torch.tensor([2.5], dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(
        lambda x: general_robust_loss(x, at, "sum", alpha), at.clone()
    )[0]
    torch.testing.assert_close(curvature, torch.ones(1, dtype=torch.float64), rtol=1e-15, atol=0.0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("name", LOSSES)
def test_vmap_and_compile(name: str) -> None:
    p, y = smooth(name)
    loss = LOSSES[name][0](reduction="none")
    torch.testing.assert_close(torch.vmap(loss)(p, y), loss(p, y), rtol=1e-14, atol=1e-17)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(p, y), loss(p, y), rtol=1e-14, atol=1e-17)


# --- the ends -------------------------------------------------------------------------------------------------

ENDS = [
    ("log_cosh", (), math.inf, 1.0),
    ("charbonnier", (3.0,), math.inf, 3.0),
    ("cauchy", (3.0,), math.inf, 0.0),
    ("tukey", (3.0,), 1.5, 0.0),
    ("barron", (2.0, 0.5), math.inf, math.inf),
    ("barron", (1.0, 0.5), math.inf, 2.0),
    ("barron", (0.5, 0.5), math.inf, 0.0),
    ("barron", (0.0, 0.5), math.inf, 0.0),
    ("barron", (-2.0, 0.5), 2.0, 0.0),
    ("barron", (-math.inf, 0.5), 1.0, 0.0),
    ("barron", (math.inf, 0.5), math.inf, math.inf),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(("name", "parameters", "value", "slope"), ENDS, ids=str)
def test_infinite_errors(name: str, parameters: Parameters, value: float, slope: float, dtype: str) -> None:
    p = torch.tensor([math.inf, -math.inf], dtype=DTYPES[dtype], requires_grad=True)
    loss = LOSSES[name][1](p, torch.zeros(2, dtype=DTYPES[dtype]), "none", *parameters)
    (gradient,) = torch.autograd.grad(loss.sum(), p)
    assert loss.tolist() == [value, value]
    assert gradient.tolist() == [slope, -slope]


@pytest.mark.parametrize("name", LOSSES)
def test_nan_stays_nan(name: str) -> None:
    p = torch.tensor([math.nan], dtype=torch.float64)
    assert math.isnan(float(LOSSES[name][1](p, torch.ones(1, dtype=torch.float64))))


def test_small_errors_keep_their_digits() -> None:
    e = torch.tensor([1e-9], dtype=torch.float64)
    zero = torch.zeros_like(e)
    for name in REAL:
        assert float(LOSSES[name][1](e, zero)) == pytest.approx(5e-19, rel=1e-15), name
    assert float(torch.log(torch.cosh(e))) == 0.0  # what is commonly written
    assert float(torch.sqrt(1 + e**2) - 1) == 0.0


def test_large_errors_stay_finite() -> None:
    e = torch.tensor([1e300], dtype=torch.float64)
    zero = torch.zeros_like(e)
    assert float(log_cosh_loss(e, zero)) == 1e300
    assert float(charbonnier_loss(e, zero)) == 1e300
    assert float(cauchy_loss(e, zero)) == pytest.approx(300 * math.log(10), rel=1e-15)
    assert float(tukey_loss(e, zero, c=3.0)) == 1.5
    assert float(general_robust_loss(e, zero)) == pytest.approx(1e300, rel=1e-15)
    assert special.pseudo_huber(1.0, 1e300) == math.inf  # SciPy squares it
    assert float(log_cosh_loss(e.float().clamp(max=1e30), zero.float())) == pytest.approx(1e30, rel=1e-7)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize(
    ("dtype", "delta", "error"),
    [
        ("float64", 3.0, math.inf),
        ("float64", 3.0, -math.inf),
        ("bfloat16", 2.0**34, 2.0**98),  # the value is beyond the type
        ("bfloat16", 1e-300, 40.0),  # the parameter is 0 in the type that a half is computed in
        ("bfloat16", 1e-300, 0.0),
    ],
)
def test_charbonniers_slope_far_out_is_delta_both_ways(dtype: str, delta: float, error: float) -> None:
    e = torch.tensor([error], dtype=DTYPES[dtype], requires_grad=True)
    slope = float(torch.tensor(math.copysign(delta, error), dtype=DTYPES[dtype]))

    def loss(p: Tensor) -> Tensor:
        return charbonnier_loss(p, torch.zeros_like(p), "none", delta)

    (backwards,) = torch.autograd.grad(loss(e), e)
    _, forwards = torch.func.jvp(loss, (e.detach(),), (torch.ones(1, dtype=DTYPES[dtype]),))
    assert [float(backwards), float(forwards)] == [slope, slope]


# --- members of a family --------------------------------------------------------------------------------------


def test_the_named_members_of_barrons_family() -> None:
    p, y = (
        torch.tensor(column)
        for column in truth_robust.real_pairs(generator("family"), np.finfo("float32"), 200)
    )
    close = {"rtol": 4e-15, "atol": 0.0, "equal_nan": True}
    for c in (1.0, 0.7):
        barron = lambda alpha: general_robust_loss(p, y, "none", alpha, c)  # noqa: B023, E731
        torch.testing.assert_close(barron(2.0), 0.5 * ((p - y) / c) ** 2, **close)
        torch.testing.assert_close(barron(1.0) * c**2, charbonnier_loss(p, y, "none", c), **close)
        torch.testing.assert_close(barron(0.0) * c**2, cauchy_loss(p, y, "none", c * math.sqrt(2)), **close)
        torch.testing.assert_close(barron(-math.inf), -torch.expm1(-0.5 * ((p - y) / c) ** 2), **close)


@pytest.mark.parametrize("at", [0.0, 2.0])
def test_barrons_loss_is_smooth_in_alpha(at: float) -> None:
    e = torch.tensor([1e-9, 0.3, 1.0, 5.0, 1e3], dtype=torch.float64)
    zero = torch.zeros_like(e)
    there = general_robust_loss(e, zero, "none", at)
    for step in (1e-6, 1e-10, 1e-14):
        below, above = (general_robust_loss(e, zero, "none", at + sign * step) for sign in (-1, 1))
        assert bool(
            ((below <= there) & (there <= above)).all()
        )  # the loss grows with alpha: Barron 2019, section 2
        torch.testing.assert_close(above, below, rtol=100 * step, atol=0.0)


def test_charbonnier_and_its_form_with_eps() -> None:
    e, eps = torch.linspace(-3, 3, 25, dtype=torch.float64), 0.25
    ours = charbonnier_loss(e, torch.zeros_like(e), "none", delta=eps) / eps + eps
    torch.testing.assert_close(ours, torch.sqrt(e**2 + eps**2), rtol=1e-15, atol=0.0)


# --- beside peers ---------------------------------------------------------------------------------------------


def test_pseudo_huber_of_scipy() -> None:
    e = torch.linspace(-30, 30, 241, dtype=torch.float64)
    for delta in (0.5, 1.0, 4.0):
        peer = torch.tensor(special.pseudo_huber(delta, e.numpy()))
        torch.testing.assert_close(
            charbonnier_loss(e, torch.zeros_like(e), "none", delta), peer, rtol=1e-14, atol=0.0
        )


def test_cauchy_of_scipys_least_squares() -> None:
    e = generator("scipy").normal(size=20) * 5
    for c in (0.5, 1.0, 4.0):
        fit = least_squares(lambda x: e + 0.0 * x, np.zeros(1), loss="cauchy", f_scale=c, max_nfev=1)
        ours = cauchy_loss(torch.tensor(e), torch.zeros(20, dtype=torch.float64), "sum", c)
        assert float(ours) == pytest.approx(fit.cost, rel=1e-14)


@pytest.mark.parametrize("power", [1.05, 1.5, 1.9, 2.0])
def test_deviances_of_scikit_learn(power: float) -> None:
    """Half the difference of two predictions' deviances is the difference of their losses."""
    rng = generator("deviance", power)
    y = rng.gamma(2.0, size=50) * (rng.uniform(size=50) < (0.6 if power < 2 else 1.0))
    first, second = rng.normal(size=(2, 50))
    deviances = [metrics.mean_tweedie_deviance(y, np.exp(x), power=power) for x in (first, second)]
    function: Loss = gamma_nll_loss if power == 2 else tweedie_loss
    options = {} if power == 2 else {"power": power}
    losses = [float(function(torch.tensor(x), torch.tensor(y), **options)) for x in (first, second)]
    assert losses[0] - losses[1] == pytest.approx((deviances[0] - deviances[1]) / 2, rel=1e-9)


def test_hinge_of_scikit_learn() -> None:
    rng = generator("hinge")
    x, y = rng.normal(size=60) * 2, rng.choice([-1.0, 1.0], 60)
    assert float(hinge_loss(torch.tensor(x), torch.tensor(y))) == pytest.approx(
        metrics.hinge_loss(y, x), rel=1e-14
    )


def test_at_the_margin_the_slope_is_zero() -> None:
    x = torch.tensor([1.0, -1.0], requires_grad=True)
    for function in (hinge_loss, squared_hinge_loss):
        (gradient,) = torch.autograd.grad(function(x, torch.tensor([1.0, -1.0])), x)
        assert gradient.tolist() == [0.0, 0.0]


# --- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
def test_module_function_weight_and_switches(name: str) -> None:
    module, function = LOSSES[name]
    p, y = smooth(name)
    parameters = tuple(module.formula.parameters.values())
    each = function(p, y, "none")
    assert isinstance(module(), nn.Module)
    torch.testing.assert_close(module()(p, y), each.mean(), rtol=1e-15, atol=0.0)
    torch.testing.assert_close(module("sum", *parameters)(p, y), each.sum(), rtol=1e-15, atol=0.0)
    torch.testing.assert_close(module("mean", normalizer=4.0)(p, y), each.sum() / 4, rtol=1e-15, atol=0.0)
    weight = torch.linspace(0, 2, len(p), dtype=torch.float64)
    torch.testing.assert_close(function(p, y, "none", weight=weight), weight * each, rtol=1e-15, atol=0.0)
    given = ", ".join(f"{word}={value}" for word, value in module.formula.parameters.items())
    assert repr(module()) == f"{module.__name__}({given})"
    with pytest.raises(InputError, match="shape"):
        function(p, y[:, None])
    with pytest.raises(TypeError, match="on_empty"):
        module(on_empt="zero")


REFUSED = [
    (charbonnier_loss, 0.0, {"delta": 0.0}, r"delta is 0.0; it must lie in \(0, inf\)"),
    (cauchy_loss, 0.0, {"c": -1.0}, r"c is -1.0; it must lie in \(0, inf\)"),
    (tukey_loss, 0.0, {"c": math.inf}, r"c is inf; it must lie in \(0, inf\)"),
    (general_robust_loss, 0.0, {"alpha": math.nan}, r"alpha is nan; it must lie in \[-inf, inf\]"),
    (hinge_loss, 1.0, {"margin": -0.5}, r"margin is -0.5; it must lie in \[0, inf\)"),
    (hinge_loss, 0.0, {}, r"a target is 0; targets are -1 or 1"),
    (squared_hinge_loss, 2.0, {}, r"a target is 2; targets are -1 or 1"),
    (gamma_nll_loss, 0.0, {}, r"the smallest target is 0; gamma targets are greater than 0"),
    (tweedie_loss, -1.0, {}, r"the smallest target is -1; Tweedie targets are at least 0"),
    (tweedie_loss, 1.0, {"power": 1.0}, r"use PoissonNLLLoss for 1, GammaNLLLoss for 2"),
    (tweedie_loss, 1.0, {"power": 2}, r"use PoissonNLLLoss for 1, GammaNLLLoss for 2"),
    (tweedie_loss, 1.0, {"power": 3.0}, r"power is 3.0; it must lie in \(1, 2\)"),
]


@pytest.mark.parametrize(
    ("function", "target", "options", "says"),
    REFUSED,
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_what_is_refused(function: Loss, target: float, options: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        function(torch.zeros(3), torch.full((3,), target), **options)

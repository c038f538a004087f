"""Truth in 256-bit arithmetic: of any formula, by its own text; of the known ones, by a text of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steepest.losses import LossFormula
from steepest.testing.exact import EXPONENTS, exactly, in_full_precision, ulp, ulps_off, worst_ulps

from .exact import INF, NAN, ONE, VOCABULARY, ZERO, mp

__all__ = [
    "EXPONENTS", "INF", "KNOWN", "NAN", "ONE", "VOCABULARY", "ZERO", "exactly", "in_full_precision", "mp",
    "pointwise_truth", "softmax_truth", "ulp", "ulps_off", "worst_ulps",
]  # fmt: skip

# --- pointwise -----------------------------------------------------------------------------------------------


def _log1p(x: Any) -> Any:
    return VOCABULARY["log1p"](x)


def _bce(x: Any, y: Any, w: Any) -> Any:
    negative = ZERO if y == 1 else (1 - y) * VOCABULARY["softplus"](x)
    positive = ZERO if y == 0 else w * y * VOCABULARY["softplus"](-x)
    return negative + positive


def _bce_gradient(x: Any, y: Any, w: Any) -> Any:
    sigmoid = VOCABULARY["sigmoid"]
    return (1 - y) * sigmoid(x) - w * y * sigmoid(-x)


def _held(logarithm: Any) -> Any:
    return max(logarithm, mp.mpf(-100))


# Written here from the literature, not from the package: value and derivative by the prediction.
KNOWN: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "mse": (lambda p, y: (p - y) ** 2, lambda p, y: 2 * (p - y)),
    "mae": (lambda p, y: abs(p - y), lambda p, y: NAN if mp.isnan(p - y) else mp.sign(p - y)),
    "huber": (
        lambda p, y, d: (p - y) ** 2 / 2 if abs(p - y) <= d else d * (abs(p - y) - d / 2),
        lambda p, y, d: NAN if mp.isnan(p - y) else max(-d, min(d, p - y)),
    ),
    "quantile": (
        lambda p, y, q: NAN if mp.isnan(y - p) else max(q * (y - p), (q - 1) * (y - p)),
        lambda p, y, q: NAN if mp.isnan(y - p) else (-q if y > p else (1 - q if y < p else ZERO)),
    ),
    "bce": (_bce, _bce_gradient),
    "bce_probability": (
        lambda p, y: -(y * _held(VOCABULARY["log"](p)) + (1 - y) * _held(VOCABULARY["log1p"](-p))),
        lambda p, y: (p - y) / max(p * (1 - p), mp.mpf(1e-12)),
    ),
}

# Gradients that are a difference of two terms: where the two nearly cancel, the error is in units of the
# larger term, for no formula over rounded inputs can do better.
LARGER_TERM: dict[tuple[str, str], Callable[..., Any]] = {
    (backend, "bce"): lambda x, y, w: max(
        abs((1 - y) * VOCABULARY["sigmoid"](x)), abs(w * y * VOCABULARY["sigmoid"](-x))
    )
    for backend in ("cpu", "cuda", "reference")
}
# The kernel has (p - y) / (p (1 - p)), which loses nothing; autograd has the two terms' difference.
LARGER_TERM["reference", "bce_probability"] = lambda p, y: max(
    y / max(p, mp.mpf(1e-12)), (1 - y) / max(1 - p, mp.mpf(1e-12))
)


def pointwise_truth(
    formula: LossFormula, predictions: Any, targets: Any, parameters: Sequence[float], backend: str = "cpu"
) -> tuple[list[Any], list[Any], list[Any]]:
    """Values, gradients, and the scale of a gradient's terms where a backend takes their difference."""
    own = (in_full_precision(formula.value), in_full_precision(formula.gradient))
    value, gradient = KNOWN.get(formula.name, own)
    scale = LARGER_TERM.get((backend, formula.name))
    given = [mp.mpf(parameter) for parameter in parameters]
    rows = list(zip(exactly(predictions), exactly(targets), strict=True))
    return (
        [value(p, y, *given) for p, y in rows],
        [gradient(p, y, *given) for p, y in rows],
        [scale(p, y, *given) if scale else None for p, y in rows],
    )


# --- softmax -------------------------------------------------------------------------------------------------


def softmax_truth(
    formula: LossFormula,
    logits: Sequence[Any],
    shares: Sequence[Any],
    parameters: Sequence[float] = (),
    weights: Sequence[Any] | None = None,
) -> tuple[Any, list[Any], list[Any]]:
    """One row: ``sum_j w_j q_j value(log p_j)``, its gradient by the logits, and the scale of its terms.

    Nothing is taken from 1: log p_j = -log(1 + sum over the others of exp(x_i - x_j)), and 1 - p_j is the sum
    of the others.
    """
    value, gradient = in_full_precision(formula.value), in_full_precision(formula.gradient)
    given = [mp.mpf(parameter) for parameter in parameters]
    classes = range(len(logits))
    weights = [ONE] * len(logits) if weights is None else weights
    largest = max(logits)
    if mp.isnan(largest) or mp.isinf(largest) or any(mp.isnan(x) for x in logits):
        return NAN, [NAN] * len(logits), [None] * len(logits)
    e = [mp.exp(x - largest) for x in logits]
    total = sum(e)
    others = [sum((e[i] for i in classes if i != j), ZERO) for j in classes]
    log_p = [-_log1p(others[j] / e[j]) if e[j] > 0 else -INF for j in classes]
    p = [e[j] / total for j in classes]
    kept = [j for j in classes if shares[j] * weights[j] != 0]
    loss = sum((weights[j] * shares[j] * value(log_p[j], *given) for j in kept), ZERO)
    c = [weights[j] * shares[j] * gradient(log_p[j], *given) if j in kept else ZERO for j in classes]
    mass = [sum((c[i] for i in kept if i != j), ZERO) for j in classes]
    slopes = [c[j] * (others[j] / total) - p[j] * mass[j] for j in classes]
    scales = [max(abs(c[j] * (others[j] / total)), abs(p[j] * mass[j])) for j in classes]
    return loss, slopes, scales

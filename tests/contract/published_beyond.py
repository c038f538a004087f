"""The published rules of the optimizers beyond torch, Adafactor and Muon in plain numpy, and the options to vary.

For the schedule-free ones the parameter is ``y``; the average ``x`` is in the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[Any]
State = dict[str, Any]
Options = dict[str, Any]


def _uphill(g: Wide, o: Options) -> Wide:
    return -g if o["maximize"] else g


def _wide(p: Wide, *numbers: float) -> list[Any]:
    return [p.dtype.type(number) for number in numbers]


def lion(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Chen et al. 2023, algorithm 2: the update is interpolated with beta1, the momentum tracked with beta2
    beta1, beta2 = _wide(p, *o["betas"])
    g = _uphill(g, o)
    m = s.get("m", 0 * p)
    c = beta1 * m + (1 - beta1) * g
    s["m"] = beta2 * m + (1 - beta2) * g
    return p - o["lr"] * (np.sign(c) + o["weight_decay"] * p)


def adopt(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Taniguchi et al. 2024, algorithm 2: v_0 = g_0^2, then steps 1, 2, ... (here t = 2, 3, ...), c_t = t^(1/4);
    # a coupled decay is in the gradient, a decoupled one leaves out step 0, as the authors' implementation does
    beta1, beta2 = _wide(p, *o["betas"])
    g = _uphill(g, o)
    if not o["decouple"]:
        g = g + o["weight_decay"] * p
    if t == 1:
        s["m"], s["v"] = 0 * p, g**2
        return p
    if o["decouple"]:
        p = p - o["lr"] * o["weight_decay"] * p
    normed = g / np.maximum(np.sqrt(s["v"]), o["eps"])
    if o["clip_exp"] is not None:
        c = p.dtype.type(t - 1) ** p.dtype.type(o["clip_exp"])
        normed = np.clip(normed, -c, c)
    s["m"] = beta1 * s["m"] + (1 - beta1) * normed
    s["v"] = beta2 * s["v"] + (1 - beta2) * g**2
    return p - o["lr"] * s["m"]


def ademamix(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Pagliardini et al. 2024, algorithm 1; f_alpha and f_beta3 with beta_start = beta1
    beta1, beta2, beta3 = _wide(p, *o["betas"])
    (alpha,) = _wide(p, o["alpha"])
    if o["T_alpha_beta3"] is not None:
        share = p.dtype.type(t) / o["T_alpha_beta3"]
        ln1, ln3 = np.log(beta1), np.log(beta3)
        alpha = min(share * alpha, alpha)
        if share < 1:
            beta3 = min(np.exp(ln1 * ln3 / ((1 - share) * ln3 + share * ln1)), beta3)
    g = _uphill(g, o)
    s["m1"] = beta1 * s.get("m1", 0 * p) + (1 - beta1) * g
    s["m2"] = beta3 * s.get("m2", 0 * p) + (1 - beta3) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g**2
    m1_hat, v_hat = s["m1"] / (1 - beta1**t), s["v"] / (1 - beta2**t)
    step = (m1_hat + alpha * s["m2"]) / (np.sqrt(v_hat) + o["eps"])
    return p - o["lr"] * (step + o["weight_decay"] * p)


def adan(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Xie et al. 2022, algorithm 1 with 1 - beta for beta and, as the authors' implementation, bias corrections
    beta1, beta2, beta3 = _wide(p, *o["betas"])
    g = _uphill(g, o)
    change = g - s.get("g", g)
    s["g"] = g
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * change
    s["n"] = beta3 * s.get("n", 0 * p) + (1 - beta3) * (g + beta2 * change) ** 2
    m, v, n = s["m"] / (1 - beta1**t), s["v"] / (1 - beta2**t), s["n"] / (1 - beta3**t)
    step = o["lr"] * (m + beta2 * v) / (np.sqrt(n) + o["eps"])
    shrink = p.dtype.type(o["lr"]) * o["weight_decay"]
    return (1 - shrink) * p - step if o["no_prox"] else (p - step) / (1 + shrink)


def lamb(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # You et al. 2020 (arXiv v5), algorithm 2, phi the identity; without bias_correction: arXiv v3
    beta1, beta2 = _wide(p, *o["betas"])
    g = _uphill(g, o)
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g**2
    m, v = s["m"], s["v"]
    if o["bias_correction"]:
        m, v = m / (1 - beta1**t), v / (1 - beta2**t)
    u = m / (np.sqrt(v) + o["eps"]) + o["weight_decay"] * p
    norm_p, norm_u = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(u**2))
    ratio = norm_p / norm_u if norm_p > 0 and norm_u > 0 else 1
    return p - o["lr"] * ratio * u


def lars(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # You, Gitman and Ginsburg 2017, eq. 6 (local rate) and algorithm 1, the global rate outside the momentum
    g = _uphill(g, o)
    norm_p, norm_g = np.sqrt(np.sum(p**2)), np.sqrt(np.sum(g**2))
    local = p.dtype.type(1)
    if norm_p > 0 and norm_g > 0:
        local = o["trust_coefficient"] * norm_p / (norm_g + o["weight_decay"] * norm_p + o["eps"])
    d = local * (g + o["weight_decay"] * p)
    s["b"] = o["momentum"] * s.get("b", 0 * p) + d
    return p - o["lr"] * (d + o["momentum"] * s["b"] if o["nesterov"] else s["b"])


def _average(p: Wide, s: State, t: int, o: Options, beta: float, direction: Wide) -> Wide:
    # Defazio et al. 2024: z <- z - gamma direction; x <- (1 - c) x + c z; y <- (1 - beta) z + beta x.
    # c_t is t^r max(gamma)^p over the sum of those so far; gamma is warmed up evenly
    one = p.dtype.type(1)
    gamma = o["lr"] * min(one, one * t / o["warmup_steps"] if o["warmup_steps"] else one)
    s["gamma_max"] = max(gamma, s.get("gamma_max", 0 * gamma))
    weight = one * t ** o["r"] * s["gamma_max"] ** o["weight_lr_power"]
    s["sum"] = s.get("sum", 0 * one) + weight
    c = weight / s["sum"]
    s["z"] = s.get("z", p) - gamma * direction
    s["x"] = (1 - c) * s.get("x", p) + c * s["z"]
    return (1 - one * beta) * s["z"] + one * beta * s["x"]


def schedule_free_sgd(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # eqs. 1-3
    return _average(p, s, t, o, o["momentum"], _uphill(g, o) + o["weight_decay"] * p)


def schedule_free_adamw(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # algorithm 1
    beta1, beta2 = _wide(p, *o["betas"])
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g**2
    step = _uphill(g, o) / (np.sqrt(s["v"] / (1 - beta2**t)) + o["eps"])
    return _average(p, s, t, o, beta1, step + o["weight_decay"] * p)


def adafactor(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Shazeer and Stern 2018, algorithms 4 and 5, with means for sums; as torch.optim.Adafactor's documentation has it:
    # rho = min(lr, 1 / sqrt(t)), eps1 a bound from below in two places and not added to g^2, a decay of lr
    one = p.dtype.type(1)
    g = _uphill(g, o)
    eps1, eps2 = (o["spacing"] if o["eps"][0] is None else o["eps"][0]), o["eps"][1]
    fresh = (one * t) ** (one * o["beta2_decay"])
    rms = lambda x: np.sqrt(np.mean(x**2))  # noqa: E731
    alpha = max(one * eps2, rms(p)) * min(one * o["lr"], 1 / np.sqrt(one * t))
    if p.ndim > 1:
        s["r"] = (1 - fresh) * s.get("r", 0) + fresh * np.mean(g**2, axis=-1, keepdims=True)
        s["c"] = (1 - fresh) * s.get("c", 0) + fresh * np.mean(g**2, axis=-2, keepdims=True)
        v = s["r"] * s["c"] / np.maximum(np.mean(s["r"], axis=-2, keepdims=True), eps1)
    else:
        s["v"] = v = (1 - fresh) * s.get("v", 0) + fresh * g**2
    u = g / np.maximum(np.sqrt(v), eps1)
    return (1 - one * o["lr"] * o["weight_decay"]) * p - alpha * u / max(one, rms(u) / o["d"])


def muon(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # torch.optim.Muon's documentation, with its moving average for the momentum: the polynomial of each iteration
    # acts on the singular values, x = U S V'
    mu = p.dtype.type(o["momentum"])
    s["b"] = mu * s.get("b", 0 * p) + (1 - mu) * g
    u = (1 - mu) * g + mu * s["b"] if o["nesterov"] else s["b"]
    norm = np.sqrt(np.sum(u**2))
    x = u / max(norm, p.dtype.type(o["eps"]))
    a, b, c = o["ns_coefficients"]
    for _ in range(o["ns_steps"]):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    rows, columns = p.shape
    scale = np.sqrt(max(1, p.dtype.type(rows) / columns))
    if o["adjust_lr_fn"] == "match_rms_adamw":
        scale = np.sqrt(p.dtype.type(max(rows, columns))) / 5
    return (1 - p.dtype.type(o["lr"]) * o["weight_decay"]) * p - o["lr"] * scale * x


PUBLISHED: dict[str, Callable[..., Wide]] = {
    "Lion": lion,
    "ADOPT": adopt,
    "AdEMAMix": ademamix,
    "Adan": adan,
    "LAMB": lamb,
    "LARS": lars,
    "ScheduleFreeSGD": schedule_free_sgd,
    "ScheduleFreeAdamW": schedule_free_adamw,
    "Adafactor": adafactor,
    "Muon": muon,
}

_DECAY = {"weight_decay": (0.0, 0.1)}
_COMMON = {**_DECAY, "maximize": (False, True)}
_AVERAGE = {**_COMMON, "warmup_steps": (0, 7), "r": (0.0, 1.0)}
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Lion": _COMMON,
    "ADOPT": {**_COMMON, "decouple": (False, True)},
    "AdEMAMix": {**_COMMON, "T_alpha_beta3": (None, 11)},
    "Adan": {**_COMMON, "no_prox": (False, True)},
    "LAMB": {**_COMMON, "bias_correction": (True, False)},
    "LARS": {**_COMMON, "momentum": (0.9, 0.0), "nesterov": (False, True)},
    "ScheduleFreeSGD": _AVERAGE,
    "ScheduleFreeAdamW": _AVERAGE,
    "Adafactor": {
        **_COMMON,
        "eps": ((None, 1e-3), (1e-30, 0.5)),
        "d": (1.0, 1.5),
        "beta2_decay": (-0.8, -0.01),
    },
    "Muon": {**_DECAY, "nesterov": (True, False), "adjust_lr_fn": (None, "match_rms_adamw")},
}

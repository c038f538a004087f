"""The published rules of torch's further optimizers in plain numpy, as optimizer_truth has those of the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[Any]
State = dict[str, Any]
Options = dict[str, Any]


def adagrad(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Duchi, Hazan and Singer 2011, eq. 1 with diag(G); lr_decay and eps: torch.optim.Adagrad's documentation
    one = p.dtype.type(1)
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    s["sum"] = s.get("sum", 0 * p + o["initial_accumulator_value"]) + g**2
    return p - one * o["lr"] / (1 + (t - 1) * one * o["lr_decay"]) * g / (np.sqrt(s["sum"]) + o["eps"])


def adadelta(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Zeiler 2012, algorithm 1: RMS[x] = sqrt(E[x^2] + eps)
    rho = p.dtype.type(1) * o["rho"]
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    s["g2"] = rho * s.get("g2", 0 * p) + (1 - rho) * g**2
    before = s.get("dx2", 0 * p)
    dx = -np.sqrt(before + o["eps"]) / np.sqrt(s["g2"] + o["eps"]) * g
    s["dx2"] = rho * before + (1 - rho) * dx**2
    return p + o["lr"] * dx


def adamax(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Kingma and Ba 2015, algorithm 2; eps inside the maximum: torch.optim.Adamax's documentation
    beta1, beta2 = (p.dtype.type(1) * beta for beta in o["betas"])
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["u"] = np.maximum(beta2 * s.get("u", 0 * p), np.abs(g) + o["eps"])
    return p - o["lr"] / (1 - beta1**t) * s["m"] / s["u"]


def _decayed(p: Wide, g: Wide, o: Options) -> tuple[Wide, Wide]:
    # Loshchilov and Hutter 2019, algorithm 2: weight decay in the gradient, or on the parameter itself
    g = -g if o["maximize"] else g
    if o["decoupled_weight_decay"]:
        return p - p.dtype.type(1) * o["lr"] * o["weight_decay"] * p, g
    return p, g + o["weight_decay"] * p


def nadam(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Dozat 2016, algorithm 2, with the schedule of torch.optim.NAdam's documentation
    one = p.dtype.type(1)
    beta1, beta2 = (one * beta for beta in o["betas"])
    p, g = _decayed(p, g, o)
    mu = [beta1 * (1 - (one * 0.96) ** (i * one * o["momentum_decay"]) / 2) for i in range(1, t + 2)]
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g**2
    m_hat = mu[-1] * s["m"] / (1 - np.prod(mu)) + (1 - mu[-2]) * g / (1 - np.prod(mu[:-1]))
    v_hat = s["v"] / (1 - beta2**t)
    return p - o["lr"] * m_hat / (np.sqrt(v_hat) + o["eps"])


def radam(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Liu et al. 2020, algorithm 2; rectified from rho > 5 on, eps beside the root: torch.optim.RAdam's documentation
    beta1, beta2 = (p.dtype.type(1) * beta for beta in o["betas"])
    p, g = _decayed(p, g, o)
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g**2
    m_hat = s["m"] / (1 - beta1**t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return p - o["lr"] * m_hat
    r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    adaptive = np.sqrt(1 - beta2**t) / (np.sqrt(s["v"]) + o["eps"])
    return p - o["lr"] * m_hat * r * adaptive


def rprop(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Riedmiller and Braun 1993 without backtracking: iRprop- of Igel and Huesken 2000
    (minus, plus), (least, most) = o["etas"], o["step_sizes"]
    g = -g if o["maximize"] else g
    size, turn = s.get("size", 0 * p + o["lr"]), np.sign(g) * np.sign(s.get("prev", 0 * p))
    size = np.where(turn > 0, size * plus, np.where(turn < 0, size * minus, size))
    s["size"] = np.clip(size, least, most)
    s["prev"] = np.where(turn < 0, 0, g)
    return p - np.sign(s["prev"]) * s["size"]


def asgd(p: Wide, g: Wide, s: State, t: int, o: Options) -> Wide:
    # Polyak and Juditsky 1992; the rate of Xu 2011, worked out after a step and taken in the next
    one = p.dtype.type(1)
    eta = s.get("eta", one * o["lr"])
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    p = (1 - o["lambd"] * eta) * p - eta * g
    s["ax"] = s.get("ax", 0 * p) + s.get("mu", one) * (p - s.get("ax", 0 * p))
    s["eta"] = one * o["lr"] / (1 + one * o["lambd"] * o["lr"] * t) ** (one * o["alpha"])
    s["mu"] = one / max(1, t - o["t0"])
    return p


PUBLISHED: dict[str, Callable[..., Wide]] = {
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "Adamax": adamax,
    "NAdam": nadam,
    "RAdam": radam,
    "Rprop": rprop,
    "ASGD": asgd,
}

# Arguments to vary, each at its default and away from it; every bool is varied too.
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Adagrad": {
        "lr_decay": (0.0, 0.1),
        "initial_accumulator_value": (0.0, 0.5),
        "eps": (1e-10, 1e-3),
    },
    "Adadelta": {"rho": (0.9, 0.5), "eps": (1e-6, 1e-2)},
    "Adamax": {"betas": ((0.9, 0.999), (0.5, 0.8)), "eps": (1e-8, 1e-3)},
    "NAdam": {"betas": ((0.9, 0.999), (0.5, 0.8)), "momentum_decay": (4e-3, 0.2)},
    "RAdam": {"betas": ((0.9, 0.999), (0.5, 0.75), (0.5, 0.5))},  # rectified from step 6 on, from 8 on, never
    "Rprop": {"etas": ((0.5, 1.2), (0.3, 1.5)), "step_sizes": ((1e-6, 50.0), (0.008, 0.02))},
    "ASGD": {"lambd": (1e-4, 0.5), "alpha": (0.75, 0.5), "t0": (1e6, 3.0)},
}

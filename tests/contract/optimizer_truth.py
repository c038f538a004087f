"""The published update rules in plain numpy, one function a class, and the options each class has."""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steepest.backends import reference
from steepest.errors import InputError

Wide = NDArray[Any]
FLAGS_OF_TORCHS_KERNELS = {
    "capturable",
    "differentiable",
    "foreach",
    "fused",
}  # they choose a way, not a result


def sgd(p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    # torch.optim.SGD's documentation; "ema": Goodfellow, Bengio and Courville 2016, with v0 = 0
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    if o["momentum"] == 0:
        return p - o["lr"] * g
    if o.get("convention", "torch") == "ema":
        s["v"] = o["momentum"] * s.get("v", 0 * p) + (1 - o["momentum"]) * g
        return p - o["lr"] * s["v"]
    s["b"] = g if t == 1 else o["momentum"] * s["b"] + (1 - o["dampening"]) * g
    return p - o["lr"] * (g + o["momentum"] * s["b"] if o["nesterov"] else s["b"])


def rmsprop(p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    # Tieleman and Hinton 2012; centred: Graves 2013, eqs. 38-41; eps outside the root, as torch
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    s["v"] = o["alpha"] * s.get("v", 0 * p) + (1 - o["alpha"]) * g * g
    spread = s["v"]
    if o["centered"]:
        s["m"] = o["alpha"] * s.get("m", 0 * p) + (1 - o["alpha"]) * g
        spread = s["v"] - s["m"] ** 2
    step = g / (np.sqrt(spread) + o["eps"])
    if o["momentum"] > 0:
        s["b"] = o["momentum"] * s.get("b", 0 * p) + step
        step = s["b"]
    return p - o["lr"] * step


def adam(p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    # Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; Reddi et al. 2018, algorithm 2
    (beta1, beta2), decay = o["betas"], o["weight_decay"]
    g = -g if o["maximize"] else g
    if o.get("decoupled_weight_decay", True):  # AdamW has no such option: always
        p = p - o["lr"] * decay * p
    else:
        g = g + decay * p
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g * g
    v = s["v"]
    if o["amsgrad"]:
        s["largest"] = v = np.maximum(s.get("largest", 0 * p), v)
    one = p.dtype.type(1)
    m_hat = s["m"] / (1 - (one * beta1) ** t)
    v_hat = v / (1 - (one * beta2) ** t)
    return p - o["lr"] * m_hat / (np.sqrt(v_hat) + o["eps"])


PUBLISHED: dict[str, Callable[..., Wide]] = {"SGD": sgd, "RMSprop": rmsprop, "Adam": adam, "AdamW": adam}


def by_its_own_rule(cls: Any, p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    """For a class without a text above: the package's rule on numpy arrays."""
    rule, given = cls.rule_of(o), cls.hyperparameters_of(o).values()
    words = {
        id(getattr(reference, name)): getattr(np, name)
        for name in (
            "abs",
            "exp",
            "expm1",
            "log",
            "log1p",
            "maximum",
            "minimum",
            "sign",
            "sqrt",
            "tanh",
            "where",
        )
    }
    scope = {name: words.get(id(value), value) for name, value in rule.update.__globals__.items()}
    update = types.FunctionType(rule.update.__code__, scope)
    slots = [s.get(name, 0 * p) for name in rule.slots]
    new = update(p, g, *slots, *(p.dtype.type(c) for c in rule.coefficients(float(t), *given)))
    s.update(zip(rule.slots, new[1:], strict=True))
    return new[0]


def truth(
    cls: Any, options: dict[str, Any], start: NDArray[Any], gradients: list[NDArray[Any]]
) -> list[Wide]:
    """Where the parameter is before the first and after each step, in the arrays' own precision."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    given = {**defaults, **options}
    path = [start]
    state: dict[str, Any] = {}
    for t, gradient in enumerate(gradients, 1):
        step = PUBLISHED.get(cls.__name__)
        before = path[-1]
        path.append(
            step(before, gradient, state, t, given)
            if step
            else by_its_own_rule(cls, before, gradient, state, t, given)
        )
    return path


def option_sets(cls: Any) -> Iterator[dict[str, Any]]:
    """Every combination of what the class's signature offers that its constructor accepts."""
    import torch

    choices: dict[str, tuple[Any, ...]] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if isinstance(parameter.default, bool) and name not in FLAGS_OF_TORCHS_KERNELS:
            choices[name] = (False, True)
        elif name == "momentum":
            choices[name] = (0.0, 0.9)
        elif name == "dampening":
            choices[name] = (0.0, 0.3)
        elif name == "weight_decay":
            choices[name] = (0.0, 0.1)
        elif name == "convention":
            choices[name] = ("torch", "ema")
    for values in itertools.product(*choices.values()):
        options = dict(zip(choices, values, strict=True))
        if not options.get("momentum") and (options.get("dampening") or options.get("convention") == "ema"):
            continue  # without momentum there is nothing to dampen, or to average
        try:
            cls([torch.nn.Parameter(torch.zeros(1))], **options)
        except (ValueError, InputError):
            continue
        yield options


def peer_options(options: dict[str, Any], lr: float) -> dict[str, Any]:
    """The same for torch's class: a moving average is its momentum at a smaller rate."""
    given = {name: value for name, value in options.items() if name != "convention"}
    ema = options.get("convention") == "ema" and options["momentum"] > 0
    return {**given, "lr": lr * (1 - options["momentum"]) if ema else lr}

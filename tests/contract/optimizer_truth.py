"""The published update rules in plain numpy, one function a class, and the options each class has."""

from __future__ import annotations

import importlib
import inspect
import itertools
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

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
    # torch.optim.SGD's documentation; "ema": Goodfellow, Bengio and Courville 2016, with v0 = 0; "keras":
    # keras.optimizers.SGD's documentation; "tf1": tf.compat.v1.train.MomentumOptimizer's
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    lr, mu, convention = o["lr"], o["momentum"], o.get("convention", "torch")
    if mu == 0:
        return p - lr * g
    if convention == "keras":
        s["velocity"] = mu * s.get("velocity", 0 * p) - lr * g
        return p + mu * s["velocity"] - lr * g if o["nesterov"] else p + s["velocity"]
    if convention == "tf1":
        s["accumulation"] = mu * s.get("accumulation", 0 * p) + g
        return p - lr * g - lr * mu * s["accumulation"] if o["nesterov"] else p - lr * s["accumulation"]
    if convention == "ema":
        s["v"] = mu * s.get("v", 0 * p) + (1 - mu) * g
        return p - lr * s["v"]
    s["b"] = g if t == 1 else mu * s["b"] + (1 - o["dampening"]) * g
    return p - lr * (g + mu * s["b"] if o["nesterov"] else s["b"])


def rmsprop(p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    # Tieleman and Hinton 2012; centred: Graves 2013, eqs. 38-41; eps outside the root, as torch; the others:
    # keras.optimizers.RMSprop's update_step, TensorFlow's ApplyRMSProp from ones, optax.rmsprop
    g = (-g if o["maximize"] else g) + o["weight_decay"] * p
    convention = o.get("convention", "torch")
    s["v"] = o["alpha"] * s.get("v", (1 if convention == "tf1" else 0) + 0 * p) + (1 - o["alpha"]) * g * g
    spread = s["v"]
    if o["centered"]:
        s["m"] = o["alpha"] * s.get("m", 0 * p) + (1 - o["alpha"]) * g
        spread = s["v"] - s["m"] ** 2
    if convention == "torch":
        step = g / (np.sqrt(spread) + o["eps"])
        outside = o["lr"]
    else:
        step = o["lr"] * g / np.sqrt(spread + o["eps"])
        outside = 1
    if o["momentum"] > 0:
        s["b"] = o["momentum"] * s.get("b", 0 * p) + step
        step = s["b"]
    return p - outside * step


def adam(p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    # Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2; Reddi et al. 2018, algorithm 2;
    # "keras": keras.optimizers.Adam's update_step; "optax": optax.scale_by_adam, optax.scale_by_amsgrad
    (beta1, beta2), decay, convention = o["betas"], o["weight_decay"], o.get("convention", "torch")
    g = -g if o["maximize"] else g
    if o.get("decoupled_weight_decay", True):  # AdamW has no such option: always
        p = p - o["lr"] * decay * p
    else:
        g = g + decay * p
    s["m"] = beta1 * s.get("m", 0 * p) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0 * p) + (1 - beta2) * g * g
    one = p.dtype.type(1)
    left1, left2 = 1 - (one * beta1) ** t, 1 - (one * beta2) ** t
    v = s["v"] / left2 if convention == "optax" else s["v"]
    if o["amsgrad"]:
        s["largest"] = v = np.maximum(s.get("largest", 0 * p), v)
    if convention == "keras":
        return p - o["lr"] * np.sqrt(left2) / left1 * s["m"] / (np.sqrt(v) + o["eps"])
    v_hat = v + o["eps_root"] if convention == "optax" else v / left2
    return p - o["lr"] * (s["m"] / left1) / (np.sqrt(v_hat) + o["eps"])


PUBLISHED: dict[str, Callable[..., Wide]] = {"SGD": sgd, "RMSprop": rmsprop, "Adam": adam, "AdamW": adam}
# Values of a class's arguments beyond those that every class has; its conventions are all of its signature's.
CHOICES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Adam": {"eps_root": (0.0, 1e-4)},
    "AdamW": {"eps_root": (0.0, 1e-4)},
}
for path in sorted(Path(__file__).parent.glob("published_*.py")):
    more = importlib.import_module(f"{__package__}.{path.stem}")
    PUBLISHED |= more.PUBLISHED
    CHOICES |= more.CHOICES


def by_its_own_rule(cls: Any, p: Wide, g: Wide, s: dict[str, Any], t: int, o: dict[str, Any]) -> Wide:
    """For a class without a text above: the package's rule on numpy arrays."""
    rule, given = cls.rule_of(o), cls.hyperparameters_of(o)
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

    def on_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
        scope = {name: words.get(id(value), value) for name, value in function.__globals__.items()}
        return types.FunctionType(function.__code__, scope)

    starts = {"parameter": p, "gradient": g}
    begin = {name: rule.begins_at(name, given) for name in (*rule.slots, *rule.scalars)}
    slots = [s.get(name, 0 * p + starts.get(begin[name], begin[name])) for name in rule.slots]
    scalars = [s.get(name, begin[name]) for name in rule.scalars]
    numbers = [p.dtype.type(c) for c in rule.coefficients(float(t), *given.values(), *scalars)]
    scalars, factors = numbers[: len(scalars)], numbers[len(scalars) :]
    if rule.measure is not None:
        norms = [np.sqrt(np.sum(x * x)) for x in on_numpy(rule.measure)(p, g, *slots, *factors)]
        factors.append(rule.trust(*norms, *factors))
    new = on_numpy(rule.update)(p, g, *slots, *factors)
    s.update(zip((*rule.slots, *rule.scalars), (*new[1:], *scalars), strict=True))
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
            choices[name] = get_args(get_type_hints(cls.__init__)["convention"])
    choices |= CHOICES.get(cls.__name__, {})
    for values in itertools.product(*choices.values()):
        options = dict(zip(choices, values, strict=True))
        without = cls.__name__ == "SGD" and not options["momentum"]
        if without and (options["dampening"] or options["convention"] != "torch"):
            continue  # without momentum there is nothing to dampen, and one convention
        try:
            cls([torch.nn.Parameter(torch.zeros(1))], **options)
        except (ValueError, InputError):
            continue
        yield options


def peer_options(name: str, options: dict[str, Any], lr: float) -> dict[str, Any] | None:
    """The same for torch's class, and ``None`` where it has no such form.

    A moving average is torch's momentum at a smaller rate, and tf1's momentum torch's own.
    """
    given = {word: value for word, value in options.items() if word not in ("convention", "eps_root")}
    convention = options.get("convention", "torch")
    if convention == "ema":
        return {**given, "lr": lr * (1 - options["momentum"])}
    same = convention == "torch" or (name, convention) == ("SGD", "tf1")
    return {**given, "lr": lr} if same else None

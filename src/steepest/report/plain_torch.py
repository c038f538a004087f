"""The winner's training written out in plain PyTorch, to be copied: no line of it needs steepest.

Whatever comes out of the records gets into the program as a number or by ``repr``: no name in them is ever code.
What stands here are formulas as text; tests hold each one to the loss it stands for, and run the whole.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from steepest.report.words import Cell
from steepest.schedules import SCHEDULES

__all__ = ["LOSSES", "OPTIMIZERS", "arrays_code", "training_code"]


@dataclass(frozen=True)
class PlainLoss:
    """A loss as an expression of ``p``, a batch's outputs, and ``y``, its targets.

    ``parameters`` are names in the expression that the run's own values are put in for; ``before`` are lines that
    come once, before training.
    """

    expression: str
    output: str = "real"  # what a model puts out: real, log_rate, logit or logits
    parameters: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlainOptimizer:
    """A class of ``torch.optim`` and the hyperparameters it is given."""

    cls: str
    names: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)


_BETAS = ("beta1", "beta2", "eps", "weight_decay")
_COUNTS = "counts = torch.bincount(y_train.long()).double()"
_LOG_P = "F.log_softmax(p, dim=1).gather(1, y.long()[:, None])[:, 0]"

LOSSES = {
    "mse": PlainLoss("F.mse_loss(p, y)"),
    "mae": PlainLoss("F.l1_loss(p, y)"),
    "huber": PlainLoss("F.huber_loss(p, y, delta={delta})", parameters=("delta",)),
    "smooth_l1": PlainLoss("F.smooth_l1_loss(p, y, beta={beta})", parameters=("beta",)),
    "quantile": PlainLoss(
        "torch.maximum({quantile} * (y - p), ({quantile} - 1) * (y - p)).mean()", parameters=("quantile",)
    ),
    "log_cosh": PlainLoss("((p - y) + F.softplus(-2 * (p - y)) - math.log(2)).mean()"),
    "charbonnier": PlainLoss(
        "({delta}**2 * ((1 + ((p - y) / {delta}) ** 2).sqrt() - 1)).mean()", parameters=("delta",)
    ),
    "cauchy": PlainLoss("({c}**2 / 2 * torch.log1p(((p - y) / {c}) ** 2)).mean()", parameters=("c",)),
    "tukey": PlainLoss(
        "({c}**2 / 6 * (1 - (1 - ((p - y) / {c}) ** 2).clamp(min=0) ** 3)).mean()", parameters=("c",)
    ),
    "poisson_nll": PlainLoss("F.poisson_nll_loss(p, y)", "log_rate"),
    "gamma": PlainLoss("(y * torch.exp(-p) + p).mean()", "log_rate"),
    "tweedie": PlainLoss(
        "(y * torch.exp((1 - {power}) * p) / ({power} - 1) + torch.exp((2 - {power}) * p) / (2 - {power})).mean()",
        "log_rate",
        ("power",),
    ),
    "bce": PlainLoss(
        "F.binary_cross_entropy_with_logits(p, y, pos_weight=torch.tensor({pos_weight}))",
        "logit",
        ("pos_weight",),
    ),
    "bce_probability": PlainLoss("F.binary_cross_entropy(torch.sigmoid(p), y)", "logit"),
    "binary_focal": PlainLoss(
        "(-{alpha} * y * torch.sigmoid(-p) ** {gamma} * F.logsigmoid(p)"
        " - (1 - {alpha}) * (1 - y) * torch.sigmoid(p) ** {gamma} * F.logsigmoid(-p)).mean()",
        "logit",
        ("alpha", "gamma"),
    ),
    "cross_entropy": PlainLoss("F.cross_entropy(p, y.long())", "logits"),
    "focal": PlainLoss("(-(1 - log_p.exp()) ** {gamma} * log_p).mean()", "logits", ("gamma",)),
    "generalized_cross_entropy": PlainLoss("((1 - log_p.exp() ** {q}) / {q}).mean()", "logits", ("q",)),
    "poly_cross_entropy": PlainLoss(
        "(-log_p + {epsilon} * (1 - log_p.exp())).mean()", "logits", ("epsilon",)
    ),
    "logit_adjusted": PlainLoss(
        "F.cross_entropy(p + offset, y.long())",
        "logits",
        before=(_COUNTS, "offset = (counts / counts.sum()).log().float()"),
    ),
    "class_balanced": PlainLoss(
        "(weight[y.long()] * F.cross_entropy(p, y.long(), reduction='none')).mean()",
        "logits",
        before=(
            _COUNTS,
            "weight = 1 / (1 - (1 - 1 / counts.sum()) ** counts)",
            "weight = (weight * counts.sum() / (weight * counts).sum()).float()",
        ),
    ),
}

OPTIMIZERS = {
    "sgd": PlainOptimizer("SGD", ("weight_decay",)),
    "momentum": PlainOptimizer("SGD", ("momentum", "weight_decay")),
    "nesterov": PlainOptimizer("SGD", ("momentum", "weight_decay"), {"nesterov": "True"}),
    "rmsprop": PlainOptimizer("RMSprop", ("alpha", "eps", "weight_decay")),
    "adam": PlainOptimizer("Adam", _BETAS),
    "adamw": PlainOptimizer("AdamW", _BETAS),
    "adagrad": PlainOptimizer("Adagrad", ("lr_decay", "eps", "weight_decay")),
    "adadelta": PlainOptimizer("Adadelta", ("rho", "eps", "weight_decay")),
    "adamax": PlainOptimizer("Adamax", _BETAS),
    "nadam": PlainOptimizer("NAdam", (*_BETAS, "momentum_decay")),
    "radam": PlainOptimizer("RAdam", _BETAS),
}

_ACTIVATIONS = {"relu": "ReLU", "tanh": "Tanh", "gelu": "GELU", "silu": "SiLU", "sigmoid": "Sigmoid"}

# A score of ``predicted`` and ``actual`` values, or of ``log_p`` (rows, classes) and class indices ``y``.
_SCORES = {
    "rmse": "(predicted - actual).square().mean().sqrt()",
    "mae": "(predicted - actual).abs().mean()",
    "log_loss": "F.nll_loss(log_p, y)",
    "accuracy": "(log_p.argmax(dim=1) == y).double().mean()",
    "balanced_accuracy": "torch.stack([(log_p[y == c].argmax(dim=1) == c).double().mean() for c in y.unique()]).mean()",
    "balanced_log_loss": "torch.stack([F.nll_loss(log_p[y == c], y[y == c]) for c in y.unique()]).mean()",
}


def arrays_code(target: str, plan: Mapping[str, Any]) -> str:
    """Lines that write the encoded rows as the comparison split them, to be run once, with steepest."""
    table, also = f'"DATA", {target!r}', []
    if plan.get("rows") is not None:
        table, also = (
            f"draw({table}, {plan['rows']}, {plan['seed']})",
            ["from steepest.data.draw import draw"],
        )
    options = {"task": plan["asked_task"], "seed": plan["seed"]}
    options |= {"validation": plan["validation"], "test": plan["test"]}
    options |= {name: plan[name] for name in ("group", "time") if plan.get(name) is not None}
    given = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return "\n".join(
        [
            "import numpy as np",
            "from steepest.data import prepare",
            *also,
            "",
            f"rows = prepare({table}, {given})",
            "np.savez(",
            '    "rows.npz",',
            "    x_train=rows.x_train, x_validation=rows.x_validation, x_test=rows.x_test,",
            "    y_train=rows.y_train, y_validation=rows.y_validation, y_test=rows.y_test,",
            "    mean=rows.encoding.target_mean, scale=rows.encoding.target_scale,",
            ")",
        ]
    )


def training_code(verdict: Mapping[str, Any], winner: Cell, hyper: Mapping[str, float]) -> str | None:
    """A program that reads ``rows.npz`` and trains the winner; None where PyTorch lacks the loss or the optimizer.

    Args:
        hyper: the hyperparameters of the winner's runs, as they were read back.
    """
    loss, optimizer = LOSSES.get(winner["loss"]), OPTIMIZERS.get(winner["optimizer"])
    if loss is None or optimizer is None or verdict["metric"] not in _SCORES:
        return None
    if any(name not in hyper for name in loss.parameters):
        return None
    size = "len(x_train)" if winner["batch_size"] == "full" else str(int(winner["batch_size"]))
    course = _course(verdict, winner, size)
    lines = [
        "import copy",
        "import math",
        "",
        "import numpy as np",
        "import torch",
        "from torch import nn",
        "from torch.nn import functional as F",
        "",
        'rows = {name: torch.from_numpy(array) for name, array in np.load("rows.npz").items()}',
        'x_train, y_train = rows["x_train"], rows["y_train"]',
        *_targets(loss),
        f"torch.manual_seed({int(verdict['seed'])})",
        *_model(verdict, loss),
        _optimizer(optimizer, float(winner["lr"]), hyper),
        *course,
        *loss.before,
        "",
        "",
        *_loss(loss, hyper),
        "",
        "",
        *_score(verdict, loss),
        "",
        "",
        f"best = {'-' if verdict['greater_is_better'] else ''}math.inf",
        f"for epoch in range({int(verdict['epochs'])}):",
        f"    for batch in torch.randperm(len(x_train)).split({size}):",
        "        optimizer.zero_grad()",
        "        loss(model(x_train[batch]), y_train[batch]).backward()",
        "        optimizer.step()",
        *["        scheduler.step()"] * bool(course),
        '    now = score("validation")',
        f"    if now {'>' if verdict['greater_is_better'] else '<'} best:",
        "        best, kept = now, copy.deepcopy(model.state_dict())",
        "model.load_state_dict(kept)",
        f"print(f\"{_title(verdict)}: validation {{best:.6g}}, test {{score('test'):.6g}}\")",
    ]
    return "\n".join(lines)


def _title(verdict: Mapping[str, Any]) -> str:
    """The metric's title, if it is words and nothing else: it stands inside of a text of the program."""
    title = str(verdict["metric_title"])
    return title if re.fullmatch(r"[\w ]+", title) else str(verdict["metric"])


def _targets(loss: PlainLoss) -> list[str]:
    """Targets as the loss takes them, where they are not the encoded ones."""
    if loss.output != "log_rate":
        return []
    return ['y_train = (y_train * rows["scale"] + rows["mean"]).clamp(min=0).float() / rows["mean"].float()']


def _model(verdict: Mapping[str, Any], loss: PlainLoss) -> list[str]:
    architecture = verdict["architecture"]
    num_outputs = "int(y_train.max()) + 1" if loss.output == "logits" else "1"
    widths = [int(width) for width in (verdict["num_features"], *architecture["hidden"])]
    sizes = [*map(str, widths), num_outputs]
    activation = f"nn.{_ACTIVATIONS[architecture['activation']]}()"
    layers = [f"nn.Linear({inputs}, {outputs})" for inputs, outputs in pairwise(sizes)]
    between = f",\n    {activation},\n    ".join(layers)
    return ["model = nn.Sequential(", f"    {between},", ")"]


def _optimizer(optimizer: PlainOptimizer, lr: float, hyper: Mapping[str, float]) -> str:
    own = {name: hyper[name] for name in optimizer.names if name in hyper}
    given = {"lr": repr(lr)} | {name: f"{value:.12g}" for name, value in own.items() if "beta" not in name}
    if "beta1" in own and "beta2" in own:
        given["betas"] = f"({own['beta1']:.12g}, {own['beta2']:.12g})"
    options = ", ".join(f"{name}={value}" for name, value in (given | dict(optimizer.fixed)).items())
    return f"optimizer = torch.optim.{optimizer.cls}(model.parameters(), {options})"


def _course(verdict: Mapping[str, Any], winner: Cell, size: str) -> list[str]:
    """The schedule's own formula as it stands in the library, and a scheduler of torch's that goes by it."""
    schedule, warmup = SCHEDULES[winner.get("schedule", "constant")], float(verdict.get("warmup") or 0.0)
    if schedule.name == "constant" and not warmup:
        return []
    rising = f"min(max(1, round({warmup!r} * num_steps)), num_steps - 1)" if warmup else "0"
    return [
        "",
        "",
        *inspect.getsource(schedule.factor).splitlines(),
        "",
        "",
        f"num_steps = {int(verdict['epochs'])} * math.ceil(len(x_train) / {size})",
        f"warmup = {rising}",
        "scheduler = torch.optim.lr_scheduler.LambdaLR(",
        "    optimizer,",
        "    lambda k: (k + 1) / (warmup + 1) if k < warmup else factor((k - warmup) / (num_steps - warmup)),",
        ")",
    ]


def _loss(loss: PlainLoss, hyper: Mapping[str, float]) -> list[str]:
    # A name that the optimizer has too is on record as the loss's by its prefix.
    values = {name: f"{hyper.get(f'loss_{name}', hyper[name]):.12g}" for name in loss.parameters}
    lines = ["def loss(p, y):"]
    if loss.output != "logits":
        lines.append("    p = p.squeeze(1)")
    if "log_p" in loss.expression:
        lines.append(f"    log_p = {_LOG_P}")
    return [*lines, f"    return {loss.expression.format(**values)}"]


def _score(verdict: Mapping[str, Any], loss: PlainLoss) -> list[str]:
    lines = [
        "@torch.no_grad()",
        "def score(part):",
        '    p, y = model(rows[f"x_{part}"]), rows[f"y_{part}"]',
    ]
    if verdict["task"] == "regression":
        unit = 'p.squeeze(1).double().exp() * rows["mean"]'
        if loss.output != "log_rate":
            unit = 'p.squeeze(1) * rows["scale"] + rows["mean"]'
        lines += [f"    predicted = {unit}", '    actual = y * rows["scale"] + rows["mean"]']
    else:
        log_p = "F.log_softmax(p, dim=1)"
        if loss.output == "logit":
            log_p = "torch.cat([F.logsigmoid(-p), F.logsigmoid(p)], dim=1)"
        lines += [f"    log_p, y = {log_p}, y.long()"]
    return [*lines, f"    return {_SCORES[verdict['metric']]}.item()"]

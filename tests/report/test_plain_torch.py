"""The code a report shows: each formula is the loss it stands for, and the program gives about the same score."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import steepest
from steepest.losses import LOSSES
from steepest.optim import OPTIMIZERS
from steepest.report import plain_torch
from steepest.report.sections import use
from steepest.training.native import class_terms, formula_of, loss_parameters
from steepest.training.run import Run

ROWS, CLASSES = 60, 3


def batch(word: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs (rows, outputs) and targets of the kind a loss takes."""
    random = np.random.default_rng(2)
    wide = formula_of(word).family == "softmax"
    outputs = torch.tensor(random.normal(size=(ROWS, CLASSES if wide else 1)) * 2)
    kinds = {
        "class": random.choice(CLASSES, ROWS, p=[0.6, 0.3, 0.1]),
        "probability": random.integers(0, 2, ROWS).astype(float),
        "count": random.poisson(2.0, ROWS).astype(float),
        "positive": random.gamma(2.0, size=ROWS),
        "real": random.normal(size=ROWS) * 3,
    }
    return outputs, torch.tensor(kinds[formula_of(word).target])


@pytest.mark.parametrize("word", plain_torch.LOSSES)
def test_a_formula_is_the_loss_it_stands_for(word: str) -> None:
    outputs, targets = batch(word)
    formula, hyper = formula_of(word), loss_parameters(Run(word, "sgd", 0.1))
    plain = plain_torch.LOSSES[word]
    names: dict[str, Any] = {"torch": torch, "F": F, "math": math, "y_train": targets}
    exec("\n".join([*plain.before, *plain_torch._loss(plain, hyper)]), names)
    given = names["loss"](outputs, targets)
    assert plain.output == {"probability": "logit"}.get(formula.prediction, formula.prediction)
    if formula.class_terms is not None:
        weight, offset = (torch.as_tensor(term) for term in class_terms(formula, targets.numpy(), CLASSES))
        log_p = F.log_softmax(outputs + offset, dim=1)[torch.arange(ROWS), targets]
        wanted = -(weight[targets] * log_p).mean()
    else:
        made = {name: torch.tensor(value) if name == "pos_weight" else value for name, value in hyper.items()}
        p = outputs if formula.family == "softmax" else outputs[:, 0]
        p = torch.sigmoid(p) if formula.prediction == "probability" else p
        wanted = LOSSES[word](**made)(p, targets)
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("word", plain_torch.OPTIMIZERS)
def test_an_optimizer_takes_the_same_steps(word: str) -> None:
    entry, plain = OPTIMIZERS[word], plain_torch.OPTIMIZERS[word]
    models = [nn.Linear(3, 2), nn.Linear(3, 2)]
    models[1].load_state_dict(models[0].state_dict())
    own = {"weight_decay": 0.05} | ({"betas": (0.8, 0.95)} if "beta1" in plain.names else {})
    ours = entry.cls(models[0].parameters(), lr=0.01, **{**entry.options, **own})
    hyper = entry.cls.hyperparameters_of(ours.param_groups[0])
    names: dict[str, Any] = {"torch": torch, "model": models[1]}
    exec(plain_torch._optimizer(plain, 0.01, hyper), names)
    for step in range(5):
        for model, optimizer in zip(models, (ours, names["optimizer"]), strict=True):
            optimizer.zero_grad()
            model(torch.full((4, 3), 1.0 + step)).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(models[0].weight, models[1].weight)


def test_what_every_comparison_tries_can_be_written_out() -> None:
    defaults = {word for word, loss in LOSSES.items() if loss.formula.compared_by_default}
    joined = {"cauchy", "log_cosh", "poisson_nll", "gamma", "tweedie"}
    joined |= {"class_balanced", "logit_adjusted", "focal", "generalized_cross_entropy"}
    assert defaults | joined <= set(plain_torch.LOSSES)
    assert {word for word, entry in OPTIMIZERS.items() if entry.compared_by_default} <= set(
        plain_torch.OPTIMIZERS
    )


RANDOM = np.random.default_rng(8)
X = RANDOM.normal(size=(600, 4))
LINE = X[:, 0] - 2 * X[:, 1]
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "regression": (LINE + RANDOM.normal(size=600), {"losses": ["huber"], "hidden": (8,)}),
    "schedule": (
        LINE + RANDOM.normal(size=600),
        {"losses": ["mse"], "hidden": (8,), "schedules": ["wsd"], "warmup": 0.1},
    ),
    "counts": (RANDOM.poisson(np.exp(0.4 * LINE)) * 1.0, {"losses": ["poisson_nll"], "hidden": ()}),
    "two classes": (
        np.where(LINE + RANDOM.normal(size=600) > 1, "yes", "no"),
        {"losses": ["bce"], "hidden": (8,)},
    ),
    "several classes": (
        np.array(["a", "b", "c"])[np.digitize(LINE + RANDOM.normal(size=600), [-2.5, 2.5])],
        {
            "losses": ["class_balanced"],
            "metric": "balanced_accuracy",
            "hidden": (8,),
            "batch_sizes": ["full"],
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_program_gives_about_the_same_score(name: str, tmp_path: Path) -> None:
    y, options = CASES[name]
    table = pl.DataFrame({**{f"x{column}": X[:, column] for column in range(4)}, "it's y": y})
    table.write_csv(tmp_path / "table.csv")
    comparison = steepest.compare(
        table,
        "it's y",
        optimizers=["adam"],
        max_epochs=20,
        task="regression" if name == "counts" else "auto",
        **options,
    )
    verdict = comparison.verdict
    plan = comparison.plan
    code = use(
        verdict,
        {"asked_task": plan.asked_task, "seed": plan.seed, "validation": 0.2, "test": 0.2},
        comparison.runs,
    )
    (tmp_path / "arrays.py").write_text(code["arrays"].replace("DATA", "table.csv"), encoding="utf-8")
    (tmp_path / "plain.py").write_text(code["torch"], encoding="utf-8")
    assert "steepest" not in code["torch"]
    subprocess.run([sys.executable, "arrays.py"], cwd=tmp_path, check=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-W", "error", "plain.py"],
        cwd=tmp_path,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    told = done.stdout.split()
    validation, test = float(told[-3].rstrip(",")), float(told[-1])
    winner = verdict["winners"][0]
    assert done.stdout.startswith(verdict["metric_title"])
    own = comparison.runs.filter(pl.col("lr") == winner["lr"])
    for score, column in ((validation, "validation_score"), (test, f"test_{verdict['metric']}")):
        scores = own[column].drop_nulls().to_numpy()
        spread = max(4 * scores.std(), 0.03 * scores.mean())
        assert abs(score - scores.mean()) < spread, (score, scores)

"""Comparisons of a training of the user's own, a function that is told what to train with and gives a score."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import random
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import steepest
from steepest import InputError, TrainingTrial, optim
from steepest.comparison.options import Options
from steepest.comparison.own_training import OwnTrainingEngine, prepare_training
from steepest.comparison.plan import make_plan, read_plan
from steepest.comparison.progress import Silent
from steepest.report.again import trial_code
from steepest.report.sections import curves
from steepest.training.metrics import METRICS, own_score
from steepest.training.run import OWN, Run, Stop

X = torch.randn(160, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5])
TRAIN, VALIDATION, TEST = slice(0, 100), slice(100, 130), slice(130, 160)
QUICK: dict[str, Any] = {"optimizers": ["sgd", "adam"], "max_epochs": 3}


def error(net: nn.Module, part: slice) -> float:
    with torch.no_grad():
        return float((net(X[part])[:, 0] - Y[part]).abs().mean())


def fits_a_line(trial: TrainingTrial) -> float:
    """An ordinary training: a loss, an optimizer, a score an epoch, another at the end."""
    net = nn.Linear(3, 1)
    loss, optimizer = trial.loss(), trial.optimizer(net.parameters())
    for _ in range(trial.epochs):
        for rows in torch.randperm(100).split(25):
            optimizer.zero_grad()
            loss(net(X[rows])[:, 0], Y[rows]).backward()
            optimizer.step()
        trial.report(error(net, VALIDATION))
    return error(net, TEST)


def with_its_own_loss(trial: TrainingTrial) -> float:
    net = nn.Linear(3, 1)
    optimizer = trial.optimizer(net.parameters())
    for _ in range(trial.epochs):
        optimizer.zero_grad()
        (net(X[TRAIN])[:, 0] - Y[TRAIN]).square().mean().backward()
        optimizer.step()
    return error(net, TEST)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record_of(function: Any, run: Run | None = None, **options: Any) -> Any:
    own_score("min score")
    engine = OwnTrainingEngine(function, "min score", **options)
    found = engine.run_all([run or Run(OWN, "sgd", 0.1, OWN, stop=Stop(max_epochs=4))])
    return found[0]


def test_a_comparison_finds_what_is_better_and_says_so(tmp_path: Path) -> None:
    found = steepest.compare(
        train=fits_a_line, losses=["mse", "huber"], metric="min MAE", out=tmp_path / "out", **QUICK
    )
    verdict = found.verdict
    assert verdict["status"] == "complete"
    assert verdict["task"] == OWN
    assert (verdict["metric"], verdict["metric_title"], verdict["greater_is_better"]) == (
        "min MAE",
        "MAE",
        False,
    )
    assert verdict["architecture"] == {"training": "fits_a_line"}
    assert {(cell["loss"], cell["optimizer"]) for cell in verdict["cells"]} == {
        (loss, optimizer) for loss in ("mse", "huber") for optimizer in ("sgd", "adam")
    }
    best = verdict["cells"][0]
    assert best["optimizer"] == "sgd"  # three epochs take Adam's steps, of the rate's length, nowhere near
    assert best["score"] < 0.2 < error(nn.Linear(3, 1), TEST)
    assert "test MAE" in verdict["sentence"]
    assert "batch" not in verdict["sentence"]
    assert found.model is None
    assert not (tmp_path / "out" / "model").exists()
    assert "fits_a_line" in repr(found)


def test_scores_are_those_that_the_function_gave(tmp_path: Path) -> None:
    given: dict[tuple[str, float, int], tuple[float, float]] = {}

    def noted(trial: TrainingTrial) -> float:
        test = fits_a_line(trial)
        if trial.final:
            given[trial.optimizer_name, trial.lr, trial.seed] = (trial._marks[-1][1], test)
        return test

    found = steepest.compare(train=noted, losses="mse", **QUICK)
    for cell in found.verdict["cells"]:
        seeds = found.plan.confirmation_seeds
        pairs = [given[cell["optimizer"], cell["lr"], seed] for seed in seeds]
        assert cell["score"] == pytest.approx(np.mean([test for _, test in pairs]), rel=1e-12)
        assert cell["validation_score"] == pytest.approx(np.mean([score for score, _ in pairs]), rel=1e-12)
    tuning = found.runs.filter(pl.col("stage") == "tune")
    assert not any(key[2] in found.plan.tuning_seeds for key in given)  # final on fresh seeds alone
    assert tuning["num_steps"].unique().to_list() == [12]
    assert tuning["curve_validation"].list.len().unique().to_list() == [3]


def test_the_same_again_is_the_same(tmp_path: Path) -> None:
    first, second = (steepest.compare(train=fits_a_line, losses="mse", **QUICK).verdict for _ in range(2))
    assert first | {"seconds": 0} == second | {"seconds": 0}


def test_more_may_be_better() -> None:
    found = steepest.compare(
        train=lambda trial: -with_its_own_loss(trial), metric="max agreement", **QUICK
    ).verdict
    assert found["greater_is_better"]
    assert found["cells"][0]["optimizer"] == "sgd"
    assert found["cells"][0]["score"] == max(cell["score"] for cell in found["cells"])


def test_its_own_loss_and_one_score_for_all(tmp_path: Path) -> None:
    found = steepest.compare(train=with_its_own_loss, out=tmp_path / "out", **QUICK)
    assert "your own loss with SGD" in found.verdict["sentence"]
    assert any("gives one score" in note for note in found.verdict["notes"])
    separate = steepest.compare(train=fits_a_line, losses="mse", **QUICK).verdict["notes"]
    assert not any("gives one score" in note for note in separate)


@pytest.mark.parametrize(
    ("returned", "reported", "validation", "test"),
    [
        (3.0, [], 3.0, 3.0),
        (3.0, [5.0, 4.0], 4.0, 3.0),
        ((6.0, 3.0), [5.0, 4.0], 6.0, 3.0),
        (torch.tensor(3.0, requires_grad=True), [torch.tensor([[4.0]])], 4.0, 3.0),
        (None, [5.0, 4.0], 4.0, 4.0),
        (torch.tensor([3.0]), [np.float32(4.0)], 4.0, 3.0),
    ],
)
def test_which_score_is_which(returned: Any, reported: list[Any], validation: float, test: float) -> None:
    def function(trial: TrainingTrial) -> Any:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        for score in reported:
            trial.report(score)
        return returned

    record = record_of(function)
    assert record.validation_score == validation
    assert float(record.parameters["test_score"]) == test
    assert record.curve.validation_score.tolist() == [float(score) for score in reported]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.tensor([1.0, 2.0]), "a Tensor of shape \\(2,\\)"),
        (torch.tensor(1.0, device="meta"), "a Tensor"),
        (torch.tensor(1j), "a complex"),
        (np.complex64(1j), "a complex"),
        (np.zeros((2, 3)), "a ndarray of shape \\(2, 3\\)"),
        (10**400, "a int"),
        (torch.tensor(True), "True"),
        (np.bool_(True), "True"),
        (np.array("1.5"), "'1.5'"),
        ({"accuracy": 1.0}, "a dict"),
        ([1.0], "a list"),
    ],
)
def test_what_is_no_number_is_no_score(given: Any, said: str) -> None:
    def returns(trial: TrainingTrial) -> Any:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        return given

    def reports(trial: TrainingTrial) -> float:
        trial.report(given)
        return 1.0

    with pytest.raises(InputError, match=f"The training function returned {said}; a score is a number"):
        record_of(returns)
    with pytest.raises(InputError, match=f"trial.report was given {said}; a score is a number"):
        record_of(reports)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("how", ["returned", "reported", "test"])
def test_a_score_that_is_not_finite_is_a_divergence(score: float, how: str) -> None:
    went_on = []

    def function(trial: TrainingTrial) -> Any:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        if how == "reported":
            try:
                trial.report(score)
            except Exception:  # what a loop of a user may do
                went_on.append("caught")
            went_on.append("after")
        return (1.0, score) if how == "test" else score

    record = record_of(function)
    assert record.diverged
    assert math.isnan(record.validation_score)
    assert not went_on


def test_a_best_epoch_is_told_where_there_is_a_report_an_epoch() -> None:
    def function(trial: TrainingTrial, scores: tuple[float, ...] = (3.0, 1.0, 2.0, 2.5)) -> float:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        for score in scores:
            trial.report(score)
        return 0.5

    assert record_of(function).best_epoch == 2
    assert record_of(lambda trial: function(trial, (3.0, 1.0))).best_epoch == 0  # of 4 epochs


def test_random_numbers_are_the_runs_own_and_the_callers_stay() -> None:
    drawn: list[tuple[float, float, float]] = []

    def function(trial: TrainingTrial) -> float:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        drawn.append((float(torch.rand(1)), float(np.random.rand()), random.random()))
        return 1.0

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    for seed in (3, 3, 4):
        record_of(function, Run(OWN, "sgd", 0.1, OWN, seed=seed, stop=Stop(max_epochs=1)))
    assert drawn[0] == drawn[1] != drawn[2]
    assert torch.rand(1) == expected


def test_the_optimizer_and_the_loss_are_the_settings() -> None:
    trial = TrainingTrial(
        "huber",
        "adam",
        lr=0.02,
        batch_size=7,
        epochs=5,
        seed=9,
        loss_options={"delta": 2.0},
        optimizer_options={"betas": (0.5, 0.9)},
    )
    net = nn.Linear(2, 1)
    optimizer = trial.optimizer([{"params": [net.weight]}, {"params": [net.bias], "weight_decay": 0.1}])
    assert isinstance(optimizer, optim.Adam)
    assert [(g["lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.02, (0.5, 0.9), 0),
        (0.02, (0.5, 0.9), 0.1),
    ]
    loss: Any = trial.loss(reduction="sum")
    assert (type(loss).__name__, loss.delta, loss.reduction) == ("HuberLoss", 2.0, "sum")
    assert (trial.loss_name, trial.optimizer_name, trial.lr) == ("huber", "adam", 0.02)
    assert (trial.batch_size, trial.epochs, trial.seed, trial.final) == (7, 5, 9, True)
    assert TrainingTrial(None, "sgd").batch_size is None
    assert TrainingTrial(None, "sgd").lr == 1e-3


def test_a_trial_made_by_hand_trains_too() -> None:
    torch.manual_seed(0)
    assert fits_a_line(TrainingTrial("mse", "sgd", lr=0.1, epochs=20)) < 0.01


def test_what_was_run_is_read_back() -> None:
    def function(trial: TrainingTrial) -> float:
        optimizer = trial.optimizer([nn.Parameter(torch.zeros(1))])
        optimizer.param_groups[0]["betas"] = (0.1, 0.2)
        return 1.0

    record = record_of(function, Run(OWN, "adam", 0.1, OWN, stop=Stop(max_epochs=1)))
    assert (record.hyperparameters["beta1"], record.hyperparameters["beta2"]) == (0.1, 0.2)
    assert record.hyperparameters["lr"] == 0.1


def test_a_schedule_goes_over_the_steps_and_over_all_of_them_in_a_short_run() -> None:
    rates: list[list[float]] = []

    def function(trial: TrainingTrial) -> float:
        optimizer = trial.optimizer([nn.Parameter(torch.zeros(1))])
        scheduler = trial.scheduler(optimizer, 2 * trial.epochs)
        rates.append([])
        for _ in range(2 * trial.epochs):
            rates[-1].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return 1.0

    whole = Run(OWN, "sgd", 1.0, OWN, stop=Stop(max_epochs=4), schedule="linear")
    short = Run(OWN, "sgd", 1.0, OWN, stop=Stop(max_epochs=1), schedule="linear", schedule_epochs=4)
    first, second = (record_of(function, run) for run in (whole, short))
    assert rates[0] == [1.0 - k / 8 for k in range(8)]
    assert rates[1] == rates[0][:2]
    assert first.hyperparameters["lr"] == second.hyperparameters["lr"] == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": "bold"}, "lr is a positive number, not 'bold'"),
        ({"lr": -1.0}, "lr is a positive number, not -1.0"),
        ({"seed": -1}, "A seed is a whole number"),
        ({"batch_size": 0}, "A batch size is 'full' or a positive whole number, not 0"),
        ({"schedule": "cosin"}, "no schedule 'cosin'; did you mean 'cosine'"),
        ({"warmup": 2}, "warmup is a share of the steps"),
        ({"optimizer": "adm"}, "no optimizer 'adm'; did you mean 'adam'"),
        ({"loss_options": {"delta": -1}}, "delta is -1; it must lie in"),
    ],
)
def test_what_a_trial_made_by_hand_cannot_be_is_said_when_it_is_made(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        TrainingTrial(**{"loss": "huber", "optimizer": "adam", **options})


def test_a_loss_is_recorded_as_the_function_made_it() -> None:
    def function(trial: TrainingTrial) -> float:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        trial.loss(delta=3, reduction="sum")
        return 1.0

    record = record_of(function, Run("huber", "sgd", 0.1, OWN, stop=Stop(max_epochs=1)))
    assert record.hyperparameters["delta"] == 3.0


def test_code_that_makes_its_optimizer_itself_is_told_with_what() -> None:
    trial = TrainingTrial(None, "nesterov", lr=0.1, optimizer_options={"weight_decay": 0.5})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=trial.lr, **trial.optimizer_options)
    group = optimizer.param_groups[0]
    assert (group["nesterov"], group["momentum"], group["weight_decay"]) == (True, 0.9, 0.5)


def test_a_rate_that_is_not_looked_at_is_told() -> None:
    def function(trial: TrainingTrial) -> float:
        return float(len(trial.optimizer_name))

    with pytest.raises(InputError, match=r"never asked for its learning rate, .*trial\.lr"):
        record_of(function)


@pytest.mark.parametrize(
    ("run", "missing", "way"),
    [
        (Run(OWN, "sgd", 0.1, OWN), "optimizer", r"trial\.optimizer\(parameters\)"),
        (Run("mse", "sgd", 0.1, OWN), "loss", r"trial\.loss\(\)"),
        (Run(OWN, "sgd", 0.1, 16), "batch size", r"trial\.batch_size"),
        (Run(OWN, "sgd", 0.1, OWN, schedule="cosine"), "schedule", r"trial\.scheduler"),
    ],
)
def test_what_is_compared_has_to_be_used(run: Run, missing: str, way: str) -> None:
    def function(trial: TrainingTrial) -> float:
        if missing != "optimizer":
            trial.optimizer([nn.Parameter(torch.zeros(1))])
        return 1.0

    with pytest.raises(InputError, match=f"never asked for its {missing}, .*{way}"):
        record_of(function, run)


def fails(trial: TrainingTrial) -> float:
    trial.optimizer([nn.Parameter(torch.zeros(1))])
    raise ValueError("no such file")


def leaves(trial: TrainingTrial) -> None:
    sys.exit("no such option")


def says_nothing(trial: TrainingTrial) -> None:
    trial.optimizer([nn.Parameter(torch.zeros(1))])


def says_text(trial: TrainingTrial) -> str:
    trial.optimizer([nn.Parameter(torch.zeros(1))])
    return "good"


def takes_nothing() -> float:
    return 1.0


async def promises(trial: TrainingTrial) -> float:
    return fits_a_line(trial)


def yields(trial: TrainingTrial) -> Any:
    yield fits_a_line(trial)


class Trainer:
    def __call__(self, trial: TrainingTrial, rate: float = 1.0) -> float:
        return fits_a_line(trial)

    def run(self, trial: TrainingTrial) -> float:
        return fits_a_line(trial)


def within() -> Any:
    def inner(trial: TrainingTrial) -> float:
        return fits_a_line(trial)

    return inner


@pytest.mark.parametrize(
    ("function", "name", "text_of"),
    [
        (fits_a_line, "fits_a_line", fits_a_line),
        (partial(partial(fits_a_line)), "fits_a_line", fits_a_line),
        (Trainer(), "Trainer", Trainer),
        (partial(Trainer(), rate=2.0), "Trainer", Trainer),
        (Trainer().run, "Trainer.run", Trainer.run),
        (within(), "inner", within()),
        (lambda trial: 1.0, "<lambda>", None),
    ],
)
def test_whatever_can_be_called_has_a_name_and_a_text(function: Any, name: str, text_of: Any) -> None:
    prepared = prepare_training(function)
    assert prepared.name == name
    if text_of is not None:
        assert prepared.data_sha256 == hashlib.sha256(inspect.getsource(text_of).encode()).hexdigest()


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (
            partial(fails),
            {},
            rf"failed \(sgd, learning rate .*, line {fails.__code__.co_firstlineno + 2} of {Path(__file__).name}\): ",
        ),
        (fails, {}, r"failed \(sgd, learning rate .*\): ValueError: no such file\. .* return float\('nan'\)"),
        (leaves, {}, r"failed \(sgd, learning rate .*\): SystemExit: no such option\."),
        (says_nothing, {}, "gave no score; let it return one"),
        (says_text, {}, "returned 'good'; a score is a number"),
        (promises, {}, "promises is asynchronous, and nothing awaits it"),
        (yields, {}, "returned a generator; a score is a number"),
        (takes_nothing, {}, "takes_nothing does not take one argument"),
        (3, {}, "train is a int; give a function"),
        (fits_a_line, {}, "asks for a loss, and no losses are compared"),
        (with_its_own_loss, {"metric": "accuracy"}, "'min loss', 'max accuracy'; not 'accuracy'"),
        (with_its_own_loss, {"losses": ["hubr"]}, "no loss 'hubr'; did you mean 'huber'"),
        (with_its_own_loss, {"batch_sizes": ["own"]}, None),
        (with_its_own_loss, {"data": (X, Y)}, "leave data out"),
        (with_its_own_loss, {"target": "y"}, "leave target out"),
        (with_its_own_loss, {"model": nn.Linear}, "leave model out"),
        (with_its_own_loss, {"task": "regression"}, "leave task out"),
        (with_its_own_loss, {"hidden": (3,)}, "leave hidden out"),
        (with_its_own_loss, {"device": "cuda"}, "leave device out"),
        (with_its_own_loss, {"cluster": "local"}, "leave cluster out"),
        (with_its_own_loss, {"splits": 10}, "leave splits out"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    function: Any, options: dict[str, Any], said: str | None
) -> None:
    asked = {"optimizers": ["sgd"], "max_epochs": 1, **options}
    if said is None:
        assert steepest.compare(train=function, **asked).verdict["status"] == "complete"
        return
    with pytest.raises(InputError, match=said):
        steepest.compare(train=function, **asked)


def test_where_all_diverge_nothing_is_recommended() -> None:
    def function(trial: TrainingTrial) -> float:
        trial.optimizer([nn.Parameter(torch.zeros(1))])
        return math.nan

    found = steepest.compare(train=function, optimizers="sgd", max_epochs=1).verdict
    assert found["winners"] == []
    assert "diverged on 10 of 10 fresh seeds" in found["sentence"]


class Watcher(Silent):
    """Which runs were read back, and which were run."""

    def __init__(self) -> None:
        self.recalled: list[bool] = []

    def run_finished(self, record: Any) -> None:
        self.recalled.append(record.is_recalled)


class StopsAfter:
    """Ctrl-C, once so many runs have ended."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.event = threading.Event()

    def __call__(self, trial: TrainingTrial) -> float:
        self.left -= 1
        if self.left == 0:
            self.event.set()
        net = nn.Linear(3, 1)
        optimizer = trial.optimizer(net.parameters())
        try:
            while True:  # it never ends by itself, and reports nothing
                optimizer.step()
                if self.left > 0:
                    return 1.0
        except Exception:  # what a loop of a user may do
            return 2.0


def test_ctrl_c_ends_a_training_at_its_next_step() -> None:
    own_score("min score")
    function = StopsAfter(2)
    engine = OwnTrainingEngine(function, "min score")
    runs = [Run(OWN, "sgd", 0.1, OWN, seed=seed, stop=Stop(max_epochs=1)) for seed in range(4)]
    first, second, *rest = engine.run_all(runs, stop_event=function.event)
    assert first is not None
    assert second is not None
    assert (first.stop_reason, second.stop_reason, rest) == ("epochs", "interrupted", [None, None])


def test_ctrl_c_ends_a_training_at_a_step_of_any_of_its_optimizers() -> None:
    own_score("min score")
    event = threading.Event()

    def in_two_phases(trial: TrainingTrial) -> float:
        for phase in range(2):
            optimizer = trial.optimizer([nn.Parameter(torch.zeros(1))])
            for _ in range(3):
                optimizer.step()
                if phase == 1:
                    event.set()
        return 1.0

    run = Run(OWN, "sgd", 0.1, OWN, stop=Stop(max_epochs=1))
    (record,) = OwnTrainingEngine(in_two_phases, "min score").run_all([run], stop_event=event)
    assert record is not None
    assert (record.stop_reason, record.num_steps) == ("interrupted", 3)


def returns_early(trial: TrainingTrial) -> float:
    """As a library's loop does that catches the second Ctrl-C."""
    trial.optimizer([nn.Parameter(torch.zeros(1))])
    try:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10.0)
    except KeyboardInterrupt:
        pass
    return 1.0


def trains_by_fit_module(trial: TrainingTrial) -> float:
    parts = [(X[part], Y[part]) for part in (TRAIN, VALIDATION, TEST)]
    with tempfile.TemporaryDirectory() as out:
        steepest.fit_module(
            lambda: nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)),
            parts,
            loss="mse",
            optimizer=trial.optimizer_name,
            lr=trial.lr,
            out=Path(out) / "out",
            on_step=lambda *_: os.kill(os.getpid(), signal.SIGINT),
        )
    return 1.0


def compares(trial: TrainingTrial) -> float:
    def inner(inner_trial: TrainingTrial) -> float:
        inner_trial.optimizer([nn.Parameter(torch.zeros(1))])
        os.kill(os.getpid(), signal.SIGINT)
        return 1.0

    trial.optimizer([nn.Parameter(torch.zeros(1))])
    assert steepest.compare(train=inner, optimizers="sgd", max_epochs=1).interrupted
    return 1.0


@pytest.mark.parametrize("function", [returns_early, trains_by_fit_module, compares])
def test_a_training_that_ctrl_c_came_into_is_not_counted(function: Any) -> None:
    found = steepest.compare(train=function, optimizers="sgd", max_epochs=1)
    assert found.interrupted
    assert found.runs["stop_reason"].to_list() == ["interrupted"]


def test_it_is_gone_on_with_to_the_same_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = steepest.compare(train=with_its_own_loss, out=tmp_path / "whole", **QUICK)
    calls = []

    class Torn(Exception):
        pass

    def breaks(trial: TrainingTrial) -> float:
        calls.append(trial)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return with_its_own_loss(trial)

    breaks.__qualname__ = with_its_own_loss.__qualname__
    monkeypatch.setattr("steepest.comparison.own_training._digest", lambda function: "the same")
    steepest.compare(train=with_its_own_loss, out=tmp_path / "whole2", **QUICK)
    cut = steepest.compare(train=breaks, out=tmp_path / "cut", **QUICK)
    assert cut.interrupted
    calls.clear()

    def counted(trial: TrainingTrial) -> float:
        calls.append(trial)
        return with_its_own_loss(trial)

    counted.__qualname__ = with_its_own_loss.__qualname__
    watcher = Watcher()
    again = steepest.compare(train=counted, resume=tmp_path / "cut", progress=watcher)
    assert watcher.recalled == [True] * 40 + [False] * (
        whole.runs.height - 40
    )  # the time left is told by the latter
    assert len(calls) == whole.runs.height - 40
    verdicts = [json.loads((tmp_path / name / "verdict.json").read_text()) for name in ("cut", "whole2")]
    assert verdicts[0] | {"seconds": 0} == verdicts[1] | {"seconds": 0}
    assert again.verdict["sentence"] == whole.verdict["sentence"]


def test_an_extension_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steepest.comparison.own_training._digest", lambda function: "the same")
    out, calls = tmp_path / "out", []

    def counted(trial: TrainingTrial) -> float:
        calls.append(trial.optimizer_name)
        return with_its_own_loss(trial)

    steepest.compare(train=counted, optimizers=["sgd"], max_epochs=2, out=out)
    calls.clear()
    with pytest.raises(InputError, match="The plan was made for a training of your own"):
        steepest.compare(extend=out, add_optimizers=["momentum"])
    longer = steepest.compare(train=counted, extend=out, add_optimizers=["momentum"])
    assert set(calls) == {"momentum"}
    at_once = steepest.compare(train=counted, optimizers=["sgd", "momentum"], max_epochs=2)
    assert longer.verdict | {"seconds": 0} == at_once.verdict | {"seconds": 0}


def test_a_plan_is_for_the_text_it_was_made_for(tmp_path: Path) -> None:
    steepest.compare(train=with_its_own_loss, out=tmp_path / "out", **QUICK)
    plan = tmp_path / "out" / "plan.json"
    assert read_plan(plan).num_train_rows is None
    METRICS.pop("min score")  # as in another process
    again = steepest.compare(train=with_its_own_loss, plan=plan)
    assert again.verdict["status"] == "complete"
    with pytest.raises(
        InputError, match="made for another training function: the text of fits_a_line differs"
    ):
        steepest.compare(train=fits_a_line, plan=plan)
    with pytest.raises(InputError, match="made for a training of your own"):
        steepest.compare((X.numpy(), Y.numpy()), plan=plan)
    made = make_plan(
        prepare_training(with_its_own_loss), prepare_training(with_its_own_loss).options(Options())
    )
    assert (made.batch_sizes, made.losses, made.metric) == ((OWN,), (OWN,), "min score")


def test_a_budget_is_kept_by_a_measured_speed() -> None:
    found = steepest.compare(train=with_its_own_loss, optimizers=["sgd"], budget=1.0, max_epochs=3_000)
    assert any(note.startswith("To keep to the budget") for note in found.verdict["notes"])
    assert found.verdict["seconds"] < 10.0


def test_what_is_not_known_of_a_training_is_not_drawn() -> None:
    def by_an_optimizer_of_its_own(trial: TrainingTrial) -> float:
        for epoch in range(trial.epochs):
            trial.report(trial.lr + epoch + len(trial.optimizer_name))
        return 1.0

    axes = {}
    for function, losses in ((fits_a_line, "mse"), (by_an_optimizer_of_its_own, None)):
        found = steepest.compare(train=function, losses=losses, **QUICK)
        drawn = curves(found.verdict, found.runs)
        (panel, *_) = drawn["panels"]
        assert f'"value": "{drawn["axes"][0]}"' in json.dumps(panel["spec"])
        axes[function] = drawn["axes"]
        assert "<th>batch</th>" not in found._repr_html_()
    assert axes == {
        fits_a_line: ["updates", "epochs", "seconds"],
        by_an_optimizer_of_its_own: ["epochs", "seconds"],
    }


@pytest.mark.parametrize("called", ["by its name", "as a lambda"])
def test_the_line_to_train_again_can_be_run(called: str) -> None:
    options: dict[str, Any] = {"losses": "huber", "optimizers": "adam", "tune": "all", "max_epochs": 2}
    function = fits_a_line if called == "by its name" else lambda trial: fits_a_line(trial)
    verdict = steepest.compare(train=function, **options).verdict
    asked: list[TrainingTrial] = []
    exec(trial_code(verdict), {"fits_a_line": asked.append, "train": asked.append})
    (trial,), winner = asked, verdict["winners"][0]
    optimizer = trial.optimizer([nn.Parameter(torch.zeros(1))])
    betas = [winner["optimizer_options"][name] for name in ("beta1", "beta2")]
    assert (trial.lr, trial.epochs, trial.loss_options) == (winner["lr"], 2, winner["loss_options"])
    assert optimizer.param_groups[0]["betas"] == pytest.approx(betas)


def test_other_options_are_tuned_too() -> None:
    found = steepest.compare(
        train=fits_a_line, losses="huber", optimizers="momentum", tune="all", max_epochs=1
    )
    tried = found.runs.filter(pl.col("stage") == "options")
    assert tried["hyper_delta"].n_unique() > 8
    assert tried["hyper_momentum"].n_unique() > 8


def test_a_function_that_failed_is_mended_and_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def breaks_at_a_bold_rate(trial: TrainingTrial) -> float:
        if trial.lr > 1.0:
            trial.optimizer([nn.Parameter(torch.zeros(1))])
            raise ValueError("it burst")
        return with_its_own_loss(trial)

    with pytest.raises(InputError, match="it burst"):
        steepest.compare(train=breaks_at_a_bold_rate, out=out, **QUICK)
    calls = []

    def mended(trial: TrainingTrial) -> float:
        calls.append(trial.lr)
        return math.nan if trial.lr > 1.0 else with_its_own_loss(trial)

    found = steepest.compare(train=mended, resume=out)
    assert found.verdict["status"] == "complete"
    assert len(calls) < found.runs.height  # what was finished is kept
    assert any("has changed since the comparison began" in note for note in found.verdict["notes"])
    more = steepest.compare(train=mended, extend=out, more_seeds=1)
    assert more.verdict["status"] == "complete"

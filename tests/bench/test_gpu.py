"""The GPU's benchmark, without one: it refuses in a sentence, and its works run, timed by the clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from steepest.bench import gpu, modules, run
from steepest.bench.gpu import device, gpt, linear, losses, optimizers, runs
from steepest.bench.gpu.peers import BITSANDBYTES, CCE, LIGER, TORCHAO
from steepest.bench.losses import COMPILED
from steepest.bench.measure import measure
from steepest.bench.optimizers import FUSED, MODES
from steepest.bench.peers import Absent
from steepest.bench.work import OURS, Contestant, Missing, Ratio, Share, Within, Work
from steepest.errors import InputError
from steepest.losses import LOSSES

WORDS = {"cross_entropy", "mse", "bce_probability", "gamma"}  # any numbers, probabilities, positive ones
# What is not installed beside steepest, and what compiles longer than these tests.
PEERS = {COMPILED, linear.COMPILED, LIGER, CCE, linear.CCE_WHOLE, BITSANDBYTES, TORCHAO, runs.JAX_RUNS}


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="it is about what is said where there is no GPU, and here is one"
)
def test_without_a_card_it_says_so() -> None:
    with pytest.raises(InputError, match="needs a GPU, and torch sees none here"):
        run("losses", device="cuda")


def test_what_has_no_form_on_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="compare runs on the CPU alone"):
        run("compare", device="cuda")
    with pytest.raises(InputError, match="no device 'mps'"):
        run("losses", device="mps")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled."""

    def absent(function: object) -> None:
        raise Absent("compiling takes longer than this test")

    monkeypatch.setattr(losses, "compiled", absent)
    monkeypatch.setattr(linear, "compiled", absent)
    monkeypatch.setattr(gpt, "compiled", lambda function: function)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("suite", ["losses", "optimizers"])
def test_every_contestant_does_its_work(suite: str) -> None:
    for work in gpu.works(suite, quick=True, device="cpu"):
        if (word := work.name.split(",")[0]) in LOSSES and word not in WORDS:
            continue
        field = work.build()
        assert OURS in field
        for bar in work.bars:
            assert not isinstance(bar, Ratio) or set(bar.peers) <= set(field), work.name
        for name, contestant in field.items():
            if name in PEERS and isinstance(contestant, Missing):
                continue
            assert isinstance(contestant, Contestant), f"{work.name}, {name}: {contestant}"
            assert contestant.before is not None
            contestant.before()
            if work.name.startswith("momentum") and "bfloat16" in work.name and name == FUSED:
                with pytest.raises(
                    ArithmeticError
                ):  # on a CPU torch steps a few of the elements (pytorch#191763)
                    contestant.call()
                continue
            measured = contestant.call()
            assert measured is not None
            assert measured["time"] > 0.0


def test_the_issue_s_bars_are_there() -> None:
    works = [work for suite in gpu.SUITES for work in gpu.works(suite, quick=False, device="cpu")]
    kinds = {
        dtype: {work.name: work for work in works if f", {dtype}, " in work.name} for dtype in losses.DTYPES
    }
    for dtype in losses.DTYPES:
        entropy = kinds[dtype][f"cross_entropy, 16,384 x 131,072, {dtype}, forward and backward"]
        assert ratios(entropy)[:3] == [2.4, 1.1, 1.0]
        (most,) = (bar for bar in entropy.bars if isinstance(bar, Within))
        assert most.at_most == pytest.approx(16_384 * 131_072 * (4 if dtype == "float32" else 2), rel=0.02)
        for word, loss in LOSSES.items():
            if loss.formula.family == "pointwise":
                name = f"{word}, 100,000,000, {dtype}, forward and backward"
                assert kinds[dtype][name].bars[0] == Share(0.8)
        for word in ("adam", "adamw", "rmsprop", "momentum"):
            step = kinds[dtype][f"{word}, 16 x 67,108,864, {dtype}, a step"]
            assert step.bars[0] == Share(0.85)
            assert ratios(step) == [2.0 if word == "rmsprop" else 1.0]
    for size in ("1,000 x 64", "465 x 4,096"):
        small = kinds["float32"][f"adam, {size}, float32, a step"]
        assert small.bars == (Ratio(tuple(MODES), 1.5),)
    by_start = {work.name.split(",")[0]: work for work in works}
    assert ratios(by_start["linear cross-entropy"])[:4] == [0.95, 4.0, 1.2, 1.2]
    assert ratios(by_start["adam with 8-bit state"])[:2] == [1.0, 1.0]
    assert ratios(by_start["512 runs"]) == [1.0, 5.0]
    assert ratios(by_start["a small GPT"])[:2] == [1.0, 1.0]


def ratios(work: Work) -> list[float | None]:
    return [bar.at_least for bar in work.bars if isinstance(bar, Ratio)]


def test_what_was_left_over_or_left_undone_is_no_result() -> None:
    inputs = losses.Inputs(losses.Case("mse", (100,), "float32"), "cpu")
    before = inputs.prediction.detach().clone()
    inputs.fresh()
    assert not torch.equal(before, inputs.prediction)
    left_over = torch.full((100,), math.nan)
    lazy = device.on_device("cpu", inputs.fresh, lambda: [left_over], device.are_finite, "")
    with pytest.raises(ArithmeticError, match="not finite"):
        lazy.call()
    parameters = optimizers.Parameters(optimizers.Size(2, 10), torch.float32, "cpu")
    parameters.fresh()
    assert not parameters.are_stepped(None)
    torch.optim.SGD(parameters.tensors, lr=1.0).step()
    assert parameters.are_stepped(None)


@pytest.mark.usefixtures("plain")
def test_a_row_for_each_bar_with_the_card_s_limit() -> None:
    (work,) = (
        w for w in gpu.works("losses", quick=True, device="cpu") if w.name.startswith("huber, 1,000, float32")
    )
    (row,) = measure(work, quick=True)
    assert row["limit"] == "copy bandwidth"
    assert row["share_of_limit"] > 0.0
    assert row["bar"] == losses.BANDWIDTH_SHARE


def test_peak_memory_is_a_process_s_own() -> None:
    """On a CPU all that the process holds: predictions, targets and gradient of 64 MB each among it."""
    arguments: dict[str, Any] = {
        "case": ("mse", (16_000_000,), "float32"),
        "contestant": OURS,
        "device": "cpu",
    }
    peak = device.peak_of("losses", whole=True, **arguments)()["peak memory"]
    assert 3 * 64e6 < peak < 2e9


@pytest.mark.usefixtures("plain")
def test_a_small_gpt_learns_by_each() -> None:
    for work in gpu.works("training", quick=True, device="cpu:0"):
        if not work.name.startswith("a small GPT"):
            continue
        field = work.build()
        assert set(field) == {OURS, gpt.TORCH, gpt.LAST_LAYER}
        values = set()
        for contestant in field.values():
            assert isinstance(contestant, Contestant)
            torch.manual_seed(1)
            assert contestant.before is not None
            contestant.before()
            measured = contestant.call()
            assert measured is not None
            values.add(measured["time"] > 0.0)
        assert values == {True}


def test_the_three_losses_of_a_gpt_are_one() -> None:
    text, following = torch.randint(50, (2, 2, 8))
    found = []
    for name in (OURS, gpt.TORCH, gpt.LAST_LAYER):
        torch.manual_seed(0)
        model = gpt.Gpt(gpt.QUICK).double()
        value = gpt._loss(name, model)(text, following)
        value.backward()
        found.append((value.item(), model.words.weight.grad))
    for value, gradient in found[1:]:
        assert value == pytest.approx(found[0][0], rel=1e-6)
        assert torch.allclose(gradient, found[0][1], rtol=1e-5, atol=1e-9)


def test_many_runs_are_measured_beside_vmap() -> None:
    """On the CPU by another name, where ours goes through vmap too."""
    for work in gpu.works("training", quick=True, device="cpu:0"):
        if work.name.startswith("a small GPT"):
            continue
        field = work.build()
        assert modules.VMAPPED in field or runs.BY_HAND in field
        for name, contestant in field.items():
            if name in PEERS and isinstance(contestant, Missing):
                continue
            assert isinstance(contestant, Contestant), f"{work.name}, {name}: {contestant}"
            contestant.call()


def test_jax_multiplies_in_float32_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU its own default is tf32, which is another work."""
    jax = pytest.importorskip("jax", reason="the peer itself is asked, and jax is not installed")
    found = []
    seen = Contestant(lambda: found.append(jax.config.jax_default_matmul_precision))
    monkeypatch.setattr(runs.training, "by_jax", lambda case, data: seen)
    runs._by_jax(2, "cpu").call()
    assert found == ["float32"]
    assert jax.config.jax_default_matmul_precision is None

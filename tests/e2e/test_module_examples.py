"""The examples on modules of one's own, as a person runs them but with small settings."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_a_convolutional_network_on_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"losses": ["cross_entropy"], "optimizers": ["momentum"], "batch_sizes": [256], "max_epochs": 1}
    found = example("digits_cnn").main(str(tmp_path / "out"), **options)
    printed = capsys.readouterr().out
    assert found.verdict["sentence"] in printed
    assert "of the test digits right" in printed
    assert found.verdict["winners"][0]["score"] < math.log(10)  # better than a guess
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "your own module, SmallCNN" in page


def test_a_small_gpt_on_english(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gpt = example("small_gpt")
    found = gpt.main(str(tmp_path / "out"), 5_000, optimizers=["adamw"], batch_sizes=[64], max_epochs=1)
    printed = capsys.readouterr().out
    assert found.verdict["sentence"] in printed
    assert "The statement " in printed
    assert found.verdict["num_rows"] == {"train": 124, "validation": 16, "test": 16}
    assert found.verdict["winners"][0]["score"] < math.log(len(gpt.CHARACTERS))
    assert (tmp_path / "out" / "report.html").exists()


def test_the_gpt_sees_nothing_of_what_is_to_come() -> None:
    gpt = example("small_gpt")
    module = gpt.SmallGPT().eval()
    codes = gpt.CODES[:32].reshape(1, -1).clone()
    before = module(codes)
    codes[0, 20:] = 0
    after = module(codes)
    assert (before[0, :20] == after[0, :20]).all()
    assert (before[0, 20:] != after[0, 20:]).any()


def test_a_gan_on_a_ring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gan = example("ring_gan")
    found = gan.main(str(tmp_path / "out"), optimizers=["rmsprop"], max_epochs=2)
    assert found.verdict["sentence"] in capsys.readouterr().out
    with torch.no_grad():
        untrained = gan.energy_distance(gan.network(4, 2)(torch.randn(500, 4)), gan.TEST)
    assert 0.0 < found.verdict["cells"][0]["score"] < 0.5 * untrained
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "a training of your own, gan" in page
    assert "gan(steepest.TrainingTrial(None, &#39;rmsprop&#39;, lr=" in page

"""Outputs of more than two axes: sequences and images, in torch's order of axes and in the other usual one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from steepest.errors import InputError
from steepest.training.layout import layout_of
from steepest.training.run import Record, Run, Stop
from steepest.training.torch_data import as_rows
from steepest.training.torch_engine import TorchEngine


@pytest.mark.parametrize(
    ("outputs", "targets", "expected"),
    [
        ((4,), (4,), (1, False)),
        ((4, 1), (4,), (1, False)),
        ((4,), (4, 1), (1, False)),
        ((4, 3), (4,), (3, False)),
        ((4, 3), (4, 1), (3, False)),
        ((4, 6), (4, 6), (1, False)),
        ((4, 6, 1), (4, 6), (1, False)),
        ((4, 1, 6, 6), (4, 6, 6), (1, False)),
        ((4, 6, 9), (4, 6), (9, True)),
        ((4, 9, 6), (4, 6), (9, False)),
        ((4, 5, 6, 6), (4, 6, 6), (5, False)),
        ((4, 6, 6, 5), (4, 6, 6), (5, True)),
        ((4, 5, 6, 6), (4, 1, 6, 6), (5, False)),
        ((4, 6, 6, 5), (4, 6, 6, 1), (5, True)),
    ],
)
def test_how_outputs_meet_targets(
    outputs: tuple[int, ...], targets: tuple[int, ...], expected: tuple[int, bool]
) -> None:
    assert layout_of(torch.zeros(outputs), torch.zeros(targets)) == expected


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((4, 6, 6), (4, 6), "can be read in two ways"),
        ((4, 5), (4, 6), "they must have the targets' shape"),
        ((5,), (4,), "they must have the targets' shape"),
        ((), (4,), "they must have the targets' shape"),
        ((4, 5, 7), (4, 6), "they must have the targets' shape"),
    ],
)
def test_what_does_not_belong_together(
    outputs: tuple[int, ...], targets: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        layout_of(torch.zeros(outputs), torch.zeros(targets))


VOCABULARY, LENGTH = 5, 7
TOKENS = torch.randint(VOCABULARY, (24, LENGTH + 1), generator=torch.Generator().manual_seed(0))


class Tagger(nn.Module):
    """A recurrent net with a prediction at each place, the classes along the last axis or the second."""

    def __init__(self, classes_last: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY + 1, 8)
        self.layer = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, VOCABULARY)
        self.classes_last = classes_last

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.layer(self.embed(tokens))
        logits = self.head(hidden)
        return logits if self.classes_last else logits.movedim(-1, 1)


def tagged(classes_last: bool, loss: str = "cross_entropy", metric: str = "log_loss") -> tuple[Record, Any]:
    rows = as_rows((TOKENS[:16, :-1], TOKENS[:16, :-1]), "train")  # each token is its own tag
    validation = as_rows((TOKENS[16:, :-1], TOKENS[16:, :-1]), "validation")
    engine = TorchEngine(
        lambda: Tagger(classes_last), rows, validation, "multiclass", metric, classes_last=classes_last
    )
    run = Run(loss, "adam", 0.05, 4, seed=3, stop=Stop(8))
    (record,) = engine.run_all([run])
    assert record is not None
    return record, engine.predict(run, record.parameters, validation)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "class_balanced", "logit_adjusted"])
def test_sequences_of_classes_by_either_order_of_axes(loss: str) -> None:
    last, probabilities = tagged(True, loss)
    second, again = tagged(False, loss)
    assert probabilities.shape == (8 * LENGTH, VOCABULARY)
    np.testing.assert_allclose(probabilities, again, rtol=1e-4, atol=1e-6)
    assert (probabilities.argmax(axis=1) == TOKENS[16:, :-1].reshape(-1).numpy()).mean() > 0.9
    assert last.validation_score == pytest.approx(second.validation_score, rel=1e-4)


def padded(examples: Any) -> Any:
    tokens = pad_sequence([x for x, _ in examples], batch_first=True, padding_value=VOCABULARY)
    tags = pad_sequence([y for _, y in examples], batch_first=True, padding_value=-100)
    return tokens, tags


def test_padding_counts_in_neither_loss_nor_score() -> None:
    """Sequences of unlike lengths, padded batch by batch, give what torch's own loss gives."""
    pairs = [(row[: 2 + i % 5], row[: 2 + i % 5]) for i, row in enumerate(TOKENS)]
    rows = as_rows(DataLoader(pairs, batch_size=6, collate_fn=padded), "train")  # type: ignore[arg-type]
    kept = sum(len(tags) for _, tags in pairs)
    assert len(rows) == 24
    engine = TorchEngine(lambda: Tagger(True), rows, rows, "multiclass", "log_loss", classes_last=True)
    assert len(engine.scored(rows)) == kept
    run = Run("cross_entropy", "sgd", 1e-9, 6, seed=3, stop=Stop(1))
    (record,) = engine.run_all([run])
    assert record is not None
    probabilities = engine.predict(run, record.parameters, rows)
    assert probabilities.shape == (kept, VOCABULARY)
    module = engine.make(3).eval()
    tokens, tags = padded(pairs)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(module(tokens).movedim(-1, 1), tags)
    assert record.validation_score == pytest.approx(float(expected), rel=1e-5)


def test_a_class_of_unsigned_bytes_is_never_padding() -> None:
    """-100 is 156 in uint8, as masks of images come in, and 156 is a class there."""
    labels = torch.tensor([0, 156, 3, 156], dtype=torch.uint8)
    rows = as_rows((torch.zeros(4, 2), labels), "train")
    engine = TorchEngine(lambda: nn.Linear(2, 200), rows, rows, "multiclass", "accuracy")
    assert engine.scored(rows).tolist() == labels.tolist()
    (record,) = engine.run_all([Run("cross_entropy", "adam", 0.1, "full", stop=Stop(60))])
    assert record is not None
    assert record.validation_score == 0.5


def test_images_of_values_and_of_classes() -> None:
    images = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    for loss, task, metric, targets in (
        ("mse", "regression", "rmse", images[:, 0] * 2),
        ("bce", "binary", "accuracy", (images[:, 0] > 0.5).long()),
        ("bce", "binary", "accuracy", (images > 0.5).float()),
    ):
        rows = as_rows((images, targets), "train")
        engine = TorchEngine(lambda: nn.Conv2d(1, 1, 1), rows, rows, task, metric)  # type: ignore[arg-type]
        (record,) = engine.run_all([Run(loss, "adam", 0.1, 5, stop=Stop(60))])
        assert record is not None
        assert record.validation_score < 0.05 if task == "regression" else record.validation_score > 0.95


def test_several_values_a_row() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    y = torch.stack([x.sum(1), x[:, 0]], 1)
    rows = as_rows((x, y), "train")
    engine = TorchEngine(lambda: nn.Linear(3, 2), rows, rows, "regression", "mae")
    run = Run("mse", "adam", 0.05, 8, stop=Stop(60))
    (record,) = engine.run_all([run])
    assert record is not None
    predictions = engine.predict(run, record.parameters, rows)
    assert record.validation_score == pytest.approx(float(np.abs(predictions - y.reshape(-1).numpy()).mean()))
    assert record.validation_score < 0.05

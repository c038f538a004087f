"""The whole intake: read, settle the task, split, learn the encoding, apply it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from steepest.data.diagnose import diagnose
from steepest.data.digest import content_sha256
from steepest.data.encoding import Encoding
from steepest.data.leaks import repeated_rows, telling_columns
from steepest.data.learn import learn_columns
from steepest.data.parts import check_finite
from steepest.data.read import read
from steepest.data.split import Indices, Parts, check_options, split_rows
from steepest.data.split_column import (
    check_classes_in_training,
    split_by_groups,
    split_by_time,
    split_column,
)
from steepest.data.table import Table
from steepest.data.target import Target, check_spread, read_target
from steepest.errors import InputError

if TYPE_CHECKING:
    from steepest.training.run import TrainingData

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A table, ready to train on.

    Features are float32 of shape (rows, features). ``y_train``, ``y_validation`` and ``y_test`` are float32
    standardised targets (regression), float32 zeros and ones (binary) or int64 class indices (multi-class);
    ``y_validation_original`` and ``y_test_original`` are float64 in the target's own units, or int64 class
    indices.

    Attributes:
        task: ``"regression"``, ``"binary"`` or ``"multiclass"``.
        target: the target column's name.
        encoding: how a table becomes features; goes with the model.
        num_rows: rows in ``"train"``, ``"validation"`` and ``"test"``.
        notes: what intake inferred, dropped or met, a sentence each.
        diagnosis: what the training rows look like to a loss; see :func:`steepest.data.diagnose.diagnose`.
        data_sha256: digest of the whole table as given.
    """

    task: Literal["regression", "binary", "multiclass"]
    target: str
    encoding: Encoding
    x_train: NDArray[np.float32]
    y_train: NDArray[Any]
    x_validation: NDArray[np.float32]
    y_validation: NDArray[Any]
    x_test: NDArray[np.float32]
    y_test: NDArray[Any]
    y_validation_original: NDArray[Any]
    y_test_original: NDArray[Any]
    num_rows: dict[str, int]
    notes: list[str]
    diagnosis: list[dict[str, Any]]
    data_sha256: str

    @property
    def num_features(self) -> int:
        """Columns of the encoded rows."""
        return int(self.x_train.shape[1])

    @property
    def num_classes(self) -> int:
        """1 for regression."""
        return 1 if self.encoding.classes is None else len(self.encoding.classes)

    @property
    def y_train_original(self) -> NDArray[Any]:
        """The training targets in the target's own units, but for the rounding of their standardised form; or class
        indices."""
        if self.task != "regression":
            return self.y_train
        return self.y_train.astype(np.float64) * self.encoding.target_scale + self.encoding.target_mean

    def training_data(self) -> TrainingData:
        """Training and validation rows as the engines take them."""
        from steepest.training.run import TrainingData

        return TrainingData(
            task=self.task,
            num_classes=self.num_classes,
            x_train=self.x_train,
            y_train=self.y_train,
            x_validation=self.x_validation,
            y_validation=self.y_validation,
            target_scale=self.encoding.target_scale,
            target_mean=self.encoding.target_mean,
        )

    def all_but_test(self) -> TrainingData:
        """Training and validation rows together, to train on once there is nothing left to choose."""
        x, y = (
            np.concatenate(parts)
            for parts in ((self.x_train, self.x_validation), (self.y_train, self.y_validation))
        )
        return replace(self.training_data(), x_train=x, y_train=y, x_validation=x[:0], y_validation=y[:0])


def prepare(
    data: Any,
    target: str | None = None,
    *,
    task: str = "auto",
    seed: int = 0,
    validation: float = 0.2,
    test: float = 0.2,
    group: str | None = None,
    time: str | None = None,
    redrawn: int = 0,
) -> Prepared:
    """Read a table, split its rows and encode them; what is learned is learned from the training rows alone.

    Args:
        data: a path, a data frame or a pair ``(X, y)``: see :func:`steepest.data.read`.
        target: the column to predict; None for a pair ``(X, y)``.
        task: ``"regression"``, ``"binary"``, ``"multiclass"``, ``"classification"`` (by
            the number of classes), or ``"auto"``: text and booleans are classes, floats other than 0 and 1 a
            quantity, integers classes up to 10 distinct values.
        seed: decides which rows go where; 0 to 2**32 - 1.
        validation: share of all rows held out for tuning; 0 for none.
        test: share of all rows held out for the last judgement; 0 for none.
        group: a column, no feature then, none of whose values is in two parts; the shares are of its groups, and
            classes are not kept in proportion.
        time: a column, no feature then, in whose order training rows come first and test rows last.
        redrawn: how often which rows train and which validate has been drawn again; the test rows stay the same.

    Returns:
        The encoded parts and what there is to know about them.

    Raises:
        InputError: the input cannot be used, with one sentence that says what was found and what would do.
    """
    check_options(validation, test, seed)
    table = read(data, target)
    found = read_target(table, task)
    _check_columns(table)
    decisive = split_column(table, found.name, found.present, group, time)
    frame = table.frame.filter(found.present)
    features_alone = frame if decisive is None else frame.drop(decisive.name)
    by_place = table.by_place and decisive is None
    rows = Table(features_alone, table.source, found.name, table.notes, by_place=by_place)
    shares = {"validation": validation, "test": test}
    parts, split_notes = _split(found, decisive, shares, (seed, redrawn), by_time=time is not None)
    encoding, learned_notes = _learn(rows, found, parts[0])
    features, met_notes = encoding.apply(rows)
    y = _encoded_target(found, encoding, rows.source)
    x_train, x_validation, x_test = (features[part] for part in parts)
    y_train, y_validation, y_test = (y[part] for part in parts)
    leaks = []
    if redrawn == 0:  # the rows are the same ones however they are drawn
        leaks = telling_columns(encoding, (x_train, y_train), (x_validation, y_validation)) + repeated_rows(
            frame
        )
    return Prepared(
        task=found.task,
        target=found.name,
        encoding=encoding,
        x_train=x_train,
        y_train=y_train,
        x_validation=x_validation,
        y_validation=y_validation,
        x_test=x_test,
        y_test=y_test,
        y_validation_original=found.values[parts[1]],
        y_test_original=found.values[parts[2]],
        num_rows=dict(zip(("train", "validation", "test"), map(len, parts), strict=True)),
        notes=[*table.notes, *found.notes, *split_notes, *learned_notes, *met_notes, *leaks],
        diagnosis=diagnose(found.values[parts[0]], found.classes, x_train, float(found.values.min())),
        data_sha256=content_sha256(table.frame),
    )


def _split(
    target: Target,
    decisive: pl.Series | None,
    shares: dict[str, float],
    draw: tuple[int, int],
    *,
    by_time: bool,
) -> tuple[Parts, list[str]]:
    """The parts, and notes on how they were made; ``decisive`` is the column that decides, if one does."""
    labels, validation, test = _labels(target), shares["validation"], shares["test"]
    drawn = {"seed": draw[0], "redrawn": draw[1]}
    if decisive is None:
        num_rows = len(target.values)
        return split_rows(num_rows, labels, target.classes, validation=validation, test=test, **drawn), []
    if by_time:
        parts, notes = split_by_time(decisive, validation=validation, test=test)
    else:
        parts, notes = split_by_groups(decisive, validation=validation, test=test, **drawn)
    if labels is not None:
        check_classes_in_training(labels, target.classes or [], parts[0], decisive.name)
    return parts, notes


def _labels(target: Target) -> Indices | None:
    return None if target.classes is None else target.values


def _check_columns(table: Table) -> None:
    for problem in table.problems.values():
        raise InputError(f"In {table.source}, {problem}.")
    for series in table.frame.get_columns():
        check_finite(series, table.source)


def _learn(rows: Table, target: Target, train: Indices) -> tuple[Encoding, list[str]]:
    training_rows = rows.frame.drop(target.name)[train]
    columns, notes = learn_columns(training_rows, rows.source, rows.notes)
    mean, scale = _moments(target, train, rows.source)
    num_places = training_rows.width if rows.by_place else None
    return Encoding(target.name, target.task, columns, target.classes, mean, scale, num_places), notes


def _moments(target: Target, train: Indices, source: str) -> tuple[float, float]:
    if target.classes is not None:
        return 0.0, 1.0
    values = target.values[train]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not np.isfinite([mean, scale]).all():
        raise InputError(
            f"The target {target.name!r} of {source} holds numbers as large as {np.abs(values).max():g}, too"
            " large to be computed with; rescale it."
        )
    check_spread(f"The target {target.name!r} of {source}", float(values.min()), float(values.max()))
    # The same value in all training rows, though not in all rows.
    return mean, scale if scale > 0 else 1.0


def _encoded_target(target: Target, encoding: Encoding, source: str) -> NDArray[Any]:
    if target.task == "multiclass":
        return target.values
    with np.errstate(over="ignore"):
        encoded = ((target.values - encoding.target_mean) / encoding.target_scale).astype(np.float32)
    if not np.isfinite(encoded).all():
        raise InputError(
            f"The target {target.name!r} of {source} holds numbers as large as"
            f" {np.abs(target.values).max():g}, too far from the training rows' to be computed with; correct"
            " them, or leave them empty."
        )
    return encoded

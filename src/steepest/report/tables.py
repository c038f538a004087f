"""What the report's tables show, row by row: the standing of every pair, and the two matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steepest.report.language import recorded, say
from steepest.report.scale import ScoreRange, score_range, ticks
from steepest.report.words import Cell, between, capital, finite, humanise, plural, score_format, significant
from steepest.training.run import OWN

HOME_METRICS = {
    "mse": "rmse",
    "mae": "mae",
    "bce": "log_loss",
    "bce_probability": "log_loss",
    "cross_entropy": "log_loss",
}
GREATER_IS_BETTER = {"accuracy", "balanced_accuracy"}
_CONSTANT = ""  # no loss has this name

Written = Callable[[Any], str]


@dataclass(frozen=True)
class StandingRow:
    """A pair's line in the standing: its score, and where its interval lies in percent of the axis."""

    loss: str
    optimizer: str
    details: str
    state: str  # winner, plain, default or barred
    badges: tuple[str, ...]
    score: str
    interval: str
    difference: str
    low: float | None
    middle: float | None
    high: float | None
    is_beyond: bool
    reason: str


@dataclass(frozen=True)
class Standing:
    """The forest plot: rows, and the ticks of their common axis as (percent, text)."""

    rows: tuple[StandingRow, ...]
    ticks: tuple[tuple[float, str], ...]
    best: float | None
    good_side: str  # left or right
    first: str  # the badge of the first winner

    @property
    def has_differences(self) -> bool:
        """Whether any pair was compared with the best; after an interruption, and where all are barred, none was."""
        return any(row.difference for row in self.rows)


@dataclass(frozen=True)
class MatrixCell:
    """A score in a matrix; ``heat`` runs from 0 (bad) to 100 (best)."""

    text: str
    heat: int
    is_best: bool = False
    note: str = ""
    is_home: bool = False


@dataclass(frozen=True)
class Matrix:
    """A heat map that is a table."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[MatrixCell, ...]], ...]


def cell_key(cell: Cell) -> tuple[str, ...]:
    """What tells a cell from the others."""
    return tuple(str(cell[key]) for key in ("loss", "optimizer", "batch_size", "kind"))


def batch_words(batch_size: Any) -> str:
    """``"batch 32"``, ``"full batch"``, ``"one row a step"``; ``"batch 32, cosine"`` where a schedule is named."""
    size, _, schedule = str(batch_size).partition(" ")
    words = say("full batch") if size == "full" else say("batch {size}", size=size)
    words = say("one row a step") if size == "1" else words
    words = say("its own batches") if size == OWN else words
    return say("{batch}, {schedule}", batch=words, schedule=schedule) if schedule else words


def batch_order(batch_size: Any) -> tuple[bool, int, str]:
    """A key that sorts batch sizes: small to large, the full batch last; of one size, by the schedule."""
    size, _, schedule = str(batch_size).partition(" ")
    return (not size.isdigit(), int(size) if size.isdigit() else 0, schedule)


def standing_range(cells: Sequence[Cell], winners: Sequence[Cell], greater_is_better: bool) -> ScoreRange:
    """The standing's axis: whole intervals of the winners and the best, most of the others."""
    allowed = [cell for cell in cells if not cell["barred"]] or list(cells)
    shown = [end for cell in winners for end in (cell["score"], *cell["interval"])]
    best_ends = [end for cell in allowed[:1] for end in cell["interval"]]
    return score_range(
        (cell["score"] for cell in allowed), greater_is_better, shown=[*shown, *best_ends], least=0.0
    )


def standing(
    cells: Sequence[Cell],
    winners: Sequence[Cell],
    span: ScoreRange,
    written: Written,
    first: str = "take this",
) -> Standing:
    """Every cell with its interval, winners first; ``first`` is what the first winner is marked with."""
    marks = {cell_key(cell): say("winner") if place else first for place, cell in enumerate(winners)}
    is_said = _batch_is_said(cells)
    ordered = sorted(cells, key=lambda cell: cell_key(cell) not in marks)
    rows = tuple(
        _standing_row(cell, marks.get(cell_key(cell), ""), span, written, is_said) for cell in ordered
    )
    places = tuple((span.percent(tick), significant(tick, 6)) for tick in ticks(span, 4))
    best = finite(ordered[0]["score"]) if ordered else None
    side = "right" if span.greater_is_better else "left"
    return Standing(rows, places, None if best is None else span.percent(best), side, first)


def _batch_is_said(cells: Sequence[Cell]) -> bool:
    """Whether the batch size and the schedule tell pairs apart; else the top of the page has the one there is."""
    regimes = {str(cell["batch_size"]) for cell in cells}
    return len(regimes) > 1 or any(" " in regime for regime in regimes)


def _standing_row(cell: Cell, mark: str, span: ScoreRange, written: Written, with_batch: bool) -> StandingRow:
    """``mark`` is a winner's badge; empty: not one of them."""
    score = finite(cell["score"])
    low, high = (finite(end) for end in cell["interval"])
    difference = cell.get("difference") or [None, None]
    details = [say("rate {rate}", rate=significant(cell["lr"]))]
    for option in ("loss_options", "optimizer_options"):
        details += [f"{humanise(name)} {value:g}" for name, value in (cell.get(option) or {}).items()]
    details += [batch_words(cell["batch_size"])] * with_batch
    details += [plural(cell["num_seeds"], "seed")]
    if cell["num_diverged"]:
        details.append(say("{runs} diverged", runs=plural(cell["num_diverged"], "run")))
    return StandingRow(
        loss=cell["loss"],
        optimizer=cell["optimizer"],
        details=" · ".join(details),
        state=_state(cell, bool(mark)),
        badges=_badges(cell, mark),
        score=written(score),
        interval=between(cell["interval"], written),
        difference=_signed_interval(difference, written) + _chance(cell.get("p_value")),
        low=None if low is None else span.percent(low),
        middle=None if score is None else span.percent(score),
        high=None if high is None else span.percent(high),
        is_beyond=score is not None and span.is_beyond(score),
        reason=recorded(str(cell["barred"] or "")),
    )


def _chance(p_value: float | None) -> str:
    """How likely such a difference is by chance."""
    if p_value is None:
        return ""
    return ", p < 0.001" if p_value < 0.001 else f", p = {significant(p_value, 2)}"


def _state(cell: Cell, wins: bool) -> str:
    own = "default" if cell["kind"] == "default" else "plain"
    if wins:
        return f"winner {own}"
    return "barred" if cell["barred"] else own


def _badges(cell: Cell, mark: str) -> tuple[str, ...]:
    badges = [mark] if mark else []
    if cell["kind"] == "default":
        badges.append(say("untuned default"))
    elif not cell["tuned"]:
        badges.append(say("not tuned"))
    if cell["barred"]:
        badges.append(say("barred"))
    return tuple(badges)


def _signed_interval(ends: Sequence[Any], written: Written) -> str:
    low, high = (finite(end) for end in ends)
    if low is None or high is None:
        return ""
    if low == high == 0:
        return say("the best")
    return say("{low} to {high}", low=_signed(low, written), high=_signed(high, written))


def _signed(value: float, written: Written) -> str:
    return ("+" if value > 0 else "−" if value < 0 else "") + written(abs(value))


def pair_matrices(cells: Sequence[Cell], greater_is_better: bool, written: Written) -> list[Matrix]:
    """Optimizers down, losses across, one matrix a batch size; the best score of all is marked."""
    tuned = [cell for cell in cells if cell["kind"] == "tuned"] or cells
    span = score_range((cell["score"] for cell in tuned), greater_is_better, least=0.0)
    by_key = {cell_key(cell): cell for cell in cells}
    losses = tuple(sorted({cell["loss"] for cell in cells}))
    optimizers = sorted({cell["optimizer"] for cell in cells})
    rankable = [cell for cell in tuned if not cell["barred"] and finite(cell["score"]) is not None]
    best = cell_key(rankable[0]) if rankable else ()
    matrices = []
    for batch in sorted({str(cell["batch_size"]) for cell in cells}, key=batch_order):
        rows = []
        for optimizer in optimizers:
            found = [_tuned_or_default(by_key, loss, optimizer, batch) for loss in losses]
            rows.append((optimizer, tuple(_pair_cell(cell, best, span, written) for cell in found)))
        matrices.append(Matrix(batch_words(batch), losses, tuple(rows)))
    return matrices


def _tuned_or_default(
    by_key: dict[tuple[str, ...], Cell], loss: str, optimizer: str, batch: str
) -> Cell | None:
    kinds = ((loss, optimizer, batch, kind) for kind in ("tuned", "default"))
    return next((by_key[key] for key in kinds if key in by_key), None)


def _pair_cell(cell: Cell | None, best: tuple[str, ...], span: ScoreRange, written: Written) -> MatrixCell:
    if cell is None:
        return MatrixCell("", 0, note=say("not tried"))
    score = finite(cell["score"])
    if score is None:
        return MatrixCell(say("diverged") if cell["num_diverged"] else "–", 0)
    note = say("untuned default") if cell["kind"] == "default" else "" if cell["tuned"] else say("not tuned")
    return MatrixCell(written(score), round(100 * span.goodness(score)), cell_key(cell) == best, note)


def metric_matrix(
    cells: Sequence[Cell], metric: str, greater_is_better: bool, baseline: Cell | None = None
) -> Matrix | None:
    """Mean test metrics of the best tuned optimizer of each loss, and what one constant prediction scores by each;
    None where no test rows were touched."""
    best: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: (bool(cell["barred"]), cell["kind"] == "default")):
        if cell.get("test"):
            best.setdefault(cell["loss"], cell)
    if not best:
        return None
    names = {name for cell in best.values() for name in cell["test"]}
    metrics = sorted(names, key=lambda name: (name != metric, name))
    # Of the metric that decides, which may be the user's own, the verdict knows which way is better.
    upward = GREATER_IS_BETTER | ({metric} if greater_is_better else set())
    constant = {} if baseline is None else baseline["test"]
    with_batch = _batch_is_said(cells)
    columns = {name: _metric_column(best, name, name in upward, constant.get(name)) for name in metrics}
    rows = tuple(
        (_pair_name(best[loss], with_batch), tuple(columns[name][loss] for name in metrics))
        for loss in sorted(best)
    )
    if constant:
        rows += ((say("none: always the same"), tuple(columns[name][_CONSTANT] for name in metrics)),)
    return Matrix(say("Test rows"), tuple(capital(humanise(name)) for name in metrics), rows)


def _pair_name(cell: Cell, with_batch: bool) -> str:
    return " · ".join([cell["loss"], cell["optimizer"], *[batch_words(cell["batch_size"])] * with_batch])


def _metric_column(
    best: dict[str, Cell], metric: str, greater: bool, constant: float | None
) -> dict[str, MatrixCell]:
    """A metric's cell for each loss; that of the best constant prediction, which has no colour, under ``_CONSTANT``."""
    scores = {loss: finite(cell["test"].get(metric)) for loss, cell in best.items()}
    known = [score for score in scores.values() if score is not None]
    span, written = score_range(known, greater, least=0.0), score_format(known)
    top = (max if greater else min)(known, default=None)
    return {_CONSTANT: MatrixCell("" if constant is None else written(constant), 0)} | {
        loss: MatrixCell(
            written(score),
            0 if score is None or len(known) < 2 else round(100 * span.goodness(score)),
            is_best=score is not None and score == top and len(known) > 1,
            is_home=HOME_METRICS.get(loss) == metric,
        )
        for loss, score in scores.items()
    }

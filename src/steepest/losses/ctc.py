"""CTC: the likelihood of a sequence of classes, summed over its alignments with the frames."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from steepest.backends import cpu_alignments, cpu_losses
from steepest.backends.cpu_losses import DTYPES
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.losses import fused, kernels
from steepest.losses.apply import composite_loss, widened
from steepest.losses.base import LossModule
from steepest.losses.checks import check_dense, check_floating, check_reduction, is_concrete, is_transformed
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["CTCLoss", "ctc_loss"]

_Lengths = Tensor | Sequence[int]


def value(
    x: Tensor, labels: Tensor, frames: Tensor, lengths: Tensor, blank: int = 0, zero_infinity: bool = False
) -> Tensor:
    """Minus the logarithm of the probability of all alignments, one a sequence of (T, N, C); labels are (N, S).

    Its gradient is that of the loss and the probabilities' sum, which is 1 in each frame: see :class:`CTCLoss`.
    """
    if x.device.type != "mps":  # which has no float64
        x = x.double()
    num_frames = x.shape[0]
    counts = torch.arange(num_frames, device=x.device).unsqueeze(-1) < frames  # (T, N)
    is_label = torch.arange(labels.shape[1], device=x.device) < lengths.unsqueeze(-1)
    labels = torch.where(is_label, labels, blank)
    x = torch.where(counts.unsqueeze(-1), x, 0.0)  # whatever the frames behind hold
    # Blanks and labels by turns, a blank at either end; a blank may be left out between two labels that differ.
    by_turns = torch.stack([torch.full_like(labels, blank), labels], -1).flatten(1)
    states = torch.cat([by_turns, torch.full_like(frames, blank).unsqueeze(-1)], -1)
    differs = torch.zeros_like(states[:, :2], dtype=torch.bool)
    if states.shape[1] > 2:
        differs = torch.cat([differs, (states[:, 2:] != states[:, :-2]) & (states[:, 2:] != blank)], -1)
    differs = differs[:, : states.shape[1]]
    nothing = torch.full_like(states, -math.inf, dtype=x.dtype)
    sums = torch.cat(
        [torch.zeros_like(nothing[:, :1]), nothing[:, 1:]], -1
    )  # of logarithms, before the first frame
    for t in range(num_frames):
        one = torch.cat([nothing[:, :1], sums], -1)[:, : states.shape[1]]
        two = torch.cat([nothing[:, :1], one], -1)[:, : states.shape[1]]
        new = _log_sum([sums, one, torch.where(differs, two, -math.inf)]) + x[t].gather(-1, states)
        sums = torch.where(counts[t].unsqueeze(-1), new, sums)
    last = 2 * lengths.unsqueeze(-1)
    ends = sums.gather(-1, torch.cat([last, (last - 1).clamp(min=0)], -1))
    at_label = torch.where(lengths > 0, ends[:, 1], -math.inf)
    loss = -_log_sum([ends[:, 0], at_label])
    is_bad = (counts.unsqueeze(-1) & ~(x < math.inf)).any(-1).any(0)
    told = torch.where(is_bad, math.nan, 1.0)  # times which a loss and its gradient are NaN
    loss = loss * told
    has_none = loss == math.inf
    loss = torch.where(has_none, 0.0, loss) + 0.0  # no minus 0
    whole = torch.where(counts.unsqueeze(-1), x.exp(), 0.0).sum((0, 2))
    loss = loss + torch.where(has_none, 0.0, (whole - whole.detach()) * told)
    if zero_infinity:
        return torch.where(has_none, 0.0, loss)
    # Of an infinite loss the gradient is NaN, as torch's: the slope of a root at 0, times 0.
    root = torch.where(has_none, (x.tanh() * 0.0).sum((0, 2)), 1.0).sqrt()
    return torch.where(has_none, root + math.inf, loss)


def _log_sum(terms: list[Tensor]) -> Tensor:
    """``log(sum(exp(terms)))``; of nothing but -inf it is -inf, and no gradient is NaN."""
    most = torch.stack([term.detach() for term in terms]).amax(0)
    most = torch.where(most == -math.inf, 0.0, most)
    total = torch.stack([(term - most).exp() for term in terms]).sum(0)
    is_nothing = total == 0
    return torch.where(is_nothing, -math.inf, torch.where(is_nothing, 1.0, total).log() + most)


FORMULA = LossFormula(
    name="ctc",
    title="connectionist temporal classification",
    family="composite",
    value=value,
    gradient=None,
    prediction="frames",
    target="sequence",
    tasks=(),
    formula="mean over sequences of -log(Σ_a Π_t exp(x_{t,a_t})) / S, a all alignments: paths of T classes that are y "
    "once repeats and then blanks are taken out",
    gradient_formula="(exp(x_{t,c}) - q_{t,c}) / S by x_{t,c}, as in torch; 0 in frames that do not count",
    domain="log-probabilities x, -inf included, in T frames t; y is S classes; q_{t,c} is the share of the alignments "
    "with a_t = c in the sum",
    source="Graves, Fernández, Gomez and Schmidhuber 2006, Connectionist Temporal Classification: Labelling "
    "Unsegmented Sequence Data with Recurrent Neural Networks, ICML, sections 3 and 4",
    good_at=("sequences whose order is known and whose times are not: speech, handwriting",),
    bad_at=(
        "sequences longer than their frames allow: their loss is infinite (zero_infinity leaves them out)",
        "times: the labels are emitted as single spikes between blanks, wherever that suits",
    ),
    compared_by_default=False,
)


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: _Lengths,
    target_lengths: _Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over sequences of minus the logarithm of all alignments' probability; see :class:`CTCLoss`."""
    name = FORMULA.name
    check_dense(name, log_probs=log_probs, targets=targets)
    check_floating(name, log_probs, "log_probs")
    check_reduction(reduction)
    check_switches(name, switches, reduction)
    is_batch = log_probs.dim() == 3
    if log_probs.dim() not in (2, 3) or not log_probs.shape[-1]:
        raise InputError(
            f"{name}: log_probs has shape {tuple(log_probs.shape)}; it must be (T, N, C) or (T, C), C > 0."
        )
    _check_blank(blank, log_probs.shape[-1])
    (x,) = widened(log_probs)
    dtype = switches.get("output_dtype") or x.dtype
    # Half types are computed in float32, a wider result in its own type: each is rounded once.
    x = x.to(
        torch.promote_types(
            x.dtype, dtype if x.dtype in DTYPES else torch.promote_types(dtype, torch.float32)
        )
    )
    x = x if is_batch else x.unsqueeze(1)
    frames = _lengths("input_lengths", input_lengths, x.shape[1], x.shape[0], "frames")
    lengths = _lengths("target_lengths", target_lengths, x.shape[1])
    _check_targets(targets, lengths, x.shape[1])
    if targets.numel() and not targets.is_meta and is_concrete(targets) and not isinstance(lengths, Tensor):
        _check_classes(targets, lengths, x.shape[2], blank)
    loss = _loss(x, targets, frames, lengths, blank, reduction, bool(zero_infinity), is_batch, switches)
    return loss.to(dtype)


def _loss(
    x: Tensor,
    targets: Tensor,
    frames: list[int] | Tensor,
    lengths: list[int] | Tensor,
    blank: int,
    reduction: str,
    zero_infinity: bool,
    is_batch: bool,
    switches: Switches,
) -> Tensor:
    """The loss in the type of ``x``, (T, N, C)."""
    by_length = reduction == "mean"
    rest: Switches = {**switches, "output_dtype": None}
    shape = x.shape[1:2] if is_batch else torch.Size()

    def in_operations(x: Tensor, targets: Tensor) -> Tensor:
        settings = (frames, lengths, blank, zero_infinity, by_length)
        return _in_operations(x, targets, *settings, reduction, shape, rest)

    is_plain = x.is_cpu and not runs_on(x) and kernels.takes(x, (), (targets,))
    if is_plain and isinstance(frames, list) and isinstance(lengths, list):
        sequences = _Sequences(tuple(frames), tuple(lengths), blank, zero_infinity, by_length)
        run, count = partial(_run, sequences), float(len(frames))
        work = fused.ByRows(FORMULA, run, in_operations, lambda _: count, reduction, shape, rest, [])
        return fused.by_rows(x, targets, work)
    if torch.compiler.is_compiling() and x.is_cpu and x.numel() and not is_transformed():
        places = [_as_tensor(numbers, x) for numbers in (frames, lengths)]
        first = reduction if switches.get("normalizer") is None else "sum"
        empty = switches.get("on_empty") == "zero"
        loss, _ = _operator(
            x, targets, *places, blank, zero_infinity, by_length, first, empty, x.requires_grad
        )
        if first != reduction:
            mean: Tensor = composite_loss(FORMULA, lambda total: total, (loss,), reduction="mean", **rest)
            return mean
        values: Tensor = loss.reshape(shape) if reduction == "none" else loss
        return values
    return in_operations(x, targets)


def _in_operations(
    x: Tensor,
    targets: Tensor,
    frames: list[int] | Tensor,
    lengths: list[int] | Tensor,
    blank: int,
    zero_infinity: bool,
    by_length: bool,
    reduction: str,
    shape: torch.Size,
    switches: Switches,
) -> Tensor:
    def compute(x: Tensor) -> Tensor:
        labels, of_frames, of_labels = _padded(targets, frames, lengths, x)
        values = value(x, labels, of_frames, of_labels, blank, zero_infinity)
        return (values / of_labels.clamp(min=1) if by_length else values).reshape(shape)

    return composite_loss(FORMULA, compute, (x,), reduction=reduction, **switches)


class _Sequences(NamedTuple):
    """What the kernel is told beside its tensors."""

    frames: tuple[int, ...]
    lengths: tuple[int, ...]
    blank: int
    zero_infinity: bool
    by_length: bool  # each loss is divided by the length of its target


def _run(
    sequences: _Sequences, x: Tensor, targets: Tensor, out: Tensor, mode: int, scale: kernels.Sum = 1.0
) -> float:
    """The kernel over contiguous log-probabilities (T, N, C) of a CPU; its sum."""
    labels = targets.to(torch.int64).contiguous()
    lengths = sequences.lengths
    if targets.dim() == 2:
        starts = [n * targets.shape[1] for n in range(len(lengths))]
    else:
        starts = [0, *itertools.accumulate(lengths[:-1])]
    places = [kernels.integers(tuple(numbers)) for numbers in (starts, sequences.frames, lengths)]
    addresses = labels.data_ptr(), *(place.address for place in places), out.data_ptr(), out.data_ptr()
    num_frames, count, classes = x.shape
    kernel, shape = cpu_alignments.alignments(DTYPES[x.dtype]), (num_frames, count, classes)
    return cpu_alignments.run(
        kernel, (x.data_ptr(), *addresses), shape, labels.numel(),
        max(lengths), sequences.blank, sequences.zero_infinity, sequences.by_length, float(scale), mode,
    )  # fmt: skip


def _as_tensor(numbers: list[int] | Tensor, like: Tensor) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.to(like.device, torch.int64)
    return torch.tensor(numbers, dtype=torch.int64, device=like.device)


def _padded(
    targets: Tensor, frames: list[int] | Tensor, lengths: list[int] | Tensor, like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (N, S), and both lengths as tensors, where the log-probabilities lie."""
    of_frames, of_labels = _as_tensor(frames, like), _as_tensor(lengths, like)
    labels = targets.to(like.device, torch.int64)
    longest = max(lengths, default=0) if isinstance(lengths, list) else labels.shape[-1]
    if labels.dim() == 2:
        return labels[:, :longest], of_frames, of_labels
    starts = of_labels.cumsum(0) - of_labels
    places = starts.unsqueeze(-1) + torch.arange(longest, device=like.device)
    if not longest:
        return torch.zeros_like(places), of_frames, of_labels
    places = places.clamp(max=labels.shape[0] - 1)  # of those behind a target's end nothing is used
    return labels.gather(0, places.flatten()).reshape(places.shape), of_frames, of_labels


# --- what is checked ----------------------------------------------------------------------------------------------


def _check_blank(blank: Any, classes: int) -> None:
    if isinstance(blank, bool) or not isinstance(blank, int) or not 0 <= blank < classes:
        raise InputError(
            f"ctc: blank is {blank!r}; it must be one of the {classes} classes, an integer in [0, {classes - 1}]."
        )


def _is_whole(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _lengths(
    word: str, given: Any, count: int, most: int | None = None, of_what: str = ""
) -> list[int] | Tensor:
    """One length a sequence, as numbers where they can be looked at, else as a tensor (N,)."""
    if isinstance(given, Tensor):
        check_dense("ctc", **{word: given})
        if not _is_whole(given.dtype):
            raise InputError(f"ctc: {word} are {given.dtype}; they must be integers, one a sequence.")
        if tuple(given.shape) != (count,) and not (given.dim() == 0 and count == 1):
            raise InputError(
                f"ctc: {word} has shape {tuple(given.shape)}; it must be ({count},), one a sequence."
            )
        if given.is_meta or not is_concrete(given):
            return given.reshape(count)
        numbers = given.reshape(count).tolist()
    else:
        is_sequence = isinstance(given, list | tuple)
        if not is_sequence or not all(isinstance(one, int) and not isinstance(one, bool) for one in given):
            raise InputError(
                f"ctc: {word} is {given!r}; it must be a tensor or a tuple of integers, one a sequence."
            )
        numbers = list(given)
        if len(numbers) != count:
            raise InputError(f"ctc: {word} has {len(numbers)} numbers for {count} sequences; give one each.")
    if numbers and min(numbers) < 0:
        raise InputError(f"ctc: {word} has {min(numbers)}; no length is below 0.")
    if numbers and most is not None and max(numbers) > most:
        raise InputError(
            f"ctc: {word} has {max(numbers)}, and log_probs has {most} {of_what} (its first size)."
        )
    return numbers


def _check_targets(targets: Tensor, lengths: list[int] | Tensor, count: int) -> None:
    if not _is_whole(targets.dtype):
        raise InputError(f"ctc: targets are {targets.dtype}; they must be integer class indices.")
    shape = tuple(targets.shape)
    if targets.dim() == 2 and shape[0] == count:
        if isinstance(lengths, list) and max(lengths, default=0) > shape[1]:
            raise InputError(
                f"ctc: target_lengths has {max(lengths)}, and targets of shape {shape} have {shape[1]} places each."
            )
        return
    if targets.dim() != 1:
        raise InputError(
            f"ctc: targets have shape {shape}; they must be ({count}, S), padded, or one row of all {count} targets, "
            "one after the other."
        )
    if isinstance(lengths, list) and sum(lengths) != shape[0]:
        raise InputError(
            f"ctc: targets in one row are {shape[0]} classes, and target_lengths adds up to {sum(lengths)}; they "
            "must be equal (padded targets have shape (N, S))."
        )


def _check_classes(targets: Tensor, lengths: list[int], classes: int, blank: int) -> None:
    """Each label within the lengths is a class and not the blank."""
    used = targets.to(torch.int64)
    if targets.dim() == 2:
        places = torch.arange(targets.shape[1], device=targets.device)
        used = used[places < torch.tensor(lengths, device=targets.device).unsqueeze(-1)]
    if not used.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(used))
    if low < 0 or high >= classes:
        raise InputError(
            f"ctc: targets run from {low} to {high}; class indices of {classes} classes lie in [0, {classes - 1}]."
        )
    if low <= blank <= high and bool((used == blank).any()):
        raise InputError(
            f"ctc: targets hold {blank}, which is the blank and stands for no label; take it out, or name another "
            "class as blank."
        )


# --- the operator ------------------------------------------------------------------------------------------------


@torch.library.custom_op("steepest::ctc_loss", mutates_args=(), device_types="cpu")
def _operator(
    log_probs: Tensor,
    targets: Tensor,
    frames: Tensor,
    lengths: Tensor,
    blank: int,
    zero_infinity: bool,
    by_length: bool,
    reduction: str,
    zero_on_empty: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    """What ``torch.compile`` calls; here the numbers can be looked at."""
    x = log_probs.contiguous()
    num_frames, count, classes = x.shape
    frame_counts = _lengths("input_lengths", frames, count, num_frames, "frames")
    label_counts = _lengths("target_lengths", lengths, count)
    _check_targets(targets, label_counts, count)
    assert isinstance(frame_counts, list)
    assert isinstance(label_counts, list)
    _check_classes(targets, label_counts, classes, blank)
    sequences = _Sequences(tuple(frame_counts), tuple(label_counts), blank, zero_infinity, by_length)
    run = partial(_run, sequences, x, targets)
    gradient = torch.empty_like(x) if with_gradient else x.new_empty(0)
    if reduction == "none":
        values = x.new_empty(count)
        run(values, cpu_losses.VALUES)
        if with_gradient:
            run(gradient, cpu_losses.GRADIENT)
        return values, gradient
    divisor = float(count) if reduction == "mean" else 1.0
    scale = kernels.scale_of(divisor, zero_on_empty=zero_on_empty)
    total = run(gradient, cpu_losses.GRADIENT, scale) if with_gradient else run(x, cpu_losses.SUM)
    return kernels.mean_of(total, divisor, x, x.dtype, zero_on_empty=zero_on_empty), gradient


@_operator.register_fake
def _(
    log_probs: Tensor,
    targets: Tensor,
    frames: Tensor,
    lengths: Tensor,
    blank: int,
    zero_infinity: bool,
    by_length: bool,
    reduction: str,
    zero_on_empty: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor]:
    shape = log_probs.shape[1:2] if reduction == "none" else ()
    return log_probs.new_empty(shape), log_probs.new_empty(log_probs.shape if with_gradient else (0,))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1], *inputs[:4])
    ctx.settings = inputs[4:]


def _backward(ctx: Any, grad_loss: Tensor, _: Any) -> tuple[Any, ...]:
    gradient, x, targets, frames, lengths = ctx.saved_tensors
    if torch.is_grad_enabled():  # it may be differentiated in turn
        blank, zero_infinity, by_length, reduction, zero_on_empty, _ = ctx.settings
        settings = (frames, lengths, blank, zero_infinity, by_length, reduction)
        switches: Switches = {"on_empty": "zero" if zero_on_empty else "nan"}

        def loss(x: Tensor) -> Tensor:
            return _in_operations(x, targets, *settings, x.shape[1:2], switches)

        return fused.differentiable_gradient(loss, x, grad_loss), *[None] * 9
    if gradient.shape != x.shape:  # an exported program was traced with an input that asked for none
        gradient = _operator(x, targets, frames, lengths, *ctx.settings[:-1], True)[1]
    if grad_loss.dim():
        grad_loss = grad_loss.unsqueeze(1)
    return (gradient * grad_loss).to(gradient.dtype), *[None] * 9


_operator.register_autograd(_backward, setup_context=_keep)


class CTCLoss(LossModule, nn.CTCLoss):
    """Sequences of classes whose times are not known, summed over all alignments; drop-in for torch's.

    ``-log(sum over alignments a of prod_t exp(log_probs[t, a_t]))``. An alignment is a path of a class a frame, which
    becomes the target once repeats and then blanks are taken out.

    The gradient is torch's, ``exp(log_probs) - q`` with ``q`` the share of the alignments through a class: it is right
    for log-probabilities that come from a ``log_softmax``, whatever it is by their logits. By log-probabilities alone
    it would be ``-q``. A second derivative is that of this gradient; torch has none.

    Args:
        blank: the class that stands for no label.
        reduction: ``"none"``, ``"mean"`` (each loss by its target's length, or 1; then over sequences) or ``"sum"``.
        zero_infinity: whether a sequence that has no alignment costs 0, with a gradient of 0; else infinity, with NaN.
        switches: see :class:`~steepest.losses.switches.Switches`; a ``normalizer`` stands for the number of sequences.

    Shapes: log-probabilities (T, N, C), or (T, C) for one sequence; targets (N, S), padded with anything, or all in one
    row, one after the other; lengths (N,), or () for one sequence, or as many integers in a tuple. Half types are
    taken, unlike torch, and a batch of no sequences.

    Raises:
        InputError: shapes or lengths that do not belong together, a blank that is no class, a target that holds the
            blank or what is no class. On a GPU lengths and targets are waited for.

    Numerics: on a CPU float32 is computed in float64 and rounded once. In float64 the loss may be off by 4 units in the
    last place and 2**-53 a frame, a gradient by as many of its larger term and relatively 2**-52 a frame. Alignments
    may be as improbable as they like, and log-probabilities -inf. A loss near 0 keeps its digits where one alignment
    has nearly all of it. NaN in a frame that counts makes the sequence's loss and gradient NaN. Elsewhere than on a CPU
    the same is summed in logarithms, frame by frame.

    Source: Graves et al. 2006, sections 3 and 4.

    >>> import torch
    >>> log_probs = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> one = torch.tensor([1])  # the paths 11, 10 and 01: all but 00
    >>> round(float(CTCLoss()(log_probs, one, (2,), (1,)).exp()), 4) == round(1 / 0.875, 4)
    True
    """

    formula = FORMULA

    def __init__(
        self,
        blank: int = 0,
        reduction: str = "mean",
        zero_infinity: bool = False,
        **switches: Unpack[Switches],
    ) -> None:
        super().__init__(blank, reduction, zero_infinity)
        self._set_switches(switches)

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: _Lengths, target_lengths: _Lengths
    ) -> Tensor:
        return ctc_loss(
            log_probs,
            targets,
            input_lengths,
            target_lengths,
            self.blank,
            self.reduction,
            self.zero_infinity,
            **self.switches,
        )

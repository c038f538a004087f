"""Cross-entropy of a linear layer's outputs, which are never all in memory at once.

Shapes: N rows, F features, C classes, K other outputs a class (the product of ``out_features``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _WeightedLoss

from steepest.backends import cpu_losses
from steepest.backends.cuda_devices import runs_on
from steepest.errors import InputError
from steepest.losses import cross_entropy as pair
from steepest.losses import kernels
from steepest.losses.apply import autocasts, softmax_loss, widened
from steepest.losses.base import LossModule
from steepest.losses.checks import check_classes, check_reduction, check_tensors, is_concrete, is_transformed
from steepest.losses.formula import LossFormula
from steepest.losses.switches import Switches, check_switches

__all__ = ["LinearCrossEntropyLoss", "linear_cross_entropy"]

_LOGITS_A_CHUNK = 1 << 22  # 16 MiB of float32
_LEAST_ROWS_A_CHUNK = 192  # fewer would leave the matrix products waiting for memory
_ROWS_A_FEATURE = 2  # whose slopes, in halves, take as many bytes as the weight's gradient in float32
_ALL = slice(None)
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_WIDE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}  # what is computed in; others in their own


def value(x_NF: Tensor, weight_CF: Tensor, target: Tensor, bias: Tensor | None = None) -> Tensor:
    """The cross-entropy of ``softmax(weight x + bias)``, row by row."""
    return pair.cross_entropy(nn.functional.linear(x_NF, weight_CF, bias), target, reduction="none")


FORMULA = LossFormula(
    name="linear_cross_entropy",
    title="linear layer and cross-entropy",
    family="composite",
    value=value,
    gradient=None,
    prediction="logits",
    target="class",
    tasks=(),
    formula="mean over rows of -Σ_c y_c log p_c, p = softmax(W x + b)",
    gradient_formula="Wᵀ(p - y) by x; (p - y) xᵀ by W; p - y by b",
    domain="any features x; class indices, one-hot rows or probabilities that sum to 1; W and b are the layer's",
    source="Hsu et al. 2024, Liger Kernel: Efficient Triton Kernels for LLM Training, arXiv:2410.10989 "
    "(FusedLinearCrossEntropy); Bishop 2006, eq. 4.108",
    good_at=("the last layer over a large vocabulary: its logits would be the largest tensor of all",),
    bad_at=("few classes: there is nothing to save",),
    compared_by_default=False,
)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    **switches: Unpack[Switches],
) -> Tensor:
    """``reduction`` over rows of the cross-entropy of a linear layer; see :class:`LinearCrossEntropyLoss`."""
    check_reduction(reduction)
    check_switches(FORMULA.name, switches, reduction)
    check_tensors(FORMULA.name, input, target)
    if autocasts(input):
        if _autocasts_to_bfloat16(input):
            # A GPU has its products at many times the speed; logits and sums are float32 all the same.
            input, linear_weight, linear_bias = map(_narrowed, (input, linear_weight, linear_bias))
            switches = {**switches, "output_dtype": switches.get("output_dtype") or torch.float32}
        else:  # all of it in float32; torch rounds the logits to the half type
            input, linear_weight, linear_bias, weight = widened(input, linear_weight, linear_bias, weight)
        with torch.autocast(input.device.type, enabled=False):
            return linear_cross_entropy(
                input, linear_weight, target, linear_bias=linear_bias, weight=weight, reduction=reduction,
                ignore_index=ignore_index, label_smoothing=label_smoothing, options=options, **switches,
            )  # fmt: skip
    logits_shape = _logits_shape(input, linear_weight, linear_bias)
    if target.is_floating_point() and ignore_index is not None:
        raise InputError(
            f"linear_cross_entropy: ignore_index is {ignore_index}, and the target holds probabilities; only class "
            "indices can be ignored (leave it None)."
        )
    ignore_index = -100 if ignore_index is None else ignore_index
    like_logits = input.new_empty(()).expand(logits_shape)  # takes no memory
    check_classes(FORMULA.name, like_logits, target, weight, ignore_index, label_smoothing)
    batched = input.dim() == 2
    outputs = tuple(linear_weight.shape[:-1])
    settings = kernels.SoftmaxSettings((), weight, None, ignore_index, label_smoothing, reduction)
    layer = _Layer(
        target if batched else target.unsqueeze(0),
        settings,
        switches,
        outputs,
        _chunk(options, outputs, input),
    )
    x_NF = input if batched else input.unsqueeze(0)
    loss: Tensor
    if _chunks_take(input, linear_weight, linear_bias, target, weight):
        if not torch.is_grad_enabled():
            x_NF, linear_weight = x_NF.detach(), linear_weight.detach()
            linear_bias = None if linear_bias is None else linear_bias.detach()
        loss = _Chunked.apply(x_NF, linear_weight, linear_bias, layer)  # type: ignore[no-untyped-call]
    else:
        loss = _loss_of_pair(x_NF, linear_weight, linear_bias, layer)
    return loss if batched or reduction != "none" else loss.squeeze(0)


def _autocasts_to_bfloat16(input: Tensor) -> bool:
    return runs_on(input) and torch.get_autocast_dtype(input.device.type) == torch.bfloat16


def _narrowed(tensor: Any) -> Any:
    """In bfloat16, what autocast has in it."""
    return (
        tensor.bfloat16() if tensor is not None and tensor.dtype in (torch.float32, torch.float16) else tensor
    )


def _logits_shape(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> tuple[int, ...]:
    name = FORMULA.name
    if input.dim() not in (1, 2):
        raise InputError(f"{name}: the input has shape {tuple(input.shape)}; it must be (F,) or (N, F).")
    if linear_weight.dim() < 2 or linear_weight.shape[-1] != input.shape[-1]:
        raise InputError(
            f"{name}: an input of shape {tuple(input.shape)} needs a linear_weight of shape (C, {input.shape[-1]}) "
            f"or (C, d1, ..., {input.shape[-1]}); it has shape {tuple(linear_weight.shape)}."
        )
    outputs = tuple(linear_weight.shape[:-1])
    if linear_bias is not None and tuple(linear_bias.shape) != outputs:
        raise InputError(f"{name}: linear_bias has shape {tuple(linear_bias.shape)}; it must be {outputs}.")
    if len(outputs) > 1 and input.dim() == 1:
        raise InputError(
            f"{name}: a linear_weight of shape {tuple(linear_weight.shape)} needs a batch, (N, {input.shape[-1]}); "
            f"the input has shape {tuple(input.shape)}."
        )
    return (*input.shape[:-1], *outputs)


def _chunks_take(
    input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None, target: Tensor, weight: Tensor | None
) -> bool:
    layer = [input, linear_weight, *([] if linear_bias is None else [linear_bias])]
    constant = [target, *([] if weight is None else [weight])]
    return (
        input.dtype in _DTYPES
        and all(tensor.dtype == input.dtype for tensor in layer)
        and (input.device.type == "cpu" or runs_on(input))
        and all(tensor.numel() and tensor.device == input.device for tensor in (*layer, *constant))
        and is_concrete(*layer, *constant)
        and not any(tensor.requires_grad for tensor in constant)
        and not is_transformed()
    )


def _chunk(options: Any, outputs: tuple[int, ...], input: Tensor) -> int:
    given: int | None = None if options is None else options.batch_chunk_size
    if given:
        return given
    if runs_on(input):  # logits that take no more memory than the weight's gradient
        return max(_LEAST_ROWS_A_CHUNK, input.shape[-1] // (2 if _multiplies_halves(input) else 4))
    return max(_LEAST_ROWS_A_CHUNK, _LOGITS_A_CHUNK // max(1, math.prod(outputs)))


class _Layer(NamedTuple):
    """What the chunks share besides the tensors that learn."""

    target: Tensor
    settings: kernels.SoftmaxSettings
    switches: Switches
    outputs: tuple[int, ...]  # (C, d1, ...)
    rows_a_chunk: int


def _loss_of_pair(x_NF: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
    """The same loss with all logits at once, differentiable any number of times."""
    logits = nn.functional.linear(x_NF, weight.flatten(0, -2), None if bias is None else bias.flatten())
    numbers, class_weight, _, ignore_index, smoothing, reduction = layer.settings
    return softmax_loss(
        pair.FORMULA, logits.reshape(-1, *layer.outputs), layer.target, numbers, weight=class_weight,
        ignore_index=ignore_index, label_smoothing=smoothing, reduction=reduction, **layer.switches,
    )  # fmt: skip


class _Chunked(torch.autograd.Function):
    """Loss and gradients chunk by chunk of rows; what is kept is as large as the parameters and the input."""

    @staticmethod
    def forward(ctx: Any, x_NF: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer) -> Tensor:
        ctx.layer, ctx.gradients, ctx.has_bias = layer, None, bias is not None
        constants = [layer.target, *([] if layer.settings.weight is None else [layer.settings.weight])]
        ctx.save_for_backward(x_NF, weight, *([] if bias is None else [bias]), *constants)
        settings, switches = layer.settings, layer.switches
        dtype = switches.get("output_dtype") or x_NF.dtype
        if settings.reduction == "none":
            values = x_NF.new_empty((x_NF.shape[0], *layer.outputs[1:]), dtype=dtype)
            for rows, logits, run in _chunks(x_NF, weight, bias, layer):
                part = logits.new_empty((logits.shape[0], *layer.outputs[1:]))
                run(part, cpu_losses.VALUES, 1.0)
                values[rows] = part
            return values
        count = x_NF.shape[0] * math.prod(layer.outputs[1:])
        own = (
            1.0
            if switches.get("normalizer") is not None
            else kernels.softmax_divisor(layer.target, settings, count)
        )
        divisor = kernels.divisor_of(switches, own, settings.reduction, x_NF)
        zero_on_empty = switches.get("on_empty") == "zero"
        ctx.scale = kernels.scale_of(divisor, zero_on_empty=zero_on_empty)
        if not isinstance(divisor, Tensor) and divisor == 0.0 and zero_on_empty:
            return x_NF.new_zeros((), dtype=dtype)
        if any(ctx.needs_input_grad):
            total, ctx.gradients = _gradients(x_NF, weight, bias, layer, ctx.needs_input_grad, ctx.scale)
        else:
            total = _sum(
                [run(logits, cpu_losses.SUM, 1.0) for _, logits, run in _chunks(x_NF, weight, bias, layer)]
            )
        return kernels.mean_of(total, divisor, x_NF, dtype, zero_on_empty=zero_on_empty)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Any, ...]:
        x_NF, weight, *rest = ctx.saved_tensors
        bias = rest[0] if ctx.has_bias else None
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            with torch.enable_grad():
                leaves = [t for t, asked in zip((x_NF, weight, bias), wanted, strict=True) if asked]
                loss = _loss_of_pair(x_NF, weight, bias, ctx.layer)
                found = iter(torch.autograd.grad(loss, leaves, grad_output, create_graph=True))
            return (*(next(found) if asked else None for asked in wanted), None)
        if ctx.layer.settings.reduction == "none":
            _, gradients = _gradients(x_NF, weight, bias, ctx.layer, wanted, 1.0, grad_output)
            return (*gradients, None)
        # Handed out once: what a caller does to them is the caller's own.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = _gradients(x_NF, weight, bias, ctx.layer, wanted, ctx.scale)
        gradients = tuple(g if g is None else _scaled(g, grad_output) for g in gradients)
        return (*gradients, None)


def _chunks(
    x_NF: Tensor, weight: Tensor, bias: Tensor | None, layer: _Layer, among: slice = _ALL
) -> Iterator[tuple[slice, Tensor, kernels.Run]]:
    """Rows, their logits (n, C, d1, ...) in memory of their own, and the cross-entropy kernel over them."""
    wide = _WIDE.get(x_NF.dtype, x_NF.dtype)
    weight_OF = weight.flatten(0, -2)
    weight_OF = weight_OF if _multiplies_halves(x_NF) else weight_OF.to(wide)
    bias_O = None if bias is None else bias.flatten().to(wide)
    start, stop, _ = among.indices(x_NF.shape[0])
    for first in range(start, stop, layer.rows_a_chunk):
        rows = slice(first, min(first + layer.rows_a_chunk, stop))
        logits_nO = _product(x_NF[rows], weight_OF.T, bias_O)
        logits = logits_nO.reshape(-1, *layer.outputs)
        target = layer.target[rows]
        yield rows, logits, partial(kernels.run_softmax, pair.FORMULA, layer.settings, logits, target)
        del logits, logits_nO  # before the next are made; whoever was given them lets go too


def _features(x_NF: Tensor, layer: _Layer, rows: slice) -> Tensor:
    """Rows of the input, without what ignored ones hold: 0 times a NaN would be NaN."""
    features, target = x_NF[rows], layer.target[rows]
    if target.is_floating_point():
        return features
    ignored = (target == layer.settings.ignore_index).reshape(len(target), -1).all(1)
    if not runs_on(x_NF) and not ignored.any():
        return features
    return torch.where(ignored.unsqueeze(1), 0.0, features).to(features.dtype)


def _multiplies_halves(x_NF: Tensor) -> bool:
    """Whether products are taken of bfloat16 numbers, as only a GPU's own units do quickly; sums are float32."""
    return x_NF.dtype == torch.bfloat16 and runs_on(x_NF)


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a b + bias``, in float32 where the factors are halves: rounded no further than float32's sum is."""
    wide = _WIDE.get(a.dtype, a.dtype)
    if not a.is_cuda or b.dtype == wide:
        a, b = a.to(wide), b.to(wide)
        return a @ b if bias is None else torch.addmm(bias, a, b)
    found = torch.mm(a, b, out_dtype=wide)
    return found if bias is None else found.add_(bias)


def _gradients(
    x_NF: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layer: _Layer,
    wanted: tuple[bool, ...],
    scale: kernels.Sum,
    of_rows: Tensor | None = None,
) -> tuple[kernels.Sum, tuple[Tensor | None, ...]]:
    """The summed loss, and its gradients times ``scale`` (times ``of_rows``, row by row) by input, weight and bias."""
    if _multiplies_halves(x_NF):
        return _gradients_of_halves(x_NF, weight, bias, layer, wanted, scale, of_rows)
    by_input = torch.empty_like(x_NF) if wanted[0] else None
    # Added up in place, chunk by chunk: a few roundings more than one product over all rows, and no memory more.
    outputs = math.prod(layer.outputs)
    wide = _WIDE.get(x_NF.dtype, x_NF.dtype)
    by_weight = x_NF.new_zeros((outputs, x_NF.shape[1]), dtype=wide) if wanted[1] else None
    by_bias = x_NF.new_zeros(outputs, dtype=torch.float64) if wanted[2] else None
    sums = []
    for rows, logits, run in _chunks(x_NF, weight, bias, layer):
        sums.append(run(logits, cpu_losses.GRADIENT, scale))  # written over the logits
        if of_rows is not None:
            logits *= of_rows[rows].unsqueeze(1)
        slopes_nO = logits.flatten(1)
        if by_input is not None:
            by_input[rows] = slopes_nO @ weight.flatten(0, -2).to(slopes_nO.dtype)
        if by_weight is not None:
            by_weight.addmm_(slopes_nO.T, _features(x_NF, layer, rows).to(wide))
        if by_bias is not None:
            by_bias += slopes_nO.sum(0, dtype=torch.float64)
        del logits, slopes_nO, run
    return _sum(sums), (by_input, _like(weight, by_weight), _like(bias, by_bias))


def _gradients_of_halves(
    x_NF: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layer: _Layer,
    wanted: tuple[bool, ...],
    scale: kernels.Sum,
    of_rows: Tensor | None,
) -> tuple[kernels.Sum, tuple[Tensor | None, ...]]:
    """The same on a GPU in bfloat16: the slopes of many rows are kept in it, for few and large products.

    Sums of products are float32 and never rounded to halves in between: of more rows than one block has, the weight's
    gradient is added up in float32. A block is as large as that sum would be.
    """
    num_rows, features = x_NF.shape
    weight_OF = weight.flatten(0, -2)
    outputs = len(weight_OF)
    rows_a_block = max(layer.rows_a_chunk, _ROWS_A_FEATURE * features)
    by_input = torch.empty_like(x_NF) if wanted[0] else None
    by_weight: Tensor | None = None
    by_bias = x_NF.new_zeros(outputs, dtype=torch.float64) if wanted[2] else None
    is_plain = by_bias is None and of_rows is None  # nothing needs the slopes before they are rounded
    sums = []
    for start in range(0, num_rows, rows_a_block):
        block = slice(start, min(start + rows_a_block, num_rows))
        slopes_nO = x_NF.new_empty((block.stop - start, outputs))
        for rows, logits, run in _chunks(x_NF, weight, bias, layer, block):
            own = slopes_nO[rows.start - start : rows.stop - start]
            if is_plain:
                sums.append(run(own, cpu_losses.GRADIENT, scale))
                del logits, run
                continue
            sums.append(run(logits, cpu_losses.GRADIENT, scale))
            if of_rows is not None:
                logits *= of_rows[rows].unsqueeze(1)
            own.copy_(logits.flatten(1))
            if by_bias is not None:
                by_bias += logits.flatten(1).sum(0, dtype=torch.float64)
            del logits, run
        if by_input is not None:
            torch.mm(slopes_nO, weight_OF, out=by_input[block])
        if wanted[1] and num_rows <= rows_a_block:
            by_weight = torch.mm(slopes_nO.T, _features(x_NF, layer, block))
        elif wanted[1]:
            by_weight = _added(by_weight, slopes_nO.T, _features(x_NF, layer, block))
        del slopes_nO
    return _sum(sums), (by_input, _like(weight, by_weight), _like(bias, by_bias))


def _like(parameter: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """A gradient in its parameter's type and shape."""
    if parameter is None or gradient is None:
        return None
    return gradient.to(parameter.dtype).reshape(parameter.shape)


def _added(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """``total + a b`` in float32, in place, of halves."""
    if total is None:
        return _product(a, b)
    if not a.is_cuda:
        return total.addmm_(a.float(), b.float())
    return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)


def _scaled(gradient: Tensor, by: Tensor) -> Tensor:
    """Times a single number, in place; where that is 1, which a GPU finds out itself, nothing is touched."""
    if runs_on(gradient):
        from steepest.backends import cuda_losses

        return cuda_losses.scale_in_place(gradient, by)
    if not is_concrete(by):
        return (gradient * by).to(gradient.dtype)
    return gradient if float(by) == 1.0 else gradient.mul_(by.to(gradient.dtype))


def _sum(parts: list[Any]) -> kernels.Sum:
    if isinstance(parts[0], Tensor):
        return torch.stack(parts).sum()
    return math.fsum(parts) if all(map(math.isfinite, parts)) else sum(parts)


class LinearCrossEntropyLoss(LossModule, getattr(nn, "LinearCrossEntropyLoss", _WeightedLoss)):  # type: ignore[misc]
    """A linear layer and the cross-entropy of its outputs in one; drop-in for torch's of the same name.

    ``-sum_c w_c q_c log softmax(W x + b)_c``, as :class:`torch.nn.Linear` followed by
    :class:`CrossEntropyLoss`. The logits exist for a few rows at a time only: loss and gradients are made chunk by
    chunk, so memory grows with the parameters and the input, not with rows times classes.

    Args:
        in_features: the length F of a row.
        num_classes: the number C of classes.
        out_features: further dimensions (d1, ...) of a K-dimensional loss; every place has logits of its own.
        bias: learn a bias too.
        device, dtype: of the layer's parameters, ``linear.weight`` and ``linear.bias``.
        reduction: ``"none"``, ``"mean"`` or ``"sum"``.
        weight: a factor for every class, shape (C,).
        ignore_index: rows with this class index give no loss and no gradient; ``None`` stands for -100.
        label_smoothing: the share of every target spread evenly over all classes, in [0, 1].
        options: torch's ``LinearCrossEntropyOptions``, of which ``batch_chunk_size`` is heeded; the rest is about
            torch's own way. Chunks are used with and without it.
        switches: see :class:`~steepest.losses.switches.Switches`.

    Shapes: input (F,) or (N, F); targets () or (N, d1, ...), integers of any width, or probabilities (C,) or
    (N, C, d1, ...).

    Raises:
        InputError: shapes that do not belong together, or ``label_smoothing`` outside [0, 1].
        IndexError: a class index out of range.

    Numerics: exact in both tails, as :class:`CrossEntropyLoss`; the weight's gradient is added up from chunk to chunk
    in its own type, that of half types in float32. On a GPU bfloat16 is multiplied as it is and summed in float32, and
    the logits' slopes are rounded to it in between, as torch's are; so it is under autocast to bfloat16, with the loss
    in float32. A second backward pass recomputes the gradients; second derivatives, ``torch.func`` and
    ``torch.compile`` make all logits at once.

    Source: Hsu et al. 2024 (FusedLinearCrossEntropy); Bishop 2006, eq. 4.108.

    >>> import torch
    >>> loss = LinearCrossEntropyLoss(2, 3)
    >>> with torch.no_grad():
    ...     _ = loss.linear.weight.zero_()
    ...     value = loss(torch.ones(4, 2), torch.tensor([0, 1, 2, 0]))
    >>> round(float(value), 6)
    1.098612
    """

    formula = FORMULA
    linear: nn.Linear

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        out_features: tuple[int, ...] = (),
        bias: bool = False,
        device: Any = None,
        dtype: Any = None,
        reduction: str = "mean",
        weight: Tensor | None = None,
        ignore_index: int | None = None,
        label_smoothing: float = 0.0,
        options: Any = None,
        **switches: Unpack[Switches],
    ) -> None:
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise InputError(
                f"linear_cross_entropy: weight has shape {tuple(weight.shape)}; it must be ({num_classes},)."
            )
        if not 0.0 <= label_smoothing <= 1.0:
            raise InputError(
                f"linear_cross_entropy: label_smoothing is {label_smoothing}; it must lie in [0, 1]."
            )
        # Not torch's own constructor, which older versions lack.
        _WeightedLoss.__init__(self, weight, None, None, reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.options = options
        self.linear = nn.Linear(in_features, math.prod(out_features, start=num_classes), bias, device, dtype)
        self._set_switches(switches)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        outputs = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input,
            self.linear.weight.reshape(*outputs, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(outputs),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
            **self.switches,
        )

"""Higher derivatives, ``torch.func`` and ``torch.compile``, for every loss of the registry."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.fx.experimental.proxy_tensor import make_fx

from steepest.losses import (
    LOSSES,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    DiceLoss,
    GaussianNLLLoss,
    HuberLoss,
    LinearCrossEntropyLoss,
    MSELoss,
    NLLLoss,
)

from .backends import COMPILED
from .samples import generator, parameters_of, pointwise_samples

# kl_div says, as torch does, that its mean is over elements and not over the batch.
pytestmark = pytest.mark.filterwarnings("ignore:reduction:UserWarning")

REDUCTIONS = ("none", "mean", "sum")


def smooth_points(name: str) -> tuple[Tensor, Tensor]:
    """A few inputs in float64 at which the loss is smooth: away from ties and from a threshold's bend."""
    formula = LOSSES[name].formula
    if formula.family == "softmax":
        rng = generator(name, "smooth")
        return torch.tensor(rng.normal(size=(4, 3))), torch.tensor(rng.integers(0, 3, 4))
    predictions, targets = pointwise_samples(formula, "float64", tails=False)
    apart = (predictions - targets).abs()
    smooth = apart > 0.1
    if "delta" in formula.parameters:
        smooth &= (apart - parameters_of(formula)[0]).abs() > 0.1
    return predictions[smooth][:8], targets[smooth][:8]


def loss_of(name: str, reduction: str = "mean") -> Callable[[Tensor, Tensor], Tensor]:
    return LOSSES[name](reduction=reduction)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_gradcheck_and_gradgradcheck(name: str, reduction: str) -> None:
    predictions, targets = smooth_points(name)
    leaf = predictions.requires_grad_()
    function = lambda x: loss_of(name, reduction)(x, targets)  # noqa: E731
    assert gradcheck(function, (leaf,))
    assert gradgradcheck(function, (leaf,))


@pytest.mark.parametrize("name", COMPILED)
def test_the_fused_gradient_and_its_differentiable_form_agree(name: str) -> None:
    predictions, targets = smooth_points(name)
    leaf = predictions.requires_grad_()
    loss = loss_of(name)(leaf, targets)
    assert "Fused" in type(loss.grad_fn).__name__
    (fused,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (differentiable,) = torch.autograd.grad(loss, leaf, create_graph=True)
    torch.testing.assert_close(fused, differentiable.detach(), rtol=1e-14, atol=1e-17)


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("name", COMPILED)
def test_func_grad_and_hessian(name: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name)
    leaf = predictions.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, targets), leaf)
    torch.testing.assert_close(torch.func.grad(loss)(predictions, targets), expected, rtol=1e-14, atol=1e-17)
    hessian = torch.func.hessian(loss)(predictions, targets)
    reverse = torch.autograd.functional.hessian(lambda x: loss(x, targets), predictions)
    torch.testing.assert_close(hessian, reverse, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_vmap(name: str, reduction: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name, reduction)
    stacked = torch.stack([predictions, predictions * 0.5, predictions * 0.25])
    wanted = targets.expand(3, *targets.shape)
    together = torch.vmap(loss)(stacked, wanted)
    alone = torch.stack([loss(x, t) for x, t in zip(stacked, wanted, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=1e-17)
    gradients = torch.vmap(torch.func.grad(lambda x, t: loss(x, t).sum()))(stacked, wanted)
    leaf = stacked.clone().requires_grad_()
    sum(loss(x, t).sum() for x, t in zip(leaf, wanted, strict=True)).backward()
    torch.testing.assert_close(gradients, leaf.grad, rtol=1e-13, atol=1e-16)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_as_one_graph(name: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    results = []
    for function in (loss, compiled):
        leaf = predictions.clone().requires_grad_()
        value = function(leaf, targets)
        results.append((value.detach(), *torch.autograd.grad(value, leaf)))
    for ours, its in zip(*results, strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-14, atol=1e-17)


# --- the operators a compiled graph calls ----------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("with_gradient", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_operators_keep_torchs_rules(reduction: str, with_gradient: bool) -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_(with_gradient)
    y = torch.zeros(4, 3, dtype=torch.float64)
    delta = HuberLoss.formula.key
    torch.library.opcheck(torch.ops.steepest.pointwise_loss, (x, y, delta, [0.7], reduction, with_gradient))
    for target in (torch.tensor([0, 2, -100, 1]), torch.full((4, 3), 1 / 3, dtype=torch.float64)):
        torch.library.opcheck(
            torch.ops.steepest.softmax_loss,
            (x, target, CrossEntropyLoss.formula.key, [], -100, 0.1, reduction, False, with_gradient),
        )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["huber", "bce", "cross_entropy"])
def test_a_compiled_loss_calls_the_fused_kernel(name: str, reduction: str) -> None:
    """In float32 too: where the reference would be compiled instead, the kernel's one rounding would be lost."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph

    predictions, targets = smooth_points(name)
    predictions = predictions.detach().float().requires_grad_()
    targets = targets.float() if targets.is_floating_point() else targets
    compiled = torch.compile(loss_of(name, reduction), backend=backend, fullgraph=True)
    value, plain = compiled(predictions, targets), loss_of(name, reduction)(predictions, targets)
    assert any(word.startswith("steepest.") for word in seen), seen
    assert torch.equal(value, plain)
    upstream = torch.linspace(-1, 2, value.numel()).reshape(value.shape)
    gradients = [torch.autograd.grad(result, predictions, upstream)[0] for result in (value, plain)]
    assert torch.equal(*gradients)


# --- forward mode ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"
)  # torch's own rules forwards
@pytest.mark.parametrize("name", COMPILED)
def test_a_derivative_taken_forwards_is_the_one_taken_backwards(name: str) -> None:
    predictions, targets = smooth_points(name)
    direction = torch.linspace(0.5, 2.0, predictions.numel(), dtype=torch.float64).reshape(predictions.shape)
    leaf = predictions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(name)(leaf, targets), leaf)
    with forward_ad.dual_level():
        dual = loss_of(name)(forward_ad.make_dual(predictions, direction), targets)
        tangent = forward_ad.unpack_dual(dual).tangent
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_shapes_are_told_where_there_are_no_numbers(name: str, reduction: str) -> None:
    predictions, targets = smooth_points(name)
    loss = loss_of(name, reduction)
    there, here = loss(predictions.to("meta"), targets.to("meta")), loss(predictions, targets)
    assert (there.shape, there.dtype, there.is_meta) == (here.shape, here.dtype, True)


def test_variances_without_numbers_are_not_looked_at() -> None:
    mean, target, variance = torch.empty(3, 4, 2, device="meta")
    assert GaussianNLLLoss(reduction="none")(mean, target, variance).shape == (4, 2)


# What goes other ways than a loop does: derivatives of derivatives, transforms, targets of other types.


def penalty(loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, target: Tensor) -> Tensor:
    """The slope of a squared gradient, as a gradient penalty has it."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(x.tanh(), target), x, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), x)[0]


ROWS, CLASSES = torch.linspace(-2, 2, 18).reshape(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
PAIRS = [(MSELoss(), nn.MSELoss(), ROWS.flip(0)), (CrossEntropyLoss(), nn.CrossEntropyLoss(), CLASSES)]


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The .grad attribute"
)  # of torch's own tracer
@pytest.mark.parametrize(("ours", "theirs", "target"), PAIRS)
def test_a_compiled_loss_has_all_its_derivatives(ours: nn.Module, theirs: nn.Module, target: Tensor) -> None:
    compiled = torch.compile(ours, backend="eager")
    torch.testing.assert_close(penalty(compiled, ROWS, target), penalty(theirs, ROWS, target))
    expected = torch.func.grad(lambda x: theirs(x, target))(ROWS)
    inside = torch.compile(torch.func.grad(lambda x: ours(x, target)), backend="eager")
    outside = torch.func.grad(torch.compile(lambda x: ours(x, target), backend="eager"))
    forwards = torch.compile(
        lambda x: torch.func.jvp(lambda z: ours(z, target), (x,), (x,))[1], backend="eager"
    )
    torch.testing.assert_close(inside(ROWS), expected)
    torch.testing.assert_close(outside(ROWS), expected)
    torch.testing.assert_close(forwards(ROWS), (expected * ROWS).sum())


class _Exported(nn.Module):
    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.loss(x, target)
        return loss


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's own tracer
@pytest.mark.parametrize(("ours", "theirs", "target"), PAIRS)
def test_an_exported_loss_has_a_gradient_that_nobody_asked_for_then(
    ours: nn.Module, theirs: nn.Module, target: Tensor
) -> None:
    program = torch.export.export(_Exported(ours), (ROWS, target)).module()
    slopes = []
    for loss in (program, theirs):
        x = ROWS.clone().requires_grad_()
        loss(x, target).backward()
        slopes.append(x.grad)
    torch.testing.assert_close(slopes[0], slopes[1])


WRONG = torch.tensor([0, 1, -1, 2, 0, 0])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("way", ["compiled half", "compiled, weighted", "grad", "vmap"])
def test_a_class_that_is_none_is_an_error_where_nothing_is_looked_at(way: str, wrong: int) -> None:
    target = torch.where(WRONG == -1, wrong, WRONG)
    loss = CrossEntropyLoss()
    ways: dict[str, Callable[[], object]] = {
        "compiled half": lambda: torch.compile(loss, backend="eager")(ROWS.bfloat16(), target),
        "compiled, weighted": lambda: torch.compile(CrossEntropyLoss(torch.ones(3)), backend="eager")(ROWS, target),
        "grad": lambda: torch.func.grad(lambda x: loss(x, target))(ROWS),
        "vmap": lambda: torch.func.vmap(loss)(ROWS[None], target[None]),
    }  # fmt: skip
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        ways[way]()


@pytest.mark.parametrize(("ours", "theirs", "target"), PAIRS)
def test_many_gradients_at_once(ours: nn.Module, theirs: nn.Module, target: Tensor) -> None:
    found = []
    for loss in (ours, theirs):
        x = ROWS.clone().requires_grad_()
        factors = torch.tensor([1.0, 2.0])
        found.append(torch.autograd.grad(loss(x, target), x, factors, is_grads_batched=True)[0])
        whole = torch.autograd.functional.jacobian(lambda z, loss=loss: loss(z, target), x, vectorize=True)
        found.append(whole)
    torch.testing.assert_close(found[:2], found[2:])


def test_weights_that_were_changed_since_are_noticed() -> None:
    weight, x = torch.ones(3), ROWS.clone().requires_grad_()
    losses = (
        CrossEntropyLoss(weight, reduction="none"),
        BCEWithLogitsLoss(weight, reduction="none"),
        BCEWithLogitsLoss(pos_weight=weight, reduction="none"),
    )
    for loss in losses:
        target = CLASSES if isinstance(loss, CrossEntropyLoss) else torch.ones_like(ROWS)
        value = loss(x, target).sum()
        weight.add_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_what_an_ignored_row_holds_stays_out_of_the_layer(outputs: tuple[int, ...]) -> None:
    x = torch.linspace(-1, 1, 24).reshape(6, 4)
    x[3] = float("nan")
    target = torch.tensor([0, 1, 2, -100, 1, 0])
    if outputs:
        target = target.unsqueeze(1).expand(6, *outputs).contiguous()
    loss = LinearCrossEntropyLoss(4, 3, out_features=outputs, bias=True)
    loss(x, target).backward()
    weight = loss.linear.weight.grad.clone()
    loss.zero_grad()
    kept = torch.arange(6) != 3
    loss(x[kept], target[kept]).backward()
    torch.testing.assert_close(weight, loss.linear.weight.grad)


@pytest.mark.parametrize("logits", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shares", [torch.bfloat16, torch.float32, torch.float64])
def test_probabilities_wider_than_the_logits_widen_the_loss(logits: torch.dtype, shares: torch.dtype) -> None:
    x, q = ROWS.to(logits, copy=True).requires_grad_(), ROWS.softmax(1).to(shares)
    ours, theirs = CrossEntropyLoss()(x, q), nn.CrossEntropyLoss()(x.double(), q.double())
    assert ours.dtype == nn.CrossEntropyLoss()(x, q).dtype
    torch.testing.assert_close(ours, theirs.to(ours.dtype))
    assert torch.autograd.grad(ours, x)[0].dtype == logits


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_a_compiled_mean_of_nothing(on_empty: str) -> None:
    loss = MSELoss(normalizer=torch.tensor(0.0), on_empty=on_empty)
    nothing = torch.compile(loss, backend="eager")(torch.ones(3), torch.ones(3))
    assert nothing.isnan() if on_empty == "nan" else nothing == 0.0
    dice = torch.compile(DiceLoss(on_empty=on_empty), backend="eager")
    for rows in (8, 9):  # another size is a size that varies
        assert dice(torch.ones(rows, 5), torch.zeros(rows, 5)) > 0.9


@pytest.mark.parametrize("size", [4, 40_000])
@pytest.mark.parametrize(
    "name", ["mse", "mae", "huber", "bce", "bce_probability", "cross_entropy", "nll", "kl_div"]
)
def test_make_fx_writes_down_the_loss_and_no_number(name: str, size: int) -> None:
    def draw(k: int) -> tuple[Tensor, Tensor]:
        random = torch.Generator().manual_seed(k)
        if name in ("cross_entropy", "nll"):
            x = torch.randn(size, 3, generator=random).log_softmax(1)
            return x, torch.randint(0, 3, (size,), generator=random)
        return torch.rand(size, generator=random), torch.rand(size, generator=random)

    loss = LOSSES[name]()
    traced = make_fx(lambda x, y: loss(x, y))(*draw(0))
    with_gradient = make_fx(lambda x, y: torch.autograd.grad(loss(x, y), x)[0])(
        draw(0)[0].requires_grad_(), draw(0)[1]
    )
    x, y = draw(1)
    torch.testing.assert_close(traced(x, y), loss(x, y))
    x.requires_grad_()
    torch.testing.assert_close(with_gradient(x, y), torch.autograd.grad(loss(x, y), x)[0])


def test_a_linear_losss_gradient_can_be_differentiated() -> None:
    x = torch.randn(4, 3).log_softmax(1).requires_grad_()
    (gradient,) = torch.autograd.grad(NLLLoss()(x, torch.tensor([0, 1, 2, 0])), x, create_graph=True)
    (second,) = torch.autograd.grad((gradient**2).sum(), x)
    assert not second.any()


NAN, INF = float("nan"), float("inf")
EDGES = {  # where a derivative of the value's own operations would be another one than the kernel's
    "bce_probability": ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5], [0.0, 0.25, 1.0, 0.0, 0.25, 1.0, 1.0]),
    "mae": ([NAN, 1.0, 1.0, -INF, INF], [1.0, NAN, 1.0, 1.0, 1.0]),
    "quantile": ([NAN, 1.0, 1.0, -INF, INF], [1.0, NAN, 1.0, 1.0, 1.0]),
    "cross_entropy": ([[INF, 0.0, 0.0], [INF, -INF, 0.0], [INF, INF, 0.0], [-INF, 0.0, 0.0]], [0, 2, 1, 1]),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges_are_the_kernels_on_every_way(name: str) -> None:
    x, target = map(torch.tensor, EDGES[name])
    loss = LOSSES[name](reduction="none")

    def value_and_slope(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        value = loss(x, target)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    wanted = value_and_slope(x, target)
    slope = torch.func.grad(lambda x: loss(x, target).sum())(x)
    torch.testing.assert_close((loss(x, target), slope), wanted, equal_nan=True)
    half = value_and_slope(x.bfloat16(), target.bfloat16() if target.is_floating_point() else target)
    torch.testing.assert_close(half, tuple(t.bfloat16() for t in wanted), equal_nan=True)


@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
def test_vmap_over_single_rows_with_classes_weights(cls: type[nn.Module]) -> None:
    loss, x = cls(weight=torch.tensor([1.0, 2.0, 3.0]), reduction="none"), ROWS.log_softmax(1)
    target = torch.arange(len(x)) % 3
    of_each = torch.vmap(torch.func.grad(loss))(x, target)
    torch.testing.assert_close(of_each, torch.func.grad(lambda x: loss(x, target).sum())(x))

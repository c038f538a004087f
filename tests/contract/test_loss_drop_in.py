"""Every loss as a drop-in for the torch class of its name: arguments, results, shapes, types, and its errors."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest import losses
from steepest.bench.losses import draw, loss_of
from steepest.errors import InputError
from steepest.losses import LOSSES, functional

from .backends import COMPILED, POINTWISE
from .samples import DTYPES, generator, parameters_of, pointwise_samples
from .truth import pointwise_truth, ulps_off

# kl_div says, as torch does, that its mean is over elements and not over the batch.
pytestmark = pytest.mark.filterwarnings("ignore:reduction:UserWarning")

REDUCTIONS = ("none", "mean", "sum")
WITH_PEER = [name for name in COMPILED if hasattr(nn, LOSSES[name].__name__)]
# What torch itself rounds away on inputs well inside the range: a few units in the last place, and as much
# again, absolutely, where its terms cancel (binary cross-entropy adds x (1 - y) and a logarithm).
CLOSE = {"float32": {"rtol": 2e-6, "atol": 2e-6}, "float64": {"rtol": 4e-15, "atol": 4e-15}}


def peer_of(name: str) -> type[nn.Module]:
    peer: type[nn.Module] = getattr(nn, LOSSES[name].__name__)
    return peer


def ordinary(name: str, dtype: str) -> tuple[Tensor, Tensor]:
    """Predictions and targets well inside the range."""
    if LOSSES[name].formula.family == "pointwise":
        return pointwise_samples(LOSSES[name].formula, dtype, tails=False)
    rng = generator(name, dtype)
    return torch.tensor(rng.normal(size=(60, 5)) * 2).to(DTYPES[dtype]), torch.tensor(rng.integers(0, 5, 60))


def value_and_gradient(
    loss: Callable[..., Tensor], predictions: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    leaf = predictions.detach().clone().requires_grad_()
    result = loss(leaf, targets)
    # An upstream gradient that differs from element to element.
    result.backward(torch.linspace(0.5, 2.0, result.numel(), dtype=result.dtype).reshape(result.shape))
    assert leaf.grad is not None
    return result.detach(), leaf.grad


LEGACY = [(True, None, "mean"), (False, None, "sum"), (None, False, "none")]  # torch's deprecated words


# --- the same class, the same arguments ----------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_PEER)
def test_is_torchs_class_with_torchs_arguments(name: str) -> None:
    ours, theirs = LOSSES[name], peer_of(name)
    assert isinstance(ours(), theirs)
    mine = inspect.signature(ours).parameters
    for position, (word, parameter) in enumerate(inspect.signature(theirs).parameters.items()):
        assert list(mine)[position] == word
        assert mine[word].default == parameter.default
        assert mine[word].kind == parameter.kind
    extra = list(mine.values())[len(inspect.signature(theirs).parameters) :]
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert all(parameter.kind in by_keyword for parameter in extra)


@pytest.mark.parametrize("word", [word for word in functional.__all__ if hasattr(nn.functional, word)])
def test_the_function_takes_torchs_arguments(word: str) -> None:
    mine = inspect.signature(getattr(functional, word)).parameters
    theirs = inspect.signature(getattr(nn.functional, word)).parameters
    for position, (argument, parameter) in enumerate(theirs.items()):
        assert list(mine)[position] == argument
        assert mine[argument].default == parameter.default


@pytest.mark.parametrize("name", COMPILED)
def test_copies_and_prints_as_a_module(name: str) -> None:
    loss = LOSSES[name]()
    again = copy.deepcopy(loss)
    assert type(again) is type(loss)
    again.load_state_dict(loss.state_dict())
    assert repr(again) == repr(loss)
    predictions, targets = ordinary(name, "float32")
    assert torch.equal(again(predictions, targets), loss(predictions, targets))


@pytest.mark.parametrize(("size_average", "reduce", "reduction"), LEGACY)
@pytest.mark.parametrize(
    "name", [n for n in WITH_PEER if "size_average" in inspect.signature(LOSSES[n]).parameters]
)
def test_deprecated_arguments_keep_their_meaning(
    name: str, size_average: Any, reduce: Any, reduction: str
) -> None:
    with pytest.warns(UserWarning, match="deprecated"):
        loss = LOSSES[name](size_average=size_average, reduce=reduce)
    assert loss.reduction == reduction


# --- the same results ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", WITH_PEER)
def test_equals_torch_well_inside_the_range(name: str, reduction: str, dtype: str) -> None:
    predictions, targets = ordinary(name, dtype)
    options = {
        word: value * 0.7 for word, value in LOSSES[name].formula.parameters.items() if word != "pos_weight"
    }
    ours = value_and_gradient(LOSSES[name](reduction=reduction, **options), predictions, targets)
    theirs = value_and_gradient(peer_of(name)(reduction=reduction, **options), predictions, targets)
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.dtype == its.dtype
        torch.testing.assert_close(mine, its, **CLOSE[dtype])
    with torch.no_grad():  # without a gradient the value takes another way through the kernel
        value = LOSSES[name](reduction=reduction, **options)(predictions, targets)
    assert torch.equal(value, ours[0])


WEIGHTED = [
    ("bce", {"weight": (6,)}),
    ("bce", {"weight": (10, 1)}),
    ("bce", {"pos_weight": (6,)}),
    ("bce", {"pos_weight": (1,)}),
    ("bce", {"weight": (6,), "pos_weight": (6,)}),
    ("bce_probability", {"weight": (6,)}),
    ("bce_probability", {"weight": (10, 6)}),
]


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "shapes"), WEIGHTED)
def test_weights_equal_torch(
    name: str, shapes: dict[str, tuple[int, ...]], reduction: str, dtype: str
) -> None:
    predictions, targets = (part[:60].reshape(10, 6) for part in ordinary(name, dtype))
    rng = generator(name, shapes)
    weights = {
        word: torch.tensor(rng.uniform(0.1, 3, shape)).to(DTYPES[dtype]) for word, shape in shapes.items()
    }
    ours = value_and_gradient(LOSSES[name](reduction=reduction, **weights), predictions, targets)
    theirs = value_and_gradient(peer_of(name)(reduction=reduction, **weights), predictions, targets)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, **CLOSE[dtype])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("word", ["mse_loss", "l1_loss", "huber_loss"])
def test_functional_weights_equal_torch(word: str, reduction: str) -> None:
    rng = generator(word)
    predictions, targets = (torch.tensor(rng.normal(size=(7, 3))) for _ in range(2))
    weight = torch.tensor(rng.uniform(0.1, 3, (7, 3)))
    ours = getattr(functional, word)(predictions, targets, reduction=reduction, weight=weight)
    theirs = getattr(nn.functional, word)(predictions, targets, reduction=reduction, weight=weight)
    if (
        reduction == "mean"
    ):  # torch divides by the sum of the weights in one of these and by the count in others
        plain = getattr(nn.functional, word)(predictions, targets, reduction="none") * weight
        theirs = theirs if torch.allclose(ours, theirs) else plain.mean()
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


# torch has no such gradient of the soft margin and of a hinge of distances; of the divergence it has NaN where the
# target is 0, and ours is held in test_losses_of_torch.py.
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in WITH_PEER
        if name in POINTWISE and name not in ("soft_margin", "hinge_embedding", "kl_div")
    ],
)
def test_the_gradient_by_the_target_equals_torchs(name: str) -> None:
    """Label smoothing, distillation and mixing learn through targets; 0 and 1 are the ones that matter."""
    predictions, targets = ordinary(name, "float64")
    gradients = []
    for loss in (LOSSES[name](), peer_of(name)()):
        leaf = targets.clone().requires_grad_()
        gradients += torch.autograd.grad(loss(predictions, leaf), leaf)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-13, atol=1e-17)


# --- shapes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("name", COMPILED)
def test_layout_does_not_matter(name: str, dtype: str, reduction: str) -> None:
    """Transposed, strided and expanded inputs give what their contiguous copies give, bit by bit."""
    predictions, targets = ordinary(name, dtype)
    loss = LOSSES[name](reduction=reduction)
    if LOSSES[name].formula.family == "softmax":
        strided = torch.stack([predictions, predictions * 0 - 7], dim=2)[:, :, 0]
        pairs = [(predictions.t().contiguous().t(), targets), (strided, targets.repeat_interleave(2)[::2])]
        pairs += [(predictions[:1].expand(9, -1), targets[:9])]
    else:
        grid = predictions[:60].reshape(5, 12), targets[:60].reshape(5, 12)
        pairs = [(grid[0].t(), grid[1].t()), (grid[0][::2, ::3], grid[1][::2, ::3])]
        pairs += [(grid[0][:, :1].expand(-1, 12), grid[1]), (grid[0].t(), grid[1].t().contiguous())]
    for scattered, wanted in pairs:
        ours = value_and_gradient(loss, scattered, wanted)
        plain = value_and_gradient(loss, scattered.contiguous(), wanted.contiguous())
        assert all(torch.equal(mine, its) for mine, its in zip(ours, plain, strict=True))


@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (2, 3, 4), (1, 2, 1, 3, 2)])
@pytest.mark.parametrize("name", POINTWISE)
def test_any_number_of_dimensions(name: str, shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    predictions, targets = (part[:count] for part in ordinary(name, "float64"))
    shaped = LOSSES[name](reduction="none")(predictions.reshape(shape), targets.reshape(shape))
    assert shaped.shape == shape
    assert torch.equal(shaped.flatten(), LOSSES[name](reduction="none")(predictions, targets))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [*CLOSE, "bfloat16"])
@pytest.mark.parametrize("name", COMPILED)
def test_empty_inputs_as_torch(name: str, dtype: str, reduction: str) -> None:
    softmax = LOSSES[name].formula.family == "softmax"
    predictions = torch.empty((0, 3), dtype=DTYPES[dtype], requires_grad=True)
    targets = torch.empty(0, dtype=torch.int64) if softmax else torch.empty((0, 3), dtype=DTYPES[dtype])
    result = LOSSES[name](reduction=reduction)(predictions, targets)
    expected = {"none": torch.empty(targets.shape), "mean": torch.tensor(math.nan), "sum": torch.tensor(0.0)}[
        reduction
    ]
    torch.testing.assert_close(result.float(), expected, equal_nan=True)
    if name in WITH_PEER:
        peer = peer_of(name)(reduction=reduction)(predictions, targets)
        torch.testing.assert_close(result, peer, equal_nan=True)
    result.backward(torch.ones_like(result))
    assert predictions.grad is not None
    assert predictions.grad.shape == (0, 3)


MISMATCHES = [((4, 1), (4,)), ((4,), (4, 1)), ((3, 2), (2, 3)), ((2,), ()), ((5,), (4,))]


@pytest.mark.parametrize(("given", "wanted"), MISMATCHES)
@pytest.mark.parametrize("name", POINTWISE)
def test_unlike_shapes_are_refused_and_named(
    name: str, given: tuple[int, ...], wanted: tuple[int, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        LOSSES[name]()(torch.full(given, 0.5), torch.full(wanted, 0.5))
    assert str(given) in str(caught.value)
    assert str(wanted) in str(caught.value)
    assert "strict_shape=False" in str(caught.value)


@pytest.mark.parametrize("name", POINTWISE)
def test_shapes_broadcast_if_asked(name: str) -> None:
    predictions, targets = ordinary(name, "float64")
    loss = LOSSES[name](reduction="none", strict_shape=False)
    column, row = predictions[:4].reshape(4, 1), targets[:3]
    value, gradient = value_and_gradient(loss, column, row)
    full, full_gradient = value_and_gradient(loss, column.expand(4, 3), row.expand(4, 3))
    assert torch.equal(value, full)
    torch.testing.assert_close(gradient, full_gradient.sum(1, keepdim=True), rtol=1e-15, atol=1e-18)
    with pytest.raises(RuntimeError, match="must match"):
        loss(predictions[:4], targets[:3])


@pytest.mark.parametrize("name", COMPILED)
def test_an_unknown_reduction_is_refused(name: str) -> None:
    predictions, targets = ordinary(name, "float32")
    with pytest.raises(InputError, match="choose none, mean or sum"):
        LOSSES[name](reduction="average")(predictions, targets)


def test_values_outside_a_formulas_range_are_refused() -> None:
    some = torch.zeros(2)
    with pytest.raises(InputError, match="delta is -1"):
        functional.huber_loss(some, some, delta=-1.0)
    for quantile in (0.0, 1.0):
        with pytest.raises(InputError, match=r"must lie in \(0, 1\)"):
            functional.quantile_loss(some, some, quantile=quantile)
    for p in (-0.25, 1.5):
        with pytest.raises(InputError, match="probabilities lie in"):
            functional.binary_cross_entropy(torch.tensor([0.5, p]), some)


# --- types ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in WITH_PEER if name in POINTWISE])
def test_half_types_are_never_further_off_than_torch(name: str, dtype: str) -> None:
    """Values, gradients and means: at most torch's own error, or one rounding where torch was lucky."""
    formula = LOSSES[name].formula
    predictions, targets = pointwise_samples(formula, dtype, tails=False)
    values, gradients, _ = pointwise_truth(formula, predictions, targets, parameters_of(formula))
    mean = sum(values) / len(values)
    truths = {"none": (values, gradients), "mean": ([mean], [g / len(values) for g in gradients])}
    for reduction, expected in truths.items():
        upstream = 1.0
        results = []
        for cls in (LOSSES[name], peer_of(name)):
            leaf = predictions.clone().requires_grad_()
            loss = cls(reduction=reduction)(leaf, targets)
            loss.backward(torch.full_like(loss, upstream))
            assert leaf.grad is not None
            results.append((loss.detach().flatten().tolist(), leaf.grad.tolist()))
        for mine, its, truth in zip(*results, expected, strict=True):
            for a, b, t in zip(mine, its, truth, strict=True):
                assert ulps_off(a, t, dtype) <= max(ulps_off(b, t, dtype), 0.51), (reduction, a, b, float(t))


@pytest.mark.parametrize("name", COMPILED)
def test_float16_means_over_many_elements_are_finite(name: str) -> None:
    """The sum leaves float16's range, the mean does not."""
    predictions, targets = ordinary(name, "float16")
    copies = 4096
    many = (predictions.repeat(copies, *[1] * (predictions.dim() - 1)), targets.repeat(copies))
    loss = LOSSES[name]()
    assert torch.isfinite(loss(*many))
    torch.testing.assert_close(loss(*many), loss(predictions, targets), rtol=1e-3, atol=0)


# Not huber: torch's gives the input's type and drops the target's digits. Not the cross-entropies: torch refuses.
@pytest.mark.parametrize("name", ["mse", "mae"])
def test_mixed_types_promote_as_torch(name: str) -> None:
    predictions, targets = ordinary(name, "float32")
    ours, theirs = (
        LOSSES[name]()(predictions, targets.double()),
        peer_of(name)()(predictions, targets.double()),
    )
    assert ours.dtype == theirs.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


# --- the graph -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_the_graph_can_be_walked_again(name: str, reduction: str) -> None:
    """What a caller does to a gradient is the caller's own: the next backward pass gives it afresh."""
    predictions, targets = ordinary(name, "float64")
    leaf = predictions.clone().requires_grad_()
    loss = LOSSES[name](reduction=reduction)(leaf, targets)
    upstream = torch.ones_like(loss)
    (first,) = torch.autograd.grad(loss, leaf, upstream, retain_graph=True)
    kept = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, leaf, upstream, retain_graph=True)
    assert torch.equal(second, kept)
    for times in (1, 2, 3):
        loss.backward(upstream, retain_graph=True)
        torch.testing.assert_close(leaf.grad, kept * times, rtol=1e-15, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_inputs_are_never_written_to_and_changed_ones_are_noticed(name: str, reduction: str) -> None:
    predictions, targets = ordinary(name, "float32")
    before = predictions.clone(), targets.clone()
    leaf = (predictions * 1.0).requires_grad_()
    inner = leaf * 1.0
    loss = LOSSES[name](reduction=reduction)(inner, targets)
    assert torch.equal(inner.detach(), before[0])
    with torch.no_grad():
        inner.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.sum().backward()
    assert torch.equal(targets, before[1])


# --- mixed precision -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", COMPILED)
def test_under_autocast_a_loss_is_computed_in_float32(name: str, reduction: str, half: torch.dtype) -> None:
    """And by the kernel, which half types lack: as if the predictions had come in float32."""
    predictions, targets = (t.to(half) if t.is_floating_point() else t for t in ordinary(name, "float32"))
    loss = LOSSES[name](reduction=reduction)
    with torch.autocast("cpu", half):
        value, slope = value_and_gradient(loss, predictions, targets)
        assert "Fused" in type(loss(predictions.clone().requires_grad_(), targets).grad_fn).__name__
    wide = targets.float() if targets.is_floating_point() else targets
    expected, expected_slope = value_and_gradient(loss, predictions.float(), wide)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=0, atol=0)
    torch.testing.assert_close(slope, expected_slope.to(half), rtol=0, atol=0)


OF_WHOLE_TENSORS = {
    "NLLLoss": lambda x, c, y: (x.log_softmax(1), c),
    "MultiMarginLoss": lambda x, c, y: (x, c),
    "GaussianNLLLoss": lambda x, c, y: (x, y, torch.ones_like(y)),
    "MarginRankingLoss": lambda x, c, y: (x, y, x.sign()),
    "CosineEmbeddingLoss": lambda x, c, y: (x, y, c % 2 * 2 - 1),
    "TripletMarginLoss": lambda x, c, y: (x, y, y.roll(2, 0)),
    "MultiLabelMarginLoss": lambda x, c, y: (x.float(), torch.stack([c, -c - 1, c], 1).clamp(min=-1)),
}


@pytest.mark.parametrize("name", OF_WHOLE_TENSORS)
def test_under_autocast_a_loss_of_whole_tensors_is_float32_as_torchs(name: str) -> None:
    x = torch.tensor(generator("autocast").normal(size=(6, 3))).bfloat16()
    given = OF_WHOLE_TENSORS[name](x, torch.arange(6) % 3, x.roll(1, 0))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = getattr(losses, name)()(*given), getattr(nn, name)()(*given)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-2 if name == "GaussianNLLLoss" else 1e-6, atol=0)


def test_under_autocast_a_linear_layer_and_its_loss_are_float32() -> None:
    torch.manual_seed(0)
    loss, x, y = (
        losses.LinearCrossEntropyLoss(4, 3),
        torch.randn(6, 4, requires_grad=True),
        torch.arange(6) % 3,
    )
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(x, y)
    value.backward()
    assert value.dtype == x.grad.dtype == torch.float32  # type: ignore[union-attr]
    torch.testing.assert_close(value, loss(x, y), rtol=0, atol=0)


# --- what users do to a class ----------------------------------------------------------------------------------


def test_a_subclass_may_leave_the_constructor_out() -> None:
    class Bare(losses.MSELoss):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.reduction = "sum"

    assert float(Bare()(torch.ones(3), torch.zeros(3))) == 3.0


def drawn(word: str) -> tuple[Tensor, Tensor]:
    if word == "linear_cross_entropy":
        return torch.ones(4, 5), torch.tensor([0, 1, 2, 0])
    if word in ("dice", "tversky", "nll", "multi_margin"):
        return torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
    if word == "multilabel_margin":
        return torch.ones(4, 3), torch.tensor([[0, 1, -1]]).expand(4, 3)
    if word == "ctc":
        return torch.zeros(4, 1, 3), torch.tensor([[1, 2]])
    return draw(word, (4, 3))


def tensors_of(word: str) -> list[str]:
    """What a loss calls its tensors; a variance may be a number."""
    names = [
        name for name in inspect.signature(LOSSES[word].forward).parameters if name not in ("self", "var")
    ]
    if word == "ctc":  # lengths may be tuples
        return names[:2]
    return names if len(names) > 2 else ["input", "target"]


@pytest.mark.parametrize("kind", ["list", "ndarray", "NoneType", "sparse"])
@pytest.mark.parametrize(("word", "which"), [(word, name) for word in LOSSES for name in tensors_of(word)])
def test_what_is_no_dense_tensor_is_named(word: str, kind: str, which: str) -> None:
    is_linear = word == "linear_cross_entropy"
    loss: Any = losses.LinearCrossEntropyLoss(5, 3) if is_linear else loss_of(word, (4, 3))
    names = tensors_of(word)
    tensors = drawn(word) if len(names) == 2 else [torch.ones(4, 3)] * 3
    given: dict[str, Any] = dict(zip(names, tensors, strict=True))
    other: dict[str, Any] = {
        "list": given[which].tolist(),
        "ndarray": given[which].numpy(),
        "NoneType": None,
        "sparse": given[which].to_sparse(),
    }
    given[which] = other[kind]
    more: list[Any] = {"gaussian_nll": [torch.ones(4, 3)], "ctc": [(4,), (2,)]}.get(word, [])
    said = "is sparse" if kind == "sparse" else f"is of type {kind}; it must be a torch.Tensor"
    with pytest.raises(InputError, match=f"^[a-z0-9_]+: the {which} {said}"):
        loss(*given.values(), *more)


@pytest.mark.parametrize("word", ["hinge", "squared_hinge", "hinge_embedding", "gaussian_nll"])
def test_truth_values_are_no_targets_of_these(word: str) -> None:
    more = [torch.ones(3)] if word == "gaussian_nll" else []
    loss: Any = loss_of(word, (3,))
    with pytest.raises(InputError, match=f"^{word}: targets are torch.bool; they are "):
        loss(torch.ones(3), torch.ones(3, dtype=torch.bool), *more)


@pytest.mark.parametrize(
    ("use", "error", "said"),
    [
        (lambda: losses.MSELoss(reducton="sum"), TypeError, "keyword 'reducton'; did you mean 'reduction'"),  # type: ignore[call-arg]
        (
            lambda: losses.MSELoss()(torch.ones(2), 0.0),
            InputError,
            "mse: the target is of type float; it must",
        ),
        (
            lambda: losses.CrossEntropyLoss()(torch.ones(2, 3).numpy(), torch.arange(2)),
            InputError,
            "cross_entropy: the input is of type ndarray; it must be a torch.Tensor",
        ),
        (
            lambda: losses.CrossEntropyLoss()(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.int64)),
            InputError,
            r"the target has shape \(2, 3\) \(one-hot rows must be floating: target.float\(\)\)",
        ),
        (
            lambda: losses.CrossEntropyLoss()(torch.ones(2, 3), torch.ones(2, 1, dtype=torch.int64)),
            InputError,
            r"the target has shape \(2, 1\) \(target.squeeze\(1\) has it\)",
        ),
        (
            lambda: functional.cross_entropy(torch.ones(2, 3), torch.arange(2), [1.0, 2.0, 3.0]),  # type: ignore[arg-type]
            InputError,
            "cross_entropy: the weight is of type list; it must be a torch.Tensor",
        ),
        (
            lambda: functional.mse_loss(torch.ones(3), torch.ones(3), weight=[1.0, 2.0, 3.0]),  # type: ignore[arg-type]
            InputError,
            "mse: the weight is of type list; it must be a torch.Tensor",
        ),
        (
            lambda: losses.BCEWithLogitsLoss(pos_weight=torch.ones(4))(torch.ones(2, 3), torch.ones(2, 3)),
            InputError,
            r"bce: pos_weight has shape \(4,\), which does not broadcast against the input's \(2, 3\)",
        ),
        (
            lambda: functional.huber_loss(torch.ones(3), torch.ones(3), delta=None),  # type: ignore[arg-type]
            InputError,
            r"huber: delta is None; give a number in \(0, inf\)",
        ),
    ],
)
def test_a_common_mistake_is_answered_by_what_would_do(
    use: Callable[[], Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        use()

"""What the Triton kernels of losses do that the contract's own inputs do not reach."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from steepest.bench.losses import loss_of
from steepest.losses import (
    LOSSES,
    BCELoss,
    CrossEntropyLoss,
    GammaNLLLoss,
    HingeLoss,
    LinearCrossEntropyLoss,
    MSELoss,
    SquaredHingeLoss,
    TweedieLoss,
    from_formula,
)
from steepest.losses.linear_cross_entropy import linear_cross_entropy

from .backends import POINTWISE, SOFTMAX, through
from .gpu_device import gpu
from .samples import DTYPES, generator, parameters_of, pointwise_samples


@pytest.fixture
def device() -> str:
    return gpu()


def by_kernel(
    logits: Tensor, target: Tensor, *, weight: Tensor | None = None, smoothing: float = 0.0
) -> list[Tensor]:
    """Cross-entropy row by row, and its gradient, from the kernels alone: nothing checks the targets before them."""
    from steepest.backends import cuda_softmax

    formula = LOSSES["cross_entropy"].formula
    soft = target.is_floating_point()
    rows = cuda_softmax.Rows(
        None if soft else target, target if soft else None, weight, None, -100, smoothing
    )
    assert formula.gradient is not None
    run = cuda_softmax.softmax(formula.value, formula.gradient, logits, rows, ())
    shape = (*logits.shape[:1], *logits.shape[2:])
    values, slopes = logits.new_full(shape, math.nan), torch.full_like(logits, math.nan)
    one = torch.ones((), dtype=torch.float64, device=logits.device)
    run(values, 2, one)
    total = run(slopes, 1, one)
    assert torch.allclose(total.cpu(), values.double().sum().cpu(), rtol=1e-6, equal_nan=True)
    return [values.cpu(), slopes.cpu()]


@pytest.mark.parametrize("kind", ["index", "smoothed", "probabilities"])
@pytest.mark.parametrize("num_programs", [1, 64])
@pytest.mark.parametrize("shape", [(3, 50), (2, 37, 3)])
def test_rows_in_stretches_are_as_whole_ones(
    device: str, shape: tuple[int, ...], num_programs: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stretch holds nothing but -inf, and one the largest twice."""
    from steepest.backends import cuda_softmax

    rng = generator("stretches", *shape)
    logits = torch.tensor(rng.normal(size=shape) * 5)
    logits[0, 16:32] = -math.inf
    logits[1, 3] = logits[1, 35] = logits[1].max() + 1.0
    target = torch.tensor(rng.integers(0, 16, (shape[0], *shape[2:])))
    target.view(-1)[-1] = -100
    if kind == "probabilities":
        target = (
            torch.tensor(rng.dirichlet([1.0] * shape[1], (shape[0], *shape[2:]))).movedim(-1, 1).contiguous()
        )
        target[0, 16:32] = 0.0
    if kind == "smoothed":
        logits[0, 16:32] = -80.0  # smoothing gives all of them a share
    given = [t.to(device) for t in (logits, target, torch.tensor(rng.uniform(0.5, 2.0, shape[1])))]
    smoothing = 0.1 if kind == "smoothed" else 0.0
    whole = by_kernel(given[0], given[1], weight=given[2], smoothing=smoothing)
    monkeypatch.setattr(cuda_softmax, "_WHOLE", 2)
    monkeypatch.setattr(cuda_softmax, "_STRETCH", 16)
    monkeypatch.setattr(cuda_softmax, "_PROGRAMS", num_programs)
    cut = by_kernel(given[0], given[1], weight=given[2], smoothing=smoothing)
    for a, b in zip(whole, cut, strict=True):
        assert torch.isfinite(a).all()
        assert torch.allclose(a, b, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("kind", ["pointwise", "index", "probabilities"])
def test_a_segment_is_as_it_is_alone(device: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its own sum and scale, to the bit; long rows too."""
    from steepest.backends import cuda_losses, cuda_softmax

    monkeypatch.setattr(cuda_losses, "_BLOCK", 64)
    monkeypatch.setattr(cuda_softmax, "_MOST_ROWS", 4)
    monkeypatch.setattr(cuda_softmax, "_JOINED", 4)
    monkeypatch.setattr(cuda_softmax, "_STRETCH", 4)
    formula = LOSSES["huber" if kind == "pointwise" else "cross_entropy"].formula
    assert formula.gradient is not None
    rng = generator("segments", kind)
    x = torch.tensor(rng.normal(size=(3, 7, 11)), dtype=torch.float32, device=device)
    other = torch.tensor(rng.dirichlet([1.0] * 11, (3, 7)), dtype=torch.float32, device=device)
    if kind == "index":
        other = torch.tensor(rng.integers(0, 11, (3, 7)), device=device)
        other[1, 2] = -100
    scale = torch.tensor([0.5, 3.0, 0.125], dtype=torch.float64, device=device)

    def computed(x: Tensor, other: Tensor, scale: Tensor, segments: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        slopes = torch.full_like(x, math.nan)
        assert formula.gradient is not None
        if kind == "pointwise":
            run = cuda_losses.pointwise(
                formula.value, formula.gradient, x, other, (0.7,), [None] * 2, segments
            )
        else:
            pair = (other, None) if kind == "index" else (None, other)
            rows = cuda_softmax.Rows(*pair, None, None, -100, 0.0)
            run = cuda_softmax.softmax(formula.value, formula.gradient, x, rows, (), segments)
        return run(slopes, 1, scale), slopes

    for longest in (4096, 2):
        monkeypatch.setattr(cuda_softmax, "_WHOLE", longest)
        sums, slopes = computed(x.flatten(0, 1), other.flatten(0, 1), scale, (3,))
        for k, own in enumerate(slopes.reshape(x.shape)):
            alone, slope = computed(x[k], other[k], scale[k], ())
            assert torch.equal(alone, sums[k])
            assert torch.equal(slope, own)
            assert slope.any()


def test_nan_and_infinity_are_of_their_row_alone(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from steepest.backends import cuda_softmax

    for longest in (4096, 2):
        monkeypatch.setattr(cuda_softmax, "_WHOLE", longest)
        monkeypatch.setattr(cuda_softmax, "_STRETCH", 4)
        logits = torch.zeros(4, 9, device=device)
        logits[0, 8], logits[1, 2], logits[2] = math.nan, math.inf, -math.inf
        values, slopes = by_kernel(logits, torch.zeros(4, dtype=torch.int64, device=device))
        assert values.isnan().tolist() == [True, True, True, False]
        assert slopes.isnan().any(1).tolist() == [True, True, True, False]


def test_a_class_outside_the_classes_makes_its_row_nan(device: str) -> None:
    logits = torch.zeros(4, 3, device=device)
    values, slopes = by_kernel(logits, torch.tensor([0, 3, -1, -100], device=device))
    assert values.isnan().tolist() == [False, True, True, False]
    assert slopes.isnan().any(1).tolist() == [False, True, True, False]
    assert values[3] == 0.0
    assert (slopes[3] == 0.0).all()


@pytest.mark.parametrize("loss", [HingeLoss, SquaredHingeLoss])
def test_a_target_that_is_no_sign_makes_its_element_nan(
    device: str, loss: type[HingeLoss | SquaredHingeLoss]
) -> None:
    x = torch.zeros(4, device=device, requires_grad=True)
    for target in (torch.tensor([1.0, 0.0, -1.0, 2.0]), torch.tensor([1, 0, -1, 2])):
        values = loss(reduction="none")(x, target.to(device))
        assert values.isnan().tolist() == [False, True, False, True]
        (slopes,) = torch.autograd.grad(values.sum(), x)
        assert slopes.isnan().tolist() == [False, True, False, True]


def test_a_number_that_is_no_probability_makes_its_loss_nan(device: str) -> None:
    p = torch.tensor([0.5, -0.25, 1.25, math.nan, 1.0], device=device)
    for target in (0.0, 0.5, 1.0):
        values = BCELoss(reduction="none")(p, torch.full_like(p, target))
        assert values.isnan().tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("loss", [GammaNLLLoss, TweedieLoss])
def test_a_target_that_is_no_amount_makes_its_element_nan(
    device: str, loss: type[GammaNLLLoss | TweedieLoss]
) -> None:
    x = torch.zeros(3, device=device, requires_grad=True)
    values = loss(reduction="none")(x, torch.tensor([2.0, -1.0, math.nan], device=device))
    assert values.isnan().tolist() == [False, True, True]
    (slopes,) = torch.autograd.grad(values.sum(), x)
    assert slopes.isnan().tolist() == [False, True, True]


@pytest.mark.parametrize("name", [*POINTWISE, *SOFTMAX])
def test_nothing_is_waited_for(device: str, name: str) -> None:
    if device != "cuda":
        pytest.skip("torch counts waits for a GPU alone, and there is none; a CPU is never waited for")
    formula = LOSSES[name].formula
    if formula.family == "softmax":
        inputs, target = torch.randn(6, 4), torch.tensor([0, 3, 1, 2, 0, 1])
    else:
        inputs, target = pointwise_samples(formula, "float32", tails=False)
    x, target = inputs.to(device).requires_grad_(), target.to(device)
    loss = loss_of(name, tuple(x.shape))
    loss(x, target).backward()  # compiles, and lays the constants out
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(x, target).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", [*POINTWISE, *SOFTMAX])
def test_half_types_are_rounded_once(device: str, name: str, dtype: str) -> None:
    """Within a unit in the last place of what float64 gives for the same inputs, wherever that is in range."""
    formula, held = LOSSES[name].formula, DTYPES[dtype]
    if formula.family == "softmax":
        rng = generator("half", name)
        inputs, target = (
            torch.tensor(rng.normal(size=(40, 7)) * 3).to(held),
            torch.tensor(rng.integers(0, 7, 40)),
        )
    else:
        inputs, target = (t[:200].to(held) for t in pointwise_samples(formula, "float32", tails=False))
    given = parameters_of(formula)
    found = through("cuda", formula, inputs, target, given)
    wide = through(
        "reference",
        formula,
        inputs.double(),
        target.double() if target.is_floating_point() else target,
        given,
    )
    info = torch.finfo(held)
    for got, wanted in zip(found, wide, strict=True):
        is_normal = (wanted.abs() > info.tiny) & (wanted.abs() < info.max) & wanted.isfinite()
        spacing = 2.0 ** torch.floor(torch.log2(wanted.abs().clamp_min(info.tiny))) * info.eps
        # A gradient is a difference: below its terms' own digits there is nothing to round.
        least = 2.0**-22 * wanted[is_normal].abs().max()
        off = (got.double() - wanted).abs() - least
        assert (off[is_normal] <= 0.51 * spacing[is_normal]).all(), (off / spacing)[is_normal].max()


def test_a_formula_without_a_form_in_triton_goes_by_tensor_operations(device: str) -> None:
    def cubed(p: Tensor, y: Tensor) -> Tensor:
        return torch.abs(p - y) ** 3

    def slope(p: Tensor, y: Tensor) -> Tensor:
        return 3.0 * torch.relu(p - y)

    from dataclasses import replace

    from steepest.losses.apply import pointwise_loss

    odd = replace(LOSSES["mse"].formula, name="odd", value=cubed, gradient=slope)
    p = torch.ones(3, device=device, requires_grad=True)
    loss = pointwise_loss(odd, p, torch.zeros(3, device=device))
    assert "Fused" not in type(loss.grad_fn).__name__
    assert float(loss.detach()) == 1.0


def test_a_users_formula_has_a_kernel(device: str) -> None:
    def scaled_square(p: Tensor, y: Tensor, width: float = 2.0) -> Tensor:
        return ((p - y) / width) ** 2

    loss = from_formula(scaled_square)()
    p = torch.ones(3, device=device, requires_grad=True)
    value = loss(p, torch.zeros(3, device=device))
    assert "Fused" in type(value.grad_fn).__name__
    value.backward()
    assert float(value.detach()) == 0.25
    assert p.grad is not None
    assert p.grad.tolist() == pytest.approx([0.5 / 3.0] * 3)


def test_inplace_overwrites_and_says_so(device: str) -> None:
    leaf = torch.randn(6, 4, device=device, requires_grad=True)
    logits = leaf * 1.0
    before = logits._version
    loss = CrossEntropyLoss(inplace=True)(logits, torch.zeros(6, dtype=torch.int64, device=device))
    assert logits._version > before
    loss.backward()
    fresh = torch.autograd.grad(
        CrossEntropyLoss()(leaf, torch.zeros(6, dtype=torch.int64, device=device)), leaf
    )[0]
    assert torch.equal(fresh, leaf.grad)


@pytest.mark.parametrize("loss", [CrossEntropyLoss, MSELoss])
def test_a_prediction_that_does_not_lie_contiguous(
    device: str, loss: type[CrossEntropyLoss | MSELoss]
) -> None:
    plain = torch.arange(12.0, device=device).reshape(4, 3).sin()
    target = (
        torch.tensor([0, 2, 1, 1], device=device) if loss is CrossEntropyLoss else torch.zeros_like(plain)
    )
    gradients = []
    for x in (plain, plain.T.contiguous().T):
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        loss(reduction="none")(leaf, target).sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_an_upstream_factor_that_is_no_one(device: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        p = torch.ones(5, dtype=dtype, device=device, requires_grad=True)
        (2.0 * MSELoss(reduction="sum")(p, torch.zeros_like(p))).backward()
        assert p.grad is not None
        assert p.grad.tolist() == [4.0] * 5


def test_the_linear_layers_chunks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from steepest.losses import linear_cross_entropy as module

    monkeypatch.setattr(module, "_LEAST_ROWS_A_CHUNK", 4)
    monkeypatch.setattr(module, "_LOGITS_A_CHUNK", 1)
    torch.manual_seed(0)
    layer = LinearCrossEntropyLoss(6, 11, bias=True, label_smoothing=0.1, device=device, dtype=torch.float64)
    x = torch.randn(9, 6, dtype=torch.float64, device=device, requires_grad=True)
    target = torch.randint(0, 11, (9,), device=device)
    learned = [x, *layer.parameters()]
    in_chunks = torch.autograd.grad(2.0 * layer(x, target), learned)
    logits = torch.nn.functional.linear(x, layer.linear.weight, layer.linear.bias)
    whole = torch.autograd.grad(2.0 * CrossEntropyLoss(label_smoothing=0.1)(logits, target), learned)
    for a, b in zip(in_chunks, whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [30, 90])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_linear_layers_halves_are_as_close_as_torchs_own(
    device: str, rows: int, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows in one block, whose slopes are multiplied at once, and in three, whose products are added up in float32."""
    from steepest.losses import linear_cross_entropy as module

    monkeypatch.setattr(module, "_LEAST_ROWS_A_CHUNK", 8)
    monkeypatch.setattr(module, "_LOGITS_A_CHUNK", 1)
    wide_products = []
    product = module._product
    monkeypatch.setattr(
        module, "_product", lambda *given: wide_products.append(found := product(*given)) or found
    )
    torch.manual_seed(0)
    features, classes = 16, 50
    drawn = [torch.randn(rows, features), torch.randn(classes, features), torch.randn(classes)]
    learned = [t.to(device, torch.bfloat16).requires_grad_() for t in drawn]
    target = torch.randint(0, classes, (rows,), device=device)
    target[3] = -100

    def torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(x, weight, bias)
        return torch.nn.functional.cross_entropy(logits, target, reduction=reduction)

    def gradients(value: Tensor, of: list[Tensor]) -> list[Tensor]:
        by = torch.linspace(0.5, 2.0, value.numel(), dtype=value.dtype, device=device).reshape(value.shape)
        return [value.detach().double(), *(g.double() for g in torch.autograd.grad(value, of, by))]

    x, weight, bias = learned
    ours = gradients(
        module.linear_cross_entropy(x, weight, target, linear_bias=bias, reduction=reduction), learned
    )
    theirs = gradients(torchs(*learned), learned)
    exact = [t.detach().double().requires_grad_() for t in learned]
    truth = gradients(torchs(*exact), exact)
    for mine, other, true in zip(ours, theirs, truth, strict=True):
        assert (mine - true).abs().max() <= 1.01 * (other - true).abs().max()
        assert (mine - true).square().sum() <= 1.01 * (other - true).square().sum()
    sizes = {found.shape[0] for found in wide_products}
    assert (classes in sizes) == (
        rows > 2 * features
    )  # the weight's gradient in float32 is made only where it is summed
    assert max(sizes - {classes}) <= 8


def test_slopes_of_halves_are_written_as_halves(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where nothing asks for more of their digits, as a bias's gradient does: the same bits."""
    from steepest.losses import linear_cross_entropy as module

    monkeypatch.setattr(module, "_LEAST_ROWS_A_CHUNK", 8)
    written = []
    run_softmax = module.kernels.run_softmax

    def noted(*given: Any) -> Any:
        written.append(given[4].dtype)
        return run_softmax(*given)

    monkeypatch.setattr(module.kernels, "run_softmax", noted)
    torch.manual_seed(0)
    x, weight = (torch.randn(n, 16).to(device, torch.bfloat16).requires_grad_() for n in (90, 50))
    target = torch.randint(0, 50, (90,), device=device)
    found = []
    for bias in (None, torch.zeros(50, dtype=torch.bfloat16, device=device, requires_grad=True)):
        value = module.linear_cross_entropy(x, weight, target, linear_bias=bias)
        found.append([value, *torch.autograd.grad(value, (x, weight))])
    assert all(map(torch.equal, *found))
    assert written == [torch.bfloat16] * (len(written) // 2) + [torch.float32] * (len(written) // 2)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_under_autocast_the_linear_layer_multiplies_halves(device: str, reduction: str) -> None:
    """As torch's does, at the speed of a card's own units; logits and loss are float32."""
    torch.manual_seed(0)
    loss = LinearCrossEntropyLoss(
        16, 50, bias=True, device=device, reduction=reduction, output_dtype=None
    )  # as if it were left out
    x = torch.randn(30, 16, device=device, requires_grad=True)
    target = torch.randint(0, 50, (30,), device=device)
    learned = [x, *loss.parameters()]
    with torch.autocast(device, torch.bfloat16):
        value = loss(x, target)
    assert value.dtype == torch.float32
    halves = [t.detach().bfloat16().requires_grad_() for t in learned]
    wanted = linear_cross_entropy(
        halves[0],
        halves[1],
        target,
        linear_bias=halves[2],
        reduction=reduction,
        output_dtype=torch.float32,
    )
    assert torch.equal(value, wanted)
    found, exact = (
        torch.autograd.grad(given.sum(), of) for given, of in ((value, learned), (wanted, halves))
    )
    for mine, other in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, other.float())


@pytest.mark.parametrize("kind", ["index", "probabilities", "float16"])
def test_under_autocast_logits_of_bfloat16_are_not_copied(
    device: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient are those of the copy in float32, which float16 needs for its narrow range."""
    from steepest.losses import kernels

    read = []
    run_softmax = kernels.run_softmax

    def noted(formula: Any, settings: Any, x: Tensor, *given: Any) -> Any:
        read.append(x.dtype)
        return run_softmax(formula, settings, x, *given)

    monkeypatch.setattr("steepest.losses.fused.run_softmax", noted)
    torch.manual_seed(0)
    dtype = torch.float16 if kind == "float16" else torch.bfloat16
    logits = torch.randn(6, 50).to(device, dtype).requires_grad_()
    target = torch.arange(6, device=device)
    if kind == "probabilities":
        target = torch.rand(6, 50).to(device, dtype)
    weight = torch.linspace(0.5, 2.0, 50, device=device)
    loss = CrossEntropyLoss(weight, label_smoothing=0.125, output_dtype=None)  # as if it were left out
    with torch.autocast(device, dtype):
        value = loss(logits, target)
    (slopes,) = torch.autograd.grad(value, logits)
    assert set(read) == {torch.float32 if kind == "float16" else torch.bfloat16}
    wide = logits.detach().float().requires_grad_()
    wanted = loss(wide, target.float() if kind == "probabilities" else target)
    assert value.dtype == torch.float32
    assert torch.equal(value, wanted)
    (exact,) = torch.autograd.grad(wanted, wide)
    assert torch.equal(slopes, exact.to(dtype))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracer
@pytest.mark.parametrize("way", ["output_dtype", "autocast"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_compiled_loss_of_halves_has_the_digits_of_a_plain_one(
    device: str, reduction: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 it is rounded once, and the logits are not copied to it."""
    from steepest.losses import operators

    monkeypatch.setitem(operators._DTYPES, "cpu", operators._DTYPES["cuda"])  # for the interpreter
    torch.manual_seed(0)
    logits = torch.randn(6, 50).to(device, torch.bfloat16).requires_grad_()
    target = torch.arange(6, device=device)
    switches: Any = {"output_dtype": torch.float32} if way == "output_dtype" else {}
    loss = CrossEntropyLoss(reduction=reduction, **switches)
    given = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        given.extend(node for node in graph.graph.nodes if "softmax_loss" in str(node.target))
        return graph

    found = []
    for function in (loss, torch.compile(loss, backend=backend, fullgraph=True)):
        with torch.autocast(device, torch.bfloat16, enabled=way == "autocast"):
            value = function(logits, target)
        upstream = torch.linspace(0.5, 2.0, value.numel(), device=device).reshape(value.shape)
        found.append([value, torch.autograd.grad(value, logits, upstream)[0]])
    assert found[0][0].dtype == torch.float32
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1].dtype == torch.bfloat16
    assert torch.allclose(found[0][1], found[1][1], rtol=2**-7)
    assert [node.args[0].op for node in given] == ["placeholder"]

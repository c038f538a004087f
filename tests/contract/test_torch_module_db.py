"""torch's own test databases with our classes in place: every sample input, every error input.

The databases are walked, not copied: every class and function that torch has and steepest exports is taken, so a new
loss needs no line here. A result counts if it is torch's to the type's rounding, or nearer than torch's to the truth,
which is torch's own in float64. What is meant to differ stands in ``differences.py``.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from steepest import losses
from steepest.errors import InputError
from steepest.losses import functional

from .differences import DIFFERENCES

ACCEPTED = [one for one in DIFFERENCES.values() if one.torchs_error]

# Every loss of torch with a class, less those that docs/drop-in.md names.
TORCHS = {
    "BCELoss", "BCEWithLogitsLoss", "CTCLoss", "CosineEmbeddingLoss", "CrossEntropyLoss", "GaussianNLLLoss",
    "HingeEmbeddingLoss", "HuberLoss", "KLDivLoss", "L1Loss", "LinearCrossEntropyLoss", "MSELoss", "MarginRankingLoss",
    "MultiLabelMarginLoss",
    "MultiLabelSoftMarginLoss", "MultiMarginLoss", "NLLLoss", "PoissonNLLLoss", "SmoothL1Loss", "SoftMarginLoss",
    "TripletMarginLoss", "TripletMarginWithDistanceLoss",
}  # fmt: skip
# Those whose functions alone torch has samples of.
WITHOUT_SAMPLES = {"TripletMarginLoss", "TripletMarginWithDistanceLoss"}
CLASSES = sorted(
    name
    for name in losses.__all__
    if isinstance(getattr(nn, name, None), type) and name not in WITHOUT_SAMPLES
)
FUNCTIONS = sorted(name for name in functional.__all__ if hasattr(nn.functional, name))
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Units in the last place: of each number, or where torch's float64 has to be the truth of float64, of 1 or the
# largest number in the tensor, for the terms of either may cancel.
ULPS = {"float32": 4, "float64": 64, "float16": 1, "bfloat16": 1}
# Sums of numbers in the input's own type: gradients of what is broadcast, and all that linear_cross_entropy gives.
# Their error is measured against the largest number of the call, in such units, or torch's worst.
OF_SUMS = 8
SUMS = {"LinearCrossEntropyLoss", "linear_cross_entropy"}
# Gradients that are a difference, a share less a probability, lose digits wherever the two are close: the error of each
# is held against torch's worst of the call.
OF_DIFFERENCES = {"CrossEntropyLoss", "cross_entropy"}
# Sums over alignments, which torch adds up as logarithms: its float64 is off by as much (ours is held to 256 bits in
# test_losses_of_sequences.py).
OF_LOGARITHMS = {"CTCLoss": 8192, "ctc_loss": 8192}


@cache
def database(word: str) -> dict[str, list[Any]]:
    """``module_db`` by class name, or ``op_db`` by function name; loaded late, for it takes seconds."""
    # The package freezes torch's backend flags for the whole process; the guard gives them back. Its warnings
    # are about tools that are not there.
    with warnings.catch_warnings(), torch.backends.__allow_nonbracketed_mutation():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    entries: dict[str, list[Any]] = {}
    for info in module_db if word == "module" else op_db:
        name = info.module_cls.__name__ if word == "module" else info.name.removeprefix("nn.functional.")
        entries.setdefault(name, []).append(info)
    return entries


class Sample(NamedTuple):
    """A call: what makes the function, and what it is called with."""

    label: str
    made_with: tuple[list[Any], dict[str, Any]]
    called_with: tuple[list[Any], dict[str, Any]]
    reference: Callable[..., Any] | None = None


def with_signs(name: str, args: list[Any]) -> list[Any]:
    """Arguments of which the last, a target of any number, is a sign, where ours takes nothing else."""
    if name not in DIFFERENCES["signs"].names:
        return args
    *others, target = args
    return [*others, torch.where(target.detach() < 0, -1, 1).to(target.dtype)]


def module_samples(name: str, dtype: torch.dtype) -> Iterator[Sample]:
    for info in database("module")[name]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inputs = info.module_inputs_func(
                info, device="cpu", dtype=dtype, requires_grad=True, training=True
            )
        for i, one in enumerate(inputs):
            made, called = one.constructor_input, one.forward_input
            yield Sample(
                f"{i} {one.desc}",
                (made.args, made.kwargs),
                (with_signs(name, called.args), called.kwargs),
                one.reference_fn,
            )


def function_samples(name: str, dtype: torch.dtype) -> Iterator[Sample]:
    for op in database("op")[name]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            inputs = list(op.sample_inputs("cpu", dtype, requires_grad=True))
        for i, one in enumerate(inputs):
            label = f"{op.variant_test_name} {i} {one.name}"
            yield Sample(label, ([], {}), (with_signs(name, [one.input, *one.args]), one.kwargs))


def cast(tree: Any, dtype: torch.dtype, wide: torch.dtype) -> Any:
    """The same call in another type: new leaves, and ``dtype=`` where it is an argument."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            new = leaf.detach().clone()
            return new.to(wide).requires_grad_(leaf.requires_grad) if new.is_floating_point() else new
        if wide is not dtype and isinstance(leaf, nn.LinearCrossEntropyOptions):
            return None  # how torch cuts the work up, tied to the type
        return wide if leaf is dtype else leaf

    return tree_map(one, tree)


def results(
    make: Callable[..., Any], sample: Sample, dtype: torch.dtype, wide: torch.dtype, state: Any
) -> list[Tensor]:
    """The value, then the gradient of every tensor that asks for one, parameters included."""
    (made, made_by_name), (called, called_by_name) = cast((sample.made_with, sample.called_with), dtype, wide)
    call = make(*made, **made_by_name)
    parameters = []
    if isinstance(call, nn.Module):
        if not state:
            state.update(call.state_dict())
        call.load_state_dict(state)
        parameters = list(call.parameters())
    value = call(*called, **called_by_name)
    leaves = [
        leaf
        for leaf in tree_leaves((called, called_by_name))
        if isinstance(leaf, Tensor) and leaf.requires_grad
    ]
    if value.requires_grad:
        upstream = torch.linspace(0.5, 2.0, value.numel()).to(dtype).to(wide)
        value.backward(upstream.reshape(value.shape))
    slopes = [torch.zeros_like(x) if x.grad is None else x.grad for x in (*leaves, *parameters)]
    return [value.detach(), *slopes]


def units(truth: Tensor, dtype: torch.dtype) -> Tensor:
    """The distance between neighbours of ``dtype`` at the truth."""
    info = torch.finfo(dtype)
    return (truth.abs() * info.eps).clamp(min=info.smallest_normal * info.eps)


def wrong(
    ours: Tensor,
    theirs: Tensor | None,
    truth: Tensor,
    dtype: str,
    largest: float,
    forgiven: bool,
    cancels: bool,
    of_float64: int = ULPS["float64"],
) -> str:
    """What is wrong with a tensor of ours; nothing if it is right.

    ``largest`` stands for the terms of a sum, 0 if it is none; ``forgiven`` is a number in place of torch's NaN;
    ``cancels`` says that it is a difference.
    """
    if theirs is not None and (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return f"{ours.dtype} {tuple(ours.shape)} instead of {theirs.dtype} {tuple(theirs.shape)}"
    narrow = truth.to(DTYPES[dtype]).double()  # what the type's range makes of it
    mine = ours.double()
    off = (mine - truth).abs()
    its = torch.zeros_like(off) if theirs is None else (theirs.double() - truth).abs()
    scale, ulps = truth, ULPS[dtype]
    if dtype == "float64":
        scale, ulps = torch.full_like(truth, max(1.0, size(truth))), of_float64
    elif largest:
        scale, ulps, its = torch.full_like(truth, largest), OF_SUMS, torch.full_like(its, size(its))
    elif cancels:
        its = torch.full_like(its, size(its))
    right = (mine == narrow) | (mine.isnan() & narrow.isnan()) | (forgiven & truth.isnan() & mine.isfinite())
    bad = ~(right | (off <= ulps * units(scale, DTYPES[dtype])) | (off <= its))
    if not bad.any():
        return ""
    at = tuple(int(i) for i in bad.nonzero()[0])
    peer = "nothing" if theirs is None else float(theirs[at])
    return f"{int(bad.sum())} of {bad.numel()}; at {at} {float(ours[at])}, torch {peer}, truth {float(truth[at])}"


def size(tensor: Tensor) -> float:
    """The largest finite number in a tensor."""
    return max(tensor.abs().nan_to_num(0, 0, 0).flatten().tolist(), default=0.0)


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes our function, and torch's: the class, or for a function nothing but itself."""
    if name in CLASSES:
        return getattr(losses, name), getattr(nn, name)
    return lambda: getattr(functional, name), lambda: getattr(nn.functional, name)


def check(name: str, sample: Sample, dtype: str) -> str:
    """What is wrong with one call."""
    narrow, state = DTYPES[dtype], {}
    make, make_peer = pair(name)
    truth = results(make_peer, sample, narrow, torch.float64, state)
    try:
        peer: list[Any] = results(make_peer, sample, narrow, narrow, state)
    except (RuntimeError, NotImplementedError) as error:  # torch lacks the type here
        if "not implemented for" not in str(error):
            raise
        peer = [None] * len(truth)
    try:
        mine = results(make, sample, narrow, narrow, state)
    except InputError as error:
        refused = (d for d in DIFFERENCES.values() if d.switch and re.search(d.message, str(error)))
        if (difference := next(refused, None)) is None:
            return f"refused: {error}"
        where = sample.made_with if name in CLASSES else sample.called_with
        where[1].update(difference.switch)
        mine = results(make, sample, narrow, narrow, state)
    found = []
    largest = max(map(size, truth))
    for i, (ours, theirs, exact) in enumerate(zip(mine, peer, truth, strict=True)):
        is_sum = name in SUMS or (i > 0 and exact.numel() < truth[1].numel())
        forgiven = name in DIFFERENCES["masked"].names
        cancels = i > 0 and name in OF_DIFFERENCES
        what = wrong(
            ours,
            theirs,
            exact,
            dtype,
            largest if is_sum else 0.0,
            forgiven,
            cancels,
            OF_LOGARITHMS.get(name, ULPS["float64"]),
        )
        found.append((f"gradient {i}" if i else "value", what))
    return "; ".join(f"{part}: {what}" for part, what in found if what)


def all_right(found: list[tuple[str, str]]) -> None:
    assert found, "the database has no sample"
    bad = [f"{label}: {what}" for label, what in found if what]
    assert not bad, f"{len(bad)} of {len(found)} samples\n" + "\n".join(bad[:12])


pytestmark = [
    pytest.mark.filterwarnings("ignore:reduction. 'mean' divides"),  # KLDivLoss, torch's and ours
    pytest.mark.filterwarnings("ignore:linear_cross_entropy. ``options`` ignored"),  # torch's
    pytest.mark.filterwarnings("ignore:Possible nested set"),  # of the databases' own patterns
    pytest.mark.filterwarnings("ignore:Using a target size"),  # torch's, on the way to a result or an error
]


# --- inputs --------------------------------------------------------------------------------------------------


def test_torchs_classes_are_here() -> None:
    assert set(CLASSES) | WITHOUT_SAMPLES == TORCHS
    assert set(database("module")) & TORCHS == TORCHS - WITHOUT_SAMPLES
    assert set(database("op")) >= set(FUNCTIONS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CLASSES)
def test_every_module_input(name: str, dtype: str) -> None:
    all_right([(s.label, check(name, s, dtype)) for s in module_samples(name, DTYPES[dtype])])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_input(name: str, dtype: str) -> None:
    all_right([(s.label, check(name, s, dtype)) for s in function_samples(name, DTYPES[dtype])])


@pytest.mark.parametrize("name", CLASSES)
def test_every_formula_written_out(name: str) -> None:
    """The databases' references are plain formulas: a second truth, not torch's kernels."""
    found = []
    for sample in module_samples(name, torch.float64):
        (made, made_by_name), (called, called_by_name) = cast(sample[1:3], torch.float64, torch.float64)
        loss = getattr(losses, name)(*made, **made_by_name)
        with torch.no_grad():
            mine = loss(*called, **called_by_name)
            written = torch.as_tensor(sample.reference(loss, *called, **called_by_name))
        right = torch.allclose(mine, written.to(mine.dtype), rtol=1e-12, atol=1e-12, equal_nan=True)
        found.append((sample.label, "" if right else f"{mine} instead of {written}"))
    all_right(found)


# --- errors --------------------------------------------------------------------------------------------------


def error_calls(name: str) -> Iterator[tuple[type[Exception], str, Callable[[Any], Any]]]:
    """torch's error and its words, and the call that should end in it, given the class or function."""
    if name in CLASSES:
        for info in database("module")[name]:
            listed = info.module_error_inputs_func
            options = {"device": "cpu", "dtype": torch.float32, "requires_grad": False, "training": True}
            for case in listed(info, **options) if listed else ():
                made, called = (
                    case.module_error_input.constructor_input,
                    case.module_error_input.forward_input,
                )
                yield (
                    case.error_type,
                    case.error_regex,
                    lambda cls, made=made, called=called: cls(*made.args, **made.kwargs)(
                        *called.args, **called.kwargs
                    ),
                )
        return
    for op in database("op")[name]:
        for case in op.error_inputs("cpu") if op.error_inputs_func else ():
            one = case.sample_input
            yield (
                case.error_type,
                case.error_regex,
                lambda function, one=one: function(one.input, *one.args, **one.kwargs),
            )


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_every_error_input(name: str) -> None:
    """torch's error, or one sentence of ours."""
    torchs, ours = (nn, losses) if name in CLASSES else (nn.functional, functional)
    bad = []
    for expected, words, call in error_calls(name):
        with pytest.raises(expected, match=words):
            call(getattr(torchs, name))
        accepted = any(name in one.names and one.torchs_error in words for one in ACCEPTED)
        try:
            result = call(getattr(ours, name))
            if not accepted:
                bad.append(f"{words}: accepted, {result}")
        except InputError as error:
            if not re.fullmatch(r"[^\n]*: [^\n]*[.)]|reduction is [^\n]*\.", str(error)):
                bad.append(f"{words}: no sentence, {error}")
        except Exception as error:
            if not isinstance(error, expected) or not re.search(words, str(error)):
                bad.append(f"{words}: {error!r}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_predictions_are_floating(name: str, dtype: torch.dtype) -> None:
    """torch takes some, and computes in integers or returns complex numbers; here they are refused."""
    sample = next(function_samples(name, torch.float32))
    (first, *rest), by_name = sample.called_with
    with pytest.raises(InputError, match=DIFFERENCES["types"].message):
        getattr(functional, name)(first.detach().to(dtype), *rest, **by_name)


def test_every_difference_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "differences.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert headings == [one.title for one in DIFFERENCES.values()] + [
        "Beyond torch's own tests",
        "What is not carried over",
    ]

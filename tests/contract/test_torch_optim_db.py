"""torch's own optimizer database with our classes in place: every constructor input, every error input.

The database is walked, not copied: every class that torch has and steepest exports is taken, so a new optimizer needs
no line here.
"""

from __future__ import annotations

import copy
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from steepest import optim
from steepest.errors import InputError

from .differences import DIFFERENCES
from .samples import generator

# Every optimizer of torch that steps from gradients alone.
TORCHS = {
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon", "NAdam", "RAdam", "RMSprop",
    "Rprop", "SGD", "SparseAdam",
}  # fmt: skip
CLASSES = sorted(name for name in optim.__all__ if isinstance(getattr(torch.optim, name, None), type))
STEPS = 8
SHAPES = ((3, 5), (1, 1), (40, 2))  # two dimensions, for Muon takes no other
# Errors may grow to a rounding or two a step, in units of the largest number of a tensor, or to torch's own.
ULPS = {torch.float32: 2 * STEPS, torch.float64: 8 * STEPS}
FLAGS = ("foreach", "fused", "differentiable", "capturable")


@cache
def database() -> dict[str, Any]:
    """``optim_db`` by class name; loaded late, for it takes seconds."""
    # The package freezes torch's backend flags for the whole process; the guard gives them back. Its warnings
    # are about tools that are not there.
    with warnings.catch_warnings(), torch.backends.__allow_nonbracketed_mutation():
        warnings.simplefilter("ignore")
        from torch.testing._internal.common_optimizers import optim_db
    return {info.name: info for info in optim_db}


def inputs_of(name: str, *, flags: bool = True) -> list[dict[str, Any]]:
    """Every keyword set of the database, those it keeps for GPUs too, alone and with each flag it names."""
    info = database()[name]
    listed = [*info.optim_inputs_func(device="cpu"), *info.optim_inputs_func(device="cuda")]
    with_flags = [{}, *({flag: True} for flag in info.supported_impls if flags)]
    made = ({**one.kwargs, **flag} for one, flag in itertools.product(listed, with_flags))
    return list({str(options): options for options in made}.values())


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Run(NamedTuple):
    """What some steps leave behind."""

    parameters: list[Tensor]
    state: list[dict[str, Any]]


def run(
    cls: type,
    options: dict[str, Any],
    dtype: torch.dtype,
    wide: torch.dtype | None = None,
    *,
    sparse: bool = False,
) -> Run | Exception:
    """Some steps from one start, with gradients of ``dtype``, held in ``wide``; or the error they end in."""
    rng = generator("optimizer database")

    def numbers(shape: tuple[int, ...]) -> Tensor:
        drawn = torch.tensor(rng.normal(size=shape) + 1j * rng.normal(size=shape))
        return (drawn if dtype.is_complex else drawn.real).to(dtype).to(wide or dtype)

    given = [numbers(shape) for shape in SHAPES]
    if not options.get("differentiable"):  # which takes results of a graph, not leaves that need a gradient
        given = [nn.Parameter(start) for start in given]
    try:
        optimizer = cls(given, **copy.deepcopy(options))
        for step in range(STEPS):
            for parameter in given:
                gradient = numbers(parameter.shape)
                gradient[:: 2 + step % 2] = 0
                parameter.grad = gradient.to_sparse() if sparse else gradient
            optimizer.step()
    except Exception as error:
        return error
    return Run([p.detach() for p in given], [dict(optimizer.state.get(p, {})) for p in given])


def wrong(mine: Any, its: Any, truth: Any, dtype: torch.dtype, number: bool) -> str:
    """What is wrong with a parameter or an entry of the state; nothing if it is right."""
    if not isinstance(its, Tensor) or not isinstance(mine, Tensor):
        return "" if mine == its else f"{mine!r} instead of {its!r}"
    if mine.shape != its.shape or (mine.dtype != its.dtype and not number):
        return f"{mine.dtype} {tuple(mine.shape)} instead of {its.dtype} {tuple(its.shape)}"
    kind = torch.complex128 if mine.is_complex() else torch.float64
    mine, its, truth = (x.to_dense().to(kind) for x in (mine, its, truth))
    rounding = (
        ULPS[dtype]
        * torch.finfo(dtype).eps
        * max(float(truth.abs().max()), torch.finfo(dtype).smallest_normal)
    )
    off = float((mine - truth).abs().max())
    if off <= max(rounding, float((its - truth).abs().max())):
        return ""
    return f"off by {off:.3g}, torch by {float((its - truth).abs().max()):.3g}, {rounding:.3g} allowed"


def difference(name: str, options: dict[str, Any], dtype: torch.dtype, **more: bool) -> str:
    """What is wrong with some steps of ours; nothing if they are right."""
    cls, peer = getattr(optim, name), getattr(torch.optim, name)
    mine, its = run(cls, options, dtype, **more), run(peer, options, dtype, **more)
    if isinstance(its, Exception) or isinstance(mine, Exception):
        ours_says_it = isinstance(mine, InputError) and isinstance(its, Exception)
        same = type(mine) is type(its) and str(mine) == str(its)
        return "" if ours_says_it or same else f"{str(mine)[:200]} instead of {str(its)[:200]}"
    plain = {key: value for key, value in options.items() if key not in FLAGS}
    plain = tree_map(lambda x: float(x) if isinstance(x, Tensor) else x, plain)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    with default_dtype(torch.float64):  # in which torch keeps the numbers of its state, too
        truth = run(peer, plain, dtype, wide, **more)
    assert isinstance(truth, Run), truth
    rows = [
        ("parameter", *row) for row in zip(mine.parameters, its.parameters, truth.parameters, strict=True)
    ]
    for ours, theirs, true in zip(mine.state, its.state, truth.state, strict=True):
        if ours.keys() != theirs.keys():
            return f"state {sorted(ours)} instead of {sorted(theirs)}"
        rows += [(key, ours[key], theirs[key], true[key]) for key in theirs]
    real = torch.finfo(dtype).dtype
    numbers = DIFFERENCES["scalars"].names
    bad = [
        f"{key}: {what}"
        for key, *row in rows
        if (what := wrong(*row, getattr(torch, real), number=key in numbers))
    ]
    return "; ".join(bad[:3])


def all_right(found: dict[str, str]) -> None:
    assert found, "the database has no input"
    bad = [f"{options}: {what}" for options, what in found.items() if what]
    assert not bad, f"{len(bad)} of {len(found)} inputs\n" + "\n".join(bad[:12])


def test_torchs_classes_are_here() -> None:
    assert set(CLASSES) == TORCHS
    assert set(database()) >= TORCHS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CLASSES)
def test_every_input(name: str, dtype: torch.dtype) -> None:
    all_right({str(options): difference(name, options, dtype) for options in inputs_of(name)})


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's, once a process, about its own speed
def test_complex_parameters_and_sparse_gradients(name: str) -> None:
    """Taken where torch takes them, refused with torch's words where it refuses."""
    kinds: list[tuple[torch.dtype, bool]] = [
        (torch.complex64, False),
        (torch.complex128, False),
        (torch.float32, True),
    ]
    all_right(
        {
            f"{dtype} {'sparse ' * sparse}{options}": difference(name, options, dtype, sparse=sparse)
            for options in inputs_of(name, flags=False)
            for dtype, sparse in kinds
        }
    )


@pytest.mark.parametrize("name", CLASSES)
def test_every_error_input(name: str) -> None:
    """torch's error, or one sentence of ours."""
    for cls in (getattr(torch.optim, name), getattr(optim, name)):
        for case in database()[name].optim_error_inputs_func(device="cpu", dtype=torch.float32):
            one = case.optimizer_error_input
            given = [nn.Parameter(torch.ones(1, 1))] if one.params is None else one.params
            given_up = InputError if cls is getattr(optim, name) else case.error_type
            if issubclass(case.error_type, Warning):
                with pytest.warns(case.error_type, match=case.error_regex):
                    cls(given, **one.kwargs)
                continue
            with pytest.raises((case.error_type, given_up)) as caught:
                cls(given, **one.kwargs).step()
            words = r"^[^\n]*\.$" if isinstance(caught.value, InputError) else case.error_regex
            assert re.search(words, str(caught.value))

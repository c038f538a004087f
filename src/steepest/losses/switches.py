"""What every loss can be asked for beyond torch's arguments, by keyword."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from steepest.errors import InputError, near_names

__all__ = ["Switches", "check_switches"]


class Switches(TypedDict, total=False):
    """Keyword-only switches of every loss class and function; left out, a loss does as torch's.

    * ``strict_shape`` (default ``True``): an input and a target of different shapes are an error; ``False``
      broadcasts them, as torch does.
    * ``on_empty`` (``"nan"``): the mean over no elements, or over no kept row, is NaN, as torch's; ``"zero"``
      makes it 0, with gradients of 0.
    * ``normalizer`` (``None``): what a mean divides by, in place of the number of elements (of kept rows, of the
      sum of the weights): the count over all micro-batches and machines that share a step.
    * ``output_dtype`` (``None``): the type of the result, rounded once from the wider type it was computed in.
    * ``inplace`` (``False``): the gradient may be written over the input, which saves a buffer of its size. It
      happens where the fused kernel runs and the input is contiguous, no leaf and in need of a gradient;
      autograd's version counter is raised, so a graph that still needs the input says so. Its values are gone.
    """

    strict_shape: bool
    on_empty: Literal["nan", "zero"]
    normalizer: Tensor | float | None
    output_dtype: torch.dtype | None
    inplace: bool


_KNOWN = tuple(Switches.__annotations__)


def check_switches(
    name: str, switches: Mapping[str, Any], reduction: str, others: Iterable[str] = ()
) -> None:
    """Refuse an unknown switch, or a value it does not take, in one sentence.

    Args:
        name: what the sentence calls the loss.
        switches: the keywords that are no arguments of its own.
        reduction: its reduction.
        others: its own arguments, of which one may have been meant.

    Raises:
        TypeError: there is no such keyword.
        InputError: the keyword is known, its value is not.
    """
    if not switches:
        return
    for word in switches:
        if word not in _KNOWN:
            raise TypeError(f"{name}: there is no keyword {word!r}{near_names(word, (*others, *_KNOWN))}")
    if switches.get("on_empty", "nan") not in ("nan", "zero"):
        raise InputError(f"{name}: on_empty is {switches['on_empty']!r}; choose 'nan' or 'zero'.")
    for word in ("strict_shape", "inplace"):
        if not isinstance(switches.get(word, True), bool):
            raise InputError(f"{name}: {word} is {switches[word]!r}; it is True or False.")
    wanted = switches.get("output_dtype")
    if wanted is not None and not (isinstance(wanted, torch.dtype) and wanted.is_floating_point):
        raise InputError(f"{name}: output_dtype is {wanted!r}; it must be a floating torch.dtype.")
    _check_normalizer(name, switches.get("normalizer"), reduction)


def _check_normalizer(name: str, normalizer: Tensor | float | None, reduction: str) -> None:
    if normalizer is None:
        return
    if reduction != "mean":
        raise InputError(
            f"{name}: a normalizer is what a mean divides by; with reduction={reduction!r} it has no meaning "
            "(use reduction='mean')."
        )
    if isinstance(normalizer, Tensor):
        if normalizer.numel() != 1:
            raise InputError(
                f"{name}: the normalizer has shape {tuple(normalizer.shape)}; it must be one number."
            )
    elif not normalizer > 0:
        raise InputError(f"{name}: the normalizer is {normalizer}; it must be greater than 0.")

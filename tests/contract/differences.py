"""Where these classes mean to differ from torch's: the tests hold us to it, docs/differences.md explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DIFFERENCES", "Difference"]


@dataclass(frozen=True)
class Difference:
    title: str  # the heading in docs/differences.md
    torch: str
    ours: str
    why: str
    message: str = ""  # our error, where that is the difference: a pattern its sentence matches
    switch: Mapping[str, Any] = field(default_factory=dict)  # the arguments that bring torch's way back
    torchs_error: str = ""  # part of the pattern of an error of torch's that is none here
    names: tuple[str, ...] = ()  # whom it concerns, where it is not everyone


DIFFERENCES = {
    "tails": Difference(
        "Tails",
        torch="rounds small losses and gradients to 0 far from the decision",
        ours="exact to a few units in the last place",
        why="a gradient of 0 stops learning from examples that are nearly right, and hides the last stretch",
    ),
    "infinities": Difference(
        "Infinite logits",
        torch="NaN from inf - inf and 0 * inf",
        ours="the limit: 0 for a right answer, infinity for a wrong one",
        why="masks are written as infinities",
    ),
    "directions": Difference(
        "Directions and distances",
        torch="the cosine taken from 1; squares that leave the range",
        ours="half the square of the two directions' difference; lengths measured within the range",
        why="vectors that are nearly parallel are where the training of an embedding ends",
        names=("CosineEmbeddingLoss", "TripletMarginLoss"),
    ),
    "alignments": Difference(
        "Alignments of sequences",
        torch="sums of logarithms in the type of the input; a class of probability 0 has a gradient of NaN",
        ours="sums in float64 with exponents of their own; a probability of 0 is one",
        why="classes are masked, and float32 has no digits left of a thousand frames",
        names=("CTCLoss", "ctc_loss"),
    ),
    "masked": Difference(
        "Branches not taken",
        torch="NaN in a gradient where a formula's other branch, not taken there, has none",
        ours="the gradient of the branch taken",
        why="one such element turns a whole model into NaN",
        names=("poisson_nll_loss",),
    ),
    "ignored": Difference(
        "Ignored rows",
        torch="an infinity or NaN in an ignored row spoils gradients",
        ours="nothing in an ignored row reaches a gradient",
        why="ignored means ignored",
    ),
    "halves": Difference(
        "Half precision",
        torch="some sums overflow float16, some fused steps skip elements",
        ours="computed in float32 or wider, rounded once",
        why="a mean of ordinary numbers is an ordinary number",
    ),
    "shapes": Difference(
        "Shapes",
        torch="broadcasts an input against a target of another shape, with a warning at most",
        ours="refused",
        why="(n, 1) against (n,) is n * n differences and a wrong loss",
        message=r"strict_shape=False",
        switch={"strict_shape": False},
    ),
    "types": Difference(
        "Types of predictions",
        torch="takes complex or integer predictions here and there",
        ours="refused: predictions are floating",
        why="a mean of integers is cut to an integer, and an integer has no gradient",
        message=r"floating",
    ),
    "targets": Difference(
        "Integer targets",
        torch="class indices are int64 (or uint8); other losses want the input's own type",
        ours="integers of any width",
        why="a table's integers come as they are; no index is changed by its width",
    ),
    "signs": Difference(
        "Targets that are signs",
        torch="any number: the terms of both signs, or of none, or a hinge of another slope",
        ours="refused: a target is -1 or 1",
        why="classes 0 and 1 would teach nothing of one of them, and nobody would notice",
        message=r"targets are -1 or 1",
        names=(
            "HingeEmbeddingLoss",
            "hinge_embedding_loss",
            "MarginRankingLoss",
            "margin_ranking_loss",
            "CosineEmbeddingLoss",
            "cosine_embedding_loss",
        ),
    ),
    "weights": Difference(
        "Weights of another type",
        torch="an error from inside the kernel where class weights and logits differ in type",
        ours="taken: they are numbers, read as they are",
        why="weights counted in float64 serve a model in any type",
        torchs_error="expected scalar type",
        names=("NLLLoss",),
    ),
    "errors": Difference(
        "Errors",
        torch="RuntimeError, ValueError or AssertionError, some from inside a kernel",
        ours="InputError, a ValueError, in one sentence: what came, what was expected",
        why="an error is read by the person who has to act on it",
    ),
    "flags": Difference(
        "foreach and fused",
        torch="choose one of several implementations, with results of their own",
        ours="accepted, and change nothing",
        why="there is one implementation, and it is fused",
    ),
    "scalars": Difference(
        "Numbers in an optimizer's state",
        torch="float32, whatever the parameters' type",
        ours="float64",
        why="a product or a rate that goes on for thousands of steps loses its digits in float32",
        names=("mu_product", "eta", "mu"),
    ),
    "centred": Difference(
        "Centred RMSprop",
        torch="NaN once rounding takes the variance below 0",
        ours="a variance is never below 0",
        why="a constant gradient has variance 0",
    ),
    "factored": Difference(
        "Adafactor",
        torch="squares norms and multiplies averages in the parameter's type",
        ours="added up in float64, the root taken of each average",
        why="float16 holds gradients whose squares it does not hold",
    ),
    "rows": Difference(
        "SparseAdam",
        torch="adds up and steps in the gradient's type",
        ours="added up in float64, stepped in float32 or wider",
        why="an eps of 1e-8 is 0 in float16",
    ),
}

"""One update rule over many runs: the rule as it stands, on tensors with a leading axis of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steepest.backends.cpu_storage import Layout
from steepest.backends.cuda_devices import runs_on
from steepest.optim.gpu import Part, has_kernels
from steepest.optim.rule import Rule
from steepest.schedules.course import Course

__all__ = ["RuleGroup", "rule_group"]

_IN_CACHE = 2**15  # numbers of one tensor that a rule's dozen operations go over before the next


class RuleGroup:
    """Runs that follow one rule, each with hyperparameters of its own.

    A rule is operations of torch's on tensors and numbers. Here the parameters are (runs, numbers of all tensors), and
    what is a number for one run is a column (runs, 1): the rule broadcasts, and nothing in it knows of the others.

    Args:
        rule: of all of them.
        hyperparameters: of each, as the live optimizer gives them.
        sizes: how many numbers each of a module's tensors has, in the order in which they lie side by side.
        courses: the schedule of each run's rate; None: it is constant.
    """

    may_be_captured = False  # the numbers of a step are worked out beside it

    def __init__(
        self,
        rule: Rule,
        hyperparameters: Sequence[dict[str, float]],
        sizes: Sequence[int],
        courses: Sequence[Course | None],
    ) -> None:
        self.rule = rule
        values = [(tuple(own.values()), course) for own, course in zip(hyperparameters, courses, strict=True)]
        self._distinct = list(dict.fromkeys(values))  # runs that differ in their seeds share these
        self._which = torch.tensor([self._distinct.index(one) for one in values])
        self._sizes = torch.tensor(sizes)
        firsts = [hyperparameters[values.index(one)] for one in self._distinct]
        self._scalars = [rule.scalars_at_first(first) for first in firsts]
        self._starts = [[rule.begins_at(name, first) for name in rule.slots] for first in firsts]
        self._slots: list[Tensor] | None = None
        self._step = 0
        self._rows: list[tuple[float, ...]] = []
        self._columns: list[Tensor] = []

    def __len__(self) -> int:
        return len(self._which)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these runs alone."""
        at = torch.tensor(rows, dtype=torch.int64)
        self._which, self._columns, self._rows = self._which[at], [], []
        if self._slots is not None:
            self._slots = [slot[at.to(slot.device)] for slot in self._slots]

    def update(self, parameters: Tensor, gradients: Tensor) -> None:
        """One step, in place.

        Args:
            parameters, gradients: (runs, numbers).
        """
        if self._slots is None:
            self._slots = self._at_first(parameters, gradients)
        self._step += 1
        # In float32 at least, as torch's kernels.
        compute = torch.promote_types(parameters.dtype, torch.float32)
        columns = self._coefficients(compute, parameters.device)
        at_once = max(1, _IN_CACHE // parameters.shape[1]) if parameters.device.type == "cpu" else len(self)
        for start in range(0, len(self), at_once):
            rows = slice(start, start + at_once)
            kept = [tensor[rows] for tensor in (parameters, *self._slots)]
            self._update(
                kept, gradients[rows], [column[rows] for column in columns], self._which[rows], compute
            )

    def _update(
        self,
        kept: Sequence[Tensor],
        gradients: Tensor,
        columns: list[Tensor],
        which: Tensor,
        compute: torch.dtype,
    ) -> None:
        parameters, *slots = kept
        tensors = [tensor.to(compute) for tensor in (parameters, gradients, *slots)]
        if self.rule.measure is not None:
            columns = [*columns, self._trust(tensors, columns, which)]
        for old, value in zip(kept, self.rule.update(*tensors, *columns), strict=True):
            old.copy_(value)

    def _at_first(self, parameters: Tensor, gradients: Tensor) -> list[Tensor]:
        """The slots before the first step: numbers, the parameters or the gradients, run by run."""
        given: dict[Any, Tensor] = {"parameter": parameters, "gradient": gradients}
        slots = []
        for place in range(len(self.rule.slots)):
            starts = [self._starts[which][place] for which in self._which.tolist()]
            if isinstance(starts[0], str):
                slots.append(given[starts[0]].clone())
                continue
            column = torch.tensor([float(start) for start in starts], dtype=parameters.dtype)
            slots.append(column.to(parameters.device).unsqueeze(1).expand_as(parameters).clone())
        return slots

    def _coefficients(self, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """The numbers of this step, a column (runs, 1) each; the scalars go on."""
        rows = []
        for place, ((lr, *others), course) in enumerate(self._distinct):
            rate = lr if course is None else lr * course.factor(self._step - 1)
            worked_out = self.rule.coefficients(float(self._step), rate, *others, *self._scalars[place])
            self._scalars[place] = list(worked_out[: len(self.rule.scalars)])
            rows.append(tuple(worked_out[len(self.rule.scalars) :]))
        if rows != self._rows or not self._columns:
            table = torch.tensor(rows, dtype=torch.float64)[self._which].to(device, dtype)
            self._rows, self._columns = rows, [column.unsqueeze(1) for column in table.unbind(1)]
        return self._columns

    def _trust(self, tensors: Sequence[Tensor], columns: Sequence[Tensor], which: Tensor) -> Tensor:
        """A layer-wise rule's ratio for each run and tensor, as (runs, numbers).

        A ratio is worked out from two norms by ordinary code, with branches: it is called once a run and tensor.
        """
        assert self.rule.measure is not None
        assert self.rule.trust is not None
        norms = [
            torch.stack(
                [
                    part.double().square().sum(dim=1).sqrt()
                    for part in measured.split(self._sizes.tolist(), dim=1)
                ],
                dim=1,
            ).tolist()
            for measured in self.rule.measure(*tensors, *columns)
        ]
        ratios = [
            [self.rule.trust(a, b, *self._rows[place]) for a, b in zip(first, second, strict=True)]
            for place, first, second in zip(which.tolist(), *norms, strict=True)
        ]
        like = tensors[0]
        found = torch.tensor(ratios, dtype=torch.float64).to(like.device, like.dtype)
        return found.repeat_interleave(self._sizes.to(like.device), dim=1)


class KernelRuleGroup(RuleGroup):
    """The same by the Triton kernels that step an optimizer's parameters: to them a run is a tensor, or several.

    Step counts, scalars and coefficients lie on the device, so nothing is waited for, and a run's bits do not depend on
    the others.
    """

    may_be_captured = True

    def __init__(
        self,
        rule: Rule,
        hyperparameters: Sequence[dict[str, float]],
        sizes: Sequence[int],
        courses: Sequence[Course | None],
    ) -> None:
        super().__init__(rule, hyperparameters, sizes, courses)
        self._own = [list(own.values()) for own in hyperparameters]
        self._courses = list(courses)
        # Layer-wise rules are to see each tensor, others a run's numbers as one.
        self._parts = list(sizes) if rule.measure is not None else [sum(sizes)]
        self._counts: Tensor | None = None
        self._numbers = torch.empty(0)  # the scalars, (runs, tensors, scalars)
        self._part: Part | None = None
        self._parameters_at = self._gradients_at = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these runs alone."""
        super().keep(rows)
        self._own = [self._own[row] for row in rows]
        self._courses = [self._courses[row] for row in rows]
        self._part = None
        if self._counts is not None:
            at = torch.tensor(rows, dtype=torch.int64).to(self._counts.device)
            self._counts, self._numbers = self._counts[at], self._numbers[at]

    def update(self, parameters: Tensor, gradients: Tensor) -> None:
        """One step, in place; see :meth:`RuleGroup.update`."""
        if self._slots is None:
            self._slots = self._at_first(parameters, gradients)
            self._begin(parameters)
        if self._part is None or self._parameters_at != parameters.data_ptr():
            self._arrange(parameters)
        assert self._part is not None
        if self._gradients_at != gradients.data_ptr():
            self._gradients_at = gradients.data_ptr()
            starts = np.cumsum([0, *self._parts[:-1]])
            places = np.arange(len(gradients))[:, None] * gradients.stride(0) + starts
            self._part.point_at((gradients.data_ptr() + gradients.itemsize * places).ravel())
        if self._factors is not None:
            assert self._counts is not None
            steps = self._counts.view(-1).long()  # those behind; on the device, so that it may be captured
            self._hyper[:, 0] = self._rates * self._factors[self._whose, steps]
        self._part.step(self.rule, self._hyper, self._nonfinite, counts=True)

    def _begin(self, parameters: Tensor) -> None:
        """Steps not yet counted, and the scalars as they begin, for each run and tensor."""
        device, shape = parameters.device, (len(self), len(self._parts))
        self._counts = torch.zeros(shape, dtype=torch.float32, device=device)
        firsts = torch.tensor([self._scalars[which] for which in self._which.tolist()], dtype=torch.float64)
        self._numbers = firsts[:, None].repeat(1, shape[1], 1).to(device)
        self._nonfinite = torch.zeros((), dtype=torch.int32, device=device)

    def _arrange(self, parameters: Tensor) -> None:
        """Tell the kernels where everything lies."""
        assert self._slots is not None
        assert self._counts is not None
        split = [[row.split(self._parts) for row in tensor] for tensor in (parameters, *self._slots)]
        rows = [columns for runs in zip(*split, strict=True) for columns in zip(*runs, strict=True)]
        counters = [
            (count, *numbers)
            for count, numbers in zip(self._counts.view(-1), self._numbers.flatten(0, 1), strict=True)
        ]
        kind = str(parameters.dtype).removeprefix("torch.")
        layout = Layout(kind, (kind,) * len(self._slots))
        self._part = Part(self.rule, layout, range(len(rows)), rows, counters, [0] * len(rows), 1)
        self._parameters_at, self._gradients_at = parameters.data_ptr(), 0
        hyper = torch.tensor(self._own, dtype=torch.float64).repeat_interleave(len(self._parts), dim=0)
        self._hyper = hyper.to(parameters.device)
        self._lay_out_courses(parameters.device)

    def _lay_out_courses(self, device: torch.device) -> None:
        """The factor of every step, a row a schedule, where any is not constant."""
        distinct = list(dict.fromkeys(self._courses))
        self._factors: Tensor | None = None
        if distinct == [None]:
            return
        longest = max(course.num_steps for course in distinct if course is not None)
        table = torch.ones(len(distinct), longest, dtype=torch.float64)
        for row, course in zip(table, distinct, strict=True):
            if course is not None:
                own = [course.factor(step) for step in range(course.num_steps)]
                row[: course.num_steps] = torch.tensor(own, dtype=torch.float64)
        which = torch.tensor([distinct.index(course) for course in self._courses])
        self._factors = table.to(device)
        self._whose = which.repeat_interleave(len(self._parts)).to(device)
        self._rates = self._hyper[:, 0].clone()


def rule_group(
    rule: Rule,
    hyperparameters: Sequence[dict[str, float]],
    sizes: Sequence[int],
    like: Tensor,
    courses: Sequence[Course | None] | None = None,
) -> RuleGroup:
    """Runs of one rule on weights like these: on a GPU by its kernels, if the rule has a form there."""
    in_kernels = runs_on(like) and like.is_floating_point() and has_kernels(rule)
    kind = KernelRuleGroup if in_kernels else RuleGroup
    return kind(rule, hyperparameters, sizes, courses or [None] * len(hyperparameters))

"""What all optimizers share: one step over the parameters, through the fused kernel or the reference."""

from __future__ import annotations

import inspect
import math
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, reduce
from itertools import chain
from typing import Any, TypedDict, get_args

import torch
from torch import Tensor
from torch._compile import _disable_dynamo  # torch.compiler's would import the compiler here and now
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from steepest.backends.cpu_storage import Layout
from steepest.errors import InputError, arguments_of, near_names
from steepest.optim.gpu import GpuTable, has_kernels, on_one_gpu
from steepest.optim.rule import Rule
from steepest.optim.sharded import all_finite, is_sharded, over_all_parts, own_parts
from steepest.optim.storage import CODED, Rounding, StateType, Storage
from steepest.optim.table import GroupTable, Part, StepTable

__all__ = ["FusedStep", "OptimizerSwitches", "convention_of"]


class OptimizerSwitches(TypedDict, total=False):
    """Keyword-only switches of every optimizer; left out, an optimizer does as torch's.

    * ``skip_nonfinite`` (default ``False``): a step in which any gradient holds a NaN or an infinity changes
      nothing, neither parameters nor state nor step counts, and is counted in ``num_skipped_steps``. Counter
      and switch go with a copied or pickled optimizer; ``state_dict()`` holds neither, so that torch's class
      loads it.
    * ``state_dtype`` (default ``None``): the type in which averages are kept. ``None`` is the parameters' own,
      ``torch.float32`` keeps the digits that half-precision parameters lack, ``torch.bfloat16`` takes 2 bytes a number,
      ``"8bit"`` one and two more for every 256. The last two are rounded at random, so that averages which move by less
      than a place move all the same; equal runs draw equal numbers.
    * ``rounding`` (default ``"nearest"``): of bfloat16 and float16 parameters. ``"stochastic"``: at random, right on
      average. ``"kahan"``: what a rounding loses is kept beside the parameter, in its type, and added in the next
      step. With ``"nearest"``, steps below half a place are lost.
    * ``in_backward`` (default ``False``): a parameter is stepped as soon as its gradient is there, which is then let
      go, so that the gradients are never all there at once. ``step()`` has nothing left to do. One backward pass is one
      step: gradients are not summed over passes, clipped or unscaled.
    """

    skip_nonfinite: bool
    state_dtype: StateType
    rounding: Rounding
    in_backward: bool


_KNOWN = tuple(OptimizerSwitches.__annotations__)
_is_profiled: Callable[[], bool] = torch._C._autograd._profiler_enabled
_STORED = {"state_dtype": None, "rounding": "nearest"}  # options of a group, and what they are if it has none


class FusedStep:
    """Mixed into a ``torch.optim`` class: replaces its step by the rule's, keeps everything else.

    Subclasses say which rule a parameter group follows and give its hyperparameters. Whatever torch alone
    can do (sparse gradients, complex parameters, ``differentiable``, ``capturable``) is left to torch.
    """

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    _optimizer_step_pre_hooks: dict[int, Any]
    _optimizer_step_post_hooks: dict[int, Any]
    state: defaultdict[Tensor, Any]
    counts_steps = True  # torch keeps "step" in this optimizer's state
    skip_nonfinite = False
    in_backward = False
    _num_skipped = 0
    _nonfinite: Tensor | None = None  # the mark of a GPU's step, and how many it has left out
    _skipped_on_gpu: Tensor | None = None

    # torch's fused kernels unscale gradients themselves, and GradScaler leaves it to them; this step does not.
    _step_supports_amp_scaling = property(lambda self: False, lambda self, wanted: None)

    @property
    def num_skipped_steps(self) -> int:
        """Steps left out for a NaN or infinite gradient; where a GPU counts them, this waits for it."""
        there = 0 if self._skipped_on_gpu is None else int(self._skipped_on_gpu)
        return self._num_skipped + there

    @num_skipped_steps.setter
    def num_skipped_steps(self, number: int) -> None:
        self._num_skipped, self._skipped_on_gpu = number, None

    @cached_property
    def _tables(self) -> dict[int, GroupTable | GpuTable]:
        """Where the tensors of a group lay in the last step, by the identity of its list of parameters."""
        return {}

    @cached_property
    def _in_graphs(self) -> list[GpuTable]:
        """What CUDA graphs that captured a step read whenever they are replayed, also when it no longer holds."""
        return []

    @cached_property
    def _alone(self) -> dict[Tensor, tuple[int, list[Tensor]]]:
        """Of each parameter that is stepped in the backward pass the place of its group, and a list of it alone."""
        return {}

    @staticmethod
    def rule_of(group: dict[str, Any]) -> Rule:
        """The rule a parameter group follows."""
        raise NotImplementedError

    @staticmethod
    def hyperparameters_of(group: dict[str, Any]) -> dict[str, float]:
        """The rule's hyperparameters, by name, read from the group."""
        raise NotImplementedError

    @staticmethod
    def torch_has(group: dict[str, Any]) -> bool:
        """Whether torch's own optimizer knows all options of the group."""
        return True

    @staticmethod
    def state_from_torch(group: dict[str, Any], state: dict[str, Any]) -> None:
        """Bring a parameter's state from torch's form into that of the group's convention, where the two differ."""

    def _set_switches(self, switches: Mapping[str, Any]) -> None:
        """Take the switches, after torch's constructor.

        Raises:
            TypeError: there is no such keyword.
            InputError: the keyword is known, its value is not.
        """
        name = type(self).__name__
        for word in switches:
            if word not in _KNOWN:
                raise TypeError(
                    f"{name}: there is no keyword {word!r}{near_names(word, (*arguments_of(type(self)), *_KNOWN))}"
                )
        skip = switches.get("skip_nonfinite", False)
        if not isinstance(skip, bool):
            raise InputError(f"{name}: skip_nonfinite is {skip!r}; it is True or False.")
        self.skip_nonfinite = skip
        stored = {word: switches[word] for word in _STORED if word in switches}
        if stored:
            self._set_options(**stored)
            for group in self.param_groups:
                self._check_storage(group)
        self.in_backward = switches.get("in_backward", False)
        if not isinstance(self.in_backward, bool):
            raise InputError(f"{name}: in_backward is {self.in_backward!r}; it is True or False.")
        if self.in_backward and skip:
            raise InputError(
                f"{name}: in_backward steps before all gradients are known, and skip_nonfinite looks at all; leave one "
                "of the two out."
            )
        self._listen(self.param_groups)

    def _storage(self, group: Mapping[str, Any]) -> Storage:
        """How a group is kept; a loaded one of torch's does not say."""
        told = {word: group.get(word, self.defaults.get(word, usual)) for word, usual in _STORED.items()}
        return (
            Storage() if told == _STORED else Storage.of(type(self).__name__, self.rule_of(dict(group)), told)
        )

    def _check_storage(self, group: Mapping[str, Any]) -> None:
        storage = self._storage(group)
        for parameter in group["params"]:
            storage.check(type(self).__name__, parameter)

    def _counts(self, storage: Storage) -> bool:
        """Whether steps are counted: as torch does, and wherever a step's random numbers hang on it."""
        return self.counts_steps or not storage.is_plain

    def _listen(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Step the last groups' parameters in the backward pass, for as long as this optimizer lives."""
        if not self.in_backward:
            return
        method = weakref.WeakMethod(self._step_in_backward)

        def hook(parameter: Tensor) -> None:
            step = method()
            if step is not None:
                step(parameter)

        first = len(self.param_groups) - len(groups)
        for place, parameter in ((k, p) for k, group in enumerate(groups, first) for p in group["params"]):
            if not parameter.requires_grad:
                raise InputError(
                    f"{type(self).__name__}: in_backward is for parameters that take part in the backward pass; one of "
                    f"shape {tuple(parameter.shape)} has requires_grad=False."
                )
            if parameter in self._alone:
                raise InputError(
                    f"{type(self).__name__}: in_backward is for parameters that are listed once; one of shape "
                    f"{tuple(parameter.shape)} is listed twice."
                )
            self._alone[parameter] = (place, [parameter])
            parameter.register_post_accumulate_grad_hook(hook)

    @torch.no_grad()
    def _step_in_backward(self, parameter: Tensor) -> None:
        place, own = self._alone[parameter]
        alone = {**self.param_groups[place], "params": own}
        if not self._is_ready(alone):
            raise InputError(
                f"{type(self).__name__}: in_backward is for dense, real parameters and gradients."
            )
        self._step_group(alone)
        parameter.grad = None

    def _set_options(self, **options: Any) -> None:
        """Note options that torch does not know in every group without them, after torch's constructor.

        Raises:
            InputError: there is no rule for a group's options.
        """
        self.defaults.update(options)
        for group in self.param_groups:
            for name, value in options.items():
                group.setdefault(name, value)
            self.rule_of(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; as torch's.

        Torch guards its method against torch.compile, and the guard imports the compiler on first use: two
        seconds that every program with an optimizer would pay. Without a compiler there is nothing to guard.
        """
        add = torch.optim.Optimizer.add_param_group
        if "torch._dynamo" not in sys.modules:
            add = inspect.unwrap(add)
        add(self, param_group)  # type: ignore[arg-type]
        self._check_storage(self.param_groups[-1])
        self._listen(self.param_groups[-1:])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, ours or torch's; as torch's, but nothing is narrowed, and no option of ours is lost.

        What torch's groups do not have (a convention, say) stays as it is here, and torch's averages are brought into
        its form. Torch casts state to the parameter's type. Here state in a wider type than its parameter's (float32
        beside bfloat16) keeps it, and is stepped in it; 8-bit state stays what it is. The next step brings it into
        the form that ``state_dtype`` asks for.
        """
        loaded: list[dict[str, Any]] = []  # what hooks made of the dictionary
        groups = self.param_groups
        before = self.register_load_state_dict_pre_hook(  # type: ignore[attr-defined]
            lambda _, given: loaded.append(given)
        )
        after = self.register_load_state_dict_post_hook(  # type: ignore[attr-defined]
            lambda _: self._complete(loaded[0], groups), prepend=True
        )
        self._tables.clear()
        try:
            super().load_state_dict(state_dict)  # type: ignore[misc]
        finally:
            before.remove()
            after.remove()

    def _complete(self, given: dict[str, Any], before: Sequence[Mapping[str, Any]]) -> None:
        """What torch's loading leaves out: wide state, and the options that the groups before had and torch has not."""
        self._widen(given)
        for group, old in zip(self.param_groups, before, strict=True):
            is_torchs = "convention" not in group
            # And no others: a scheduler's marks go with the rate that was loaded.
            for word in (*self.defaults, *_STORED):
                if word in old:
                    group.setdefault(word, old[word])
            if is_torchs and group.get("convention", "torch") != "torch":
                for parameter in group["params"]:
                    self.state_from_torch(group, self.state.get(parameter, {}))

    def _widen(self, given: dict[str, Any]) -> None:
        names = chain.from_iterable(group["params"] for group in given["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for name, parameter in zip(names, parameters, strict=True):
            for key, value in given["state"].get(name, {}).items():
                if not isinstance(value, Tensor) or key == "step":
                    continue
                is_wider = torch.promote_types(value.dtype, parameter.dtype) != parameter.dtype
                if (is_wider and value.is_floating_point()) or key.endswith(CODED):
                    self.state[parameter][key] = value.to(parameter.device)

    def __getstate__(self) -> dict[str, Any]:
        kept: Any = super().__getstate__()
        own = {word: getattr(self, word) for word in ("skip_nonfinite", "in_backward")}
        return {**kept, **own, "_num_skipped": self.num_skipped_steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        is_copy = "param_groups" not in self.__dict__  # and not a state that was loaded
        super().__setstate__(state)  # type: ignore[misc]
        if is_copy:
            self._listen(self.param_groups)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient.

        Args:
            closure: re-evaluates the model and returns the loss, which is then returned.
        """
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or _is_profiled()
            or torch.compiler.is_compiling()
        ):
            return _watched_step(self) if closure is None else _watched_step(self, closure)
        return self._unwatched_step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # or torch would look for hooks and profilers at each step anew

    def _unwatched_step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            _step_outside_graph(self)
        else:
            self._step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Let go of all gradients, or set them to 0; as torch's."""
        if not set_to_none or _is_profiled() or torch.compiler.is_compiling():
            super().zero_grad(set_to_none)  # type: ignore[misc]
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _step(self) -> None:
        if len(self._tables) > len(self.param_groups) + len(self._alone):  # lists of parameters were replaced
            self._tables.clear()
        if self.skip_nonfinite and self._are_on_gpu():
            self._step_where_finite()
        elif self.skip_nonfinite and not all_finite(self._gradients()):
            self._num_skipped += 1
        elif all(map(self._is_ready, self.param_groups)):
            for group in self.param_groups:
                self._step_group(group)
        else:
            self._torch_step()

    def _are_on_gpu(self) -> bool:
        """Whether a GPU knows every group, as it does after the first step, and can tell by itself what is finite."""
        known = [self._tables.get(id(group["params"])) for group in self.param_groups]
        return all(
            isinstance(table, GpuTable)
            and table.nonfinite is self._nonfinite
            and self._is_ready(group)
            and self._tables.get(id(group["params"])) is table  # it still holds
            for table, group in zip(known, self.param_groups, strict=True)
        )

    @torch.no_grad()
    def _step_where_finite(self) -> None:
        """Each group's step, if all gradients are finite, which the GPU finds out and heeds itself."""
        tables = [table for table in self._tables.values() if isinstance(table, GpuTable)]
        mark = self._mark(tables[0].nonfinite.device)
        mark.zero_()
        for table in tables:
            table.find_nonfinite()
        for group in self.param_groups:
            self._step_group(group)
        if self._skipped_on_gpu is None:
            self._skipped_on_gpu = torch.zeros((), dtype=torch.int64, device=mark.device)
        self._skipped_on_gpu += mark
        mark.zero_()

    def _mark(self, device: torch.device) -> Tensor:
        if self._nonfinite is None or self._nonfinite.device != device:
            self._nonfinite = torch.zeros((), dtype=torch.int32, device=device)
        return self._nonfinite

    def _gradients(self) -> Iterable[Tensor]:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    yield parameter.grad

    def _has_torch_step(self) -> bool:
        own_step: bool = super().step.__func__ is not torch.optim.Optimizer.step  # type: ignore[misc]
        return own_step

    def _torch_has_all(self) -> bool:
        return all(self.torch_has(group) and self._storage(group).is_plain for group in self.param_groups)

    def _torch_step(self) -> None:
        torch_step = super().step  # type: ignore[misc]
        self._tables.clear()  # which keep gradients for a step that does not come
        if not self._has_torch_step():
            raise InputError(f"{type(self).__name__} is for dense, real parameters and gradients.")
        if not self._torch_has_all():
            raise InputError(
                f"{type(self).__name__}: these options are for dense, real parameters and gradients; "
                "sparse and complex ones take torch's own options alone."
            )
        if getattr(torch_step, "hooked", False):  # the hooks are called around this step already
            torch_step = torch_step.__wrapped__.__get__(self)
        torch_step()

    def _is_ready(self, group: dict[str, Any]) -> bool:
        """Whether a group takes the rule's step; addresses that no longer hold are forgotten."""
        known = self._tables.get(id(group["params"]))
        if known is None:
            return self._is_ours(group)
        if known.holds(group["params"], self.state):
            captured = group.get("capturable") and not known.may_be_captured
            return not (group.get("differentiable") or captured)
        del self._tables[id(group["params"])]
        return self._is_ours(group)

    def _is_ours(self, group: dict[str, Any]) -> bool:
        """Whether a group has nothing that is left to torch."""
        # A parameter listed twice is stepped twice, and in SGD's first step both times as if it were the first.
        is_torchs = _repeats(group["params"]) and self._has_torch_step() and self._torch_has_all()
        return _is_plain(group) and not is_torchs

    def _step_group(self, group: dict[str, Any]) -> None:
        where = id(group["params"])
        known = self._tables.pop(where, None)
        if known is None or not known.step(self, group):
            known = self._step_anew(group)
        if known is not None:
            self._tables[where] = known

    @torch.no_grad()
    def _step_anew(self, group: dict[str, Any]) -> GroupTable | GpuTable | None:
        """The step of a group of which nothing is known; its table, if all of it goes through the kernel."""
        given = [parameter for parameter in group["params"] if parameter.grad is not None]
        if _repeats(given):
            for parameter in given:  # one step after the other, as torch does
                self._step_anew({**group, "params": [parameter]})
            return None
        if on_one_gpu(given) and has_kernels(self.rule_of(group)):
            known = GpuTable(self, group, given, self._mark(given[0].device))
            known.step(self, group)
            return known
        rule, storage = self.rule_of(group), self._storage(group)
        hyper = self.hyperparameters_of(group)
        together: defaultdict[tuple[tuple[float, ...], Layout], list[int]] = defaultdict(list)
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        streams = {} if storage.is_plain else self._streams()
        rows = []
        lasting = bool(parameters)
        for i, parameter in enumerate(parameters):
            step, scalars = self._advance(parameter, rule, storage, hyper)
            state = self.state.get(parameter, {})
            tensors = [parameter, parameter.grad, *(state[name] for name in storage.entries(rule, parameter))]
            if is_sharded(parameter):
                lasting = False  # their parts are other tensors each time they are asked for
                tensors = own_parts(type(self).__name__, parameter, parameter.grad, tensors[2:])
            rows.append(tensors)
            is_part_of_layer = is_sharded(parameter) and rule.measure is not None
            on_cpu = tensors[0].device.type == "cpu"  # a GPU steps whole groups, which this one is not
            layout = storage.layout(rule, tensors) if on_cpu and not is_part_of_layer else None
            if layout is not None:
                together[(step, *scalars), layout].append(i)
            elif storage.is_plain:
                lasting = False
                numbers = [*hyper.values(), *scalars]
                self._keep(rule, [parameter], _reference_step(rule, step, numbers, tensors, parameter))
            elif is_part_of_layer:
                raise InputError(
                    f"{type(self).__name__}: state_dtype and rounding are not for layer-wise steps of parameters "
                    "in parts (DTensor); leave them out."
                )
            else:
                storage.check(type(self).__name__, parameter)
                raise InputError(
                    f"{type(self).__name__}: state_dtype and rounding need gradients in the CPU's memory that lie as "
                    f"their parameters do; that of a parameter of shape {tuple(parameter.shape)} does not."
                )
        parts = []
        for ((step, *before), layout), owners in together.items():
            stepped = [parameters[i] for i in owners]
            table = StepTable(rule, layout, [rows[i] for i in owners], [streams.get(p, 0) for p in stepped])
            self._keep(rule, stepped, table.step(step, [*hyper.values(), *before]))
            torch.autograd.graph.increment_version(stepped)
            parts.append(Part(table, owners, storage.entries(rule, stepped[0])))
        counts = self._counts(storage)
        if lasting and all(
            GroupTable.can_keep(rule, self.state.get(p, {}), counts_steps=counts) for p in parameters
        ):
            return GroupTable(rule, storage, parameters, parts, self.state, counts_steps=counts)
        return None

    def _streams(self) -> dict[Tensor, int]:
        """For every parameter its stream of random numbers: its place among all."""
        return {
            p: k for k, p in enumerate(chain.from_iterable(group["params"] for group in self.param_groups), 1)
        }

    def _advance(
        self, parameter: Tensor, rule: Rule, storage: Storage, hyper: Mapping[str, float]
    ) -> tuple[float, tuple[float, ...]]:
        """Make the state on the first step, count the step; its number, from 1, and the scalars so far."""
        first = float(self._begin(parameter, rule, storage, hyper))
        if not self._counts(storage):
            state = self.state.get(parameter, {})
            return first, tuple([float(state[name]) for name in rule.scalars])
        state = self.state[parameter]
        state["step"] += 1
        return float(state["step"]), tuple([float(state[name]) for name in rule.scalars])

    def _begin(
        self,
        parameter: Tensor,
        rule: Rule,
        storage: Storage,
        hyper: Mapping[str, float],
        *,
        on_device: bool = False,
    ) -> int:
        """Make the state that is missing; 1 for the first step, else 2: where no steps are counted, only that differs.

        Args:
            on_device: counts and scalars lie where the parameter does, and not in the CPU's memory.
        """
        counts = self._counts(storage)
        if not rule.slots and not rule.scalars and not counts:
            return 1  # nothing to remember: as torch, no entry in the state
        state = self.state[parameter]
        missing = [
            name
            for name in rule.slots + rule.scalars
            if state.get(name) is None and name + CODED not in state
        ]
        for name in missing:
            start = rule.begins_at(name, hyper)
            state[name] = _scalar(start) if name in rule.scalars else _slot(start, parameter)
        storage.keep(rule, state, parameter)
        if counts:
            state["step"] = _count(state.get("step", 0.0))
        if on_device:
            for name in (*("step",) * counts, *rule.scalars):
                kind = torch.float32 if name == "step" else torch.float64
                there = torch.as_tensor(state[name], dtype=kind, device=parameter.device)
                state[name] = there.reshape(())
        return 1 if missing else 2

    def _keep(self, rule: Rule, parameters: list[Tensor], scalars: list[float]) -> None:
        """Note the new scalars."""
        for name, value in zip(rule.scalars, scalars, strict=True):
            for parameter in parameters:
                self.state[parameter][name] = _scalar(value)


@torch.optim.Optimizer.profile_hook_step
def _watched_step(optimizer: FusedStep, closure: Callable[[], Any] | None = None) -> Any:
    """The step with torch's hooks around it, and a mark for its profiler."""
    return optimizer._unwatched_step(closure)


@_disable_dynamo
def _step_outside_graph(optimizer: FusedStep) -> None:
    """The step while torch compiles what calls it: one kernel already, of which no graph could make a better one."""
    optimizer._step()


def convention_of(name: str, group: Mapping[str, Any], known: Any, *torchs_own: str) -> str:
    """A group's convention, of those in the literal type ``known``; torch's if it has none.

    Raises:
        InputError: an unknown one, or one beside an option of torch's that it has no form for.
    """
    given = str(group.get("convention", "torch"))
    if given not in get_args(known):
        raise InputError(f"{name}: convention is {given!r}; choose from {', '.join(get_args(known))}.")
    for word in ("differentiable", "capturable", *torchs_own) if given != "torch" else ():
        if group.get(word):
            raise InputError(
                f"{name}: {word} is {group[word]}, which convention={given!r} has no form for; leave it out."
            )
    return given


def _count(step: Any) -> Tensor:
    # float32 whatever torch's default is: a narrower type stops counting (bfloat16 at 256), and kernels read no other.
    if isinstance(step, Tensor):
        return step.to(torch.float32)
    return torch.tensor(float(step), dtype=torch.float32, device="cpu")


def _scalar(value: float | str) -> Tensor:
    # float64 also where torch has float32: it is a product or sum over all steps.
    return torch.tensor(float(value), dtype=torch.float64, device="cpu")


def _slot(start: float | str, parameter: Tensor) -> Tensor:
    slot = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    if start == "gradient":
        assert parameter.grad is not None
        return slot.copy_(parameter.grad)
    if start == "parameter":
        return slot.copy_(parameter)
    return slot.fill_(float(start)) if start else slot


def _repeats(parameters: list[Tensor]) -> bool:
    return len(set(parameters)) < len(parameters)


def _is_plain(group: dict[str, Any]) -> bool:
    if group.get("differentiable"):
        return False
    if group.get("capturable") and not on_one_gpu([p for p in group["params"] if p.grad is not None]):
        return False
    return not any(
        parameter.is_complex() or (parameter.grad is not None and parameter.grad.is_sparse)
        for parameter in group["params"]
    )


def _reference_step(
    rule: Rule, step: float, numbers: list[float], tensors: list[Tensor], parameter: Tensor
) -> list[float]:
    """The step in torch operations; the new scalars. ``tensors`` may be this process's part of the parameter alone."""
    worked_out = rule.coefficients(step, *numbers)
    scalars, factors = worked_out[: len(rule.scalars)], worked_out[len(rule.scalars) :]
    # In float32 at least, as torch's kernels do, and in the widest type the state has.
    compute = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    wide = [t.to(compute) for t in tensors]
    if rule.measure is not None and rule.trust is not None:
        squares = torch.stack([_sum_of_squares(x) for x in rule.measure(*wide, *factors)])
        if is_sharded(parameter):
            squares = over_all_parts(squares, parameter)
        factors = (*factors, rule.trust(*map(math.sqrt, squares.tolist()), *factors))
    new = rule.update(*wide, *factors)
    for tensor, value in zip([tensors[0], *tensors[2:]], new, strict=True):
        tensor.copy_(value)
    return list(scalars)


def _sum_of_squares(x: Tensor) -> Tensor:
    widest = torch.float32 if x.device.type == "mps" else torch.float64  # where there is no float64
    return x.to(widest).square().sum()  # torch's sum is pairwise, its norm is not

"""A user's update rule as an optimizer class, in the same fused kernel as the library's own."""

from __future__ import annotations

import inspect
import keyword
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any, ClassVar

import torch
from numba.core.errors import NumbaError
from torch import Tensor

from steepest.backends import cpu_optim, reference
from steepest.errors import InputError
from steepest.naming import class_name
from steepest.optim.fused import FusedStep, OptimizerSwitches
from steepest.optim.rule import OptimizerEntry, Rule
from steepest.optim.storage import CODED, LOST

__all__ = ["from_rule"]

# What the constructor, a group, its state, or torch's loading and schedules have of their own under these names.
_RESERVED = (
    "self", "params", "switches", *OptimizerSwitches.__annotations__,
    "betas", "capturable", "differentiable", "initial_lr", "param_names",
    "step", LOST,
)  # fmt: skip
_WORDS = ", ".join(word for word in reference.__all__ if word != "compute_dtype")
_MAY_USE = (
    f"write it in plain Python with + - * / **, numbers, and from steepest.backends.reference: {_WORDS}"
)


def from_rule(
    update: Callable[..., tuple[Any, ...]],
    state: Sequence[str] = (),
    defaults: Mapping[str, float] | None = None,
    *,
    coefficients: Callable[..., tuple[float, ...]] | None = None,
    initial: Mapping[str, float | str] | None = None,
    scalars: Sequence[str] = (),
    measure: Callable[..., tuple[Any, Any]] | None = None,
    trust: Callable[..., float] | None = None,
    name: str | None = None,
    rates: tuple[float, float] = (1e-4, 1.0),
) -> type[torch.optim.Optimizer]:
    """An optimizer class from an update rule: ``update(p, g, *state, *hyperparameters) -> (p, *state)``.

    The class is called as the rule: ``heavy_ball`` gives ``HeavyBall``; bound to that name in a module, it and its
    optimizers can be pickled. The rule is elementwise. It runs fused and in SIMD code on contiguous float32 and
    float64 parameters on the CPU, as tensor operations elsewhere, and in the native engine once it has a ``name``.

    Args:
        update: takes the parameter, its gradient, each state slot, then each hyperparameter in the order of
            ``defaults`` (with ``coefficients``: each number that gives); returns a tuple of the new parameter
            and the new slots.
        state: names of the slots that every parameter keeps.
        defaults: hyperparameters and their defaults, ``lr`` among them; default ``{"lr": 1e-3}``.
        coefficients: ``coefficients(step, *hyperparameters, *scalars)``, once a step, counted from 1.0, in
            float64: a tuple of the new scalars, then of what ``update`` takes. Its arguments bear those names.
        initial: where a slot begins: a number, a hyperparameter's name, ``"parameter"`` or ``"gradient"``;
            where a scalar begins: a number or a hyperparameter's name. Default 0.
        scalars: names of numbers that every parameter keeps.
        measure, trust: for layer-wise rules, both: ``measure(p, g, *state, *coefficients)`` gives two values an
            element, and of their Euclidean norms over the tensor ``trust(norm_a, norm_b, *coefficients)`` makes
            one number, the last argument of ``update``.
        name: a word to enter it in ``OPTIMIZERS`` under, so that comparisons take it by name.
        rates: the ends of a comparison's first grid of learning rates.

    Raises:
        InputError: names, numbers of arguments or of returned values do not fit each other, the name is taken,
            or a function uses what cannot be compiled.

    Numerics: numbers written in ``update`` are float64 and widen what they meet; numbers that come as
    hyperparameters are rounded to the parameter's type first.

    >>> import torch
    >>> def heavy_ball(p, g, b, lr, momentum):
    ...     b = momentum * b + g
    ...     return p - lr * b, b
    >>> HeavyBall = from_rule(heavy_ball, ["b"], {"lr": 0.5, "momentum": 0.9})
    >>> p = torch.nn.Parameter(torch.tensor([1.0]))
    >>> p.grad = torch.tensor([1.0])
    >>> HeavyBall([p], lr=0.25).step(); float(p)
    0.75
    """
    hyper = {"lr": 1e-3} if defaults is None else dict(defaults)
    for given, words in (("state", state), ("scalars", scalars)):
        if isinstance(words, str):
            raise InputError(f"from_rule: {given} is the word {words!r}; give a list of names: [{words!r}].")
    _check_names(tuple(state), tuple(scalars), hyper, initial or {})
    for word, function in {
        "update": update, "coefficients": coefficients, "measure": measure, "trust": trust
    }.items():  # fmt: skip
        _check_function(word, function)
    if (measure is None) != (trust is None):
        raise InputError("from_rule: measure and trust go together; give both or neither.")
    if scalars and coefficients is None:
        raise InputError("from_rule: scalars are advanced by coefficients; give coefficients too.")
    rule = Rule(
        update, coefficients or _as_given, tuple(state), tuple(hyper), dict(initial or {}), tuple(scalars),
        measure, trust,
    )  # fmt: skip
    _check_rule(rule, hyper)
    if name is not None:
        _check_entry(name, rates)
    cls = _make(name or update.__name__, rule, hyper)
    if name is not None:
        _enter(name, cls, hyper["lr"], rates)
    return cls


def _as_given(step: float, *hyperparameters: float) -> tuple[float, ...]:
    return hyperparameters[:]  # Numba hands on an ordinary tuple, but not its kind for *arguments


class _FromRule(FusedStep, torch.optim.Optimizer):
    rule: ClassVar[Rule]
    __signature__: ClassVar[inspect.Signature]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        given = self.__signature__.bind(*arguments, **keywords)
        given.apply_defaults()
        switches, params = given.arguments.pop("switches"), given.arguments.pop("params")
        super().__init__(params, given.arguments)
        for group in self.param_groups:
            for word in self.rule.hyperparameters:
                _check_number(f"{type(self).__name__}: {word}", group[word])
            if group["lr"] < 0:
                raise InputError(f"{type(self).__name__}: lr is {group['lr']}; it must not be below 0.")
        self._set_switches(switches)

    @classmethod
    def rule_of(cls, group: dict[str, Any]) -> Rule:
        return cls.rule

    @classmethod
    def hyperparameters_of(cls, group: dict[str, Any]) -> dict[str, float]:
        return {name: float(group[name]) for name in cls.rule.hyperparameters}


def _make(name: str, rule: Rule, hyper: Mapping[str, float]) -> type[torch.optim.Optimizer]:
    """The class of a rule; its name is the rule's, as ``heavy_ball`` gives ``HeavyBall``.

    It belongs to the module of ``update``: there ``HeavyBall = from_rule(heavy_ball, ...)`` can be pickled.
    """
    one, many = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_KEYWORD
    parameters = [inspect.Parameter(word, one, default=value) for word, value in hyper.items()]
    signature = inspect.Signature(
        [inspect.Parameter("params", one), *parameters, inspect.Parameter("switches", many)]
    )
    title = class_name(name)
    if not title.isidentifier():  # of a lambda
        title = "FromRule"
    body = {
        "rule": rule,
        "__signature__": signature,
        "__doc__": rule.update.__doc__ or f"The optimizer {title}, from a rule.",
        "__module__": rule.update.__module__,
        "__qualname__": title,
    }
    return type(title, (_FromRule,), body)


def _enter(name: str, cls: Any, lr: float, rates: tuple[float, float]) -> None:
    from steepest.optim import OPTIMIZERS

    OPTIMIZERS[name] = OptimizerEntry(
        name=name,
        title=name,
        cls=cls,
        default_lr=lr,
        rates=rates,
        formula=inspect.cleandoc(cls.__doc__).partition("\n")[0],
        source="a rule of your own",
        good_at=(),
        bad_at=(),
        compared_by_default=False,
    )


# --- checks ------------------------------------------------------------------------------------------------


def _check_names(
    state: tuple[str, ...],
    scalars: tuple[str, ...],
    hyper: Mapping[str, float],
    initial: Mapping[str, float | str],
) -> None:
    names = (*state, *scalars, *hyper)
    for word in names:
        if not isinstance(word, str) or not word.isidentifier() or keyword.iskeyword(word):
            raise InputError(f"from_rule: {word!r} is no name; give words such as 'momentum'.")
        if word in _RESERVED or word.endswith(CODED):
            raise InputError(f"from_rule: the name {word!r} is taken by the optimizer itself; give another.")
        if names.count(word) > 1:
            raise InputError(f"from_rule: the name {word!r} is given twice; names of state, scalars and "
                             "defaults must differ.")  # fmt: skip
    if "lr" not in hyper:
        raise InputError(f"from_rule: defaults has {', '.join(hyper) or 'nothing'}; it must have lr too.")
    for word, value in hyper.items():
        _check_number(f"from_rule: the default of {word}", value)
    for word, start in initial.items():
        if word not in (*state, *scalars):
            known = ", ".join((*state, *scalars)) or "none"
            raise InputError(f"from_rule: initial has {word!r}, which is neither state nor scalar ({known}).")
        if isinstance(start, str):
            tensors = ("parameter", "gradient") if word in state else ()
            if start not in (*tensors, *hyper):
                raise InputError(
                    f"from_rule: {word} is to begin at {start!r}; give a number or one of "
                    f"{', '.join((*tensors, *hyper))}."
                )
        else:
            _check_number(f"from_rule: the initial value of {word}", start)


def _check_number(what: str, value: Any) -> None:
    is_tensor = isinstance(value, Tensor) and value.numel() == 1
    if not (is_tensor or isinstance(value, (int, float))) or not math.isfinite(value):
        raise InputError(f"{what} is {value!r}; give a finite number.")


def _check_function(word: str, function: Any) -> None:
    if function is None:
        return
    if not isinstance(function, FunctionType):
        raise InputError(
            f"from_rule: {word} is a {type(function).__name__}; give a plain Python function (def or lambda)."
        )
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if kinds - {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY}:
        raise InputError(f"from_rule: {word} must name its arguments one by one, without *, ** and defaults.")


def _check_rule(rule: Rule, hyper: Mapping[str, float]) -> None:
    """Numbers of arguments and of values, first on tensors, then in the kernel."""
    scalars = rule.scalars_at_first(hyper)
    names: tuple[str, ...] = rule.hyperparameters
    worked_out: Any = tuple(float(value) for value in hyper.values())
    if rule.coefficients is not _as_given:
        _check_arguments("coefficients", rule.coefficients, ("step", *hyper, *rule.scalars))
        worked_out = _tried("coefficients", rule.coefficients, 1.0, *worked_out, *scalars)
        if not isinstance(worked_out, tuple) or len(worked_out) < len(scalars):
            raise InputError(
                f"from_rule: coefficients returned {worked_out!r}; it must return a tuple of numbers, "
                f"the {len(scalars)} new scalars first."
            )
        for value in worked_out:
            _check_number("from_rule: at step 1 and the defaults one of the coefficients", value)
        names = tuple(f"coefficient {i}" for i in range(1, len(worked_out) - len(scalars) + 1))
    factors = worked_out[len(scalars) :]
    tensors = [
        torch.linspace(0.25, 0.75, 3, dtype=torch.float32, device="cpu") for _ in range(2 + len(rule.slots))
    ]
    takes = ("the parameter", "its gradient", *rule.slots, *names)
    if rule.measure is not None and rule.trust is not None:
        _check_arguments("measure", rule.measure, takes)
        pair = _tried("measure", rule.measure, *tensors, *factors)
        _check_values("measure", pair, ("two values an element",) * 2, tensors[0])
        _check_arguments("trust", rule.trust, ("norm a", "norm b", *names))
        ratio = _tried("trust", rule.trust, *(float(value.norm()) for value in pair), *factors)
        _check_number("from_rule: what trust returned", ratio)
        takes, factors = (*takes, "trust's number"), (*factors, ratio)
    _check_arguments("update", rule.update, takes)
    new = _tried("update", rule.update, *tensors, *factors)
    _check_values("update", new, ("the new parameter", *rule.slots), tensors[0])
    try:
        cpu_optim.optimizer_step(rule, "float32")
    except NumbaError as error:
        raise InputError(
            f"from_rule: the rule does not compile ({_last_words(error)}); {_MAY_USE}."
        ) from error


def _check_arguments(word: str, function: Callable[..., Any], takes: tuple[str, ...]) -> None:
    given = tuple(inspect.signature(function).parameters)
    known = {name: place for place, name in enumerate(takes)}
    misplaced = [name for place, name in enumerate(given) if known.get(name, place) != place]
    if len(given) != len(takes) or misplaced:
        raise InputError(
            f"from_rule: {word} takes ({', '.join(given)}); it must take {len(takes)} arguments, in this order: "
            f"{', '.join(takes)}."
        )
    if word == "coefficients" and given[1:] != takes[1:]:
        raise InputError(
            f"from_rule: coefficients takes ({', '.join(given)}); it must take ({', '.join(takes)})."
        )


def _tried(word: str, function: Callable[..., Any], *arguments: Any) -> Any:
    before = [argument.clone() if isinstance(argument, Tensor) else argument for argument in arguments]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy's functions take tensors, on the CPU alone
            result = function(*arguments)
    except Exception as error:
        said = f"{type(error).__name__}: {_last_words(error)}"
        hint = "" if word in ("coefficients", "trust") else f"; {_MAY_USE} (where, in place of if)"
        raise InputError(f"from_rule: {word} failed on a trial ({said}){hint}.") from error
    for name, old, new in zip(inspect.signature(function).parameters, before, arguments, strict=True):
        if isinstance(new, Tensor) and not torch.equal(old, new):
            raise InputError(
                f"from_rule: {word} writes into its argument {name} (as {name} -= ... does to a tensor); write "
                f"{name} = {name} - ... instead."
            )
    return result


def _check_values(word: str, values: Any, wanted: tuple[str, ...], like: Tensor) -> None:
    if not isinstance(values, tuple) or len(values) != len(wanted):
        came = f"{len(values)} values" if isinstance(values, tuple) else f"a {type(values).__name__}"
        raise InputError(
            f"from_rule: {word} returned {came}; it must return a tuple of {len(wanted)}: {', '.join(wanted)}."
        )
    for value in values:
        if not isinstance(value, Tensor) or value.shape != like.shape:
            raise InputError(
                f"from_rule: {word} must give one number an element for each of its values; it gave {value!r}."
            )


def _last_words(error: Exception) -> str:
    """The part of a message that says what is wrong, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line for line in lines if line.startswith(("Unknown", "NameError", "Use of", "No implementation"))
    ]
    return (telling or lines or [type(error).__name__])[0].rstrip(".")


def _check_entry(name: str, rates: tuple[float, float]) -> None:
    from steepest.optim import OPTIMIZERS

    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise InputError(f"from_rule: name is {name!r}; give one word, such as 'my_rule'.")
    if name in OPTIMIZERS:
        raise InputError(f"from_rule: there is an optimizer {name!r} already; choose another name.")
    if len(rates) != 2 or not 0.0 < rates[0] < rates[1] < math.inf:
        raise InputError(f"from_rule: rates is {rates!r}; give two positive numbers, the smaller first.")

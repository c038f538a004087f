"""The generated pages: one for each loss and each optimizer, their indexes and the reference, from the registries.

Nothing here knows a loss or an optimizer by name, and no fact is written twice: what a page says is read from the
formula, the entry, the class's signature and docstring, or measured by calling them.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

import steepest
from steepest import losses, optim, schedules, testing
from steepest.backends import reference
from steepest.errors import InputError
from steepest.explain import Explanation, explain
from steepest.explain.picture import svg
from steepest.explain.signatures import torch_class
from steepest.losses import functional

__all__ = ["SHARED_ARGUMENTS", "entries_of", "first_sentence", "pages", "unnamed_optimizers", "write"]

# Arguments of the functional forms that are the same in all of them, so that no docstring repeats them.
SHARED_ARGUMENTS = {
    "input": "what the model gives; the class's page says which numbers",
    "target": "what it should have given",
    "reduction": '`"none"`: a loss for each element or row; `"mean"`, `"sum"`: one number',
    "weight": "where the class has none: a factor for each element, broadcast against the input; a mean still "
    "divides by the number of elements, except where torch's divides by the sum of the weights",
    "size_average, reduce": "torch's deprecated names for `reduction`",
    "switches": "see {class}`~steepest.losses.Switches`",
}


def pages() -> dict[str, str]:
    """Every generated page: its path without suffix, and its text in MyST Markdown."""
    made = {"losses/index": losses_index(), "optimizers/index": optimizers_index()}
    for word, loss in losses.LOSSES.items():
        made[f"losses/{word}"] = loss_page(word, loss)
    for word, entry in optim.OPTIMIZERS.items():
        made[f"optimizers/{word}"] = optimizer_page(word, entry)
    for cls in unnamed_optimizers():
        made[f"optimizers/{cls.__name__}"] = unnamed_optimizer_page(cls)
    made["schedules"] = schedules_page()
    made["functional"] = functional_page()
    made["reference"] = reference_page()
    return made


def write(folder: Path, *, pictures: bool = True) -> None:
    """Write every page and picture; leave alone what is as it should be, remove what no longer belongs.

    Args:
        folder: where they go; it holds nothing else.
        pictures: draw them too, and make the pages that move, which takes some minutes.
    """
    made = {folder / f"{path}.md": text for path, text in pages().items()}
    drawings = _draw(folder / "pictures") | _move(folder / "extra" / "moving") if pictures else set()
    (folder / "extra").mkdir(parents=True, exist_ok=True)  # Sphinx copies what is in it
    if not pictures:
        made = {path: re.sub(r"(!\[|<a ).*(\.svg\)|</a>)\n", "", text) for path, text in made.items()}
    for path in folder.rglob("*.*"):
        if path.is_file() and path not in made and path not in drawings:
            path.unlink()
    for path, text in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _draw(folder: Path) -> set[Path]:
    """The pictures."""
    return _derive(folder, ".svg", lambda page: svg(page.figure))


def _move(folder: Path) -> set[Path]:
    """The pages that move."""
    return _derive(folder, ".html", lambda page: page.make_page(page))


def _derive(folder: Path, suffix: str, make: Callable[[Explanation], str]) -> set[Path]:
    """A file a word, made anew only where what it is made from has changed."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp, digest = folder / "drawn-from.txt", _digest()
    fresh = stamp.exists() and stamp.read_text(encoding="utf-8") == digest
    kept = {stamp}
    for word in (*losses.LOSSES, *optim.OPTIMIZERS, *schedules.SCHEDULES):
        page = explain(word)
        if page.make_figure is None:
            continue
        path = folder / f"{word}{suffix}"
        kept.add(path)
        if not (fresh and path.exists()):
            path.write_text(make(page), encoding="utf-8")
    stamp.write_text(digest, encoding="utf-8")
    return kept


def _digest() -> str:
    package = Path(str(steepest.__file__)).parent
    parts = [package / part for part in ("backends", "losses", "optim", "schedules", "explain")]
    sources = sorted(path for part in parts for path in part.rglob("*.*") if path.suffix != ".pyc")
    whole = hashlib.sha256(version("altair").encode() + version("vl-convert-python").encode())
    for path in sources:
        whole.update(path.read_bytes())
    return whole.hexdigest()


# --- losses --------------------------------------------------------------------------------------------------

_FACTS = ("domain", "model gives", "target is", "for", "command", "source")


def loss_page(word: str, loss: Any) -> str:
    """The page of a loss."""
    formula = loss.formula
    told = dict(explain(word).sections)
    functions = [
        name
        for name in functional.__all__
        if inspect.getmodule(getattr(functional, name)) is inspect.getmodule(loss)
    ]
    return _joined(
        f"# {word}: {_plain(formula.title)}",
        first_sentence(loss),
        _block("value", formula.formula),
        _block("gradient", formula.gradient_formula),
        _facts({label: told[label] for label in _FACTS if label in told}),
        _picture(word),
        _when(formula.good_at, formula.bad_at),
        "## Arguments",
        _arguments(loss, {name: _in_words(interval) for name, interval in formula.valid.items()}),
        _from_torch(loss, "torch.nn", "steepest.losses"),
        _example(loss),
        _reference([loss], "steepest.losses"),
        *(_directive("autofunction", f"steepest.losses.functional.{name}") for name in functions),
    )


def losses_index() -> str:
    """All losses in one table."""
    rows = [
        (
            f"[{word}]({word}.md)<br>{_plain(loss.formula.title)}",
            f"`{loss.__name__}`",
            ", ".join(loss.formula.tasks) or "your own code",
            pull_far_off(loss.formula),
            "yes" if torch_class(loss, "torch.nn") else "no",
        )
        for word, loss in losses.LOSSES.items()
    ]
    return _joined(
        "# Losses",
        "The word is what `steepest compare --losses` and `steepest explain` take; the class is in "
        "`steepest.losses`. [How to choose](../../how-to-choose.md) says which to use when.",
        'The column "A row far off" is the answer to "is it robust?". It says what happens to a row\'s gradient '
        "when the prediction goes farther and farther from the target: it *grows* without bound, it stays *bounded*, "
        "or it *fades* to 0. It is measured on the loss's own gradient, with its default parameters.",
        _table(("word", "class", "for", "A row far off", "torch has it"), rows),
        _toctree(losses.LOSSES),
    )


def pull_far_off(formula: Any) -> str:
    """What becomes of a row's gradient as its prediction goes ever farther from the target, as measured.

    ``"grows"``, ``"bounded"`` or ``"fades"``; a dash where no single number is ever farther off.
    """
    starts = {"real": 0.0, "logit": 1.0, "margin": 1.0, "distance": 1.0, "log_rate": 1.0, "logits": 0.0}
    if formula.gradient is None or formula.prediction not in starts:
        return "–"
    parameters = tuple(formula.parameters.values())
    near, far = (_pull(formula, parameters, starts[formula.prediction], scale) for scale in (50.0, 500.0))
    if far > 2 * near:
        return "grows"
    return "bounded" if far > near / 2 else "fades"


def _pull(formula: Any, parameters: tuple[float, ...], start: float, distance: float) -> float:
    """The larger gradient of the two sides, so far from the target."""
    away = torch.tensor([-distance, distance], dtype=torch.float64)
    if formula.family == "softmax":  # of a log-probability, which lies on one side only
        slopes = formula.gradient(away[:1], *parameters)
    else:
        slopes = formula.gradient(away, torch.full_like(away, start), *parameters)
    return float(torch.as_tensor(slopes, dtype=torch.float64).abs().max())


# --- optimizers ----------------------------------------------------------------------------------------------


def optimizer_page(word: str, entry: Any) -> str:
    """The page of an optimizer's word: a class with fixed options."""
    told = dict(explain(word).sections)
    labels = ("batch size", "state", "rates tried", "in Python", "command", "source")
    first = next(iter(entries_of(entry.cls)))
    return _joined(
        f"# {word}: {_plain(entry.title)}",
        first_sentence(entry.cls),
        _block("step", entry.formula),
        _facts({label: told[label] for label in labels if label in told}),
        _picture(word),
        _when(entry.good_at, entry.bad_at),
        "## Arguments",
        _arguments(entry.cls, {}, {**entry.options, "lr": entry.default_lr}),
        _conventions(entry.cls, dict(entry.options)),
        _from_torch(entry.cls, "torch.optim", "steepest.optim"),
        _example(entry.cls),
        _reference([entry.cls], "steepest.optim", indexed=first == word),
    )


def unnamed_optimizers() -> list[Any]:
    """The optimizer classes without a word: comparisons do not take them."""
    named = {entry.cls for entry in optim.OPTIMIZERS.values()}
    public = [getattr(optim, name) for name in optim.__all__]
    return [
        cls
        for cls in public
        if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer) and cls not in named
    ]


def unnamed_optimizer_page(cls: Any) -> str:
    """The page of a class that comparisons do not take."""
    return _joined(
        f"# {cls.__name__}",
        first_sentence(cls),
        "It is for PyTorch code of your own: comparisons do not take it.",
        "## Arguments",
        _arguments(cls, {}),
        _from_torch(cls, "torch.optim", "steepest.optim"),
        _example(cls),
        _reference([cls], "steepest.optim"),
    )


def entries_of(cls: Any) -> list[str]:
    """The words that stand for a class."""
    return [word for word, entry in optim.OPTIMIZERS.items() if entry.cls is cls]


def optimizers_index() -> str:
    """All optimizers in one table."""
    rows = [
        (
            f"[{word}]({word}.md)<br>{_plain(entry.title)}",
            f"`{entry.cls.__name__}`" + _options(entry.options),
            f"{entry.default_lr:g}",
            str(_num_kept(entry.cls, entry.options)),
            "yes" if torch_class(entry.cls, "torch.optim") else "no",
        )
        for word, entry in optim.OPTIMIZERS.items()
    ]
    rows += [
        (
            f"[{cls.__name__}]({cls.__name__}.md)<br>for your own code",
            f"`{cls.__name__}`",
            _value(inspect.signature(cls).parameters["lr"].default),
            str(_num_kept(cls, {})),
            "yes" if torch_class(cls, "torch.optim") else "no",
        )
        for cls in unnamed_optimizers()
    ]
    return _joined(
        "# Optimizers",
        "The word is what `steepest compare --optimizers` and `steepest explain` take; the class is in "
        "`steepest.optim`. [How to choose](../../how-to-choose.md) says which to use when.",
        'The column "State" is memory: how many numbers the optimizer keeps for each parameter, counted after a step; '
        "averages of a matrix's rows and columns are so few that they count as none.",
        _table(("word", "class", "default rate", "State", "torch has it"), rows),
        _toctree([*optim.OPTIMIZERS, *(cls.__name__ for cls in unnamed_optimizers())]),
    )


def _options(options: Mapping[str, Any]) -> str:
    return "".join(f", `{name}={value!r}`" for name, value in options.items())


def _made(cls: Any, options: Mapping[str, Any]) -> tuple[torch.nn.Parameter, Any]:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    return parameter, cls([parameter], **options)


def _num_kept(cls: Any, options: Mapping[str, Any]) -> int:
    """How many numbers an optimizer keeps for each parameter, counted after a step."""
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    optimizer = cls([parameter], **options)
    parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step()
    except InputError:  # its gradients are sparse
        parameter.grad = parameter.grad.to_sparse(1)
        optimizer.step()
    return sum(
        getattr(kept, "shape", None) == parameter.shape for kept in optimizer.state[parameter].values()
    )


GRADIENT, NUM_STEPS = 1e-4, 3


def _conventions(cls: Any, options: Mapping[str, Any]) -> str:
    """What changes with ``convention``: where the state begins and how far the first steps go."""
    choices = _choices(cls, "convention")
    if not choices:
        return ""
    rows = []
    for convention in choices:
        given = {"lr": 1.0, **options, "convention": convention}
        try:
            moved, optimizer = _moved(cls, given)
        except InputError:
            rows.append((f'`"{convention}"`', "not with this word's options", *("–",) * NUM_STEPS))
            continue
        group = optimizer.param_groups[0]
        rule, hyper = cls.rule_of(group), cls.hyperparameters_of(group)
        begins = [f"`{slot}` at {_begin(rule.begins_at(slot, hyper))}" for slot in rule.slots]
        rows.append(
            (f'`"{convention}"`', ", ".join(begins) or "no state", *(f"{step:.4g}" for step in moved))
        )
    defaults = [
        f"`{name}={_value(options.get(name, parameter.default))}`"
        for name, parameter in inspect.signature(cls).parameters.items()
        if isinstance(parameter.default, (int, float, tuple)) and not isinstance(parameter.default, bool)
    ]
    return _joined(
        "## Conventions",
        "Libraries mean different things by the same name. `convention` chooses whose formula is computed; the other "
        f"arguments keep these defaults in each of them: {', '.join(defaults)}. What each library's own defaults are "
        "stands under `convention` in the reference below.",
        f"Measured: the length of the first steps, in units of `lr`, with these defaults and a gradient of "
        f"{GRADIENT:g} each time.",
        _table(("convention", "state begins", *(f"step {i + 1}" for i in range(NUM_STEPS))), rows),
    )


def _moved(cls: Any, options: Mapping[str, Any]) -> tuple[list[float], Any]:
    parameter, optimizer = _made(cls, options)
    lengths, before = [], 0.0
    for _ in range(NUM_STEPS):
        parameter.grad = torch.full_like(parameter, GRADIENT)
        optimizer.step()
        now = float(parameter.detach())
        lengths.append(before - now)
        before = now
    return lengths, optimizer


def _begin(start: float | str) -> str:
    return f"the first {start}" if isinstance(start, str) else f"{start:g}"


# --- schedules -----------------------------------------------------------------------------------------------


def schedules_page() -> str:
    """All schedules, and the scheduler for one's own code."""
    rows = [
        (f"[{word}](#{word})<br>{_plain(entry.title)}", _plain(entry.formula), _plain(entry.ends))
        for word, entry in schedules.SCHEDULES.items()
    ]
    parts = [
        "# Schedules",
        "A schedule says what the learning rate is multiplied by in step k of n.",
        _table(("word", "factor", "its ends"), rows),
        (
            "Any of them can begin with a warm-up of w steps (`warmup`, a share of the steps): (k + 1)/(w + 1). The "
            "schedule then goes over the steps that are left."
        ),
    ]
    for word, entry in schedules.SCHEDULES.items():
        parts += [
            f"## {word}",
            _facts({"source": (entry.source,), "good at": entry.good_at, "bad at": entry.bad_at}),
            f"![Its factor, drawn](pictures/{word}.svg)\n",
        ]
    public = [getattr(schedules, name) for name in schedules.__all__]
    return _joined(
        *parts,
        "## In PyTorch code",
        *(
            _directive("autoclass", f"steepest.schedules.{value.__name__}")
            for value in public
            if inspect.isclass(value)
        ),
    )


# --- the rest ------------------------------------------------------------------------------------------------


def functional_page() -> str:
    """The losses as functions: which class each belongs to."""
    of_module = {inspect.getmodule(loss): word for word, loss in losses.LOSSES.items()}
    rows = []
    for name in functional.__all__:
        word = of_module.get(inspect.getmodule(getattr(functional, name)), "")
        rows.append(
            (f"{{func}}`~steepest.losses.functional.{name}`", f"[{word}](losses/{word}.md)" if word else "–")
        )
    return _joined(
        "# Losses as functions",
        "`steepest.losses.functional` has torch's names, and torch's order of arguments where torch has the "
        "function. The arguments of a loss's own are explained on its page.",
        _table(("function", "page"), rows),
        "## Arguments they share",
        _table(("argument", "meaning"), [(f"`{name}`", text) for name, text in SHARED_ARGUMENTS.items()]),
    )


def reference_page() -> str:
    """Everything public that is no loss and no optimizer."""
    parts: list[str] = [
        "# Reference",
        "Losses and optimizers have [pages](losses/index.md) [of their own](optimizers/index.md).",
    ]
    for title, module in (
        ("steepest", steepest),
        ("steepest.losses", losses),
        ("steepest.optim", optim),
        ("steepest.testing", testing),
        ("steepest.explain", import_module("steepest.explain")),
    ):
        parts.append(f"## {title}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value) or _has_its_page(value) or not callable(value):
                continue
            kind = "autoclass" if inspect.isclass(value) else "autofunction"
            extra = ("members",) if name in ("Comparison", "FittedModel", "Explanation") else ()
            parts.append(_directive(kind, f"{title}.{name}", *extra))
    words = ", ".join(f"`{word}`" for word in reference.__all__ if word != "compute_dtype")
    parts += [
        "## The vocabulary of formulas",
        (
            "A formula or a rule of your own is written with `+ - * / **`, comparisons, numbers and these names from "
            f"`steepest.backends.reference`: {words}. There is no `if`: `where` chooses. `exp_product(a, x)` "
            "is `exp(a * x)` and `sigmoid_power(x, a)` is `sigmoid(x)**a`, with the digits that the plain text loses, "
            "and faster."
        ),
    ]
    return _joined(*parts)


def _has_its_page(value: Any) -> bool:
    return inspect.isclass(value) and (
        value in losses.LOSSES.values()
        or (issubclass(value, torch.optim.Optimizer) and value.__module__.startswith("steepest.optim"))
    )


# --- parts of a page -----------------------------------------------------------------------------------------


def first_sentence(value: Any) -> str:
    """The first sentence of a docstring, as Markdown."""
    paragraph = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r":(\w+):`", r"{\1}`", paragraph)


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Text that means nothing to Markdown."""
    return re.sub(r"([\\`*_<>|\[\]$~{}])", r"\\\1", text)


def _block(name: str, text: str) -> str:
    return (
        f"```{{code-block}} text\n:class: formula\n:caption: {name}\n\n{re.sub(';  +', chr(10), text)}\n```"
    )


def _facts(facts: Mapping[str, Iterable[str]]) -> str:
    rows = [
        f"* - {label}\n  - " + "\n\n    ".join(map(_told, paragraphs)) for label, paragraphs in facts.items()
    ]
    return "\n".join(["```{list-table}", ":class: facts", "", *rows, "```"])


def _told(text: str) -> str:
    """A fact's text, the options of a command in it as code."""
    parts = re.split(r"(--[a-z-]+ [^;)]+)", text)
    return "".join(f"`{part}`" if i % 2 else _plain(part) for i, part in enumerate(parts))


def _picture(word: str) -> str:
    if explain(word).make_figure is None:
        return ""
    alt = "Its value and its gradient" if word in losses.LOSSES else "Its way to the optimum"
    return f'![{alt}, drawn](../pictures/{word}.svg)\n\n<a href="../../moving/{word}.html">The same, moving</a>\n'


def _when(good: Sequence[str], bad: Sequence[str]) -> str:
    return _joined(
        "## When to use it" if good else "",
        "\n".join(f"- {_plain(text)}" for text in good),
        "## When not to" if bad else "",
        "\n".join(f"- {_plain(text)}" for text in bad),
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _toctree(names: Iterable[str]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```"


def _arguments(cls: Any, ranges: Mapping[str, str], given: Mapping[str, Any] | None = None) -> str:
    """Name, default and range of every argument, from the signature; ``given`` is what a word fixes."""
    rows = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        choices = _choices(cls, name)
        allowed = ", ".join(f'`"{choice}"`' for choice in choices) or ranges.get(name, "")
        default = (given or {}).get(name, parameter.default)
        shown = "needed" if default is parameter.empty else f"`{_value(default)}`"
        rows.append((f"`{name}`", shown, allowed.replace("|", r"\|")))
    known = _switches(cls)
    rows += [(f"`{name}`", "[a switch](../../drop-in.md#switches)", "") for name in known]
    return _table(("argument", "default", "choices or range"), rows)


def _switches(cls: Any) -> tuple[str, ...]:
    """The keyword-only switches a class takes by ``**switches``."""
    kinds = {parameter.kind for parameter in inspect.signature(cls).parameters.values()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return ()
    words = losses.Switches if cls in losses.LOSSES.values() else optim.OptimizerSwitches
    return tuple(words.__annotations__)


def _choices(cls: Any, name: str) -> tuple[str, ...]:
    """The words an argument takes, where its annotation lists them."""
    if name not in inspect.signature(cls).parameters:
        return ()
    hint = get_type_hints(cls.__init__).get(name)
    return get_args(hint) if get_origin(hint) is Literal else ()


def _in_words(interval: losses.Interval) -> str:
    low, high = interval.closed[0], interval.closed[1]
    parts = []
    if math.isfinite(interval.low):
        parts.append(f"{'at least' if low == '[' else 'above'} {interval.low:g}")
    if math.isfinite(interval.high):
        parts.append(f"{'at most' if high == ']' else 'below'} {interval.high:g}")
    return ", ".join(parts) or "any number"


def _value(value: Any) -> str:
    if isinstance(value, float) and not math.isinf(value):
        return f"{value:g}"
    return repr(value)


def _from_torch(cls: Any, package: str, ours: str) -> str:
    replaced = torch_class(cls, package)
    if not replaced:
        return _joined("## From torch", "torch has no such class.")
    name = replaced.rpartition(".")[2]
    renamed = "" if name == cls.__name__ else f" as {name}"
    return _joined(
        "## From torch",
        f"It takes the place of `{replaced}`. One import changes:",
        f"```python\nfrom {package} import {name}  # before\nfrom {ours} import {cls.__name__}{renamed}  # after\n```",
        "[What else changes](../../drop-in.md).",
    )


def _example(cls: Any) -> str:
    """The docstring's example."""
    lines = inspect.getdoc(cls) or ""
    found = re.search(r"^>>> .*", lines, re.DOTALL | re.MULTILINE)
    return _joined("## Example", f"```pycon\n{found.group(0).strip()}\n```") if found else ""


def _reference(classes: Sequence[Any], package: str, *, indexed: bool = True) -> str:
    options = () if indexed else ("no-index",)
    return _joined(
        "## Reference",
        *(_directive("autoclass", f"{package}.{cls.__name__}", *options) for cls in classes),
    )


def _directive(kind: str, name: str, *options: str) -> str:
    flags = "".join(f"   :{option}:\n" for option in options)
    return f"```{{eval-rst}}\n.. {kind}:: {name}\n{flags}```"


def without_example(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """A docstring as its page shows it: its example stands above, its last sections have bold names."""
    if _has_its_page(value):
        first = next((i for i, line in enumerate(lines) if line.lstrip().startswith(">>> ")), len(lines))
        del lines[first:]
        lines.append("")
    for i, line in enumerate(lines):
        lines[i] = re.sub(r"^(Shapes|Numerics|Source): ", r"**\1.** ", line)

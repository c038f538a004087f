"""Put the report together: records in, one HTML file out that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import vl_convert
from markupsafe import Markup

from steepest.backends.available import available_bytes
from steepest.errors import MALFORMED, InputError, inert, near_directories, told
from steepest.files import check_sums, parse_json, read_bytes, regular, write_file
from steepest.files.parquet import whole
from steepest.report import charts, sections, summary, tables
from steepest.report.language import HTML_CODES, closed, current, speaking, translated
from steepest.report.words import capital, plural

__all__ = ["build", "environment", "read_records", "resource", "telling_of_records", "write", "write_page"]

VERDICT_FORMAT = 1
_RECORDS = ("verdict.json", "plan.json", "runs.parquet")
_TURNS = re.compile(r"(?<!\\)((?:\\\\)*)\\u(061c|200[ef]|202[89a-e]|206[6-9])")
_FILES = files("steepest.report")


def write(directory: Path, language: str = "en") -> Path:
    """Write ``report.html`` into a comparison's directory from the records that lie there.

    Args:
        directory: holds ``verdict.json``, ``plan.json`` and ``runs.parquet``.
        language: ``"en"`` or ``"zh"``.

    Returns:
        The report's path. The file appears whole or not at all.

    Raises:
        InputError: a record is missing or unreadable, or there is no such language.
    """
    directory = Path(directory)
    records = read_records(directory)
    with telling_of_records(directory):
        page = build(*records, language)
    return write_page(page, directory / "report.html")


@contextmanager
def telling_of_records(*directories: Path) -> Iterator[None]:
    """Records that are whole and yet none of ours are the reader's to know of, not a fault of ours.

    Raises:
        InputError: an entry is missing, or of the wrong kind.
    """
    try:
        yield
    except InputError:
        raise
    except (
        *MALFORMED,
        jinja2.TemplateError,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        names = " and ".join(repr(str(directory)) for directory in directories)
        raise InputError(
            f"No page can be made of the records in {names}: something in them is missing or of the wrong kind "
            f"({told(error)[:-1]}); make the comparison anew."
        ) from error


def read_records(directory: Path) -> tuple[dict[str, Any], dict[str, Any], pl.DataFrame]:
    """What a comparison left in its directory: verdict, plan, runs.

    Raises:
        InputError: a record is missing or unreadable, or the verdict is of an unknown format.
    """
    check_sums(directory, _RECORDS)
    verdict, plan = _read_json(directory / "verdict.json"), _read_json(directory / "plan.json")
    _check_format(verdict)
    return verdict, plan, _read_runs(directory / "runs.parquet")


def write_page(page: str, path: Path) -> Path:
    """Put a page in its place, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    write_file(path, page.encode("utf-8", "replace"), "The report {path}")  # a path may be no UTF-8
    return path


def build(verdict: dict[str, Any], plan: dict[str, Any], runs: pl.DataFrame, language: str = "en") -> str:
    """The report as HTML text: the same records give the same text.

    Args:
        verdict: what ``verdict.json`` holds.
        plan: what ``plan.json`` holds; its plain facts are listed.
        runs: what ``runs.parquet`` holds, a row a run.
        language: ``"en"`` or ``"zh"``.

    Raises:
        InputError: the verdict is of an unknown format, a column of the runs is missing, or there is no such
            language.
    """
    with speaking(language):
        return _build(verdict, plan, runs)


def _build(verdict: dict[str, Any], plan: dict[str, Any], runs: pl.DataFrame) -> str:
    _check_format(verdict)
    runs = summary.check_runs(runs)
    given, verdict = verdict, summary.with_regimes(verdict)
    found = summary.configurations(runs, verdict["greater_is_better"])
    rates, curves = sections.rates(verdict, found), sections.curves(verdict, runs)
    calibration = sections.calibration(verdict)
    panels = [*rates["panels"], *curves["panels"], *([calibration["panel"]] if calibration else [])]
    specs = {panel["id"]: panel["spec"] for panel in panels}
    engine, script = _chart_engine(), resource("script.js")
    page = environment().get_template("template.html.j2")
    return page.render(
        policy=_policy(engine, script),
        style=Markup(resource("style.css")),
        engine=Markup(engine),
        script=Markup(script),
        chart_data=Markup(
            _embedded_json({"config": charts.CONFIG, "specs": specs, "texts": _script_texts()})
        ),
        language=HTML_CODES[current()],
        verdict=verdict,
        **sections.headline(verdict),
        **sections.standing_and_matrices(verdict),
        rates=rates,
        curves=curves,
        calibration=calibration,
        diagnosis=sections.diagnosis(verdict),
        reasons=sections.reasons(verdict, plan),
        tried=sections.tried(verdict, plan, found),
        use=sections.use(given, plan, runs),
    )


def _check_format(verdict: dict[str, Any]) -> None:
    if verdict.get("format") != VERDICT_FORMAT:
        raise InputError(
            f"The verdict has format {verdict.get('format')!r}, but this version of steepest reads format "
            f"{VERDICT_FORMAT}; make the report with the version that made the comparison."
        )


def _read_json(path: Path) -> dict[str, Any]:
    data = _bytes_of(path)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not JSON ({error}); it may have been cut short.") from None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds a JSON {type(content).__name__}; an object was expected.")
    return content


def _read_runs(path: Path) -> pl.DataFrame:
    try:
        return whole(regular(path), available_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None


def _bytes_of(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> InputError:
    near = near_directories(path.parent)
    advice = near if near.endswith("?") else ". Give the folder that steepest compare wrote."
    return InputError(f"{str(path)!r} cannot be read: {error.strerror}{advice}")


def _embedded_json(data: Any) -> str:
    """JSON that can stand inside a script element whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    text = _TURNS.sub(r"\1\\\\u\2", text)  # as in the template
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(*scripts: str) -> str:
    """A content security policy: no request at all, and no script but these."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _chart_engine() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def resource(name: str) -> str:
    """A file of the report's, as text."""
    return _FILES.joinpath(name).read_text(encoding="utf-8")


def _script_texts() -> dict[str, str]:
    """What the page's script says, by its English."""
    return {text: translated(text) for text in re.findall(r'\bsay\("([^"]+)"', resource("script.js"))}


def _say(text: str, **values: Any) -> Markup:
    """A text of the template's, which may hold tags, with its places filled by plain words."""
    plain = {name: _without_turns(value) for name, value in values.items()}
    return Markup(closed(Markup(translated(text)).format(**plain)))


def _without_turns(value: Any) -> Any:
    """Names are shown with the characters that would turn the direction of what follows written out."""
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def environment() -> jinja2.Environment:
    """Where the report's templates are found; what they are given is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(resource),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_turns,
    )
    made.globals["_"] = _say
    made.filters.update(translated=translated, batch=tables.batch_words, capital=capital, plural=plural)
    return made

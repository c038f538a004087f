"""The report in a real browser: it draws, fits, fetches nothing and answers to mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steepest.report import build

from . import sample
from .test_build import HOSTILE

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 900), (390, 844)

Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page and waits for its charts; afterwards: no error, and no request but the file's own."""
    faults: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(text: str, size: tuple[int, int] = DESKTOP, scripts: bool = True) -> Any:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="light",
            reduced_motion="reduce",  # a click while the page still glides would miss
            java_script_enabled=scripts,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        if scripts:
            page.wait_for_selector("html[data-charts=drawn]", state="attached", timeout=20_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
    assert set(asked) == {(tmp_path / "report.html").as_uri()}


def wait_until(page: Any, expression: str) -> None:
    """Waits for an expression to hold; the page's policy forbids playwright's own way, which evaluates there."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {expression}")


def boxes(page: Any, selector: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = page.eval_on_selector_all(
        selector,
        "all => all.map(one => { const b = one.getBoundingClientRect();"
        " return {left: b.left, right: b.right, width: b.width, height: b.height} })",
    )
    return found


@pytest.mark.parametrize("name", sample.ALL)
def test_everything_is_drawn_and_fits(name: str, opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages(name))
    assert page.locator("h1").is_visible()
    assert page.locator("h1").inner_text() == sample.ALL[name]()[0]["sentence"]
    for width, height in (DESKTOP, PHONE):
        page.set_viewport_size({"width": width, "height": height})
        wait_until(
            page,
            "[...document.querySelectorAll('.chart > svg')].every(one =>"
            " Math.abs(one.getBoundingClientRect().width - one.parentElement.clientWidth) < 2)",
        )
        charts, drawn = boxes(page, ".chart"), boxes(page, ".chart > svg")
        assert len(charts) == len(drawn) >= 2
        for box in drawn:
            assert box["width"] > 200
            assert box["height"] > 100
        for box in [*drawn, *boxes(page, ".standing td, .standing .dot, .choice dd, figcaption, pre")]:
            assert box["left"] >= 0
            assert box["right"] <= width
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    count = "all => all.map(one => one.querySelectorAll('.mark-line path, .mark-symbol path').length)"
    assert min(page.eval_on_selector_all(".chart > svg", count)) > 0


def test_dark_mode_is_dark(opened: Open, pages: Callable[[str], str]) -> None:
    look = "getComputedStyle(document.body).backgroundColor"
    line = "getComputedStyle(document.querySelector('#rate-0 .mark-line path')).stroke"
    page = opened(pages("minimal"))
    assert page.evaluate(look) == "rgb(251, 250, 247)"
    before = page.evaluate(line)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(look) == "rgb(19, 22, 24)"
    assert page.evaluate(line) != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", sample.ALL)
def test_nothing_keeps_anybody_out(name: str, scheme: str, opened: Open, pages: Callable[[str], str]) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="axe, of the extra dev, looks for what keeps people out, and is not installed",
    ).Axe()
    page = opened(pages(name))
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.run(page).response
    grave = [fault for fault in found["violations"] if fault["impact"] in ("serious", "critical")]
    assert len(found["passes"]) > 20
    assert not [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in grave]


def test_a_phone_and_paper_show_each_pair_whole(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"), PHONE)
    against = page.locator(".standing td.against")
    assert all(one.is_visible() for one in against.all()[:5])
    label = page.evaluate("getComputedStyle(document.querySelector('td.against'), '::before').content")
    assert "Against the best" in label
    page.set_viewport_size({"width": 700, "height": 900})
    page.emulate_media(media="print")
    assert min(box["width"] for box in boxes(page, ".standing tbody td.plot")) > 120


def test_a_head_over_a_column_of_dashes_is_no_letter_a_line(opened: Open) -> None:
    verdict, plan, runs = sample.interrupted()
    nothing = verdict["cells"][0] | {"score": None, "interval": [None, None], "barred": "diverged"}
    page = opened(build({**verdict, "cells": [nothing], "winners": []}, plan, runs))
    assert max(box["height"] for box in boxes(page, ".standing thead th")) < 60


def test_charts_zoom_and_come_back(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"))
    words = "[...document.querySelectorAll('#curve-0 .role-axis-label text')].map(one => one.textContent)"
    labels = f"{words}.sort().join()"  # in any order: Vega moves those it keeps
    whole = page.evaluate(labels)
    page.locator("[data-zoom=curves] button", has_text="Zoom in").press("Enter")
    wait_until(page, f"{labels} !== {whole!r}")
    page.locator("[data-zoom=curves] button", has_text="Reset").press("Enter")
    wait_until(page, f"{labels} === {whole!r}")
    chart = page.locator("#curve-0")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 120, steps=4)
    assert page.locator("#curve-0 .drag").is_visible()
    page.mouse.up()
    wait_until(page, f"{labels} !== {whole!r}")
    chart.dblclick(position={"x": 140, "y": 90})
    wait_until(page, f"{labels} === {whole!r}")


def test_a_chart_is_read_by_keyboard(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"))
    page.locator("#curve-0").focus()
    page.keyboard.press("ArrowRight")
    readout = page.locator("#curve-0-readout")
    first = readout.inner_text()
    assert first.startswith("adam, 79 updates, 2,505 examples, ")
    page.keyboard.press("ArrowDown")
    assert readout.inner_text().startswith("adamw, 79 updates")
    page.locator("#rate-0").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#rate-0-readout").inner_text().startswith("learning rate 0.00001: score ")


def test_the_calibration_is_read_by_keyboard_and_zoomed(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("multiclass"))
    page.locator("#calibration-0").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#calibration-0-readout").inner_text()
    assert first == "predicted 0.3667: came true 0.3627; 40 predictions"
    labels = "[...document.querySelectorAll('#calibration-0 .role-axis-label text')].map(one => one.textContent).join()"
    whole = page.evaluate(labels)
    page.locator("[data-zoom=calibration] button", has_text="Zoom in").press("Enter")
    wait_until(page, f"{labels} !== {whole!r}")


def test_it_speaks_chinese(opened: Open) -> None:
    page = opened(build(*sample.multiclass(), "zh"), PHONE)
    for width, height in (PHONE, DESKTOP):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#curve-0").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#curve-0-readout").inner_text().startswith("adam，79 次更新，2,505 个样本，")
    assert page.locator(".more").first.inner_text().startswith("现显示前 20 行：显示全部 ")
    page.locator(".selector label", has_text="样本数").click()
    assert page.locator("[data-axis-name]").first.inner_text() == "样本数"


def test_code_is_copied(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#use [data-copy]").first.click()
    wait_until(page, "document.querySelector('#status').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("steepest predict model")


def test_hostile_names_do_nothing(opened: Open) -> None:
    page = opened(build(*sample.hostile(HOSTILE)), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.locator("img").count() == 0
    page.locator("#rate-0 .mark-symbol path").first.hover()
    assert page.locator("#vg-tooltip-element.visible").count() == 1


def test_selectors_change_the_charts(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"))
    shape = "document.querySelector('#rate-0 .mark-line path').getAttribute('d')"
    note = page.locator("#rates figcaption span:visible").first
    before, loss = page.evaluate(shape), note.get_attribute("data-loss")
    page.locator("input[name=rate-loss]:checked").focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, f"{shape} !== {before!r}")
    chosen = page.locator("input[name=rate-loss]:checked").get_attribute("value")
    assert note.get_attribute("data-loss") == chosen != loss

    labels = "document.querySelector('#curve-0 .role-axis-label').textContent"
    ends = page.evaluate(labels)
    page.locator(".selector label", has_text="examples").click()
    wait_until(page, f"{labels} !== {ends!r}")
    assert page.locator("[data-axis-name]").first.inner_text() == "examples"

    lines = "document.querySelectorAll('#curve-0 .mark-line path').length"
    assert page.evaluate(lines) == 6
    button = page.locator("button[data-optimizer=sgd]")
    button.click()
    wait_until(page, f"{lines} === 5")
    assert button.get_attribute("aria-pressed") == "false"


def test_the_table_sorts_filters_and_opens(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("regression"))
    rows = page.locator(".configurations tbody tr:visible")
    assert rows.count() == 20
    header = page.locator(".configurations th", has_text="Learning rate")
    header.locator("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.locator(".configurations [aria-sort]").count() == 1
    assert rows.first.locator("td").nth(3).inner_text() == "0.00001"
    header.locator("button").press("Enter")
    assert rows.first.locator("td").nth(3).inner_text() == "10"
    page.locator("#filter").fill("sgd mae default")
    assert rows.count() == 1
    page.locator("#filter").fill("")
    page.locator(".scroll + .more").click()
    assert rows.count() > 300


def test_without_scripts_the_charts_are_still_there(opened: Open, pages: Callable[[str], str]) -> None:
    page = opened(pages("multiclass"), PHONE, scripts=False)
    drawn = boxes(page, "noscript svg")
    assert len(drawn) == 8
    assert all(box["width"] > 200 and box["right"] <= PHONE[0] for box in drawn)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]

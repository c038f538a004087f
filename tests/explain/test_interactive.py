"""The pages that compute, in a real browser: their numbers are the library's, and everything in them answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.optimize import minimize

from steepest.backends.reference import expm1, sign
from steepest.explain import explain
from steepest.explain.descent import best_descent, descend, shares
from steepest.explain.interactive import loss_web_page, optimizer_web_page, regime_web_page
from steepest.explain.interactive import optimizer as optimizer_module
from steepest.explain.interactive.mathematics import set_formula, set_lines
from steepest.explain.interactive.sliders import loss_sliders, optimizer_sliders
from steepest.explain.loss_figure import loss_figure
from steepest.explain.regime_figure import NUM_EPOCHS, NUM_ROWS
from steepest.explain.regime_figure import descend as descend_table
from steepest.explain.regimes import REGIMES
from steepest.explain.surfaces import SURFACES
from steepest.losses import LOSSES, from_formula
from steepest.optim import OPTIMIZERS, from_rule

DESKTOP, PHONE = (1280, 900), (390, 844)
BYTES = 1_000_000
DRAWN = [name for name in LOSSES if LOSSES[name].formula.family != "composite"]

Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page; afterwards: no error, no word on the console, and no request but the file's own."""
    faults: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(text: str, size: tuple[int, int] = DESKTOP, motion: str = "reduce") -> Any:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme="light", reduced_motion=motion
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.type}: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
    assert set(asked) == {(tmp_path / "page.html").as_uri()}


@cache
def adam() -> str:
    """Adam's page, whole."""
    return optimizer_web_page(OPTIMIZERS["adam"], explain("adam"))


def untuned(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A page whose rates are the defaults: nothing is searched for."""
    entry = OPTIMIZERS[name]
    monkeypatch.setattr(optimizer_module, "best_descent", lambda *_: SimpleNamespace(lr=entry.default_lr))
    monkeypatch.setattr(optimizer_module, "_tuned", lambda *_: 0.01)
    return optimizer_web_page(entry, explain(name))


def wait_until(page: Any, expression: str) -> None:
    """Waits for an expression to hold; the page's policy forbids playwright's own way, which evaluates there."""
    for _ in range(2000):  # a minute and more: a busy machine draws few frames a second
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {expression}")


def ink(page: Any, canvas: str) -> str:
    """An expression for what a canvas shows, after it has been drawn."""
    for _ in range(3):
        page.evaluate("new Promise(requestAnimationFrame)")
    text: str = page.evaluate(f"document.getElementById('{canvas}').toDataURL()")
    return text


# --- optimizers: the numbers --------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_path_in_the_page_is_the_librarys(name: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(untuned(name, monkeypatch))
    low, high = (math.log10(end) for end in OPTIMIZERS[name].rates)
    grid = [10 ** (low + share * (high - low)) for share in (0.3, 0.5)]
    script = """([lr, surface]) => {
      const [racer] = data.racers;
      return descend(racer, { ...racer.hyperparameters, lr }, surface, surface.start, 40);
    }"""
    for place, surface in enumerate(SURFACES.values()):
        ours = descend(OPTIMIZERS[name], grid, 40, surface)
        for i, lr in enumerate(grid):
            theirs = torch.tensor(
                page.evaluate(script, [lr, page.evaluate(f"data.surfaces[{place}]")]), dtype=torch.float64
            )
            finite = int(ours[:, i].isfinite().all(dim=1).sum())  # where it diverges, the page stops
            assert len(theirs) == min(41, finite + 1)
            torch.testing.assert_close(theirs[:finite], ours[:finite, i], rtol=1e-9, atol=1e-12)


@pytest.mark.browser
def test_the_rates_are_those_the_library_finds(opened: Open) -> None:
    page = opened(adam())
    racers = page.evaluate("data.racers")
    assert [racer["name"] for racer in racers] == ["adam", "sgd", "momentum", "rmsprop"]
    for racer in (racers[0], racers[2]):
        for name, surface in SURFACES.items():
            best = best_descent(OPTIMIZERS[racer["name"]], surface)
            assert racer["rates"][name] == best.lr
    # What the table says of them is what the library counted.
    best = best_descent(OPTIMIZERS["adam"])
    cells = page.locator("#racers tr").first.locator("td")
    assert cells.nth(1).inner_text() == str(best.num_steps)
    assert page.locator("#slider-lr + *, .slider output").first.inner_text() == f"{best.lr:.3g}"


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_a_surface_is_what_it_says(surface: Any) -> None:
    for x, y in surface.minima:
        assert float(surface.value(torch.tensor(x), torch.tensor(y))) == pytest.approx(0.0, abs=1e-12)
    window = surface.window
    assert (window.right - window.left) / (window.top - window.bottom) == pytest.approx(4 / 3)
    for x, y in (surface.start, *surface.minima):
        assert window.left < x < window.right
        assert window.bottom < y < window.top
    # Momentum gets near a minimum on each, and stays there: the map shows something that works.
    best = best_descent(OPTIMIZERS["momentum"], surface)
    assert best.arrives
    assert float(shares(surface, best.path)[-1]) <= surface.near


# --- optimizers: the page -----------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_slider_redraws_the_path_at_once(opened: Open) -> None:
    page = opened(adam())
    before, drawn = page.evaluate("ways[0].path"), ink(page, "map")
    others = page.evaluate("ways.slice(1)")
    page.locator("#slider-beta1").press("ArrowRight")
    assert page.evaluate("sliders.beta1.value") > 0.9
    assert page.evaluate("ways[0].path") != before
    assert page.evaluate("ways.slice(1)") == others
    assert ink(page, "map") != drawn
    page.locator("#slider-lr").press("End")
    assert page.evaluate("ways[0].lr") == OPTIMIZERS["adam"].rates[1]
    page.locator("#reset").click()
    assert page.evaluate("ways[0].path") == before
    assert ink(page, "map") == drawn


@pytest.mark.browser
def test_play_pause_step_and_restart(opened: Open) -> None:
    page = opened(adam(), motion="no-preference")  # it begins to play by itself
    wait_until(page, "state.time > 5")
    play = page.locator("#play")
    assert play.inner_text() == "Pause"
    drawn = ink(page, "map")
    wait_until(page, "state.time > 10")
    assert ink(page, "map") != drawn
    play.press("Enter")
    assert play.inner_text() == "Play"
    held = page.evaluate("state.time")
    assert ink(page, "map") == ink(page, "map")
    page.locator("#step").press("Enter")
    assert page.evaluate("state.time") == math.floor(held) + 1
    assert (
        page.locator("#status")
        .inner_text()
        .startswith(f"After {math.floor(held) + 1} steps the loss of adam is ")
    )
    page.locator("#restart").click()
    assert page.evaluate("state.time") == 0
    assert page.locator("#clock").inner_text() == "0 / 400"
    page.locator("#time").press("End")
    assert page.evaluate("state.time") == 400
    play.click()  # from the end it begins anew
    wait_until(page, "state.playing && state.time > 0 && state.time < 300")


@pytest.mark.browser
def test_where_motion_is_not_wanted_nothing_moves_by_itself(opened: Open) -> None:
    page = opened(adam(), motion="reduce")
    assert page.evaluate("[state.playing, state.time]") == [False, 400]
    page.locator("#play").click()  # wanted after all: still pictures
    wait_until(page, "state.time > 0 && state.time < 400")
    assert page.evaluate("Math.sqrt(state.time / 400) * 20 % 1") == pytest.approx(0.0, abs=1e-9)


@pytest.mark.browser
def test_the_start_moves_by_mouse_touch_and_keys(opened: Open) -> None:
    page = opened(adam())
    start = page.evaluate("state.start")
    paths = page.evaluate("ways.map(way => way.path[1])")
    handle, box = page.locator("#start"), page.locator("#map").bounding_box()
    at = handle.bounding_box()
    page.mouse.move(at["x"] + 22, at["y"] + 22)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 100, steps=3)
    page.mouse.up()
    moved = page.evaluate("state.start")
    left, right, _, top = page.evaluate("state.surface.window")
    assert moved[0] == pytest.approx(left + 300 / box["width"] * (right - left))
    assert moved != start
    assert all(
        new != old for new, old in zip(page.evaluate("ways.map(way => way.path[1])"), paths, strict=True)
    )
    handle.press("ArrowRight")
    assert page.evaluate("state.start")[0] > moved[0]
    handle.press("ArrowDown")
    assert page.evaluate("state.start")[1] < moved[1] < top
    assert handle.get_attribute("aria-label").startswith("Start at ")


@pytest.mark.browser
def test_another_surface_and_fewer_optimizers(opened: Open) -> None:
    page = opened(adam())
    drawn = ink(page, "map")
    page.locator("input[name=surface]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("state.surface.name") == "saddle"
    assert page.locator("#about").inner_text() == SURFACES["saddle"].text
    assert ink(page, "map") != drawn
    chart = ink(page, "chart")
    page.locator("#racers input").nth(2).uncheck()
    assert ink(page, "chart") != chart


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_fits_and_darkens(size: tuple[int, int], opened: Open) -> None:
    page = opened(adam(), size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("h1").inner_text() == "Adam"
    assert page.evaluate("document.getElementById('map').width") > 0.6 * min(size[0], 1100)
    drawn = ink(page, "map")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 22, 24)"
    assert ink(page, "map") != drawn


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_nobody_out(scheme: str, opened: Open) -> None:
    keeps_nobody_out(opened(adam()), scheme)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_still_page_keeps_nobody_out_and_darkens(scheme: str, browser: Any, tmp_path: Path) -> None:
    explain("cosine").save(tmp_path / "page.html")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        keeps_nobody_out(page, scheme)
        words = page.evaluate("getComputedStyle(document.querySelector('h1')).color")
        assert (words == "rgb(255, 255, 255)") is (scheme == "dark")


def keeps_nobody_out(page: Any, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="axe, of the extra dev, looks for what keeps people out, and is not installed",
    ).Axe()
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = axe.run(page).response
    assert len(found["passes"]) > 20
    assert not [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in found["violations"]]


def signed(p: Any, g: Any, m: Any, lr: Any, beta: Any) -> Any:
    m = beta * m + g
    return p - lr * sign(m), m


@pytest.mark.browser
def test_a_rule_of_ones_own_has_its_page(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from_rule(signed, ["m"], {"lr": 0.01, "beta": 0.5}, name="own")
    try:
        page = opened(untuned("own", monkeypatch))
        script = (
            "descend(data.racers[0], { lr: 0.1, beta: 0.5 }, data.surfaces[0], data.surfaces[0].start, 20)"
        )
        path = torch.tensor(page.evaluate(script), dtype=torch.float64)
        torch.testing.assert_close(path, descend(OPTIMIZERS["own"], [0.1], 20)[:, 0])
        assert page.locator(".slider label").all_inner_texts() == ["lr"]
    finally:
        del OPTIMIZERS["own"]


# --- regimes ------------------------------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_runs_as_it_is_drawn(name: str, opened: Open) -> None:
    page = opened(regime_web_page(REGIMES[name], explain(name)))
    assert page.evaluate("ways.map(way => way.racer.name)")[0] == name
    for way in page.evaluate("ways.map(({ racer, path }) => ({ batch: racer.batch, path }))"):
        ours = descend_table(way["batch"])
        torch.testing.assert_close(
            torch.tensor(way["path"], dtype=torch.float64), ours, rtol=1e-9, atol=1e-12
        )
    page.locator("#restart").click()
    page.locator("#step").click()
    rows = page.evaluate("state.time")
    assert rows == page.evaluate("data.racers[0].batch")
    assert page.locator("#clock").inner_text() == f"{rows} / {NUM_EPOCHS * NUM_ROWS}"
    before = page.evaluate("ways.map(way => way.path[1])")
    page.locator("#slider-lr").press("ArrowRight")  # of all three
    assert all(
        new != old for new, old in zip(page.evaluate("ways.map(way => way.path[1])"), before, strict=True)
    )
    keeps_nobody_out(page, "dark")


# --- losses: the numbers ------------------------------------------------------------------------------------------


@cache
def loss_page(name: str) -> str:
    return loss_web_page(LOSSES[name].formula, explain(name))


@pytest.mark.browser
@pytest.mark.parametrize("name", DRAWN)
def test_a_losss_curves_and_fit_are_the_librarys(name: str, opened: Open) -> None:
    formula = LOSSES[name].formula
    page = opened(loss_page(name))
    # The curves are those of the drawing, which has one a target or one a setting.
    value, gradient = loss_figure(formula).panels
    default = ", ".join(f"{word} = {number:g}" for word, number in formula.parameters.items())
    script = "([xs, target]) => xs.map(x => at(loss, x, target, defaults))"
    for target in page.evaluate("axis.targets"):
        labels = (default, name, f"target y = {target:g}")
        (line,) = [line for line in value.lines if line.series >= 0 and line.name in labels]
        slopes = {
            x: y for own in gradient.lines if own.name == line.name for x, y in zip(own.x, own.y, strict=True)
        }
        xs = list(line.x[::10])
        for x, y, (v, g) in zip(xs, line.y[::10], page.evaluate(script, [xs, target]), strict=True):
            assert v == pytest.approx(y, rel=1e-11, abs=1e-15)
            assert math.isnan(slopes[x]) or g == pytest.approx(slopes[x], rel=1e-9, abs=1e-15)
        points = "curveOf(loss, target, defaults).map(([, y], i) => [xs[i], y])"
        jumps = f"target => brokenAtJumps({points}).filter(([x]) => isNaN(x)).length"
        (drawn,) = [own for own in gradient.lines if own.series >= 0 and own.name == line.name]
        assert page.evaluate(jumps, target) == sum(map(math.isnan, drawn.y))
    if not page.evaluate("Boolean(fit)"):
        assert formula.prediction in ("log_probability", "distance")
        return
    # No line near the one that is shown costs less, but for what a thousand steps leave on flat ground.
    own, beside = page.evaluate("world.fits.map(({ w }) => w)")
    rows = torch.tensor(page.evaluate("[...fit.rows, world.moved]"), dtype=torch.float64)
    other = LOSSES["mae" if name == "mse" else "mse"].formula
    for w, cost in ((own, cost_of(formula, rows)), (beside, cost_beside(formula, other, rows))):
        best = minimize(cost, w, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
        assert cost(w) <= best.fun + 5e-4 * (1 + abs(best.fun)), (w, best.x)


def cost_of(formula: Any, rows: torch.Tensor) -> Callable[[Any], float]:
    """The library's mean loss of a linear model on the page's rows."""
    options = tuple(formula.parameters.values())
    x, y = rows[:, :-1], rows[:, -1]

    def cost(w: Any) -> float:
        z = w[0] + x @ torch.tensor(w[1:], dtype=torch.float64)
        if formula.family == "softmax":
            right = torch.where(y == 1, z, -z)
            return float(formula.value(torch.nn.functional.logsigmoid(right), *options).mean())
        given = torch.sigmoid(z) if formula.prediction == "probability" else z
        target = 2 * y - 1 if formula.target == "sign" else y
        return float(formula.value(given, target, *options).mean())

    return cost


def cost_beside(formula: Any, other: Any, rows: torch.Tensor) -> Callable[[Any], float]:
    """That of the loss beside it: on the same curve, or with -1 and 1 as the classes."""
    x, y = rows[:, :-1], rows[:, -1]

    def cost(w: Any) -> float:
        z = w[0] + x @ torch.tensor(w[1:], dtype=torch.float64)
        if formula.prediction == "log_rate":
            z = z.exp()
        target = y if formula.prediction in ("real", "log_rate") else 2 * y - 1
        return float(other.value(z, target).mean())

    return cost


def welsch(p: Any, y: Any, width: Any = 1.0) -> Any:
    e = (p - y) / width
    return -expm1(-0.5 * e * e)


@pytest.mark.browser
def test_a_formula_of_ones_own_has_its_page(opened: Open) -> None:
    made = from_formula(welsch, name="welsch")
    try:
        page = opened(loss_web_page(made.formula, explain("welsch")))
        (value, slope), _ = page.evaluate("[1.5, 0].map(x => at(loss, x, 0, defaults))")
        assert value == pytest.approx(-math.expm1(-1.125), rel=1e-15)
        assert slope == pytest.approx(1.5 * math.exp(-1.125), rel=1e-14)  # derived
        assert page.locator("#slider-width").count() == 1
    finally:
        del LOSSES["welsch"]


# --- losses: the page ---------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_an_outlier_moves_msess_line_and_hardly_hubers(opened: Open) -> None:
    page = opened(loss_page("huber"))
    before, drawn = page.evaluate("world.fits.map(({ w }) => w)"), ink(page, "scatter")
    handle, box = page.locator("#moved"), page.locator("#scatter").bounding_box()
    handle.scroll_into_view_if_needed()
    at, box = handle.bounding_box(), page.locator("#scatter").bounding_box()
    page.mouse.move(at["x"] + 22, at["y"] + 22)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.98 * box["height"], steps=4)
    page.mouse.up()
    after = page.evaluate("world.fits.map(({ w }) => w)")
    assert page.evaluate("world.moved[0]") == pytest.approx(1.6, abs=0.01)
    assert ink(page, "scatter") != drawn
    huber, mse = (abs(new[1] - old[1]) for new, old in zip(after, before, strict=True))
    assert 0 <= huber < mse / 4
    text = page.locator("#shift").inner_text()
    assert text.startswith("This row alone moves the fit at its place: huber by 0.")
    handle.press("Shift+ArrowUp")
    assert page.evaluate("world.moved[1]") > -3.0
    assert page.evaluate("world.fits[1].w") != after[1]
    assert page.locator("#shift").inner_text() != text
    assert handle.get_attribute("aria-label").startswith("Row at 1.6, −")


@pytest.mark.browser
def test_a_finger_moves_it_too(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(loss_page("huber"), encoding="utf-8")
    context = browser.new_context(viewport={"width": PHONE[0], "height": PHONE[1]}, has_touch=True)
    page = context.new_page()
    page.goto(path.as_uri())
    handle = page.locator("#moved")
    handle.scroll_into_view_if_needed()
    box, moved, scrolled = handle.bounding_box(), page.evaluate("[...world.moved]"), page.evaluate("scrollY")
    x, y = box["x"] + 22, box["y"] + 22
    touch = context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        given = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": given})

    send("touchStart", (x, y))
    for far in (20, 40, 60):
        send("touchMove", (x - far, y - far))
    send("touchEnd")
    assert page.evaluate("world.moved[0]") < moved[0]
    assert page.evaluate("world.moved[1]") > moved[1]
    assert page.evaluate("scrollY") == scrolled  # the page itself stays
    context.close()


@pytest.mark.browser
def test_a_losss_slider_changes_curve_and_fit(opened: Open) -> None:
    page = opened(loss_page("huber"))
    shown = [ink(page, canvas) for canvas in ("value", "gradient", "scatter")]
    fits, text = page.evaluate("world.fits.map(({ w }) => w)"), page.locator("#readout").inner_text()
    assert text == "value 1, gradient 1"
    page.locator("#slider-delta").press("Home")
    assert page.evaluate("options()") == [0.05]
    assert page.locator("#readout").inner_text() == "value 0.0738, gradient 0.05"
    assert all(
        new != old
        for new, old in zip((ink(page, c) for c in ("value", "gradient", "scatter")), shown, strict=True)
    )
    own, beside = page.evaluate("world.fits.map(({ w }) => w)")
    assert own != fits[0]
    assert beside == fits[1]
    page.locator("#reset").click()
    assert page.evaluate("world.fits.map(({ w }) => w)") == fits
    page.locator("#at").press("Home")
    assert page.locator("#readout").inner_text() == "value 2.5, gradient −1"
    assert page.locator("#at").get_attribute("aria-valuetext") == "−3: value 2.5, gradient −1"


@pytest.mark.browser
@pytest.mark.parametrize("name", ["tukey", "bce", "poisson_nll"])
def test_a_losss_page_keeps_nobody_out_and_fits(name: str, opened: Open) -> None:
    page = opened(loss_page(name), PHONE)
    assert len(loss_page(name)) < BYTES
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
    keeps_nobody_out(page, "light")
    page.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
    keeps_nobody_out(page, "dark")


# --- in both ------------------------------------------------------------------------------------------------------


def test_a_saved_page_is_the_one_that_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_module, "best_descent", lambda *_: SimpleNamespace(lr=0.1))
    explain("lion").save(tmp_path / "lion.html")
    text = (tmp_path / "lion.html").read_text(encoding="utf-8")
    assert "function lion$update(" in text
    assert len(text) < BYTES


def test_every_number_of_an_optimizer_has_a_slider_or_a_reason() -> None:
    switches = {"maximize", "decoupled_weight_decay", "decouple", "no_prox", "bias_correction"}
    hardly_felt = {"step_size_min", "t0", "ASGD.alpha"}
    for entry in OPTIMIZERS.values():
        live = entry.cls([torch.nn.Parameter(torch.zeros(1))], **{"lr": 0.1, **entry.options})
        numbers = entry.cls.hyperparameters_of(live.param_groups[0])
        sliders = {slider.name: slider for slider in optimizer_sliders(entry, numbers)}
        for name in numbers:
            reason = name in switches or name in hardly_felt or f"{entry.cls.__name__}.{name}" in hardly_felt
            assert (name in sliders) != reason, (entry.name, name)
        for name, slider in sliders.items():
            assert slider.low <= numbers[name] <= slider.high, (entry.name, name)
            assert slider.scale != "log" or slider.low > 0
            assert slider.scale != "memory" or 0 <= slider.low < slider.high < 1


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].formula.parameters])
def test_a_losss_sliders_stay_where_it_is_valid(name: str) -> None:
    formula = LOSSES[name].formula
    sliders = loss_sliders(formula)
    assert [slider.name for slider in sliders] == list(formula.parameters)
    for slider in sliders:
        assert formula.valid[slider.name].holds(slider.low)
        assert formula.valid[slider.name].holds(slider.high)
        assert math.isfinite(slider.low)
        assert slider.low <= slider.value <= slider.high < math.inf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p_c^q / 2", "<var>p</var><sub><var>c</var></sub><sup><var>q</var></sup> / 2"),
        ("mean of -(w y)", "mean of −(<var>w</var> <var>y</var>)"),
        ("a log-probability, a ← a", "a log-probability, <var>a</var> ← <var>a</var>"),
        ("2β < x", "2<var>β</var> &lt; <var>x</var>"),
        (
            "Σ_{j≠y} (1 - γ)^(t/2)",
            "Σ<sub><var>j</var>≠<var>y</var></sub> (1 − <var>γ</var>)<sup><var>t</var>/2</sup>",
        ),
        ("the gradient's step x - 1", "the gradient's step <var>x</var> − 1"),
    ],
)
def test_mathematics_is_set(text: str, expected: str) -> None:
    assert set_formula(text) == expected


def test_an_update_is_set_line_by_line() -> None:
    lines, note = set_lines(OPTIMIZERS["momentum"].formula)
    assert lines == [
        "<var>b</var> ← <var>μ</var> <var>b</var> + <var>g</var>",
        "<var>p</var> ← <var>p</var> − lr <var>b</var>",
    ]
    assert note == "<var>μ</var> is momentum"

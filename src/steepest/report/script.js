"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("chart-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  // A text in the page's language, its {places} filled.
  const say = (text, values = {}) => payload.texts[text].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const views = { rates: [], curves: [], calibration: [] };

  // Charts: Vega's interpreter needs no eval, so the page's security policy can forbid it.
  async function drawCharts() {
    for (const [id, spec] of Object.entries(payload.specs)) {
      const place = document.getElementById(id);
      const drawn = await vegaEmbed(place, spec, {
        mode: "vega-lite",
        renderer: "svg",
        actions: false,
        ast: true,
        defaultStyle: false,
        config: payload.config,
        tooltip: { theme: "custom", disableDefaultStyle: true, offsetX: 12, offsetY: 12 },
      });
      views[place.dataset.group].push(drawn.view);
      wireDrag(place, drawn.view);
      wireKeys(place, spec);
    }
    showChosen();
    document.documentElement.dataset.charts = "drawn";
  }

  function setSignal(group, name, value) {
    for (const view of views[group]) view.signal(name, value).runAsync();
  }

  function showChosen() {
    for (const input of all("input[data-signal]:checked")) choose(input);
  }

  function choose(input) {
    setSignal(input.dataset.group, input.dataset.signal, input.value);
    if (input.dataset.signal === "chosen_axis") {
      zoomTo("curves", null, null);
      for (const label of all("[data-axis-name]")) label.textContent = input.nextElementSibling.textContent;
    }
    if (input.dataset.group === "rates") showRateNotes();
  }

  function showRateNotes() {
    const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;
    const [loss, batch] = [chosen("rate-loss"), chosen("rate-batch")];
    for (const note of all("[data-loss]")) {
      const { loss: itsLoss, batch: itsBatch } = note.dataset;
      note.hidden = (loss !== undefined && loss !== itsLoss) || (batch !== undefined && batch !== itsBatch);
    }
  }

  // Zoom: all charts of a group show the same range, so that they can still be compared.
  function zoomTo(group, x, y) {
    setSignal(group, "shown_x", x);
    setSignal(group, "shown_y", y);
  }

  // About the middle of what is shown; a logarithmic axis by its logarithms.
  function scaled(scale, factor) {
    const [to, from] = scale.type === "log" ? [Math.log, Math.exp] : [Number, Number];
    const [low, high] = scale.domain().map(to);
    const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
    return [from(middle - half), from(middle + half)];
  }

  function wireZoom() {
    for (const button of all("[data-zoom] button")) {
      const group = button.parentElement.dataset.zoom;
      const factor = Number(button.dataset.factor);
      button.addEventListener("click", () => {
        const view = views[group][0];
        if (!view) return;
        if (factor === 0) zoomTo(group, null, null);
        else zoomTo(group, scaled(view.scale("x"), factor), scaled(view.scale("y"), factor));
      });
    }
  }

  function wireDrag(place, view) {
    const box = document.createElement("div");
    box.className = "drag";
    place.append(box);
    let start = null;
    const where = (event) => {
      const frame = place.querySelector("svg").getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top];
    };
    place.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) start = where(event);
    });
    place.addEventListener("pointermove", (event) => {
      if (!start) return;
      const [ends, frame] = [where(event), place.querySelector("svg")];
      event.preventDefault();
      box.style.display = "block";
      for (const [index, side, size] of [[0, "left", "width"], [1, "top", "height"]]) {
        const offset = index ? frame.getBoundingClientRect().top - place.getBoundingClientRect().top : 0;
        box.style[side] = `${Math.min(start[index], ends[index]) + offset}px`;
        box.style[size] = `${Math.abs(start[index] - ends[index])}px`;
      }
    });
    window.addEventListener("pointerup", (event) => {
      if (!start) return;
      const [first, last, origin] = [start, where(event), view.origin()];
      [start, box.style.display] = [null, "none"];
      if (Math.abs(first[0] - last[0]) < 8 || Math.abs(first[1] - last[1]) < 8) return;
      const range = (name, index) =>
        [first, last].map((point) => view.scale(name).invert(point[index] - origin[index])).sort((a, b) => a - b);
      zoomTo(place.dataset.group, range("x", 0), range("y", 1));
    });
    place.addEventListener("dblclick", () => zoomTo(place.dataset.group, null, null));
  }

  // Keyboard: left and right go from point to point, up and down from line to line; the point is read out.
  function wireKeys(place, spec) {
    const readout = document.getElementById(`${place.id}-readout`);
    let at = -1;
    place.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const rows = pointsShown(place.dataset.group, spec.data.values);
      if (rows.length === 0) return;
      if (event.key === "ArrowUp" || event.key === "ArrowDown") {
        const names = [...new Set(rows.map((row) => row.optimizer))];
        const next = names.indexOf(rows[Math.max(at, 0)]?.optimizer) + (at < 0 ? 0 : step);
        at = rows.findIndex((row) => row.optimizer === names[Math.min(names.length - 1, Math.max(0, next))]);
      } else {
        at = Math.min(rows.length - 1, Math.max(0, at + step));
      }
      readout.textContent = inWords(rows[at]);
    });
    place.addEventListener("blur", () => (readout.textContent = ""));
  }

  function pointsShown(group, rows) {
    if (group === "calibration") return rows;
    const chosen = (signal) => views[group][0].signal(signal);
    const shown = rows.filter((row) => row.batch === chosen("chosen_batch"));
    if (group === "curves") return shown.filter((row) => !chosen("hidden_optimizers").includes(row.optimizer));
    return shown.filter((row) => row.kind === "tried" && row.loss === chosen("chosen_loss"));
  }

  function inWords(row) {
    const number = (value) => (value == null ? say("none") : Number(value).toLocaleString("en", { maximumSignificantDigits: 4 }));
    if (row.predicted !== undefined) {
      const [predicted, observed, count] = [row.predicted, row.observed, row.predictions].map(number);
      return say("predicted {predicted}: came true {observed}; {count} predictions", { predicted, observed, count });
    }
    const [low, high, score, rate] = [row.low, row.high, row.score, row.lr].map(number);
    const [updates, examples, seconds] = [row.updates, row.examples, row.seconds].map(number);
    const where = row.optimizer
      ? say("{optimizer}, {updates} updates, {examples} examples, {seconds} seconds", { optimizer: row.optimizer, updates, examples, seconds })
      : say("learning rate {rate}", { rate });
    const range = row.low == null ? "" : `, ${say("{low} to {high}", { low, high })}`;
    const diverged = row.diverged ? say(", {count} diverged", { count: row.diverged }) : "";
    return say("{where}: score {score}{range}; {seeds} seeds{diverged}", { where, score, range, seeds: row.seeds, diverged });
  }

  function wireCopying() {
    const status = document.getElementById("status");
    for (const button of all("[data-copy]")) {
      button.addEventListener("click", async () => {
        const code = button.parentElement.querySelector("code");
        try {
          await navigator.clipboard.writeText(code.textContent);
          status.textContent = button.textContent = say("Copied");
        } catch {
          window.getSelection().selectAllChildren(code);
          status.textContent = button.textContent = say("Selected: press Ctrl+C");
        }
        setTimeout(() => (button.textContent = say("Copy")), 2500);
      });
    }
  }

  // The legend: a press hides or shows an optimizer, pointing at a name brings its lines forward.
  function wireLegend() {
    const buttons = all("button[data-optimizer]");
    const focus = (name) => setSignal("curves", "focused_optimizer", name);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        const hidden = buttons.filter((other) => other.getAttribute("aria-pressed") !== "true");
        setSignal("curves", "hidden_optimizers", hidden.map((other) => other.dataset.optimizer));
      });
      button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && focus(button.dataset.optimizer));
      button.addEventListener("pointerleave", () => focus(""));
    }
  }

  // Long tables: the first rows at once, the others on request; a filter and headers that sort.
  function wireTable(table) {
    const body = table.tBodies[0];
    const limit = Number(table.dataset.collapse);
    const filter = table.matches(".configurations") ? document.getElementById("filter") : null;
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    (table.closest(".scroll") ?? table).after(more);
    let isOpen = false;

    function refresh() {
      const words = (filter?.value ?? "").toLowerCase().split(/[\s,]+/).filter(Boolean);
      const fits = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
      let number = 0;
      for (const row of body.rows) {
        const isFit = words.length === 0 || fits(row);
        number += isFit;
        row.hidden = !isFit;
        row.classList.toggle("later", isFit && !isOpen && number > limit);
      }
      more.hidden = number <= limit;
      more.textContent = isOpen
        ? say("Show the first {limit} only", { limit })
        : say("The first {limit} are shown: show all {number}", { limit, number: number.toLocaleString("en") });
      more.setAttribute("aria-expanded", String(isOpen));
    }

    more.addEventListener("click", () => {
      isOpen = !isOpen;
      refresh();
    });
    filter?.addEventListener("input", refresh);
    if ("sortable" in table.dataset) wireSorting(table, refresh);
    refresh();
  }

  function wireSorting(table, refresh) {
    const headers = all("thead th", table);
    headers.forEach((header, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      header.replaceChildren(button);
      button.addEventListener("click", () => {
        const order = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", order);
        sortRows(table.tBodies[0], index, header.classList.contains("number"), order === "ascending" ? 1 : -1);
        refresh();
      });
    });
  }

  function sortRows(body, index, isNumeric, sign) {
    const key = (row) => {
      const cell = row.cells[index];
      if (!isNumeric) return cell.textContent;
      const number = parseFloat(cell.dataset.value ?? cell.textContent);
      return Number.isNaN(number) ? null : number;
    };
    const keyed = [...body.rows].map((row) => [key(row), row]);
    const compare = isNumeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
    body.append(...keyed.map(([, row]) => row));
  }

  document.documentElement.dataset.scripts = "on";
  for (const input of all("input[data-signal]")) input.addEventListener("change", () => choose(input));
  wireLegend();
  wireZoom();
  wireCopying();
  all("table[data-collapse]").forEach(wireTable);
  drawCharts();
})();

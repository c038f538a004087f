"use strict";
(() => {
  const payload = JSON.parse(document.getElementById("chart-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const views = { rates: [], curves: [] };

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
      for (const label of all("[data-axis-name]")) label.textContent = input.value;
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
      more.textContent = isOpen ? `Show the first ${limit} only` : `Show all ${number.toLocaleString("en")}`;
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
  all("table[data-collapse]").forEach(wireTable);
  drawCharts();
})();

// An optimizer's way down a surface, beside others.

const state = { surface: data.surfaces[0], start: null, time: 0, playing: false, hidden: new Set() };
const sliders = {};
let ways = [];

// --- descent ----------------------------------------------------------------------------------------------------

// Time is counted in the page's unit: a step, or a row that is seen; `every` of them make a step.
const every = (racer) => racer.batch ?? 1;
const stepsAt = (racer, time) => time / every(racer);

function slopeAt(surface, [x, y], step, batch) {
  if (surface.table) return slopeOfRows(surface.table, [x, y], step, batch);
  const noise = surface.noise ? surface.noise[step - 1] : [0, 0];
  return surface.slopes.map((name, i) => formulas[name](x, y) + noise[i]);
}

// The mean gradient of the rows that a step sees.
function slopeOfRows({ rows, orders, gradient }, p, step, batch) {
  const steps = rows.length / batch, order = orders[Math.floor((step - 1) / steps)], from = ((step - 1) % steps) * batch;
  const sums = [0, 0];
  for (const at of order.slice(from, from + batch)) {
    const [a, b, target] = rows[at], slope = formulas[gradient](p[0] * a + p[1] * b, target);
    sums[0] += slope * a;
    sums[1] += slope * b;
  }
  return sums.map((sum) => sum / batch);
}

// The library's rule, step by step, as its engines call it.
function descend({ rule, batch }, hyperparameters, surface, start, steps) {
  const numbers = Object.values(hyperparameters);
  const begin = (what) => hyperparameters[what] ?? what;
  const [coefficients, update, measure, trust] = ["coefficients", "update", "measure", "trust"].map((part) => formulas[rule[part]]);
  let p = [...start], scalars = rule.scalars.map(begin), slots = null;
  const path = [p];
  for (let step = 1; step <= steps; step++) {
    const g = slopeAt(surface, p, step, batch);
    slots ??= p.map((x, i) => rule.slots.map((what) => (what === "gradient" ? g[i] : what === "parameter" ? x : begin(what))));
    const worked = coefficients(step, ...numbers, ...scalars);
    scalars = worked.slice(0, scalars.length);
    const given = worked.slice(scalars.length);
    if (measure) {
      const parts = p.map((x, i) => measure(x, g[i], ...slots[i], ...given));
      given.push(trust(...[0, 1].map((side) => Math.sqrt(parts.reduce((sum, part) => sum + part[side] ** 2, 0))), ...given));
    }
    const news = p.map((x, i) => update(x, g[i], ...slots[i], ...given));
    p = news.map((own) => own[0]);
    slots = news.map((own) => own.slice(1));
    path.push(p);
    if (!p.every(Number.isFinite)) break;
  }
  return path;
}

// Watched for twice as long as it is shown, so that passing near is not taken for staying there; a table is shown whole.
function wayOf(racer, changed, surface, start) {
  const hyperparameters = { ...racer.hyperparameters, ...changed };
  const shown = surface.steps / every(racer);
  const path = descend(racer, hyperparameters, surface, start, surface.table ? shown : 2 * shown);
  const value = formulas[surface.value];
  const far = path.map(([x, y]) => Math.min(...surface.minima.map(([a, b]) => Math.hypot(x - a, y - b))));
  let arrival = 0;
  far.forEach((distance, step) => {
    if (!(distance <= surface.near * far[0])) arrival = (step + 1) * every(racer);
  });
  const losses = path.map(([x, y]) => value(x, y));
  return { racer, lr: hyperparameters.lr, path: path.slice(0, shown + 1), losses, arrival };
}

// --- the map ----------------------------------------------------------------------------------------------------

const map = byId("map");
const ground = { canvas: document.createElement("canvas"), key: "" };
const LINES_A_DECADE = 3;

const channels = (name) => colour(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));

// Shades and level lines, a pixel at a time: the distance from a level is its difference over the slope.
function drawGround(surface, width, height, ratio) {
  const key = [surface.name, width, height, dark.matches].join();
  if (ground.key === key) return;
  ground.key = key;
  ground.canvas.width = width;
  ground.canvas.height = height;
  const context = ground.canvas.getContext("2d"), image = context.createImageData(width, height);
  const [left, right, bottom, top] = surface.window, dx = (right - left) / width, dy = (top - bottom) / height;
  const value = formulas[surface.value], [byX, byY] = surface.slopes.map((name) => formulas[name]);
  const [low, high, line] = ["--low", "--high", "--contour"].map(channels);
  const floor = 2e-3 * value(...surface.start);
  const corners = [left, right].flatMap((x) => [bottom, top].map((y) => value(x, y)));
  const bottomLevel = Math.log10(floor), span = Math.log10(Math.max(...corners) + floor) - bottomLevel;
  for (let row = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at += 4) {
      const x = left + (column + 0.5) * dx, y = top - (row + 0.5) * dy, f = value(x, y) + floor;
      const level = Math.log10(f), lines = level * LINES_A_DECADE;
      const steep = (Math.hypot(byX(x, y) * dx, byY(x, y) * dy) / f / Math.LN10) * LINES_A_DECADE;
      const away = Math.abs(lines - Math.round(lines)) / steep;
      const inked = clamp(0.5 * ratio + 0.5 - away, 0, 1) * clamp(1.6 - 4 * steep, 0, 1);
      const share = clamp((level - bottomLevel) / span, 0, 1);
      for (let i = 0; i < 3; i++) {
        const shade = low[i] + share * (high[i] - low[i]);
        image.data[at + i] = shade + inked * (line[i] - shade);
      }
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

const toPixels = ([x, y], width, height, [left, right, bottom, top] = state.surface.window) => [
  ((x - left) / (right - left)) * width,
  ((top - y) / (top - bottom)) * height,
];

// Where a way is between two steps.
function headOf(path, time) {
  const at = Math.min(Math.floor(time), path.length - 1), next = path[Math.min(at + 1, path.length - 1)], part = time - at;
  return path[at].map((x, i) => x + clamp(part, 0, 1) * (next[i] - x));
}

const placeOf = ({ path, racer }, width, height) => toPixels(headOf(path, stepsAt(racer, state.time)), width, height);

const TRAIL = 24;

const drawMap = sharp(map, (context, width, height, ratio) => {
  drawGround(state.surface, map.width, map.height, ratio);
  context.drawImage(ground.canvas, 0, 0, width, height);
  for (const minimum of state.surface.minima) star(context, ...toPixels(minimum, width, height));
  context.lineJoin = context.lineCap = "round";
  const taken = [];
  const shown = ways.filter(({ racer }) => !state.hidden.has(racer.name)).reverse(); // the page's own on top
  for (const way of shown) {
    const own = way.racer === data.racers[0], ink = colour(inkOf(way.racer)), time = stepsAt(way.racer, state.time);
    const points = [...way.path.slice(0, Math.floor(time) + 1), headOf(way.path, time)].map((p) => toPixels(p, width, height));
    context.strokeStyle = ink;
    context.globalAlpha = own ? 0.75 : 0.6;
    context.lineWidth = own ? 2.5 : 1.6;
    trace(context, points);
    context.globalAlpha = 1;
    context.lineWidth = own ? 4 : 2.6;
    trace(context, points.slice(-TRAIL));
  }
  for (const way of shown) {
    const own = way.racer === data.racers[0];
    dot(context, ...placeOf(way, width, height), own ? 7 : 5, colour(inkOf(way.racer)));
  }
  for (const way of [...shown].reverse()) label(context, way.racer, placeOf(way, width, height), width, taken);
  showStart();
});

function star(context, x, y) {
  context.strokeStyle = colour("--ink");
  context.lineWidth = 2;
  trace(context, [[x - 6, y - 6], [x + 6, y + 6]]);
  trace(context, [[x - 6, y + 6], [x + 6, y - 6]]);
}

// A name beside its head, unless another's stands there already.
function label(context, racer, [x, y], width, taken) {
  const right = x < width - 110, from = right ? x + 12 : x - 12;
  if (!Number.isFinite(x) || !Number.isFinite(y)) return;
  if (taken.some(([a, b]) => Math.abs(a - from) < 90 && Math.abs(b - y) < 16)) return;
  taken.push([from, y]);
  words(context, racer.name, from, y, { ink: inkOf(racer), size: 13, weight: 650, align: right ? "left" : "right", halo: "--low" });
}

const inkOf = (racer) => (racer === data.racers[0] ? "--own" : `--${racer.name}`);

const showStart = movable(byId("start"), map, {
  place: () => toPixels(state.start, map.clientWidth, map.clientHeight),
  take(x, y) {
    const [left, right, bottom, top] = state.surface.window;
    state.start = [left + (x / map.clientWidth) * (right - left), top - (y / map.clientHeight) * (top - bottom)];
    document.body.classList.add("moved");
    redo();
  },
  describe: () => `Start at ${state.start.map(said).join(", ")}`,
});

// --- the chart --------------------------------------------------------------------------------------------------

const drawChart = sharp(byId("chart"), (context, width, height) => {
  const steps = state.surface.steps, first = formulas[state.surface.value](...state.start);
  const place = axes(context, width, height, { x: [0, steps], y: [1e-6 * first, 3 * first], log: true, xTitle: data.unit });
  inside(context, place, () => {
    for (const { racer, losses } of [...ways].reverse()) {
      if (state.hidden.has(racer.name)) continue;
      const points = losses.slice(0, steps / every(racer) + 1).map((loss, step) => [place.across(step * every(racer)), place.up(Math.max(loss, 1e-300))]);
      context.strokeStyle = colour(inkOf(racer));
      context.lineWidth = racer === data.racers[0] ? 2 : 1.25;
      context.globalAlpha = 0.25;
      trace(context, points);
      context.globalAlpha = 1;
      trace(context, points.slice(0, Math.floor(stepsAt(racer, state.time)) + 1));
    }
    context.strokeStyle = colour("--line-strong");
    context.lineWidth = 1;
    trace(context, [[place.across(state.time), place.top], [place.across(state.time), place.bottom]]);
  });
});

// --- the table --------------------------------------------------------------------------------------------------

const rows = data.racers.map((racer) => {
  const box = make("input", { type: "checkbox", checked: true });
  box.addEventListener("change", () => {
    if (box.checked) state.hidden.delete(racer.name);
    else state.hidden.add(racer.name);
    draw();
  });
  const swatch = make("span", { className: "swatch" });
  swatch.style.setProperty("--ink-of", `var(${inkOf(racer)})`);
  const cells = [make("td"), make("td"), make("td")];
  const row = make("tr", {}, make("th", { scope: "row" }, make("label", {}, box, swatch, racer.name)), ...cells);
  byId("racers").append(row);
  return cells;
});

const lossNow = (racer, losses) => losses[Math.min(Math.floor(stepsAt(racer, state.time)), losses.length - 1)];

function showTable() {
  ways.forEach(({ racer, lr, losses, arrival }, i) => {
    const [rate, near, loss] = rows[i];
    const now = lossNow(racer, losses);
    const lost = losses.some((value) => !Number.isFinite(value));
    rate.textContent = said(lr);
    near.textContent = lost ? "diverges" : arrival <= state.surface.steps ? String(arrival) : `${state.surface.steps}+`;
    loss.textContent = said(now);
  });
}

// --- the player -------------------------------------------------------------------------------------------------

const SECONDS = 12, PLAY = byId("play"), TIME = byId("time");

function draw() {
  TIME.value = state.time;
  TIME.setAttribute("aria-valuetext", `${Math.floor(state.time)} of ${state.surface.steps} ${data.unit}`);
  byId("clock").textContent = `${Math.floor(state.time)} / ${state.surface.steps}`;
  PLAY.textContent = state.playing ? "Pause" : "Play";
  showTable();
  drawMap();
  drawChart();
}

function announce() {
  const [own] = ways;
  const loss = said(lossNow(own.racer, own.losses));
  byId("status").textContent = `After ${Math.floor(state.time)} ${data.unit} the loss of ${own.racer.name} is ${loss}`;
}

function go(playing) {
  state.playing = playing;
  if (playing && state.time >= state.surface.steps) state.time = 0;
  if (playing) requestAnimationFrame(tick);
  else announce();
  draw();
}

let before = null;
function tick(now) {
  if (!state.playing) {
    before = null;
    return;
  }
  // Where motion is not wanted, twenty still pictures; else a glide.
  const still = calm.matches, passed = before === null ? 0 : now - before;
  if (!still || passed > 600 || before === null) {
    const share = still ? (before === null ? 0 : 1 / 20) : Math.min(passed, 100) / 1000 / SECONDS;
    // Most happens at first: the time that is shown goes with the square of the time that passes.
    const passing = Math.sqrt(state.time / state.surface.steps) + share;
    state.time = Math.min(passing ** 2, 1) * state.surface.steps;
    before = now;
    if (state.time >= state.surface.steps) {
      before = null;
      go(false);
      return;
    }
    draw();
  }
  requestAnimationFrame(tick);
}

PLAY.addEventListener("click", () => go(!state.playing));
byId("step").addEventListener("click", () => {
  const step = every(data.racers[0]);
  state.time = Math.min((Math.floor(state.time / step) + 1) * step, state.surface.steps);
  go(false);
});
byId("restart").addEventListener("click", () => {
  state.time = 0;
  go(state.playing);
});
TIME.addEventListener("input", () => {
  state.time = Number(TIME.value);
  state.playing = false;
  draw();
});

// --- what can be changed ----------------------------------------------------------------------------------------

function redo() {
  const { surface, start } = state;
  const own = Object.fromEntries(Object.entries(sliders).map(([name, { value }]) => [name, value]));
  ways = data.racers.map((racer, i) => wayOf(racer, i === 0 || data.shared ? own : { lr: racer.rates[surface.name] }, surface, start));
  draw();
}

function choose(name) {
  state.surface = data.surfaces.find((surface) => surface.name === name);
  state.start = [...state.surface.start];
  document.querySelectorAll("[data-surface]").forEach((text) => (text.hidden = text.dataset.surface !== name));
  document.body.classList.remove("moved");
  TIME.max = state.surface.steps;
  sliders.lr.mark(data.racers[0].rates[name]);
  sliders.lr.set(data.racers[0].rates[name]);
  state.time = calm.matches ? state.surface.steps : 0;
  redo();
  go(!calm.matches);
}

for (const spec of data.sliders) {
  sliders[spec.name] = addSlider(byId("sliders"), spec, () => {
    if (!state.playing && state.time === 0) state.time = state.surface.steps;
    redo();
  });
}
byId("reset").addEventListener("click", () => {
  for (const spec of data.sliders) sliders[spec.name].set(spec.name === "lr" ? data.racers[0].rates[state.surface.name] : spec.value);
  state.start = [...state.surface.start];
  redo();
});
document.querySelectorAll("input[name=surface]").forEach((box) => box.addEventListener("change", () => choose(box.value)));
choose(data.surfaces[0].name);
document.documentElement.dataset.ready = "";

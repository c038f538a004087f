// What both pages use: colours, sharp canvases, sliders, a point that can be moved, and a chart.

const dark = matchMedia("(prefers-color-scheme: dark)");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const byId = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function said(x) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "not a number" : x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? x.toExponential(1) : String(Number(x.toPrecision(3)));
  return text.replace(".0e", "e").replace("e+", "e").replaceAll("-", "−");
}

// --- canvases ---------------------------------------------------------------------------------------------------

// Draws anew when the canvas's place, the colours or what is drawn change, once a frame at most.
function sharp(canvas, draw) {
  let waiting = false;
  const now = () => {
    waiting = false;
    const { width, height } = canvas.getBoundingClientRect();
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    draw(context, width, height, ratio);
  };
  const ask = () => {
    if (!waiting) requestAnimationFrame(now);
    waiting = true;
  };
  new ResizeObserver(ask).observe(canvas);
  dark.addEventListener("change", ask);
  return ask;
}

function trace(context, points) {
  context.beginPath();
  let drawing = false;
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) drawing = false;
    else if (drawing) context.lineTo(clamp(x, -1e4, 1e4), clamp(y, -1e4, 1e4));
    else {
      context.moveTo(clamp(x, -1e4, 1e4), clamp(y, -1e4, 1e4));
      drawing = true;
    }
  }
  context.stroke();
}

function dot(context, x, y, radius, fill, edge = colour("--surface")) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.strokeStyle = edge;
  context.lineWidth = 2;
  context.fill();
  context.stroke();
}

function words(context, text, x, y, { ink = "--ink", size = 12, weight = 400, align = "center", halo = null } = {}) {
  context.font = `${weight} ${size}px ${colour("--sans")}`;
  context.textAlign = align;
  context.textBaseline = "middle";
  if (halo) {
    context.strokeStyle = colour(halo);
    context.lineWidth = 4;
    context.lineJoin = "round";
    context.strokeText(text, x, y);
  }
  context.fillStyle = colour(ink);
  context.fillText(text, x, y);
}

// --- a chart ----------------------------------------------------------------------------------------------------

const EDGES = { left: 52, right: 14, top: 10, bottom: 40 };

function ticksOf(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
}

// Axes, and the maps from numbers to places; `log`: the vertical axis is.
function axes(context, width, height, { x, y, log = false, xTitle, yTitle = "" }) {
  const { left, right, top, bottom } = EDGES;
  const level = (v) => (log ? Math.log10(v) : v);
  const across = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right);
  const up = (v) => height - bottom - ((level(v) - level(y[0])) / (level(y[1]) - level(y[0]))) * (height - top - bottom);
  context.lineWidth = 1;
  context.strokeStyle = colour("--line");
  let decades = ticksOf(level(y[0]), level(y[1]), Math.max(2, height / 60));
  if (log) decades = decades.filter(Number.isInteger).map((power) => 10 ** power);
  for (const tick of decades) {
    trace(context, [[left, up(tick)], [width - right, up(tick)]]);
    words(context, log ? said(tick) : said(Number(tick.toPrecision(6))), left - 8, up(tick), { ink: "--muted", align: "right" });
  }
  for (const tick of ticksOf(x[0], x[1], Math.max(2, width / 90))) {
    words(context, said(Number(tick.toPrecision(6))), across(tick), height - bottom + 14, { ink: "--muted" });
  }
  context.strokeStyle = colour("--line-strong");
  trace(context, [[left, height - bottom], [width - right, height - bottom]]);
  if (!log && y[0] < 0 && y[1] > 0) trace(context, [[left, up(0)], [width - right, up(0)]]);
  words(context, xTitle, (left + width - right) / 2, height - 9, { ink: "--muted" });
  if (yTitle) words(context, yTitle, left, top - 2, { ink: "--muted", align: "left" });
  return { across, up, left, right: width - right, top, bottom: height - bottom };
}

function inside(context, { left, right, top, bottom }, draw) {
  context.save();
  context.beginPath();
  context.rect(left, top - 3, right - left, bottom - top + 6);
  context.clip();
  draw();
  context.restore();
}

// --- sliders ----------------------------------------------------------------------------------------------------

const SCALES = {
  linear: { to: (v) => v, from: (t) => Number(t.toPrecision(3)) },
  log: { to: Math.log10, from: (t) => Number((10 ** t).toPrecision(3)) },
  // evenly in the number of steps that are remembered
  memory: { to: (v) => -Math.log10(1 - v), from: (t) => Number((1 - Number((10 ** -t).toPrecision(2))).toFixed(8)) },
};

function addSlider(place, spec, changed) {
  const { to, from } = SCALES[spec.scale], low = to(spec.low), high = to(spec.high);
  const id = `slider-${spec.name}`;
  const input = make("input", { type: "range", id, min: low, max: high, step: (high - low) / 240 });
  const output = make("output");
  output.htmlFor = id;
  const row = make("div", { className: "slider" }, make("label", { htmlFor: id, textContent: spec.name }), output, input);
  const slider = {
    value: spec.value,
    set(value) {
      slider.value = value;
      input.value = to(value);
      slider.show();
    },
    // a mark at the value that was found for it
    mark(value) {
      row.style.setProperty("--mark", clamp((to(value) - low) / (high - low), 0, 1));
      row.classList.add("marked");
    },
    show() {
      const text = spec.scale === "memory" ? String(slider.value) : said(slider.value); // 0.9999 is not 1
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
      input.style.setProperty("--share", clamp((to(slider.value) - low) / (high - low), 0, 1));
    },
  };
  input.addEventListener("input", () => {
    slider.value = from(Number(input.value));
    slider.show();
    changed();
  });
  place.append(row);
  slider.set(spec.value);
  return slider;
}

// --- a point to be moved ----------------------------------------------------------------------------------------

// By mouse, touch and arrow keys. `place` gives its pixels in the canvas, `take` what pixels mean.
function movable(handle, canvas, { place, take, describe }) {
  const show = () => {
    const [x, y] = place();
    handle.style.transform = `translate(${x}px, ${y}px)`;
    handle.setAttribute("aria-label", describe());
  };
  const toward = (event) => {
    const box = canvas.getBoundingClientRect();
    take(clamp(event.clientX - box.left, 0, box.width), clamp(event.clientY - box.top, 0, box.height));
    show();
  };
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (handle.hasPointerCapture(event.pointerId)) toward(event);
  });
  handle.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const [x, y] = place(), far = event.shiftKey ? 40 : 8;
    const box = canvas.getBoundingClientRect();
    take(clamp(x + far * by[0], 0, box.width), clamp(y + far * by[1], 0, box.height));
    show();
  });
  return show;
}

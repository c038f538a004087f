// A loss's curves, and fits under it and beside it.

const { loss, beside, axis, fit } = data;
const sliders = {};
const options = () => Object.keys(loss.parameters).map((name) => sliders[name].value);
const defaults = Object.values(loss.parameters);
const besideOptions = Object.values(beside.parameters);

// --- curves -----------------------------------------------------------------------------------------------------

const POINTS = 200; // on either side of the middle
const middle = (axis.low + axis.high) / 2, half = (axis.high - axis.low) / 2;
const xs = Array.from({ length: 2 * POINTS + 1 }, (_, i) => middle + ((i - POINTS) / POINTS) * half);

// Value and slope of a loss at a place of the axis.
function at(which, x, target, numbers) {
  const [value, gradient] = [formulas[which.value], formulas[which.gradient]];
  // of two classes' logits only the true one's moves: the slope by it is the slope by log p, times 1 - p
  if (axis.kind === "true class") return [value(Math.log(x), ...numbers), gradient(Math.log(x), ...numbers) * (1 - x)];
  return [value(x, target, ...numbers), gradient(x, target, ...numbers)];
}

const curveOf = (which, target, numbers) => xs.map((x) => at(which, x, target, numbers));

// A slope that jumps, by far more than it moves nearby, is drawn as a jump.
function brokenAtJumps(points) {
  const moves = points.slice(1).map(([, y], i) => Math.abs(y - points[i][1]));
  return points.flatMap((point, i) => {
    const around = Math.max(moves[Math.max(0, i - 3)], moves[Math.min(i + 1, moves.length - 1)]);
    return i > 0 && moves[i - 1] > 4 * around + 1e-9 ? [[NaN, NaN], point] : [point];
  });
}

const INKS = ["--own", "--momentum"];
const targets = axis.targets.map((target, i) => ({ target, ink: INKS[i] }));
const withBeside = axis.kind === "error"; // elsewhere the other loss has another scale

const reach = [0, 1].map((part) => {
  const shown = targets.flatMap(({ target }) => curveOf(loss, target, defaults).map((pair) => pair[part])).filter(Number.isFinite);
  const low = Math.min(0, ...shown), high = Math.max(0, ...shown);
  return [1.5 * low, 1.5 * high];
});

const input = byId("at");
Object.assign(input, { min: axis.low, max: axis.high, step: half / POINTS });
input.value = middle + 0.5 * half;

function drawCurve(part) {
  return (context, width, height) => {
    const place = axes(context, width, height, { x: [axis.low, axis.high], y: reach[part], xTitle: axis.title });
    const put = (pairs) => pairs.map((pair, i) => [place.across(xs[i]), place.up(pair[part])]);
    const line = (which, target, numbers, ink, thick, alpha, dashes = []) => {
      context.strokeStyle = colour(ink);
      context.lineWidth = thick;
      context.globalAlpha = alpha;
      context.setLineDash(dashes);
      const points = part ? brokenAtJumps(put(curveOf(which, target, numbers))) : put(curveOf(which, target, numbers));
      trace(context, points);
      // between two jumps a point stands alone, and no line shows it
      const alone = points.filter((_, i) => i > 0 && Number.isNaN(points[i - 1][0]) && Number.isNaN(points[i + 1]?.[0]));
      for (const [x, y] of alone) dot(context, x, y, 4, colour(ink));
      context.setLineDash([]);
      context.globalAlpha = 1;
    };
    inside(context, place, () => {
      if (withBeside) line(beside, 0, besideOptions, "--sgd", 1.5, 1, [6, 5]);
      for (const { target, ink } of targets) line(loss, target, defaults, ink, 2, 0.25);
      for (const { target, ink } of targets) line(loss, target, options(), ink, 2.75, 1);
      const x = Number(input.value), rise = half / 3.5;
      for (const { target, ink } of targets) {
        const [value, slope] = at(loss, x, target, options());
        context.strokeStyle = colour("--ink");
        context.lineWidth = 1.5;
        // against p the slope by the logit is no tangent
        if (!part && axis.kind !== "true class") trace(context, [-rise, rise].map((by) => [place.across(x + by), place.up(value + by * slope)]));
        if (part) trace(context, [[place.across(x), place.up(0)], [place.across(x), place.up(slope)]]);
        dot(context, place.across(x), place.up(part ? slope : value), 6, colour(ink));
      }
    });
  };
}
const drawValue = sharp(byId("value"), drawCurve(0)), drawGradient = sharp(byId("gradient"), drawCurve(1));

function legend(id, entries) {
  const items = entries.map(([ink, text, look = ""]) => {
    const swatch = make("span", { className: `swatch ${look}` });
    swatch.style.setProperty("--ink-of", `var(${ink})`);
    return make("li", {}, swatch, text);
  });
  byId(id).replaceChildren(...items);
}

function read() {
  const x = Number(input.value);
  const parts = targets.map(({ target }) => {
    const [value, slope] = at(loss, x, target, options());
    const whose = targets.length > 1 ? `target ${said(target)}: ` : "";
    return `${whose}value ${said(value)}, gradient ${said(slope)}`;
  });
  byId("readout").textContent = parts.join("; ");
  document.querySelector("#reader output").textContent = said(Number(x.toPrecision(6)));
  input.setAttribute("aria-valuetext", `${said(Number(x.toPrecision(6)))}: ${parts.join("; ")}`);
}

// --- fits -------------------------------------------------------------------------------------------------------

// What the model's number z costs a row under a loss, and the slope by z.
function cost(which, z, row, numbers) {
  const y = row[row.length - 1], [value, gradient] = [formulas[which.value], formulas[which.gradient]];
  if (which === beside && fit.kind === "rate") {
    const mean = Math.exp(z); // the same curve, by least squares
    return [value(mean, y, ...numbers), gradient(mean, y, ...numbers) * mean];
  }
  if (which === beside && fit.kind === "classes") return [value(z, 2 * y - 1, ...numbers), gradient(z, 2 * y - 1, ...numbers)];
  if (fit.target === "sign") return [value(z, 2 * y - 1, ...numbers), gradient(z, 2 * y - 1, ...numbers)];
  const share = 1 / (1 + Math.exp(-z));
  if (fit.prediction === "probability") return [value(share, y, ...numbers), gradient(share, y, ...numbers) * share * (1 - share)];
  if (fit.prediction === "logits") {
    const side = 2 * y - 1, logP = -Math.log1p(Math.exp(-side * z)); // of the true class
    return [value(logP, ...numbers), gradient(logP, ...numbers) * side * -Math.expm1(logP)];
  }
  return [value(z, y, ...numbers), gradient(z, y, ...numbers)];
}

const score = (w, row) => w[0] + w.slice(1).reduce((sum, weight, i) => sum + weight * row[i], 0);

const STEPS = 1000, FIRST_RATE = 0.2, LAST_RATE = 5e-4;

// The library's Adam on all rows, its rate falling evenly on a log scale.
function fitted(which, numbers, rows, from) {
  const { coefficients, update, hyperparameters } = fit.adam;
  let w = from.map((x) => [x, 0, 0]);
  for (let step = 1; step <= STEPS; step++) {
    const now = w.map(([x]) => x), slopes = now.map(() => 0);
    for (const row of rows) {
      const [, slope] = cost(which, score(now, row), row, numbers);
      slopes[0] += slope / rows.length;
      for (let i = 1; i < now.length; i++) slopes[i] += (slope * row[i - 1]) / rows.length;
    }
    const lr = FIRST_RATE * (LAST_RATE / FIRST_RATE) ** (step / STEPS);
    const given = formulas[coefficients](step, ...Object.values({ ...hyperparameters, lr }));
    w = w.map((own, i) => formulas[update](own[0], slopes[i], ...own.slice(1), ...given));
  }
  return w.map(([x]) => x);
}

const world = fit && { moved: [...fit.moved], fits: null };
const fromZero = () => (fit.kind === "classes" ? [0, 0, 0] : [0, 0]);

function refit() {
  const rows = [...fit.rows, world.moved];
  world.start ??= fitted(beside.name === "mse" ? beside : loss, beside.name === "mse" ? besideOptions : defaults, fit.rows, fromZero());
  world.fits = [
    { which: loss, numbers: options(), ink: "--own" },
    { which: beside, numbers: besideOptions, ink: "--sgd" },
  ].map((one) => ({
    ...one,
    w: fitted(one.which, one.numbers, rows, world.start),
    without: fitted(one.which, one.numbers, fit.rows, world.start),
  }));
  sayShift();
  drawScatter();
}

const meanAt = (w, x) => (fit.kind === "rate" ? Math.exp(score(w, [x])) : score(w, [x]));

function sayShift() {
  const rows = [...fit.rows, world.moved], x = world.moved[0];
  const parts = world.fits.map(({ which, w, without }) => {
    if (fit.kind !== "classes") return `${which.name} by ${said(Math.abs(meanAt(w, x) - meanAt(without, x)))}`;
    const wrong = rows.filter((row) => (score(w, row) > 0 ? 1 : 0) !== row[2]).length;
    return `${wrong} by ${which.name}`;
  });
  byId("shift").textContent =
    fit.kind === "classes" ? `Of ${rows.length} rows on the wrong side: ${parts.join(", ")}.` : `This row alone moves the fit at its place: ${parts.join(", ")}.`;
}

const frame = (width, height) => {
  const [left, right, bottom, top] = fit.window;
  return { across: (x) => ((x - left) / (right - left)) * width, up: (y) => ((top - y) / (top - bottom)) * height };
};

const drawScatter = fit && sharp(byId("scatter"), (context, width, height) => {
  const { across, up } = frame(width, height), [left, right] = fit.window, classes = fit.kind === "classes";
  context.strokeStyle = colour("--line");
  context.lineWidth = 1;
  trace(context, [[across(left), up(0)], [across(right), up(0)]]);
  trace(context, [[across(0), 0], [across(0), height]]);
  drawPulls(context, across, up, width);
  for (const { which, w, without, ink } of [...world.fits].reverse()) {
    const line = (of) => (classes ? border(of) : xsOf(left, right).map((x) => [x, meanAt(of, x)])).map(([x, y]) => [across(x), up(y)]);
    context.strokeStyle = colour(ink);
    context.lineWidth = which === loss ? 3.5 : 2.25;
    context.setLineDash(which === loss ? [] : [8, 6]);
    trace(context, line(w));
    context.setLineDash([]);
    context.lineWidth = 1;
    if (which === loss) trace(context, line(without));
  }
  for (const row of fit.rows) {
    const empty = classes && row[2] === 0;
    dot(context, across(row[0]), up(row[1]), 5, colour(empty ? "--surface" : "--ink"), colour(empty ? "--ink" : "--surface"));
  }
  showMoved();
});

const xsOf = (left, right) => Array.from({ length: 81 }, (_, i) => left + (i / 80) * (right - left));

// Where the score is 0: from one edge of what is shown far beyond the other.
function border([a, b, c]) {
  const length = Math.hypot(b, c) || 1, far = 20, near = [(-a * b) / length ** 2, (-a * c) / length ** 2];
  return Array.from({ length: 401 }, (_, i) => {
    const by = far * (i / 200 - 1);
    return [near[0] - (by * c) / length, near[1] + (by * b) / length];
  });
}

// How hard each row pulls at the fit under this loss: the thickness of its bar, or the width of its halo.
function drawPulls(context, across, up, width) {
  const [{ which, w, numbers }] = world.fits, rows = [...fit.rows, world.moved];
  const pulls = rows.map((row) => Math.abs(cost(which, score(w, row), row, numbers)[1]));
  const hardest = Math.max(...pulls) || 1;
  context.strokeStyle = context.fillStyle = colour("--own");
  context.globalAlpha = 0.3;
  rows.forEach((row, i) => {
    const x = across(row[0]), share = pulls[i] / hardest;
    if (fit.kind === "classes") {
      context.beginPath();
      context.arc(x, up(row[1]), share * Math.min(26, width / 20), 0, 2 * Math.PI);
      context.fill();
    } else {
      context.lineWidth = 0.5 + 9 * share;
      trace(context, [[x, up(row[1])], [x, up(meanAt(w, row[0]))]]);
    }
  });
  context.globalAlpha = 1;
}

const showMoved = fit && movable(byId("moved"), byId("scatter"), {
  place() {
    const { across, up } = frame(byId("scatter").clientWidth, byId("scatter").clientHeight);
    return [across(world.moved[0]), up(world.moved[1])];
  },
  take(x, y) {
    const { clientWidth, clientHeight } = byId("scatter"), [left, right, bottom, top] = fit.window;
    world.moved[0] = left + (x / clientWidth) * (right - left);
    world.moved[1] = top - (y / clientHeight) * (top - bottom);
    if (fit.kind === "rate") world.moved[1] = Math.max(world.moved[1], 0.1); // an amount is above 0
    document.body.classList.add("moved");
    refit();
  },
  describe: () => `Row at ${world.moved.slice(0, 2).map(said).join(", ")}`,
});

// --- what can be changed ----------------------------------------------------------------------------------------

function redo() {
  read();
  drawValue();
  drawGradient();
  if (fit) refit();
}

for (const spec of data.sliders) sliders[spec.name] = addSlider(byId("sliders"), spec, redo);
byId("reset")?.addEventListener("click", () => {
  for (const spec of data.sliders) sliders[spec.name].set(spec.value);
  redo();
});
input.addEventListener("input", () => {
  read();
  drawValue();
  drawGradient();
});
const own = targets.map(({ target, ink }) => [ink, targets.length > 1 ? `${loss.name}, target ${said(target)}` : loss.name]);
legend("curve-legend", [...own, ...(withBeside ? [["--sgd", beside.name, "dashed"]] : [])]);
if (fit) legend("fit-legend", [["--own", loss.name], ["--own", `${loss.name} without the ringed row`, "thin"], ["--sgd", beside.name, "dashed"]]);
redo();
document.documentElement.dataset.ready = "";

// Curves of a run, drawn as SVG: thin lines as logged, thick lines smoothed. They are drawn anew when points arrive.
import { currentLanguage, el, has, t } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 210;
const MARGIN = { top: 12, right: 14, bottom: 40, left: 52 };
const UNIT_WIDTH = 24; // of the unit, which stands upright at the left
const SMOOTHED_FRACTION = 0.04; // as in report.html
const OUTLIERS = 0.005; // of the values on each side may lie outside, so that they do not flatten the rest

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The centred median of each value and its neighbours; null, which stands for what is no finite number, stays. */
export function smoothed(values) {
  const reach = Math.floor((values.length * SMOOTHED_FRACTION) / 2);
  if (reach === 0) return values;
  return values.map((value, place) => {
    if (value === null) return null;
    const window = finite(values.slice(Math.max(0, place - reach), place + reach + 1)).sort((one, other) => one - other);
    const middle = window.length >> 1;
    return window.length % 2 ? window[middle] : (window[middle - 1] + window[middle]) / 2;
  });
}

function finite(values) {
  return values.filter((value) => value !== null);
}

/** Round numbers between two values: [values, step]. Args: least: the smallest step. */
export function ticks(low, high, wanted, least = 0) {
  const rough = Math.max(least, (high - low) / wanted || 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const values = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) values.push(place * step);
  return [values, step];
}

/** A number as short as its neighbours allow. */
export function short(given, step = Math.abs(given) / 100) {
  const value = Math.abs(given) < step / 1000 ? 0 : given; // the sums of floating-point numbers are not quite 0
  const locale = currentLanguage() === "zh" ? "zh-CN" : "en";
  const size = Math.abs(value);
  if (size >= 10000) return new Intl.NumberFormat(locale, { notation: "compact", maximumSignificantDigits: 3 }).format(value);
  if (size > 0 && size < 0.001) return value.toExponential(1).replace("e-", "e−").replace("-", "−");
  const digits = step > 0 ? Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9))) : 2;
  return new Intl.NumberFormat(locale, { minimumFractionDigits: digits > 3 ? 0 : digits, maximumFractionDigits: digits }).format(value).replace("-", "−");
}

/** The labels of an axis: short ones, unless two of them would be alike. */
export function tickLabels(values, step) {
  const labels = values.map((value) => short(value, step));
  if (new Set(labels).size === labels.length) return labels;
  const locale = currentLanguage() === "zh" ? "zh-CN" : "en";
  const digits = Math.max(0, Math.min(12, Math.ceil(-Math.log10(step) - 1e-9)));
  const exact = new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return values.map((value) => exact.format(value).replace("-", "−"));
}

/** The width of a label, not less than it is in any usual font of 11 pixels. */
function widthOf(label) {
  return [...label].reduce((sum, letter) => sum + (letter.codePointAt(0) >= 0x2e80 ? 11.5 : 7.2), 0);
}

function quantile(sorted, fraction) {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(fraction * (sorted.length - 1))))];
}

/** The vertical range, as report.html chooses it. */
function rangeOf(series, unit) {
  const sorted = finite(series.flatMap((one) => one.values)).sort((one, other) => one - other);
  const [low, high] = [quantile(sorted, OUTLIERS), quantile(sorted, 1 - OUTLIERS)];
  const margin = 0.08 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  if (unit === "fraction") return [0, Math.min(1.02, Math.max(high + margin, 0.05))];
  return [sorted[0] >= 0 ? Math.max(low - margin, 0) : low - margin, high + margin];
}

export function curveName(name) {
  return has(`curve.${name}`) ? t(`curve.${name}`) : name;
}

/** A line through the points, with a gap where a value is null; a point between two gaps is a dot. */
function path(one, values, x, y) {
  let isOpen = false;
  return one.steps
    .map((step, place) => {
      const goesOn = isOpen;
      isOpen = values[place] !== null;
      if (!isOpen) return "";
      return `${goesOn ? "L" : "M"}${x(step).toFixed(1)},${y(values[place]).toFixed(1)}${goesOn ? "" : "h0"}`;
    })
    .join("");
}

/** One figure. `update` is given all the points of the run: [{step, values}]; all figures have its range of steps. */
export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.series = [];
    this.canvas = svg("svg", { class: "plot", role: "img", tabindex: "0", height: HEIGHT });
    this.readout = el("p", { class: "readout" });
    this.legend = el("ul", { class: "curve-names" });
    const title = has(`figure.${figure.name}`) ? { words: `figure.${figure.name}` } : {};
    this.title = el("h4", title, ...(title.words ? [] : [figure.name]));
    const about = has(`about.${figure.name}`) ? el("figcaption", { words: `about.${figure.name}` }) : el("figcaption", {});
    this.element = el("figure", { class: "curve" }, el("div", { class: "curve-head" }, this.title, this.readout), this.legend, this.canvas, about);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.clientX - this.canvas.getBoundingClientRect().left));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("blur", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas.parentElement);
  }

  update(points) {
    this.series = this.figure.curves
      .map((name, number) => {
        const own = points.filter((point) => name in point.values);
        const values = own.map((point) => point.values[name]);
        return { name, number, steps: own.map((point) => point.step), values, smooth: smoothed(values) };
      })
      .filter((one) => finite(one.values).length);
    this.element.hidden = !this.series.length;
    this.range = [points[0]?.step ?? 0, points[points.length - 1]?.step ?? 0];
    this.draw();
  }

  draw() {
    const chosen = this.series[0]?.steps.includes(this.chosenStep) ? this.series[0].steps.indexOf(this.chosenStep) : null;
    // That of the drawing, without the padding of its figure: what is scaled would not stand where the pointer is.
    const width = Math.floor(this.canvas.getBoundingClientRect().width);
    if (!width || !this.series.length) return;
    const unit = this.figure.unit;
    const [low, high] = rangeOf(this.series, unit);
    // A single step stands in the middle.
    const [first, last] = this.range[0] === this.range[1] ? [this.range[0] - 1, this.range[1] + 1] : this.range;
    const [up, upStep] = ticks(low, high, 5);
    const upLabels = tickLabels(up, upStep);
    const left = Math.max(MARGIN.left, UNIT_WIDTH + Math.max(...upLabels.map(widthOf)));
    const x = (step) => left + ((step - first) / (last - first)) * (width - left - MARGIN.right);
    const y = (value) => MARGIN.top + ((high - value) / (high - low)) * (HEIGHT - MARGIN.top - MARGIN.bottom);
    const limited = (value) => Math.max(MARGIN.top, Math.min(HEIGHT - MARGIN.bottom, y(value)));
    this.scale = { x, y: limited, first, last, left, width };
    this.canvas.setAttribute("width", width);
    this.canvas.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.cursor = svg("g", { class: "cursor" });
    const lines = this.series.flatMap((one) => [
      svg("path", { class: `thin line-${one.number}`, d: path(one, one.values, x, limited) }),
      svg("path", { class: `thick line-${one.number}`, d: path(one, one.smooth, x, limited), "data-curve": one.name }),
    ]);
    const dots = this.series.filter((one) => one.steps.length === 1).map((one) =>
      svg("circle", { class: `dot line-${one.number}`, cx: x(one.steps[0]), cy: limited(one.values[0]), r: 3 }));
    this.canvas.replaceChildren(...this.axes(up, upLabels), ...lines, ...dots, this.cursor);
    this.canvas.setAttribute("aria-label", this.summary());
    this.legend.replaceChildren(...this.series.map((one) =>
      el("li", {}, lineSample(one.number), el("span", {}, curveName(one.name)))));
    this.legend.hidden = this.series.length < 2;
    this.choose(chosen); // what somebody reads stays while the run goes on
  }

  axes(up, upLabels) {
    const { x, y, first, last, left, width } = this.scale;
    const [from, to] = this.range;
    const [rough, acrossStep] = ticks(first, last, Math.max(2, Math.floor(width / 75)), 1);
    const across = rough.filter((step) => step >= from && step <= to);
    const acrossLabels = tickLabels(across, acrossStep);
    const bottom = HEIGHT - MARGIN.bottom;
    const unit = this.figure.unit && has(`unit.${this.figure.unit}`) ? t(`unit.${this.figure.unit}`) : this.figure.unit;
    const middle = (MARGIN.top + bottom) / 2;
    // The last label must not reach beyond the edge.
    const within = (step, label) => Math.min(x(step), width - widthOf(label) / 2);
    return [
      ...up.flatMap((value, place) => [
        svg("line", { class: "grid", x1: left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
        svg("text", { class: "tick up", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, upLabels[place]),
      ]),
      ...across.map((step, place) =>
        svg("text", { class: "tick across", x: within(step, acrossLabels[place]), y: bottom + 16, "text-anchor": "middle" }, acrossLabels[place])),
      svg("line", { class: "axis", x1: left, x2: width - MARGIN.right, y1: bottom, y2: bottom }),
      svg("text", { class: "unit", x: (left + width - MARGIN.right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, t("live.step")),
      svg("text", { class: "unit", transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, unit),
    ];
  }

  summary() {
    const parts = this.series.map((one) => {
      const shown = finite(one.smooth);
      const [from, to] = [shown[0], shown[shown.length - 1]];
      return t("curve.summary", { name: curveName(one.name), from: short(from), to: short(to), step: one.steps[one.steps.length - 1] });
    });
    return `${this.title.textContent}: ${parts.join(" ")}`;
  }

  point(place) {
    if (!this.scale) return;
    const { first, last, left, width } = this.scale;
    const wanted = first + ((place - left) / (width - left - MARGIN.right)) * (last - first);
    this.choose(nearest(this.series[0].steps, wanted));
  }

  step(event) {
    const steps = this.series[0]?.steps ?? [];
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 };
    const ends = { Home: 0, End: steps.length - 1 };
    if (event.key === "Escape") return this.choose(null);
    if (!(event.key in moves) && !(event.key in ends)) return undefined;
    event.preventDefault();
    const now = this.chosen ?? steps.length - (moves[event.key] < 0 ? 0 : 1);
    const next = event.key in moves ? now + moves[event.key] : ends[event.key];
    this.choose(Math.max(0, Math.min(steps.length - 1, next)));
    this.readout.setAttribute("role", "status");
    return undefined;
  }

  /** Shows the values at a point, or the newest ones. */
  choose(place) {
    this.chosen = place;
    if (!this.series.length || !this.scale) return;
    const [main] = this.series;
    const at = place ?? main.steps.length - 1;
    const step = main.steps[at];
    this.chosenStep = place === null ? undefined : step;
    const parts = this.series.map((one) => {
      const own = nearest(one.steps, step);
      const value = place === null ? one.smooth[own] : one.values[own];
      return value === null ? t("curve.not") : short(value);
    });
    if (place === null) this.readout.removeAttribute("role");
    const given = { step, values: parts.join(" · ") };
    const readout = place === null ? given.values : t("curve.at", given);
    if (this.readout.textContent !== readout) this.readout.textContent = readout; // screen readers say what is written
    this.cursor.replaceChildren();
    if (place === null) return;
    const left = this.scale.x(step);
    this.cursor.append(svg("line", { class: "hair", x1: left, x2: left, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }));
    for (const one of this.series) {
      const own = nearest(one.steps, step);
      if (one.values[own] === null) continue;
      this.cursor.append(svg("circle", { class: `dot line-${one.number}`, cx: this.scale.x(one.steps[own]), cy: this.scale.y(one.values[own]), r: 3.5 }));
    }
  }
}

function lineSample(number) {
  return svg("svg", { class: "sample", width: 26, height: 10, "aria-hidden": "true" }, svg("path", { class: `thick line-${number}`, d: "M1,5L25,5" }));
}

function nearest(steps, wanted) {
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < wanted) low = middle;
    else high = middle;
  }
  return Math.abs(steps[low] - wanted) <= Math.abs(steps[high] - wanted) ? low : high;
}

// Small charts: lines that move on with the seconds, and columns. Every figure that they show is also text.

import { draw, make } from "./dom.js";

const POINTS = 120;
const [WIDTH, HEIGHT] = [240, 64];

/** A round number at or above a value, so that the scale does not change with every point. */
const ceiling = (value) => {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
};

/** One quantity, or several of a kind, over the last two minutes. */
export class Lines {
  /**
   * @param series `{name, hue}` each; the first is drawn with an area beneath it.
   * @param format turns a value into text.
   * @param max top of the scale, where it is fixed.
   */
  constructor(title, series, format, { max } = {}) {
    Object.assign(this, { title, series, format, max });
    this.values = series.map(() => []);
    this.lines = series.map((one) => draw("polyline", { class: `line hue-${one.hue}`, "vector-effect": "non-scaling-stroke" }));
    this.area = draw("polygon", { class: `area hue-${series[0].hue}` });
    this.cursor = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, "vector-effect": "non-scaling-stroke", visibility: "hidden" });
    this.picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, this.area, this.lines, this.cursor);
    this.top = make("span", { class: "scale" });
    this.figures = series.map(() => make("b"));
    this.note = make("small");
    this.element = make("section", { class: "sheet lines" },
      make("h2", {}, title),
      make("ul", { class: "figures" }, series.map((one, at) =>
        make("li", {}, this.figures[at], make("small", {}, series.length > 1 && make("span", { class: `swatch hue-${one.hue}` }), one.name)))),
      make("div", { class: "plot", on: { pointermove: (event) => this.#point(event), pointerleave: () => this.#point(null) } }, this.picture, this.top),
      this.note);
  }

  /** Adds one value per series; null is a gap. */
  push(values) {
    this.values.forEach((known, at) => {
      known.push(values[at] ?? null);
      if (known.length > POINTS) known.shift();
    });
    this.#draw();
  }

  #draw() {
    const all = this.values.flat().filter((value) => value !== null);
    const top = this.max ?? ceiling(Math.max(...all, 0));
    const y = (value) => HEIGHT - (value / top) * (HEIGHT - 3) - 1.5;
    this.values.forEach((known, at) => {
      const points = known.map((value, index) => [this.#x(index), value]).filter(([, value]) => value !== null);
      const path = points.map(([x, value]) => `${x.toFixed(1)},${y(value).toFixed(1)}`).join(" ");
      this.lines[at].setAttribute("points", path);
      if (at === 0) this.area.setAttribute("points", points.length ? `${points[0][0]},${HEIGHT} ${path} ${points.at(-1)[0]},${HEIGHT}` : "");
    });
    this.top.textContent = this.format(top);
    this.#say(this.values[0].length - 1);
  }

  #x(index) {
    return WIDTH - (this.values[0].length - 1 - index) * (WIDTH / (POINTS - 1));
  }

  #say(index) {
    this.figures.forEach((figure, at) => {
      const value = this.values[at][index];
      figure.textContent = value === null || value === undefined ? "–" : this.format(value);
    });
    const words = this.series.map((one, at) => `${one.name} ${this.figures[at].textContent}`.trim());
    this.picture.setAttribute("aria-label", `${this.title}: ${words.join(", ")}`);
  }

  #point(event) {
    const count = this.values[0].length;
    const box = this.picture.getBoundingClientRect();
    const back = event && Math.round((1 - (event.clientX - box.left) / box.width) * (POINTS - 1));
    const index = event && back < count ? count - 1 - Math.max(back, 0) : null;
    this.cursor.setAttribute("visibility", index === null ? "hidden" : "visible");
    if (index !== null) {
      this.cursor.setAttribute("x1", this.#x(index));
      this.cursor.setAttribute("x2", this.#x(index));
    }
    this.#say(index ?? count - 1);
  }
}

/** Columns with a label each: `{label, value}`; the table beside them has the same in words. */
export const columns = (title, bars, format) => {
  const top = ceiling(Math.max(...bars.map((bar) => bar.value), 0));
  const highest = bars.reduce((best, bar) => (bar.value > best.value ? bar : best), bars[0]);
  const label = `${title}: highest ${format(highest.value)}, ${highest.label}`;
  return make("figure", { class: "columns", role: "img", "aria-label": label },
    make("span", { class: "scale" }, format(top)),
    make("div", { class: "plot" }, bars.map((bar) => {
      const column = make("span", { class: "column", title: `${bar.label}: ${format(bar.value)}` }, make("span"));
      column.firstChild.style.height = `${(bar.value / top) * 100}%`;
      return column;
    })),
    make("div", { class: "ends" }, make("small", {}, bars[0].label), make("small", {}, bars.at(-1).label)));
};

/** How much of something is used: a share from 0 to 1. */
export const meter = (share, label) => {
  const fill = make("span");
  fill.style.width = `${Math.min(Math.max(share, 0), 1) * 100}%`;
  const state = share > 0.95 ? "bad" : share > 0.8 ? "warn" : "";
  return make("span", { class: `meter ${state}`, role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(share * 100) }, fill);
};

// A trace as a waterfall: one row per span, in the order of the tree, drawn while the spans come.

import { make } from "./dom.js";
import { ms } from "./words.js";

const SERVICES = ["edge", "inference", "cache", "safety"];

const serviceOf = (span) => SERVICES.find((name) => span.service?.includes(name)) ?? "other";

/** `millrace.cache.v1.CacheService/Lookup` as `Lookup`. */
const shortName = (name) => name.split("/").length > 1 && name.includes(".v1.") ? name.split("/").at(-1) : name;

/**
 * Spans with their depth: a parent before its children, these by their start. Spans come when they end, so children
 * come before their parents: until then they stand below the root.
 */
export const ordered = (spans) => {
  const known = new Set(spans.map((span) => span.span_id));
  const root = spans.find((span) => span.parent_span_id === null)?.span_id ?? null;
  const parentOf = (span) => (known.has(span.parent_span_id) ? span.parent_span_id : span.span_id === root ? null : root);
  const children = Map.groupBy(spans, parentOf);
  const walk = (parent, depth) =>
    (children.get(parent) ?? [])
      .sort((a, b) => a.start_ms - b.start_ms)
      .flatMap((span) => [{ ...span, depth }, ...walk(span.span_id, depth + 1)]);
  return walk(null, 0);
};

export class Waterfall {
  constructor() {
    this.spans = new Map();
    this.skewMs = null; // what this clock is ahead of the services'
    this.shown = null; // id of the span whose attributes are shown
    this.total = make("span", { class: "why" });
    this.rows = make("ol", { "aria-label": "Spans" });
    this.about = make("div", { class: "span-about", hidden: true });
    this.legend = make("ul", { class: "legend" });
    this.element = make("section", { class: "fall", "aria-label": "Trace" },
      make("header", {}, make("h3", {}, "Trace"), this.total), this.rows, this.about, this.legend);
  }

  /** Takes a span, new or grown, and draws it with the next frame. */
  add(span) {
    this.skewMs ??= Date.now() - span.start_ms;
    this.spans.set(span.span_id, span);
    this.#drawSoon();
  }

  /** The trace will not grow any more; whatever is open stays so. */
  end() {
    this.ended = true;
    this.#drawSoon();
  }

  /** Says why there are no spans. */
  say(text) {
    this.total.textContent = text;
  }

  #drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
      if (!this.ended && this.element.isConnected && [...this.spans.values()].some((span) => span.duration_ms === null)) this.#drawSoon();
    });
  }

  #draw() {
    const spans = ordered([...this.spans.values()]);
    if (!spans.length) return;
    const nowMs = Date.now() - this.skewMs;
    const ends = spans.map((span) => span.start_ms + (span.duration_ms ?? 0));
    const from = Math.min(...spans.map((span) => span.start_ms));
    const to = Math.max(...ends, this.ended ? 0 : Math.min(nowMs, Math.max(...ends) + 60_000));
    const scale = { from, width: Math.max(to - from, 0.001) };
    const old = new Map([...this.rows.children].map((row) => [row.dataset.span, row]));
    const rows = spans.map((span) => this.#row(old.get(span.span_id) ?? this.#newRow(span), span, scale));
    if (rows.length !== this.rows.children.length || rows.some((row, at) => row !== this.rows.children[at])) this.rows.replaceChildren(...rows);
    this.total.textContent = `${spans.length} spans, ${ms(to - from)}`;
    this.#drawLegend(spans);
  }

  #newRow(span) {
    const show = () => this.#show(span.span_id);
    const row = make("li", { class: `service-${serviceOf(span)}` });
    row.dataset.span = span.span_id;
    row.append(make("button", { type: "button", on: { focus: show, mouseenter: show, click: show } },
      make("span", { class: "name" }),
      make("span", { class: "track" }, make("span", { class: "bar-span" })),
      make("span", { class: "took" })));
    return row;
  }

  #row(row, span, { from, width }) {
    const open = span.duration_ms === null && !this.ended;
    const [name, track, took] = row.firstChild.children;
    const bar = track.firstChild;
    const left = ((span.start_ms - from) / width) * 100;
    const length = ((span.duration_ms ?? (open ? from + width - span.start_ms : 0)) / width) * 100;
    row.classList.toggle("open", open);
    row.classList.toggle("error", span.status === "error");
    name.textContent = shortName(span.name);
    name.style.paddingLeft = `${Math.min(span.depth, 8) * 0.55}rem`;
    bar.style.left = `${Math.min(left, 99)}%`;
    bar.style.width = `${Math.max(0, Math.min(length, 100 - left))}%`;
    took.textContent = open ? "…" : ms(span.duration_ms);
    row.firstChild.setAttribute("aria-label",
      `${shortName(span.name)}, ${span.service}, ${open ? "running" : ms(span.duration_ms)}${span.status === "error" ? ", failed" : ""}`);
    if (this.shown === span.span_id) this.#drawAbout();
    return row;
  }

  #show(id) {
    this.shown = id;
    for (const row of this.rows.children) row.firstChild.setAttribute("aria-pressed", row.dataset.span === id);
    this.#drawAbout();
  }

  #drawAbout() {
    const span = this.spans.get(this.shown);
    const start = Math.min(...[...this.spans.values()].map((one) => one.start_ms));
    const rows = [["service", span.service], ["began", `after ${ms(span.start_ms - start)}`], ...Object.entries(span.attributes ?? {})];
    this.about.hidden = false;
    this.about.replaceChildren(make("h4", {}, span.name), make("dl", {}, rows.flatMap(([name, value]) => [
      make("dt", {}, name), make("dd", {}, Array.isArray(value) ? value.join(", ") : String(value))])));
  }

  #drawLegend(spans) {
    const names = [...SERVICES, "other"].filter((name) => spans.some((span) => serviceOf(span) === name));
    if (names.length === this.legend.children.length) return;
    this.legend.replaceChildren(...names.map((name) => make("li", { class: `service-${name}` }, make("span", { class: "swatch" }), name)));
  }
}


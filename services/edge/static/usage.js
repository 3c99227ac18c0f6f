// What was used: tokens and cost by time and by whom, and the last requests with their traces.

import { ApiError, ask } from "./api.js";
import { columns } from "./chart.js";
import { button, make, openDialog, select } from "./dom.js";
import { refusal } from "./live.js";
import { follow } from "./trace.js";
import { Waterfall } from "./waterfall.js";
import { count, ms, usd, when } from "./words.js";

const HOUR_S = 3600;
const SPANS = [["1", "Last 24 hours"], ["7", "Last 7 days"], ["30", "Last 30 days"]];
const GROUPS = [["model", "Model"], ["api_key_id", "Key"], ["user_id", "User"], ["project_id", "Tenant"]];
const METRICS = [["num_model_requests", "Requests"], ["tokens", "Tokens"], ["cost_usd", "Cost"]];
const SUMS = ["num_model_requests", "failed_requests", "cache_hits", "input_tokens", "output_tokens", "cost_usd", "unpriced_requests"];
const OUTCOMES = { ok: "good", completed: "good", failed: "bad", cancelled: "warn", blocked: "warn" };

class UsagePage {
  constructor() {
    const reload = () => this.#load();
    [this.span, this.group, this.metric] = [[SPANS, "Time"], [GROUPS, "By"], [METRICS, "Shown"]].map(([options, label]) =>
      select(options, { "aria-label": label, on: { change: reload } }));
    this.sums = make("dl", { class: "sheet sums" });
    this.chart = make("section", { class: "sheet" });
    this.groups = make("section", { class: "sheet" });
    this.requests = make("section", { class: "sheet" });
    this.body = make("div", { class: "stack", hidden: true }, this.sums, this.chart, this.groups, this.requests);
    this.element = make("div", { class: "page" },
      make("header", {}, make("div", {}, make("h1", {}, "Usage"), make("p", {}, "What was used, as far as you may see it. An unknown price is left out of the cost and counted beside it.")),
        make("div", { class: "row pickers" }, this.span, this.group, this.metric)),
      this.body);
    this.#load();
  }

  async #load() {
    const days = Number(this.span.value);
    const width = days === 1 ? HOUR_S : 24 * HOUR_S;
    const now = Math.floor(Date.now() / 1000);
    const start = Math.floor(now / width) * width - (days === 1 ? 23 : days - 1) * width;
    try {
      const [usage, history] = await Promise.all([
        ask(`/v1/usage?start_time=${start}&bucket_width=${days === 1 ? "1h" : "1d"}&group_by=${this.group.value}`),
        ask("/history?limit=20"),
      ]);
      this.body.hidden = false;
      this.refused?.remove();
      this.#drawSums(usage.data.flatMap((bucket) => bucket.results));
      this.#drawChart(usage.data, start, width, now);
      this.#drawGroups(usage.data.flatMap((bucket) => bucket.results));
      this.#drawRequests(history.data);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.refused?.remove();
      this.refused = refusal(error, "Usage is shown to those who have a key for it.");
      this.element.append(this.refused);
    }
  }

  #drawSums(results) {
    const all = sum(results);
    this.sums.replaceChildren(...[
      ["Requests", count(all.num_model_requests), all.failed_requests ? `${count(all.failed_requests)} failed` : "none failed"],
      ["Tokens", count(all.input_tokens + all.output_tokens), `${count(all.input_tokens)} in, ${count(all.output_tokens)} out`],
      ["Cost", costOf(all), all.unpriced_requests ? `${count(all.unpriced_requests)} of unknown price` : "all prices known"],
      ["From the cache", count(all.cache_hits), "answers"],
    ].map(([name, value, note]) => make("div", {}, make("dt", {}, name), make("dd", {}, value, make("small", {}, note)))));
  }

  #drawChart(buckets, start, width, now) {
    const found = new Map(buckets.map((bucket) => [bucket.start_time, sum(bucket.results)]));
    const bars = [];
    for (let at = start; at <= now; at += width) bars.push({ label: stamp(at, width), value: metricOf(found.get(at), this.metric.value) });
    const title = this.metric.selectedOptions[0].textContent;
    this.chart.replaceChildren(make("h2", {}, `${title} by ${width === HOUR_S ? "hour" : "day"}`),
      columns(title, bars, this.metric.value === "cost_usd" ? usd : count));
  }

  #drawGroups(results) {
    const named = Object.groupBy(results, (one) => one.api_key_name || one[this.group.value] || "–");
    const rows = Object.entries(named).map(([name, some]) => ({ name, ...sum(some) })).sort((a, b) => b.num_model_requests - a.num_model_requests);
    this.groups.replaceChildren(make("h2", {}, `By ${this.group.selectedOptions[0].textContent.toLowerCase()}`),
      table(["Name", "Requests#", "Failed#", "From the cache#", "Tokens in#", "Tokens out#", "Cost#"], rows.map((one) => [
        one.name, ...["num_model_requests", "failed_requests", "cache_hits", "input_tokens", "output_tokens"].map((field) => count(one[field])), costOf(one)]), "Nothing was used in this time."));
  }

  #drawRequests(past) {
    this.requests.replaceChildren(make("h2", {}, "Last requests"),
      table(["When", "Model", "Outcome", "Tokens#", "First token#", "Whole#", "Cost#", "Cache", "Trace"], past.map((one) => [
        when(one.created_at), one.model, make("span", { class: `tag ${OUTCOMES[one.outcome] ?? ""}`, title: one.error }, one.outcome.replaceAll("_", " ")),
        `${count(one.input_tokens)} → ${count(one.output_tokens)}`, ms(one.ttft_ms), ms(one.latency_ms), one.cost_usd === null ? "unknown" : usd(one.cost_usd), one.cache ?? "–",
        button("Show", () => openTrace(one), { class: "quiet small", "aria-label": `Show the trace of the request of ${when(one.created_at)}` })]), "No request was made yet."));
  }
}

const sum = (results) => Object.fromEntries(SUMS.map((name) => [name, results.reduce((all, one) => all + one[name], 0)]));

const metricOf = (sums, metric) => (!sums ? 0 : metric === "tokens" ? sums.input_tokens + sums.output_tokens : sums[metric]);

/** The known part of a cost; nothing known is no zero. */
const costOf = (sums) => (sums.unpriced_requests && !sums.cost_usd ? "unknown" : usd(sums.cost_usd));

const stamp = (seconds, width) =>
  new Date(seconds * 1000).toLocaleString("en", width === HOUR_S ? { hour: "2-digit", minute: "2-digit", hour12: false } : { month: "short", day: "numeric", timeZone: "UTC" });

/** A table; heads that end with `#` are of numbers. */
const table = (heads, rows, nothing) => {
  if (!rows.length) return make("p", { class: "empty" }, nothing);
  const kind = heads.map((head) => head.endsWith("#") && "number");
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table" }, make("table", {},
    make("thead", {}, make("tr", {}, heads.map((head, at) => make("th", { scope: "col", class: kind[at] }, head.replace("#", ""))))),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((cell, at) => make("td", { class: kind[at] }, cell)))))));
};

const openTrace = (request) => {
  const waterfall = new Waterfall();
  const controller = new AbortController();
  const dialog = openDialog(`Request ${request.request_id}`, waterfall.element);
  dialog.classList.add("broad");
  dialog.addEventListener("close", () => controller.abort());
  follow(request.request_id, waterfall, controller.signal);
};

export const open = () => new UsagePage();

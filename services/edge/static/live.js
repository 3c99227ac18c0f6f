// How it fares now: what is wrong first, then the figures of the last two minutes, then each target.

import { ApiError, events, send } from "./api.js";
import { advice } from "./advice.js";
import { Lines, meter } from "./chart.js";
import { button, make } from "./dom.js";
import { ms, percent, plural, rate, usd } from "./words.js";

const RETRY_MS = 2000;
const BREAKERS = { closed: "good", half_open: "warn", open: "bad" };
const SERVICES = ["edge", "inference", "cache", "safety", "database"]; // in which they are shown; others come behind
const VERDICTS = ["flag", "redact", "block"];
const PERCENTILES = [{ name: "p50", hue: "water" }, { name: "p95", hue: "cache" }, { name: "p99", hue: "safety" }];

/** What an operator has to know at once, most urgent first; empty while all is well. */
export const problems = (now) => {
  const found = now.services.filter((one) => one.status !== "up").map((one) => `${one.service} is ${one.status}`);
  for (const { model, targets } of now.models)
    for (const one of targets) {
      if (one.breaker === "open") found.push(`${one.target} is not asked for ${model}: its breaker is open`);
      if (one.kv_use !== null && one.kv_use > 0.95) found.push(`${one.target} has ${percent(1 - one.kv_use)} of its KV cache left`);
      if (one.waiting > Math.max(one.running, 1)) found.push(`${plural(one.waiting, "request")} wait for ${one.target}`);
    }
  const share = now.requests_per_s ? now.errors_per_s / now.requests_per_s : 0;
  if (share > 0.01) found.push(`${percent(share)} of the requests fail`);
  return found;
};

class LivePage {
  constructor() {
    this.controller = new AbortController();
    this.verdictsBefore = null;
    this.charts = {
      requests: new Lines("Requests a second", [{ name: "all", hue: "water" }, { name: "errors", hue: "bad" }], rate),
      latency: new Lines("Time to the whole answer", PERCENTILES, ms),
      first: new Lines("Time to the first token", PERCENTILES, ms),
      tokens: new Lines("Tokens a second", [{ name: "of answers", hue: "water" }], rate),
      hits: new Lines("Hits a second", [{ name: "answers from the cache", hue: "cache" }], rate),
      cache: new Lines("Hit rate", [{ name: "of those who asked the cache", hue: "cache" }], percent, { max: 1 }),
      safety: new Lines("Safety verdicts a second", [{ name: "noticed", hue: "edge" }, { name: "redacted", hue: "safety" }, { name: "blocked", hue: "bad" }], rate),
      running: new Lines("Requests at once", [{ name: "in flight", hue: "water" }, { name: "waiting", hue: "safety" }], rate),
    };
    this.state = make("p", {}, "Connecting …");
    this.services = make("ul", { class: "row services", "aria-label": "Services" });
    this.verdict = make("div", { class: "notice verdict", role: "status", hidden: true });
    this.models = make("tbody");
    this.figures = make("div", { class: "tiles", hidden: true }, Object.values(this.charts).map((chart) => chart.element), this.#table());
    this.element = make("div", { class: "page live" },
      make("header", {}, make("div", {}, make("h1", {}, "Live"), this.state), this.services),
      this.verdict, this.figures);
    this.#run();
  }

  close() {
    this.controller.abort();
  }

  #table() {
    const heads = [["Model"], ["Requests/s", "number"], ["p95", "number"], ["Target"], ["Breaker"], ["Running", "number"], ["Waiting", "number"], ["KV cache"]];
    return make("section", { class: "sheet broad" }, make("h2", {}, "Models and targets"),
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Models and targets" }, make("table", {},
        make("thead", {}, make("tr", {}, heads.map(([name, kind]) => make("th", { scope: "col", class: kind }, name)))), this.models)));
  }

  async #run() {
    const { signal } = this.controller;
    while (!signal.aborted) {
      try {
        const response = await send("/admin/live", { signal });
        for await (const { event, data } of events(response)) if (event === "snapshot") this.#take(JSON.parse(data));
        this.state.textContent = "The stream ended; connecting again …";
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error instanceof ApiError && [401, 403, 404].includes(error.status)) return this.#refuse(error);
        this.state.textContent = `${error.message} Connecting again …`;
      }
      await new Promise((resume) => setTimeout(resume, RETRY_MS));
    }
  }

  #refuse(error) {
    this.state.textContent = "";
    this.element.append(refusal(error, "The live figures are for administrators."));
  }

  #take(now) {
    this.figures.hidden = false;
    this.state.textContent = `Over the last ten seconds${now.replica ? `, of ${now.replica}` : ""}`;
    const { charts } = this;
    charts.requests.push([now.requests_per_s, now.errors_per_s]);
    charts.latency.push([now.latency_ms.p50, now.latency_ms.p95, now.latency_ms.p99]);
    charts.first.push([now.first_token_ms.p50, now.first_token_ms.p95, now.first_token_ms.p99]);
    charts.tokens.push([now.tokens_per_s]);
    charts.hits.push([now.cache.hits_per_s]);
    charts.cache.push([now.cache.hit_rate]);
    charts.cache.note.textContent = now.cache.saved_usd === null ? "" : `${usd(now.cache.saved_usd)} saved so far`;
    charts.running.push([now.in_flight, waitingCount(now)]);
    this.#takeVerdicts(now);
    this.services.replaceChildren(...now.services.sort((a, b) => place(a) - place(b)).map((one) =>
      make("li", { class: "service" }, make("span", { class: `dot ${one.status}` }), `${one.service}${one.status === "up" ? "" : `: ${one.status}`}`)));
    this.#drawVerdict(problems(now));
    this.models.replaceChildren(...now.models.flatMap(modelRows));
  }

  /** The snapshot counts verdicts since the start; the chart shows how many came since the last one. */
  #takeVerdicts(now) {
    const before = this.verdictsBefore;
    const seconds = before && (now.at_ms - before.at_ms) / 1000;
    if (seconds > 0) this.charts.safety.push(VERDICTS.map((name) => Math.max(0, now.safety[name] - before.safety[name]) / seconds));
    else this.charts.safety.push([0, 0, 0]);
    this.charts.safety.note.textContent = `${VERDICTS.reduce((sum, name) => sum + now.safety[name], 0)} since the start`;
    this.verdictsBefore = now;
  }

  #drawVerdict(found) {
    const text = found.join("\n");
    if (!this.verdict.hidden && text === this.told) return;
    this.told = text;
    this.verdict.hidden = false;
    this.verdict.className = `notice verdict ${found.length ? "bad" : ""}`;
    this.verdict.replaceChildren(found.length ? make("ul", {}, found.map((one) => make("li", {}, one))) : make("p", {}, "All is well."));
  }
}

const place = ({ service }) => (SERVICES.includes(service) ? SERVICES.indexOf(service) : SERVICES.length);

const waitingCount = (now) => now.models.flatMap((model) => model.targets).reduce((sum, target) => sum + target.waiting, 0);

const modelRows = ({ model, requests_per_s: perSecond, p95_ms: p95, targets }) => {
  const rows = targets.length ? targets : [null];
  return rows.map((target, at) => make("tr", {},
    at === 0 && make("th", { scope: "rowgroup", rowspan: rows.length, class: "model" }, model),
    at === 0 && make("td", { class: "number", rowspan: rows.length }, rate(perSecond)),
    at === 0 && make("td", { class: "number", rowspan: rows.length }, ms(p95)),
    ...(target ? targetCells(target) : [make("td", { colspan: 5, class: "empty" }, "no target was asked yet")])));
};

const targetCells = (target) => [
  make("td", {}, target.target),
  make("td", {}, BREAKERS[target.breaker] ? make("span", { class: `tag ${BREAKERS[target.breaker]}` }, target.breaker.replace("_", " ")) : "–"),
  make("td", { class: "number" }, target.running),
  make("td", { class: "number" }, target.waiting),
  make("td", {}, target.kv_use === null ? "–" : [meter(target.kv_use, `KV cache of ${target.target}`), ` ${percent(target.kv_use)}`]),
];

/** What a page says that may not be seen: one sentence, and what to do. */
export const refusal = (error, sentence) => {
  const mayHelp = error.status === 401 || error.status === 403;
  return make("div", { class: "notice", role: "status" },
    make("p", {}, make("b", {}, mayHelp ? sentence : error.message)),
    make("p", {}, mayHelp ? "Use an administrator's key: the first start of Millrace prints one." : advice(error)),
    mayHelp && button("Give a key", () => document.getElementById("key-button").click()));
};

export const open = () => new LivePage();

// Limits: where they stood when this tab last heard of them, and where they are set.

import { lastLimits } from "./api.js";
import { meter } from "./chart.js";
import { make } from "./dom.js";
import { age, count } from "./words.js";

const KINDS = { requests: "Requests", tokens: "Tokens" };

class LimitsPage {
  constructor() {
    this.mine = make("section", { class: "sheet" });
    this.element = make("div", { class: "page" },
      make("header", {}, make("div", {}, make("h1", {}, "Limits"), make("p", {}, "How much you may use before you are asked to wait."))),
      this.mine, about());
    this.#draw();
    this.timer = setInterval(() => this.#draw(), 1000);
  }

  close() {
    clearInterval(this.timer);
  }

  #draw() {
    const told = lastLimits();
    const text = JSON.stringify(told) + Math.floor(told ? (Date.now() - told.at_ms) / 5000 : 0);
    if (text === this.drawn) return;
    this.drawn = text;
    this.mine.replaceChildren(make("h2", {}, "Yours"), ...(told ? standing(told) : [
      make("p", { class: "empty" }, "No answer in this tab has named a limit: either none holds for you, or nothing was asked yet.")]));
  }
}

const standing = (told) => [
  make("ul", { class: "limits" }, Object.entries(KINDS).filter(([kind]) => told[kind]).map(([kind, title]) => {
    const { limit, remaining, reset } = told[kind];
    const used = limit ? 1 - remaining / limit : 1;
    return make("li", {}, make("b", {}, title), make("span", {}, `${count(remaining)} of ${count(limit)} left`),
      meter(used, `${title} used`), make("small", {}, reset ? `whole again in ${reset}` : ""));
  })),
  make("p", { class: "empty" }, `As an answer said ${age((Date.now() - told.at_ms) / 1000)} ago.`),
];

const about = () => make("section", { class: "sheet" }, make("h2", {}, "Where they are set"),
  make("p", {}, "In the quotas file, by tier: for each key, each user, each tenant, and each caller without a key. A changed file holds within a second."),
  make("pre", { tabindex: 0 }, EXAMPLE),
  make("p", {}, "A caller over a limit is told which one, how it stands and when to come back. Without the file two tiers are there: free has 5 and premium 20 requests a minute. A key gets its tier when it is made."));

const EXAMPLE = `MILLRACE_INFERENCE_QUOTAS_FILE=quotas.yaml

version: 1
tiers:
  team:
    key: {concurrent_requests: 8}
    user: {requests_per_minute: 600, tokens_per_day: 2000000, usd_per_month: 50}
roles: {user: team, guest: free}`;

export const open = () => new LimitsPage();

// Limits: which of them hold for whoever looks, how much is left, and where they are set.

import { ApiError, ask } from "./api.js";
import { meter } from "./chart.js";
import { make } from "./dom.js";
import { refusal } from "./live.js";
import { age, count, usd } from "./words.js";

const EVERY_MS = 5000;
const WINDOWS = { at_once: "at once", minute: "a minute", day: "a day", month: "a month" };
const NAMES = { requests: "Requests", tokens: "Tokens", usd: "Dollars" };

class LimitsPage {
  constructor() {
    this.mine = make("section", { class: "sheet" }, make("h2", {}, "Yours"), make("p", { class: "empty" }, "Asking…"));
    this.element = make("div", { class: "page" },
      make("header", {}, make("div", {}, make("h1", {}, "Limits"), make("p", {}, "How much you may use before you are asked to wait."))),
      this.mine, about());
    this.#load();
    this.timer = setInterval(() => document.hidden || this.#load(), EVERY_MS);
  }

  close() {
    clearInterval(this.timer);
  }

  async #load() {
    try {
      const { data } = await ask("/v1/limits");
      this.#draw(data.length ? standing(data) : make("p", { class: "empty" }, "No limit holds for you."), JSON.stringify(data));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#draw(refusal(error, "Limits are shown to those who have a key."), error.message);
      if (error.status === 401) this.close();
    }
  }

  #draw(content, told) {
    if (told === this.told) return;
    this.told = told;
    this.mine.replaceChildren(make("h2", {}, "Yours"), content);
  }
}

const standing = (limits) => make("ul", { class: "limits" }, limits.map((one) => {
  const [whose, amount, title] = [one.name.split("_")[0], one.unit === "usd" ? usd : count, `${NAMES[one.unit]} ${WINDOWS[one.window]}`];
  return make("li", {}, make("b", {}, title), make("span", {}, `${amount(one.remaining)} of ${amount(one.limit)} left`),
    meter(one.limit ? 1 - one.remaining / one.limit : 1, `${title} used`),
    make("small", {}, [`of this ${whose === "client" ? "address" : whose}`, one.reset_s > 0 && one.remaining < one.limit && `whole again in ${age(one.reset_s)}`].filter(Boolean).join(", ")));
}));

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

// The receipt of an answer: by whom, how fast, for how much, and what the cache and safety did.

import { make } from "./dom.js";
import { age, category, count, ms, plural, rate, usd } from "./words.js";

const HITS = ["exact", "semantic", "stale"];
const CACHE_WORDS = { miss: "miss", bypass: "not used", unavailable: "away" };
const TAGS = { ok: "good", failed: "bad", cancelled: "warn", skipped: "", running: "water" };
const SAFETY_TAGS = { flag: "", redact: "warn", block: "bad" };
const SAFETY_VERBS = { flag: "noticed", redact: "redacted", block: "blocked" };

export const isHit = (receipt) => HITS.includes(receipt?.cache?.outcome);

/** What is known when a stream begins, from its headers, in the receipt's shape. */
export const early = (headers) => ({
  model: headers.get("x-millrace-model") ?? "",
  target: headers.get("x-millrace-target") ?? "",
  attempts: [],
  cache: headers.get("x-millrace-cache") ? { outcome: headers.get("x-millrace-cache") } : undefined,
});

/** The line that is always there. */
export const summary = ({ receipt, usage, error, stopped, live }) => {
  if (error) return [make("b", {}, "No complete answer"), make("span", { class: "tag bad" }, error.code || "failed")];
  if (!receipt?.model) return [make("b", {}, stopped ? "Stopped" : "Waiting for the first token …")];
  const hit = isHit(receipt);
  return [
    make("b", {}, receipt.model),
    hit && make("span", { class: "tag good cached" }, receipt.cache.outcome === "semantic" ? "similar answer" : "cached"),
    stopped && make("span", { class: "tag warn" }, "stopped"),
    !stopped && (live ? make("span", { class: "why" }, "streaming …") : make("span", {}, ms(receipt.duration_ms))),
    usage && make("span", {}, plural(usage.completion_tokens, "token")),
    receipt.cost_usd !== undefined && make("span", {}, usd(receipt.cost_usd)),
  ];
};

/** What is beneath it, once the answer is complete. */
export const details = ({ receipt, usage }) => [
  receipt.route_reason && make("p", { class: "why" }, `Chosen by auto: ${receipt.route_reason}`),
  make("dl", { class: "facts" },
    fact("First token", ms(receipt.ttft_ms)),
    fact("Whole answer", ms(receipt.duration_ms)),
    fact("Speed", ...speed(receipt, usage)),
    fact("Tokens", usage ? `${count(usage.prompt_tokens)} → ${count(usage.completion_tokens)}` : "–", tokenNote(receipt, usage)),
    fact("Cost", ...cost(receipt)),
    fact("Cache", ...cached(receipt.cache))),
  attempts(receipt),
  safety(receipt.safety ?? []),
];

const fact = (name, value, note) =>
  make("div", {}, make("dt", {}, name), make("dd", {}, value, note && make("small", {}, note)));

const speed = (receipt, usage) => {
  if (isHit(receipt)) return ["–", "not generated"];
  const tokens = (usage?.completion_tokens ?? 0) - 1;
  const seconds = (receipt.duration_ms - (receipt.ttft_ms ?? 0)) / 1000;
  // An answer that was held as a whole came all at once: a rate would say nothing about the model.
  return tokens > 0 && seconds > 0.01 ? [`${rate(tokens / seconds)} tokens/s`] : ["–", "came at once"];
};

const tokenNote = (receipt, usage) => {
  if (receipt.usage_estimated) return "counted here";
  const reused = usage?.prompt_tokens_details?.cached_tokens;
  return reused ? `${count(reused)} of the prompt reused` : "prompt → answer";
};

const cost = (receipt) => (receipt.cost_usd === undefined ? ["unknown price"] : [usd(receipt.cost_usd)]);

const cached = (cache) => {
  if (!cache) return ["–"];
  if (!HITS.includes(cache.outcome)) return [CACHE_WORDS[cache.outcome] ?? cache.outcome];
  const old = cache.age_s === undefined ? undefined : `${age(cache.age_s)} old`;
  if (cache.outcome === "semantic") return ["similar", [cache.similarity && `${cache.similarity.toFixed(3)} alike`, old].filter(Boolean).join(", ")];
  return [cache.outcome, old];
};

const attempts = (receipt) =>
  receipt.attempts.length > 0 && make("section", {},
    make("h3", {}, plural(receipt.attempts.filter((one) => one.outcome !== "skipped").length, "attempt")),
    make("ul", { class: "tries" }, receipt.attempts.map((one) =>
      make("li", {},
        make("span", { class: `tag ${TAGS[one.outcome] ?? ""}` }, one.hedged ? `${one.outcome}, hedged` : one.outcome),
        make("span", {}, one.target),
        make("span", { class: "took" }, ms(one.duration_ms)),
        one.error && make("span", { class: "error" }, one.error.replaceAll("_", " "))))));

const safety = (events) => {
  const seen = new Map();
  for (const { direction, findings } of events)
    for (const { category: name, action } of findings) {
      const label = `${category(name)} ${SAFETY_VERBS[action] ?? action} in the ${direction === "input" ? "prompt" : "answer"}`;
      const known = seen.get(label) ?? { count: 0, action };
      seen.set(label, { ...known, count: known.count + 1 });
    }
  const tags = [...seen].map(([label, one]) =>
    make("li", { class: `tag ${SAFETY_TAGS[one.action] ?? ""}` }, one.count > 1 ? `${label}, ${one.count} times` : label));
  if (events.some((event) => event.unscreened)) tags.push(make("li", { class: "tag bad" }, "partly unscreened"));
  const profile = events.at(-1)?.profile;
  return tags.length > 0 && make("section", {},
    make("h3", {}, profile ? `Safety, profile ${profile}` : "Safety"), make("ul", { class: "findings" }, tags));
};

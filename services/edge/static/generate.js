// One streamed chat answer as events. An answer that does not end with `[DONE]` is not complete, and is never taken for it.

import { ApiError, errorOf, events, send } from "./api.js";

const CACHE_CONTROL = { fresh: "no-cache", off: "no-store" };
const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/** The body and the headers of a request for these settings. */
const requestOf = (messages, settings) => {
  const body = { model: settings.model, stream: true, stream_options: { include_usage: true }, messages };
  for (const name of NUMBERS) if (settings[name] !== undefined && settings[name] !== "") body[name] = Number(settings[name]);
  const headers = {};
  if (settings.profile) headers["x-millrace-safety-profile"] = settings.profile;
  if (CACHE_CONTROL[settings.cache]) headers["cache-control"] = CACHE_CONTROL[settings.cache];
  return { body, headers };
};

/**
 * Asks for an answer and yields what comes of it: `{begin: Headers}`, then `{text}`, `{thought}`, `{refusal}`,
 * `{finish}` and `{receipt, usage}`. Aborting `signal` hangs up, which cancels the model's work.
 */
export async function* generate(messages, settings, signal) {
  const response = await send("/v1/chat/completions", { method: "POST", signal, ...requestOf(messages, settings) });
  yield { begin: response.headers };
  const requestId = response.headers.get("x-request-id");
  for await (const { data } of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw Object.assign(errorOf(chunk, { requestId }), { broken: true });
    yield* told(chunk);
  }
  throw Object.assign(new ApiError("The answer broke off.", { requestId }), { broken: true });
}

function* told({ choices: [choice], millrace, usage }) {
  const { content, reasoning_content: thought, refusal } = choice?.delta ?? {};
  if (thought) yield { thought };
  if (content) yield { text: content };
  if (refusal) yield { refusal };
  if (choice?.finish_reason) yield { finish: choice.finish_reason };
  if (millrace) yield { receipt: millrace, usage };
}

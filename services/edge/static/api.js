// Calls to the edge that served this page, and to nobody else. The key is in the header of these calls alone.

import { tab } from "./store.js";

const LIMIT_KINDS = ["requests", "tokens"];

/** A call that failed: what the server said of it, or that it said nothing (`status` 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "", retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId, retryAfterS });
  }
}

export const key = {
  get: () => tab.get("key", ""),
  set: (value) => tab.set("key", value || undefined),
};

/** Sends a request; the answer's status is 2xx, everything else is raised as an `ApiError`. */
export const send = async (path, { method = "GET", body, headers = {}, signal } = {}) => {
  const all = { ...headers };
  if (body !== undefined) all["content-type"] = "application/json";
  if (key.get()) all.authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, {
      method, signal, headers: all, credentials: "omit",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The edge does not answer.");
  }
  noteLimits(response.headers);
  if (!response.ok) throw await failure(response);
  return response;
};

/** Sends a request and reads the JSON of its answer. */
export const ask = async (path, options) => (await send(path, options)).json();

/** The server-sent events of an answer, as they come: `{event, data}`, the data as text. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      for (let end; (end = held.indexOf("\n\n")) >= 0; held = held.slice(end + 2)) {
        const found = parse(held.slice(0, end));
        if (found.data) yield found;
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

const parse = (block) => {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  return { event, data: data.join("\n") };
};

/** The error of an `{"error": …}` object, in a body or in a stream. */
export const errorOf = (body, details) =>
  new ApiError(body?.error?.message || "The request failed.", { code: body?.error?.code ?? "", ...details });

const failure = async (response) => {
  const body = await response.json().catch(() => null);
  const after = response.headers.get("retry-after");
  const error = errorOf(body, {
    status: response.status,
    requestId: response.headers.get("x-request-id") ?? "",
    retryAfterS: after === null ? null : Number(after),
  });
  if (error.status === 401) document.dispatchEvent(new CustomEvent("millrace:key", { detail: error }));
  return error;
};

/** Where the limits stood when this tab was last told: `{at_ms, requests?, tokens?}`. */
export const lastLimits = () => tab.get("limits", null);

const noteLimits = (headers) => {
  const found = {};
  for (const kind of LIMIT_KINDS) {
    const limit = headers.get(`x-ratelimit-limit-${kind}`);
    if (limit === null) continue;
    const [remaining, reset] = ["remaining", "reset"].map((name) => headers.get(`x-ratelimit-${name}-${kind}`));
    found[kind] = { limit: Number(limit), remaining: Number(remaining), reset };
  }
  if (Object.keys(found).length) tab.set("limits", { at_ms: Date.now(), ...found });
};

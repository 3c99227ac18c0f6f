// Calls to the edge that served this page, and to nobody else. The key is in the header of these calls alone.

import { tab } from "./store.js";

const RENEW_S = 30; // before a login's token ends it is traded for the next

/** A call that failed: what the server said of it, or that it said nothing (`status` 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", requestId = "", retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { status, code, requestId, retryAfterS });
  }
}

/** What calls show: a key, or the token of a login. Both are this tab's. */
export const key = {
  get: () => tab.get("key", ""),
  set: (value) => {
    tab.set("key", value || undefined);
    tab.set("login", undefined);
  },
  /** Who is logged in; empty where a key is used, or nothing. */
  name: () => tab.get("login", null)?.name ?? "",
};

/** Logs in by name and password; raises an `ApiError`. */
export const logIn = async (name, password) => noteLogin(name, await ask("/login", { method: "POST", body: { username: name, password }, bare: true }));

const noteLogin = (name, { access_token, refresh_token, expires_in }) => {
  tab.set("key", access_token);
  tab.set("login", { name, refresh: refresh_token, until_ms: Date.now() + (expires_in - RENEW_S) * 1000 });
};

let renewing = null; // a refresh token works once: whoever else needs a new token waits for this one

const renew = async ({ name, refresh }) => {
  try {
    noteLogin(name, await ask("/login/refresh", { method: "POST", body: { refresh_token: refresh }, bare: true }));
  } catch (error) {
    if (error.status >= 400 && error.status < 500) key.set("");
  }
};

const renewed = async () => {
  const login = tab.get("login", null);
  if (login && Date.now() > login.until_ms) await (renewing ??= renew(login).finally(() => (renewing = null)));
};

/** Sends a request, `bare` without a credential; the answer's status is 2xx, everything else is raised as an `ApiError`. */
export const send = async (path, { method = "GET", body, headers = {}, signal, bare = false } = {}) => {
  if (!bare) await renewed();
  const all = { ...headers };
  if (body !== undefined) all["content-type"] = "application/json";
  if (!bare && key.get()) all.authorization = `Bearer ${key.get()}`;
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
  if (!response.ok) throw await failure(response, bare);
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

const failure = async (response, bare) => {
  const body = await response.json().catch(() => null);
  const after = response.headers.get("retry-after");
  const error = errorOf(body, {
    status: response.status,
    requestId: response.headers.get("x-request-id") ?? "",
    retryAfterS: after === null ? null : Number(after),
  });
  if (error.status === 401 && !bare) document.dispatchEvent(new CustomEvent("millrace:key", { detail: error }));
  return error;
};

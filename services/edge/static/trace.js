// The spans of a request, as they come from the edge.

import { events, send } from "./api.js";

/**
 * Follows a request's trace to its end and tells a waterfall of each span; returns all spans, or none where the server
 * keeps no traces or has let this one go.
 */
export const follow = async (requestId, waterfall, signal) => {
  try {
    const response = await send(`/v1/traces/${encodeURIComponent(requestId)}/events`, { signal });
    if (response.status === 204) {
      waterfall.say("not kept here");
      return [];
    }
    for await (const { event, data } of events(response)) {
      if (event === "end") break;
      if (event === "span") waterfall.add(JSON.parse(data));
    }
  } catch (error) {
    if (error.name !== "AbortError" && !waterfall.spans.size) waterfall.say(NOTHING[error.status] ?? error.message);
  }
  waterfall.end();
  return [...waterfall.spans.values()];
};

const NOTHING = { 404: "not kept any more", 401: "only with a key", 403: "not for this key" };

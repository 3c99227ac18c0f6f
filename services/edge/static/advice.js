// What to do about an error, in one sentence. The server's own words say what happened; these say what comes next.

import { age } from "./words.js";

const BY_CODE = {
  content_policy_violation: "Put it in other words. The profile that refused it is set by the model or under Settings.",
  model_not_found: "Choose another model below.",
  model_not_allowed: "Your key is not for this model: choose another model, or another key.",
  insufficient_quota: "The budget is used up; the Limits page says where it stands.",
  safety_unavailable: "Safety is away, and this model does not answer without it. Live shows when it is back.",
};

const BY_STATUS = {
  0: "See that it runs and that you are connected, then try again.",
  400: "Change what it names, then try again.",
  401: "Give a key above: whoever runs this server has one, or can make one.",
  403: "Ask whoever runs this server for a key that may do this.",
  404: "Choose another model below.",
  429: "You are over a limit; the Limits page says where it stands.",
  503: "Try again in a moment. Live shows what is down.",
  504: "It took too long. Try again, or choose a faster model.",
};

export const advice = (error) => {
  if (error.broken) return "What is above is not complete. Ask again for a whole answer.";
  const known = BY_CODE[error.code] ?? BY_STATUS[error.status] ?? "Try again; the log has it under this request id.";
  return error.retryAfterS ? `${known} It can work again in ${age(error.retryAfterS)}.` : known;
};

// Quantities as people read them. Nothing here looks at the page.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (value) => number.format(value);

/** Milliseconds: `0.4 ms`, `38 ms`, `1.2 s`. */
export const ms = (value) => {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.05) return "< 0.1 ms";
  if (value < 10) return `${oneDigit.format(value)} ms`;
  if (value < 1000) return `${number.format(value)} ms`;
  return value < 100_000 ? `${oneDigit.format(value / 1000)} s` : `${number.format(value / 1000)} s`;
};

/** A time span in seconds, roughly: `12 s`, `4 min`, `3 h`, `2 d`. */
export const age = (seconds) => {
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${number.format(seconds)} s`;
  if (seconds < 5400) return `${number.format(seconds / 60)} min`;
  return seconds < 172_800 ? `${number.format(seconds / 3600)} h` : `${number.format(seconds / 86_400)} d`;
};

/** US dollars with as many digits as small amounts need. */
export const usd = (value) => {
  if (value === 0) return "$0";
  const digits = value >= 1 ? 2 : value >= 0.01 ? 4 : 6;
  return `$${value.toFixed(digits)}`;
};

/** A rate with a digit where it is small. */
export const rate = (value) => (value >= 100 ? number : oneDigit).format(value ?? 0);

export const percent = (share) => `${oneDigit.format((share ?? 0) * 100)} %`;

export const plural = (value, one, many = `${one}s`) => `${number.format(value)} ${value === 1 ? one : many}`;

export const when = (instant) =>
  new Date(instant).toLocaleString("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

/** `email_address` and `EMAIL_ADDRESS` as `email address`. */
export const category = (name) => name.toLowerCase().replaceAll("_", " ");

/** A day, with its year: what lasts for long is not told by the minute. */
export const day = (instant) => new Date(instant).toLocaleDateString("en", { dateStyle: "medium" });

// The shell: pages, theme, shortcuts, the state of the services, and where a key is asked for.

import { key } from "./api.js";
import { Chat } from "./chat.js";
import { make, openDialog } from "./dom.js";
import { openKeyPanel } from "./key.js";
import { kept } from "./store.js";

const PAGES = [["chat", "Chat"], ["live", "Live"], ["keys", "Keys"], ["usage", "Usage"], ["limits", "Limits"]];
const HEALTH_WORDS = { ok: "all up", degraded: "degraded", down: "down" };
const HEALTH_MS = 20_000;
const view = document.getElementById("view");
const chat = new Chat();
let shown = null; // the page that is shown: `{element, close?}`

const show = async () => {
  const name = PAGES.find(([one]) => location.hash === `#/${one}`)?.[0] ?? "chat";
  shown?.close?.();
  for (const link of document.querySelectorAll("#pages a"))
    link.hash === `#/${name}` ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
  document.title = name === "chat" ? "Millrace" : `${PAGES.find(([one]) => one === name)[1]} · Millrace`;
  const made = name === "chat" ? chat : (await import(`./${name}.js`)).open();
  shown = made;
  view.replaceChildren(made.element);
  if (name === "chat") chat.focus();
};

const askHealth = async () => {
  if (document.hidden) return;
  const { status } = await fetch("/health/detailed").then((answer) => answer.json()).catch(() => ({ status: "down" }));
  const place = document.getElementById("health");
  place.className = `health ${status === "ok" ? "up" : status}`;
  place.lastElementChild.textContent = HEALTH_WORDS[status] ?? status;
  place.setAttribute("aria-label", `Services: ${HEALTH_WORDS[status] ?? status}`);
};

const isDark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

const drawTheme = () => {
  const themeButton = document.getElementById("theme-button");
  themeButton.textContent = isDark() ? "☾" : "☀";
  themeButton.setAttribute("aria-label", isDark() ? "Dark; switch to light" : "Light; switch to dark");
  themeButton.title = themeButton.getAttribute("aria-label");
};

const switchTheme = () => {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  kept.set("theme", chosen);
  drawTheme();
};

const drawKey = () => {
  document.getElementById("key-button").textContent = key.get() ? `${key.name() || "Key"} ✓` : "Key";
};

const SHORTCUTS = [
  ["Enter", "send the message"], ["Shift+Enter", "a new line"], ["Esc", "stop the answer"], ["/", "to the message"],
  ["n", "a new chat"], ["s", "settings"], ["t", "light or dark"], ["1 … 5", "Chat, Live, Keys, Usage, Limits"], ["?", "this list"],
];

const openHelp = () => {
  const single = make("input", { type: "checkbox", id: "single-keys" });
  single.checked = kept.get("shortcuts", true);
  single.addEventListener("change", () => kept.set("shortcuts", single.checked));
  openDialog("Keyboard",
    make("dl", { class: "keys" }, SHORTCUTS.flatMap(([keys, about]) => [make("dt", {}, make("kbd", {}, keys)), make("dd", {}, about)])),
    make("p", {}, make("label", { for: "single-keys" }, single, " Shortcuts of a single letter or digit")));
};

const toChat = (then) => {
  location.hash = "#/chat";
  then();
};

const SINGLE = {
  "/": () => toChat(() => chat.focus()),
  n: () => toChat(() => chat.startNew()),
  s: () => toChat(() => chat.toggleSettings()),
  t: switchTheme,
  "?": openHelp,
  ...Object.fromEntries(PAGES.map(([name], at) => [String(at + 1), () => (location.hash = `#/${name}`)])),
};

/** Takes back what was done last: the answer that runs, what lies over the page, the focus. */
const escape = () => {
  if (chat.isRunning) chat.stop();
  else if (!chat.closePast()) document.activeElement.blur();
};

const onKey = (event) => {
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") return escape();
  if (event.target.closest("input, textarea, select") || !kept.get("shortcuts", true) || !SINGLE[event.key]) return;
  event.preventDefault();
  SINGLE[event.key]();
};

document.getElementById("pages").append(...PAGES.map(([name, title]) => make("a", { href: `#/${name}` }, title)), make("a", { href: "/docs" }, "API"));
document.getElementById("theme-button").addEventListener("click", switchTheme);
document.getElementById("help-button").addEventListener("click", openHelp);
document.getElementById("key-button").addEventListener("click", () => openKeyPanel());
document.addEventListener("millrace:key", (event) => openKeyPanel(event.detail));
document.addEventListener("millrace:known", drawKey);
document.addEventListener("millrace:known", () => shown !== chat && show());
document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", askHealth);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);
addEventListener("hashchange", show);
drawTheme();
drawKey();
show();
askHealth();
setInterval(askHealth, HEALTH_MS);

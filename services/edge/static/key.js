// Where a key is given, or a name and a password. What comes of them stays in this tab: it is sent to this server alone,
// and gone when the tab is closed.

import { ApiError, ask, key, logIn } from "./api.js";
import { announce, button, field, make, openDialog } from "./dom.js";

let open = null;

const input = (attributes) => make("input", { spellcheck: "false", required: true, ...attributes });

/** Opens the panel; `why` is what the server said when it asked for a key. */
export const openKeyPanel = (why) => {
  if (open?.isConnected) return;
  const secret = input({ type: "password", autocomplete: "off", placeholder: "mr_…" });
  const name = input({ type: "text", autocomplete: "username", autocapitalize: "none" });
  const password = input({ type: "password", autocomplete: "current-password" });
  const said = make("p", { class: "notice bad", role: "alert", hidden: true });
  const say = (text) => {
    said.textContent = text;
    said.hidden = false;
  };
  const known = (text) => {
    open.close();
    announce(text);
    document.dispatchEvent(new Event("millrace:known"));
  };
  const attempt = (work) => async (event) => {
    event.preventDefault();
    try {
      await work();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      say(error.message);
    }
  };
  const use = attempt(async () => {
    await ask("/v1/models", { bare: true, headers: { authorization: `Bearer ${secret.value.trim()}` } });
    key.set(secret.value.trim());
    known("The key works.");
  });
  const enter = attempt(async () => {
    await logIn(name.value.trim(), password.value);
    known("You are logged in.");
  });
  const forget = () => {
    key.set("");
    known(who ? "You are logged out." : "The key is forgotten.");
  };
  const who = key.name();
  open = openDialog(why ? "This server asks for a key" : who ? `Logged in as ${who}` : "Your key",
    make("p", {}, "It stays in this tab, is sent to this server alone, and is gone when the tab is closed."),
    said,
    make("form", { on: { submit: use } }, field("API key", secret),
      make("div", { class: "row" },
        make("button", { class: "main", type: "submit" }, "Use it"),
        key.get() && button(who ? "Log out" : "Forget the key", forget))),
    make("details", { class: "login" }, make("summary", {}, "Log in with a name"),
      make("form", { on: { submit: enter } }, field("Name", name), field("Password", password),
        make("div", { class: "row" }, make("button", { class: "main", type: "submit" }, "Log in")))));
  if (why?.code === "invalid_api_key") say(why.message);
};

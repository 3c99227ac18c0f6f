// Where a key is given. It stays in this tab: it is sent to this server alone, and gone when the tab is closed.

import { ApiError, ask, key } from "./api.js";
import { announce, button, field, make, openDialog } from "./dom.js";

let open = null;

/** Opens the panel; `why` is what the server said when it asked for a key. */
export const openKeyPanel = (why) => {
  if (open?.isConnected) return;
  const input = make("input", { type: "password", autocomplete: "off", spellcheck: "false", placeholder: "mr_…", required: true });
  const said = make("p", { class: "notice bad", role: "alert", hidden: true });
  const use = async (event) => {
    event.preventDefault();
    const before = key.get();
    key.set(input.value.trim());
    try {
      await ask("/v1/models");
      open.close();
      announce("The key works.");
      document.dispatchEvent(new Event("millrace:known"));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      key.set(before);
      said.textContent = error.message;
      said.hidden = false;
    }
  };
  const forget = () => {
    key.set("");
    open.close();
    document.dispatchEvent(new Event("millrace:known"));
  };
  open = openDialog(why ? "This server asks for a key" : "Your key",
    make("form", { on: { submit: use } },
      make("p", {}, "It stays in this tab, is sent to this server alone, and is gone when the tab is closed."),
      field("API key", input), said,
      make("div", { class: "row" },
        make("button", { class: "main", type: "submit" }, "Use it"),
        key.get() && button("Forget the key", forget))));
  if (why?.code === "invalid_api_key") {
    said.textContent = why.message;
    said.hidden = false;
  }
};

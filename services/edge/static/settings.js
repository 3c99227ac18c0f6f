// What a request asks for besides its text: model, instructions, sampling, safety and cache. Kept by this browser.

import { field, make, select } from "./dom.js";
import { kept } from "./store.js";

const DEFAULTS = { model: "auto", system: "", temperature: "", top_p: "", max_tokens: "", seed: "", profile: "", cache: "use" };
const PROFILES = ["default", "strict", "private", "moderation", "off"];

export class Settings {
  constructor() {
    this.values = { ...DEFAULTS, ...kept.get("settings", {}) };
    this.model = select([["auto", "auto"]], { "aria-label": "Model" });
    this.model.addEventListener("change", () => this.#set("model", this.model.value));
    this.panel = make("div", { class: "settings", id: "settings", hidden: true }, ...this.#fields());
  }

  /** Offers these models besides `auto`; a chosen one that is gone makes room for `auto`. */
  offer(names) {
    const all = ["auto", ...names.filter((name) => name !== "auto")];
    this.model.replaceChildren(...all.map((name) => make("option", { value: name }, name)));
    if (!all.includes(this.values.model)) this.values.model = "auto";
    this.model.value = this.values.model;
  }

  #set(name, value) {
    this.values[name] = value;
    kept.set("settings", this.values);
    this.panel.dispatchEvent(new Event("millrace:changed"));
  }

  /** How many settings differ from the defaults, the model apart. */
  get changedCount() {
    return Object.keys(DEFAULTS).filter((name) => name !== "model" && this.values[name] !== DEFAULTS[name]).length;
  }

  #fields() {
    const profiles = make("datalist", { id: "profiles" }, PROFILES.map((value) => make("option", { value })));
    return [
      this.#whole(field("System prompt", this.#bind("system", make("textarea", { rows: 2, maxlength: 20000, placeholder: "How the model should answer" })))),
      field("Temperature", this.#number("temperature", 0, 2, 0.1)),
      field("Top p", this.#number("top_p", 0, 1, 0.05)),
      field("Most tokens", this.#number("max_tokens", 1, 1_000_000, 1)),
      field("Seed", this.#number("seed", 0, 2 ** 31 - 1, 1)),
      field("Safety profile", this.#bind("profile", make("input", { list: "profiles", placeholder: "the model's own", maxlength: 64, spellcheck: "false", autocomplete: "off" })), "Only a stricter one than the model's is taken."),
      field("Cache", this.#bind("cache", select([["use", "use it"], ["fresh", "a fresh answer"], ["off", "keep out of it"]]))),
      profiles,
    ];
  }

  #whole(element) {
    element.classList.add("whole");
    return element;
  }

  #number(name, min, max, step) {
    return this.#bind(name, make("input", { type: "number", inputmode: "decimal", min, max, step, placeholder: "default" }));
  }

  #bind(name, control) {
    control.name = name;
    control.value = this.values[name];
    control.addEventListener("input", () => this.#set(name, control.value));
    return control;
  }
}

// The chat: asks, shows, stops, keeps.

import { ApiError, ask, send } from "./api.js";
import { announce, button, make, openDialog } from "./dom.js";
import { generate } from "./generate.js";
import { Past } from "./past.js";
import { Settings } from "./settings.js";
import { kept } from "./store.js";
import { follow } from "./trace.js";
import { TurnView } from "./turn.js";

const EXAMPLES = [
  ["What is Millrace?", "Streams an answer. Ask it twice to see the cache."],
  ["Which port does the edge listen on?", "Its receipt says who answered, how fast, and for how much."],
  ["My mail is ada@example.com. What does the safety service do?", "Shows what safety notices in a prompt."],
];

export class Chat {
  constructor() {
    this.past = new Past();
    this.settings = new Settings();
    this.conversation = this.past.find(kept.get("open", "")) ?? this.past.begin();
    this.running = null; // the AbortController of the answer that is being written
    this.#build();
    this.#open(this.conversation);
    this.#offerModels();
    document.addEventListener("millrace:known", () => this.#offerModels());
  }

  focus() {
    this.input.focus();
  }

  get isRunning() {
    return this.running !== null;
  }

  /** Hangs up, which cancels the model's work. */
  stop() {
    this.running?.abort();
  }

  startNew() {
    this.stop();
    this.#open(this.past.begin());
    this.closePast();
    this.focus();
  }

  toggleSettings() {
    this.settings.panel.hidden = !this.settings.panel.hidden;
    this.settingsButton.setAttribute("aria-expanded", !this.settings.panel.hidden);
    if (!this.settings.panel.hidden) this.settings.panel.querySelector("textarea").focus();
  }

  #build() {
    this.log = make("div", { class: "log", role: "log", "aria-label": "Conversation" });
    this.list = make("ol", { "aria-label": "Conversations" });
    this.aside = make("aside", { class: "past", id: "past", "aria-label": "Conversations" },
      button("New chat", () => this.startNew()), this.list,
      make("footer", {}, button("Export", () => this.past.export(), { class: "quiet small" }), button("Clear all", () => this.#confirmClear(), { class: "quiet small" })));
    this.input = make("textarea", { id: "prompt", rows: 1, "aria-label": "Message", placeholder: "Ask something", enterkeyhint: "send", maxlength: 100000 });
    this.input.addEventListener("keydown", (event) => this.#onKey(event));
    this.sendButton = make("button", { class: "main", type: "submit" }, "Send");
    this.settingsButton = button("Settings", () => this.toggleSettings(), { class: "quiet", "aria-expanded": "false", "aria-controls": "settings" });
    this.settings.panel.addEventListener("millrace:changed", () => this.#drawSettings());
    const composer = make("form", { class: "composer", "aria-label": "Ask", on: { submit: (event) => { event.preventDefault(); this.#submit(); } } },
      make("div", {}, this.settings.panel, this.input,
        make("div", { class: "row" }, this.settings.model, this.settingsButton,
          make("span", { class: "hint" }, make("span", {}, make("kbd", {}, "Enter"), " sends"), make("span", {}, make("kbd", {}, "Esc"), " stops")),
          this.sendButton)));
    this.pastButton = button("Conversations", () => this.#togglePast(), { "aria-expanded": "false", "aria-controls": "past" });
    this.element = make("div", { class: "chat" }, this.aside,
      make("div", { class: "stage" }, make("div", { class: "bar" }, this.pastButton, button("New chat", () => this.startNew())), this.log, composer));
    this.element.addEventListener("click", (event) => this.aside.classList.contains("open") && !event.composedPath().includes(this.aside) && event.target !== this.pastButton && this.#togglePast());
    this.#drawSettings();
  }

  async #offerModels() {
    try {
      const { data } = await ask("/v1/models");
      this.settings.offer(data.filter((model) => model.capabilities?.includes("chat") ?? true).map((model) => model.id));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.settings.offer([]);
    }
  }

  #onKey(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #submit() {
    if (this.isRunning) return this.stop();
    const prompt = this.input.value.trim();
    if (!prompt) return this.focus();
    this.input.value = "";
    this.ask(prompt);
  }

  /** Adds a question to the conversation and has it answered. */
  async ask(prompt) {
    const turn = { prompt, answer: "", at: Date.now() };
    this.conversation.turns.push(turn);
    if (this.conversation.turns.length === 1) this.log.replaceChildren();
    for (const open of this.log.querySelectorAll(".proof > details[open]")) open.open = false;
    await this.#run(turn, this.#show(turn), {});
  }

  /** Asks a question once more, in its place; what came after it stays as it is. */
  async #again(turn, view, { fresh }) {
    if (this.isRunning) return;
    for (const name of ["refusal", "thought", "finish", "receipt", "usage", "requestId", "error", "stopped", "spans"]) delete turn[name];
    turn.answer = "";
    const anew = this.#viewOf(turn);
    view.element.replaceWith(anew.element);
    await this.#run(turn, anew, fresh ? { cache: "fresh" } : {});
  }

  async #run(turn, view, changes) {
    const conversation = this.conversation;
    const controller = (this.running = new AbortController());
    this.#drawSend();
    view.prose.hidden = false;
    view.prose.replaceChildren(view.text);
    view.text.data = "";
    view.wait();
    this.#toEnd(true);
    try {
      const messages = this.#messages(conversation, turn);
      turn.messageIndex = messages.length - 1;
      for await (const event of generate(messages, { ...this.settings.values, ...changes }, controller.signal)) this.#take(event, turn, view);
      announce("Answer complete.");
    } catch (error) {
      this.#fail(error, turn, controller);
    } finally {
      if (this.running === controller) this.running = null;
      view.settle();
      this.#drawSend();
      this.#toEnd();
      this.past.keep(conversation);
      this.#drawPast();
    }
  }

  #take(event, turn, view) {
    if (event.begin) {
      turn.requestId = event.begin.get("x-request-id");
      view.begin(event.begin);
      this.#follow(turn, view);
    }
    if (event.text) view.grow(event.text);
    if (event.thought) view.think(event.thought);
    if (event.refusal) turn.refusal = (turn.refusal ?? "") + event.refusal;
    if (event.finish) turn.finish = event.finish;
    if (event.receipt) [turn.receipt, turn.usage] = [event.receipt, event.usage];
    this.#toEnd();
  }

  #fail(error, turn, controller) {
    if (controller.signal.aborted) turn.stopped = true;
    else if (error instanceof ApiError) {
      const { message, status, code, requestId, retryAfterS, broken } = error;
      turn.error = { message, status, code, requestId, retryAfterS, broken };
      turn.requestId ??= requestId;
    } else throw error;
  }

  /** Draws the trace as it grows and keeps it with the turn. */
  async #follow(turn, view) {
    const conversation = this.conversation;
    const spans = await follow(turn.requestId, view.waterfall);
    if (!spans.length) return;
    turn.spans = spans;
    if (!this.isRunning) this.past.keep(conversation);
  }

  #messages(conversation, turn) {
    const messages = this.settings.values.system ? [{ role: "system", content: this.settings.values.system }] : [];
    for (const before of conversation.turns) {
      if (before === turn) break;
      if (before.answer && !before.error) messages.push({ role: "user", content: before.prompt }, { role: "assistant", content: before.answer });
    }
    return [...messages, { role: "user", content: turn.prompt }];
  }

  async #report(turn, pressed) {
    pressed.disabled = true;
    try {
      await send("/v1/cache/report", { method: "POST", body: { entry_id: turn.receipt.cache.entry_id } });
      pressed.textContent = "Removed from the cache";
      announce("Removed from the cache.");
    } catch (error) {
      pressed.disabled = false;
      pressed.textContent = error.message;
    }
  }

  #viewOf(turn) {
    const view = new TurnView(turn, { again: (how) => this.#again(turn, view, how), report: (...told) => this.#report(...told) });
    return view;
  }

  #show(turn) {
    const view = this.#viewOf(turn);
    this.log.append(view.element);
    return view;
  }

  #open(conversation) {
    this.conversation = conversation;
    kept.set("open", conversation.id);
    this.log.replaceChildren();
    if (conversation.turns.length) conversation.turns.forEach((turn) => this.#show(turn));
    else this.log.append(this.#hello());
    this.#drawPast();
    this.#toEnd(true);
  }

  #hello() {
    return make("section", { class: "hello" },
      make("h1", {}, "Ask, and see what an answer takes"),
      make("p", {}, "Beside each answer stands its receipt: who gave it, how fast, for how much, what the cache and safety did, and the way of the request through the services."),
      make("ul", {}, EXAMPLES.map(([prompt, about]) => make("li", {}, make("button", { type: "button", on: { click: () => this.ask(prompt) } }, prompt, make("small", {}, about))))));
  }

  #drawPast() {
    this.list.replaceChildren(...this.past.all.map((one) =>
      make("li", { class: one.id === this.conversation.id && "open" },
        button(one.title, () => { this.stop(); this.#open(one); this.closePast(); }, { class: "title", "aria-current": one.id === this.conversation.id && "true" }),
        button("×", () => this.#drop(one), { class: "drop", "aria-label": `Delete ${one.title}` }))));
  }

  #drop(conversation) {
    this.past.drop(conversation.id);
    if (conversation.id !== this.conversation.id) return this.#drawPast();
    this.stop();
    this.#open(this.past.begin());
  }

  #confirmClear() {
    const dialog = openDialog("Clear all conversations?",
      make("p", {}, "They are kept in this browser alone, so nothing can bring them back. Export them first to keep a copy."),
      make("div", { class: "row" }, button("Clear all", () => { dialog.close(); this.past.clear(); this.startNew(); }, { class: "danger" }), button("Keep them", () => dialog.close())));
  }

  /** Closes the list of conversations where it lies over the page; tells whether it did. */
  closePast() {
    if (!this.aside.classList.contains("open")) return false;
    this.#togglePast();
    this.pastButton.focus();
    return true;
  }

  #togglePast() {
    const open = this.aside.classList.toggle("open");
    this.pastButton.setAttribute("aria-expanded", open);
    if (open) this.aside.querySelector("button").focus();
  }

  #drawSettings() {
    const { changedCount } = this.settings;
    this.settingsButton.textContent = changedCount ? `Settings (${changedCount})` : "Settings";
  }

  #drawSend() {
    this.sendButton.textContent = this.isRunning ? "Stop" : "Send";
    this.sendButton.classList.toggle("main", !this.isRunning);
  }

  /** Keeps the end in sight for whoever is there already. */
  #toEnd(force = false) {
    const page = document.scrollingElement;
    if (force || page.scrollHeight - page.scrollTop - page.clientHeight < 160) page.scrollTop = page.scrollHeight;
  }
}

// Conversations as this browser keeps them, and nobody else. The oldest go first where there is no room.

import { kept } from "./store.js";

const CONVERSATIONS_MAX = 50;
const TITLE_LENGTH = 60;

const makeId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export class Past {
  constructor() {
    this.all = kept.get("conversations", []);
  }

  find(id) {
    return this.all.find((one) => one.id === id);
  }

  /** Begins a conversation; it is kept once something was said in it. */
  begin() {
    return { id: makeId(), title: "", at: Date.now(), turns: [] };
  }

  /** Keeps a conversation as it is now, and puts it first. */
  keep(conversation) {
    conversation.title ||= conversation.turns[0].prompt.slice(0, TITLE_LENGTH).replaceAll(/\s+/g, " ");
    conversation.at = Date.now();
    this.all = [conversation, ...this.all.filter((one) => one.id !== conversation.id)].slice(0, CONVERSATIONS_MAX);
    this.#write();
  }

  drop(id) {
    this.all = this.all.filter((one) => one.id !== id);
    this.#write();
  }

  clear() {
    this.all = [];
    kept.set("conversations", undefined);
  }

  /** Hands everything over as a file. */
  export() {
    const blob = new Blob([JSON.stringify({ exported_at: new Date().toISOString(), conversations: this.all }, null, 2)], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "millrace-conversations.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  #write() {
    let room = kept.set("conversations", this.all);
    for (let count = this.all.length - 1; !room && count > 0; count--) {
      this.all.pop();
      room = kept.set("conversations", this.all);
    }
  }
}

// One question and its answer on the page, with the receipt and the trace beside them.

import { advice } from "./advice.js";
import { announce, button, copier, make } from "./dom.js";
import { answerMarks, promptMarks, render } from "./prose.js";
import { details, early, isHit, summary } from "./receipt.js";
import { Waterfall } from "./waterfall.js";

const WIDE = matchMedia("(min-width: 68.01rem)");
const ENDINGS = {
  length: "It stopped at the limit of tokens.",
  content_filter: "Safety ended the answer here.",
};

/**
 * Shows a turn, which is plain data: `{prompt, answer, refusal?, thought?, finish?, receipt?, usage?, requestId?, error?,
 * stopped?, spans?}`; whoever changes it says so by the methods.
 */
export class TurnView {
  constructor(turn, { again, report }) {
    this.turn = turn;
    this.orders = { again, report };
    this.waterfall = new Waterfall();
    this.prompt = make("div", { class: "prompt" });
    this.text = document.createTextNode("");
    this.prose = make("div", { class: "prose" }, this.text);
    this.beneath = make("div");
    this.answer = make("div", { class: "answer" }, make("h3", { class: "aloud" }, "Answer"), this.prose, this.beneath);
    this.summary = make("summary");
    this.within = make("div", { class: "within" });
    this.details = make("details", { open: WIDE.matches }, this.summary, this.within);
    this.proof = make("aside", { class: "proof", "aria-label": "Receipt" }, this.details);
    this.element = make("article", { class: "turn" },
      make("div", { class: "said" }, make("h3", { class: "aloud" }, "You"), this.prompt, this.answer), this.proof);
    this.live = false;
    for (const span of turn.spans ?? []) this.waterfall.add(span);
    if (turn.spans) this.waterfall.end();
    this.settle();
  }

  /** The question is on its way. */
  wait() {
    this.live = true;
    this.answer.setAttribute("aria-busy", "true");
    this.beneath.replaceChildren();
    this.#drawReceipt();
  }

  /** The stream has begun. */
  begin(headers) {
    this.turn.receipt = early(headers);
    this.#drawReceipt();
  }

  /** The answer grew. */
  grow(text) {
    this.turn.answer += text;
    this.text.appendData(text);
  }

  /** The model's thoughts grew. */
  think(text) {
    this.turn.thought = (this.turn.thought ?? "") + text;
    if (!this.thought) {
      this.thought = make("div");
      this.prose.before(make("details", { class: "thought", open: true }, make("summary", {}, "Thoughts"), this.thought));
    }
    this.thought.append(text);
  }

  /** Nothing more comes: draws the turn as it is kept. */
  settle() {
    const { turn } = this;
    this.live = false;
    this.answer.removeAttribute("aria-busy");
    this.prompt.replaceChildren(...render(turn.prompt, promptMarks(turn.prompt, this.#findings("input"))));
    const shown = turn.answer || turn.refusal || "";
    this.prose.hidden = !shown;
    this.prose.replaceChildren(...render(shown, turn.answer ? answerMarks(shown, this.#findings("output")) : []));
    if (turn.thought && !this.thought) this.#keepThought();
    this.#drawBeneath();
    this.#drawReceipt();
  }

  #keepThought() {
    this.thought = make("div", {}, this.turn.thought);
    this.prose.before(make("details", { class: "thought" }, make("summary", {}, "Thoughts"), this.thought));
  }

  #findings(direction) {
    const told = (this.turn.receipt?.safety ?? []).filter((event) => event.direction === direction);
    const index = this.turn.messageIndex ?? 0;
    return told.flatMap((event) => event.findings).filter((one) => direction === "output" || one.message_index === index);
  }

  #drawBeneath() {
    const { turn } = this;
    const { again, report } = this.orders;
    this.beneath.replaceChildren(...[
      ENDINGS[turn.finish] && make("p", { class: "stopped" }, ENDINGS[turn.finish]),
      turn.stopped && make("p", { class: "stopped" }, "You stopped it here; the model was told to stop as well."),
      turn.error && this.#fault(turn.error),
      make("div", { class: "actions" },
        turn.answer && copier(() => turn.answer),
        !turn.error && button("Ask again", () => again({ fresh: true }), { class: "quiet small", title: "A fresh answer, not one from the cache" }),
        isHit(turn.receipt) && turn.receipt.cache.entry_id && button("Wrong answer", (event) => report(turn, event.currentTarget),
          { class: "quiet small", title: "Takes this answer out of the cache" })),
    ].filter(Boolean));
  }

  #fault(error) {
    announce(`${error.message} ${advice(error)}`);
    return make("div", { class: "notice bad", role: "group", "aria-label": "Error" },
      make("p", {}, make("b", {}, error.message)),
      make("p", {}, advice(error)),
      make("div", { class: "row" },
        button("Try again", () => this.orders.again({})),
        error.requestId && make("small", { class: "mono" }, `request ${error.requestId}`)));
  }

  #drawReceipt() {
    const { turn, live } = this;
    this.summary.replaceChildren(...summary({ ...turn, live }).filter(Boolean));
    const complete = turn.receipt?.duration_ms !== undefined;
    this.within.replaceChildren(...[...(complete ? details(turn) : []), this.waterfall.element].filter(Boolean));
    this.proof.hidden = !live && !turn.receipt && !turn.spans?.length;
  }
}

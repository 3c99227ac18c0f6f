// An answer's text as elements: code blocks and inline code, and marks where safety found something.

import { make } from "./dom.js";
import { category } from "./words.js";

const CODE = /```[^\n`]*\n([\s\S]*?)(?:```|$)|`([^`\n]+)`/g;
const VERBS = { flag: "noticed", redact: "redacted", block: "blocked" };

/** Renders a text; `marks` are `{start, end, category, action}` in UTF-16 units, sorted and apart from each other. */
export const render = (text, marks = []) => {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(CODE)) {
    nodes.push(...marked(text, from, found.index, marks));
    const [whole, block, inline] = found;
    const inner = block ?? inline;
    const start = found.index + (block === undefined ? 1 : whole.indexOf("\n") + 1);
    const code = make("code", {}, marked(text, start, start + inner.length, marks));
    nodes.push(block === undefined ? code : make("pre", { tabindex: 0 }, code));
    from = found.index + whole.length;
  }
  nodes.push(...marked(text, from, text.length, marks));
  return nodes;
};

const marked = (text, from, to, marks) => {
  const nodes = [];
  for (const mark of marks) {
    const [start, end] = [Math.max(mark.start, from), Math.min(mark.end, to)];
    if (start >= end) continue;
    nodes.push(text.slice(from, start), markOf(mark, text.slice(start, end)));
    from = end;
  }
  nodes.push(text.slice(from, to));
  return nodes.filter((node) => node !== "");
};

const markOf = ({ action, category: name, shown }, text) =>
  make("mark", { class: `${action}${shown ? " shown" : ""}`, title: `${category(name)}: ${shown ?? VERBS[action] ?? action}` }, text);

/**
 * Where to mark a prompt: its own words, with what was done about them before a model saw it.
 * @param findings of the receipt, with spans in code points of the message.
 */
export const promptMarks = (text, findings) => apart(findings.map((one) => ({
  ...one, ...units(text, one.start, one.end), shown: one.action === "redact" ? "not shown to the model" : undefined,
})));

/** Where to mark an answer: what was replaced stands there as `<CATEGORY>`, and moves what comes behind it. */
export const answerMarks = (text, findings) => {
  const points = [...text];
  let moved = 0;
  return apart([...findings].sort((a, b) => a.start - b.start).map((one) => {
    const start = one.start + moved;
    const tag = `<${one.category}>`;
    const replaced = one.action === "redact" && points.slice(start, start + tag.length).join("") === tag;
    if (replaced) moved += tag.length - (one.end - one.start);
    return { ...one, ...units(text, start, replaced ? start + tag.length : one.end + moved) };
  }));
};

const units = (text, start, end) => {
  const points = [...text];
  const before = points.slice(0, start).join("").length;
  return { start: before, end: before + points.slice(start, end).join("").length };
};

const apart = (marks) => {
  const kept = [];
  for (const mark of marks.sort((a, b) => a.start - b.start || b.end - a.end))
    if (mark.end > mark.start && mark.start >= (kept.at(-1)?.end ?? 0)) kept.push(mark);
  return kept;
};

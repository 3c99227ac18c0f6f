// Builds elements. Text only ever becomes text nodes, so nothing that a model says can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element; `on` has listeners, `null`, `undefined` and `false` leave an attribute out. */
export const make = (tag, { on = {}, ...attributes } = {}, ...children) =>
  finish(document.createElement(tag), on, attributes, children);

/** Makes an SVG element, in the same way. */
export const draw = (tag, { on = {}, ...attributes } = {}, ...children) =>
  finish(document.createElementNS(SVG, tag), on, attributes, children);

const finish = (element, on, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  for (const [type, listener] of Object.entries(on)) element.addEventListener(type, listener);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

let fieldCount = 0;

/** A labelled form field: the label, the control, and a hint that the control is described by. */
export const field = (label, control, hint) => {
  control.id ||= `field-${++fieldCount}`;
  const described = hint && make("small", { id: `${control.id}-hint` }, hint);
  if (described) control.setAttribute("aria-describedby", described.id);
  return make("div", { class: "field" }, make("label", { for: control.id }, label), control, described);
};

export const select = (options, attributes = {}) =>
  make("select", attributes, options.map(([value, text]) => make("option", { value }, text ?? value)));

export const button = (text, click, attributes = {}) =>
  make("button", { type: "button", ...attributes, on: { click } }, text);

/** Opens a modal dialog that is gone once it is closed; a click on its backdrop closes it. */
export const openDialog = (title, ...children) => {
  const head = make("header", {},
    make("h2", {}, title),
    button("×", () => dialog.close(), { class: "quiet icon", "aria-label": "Close" }));
  const dialog = make("dialog", { "aria-label": title }, head, ...children);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
};

/** Tells those who cannot see the page. */
export const announce = (text) => {
  document.getElementById("said").textContent = text;
};

/** Copies a text, and says so on the button for a moment. */
export const copier = (text, label = "Copy") =>
  button(label, async (event) => {
    const pressed = event.currentTarget;
    try {
      await navigator.clipboard.writeText(text());
      pressed.textContent = "Copied";
    } catch {
      // Without https, and where it is forbidden, a page cannot copy.
      pressed.textContent = "Select it to copy";
    }
    setTimeout(() => (pressed.textContent = label), 1200);
  }, { class: "quiet small" });

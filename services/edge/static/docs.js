"use strict";
// Renders /openapi.json. Builds elements and sets text only, so nothing in the document can become markup.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const resolve = (spec, schema) =>
  schema?.$ref ? spec.components.schemas[schema.$ref.split("/").pop()] : schema ?? {};

const typeName = (spec, schema) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map((one) => typeName(spec, one)).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `${typeName(spec, schema.items ?? {})}[]`;
  return schema.type ?? "any";
};

const limits = (schema) => {
  const names = ["minimum", "exclusiveMinimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "default"];
  const all = [schema, ...(schema.anyOf ?? [])];
  return names
    .map((name) => [name, all.map((one) => one[name]).find((value) => value !== undefined && value !== null)])
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name} ${JSON.stringify(value)}`)
    .join(", ");
};

const fields = (spec, schema) => {
  const shape = resolve(spec, schema);
  const rows = Object.entries(shape.properties ?? {}).map(([name, field]) => {
    const needed = (shape.required ?? []).includes(name) ? " *" : "";
    return make("tr", {},
      make("td", {}, make("code", {}, name + needed)),
      make("td", {}, make("code", {}, typeName(spec, field))),
      make("td", {}, limits(field)));
  });
  if (!rows.length) return make("pre", {}, typeName(spec, schema));
  const head = make("tr", {}, make("th", {}, "field"), make("th", {}, "type"), make("th", {}, "limits"));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
};

const content = (spec, title, holder) =>
  Object.entries(holder?.content ?? {}).flatMap(([media, { schema }]) => {
    const shown = schema.properties?.data?.contentSchema ?? schema;
    const shapes = shown.anyOf ?? [shown];
    return [make("h3", {}, `${title}: ${media}`), ...shapes.map((one) => fields(spec, one))];
  });

const endpoint = (spec, path, method, operation) => {
  const body = make("div", {},
    ...content(spec, "Body", operation.requestBody),
    ...content(spec, "Answer", operation.responses["200"]),
    make("h3", {}, "Errors"),
    make("p", {}, Object.keys(operation.responses).filter((status) => status !== "200").join(", ")));
  const summary = make("summary", {},
    make("span", { class: `method ${method}` }, method.toUpperCase()),
    make("code", {}, path), make("span", {}, operation.summary));
  return make("details", {}, summary, body);
};

const show = (spec) => {
  document.getElementById("about").replaceChildren(
    `${spec.info.description} Version ${spec.info.version}. `, make("a", { href: "/openapi.json" }, "openapi.json"));
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths))
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, make("section", {}, make("h2", {}, tag)));
      groups.get(tag).append(endpoint(spec, path, method, operation));
    }
  document.getElementById("endpoints").replaceChildren(...groups.values());
};

fetch("/openapi.json").then((answer) => answer.json()).then(show).catch((error) => {
  document.getElementById("about").textContent = `The document could not be loaded: ${error}`;
});

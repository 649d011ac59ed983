// Shows openapi.json: each call with its parameters, bodies and answers.
"use strict";

function element(tag, text, ...children) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

// A schema with what it refers to put in its place, so that it reads by itself.
function resolved(schema, components, depth = 0) {
  if (schema === null || typeof schema !== "object" || depth > 12) return schema;
  if (Array.isArray(schema)) return schema.map((part) => resolved(part, components, depth + 1));
  if (schema.$ref) return resolved(components[schema.$ref.split("/").pop()] ?? {}, components, depth + 1);
  const parts = Object.entries(schema).filter(([key]) => key !== "title");
  return Object.fromEntries(parts.map(([key, value]) => [key, resolved(value, components, depth + 1)]));
}

// The types of a schema in a few words.
function kind(schema) {
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.type === "array" && schema.prefixItems) return `[${schema.prefixItems.map(kind).join(", ")}]`;
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.type ?? "any value";
}

function fields(entries) {
  const list = element("dl");
  for (const { name, schema, required, description } of entries) {
    const preset = schema.default === undefined || schema.default === null ? "" : `, ${JSON.stringify(schema.default)} if left out`;
    list.append(element("dt", name), element("dd", `${kind(schema)}${required ? "" : ", optional"}${preset}`));
    if (description ?? schema.description) list.append(element("dd", description ?? schema.description));
    const inner = schema.items?.properties ?? schema.items?.items?.properties ?? schema.properties;
    if (inner) list.append(element("dd", "", properties(schema.items?.items ?? schema.items ?? schema)));
  }
  return list;
}

function properties(schema) {
  const required = new Set(schema.required ?? []);
  return fields(Object.entries(schema.properties ?? {}).map(([name, part]) =>
    ({ name, schema: part, required: required.has(name) })));
}

function content(title, described, components) {
  const parts = [];
  for (const [type, { schema }] of Object.entries(described ?? {})) {
    const whole = resolved(schema ?? {}, components);
    parts.push(element("h4", `${title}: ${type}`));
    if (whole.description) parts.push(element("p", whole.description));
    if (whole.properties) parts.push(properties(whole));
  }
  return parts;
}

function call(method, path, described, components) {
  const section = element("section", "", element("h2", `${method.toUpperCase()} ${path}`), element("p", described.summary));
  if (described.description) section.append(element("p", described.description));
  section.append(...content("Body", described.requestBody?.content, components));
  for (const [place, title] of [["path", "In the path"], ["query", "Query"]]) {
    const given = (described.parameters ?? []).filter((parameter) => parameter.in === place);
    if (given.length) section.append(element("h4", title), fields(given));
  }
  const refusals = element("dl");
  for (const [status, answer] of Object.entries(described.responses ?? {})) {
    if (status < "300") section.append(...content(`Answer ${status}`, answer.content, components));
    else refusals.append(element("dt", status), element("dd", answer.description));
  }
  if (refusals.children.length) {
    section.append(element("details", "", element("summary", "Refusals, each a problem with a sentence (RFC 9457)"), refusals));
  }
  return section;
}

async function show() {
  const main = document.getElementById("calls");
  try {
    const described = await (await fetch("/openapi.json")).json();
    main.replaceChildren(...Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, one]) => call(method, path, one, described.components?.schemas ?? {}))));
  } catch (error) {
    main.replaceChildren(element("p", `The description cannot be read: ${error.message}`));
  }
}

show();

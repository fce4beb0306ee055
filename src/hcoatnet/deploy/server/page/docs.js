// The description of the interface, from openapi.json, as a page to read.

import { byId, element } from "./dom.js";

async function start() {
  const response = await fetch("openapi.json").catch(() => null);
  if (!response?.ok) {
    byId("trouble").append(element("p", { className: "warning" }, "The server does not answer. Reload the page to try again."));
    return;
  }
  show(await response.json());
}

function show({ info, paths, components }) {
  byId("title").textContent = `${info.title} ${info.version}`;
  byId("description").append(...prose(info.description ?? ""));
  const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods)
    .map(([method, operation]) => ({ ...operation, path, method: method.toUpperCase() })));
  byId("contents").append(...operations.map((one) => element("li", {},
    element("a", { href: `#${idOf(one)}` }, element("code", {}, `${one.method} ${one.path}`)), ` ${one.summary ?? ""}`)));
  byId("operations").append(...operations.map(operationSection));
  byId("shapes").append(...Object.entries(components?.schemas ?? {}).map(shapeSection));
  byId("shapes").hidden = false;
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

const idOf = ({ method, path }) => `${method}${path}`.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase();

function operationSection(operation) {
  const id = idOf(operation);
  const parts = [
    element("h2", { id }, element("code", {}, `${operation.method} ${operation.path}`)),
    element("p", {}, element("strong", {}, operation.summary ?? "")),
    ...(operation.description ?? "").split(/\n\s*\n/).map((text) => element("p", {}, ...prose(text))),
  ];
  if (operation.security) parts.push(element("p", {}, "Needs the server's token."));
  parts.push(code("Example", curl(operation)));
  if (operation.parameters) parts.push(parameterTable(operation));
  if (operation.requestBody) parts.push(...bodyWords(operation.requestBody));
  parts.push(...responses(operation));
  const section = element("section", {}, ...parts);
  section.setAttribute("aria-labelledby", id);
  return section;
}

function curl({ method, path, parameters = [], requestBody, security }) {
  const query = parameters.filter((one) => one.in === "query").map(({ name, schema }) => `${name}=${schema.default ?? "VALUE"}`);
  const address = new URL(`.${path}`, document.baseURI).href + (query.length ? `?${query.join("&")}` : "");
  const form = requestBody?.content["multipart/form-data"];
  const fields = Object.keys(form?.schema.properties ?? {}).map((name) => `-F ${name}=@photo.jpg`);
  const token = security ? ['-H "Authorization: Bearer $HCOATNET_TOKEN"'] : [];
  return ["curl", ...(method === "GET" || form ? [] : [`-X ${method}`]), ...token, ...fields, `'${address}'`].join(" ");
}

function parameterTable({ parameters }) {
  return table("Parameters", ["Name", "Where", "Type", "Default", "What it does"], parameters.map((one) => [
    [element("code", {}, one.name)], [one.in], typeOf(one.schema), [JSON.stringify(one.schema.default) ?? "needed"], prose(one.description ?? ""),
  ]));
}

function bodyWords({ content, description }) {
  const kinds = Object.entries(content).map(([type, { schema }]) => {
    const fields = Object.entries(schema.properties ?? {}).flatMap(([name, one]) => [" with ", element("code", {}, name), ": ", ...typeOf(one)]);
    return element("li", {}, element("code", {}, type), ...(fields.length ? fields : [": ", ...typeOf(schema)]));
  });
  return [element("h3", {}, "Body"), element("p", {}, ...prose(description ?? "")), element("ul", {}, ...kinds)];
}

function responses(operation) {
  const examples = [];
  const rows = Object.entries(operation.responses).map(([status, { description, content = {} }]) => {
    const [[type, body] = []] = Object.entries(content);
    if (body?.example) examples.push(code(`Example of ${status}`, JSON.stringify(body.example, null, 2)));
    return [[status], prose(description), body ? [...typeOf(body.schema), " as ", element("code", {}, type)] : ["nothing"]];
  });
  return [table("Answers", ["Status", "When", "Body"], rows), ...examples];
}

function shapeSection([name, schema]) {
  const needed = new Set(schema.required);
  const rows = Object.entries(schema.properties ?? {}).map(([key, one]) => [
    [element("code", {}, key)], typeOf(one), [...prose(one.description ?? ""), needed.has(key) ? "" : " May be absent."],
  ]);
  return element("section", {}, element("h3", { id: `shape-${name}` }, name),
    element("p", {}, ...prose(schema.description ?? "")), table(`Fields of ${name}`, ["Field", "Type", "What it is"], rows));
}

// A type in words, with links to the shapes that it is made of.
function typeOf(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    return [element("a", { href: `#shape-${name}` }, name)];
  }
  if (schema.anyOf) return schema.anyOf.flatMap((one, index) => (index ? [" or ", ...typeOf(one)] : typeOf(one)));
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...typeOf(schema.additionalProperties)];
  if (schema.format === "binary") return ["the bytes of a photo"];
  return [schema.type ?? "anything"];
}

// `Code` in a text of the description.
const prose = (text) => text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));

function table(title, headings, rows) {
  const cells = (row) => row.map((cell, index) => (index ? element("td", {}, ...cell) : element("th", { scope: "row" }, ...cell)));
  const whole = element("table", {}, element("caption", {}, title),
    element("thead", {}, element("tr", {}, ...headings.map((heading) => element("th", { scope: "col" }, heading)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))));
  return scrolling(title, whole);
}

const code = (title, text) => scrolling(title, element("pre", {}, element("code", {}, text)));

// Reachable by keyboard where it is wider than the window.
function scrolling(title, content) {
  const group = element("div", { className: "scroll" }, content);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", title);
  new ResizeObserver(() => { group.tabIndex = group.scrollWidth > group.clientWidth ? 0 : -1; }).observe(group);
  return group;
}

start();

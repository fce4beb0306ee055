// Making elements. Text from a user or the server only ever enters as text.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const copyOf = (template) => byId(template).content.cloneNode(true).firstElementChild;

// A line of a description list: what, and what is known of it.
export function fact(name, value, { source = "", missing = false } = {}) {
  const known = element("dd", {}, value);
  if (source) known.append(" ", element("small", {}, `(${source})`));
  return element("div", { className: missing ? "missing" : "" }, element("dt", {}, name), known);
}

export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// No probability is shown as none or as certain: a 0 or 1 is but a rounded one.
export function percent(share) {
  if (share < 0.01) return "< 1 %";
  if (share > 0.99) return "> 99 %";
  return `${Math.round(100 * share)} %`;
}

export function listed(words, last = "or") {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} ${last} ${words.at(-1)}`;
}

// What the model says of one photo, and why it says nothing.

import { copyOf, element, listed, percent } from "./dom.js";

const ROWS = 8; // classes shown at first, where there are many
const LONG_NAME = 10; // letters

// Of an answer: a line for the table of contents.
export const shortAnswer = (answer) => (answer.abstain ? "no answer" : `${answer.top_class}, ${percent(answer.confidence)}`);

// Of an answer: a sentence to be read aloud.
export function spokenAnswer(answer) {
  const verdict = answer.abstain ? "The model gives no answer." : `Most likely ${shortAnswer(answer)}.`;
  return `${answer.name}: ${verdict}${answer.prediction_set?.length ? ` Prediction set: ${listed(answer.prediction_set)}.` : ""}`;
}

// The answer in words, the most important first.
export function verdict(answer, rules) {
  const parts = [];
  if (answer.abstain) {
    parts.push(element("div", { className: "warning" },
      element("p", {}, element("strong", {}, "The model gives no answer.")), element("p", {}, answer.reason)));
  } else {
    parts.push(element("p", { className: "verdict" },
      element("small", {}, "Most likely"), `${answer.top_class} `, element("span", {}, percent(answer.confidence))));
  }
  return [...parts, ...setWords(answer, rules)];
}

function setWords({ prediction_set: inside, probabilities }, rules) {
  if (inside === null) return [element("p", { className: "quiet" }, `No prediction set: ${rules.no_sets_because}`)];
  if (!inside.length) return [element("p", { className: "set" }, "Prediction set: empty. No class is likely enough.")];
  const all = inside.length === Object.keys(probabilities).length;
  const promise = `For about ${percent(rules.level)} of photos like those it was calibrated on, the true class is in the set that the model gives. `;
  return [
    element("p", { className: "set" }, "Prediction set: ", element("strong", {}, listed(inside)),
      all ? ". The model rules nothing out." : "."),
    element("p", { className: "quiet" }, `${promise}Whether this photo is one of them, nobody knows. `,
      element("a", { href: "#trust-heading" }, "How far to trust it")),
  ];
}

// The table of probabilities, the largest first. Where there are many classes, the last wait behind a button.
export function probabilityTable(answer, { level }) {
  const whole = copyOf("probabilities-template");
  const inside = answer.prediction_set;
  whole.querySelector("caption").textContent = inside ? `Probabilities, and the prediction set at ${percent(level)}` : "Probabilities";
  whole.classList.toggle("long", Object.keys(answer.probabilities).some((name) => name.length > LONG_NAME));
  if (!inside) whole.querySelector(".in-set").remove();
  const rows = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1])
    .map(([name, share]) => probabilityRow(name, share, inside));
  whole.querySelector("tbody").append(...rows);
  const late = rows.slice(ROWS).filter((row) => !row.classList.contains("chosen"));
  if (late.length > 2) foldAway(late, whole.querySelector(".more"));
  return whole;
}

function probabilityRow(name, share, inside) {
  const bar = element("i");
  bar.style.width = `${100 * share}%`;
  const cell = element("div", { className: "share" }, element("b", {}, percent(share)), element("span", { ariaHidden: "true" }, bar));
  const row = element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, cell));
  if (inside) row.append(element("td", {}, ...mark(inside.includes(name))));
  row.classList.toggle("chosen", Boolean(inside?.includes(name)));
  return row;
}

const mark = (chosen) => (chosen
  ? [element("span", { ariaHidden: "true" }, "✓"), element("span", { className: "unseen" }, "yes")]
  : [element("span", { className: "unseen" }, "no")]);

function foldAway(rows, button) {
  const fold = (folded) => {
    for (const row of rows) row.hidden = folded;
    button.setAttribute("aria-expanded", !folded);
  };
  button.hidden = false;
  button.textContent = `${rows.length} less likely classes`;
  button.addEventListener("click", () => fold(!rows[0].hidden));
  fold(true);
}

// Why there is no answer, with a button where trying again may help.
export function problemNotice(problem, again) {
  const notice = element("div", { className: "warning" }, element("p", {}, element("strong", {}, `${problem.title}.`)), element("p", {}, problem.detail));
  for (const { found, expected, fix } of problem.problems) {
    notice.append(element("p", {}, `Found: ${found}. Expected: ${expected}.`), element("p", {}, fix));
  }
  if (again) {
    const button = element("button", { type: "button" }, "Try again");
    button.addEventListener("click", again);
    notice.append(element("p", {}, button));
  }
  return notice;
}

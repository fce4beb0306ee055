// What is known of the model: facts, how far its answers hold, and its card.

import { byId, counted, element, fact, listed, percent } from "./dom.js";

export function showModel(model) {
  document.title = `${model.name} · hcoatnet`;
  byId("model-name").textContent = model.name;
  byId("model-facts").textContent = summary(model);
  byId("trust").querySelector("ul").replaceChildren(...trust(model).map((line) => element("li", {}, line)));
  byId("model-list").replaceChildren(...facts(model));
  showCard(model.card);
  byId("trust").hidden = false;
  byId("model").hidden = false;
}

function summary({ classes, members, image_size: side }) {
  const named = classes.length > 12 ? "" : `: ${listed(classes, "and")}`;
  const averaged = members > 1 ? ` The answers of ${members} models are averaged.` : "";
  return `Tells ${classes.length} classes apart${named}. A photo is seen at ${side} × ${side} pixels.${averaged}`;
}

function trust({ rules, calibration, classes }) {
  const error = percent(rules.error_rate);
  return [
    `The model knows ${counted(classes.length, "class", "classes")} only. Whatever the photo shows, it names one of them, or none.`,
    `Probabilities, sets and limits come from ${counted(calibration.photos, "photo")} (${calibration.source}) in ${counted(calibration.groups, "group")} (patients, or photos of one source).`
      + " On photos of another place, camera, skin or disease they can be far off, and nothing on this page would show it.",
    calibration.approximate_because,
    rules.no_sets_because ? `There are no prediction sets: ${rules.no_sets_because}` : setTrust(rules),
    rules.abstain_below === null
      ? `It gives no answer to any photo. ${rules.no_threshold_because}`
      : `It gives no answer below a probability of ${percent(rules.abstain_below)}: on the calibration photos at most ${error} of the answers above that were wrong.`,
  ].filter(Boolean);
}

function setTrust({ level, class_conditional: each }) {
  return each
    ? `Each class by itself is in the set for about ${percent(level)} of its photos.`
    : `The ${percent(level)} of the prediction sets hold for all photos together. For a single class, a rare one above all, it can be much less.`;
}

function facts(model) {
  const size = `${model.parameters.toLocaleString("en")} parameters`;
  return [
    fact("Architecture", model.members > 1 ? `${model.architecture}, ${model.members} models with ${size} each` : `${model.architecture}, ${size}`),
    fact("Initial weights", model.init),
    fact("Photos", `resized to ${model.image_size} × ${model.image_size} pixels`),
    fact("Parts of the photo", model.prunes ? "those that matter least are left out on the way" : "all are kept"),
    fact("Licence of the weights", model.licence || "missing", { missing: !model.licence }),
    fact("Software", `hcoatnet ${model.version}`),
    fact("SHA-256 of the bundle", element("span", { className: "code" }, model.sha256)),
  ];
}

function showCard({ sections }) {
  const missing = sections.flatMap(({ entries }) => entries).filter((entry) => entry.missing).length;
  byId("card-summary").textContent = missing ? `${counted(missing, "entry is", "entries are")} missing: only the model's author can fill them.` : "";
  byId("card").replaceChildren(...sections.map(({ heading, entries }) => {
    const lost = entries.filter((entry) => entry.missing).length;
    const title = lost ? `${heading} (${lost} missing)` : heading;
    const list = element("dl", { className: "facts-list" }, ...entries.map((entry) => fact(entry.name, entry.value, entry)));
    return element("details", {}, element("summary", {}, title), list);
  }));
}

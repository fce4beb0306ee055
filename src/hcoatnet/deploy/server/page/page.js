// The page: takes photos, asks the server about one after the other, and shows the answers.

import { problemNotice, probabilityTable, shortAnswer, spokenAnswer, verdict } from "./answer.js";
import { byId, copyOf, counted, element } from "./dom.js";
import { keptControls } from "./kept.js";
import { showModel } from "./model.js";
import { Problem, hasToken, predict, readModel, useToken } from "./server.js";

const TRIES = 4; // of a photo, while the server is busy
const HIGHEST = 30; // rem, of a photo
const LONGEST_WAIT = 30; // seconds, whatever the server asks for

let model = null;
let lacksToken = false;
let working = false;
let added = 0;
let photos = []; // as shown, from the top: { name, file, address, article, state, short }

// The model, and the token that the server may ask for

async function start() {
  byId("trouble").replaceChildren();
  try {
    model = await readModel();
  } catch (problem) {
    byId("model-facts").textContent = "";
    if (problem.status === 401) askForToken();
    else byId("trouble").replaceChildren(problemNotice(problem, start));
    return;
  }
  showModel(model);
  work();
}

function askForToken() {
  lacksToken = true;
  if (hasToken()) byId("token-why").textContent = "The server does not accept this token. Ask who runs the server, and try again.";
  byId("token-form").hidden = false;
  byId("token").focus();
}

function takeToken(event) {
  event.preventDefault();
  useToken(byId("token").value.trim());
  byId("token-form").hidden = true;
  byId("choose").focus();
  lacksToken = false;
  if (model === null) start();
  else work();
}

// Photos come in, and go

function add(files, nameOf = (file) => file.name) {
  if (!files.length) return;
  const fresh = [...files].map((file) => newPhoto(file, nameOf(file)));
  byId("photos").prepend(...fresh.map(({ article }) => article));
  photos = [...fresh, ...photos];
  byId("status").textContent = `${counted(fresh.length, "photo")} chosen.`;
  byId("results").hidden = false;
  byId("results-heading").scrollIntoView();
  listPhotos();
  work();
}

function newPhoto(file, name) {
  added += 1;
  const article = copyOf("photo-template");
  const photo = { name, file, article, address: URL.createObjectURL(file), state: "waiting", short: "waiting" };
  const heading = article.querySelector("h3");
  heading.textContent = name;
  heading.id = `photo-${added}`;
  article.setAttribute("aria-labelledby", heading.id);
  const remove = article.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${name}`);
  remove.addEventListener("click", () => removePhotos([photo]));
  showImage(photo);
  say(photo, "Waiting.");
  return photo;
}

function showImage({ name, address, article }) {
  const image = article.querySelector("img");
  image.alt = name;
  image.addEventListener("error", () => {
    image.replaceWith(element("span", { className: "quiet" }, "This browser cannot show the photo."));
    article.querySelector(".frame").classList.add("blank");
  });
  image.addEventListener("load", () => fitFrame(article, image.naturalWidth, image.naturalHeight));
  image.src = address;
}

// As wide as the column, unless that makes it too high.
function fitFrame(article, width, height) {
  const { style } = article.querySelector(".frame");
  style.aspectRatio = `${width} / ${height}`;
  style.maxWidth = `${(HIGHEST * width) / height}rem`;
}

function removePhotos(gone) {
  for (const { address, article } of gone) {
    URL.revokeObjectURL(address);
    article.remove();
  }
  photos = photos.filter((photo) => !gone.includes(photo));
  byId("status").textContent = `${counted(gone.length, "photo")} removed.`;
  byId("results").hidden = !photos.length;
  listPhotos();
  byId(photos.length ? "results-heading" : "choose").focus();
}

function listPhotos() {
  const lines = photos.map(({ name, short, article }) => element("li", {},
    element("a", { href: `#${article.querySelector("h3").id}` }, name), " ", element("span", {}, short)));
  byId("contents").hidden = photos.length < 2;
  byId("contents").querySelector("ol").replaceChildren(...lines);
}

// Questions and answers, one photo at a time

async function work() {
  if (working || model === null || lacksToken) return;
  working = true;
  try {
    for (let photo = next(); photo && !lacksToken; photo = next()) await ask(photo);
  } finally {
    working = false;
  }
}

const next = () => photos.find(({ state }) => state === "waiting");

async function ask(photo) {
  photo.state = "asking";
  for (let tries = 1; photos.includes(photo); tries += 1) {
    say(photo, "Asking the model …");
    try {
      const answer = await answerTo(photo);
      return photos.includes(photo) ? showAnswer(photo, answer) : undefined;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (problem.status === 401) return waitForToken(photo);
      if (problem.retryAfter === null || tries === TRIES) return showProblem(photo, problem);
      await sitOut(photo, Math.min(problem.retryAfter, LONGEST_WAIT));
    }
  }
  return undefined;
}

async function answerTo({ file, name }) {
  const { bytes } = model.limits;
  if (file.size > bytes) {
    const [size, most] = [file.size, bytes].map((number) => `${(number / 1e6).toFixed(1)} MB`);
    throw new Problem("This photo is too large", `It has ${size}. The server takes ${most}. Save it smaller, and choose it again.`);
  }
  return predict(file, name, model.prunes);
}

async function sitOut(photo, seconds) {
  byId("status").textContent = `${photo.name}: the server is busy.`;
  for (let left = seconds; left > 0 && photos.includes(photo); left -= 1) {
    say(photo, `The server is busy. Trying again in ${left} s.`);
    await new Promise((resolve) => { setTimeout(resolve, 1000); });
  }
}

function waitForToken(photo) {
  photo.state = "waiting";
  say(photo, "Waiting for the token.");
  askForToken();
}

function say({ article }, ...content) {
  const words = content.map((one) => (typeof one === "string" ? element("p", { className: "quiet" }, one) : one));
  article.querySelector(".state").replaceChildren(...words);
}

function showAnswer(photo, answer) {
  const { article } = photo;
  say(photo, ...verdict(answer, model.rules));
  const figure = article.querySelector("figure");
  fitFrame(article, answer.width, answer.height);
  if (answer.traces.length) figure.append(keptControls(article.querySelector("canvas"), answer));
  else figure.append(element("figcaption", { className: "quiet" }, "This model keeps all of the photo: there is nothing to show."));
  article.querySelector(".columns").append(probabilityTable(answer, model.rules));
  finish(photo, "answered", shortAnswer(answer), spokenAnswer(answer));
}

function showProblem(photo, problem) {
  const again = () => {
    photo.state = "waiting";
    photo.article.classList.remove("refused");
    byId("results-heading").focus();
    work();
  };
  const mayHelp = problem.retryAfter !== null || problem.status === 0 || problem.status === 408 || problem.status >= 500;
  photo.article.classList.add("refused");
  say(photo, problemNotice(problem, mayHelp ? again : null));
  finish(photo, "refused", problem.title, `${photo.name}: ${problem.title}.`);
}

function finish(photo, state, short, spoken) {
  Object.assign(photo, { state, short });
  const left = photos.filter((one) => one.state === "waiting").length;
  byId("status").textContent = left ? `${spoken} ${counted(left, "photo")} to go.` : spoken;
  listPhotos();
}

// What the reader does

function listen() {
  byId("token-form").addEventListener("submit", takeToken);
  byId("clear").addEventListener("click", () => removePhotos(photos));
  for (const [button, input] of [["choose", "files"], ["shoot", "camera"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", ({ target }) => {
      add([...target.files]);
      target.value = ""; // so that the same photo can be chosen again
    });
  }
  addEventListener("paste", ({ clipboardData }) => add(clipboardData.files, (file) => `pasted ${file.name}`));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("intake").classList.add("over");
  });
  addEventListener("dragleave", ({ relatedTarget }) => {
    if (relatedTarget === null) byId("intake").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    byId("intake").classList.remove("over");
    add(event.dataTransfer.files);
  });
}

listen();
start();

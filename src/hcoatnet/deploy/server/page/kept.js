// What a model that prunes kept of a photo: squares drawn over it, and the same in words.

import { copyOf, counted, element, listed } from "./dom.js";

const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // as .ramp in page.css
const LEFT_OUT = "rgb(0 0 0 / 0.7)";
const LONGER_SIDE = 1200; // pixels of the canvas

let made = 0;

// The caption with the controls, for the canvas over the photo. It draws at once, and again whenever one is moved.
export function keptControls(canvas, answer) {
  const caption = copyOf("kept-template");
  const [members, slider, colours] = ["select", "input[type=range]", "input[type=checkbox]"].map((one) => caption.querySelector(one));
  made += 1;
  name(caption.querySelector(".stage label"), slider, `stage-${made}`);
  name(caption.querySelector(".members label"), members, `member-${made}`);
  answer.traces.forEach((_, number) => members.append(element("option", { value: number }, `${number + 1} of ${answer.traces.length}`)));
  members.parentElement.hidden = answer.traces.length === 1;
  slider.max = answer.traces[0].stages.length;
  fit(canvas, answer);

  const show = () => {
    const trace = answer.traces[Number(members.value)];
    const view = viewOf(trace, Number(slider.value));
    draw(canvas, trace, view, colours.checked);
    describe(caption, canvas, slider, trace, view);
  };
  for (const control of [members, slider, colours]) control.addEventListener("input", show);
  show();
  return caption;
}

function name(label, control, id) {
  control.id = id;
  label.htmlFor = id;
}

function fit(canvas, { width, height }) {
  const scale = LONGER_SIDE / Math.max(width, height);
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.hidden = false;
}

// Stage 0 is before the first cut; stage i is after cut i, with the importance that decided it.
export function viewOf(trace, stage) {
  if (stage === 0) return { stage, kept: [...Array(trace.rows * trace.columns).keys()], importance: new Map() };
  const { positions, scores, kept } = trace.stages[stage - 1];
  return { stage, kept, importance: new Map(positions.map((position, index) => [position, scores[index]])) };
}

function draw(canvas, { rows, columns }, { kept, importance }, coloured) {
  const pen = canvas.getContext("2d");
  const edge = (length, cell, cells) => Math.round((length * cell) / cells);
  const shade = shades(importance);
  const border = Math.max(2, Math.min(canvas.width / columns, canvas.height / rows) / 16);
  const stays = new Set(kept);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (let position = 0; position < rows * columns; position += 1) {
    const [row, column] = [Math.floor(position / columns), position % columns];
    const [left, top] = [edge(canvas.width, column, columns), edge(canvas.height, row, rows)];
    const [width, height] = [edge(canvas.width, column + 1, columns) - left, edge(canvas.height, row + 1, rows) - top];
    if (!stays.has(position)) {
      pen.fillStyle = LEFT_OUT;
      pen.fillRect(left, top, width, height);
    } else if (coloured && importance.size) {
      pen.strokeStyle = colourOf(shade(position)); // a frame only: the colour of the skin stays as it is
      pen.lineWidth = border;
      pen.strokeRect(left + border / 2, top + border / 2, width - border, height - border);
    }
  }
}

// From 0, least important of this cut, to 1. The logarithm undoes the softmax that the scores come from.
function shades(importance) {
  const [low, high] = extent(importance).map(Math.log);
  return (position) => (high - low > 1e-6 ? (Math.log(importance.get(position)) - low) / (high - low) : 0.5);
}

function colourOf(share) {
  const at = Math.min(share, 0.9999) * (VIRIDIS.length - 1);
  const [from, to] = [VIRIDIS[Math.floor(at)], VIRIDIS[Math.floor(at) + 1]];
  return `rgb(${from.map((value, channel) => Math.round(value + (to[channel] - value) * (at % 1))).join(" ")})`;
}

const extent = (importance) => [Math.min(...importance.values()), Math.max(...importance.values())];

function describe(caption, canvas, slider, trace, view) {
  const total = counted(trace.rows * trace.columns, "square");
  const summary = view.stage === 0
    ? `Before the first cut: all ${total} (tokens) of the photo. The slider shows what stays after each cut.`
    : `After cut ${view.stage} of ${trace.stages.length}: ${view.kept.length} of ${total} kept.`;
  caption.querySelector(".said").textContent = summary;
  slider.setAttribute("aria-valuetext", summary);
  canvas.setAttribute("aria-label", view.stage === 0 ? summary : `${summary} ${places(trace, view)}`);
  caption.querySelector(".legend").hidden = view.stage === 0;
  if (view.stage === 0) return;
  const [low, high] = extent(view.importance).map((share) => `${(share * view.importance.size).toPrecision(2)} ×`);
  caption.querySelector(".low").textContent = low;
  caption.querySelector(".high").textContent = high;
}

// Which squares, in words: rows from the top, columns from the left.
export function places({ rows, columns }, { kept, importance }) {
  const lines = [];
  for (let row = 0; row < rows; row += 1) {
    const inside = kept.filter((position) => Math.floor(position / columns) === row).map((position) => (position % columns) + 1);
    if (inside.length) lines.push(`row ${row + 1}: ${inside.length === columns ? "all" : runs(inside)}`);
  }
  const best = kept.reduce((one, other) => (importance.get(other) > importance.get(one) ? other : one));
  return `Columns kept, from the left, in each row from the top: ${lines.join("; ")}. `
    + `Most important: row ${Math.floor(best / columns) + 1}, column ${(best % columns) + 1}.`;
}

// [1, 2, 3, 5] → "1 to 3 and 5"
function runs(numbers) {
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else found.push([number, number]);
  }
  return listed(found.map(([first, last]) => (first === last ? `${first}` : `${first} to ${last}`)), "and");
}

// Elements, numbers and colours. Texts are set as text: a name can't become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "vars")
      for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const known = (value) => value !== null && value !== undefined;

/** A number in about `digits` digits, with separators of thousands. */
function number(value, digits = 3) {
  if (!known(value)) return "–";
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(Math.min(2, digits - 1));
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(places, 6) });
}

const percent = (value) =>
  known(value) ? `${value.toFixed(value && Math.abs(value) < 1 ? 2 : 1)} %` : "–";
const inUnit = (value, unit) => (unit === "%" ? percent(value) : number(value));

/** Round numbers in an interval, about `count` of them. */
function ticks(low, high, count) {
  const rough = (0.7 * (high - low)) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough * 0.999) || power;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++)
    found.push(+(n * step).toPrecision(12));
  return found;
}

/** Whole epochs, at most one per `room` pixels. */
function epochTicks(low, high, width, room = 55) {
  return ticks(low, high, Math.max(2, Math.floor(width / room))).filter(Number.isInteger);
}

function nearest(sorted, value) {
  let best = 0;
  sorted.forEach((x, i) => {
    if (Math.abs(x - value) < Math.abs(sorted[best] - value)) best = i;
  });
  return best;
}

const union = (lists) => [...new Set(lists.flat())].sort((a, b) => a - b);

const VIRIDIS = [
  [68, 1, 84],
  [59, 82, 139],
  [33, 145, 140],
  [94, 201, 98],
  [253, 231, 37],
];

/** The colour of a share from 0 to 1, as [red, green, blue]. */
function viridis(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[i].map((c, k) => Math.round(c + (VIRIDIS[i + 1][k] - c) * (place - i)));
}

/** Rows of shares (null: a gap) as a picture with a pixel each. */
function pixels(rows) {
  const canvas = el("canvas", { width: rows[0].length, height: rows.length });
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  rows
    .flat()
    .forEach((share, i) =>
      image.data.set(known(share) ? [...viridis(share), 255] : [0, 0, 0, 0], 4 * i),
    );
  context.putImageData(image, 0, 0);
  return canvas.toDataURL();
}

/** Shortens a name in its middle. */
function elided(name, length) {
  const half = Math.floor((length - 1) / 2);
  return name.length <= length ? name : `${name.slice(0, half)}…${name.slice(-half)}`;
}

/** A box beside the pointer, inside `host`, which is positioned. */
class Tip {
  constructor(host) {
    this.host = host;
    this.box = el("div", { class: "tip", hidden: true, role: "status" });
    host.append(this.box);
  }

  show(x, y, ...content) {
    this.box.replaceChildren(...content.flat());
    this.box.hidden = false;
    const width = this.box.offsetWidth,
      room = this.host.clientWidth;
    const left = x + 14 + width <= room ? x + 14 : x - 14 - width;
    this.box.style.left = `${Math.min(Math.max(0, left), Math.max(0, room - width))}px`;
    this.box.style.top = `${y}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

/** Draws now, and again whenever the width changes. */
function drawn(host, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (host.clientWidth && host.clientWidth !== width) draw((width = host.clientWidth));
  }).observe(host);
}

async function readData() {
  const text = document.getElementById("data").textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Reads the data and shows what `build` makes of them. */
async function showPage(build) {
  const main = document.getElementById("main");
  try {
    main.replaceChildren(...build(await readData()));
  } catch (error) {
    main.replaceChildren(
      el("p", {}, `This page can't be drawn here: ${error}. It needs a browser of 2023 or later.`),
    );
    throw error;
  }
}

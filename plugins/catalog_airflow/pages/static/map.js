// The map of the catalog: pan, zoom, color, filter, and select images with a lasso. It needs the elements of map.html.
import { describe, selectPoints } from "./map_selection.js";
import { LABELED, NO_CATEGORY, NO_CONFIDENCE, PointPainter, blend, buildLegend, decodePoints, findBounds, nameCategory, number, readColor } from "./map_view.js";

const TAP_PIXELS = 5;
const PICK_PIXELS = 12;
const ZOOM_STEP = 1.4;
const MANY_POINTS = 20_000;
const SETTLE_MILLISECONDS = 200;

const root = document.querySelector(".map");
const find = (selector) => root.querySelector(selector);
const frame = find(".map-frame"), canvas = find(".map-points"), marks = find(".map-marks"), card = find(".map-card");
const status = find("[role=status]"), open = find(".map-selection a"), clear = find("[name=clear]"), lassoButton = find("[name=lasso]");
const legend = find(".map-legend"), ramp = find(".map-ramp"), colorBy = find("[name=color]");

const painter = new PointPainter(canvas);
const view = { x: 0, y: 0, scale: 1, least: 1 };
const hiddenCategories = new Set();
let points, colors, order, ratio = 1;
let selection = null; // see selectPoints
let shown = -1; // the point that the card shows
let isPinned = false;
let drawing = null; // the vertices of a lasso in progress, in hundredths

// --- Colors and order of points

const isHidden = (i) => hiddenCategories.has(points.category[i]);

function chooseColors() {
  const paper = readColor("--paper"), none = readColor("--muted");
  const series = points.categories.map((category) => readColor(`--series-${category.series}`));
  const [low, middle, high] = ["--series-2", "--series-3", "--series-0"].map(readColor);
  const shade = (share) => (share < 0.5 ? blend(low, middle, Math.round(share * 512)) : blend(middle, high, Math.round(share * 512 - 256)));
  const byConfidence = colorBy.value === "confidence";
  colors = new Uint32Array(points.count);
  for (let i = 0; i < points.count; i++) {
    if (isHidden(i)) continue;
    const confidence = Math.min(points.confidence[i], 100);
    let color = points.category[i] === NO_CATEGORY ? none : series[points.category[i]];
    if (byConfidence) color = points.confidence[i] === NO_CONFIDENCE ? none : shade(confidence / 100);
    if (selection && !selection.chosen[i]) color = blend(paper, color, 60);
    colors[i] = color | 0xff000000;
  }
  // Unsure images on top, so they are not covered by the many sure ones. Likewise selected ones.
  order = Uint32Array.from({ length: points.count }, (_, i) => i);
  if (byConfidence) order.sort((a, b) => points.confidence[b] - points.confidence[a]);
  if (selection) order.sort((a, b) => selection.chosen[a] - selection.chosen[b]);
}

// --- Drawing

let isScheduled = false;
function redraw() {
  if (isScheduled || !painter.image) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    drawPoints();
    drawMarks();
  });
}

function pointRadius() {
  const room = Math.sqrt((canvas.width * canvas.height) / Math.max(points.count, 1));
  const zoomed = Math.min(Math.sqrt(view.scale / view.least), 4);
  return Math.min(Math.max(0.28 * room * zoomed, 0.9 * ratio), 5 * ratio);
}

function drawPoints() {
  painter.paint(points, colors, order, { x: view.x, y: view.y, scale: view.scale * ratio }, pointRadius(), readColor("--paper"));
}

function drawMarks() {
  const context = marks.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, frame.clientWidth, frame.clientHeight);
  const polygon = drawing ?? selection?.polygon;
  if (polygon?.length) {
    context.beginPath();
    for (const [x, y] of polygon) context.lineTo(...toScreen(x, y));
    context.closePath();
    context.strokeStyle = style.getPropertyValue("--accent");
    context.fillStyle = style.getPropertyValue("--accent") + "1a";
    context.lineWidth = 2;
    context.fill("nonzero");
    context.stroke();
  }
  if (shown >= 0) {
    context.beginPath();
    context.arc(...toScreen(points.x[shown], points.y[shown]), pointRadius() / ratio + 4, 0, 2 * Math.PI);
    context.strokeStyle = style.getPropertyValue("--ink");
    context.lineWidth = 2;
    context.stroke();
  }
  placeCard();
}

const toScreen = (x, y) => [
  frame.clientWidth / 2 + (x - view.x) * view.scale,
  frame.clientHeight / 2 - (y - view.y) * view.scale,
];
const toMap = (px, py) => [
  Math.round(view.x + (px - frame.clientWidth / 2) / view.scale),
  Math.round(view.y - (py - frame.clientHeight / 2) / view.scale),
];

function resize(wanted = Math.min(window.devicePixelRatio || 1, 2)) {
  ratio = wanted;
  for (const each of [canvas, marks]) {
    each.width = Math.round(frame.clientWidth * ratio);
    each.height = Math.round(frame.clientHeight * ratio);
  }
  painter.resize(canvas.width, canvas.height);
  redraw();
}

// Many points are drawn with fewer pixels while they move, so the map stays fluid on a screen with small pixels.
let settling = 0;
function coarsen() {
  if (points.count < MANY_POINTS) return;
  if (ratio > 1) resize(1);
  clearTimeout(settling);
  settling = setTimeout(resize, SETTLE_MILLISECONDS);
}

// The smallest scale is the one that shows all points.
function fit() {
  const { left, right, bottom, top } = Object.assign(view, findBounds(points));
  view.least = 0.92 * Math.min(frame.clientWidth / Math.max(right - left, 100), frame.clientHeight / Math.max(top - bottom, 100));
}

function showAll() {
  view.x = (view.left + view.right) / 2;
  view.y = (view.bottom + view.top) / 2;
  view.scale = view.least;
  redraw();
}

function pan(dx, dy) {
  view.x = Math.min(Math.max(view.x - dx / view.scale, view.left), view.right);
  view.y = Math.min(Math.max(view.y + dy / view.scale, view.bottom), view.top);
  coarsen();
  redraw();
}

// Zoom and keep the map under a place of the frame where it is.
function zoom(factor, px = frame.clientWidth / 2, py = frame.clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, view.least / 2), view.least * 200);
  const [dx, dy] = [px - frame.clientWidth / 2, py - frame.clientHeight / 2];
  view.x += dx / view.scale - dx / scale;
  view.y -= dy / view.scale - dy / scale;
  view.scale = scale;
  coarsen();
  redraw();
}

// --- The card of a point

function pick(px, py) {
  const reach = PICK_PIXELS / view.scale;
  const [x, y] = toMap(px, py);
  let [best, found] = [reach * reach, -1];
  for (let i = 0; i < points.count; i++) {
    const dx = points.x[i] - x, dy = points.y[i] - y;
    const distance = dx * dx + dy * dy;
    if (distance <= best && !isHidden(i)) [best, found] = [distance, i];
  }
  return found;
}

function showCard(i, pinned = false) {
  if (i === shown && pinned === isPinned) return;
  shown = i;
  isPinned = pinned && i >= 0;
  card.hidden = i < 0;
  if (i >= 0) {
    const image = document.createElement("img");
    Object.assign(image, { className: "thumbnail", src: root.dataset.thumbnails + points.ids[i], alt: "" });
    const title = document.createElement("b");
    title.textContent = nameCategory(points, points.category[i]);
    const line = document.createElement("span");
    const confidence = points.confidence[i];
    line.textContent = confidence === LABELED ? "Reviewed" : confidence === NO_CONFIDENCE ? "" : `confidence ${confidence} %`;
    card.replaceChildren(image, title, line);
    if (isPinned) {
      const link = document.createElement("a");
      Object.assign(link, { href: root.dataset.image + points.ids[i], textContent: "Open product" });
      card.append(link);
    }
  }
  drawMarks();
}

// Next to its point, inside the frame.
function placeCard() {
  if (shown < 0) return;
  const [px, py] = toScreen(points.x[shown], points.y[shown]);
  const left = px + 16 + card.offsetWidth > frame.clientWidth ? px - 16 - card.offsetWidth : px + 16;
  const top = Math.min(Math.max(py - 40, 4), frame.clientHeight - card.offsetHeight - 4);
  card.style.transform = `translate(${Math.round(Math.max(left, 4))}px, ${Math.round(Math.max(top, 4))}px)`;
}

// --- Selection

function select(polygon) {
  selection = selectPoints(points, polygon);
  if (selection) describeSelection();
  else deselect("No image is in this area.");
}

function describeSelection() {
  const { words, opened, query } = describe(selection, points, hiddenCategories);
  status.textContent = words;
  open.href = `${root.dataset.images}?${query}`;
  open.textContent = `Open ${opened === 1 ? "this image" : `${number(opened)} images`}`;
  open.hidden = !opened;
  clear.hidden = false;
  chooseColors();
  redraw();
}

function deselect(message) {
  selection = drawing = null;
  status.textContent = message ?? `${number(points.count)} images`;
  open.hidden = clear.hidden = true;
  chooseColors();
  redraw();
}

function selectView() {
  const corners = [[0, 0], [frame.clientWidth, 0], [frame.clientWidth, frame.clientHeight], [0, frame.clientHeight]];
  select(corners.map(([px, py]) => toMap(px, py)));
  open.focus();
}

function setLasso(isOn) {
  lassoButton.setAttribute("aria-pressed", isOn);
  frame.classList.toggle("lasso", isOn);
}

// --- Pointers and keys

const pointers = new Map();
let start = null;
const place = (event) => {
  const box = frame.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event));
  start = place(event);
  const isLasso = event.shiftKey || lassoButton.ariaPressed === "true";
  drawing = isLasso && pointers.size === 1 ? [toMap(...start)] : null;
  if (drawing) showCard(-1);
});

canvas.addEventListener("pointermove", (event) => {
  const [px, py] = place(event);
  const last = pointers.get(event.pointerId);
  if (!last) {
    if (!isPinned && event.pointerType === "mouse") showCard(pick(px, py));
    return;
  }
  pointers.set(event.pointerId, [px, py]);
  if (drawing) {
    drawing.push(toMap(px, py));
    redraw();
  } else if (pointers.size === 1) {
    pan(px - last[0], py - last[1]);
  } else {
    const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
    const [before, after] = [last, [px, py]].map(([x, y]) => Math.hypot(x - other[0], y - other[1]));
    zoom(after / Math.max(before, 1), (px + other[0]) / 2, (py + other[1]) / 2);
    pan((px - last[0]) / 2, (py - last[1]) / 2);
    start = null;
  }
});

function release(event) {
  if (!pointers.delete(event.pointerId)) return;
  const [px, py] = place(event);
  const isTap = start && Math.hypot(px - start[0], py - start[1]) < TAP_PIXELS;
  const polygon = drawing;
  drawing = null;
  if (event.type === "pointercancel") redraw();
  else if (polygon && polygon.length > 3) {
    setLasso(false);
    select(polygon);
    if (selection) open.focus();
  } else if (isTap) showCard(pick(px, py), true);
}
canvas.addEventListener("pointerup", release);
canvas.addEventListener("pointercancel", release);
frame.addEventListener("pointerleave", () => {
  if (!isPinned) showCard(-1);
});

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
}, { passive: false });

const STEPS = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
canvas.addEventListener("keydown", (event) => {
  if (STEPS[event.key]) pan(...STEPS[event.key]);
  else if (event.key === "=") zoom(ZOOM_STEP);
  else if (event.key === "Enter") selectView();
  else return;
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !points) return;
  showCard(-1);
  setLasso(false);
  deselect();
});

const ACTIONS = {
  in: () => zoom(ZOOM_STEP),
  out: () => zoom(1 / ZOOM_STEP),
  all: showAll,
  lasso: () => setLasso(lassoButton.ariaPressed !== "true"),
  view: selectView,
  clear: () => deselect(),
};
root.addEventListener("click", (event) => {
  if (points) ACTIONS[event.target.closest("button")?.name]?.();
});

// --- Legend and colors

function showLegend() {
  buildLegend(legend, points, hiddenCategories, () => {
    showCard(-1);
    if (selection) describeSelection();
    else deselect();
  });
}

colorBy.addEventListener("change", () => {
  ramp.hidden = colorBy.value !== "confidence";
  chooseColors();
  redraw();
});

// --- Start

async function load() {
  try {
    const response = await fetch(root.dataset.points);
    if (!response.ok) throw new Error(response.status);
    points = decodePoints(await response.arrayBuffer());
  } catch (error) {
    status.textContent = `The map cannot be loaded (${error.message}). Reload this page.`;
    return;
  }
  showLegend();
  deselect();
  // Also called once at the start.
  new ResizeObserver(() => {
    const isFirst = !painter.image;
    fit();
    resize();
    if (isFirst) showAll();
  }).observe(frame);
  new MutationObserver(() => {
    chooseColors();
    redraw();
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
}
load();

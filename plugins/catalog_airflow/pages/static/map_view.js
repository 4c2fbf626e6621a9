// Parts of the map without interaction: decode the points, draw them, and list categories.

// Decode the response of map/points (see map_page.py). Coordinates are hundredths of a map unit.
export function decodePoints(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const { count, categories } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  const take = (Type) => {
    const column = new Type(buffer, offset, count);
    offset += column.byteLength;
    return column;
  };
  const steps = take(Uint32Array);
  const ids = new Float64Array(count);
  for (let i = 0, id = 0; i < count; i++) ids[i] = id += steps[i];
  return {
    count, categories, ids, x: take(Int16Array), y: take(Int16Array), category: take(Uint16Array), confidence: take(Uint8Array),
  };
}

export const NO_CATEGORY = 65535;
export const NO_CONFIDENCE = 255;
export const LABELED = 101;

export const number = (value) => value.toLocaleString("en-US");
export const nameCategory = (points, category) => (category === NO_CATEGORY ? "not tagged" : points.categories[category].name);

// Colors as the four bytes of a pixel in ImageData.
export function readColor(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return parseInt(value.slice(5, 7) + value.slice(3, 5) + value.slice(1, 3), 16);
}

// Mix two colors. alpha is from 0 to 256. Red and blue are mixed in one multiplication.
export function blend(below, above, alpha) {
  const rest = 256 - alpha;
  const outer = (((below & 0xff00ff) * rest + (above & 0xff00ff) * alpha) >>> 8) & 0xff00ff;
  const green = (((below & 0xff00) * rest + (above & 0xff00) * alpha) >>> 8) & 0xff00;
  return outer | green;
}

// A disc as the offsets of its pixels and how much of each it covers, from 0 to 256.
function makeDisc(radius, stride) {
  const reach = Math.ceil(radius);
  const offsets = [], covers = [];
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
      if (cover > 0.05) {
        offsets.push(dy * stride + dx);
        covers.push(Math.round(cover * 256));
      }
    }
  }
  return { reach, offsets: Int32Array.from(offsets), covers: Uint16Array.from(covers) };
}

// Write points straight into pixels. Without a GPU this is several times faster than drawing shapes, and than WebGL.
export class PointPainter {
  constructor(canvas) {
    this.context = canvas.getContext("2d", { alpha: false });
  }

  resize(width, height) {
    this.image = this.context.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  // colors has one color for each point, or 0 for a hidden one.
  paint(points, colors, order, view, radius, paper) {
    const { width, height } = this.image;
    const { pixels } = this;
    const { offsets, covers, reach } = makeDisc(radius, width);
    const { x, y } = points;
    const scale = view.scale;
    const left = width / 2 - view.x * scale, top = height / 2 + view.y * scale;
    const right = width - reach - 1, bottom = height - reach - 1;
    pixels.fill(paper | 0xff000000);
    for (let k = 0; k < order.length; k++) {
      const i = order[k];
      const color = colors[i];
      if (!color) continue;
      const px = (left + x[i] * scale) | 0, py = (top - y[i] * scale) | 0;
      if (px < reach || py < reach || px > right || py > bottom) continue;
      const at = py * width + px;
      for (let j = 0; j < offsets.length; j++) {
        const here = at + offsets[j];
        const cover = covers[j];
        pixels[here] = 0xff000000 | (cover === 256 ? color : blend(pixels[here], color, cover));
      }
    }
    this.context.putImageData(this.image, 0, 0);
  }
}

export function findBounds({ count, x, y }) {
  let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < count; i++) {
    left = Math.min(left, x[i]);
    right = Math.max(right, x[i]);
    bottom = Math.min(bottom, y[i]);
    top = Math.max(top, y[i]);
  }
  return { left, right, bottom, top };
}

// Fill the list of categories. Its buttons change which are hidden, and then call onChange.
export function buildLegend(list, points, hidden, onChange) {
  const counts = new Map();
  for (let i = 0; i < points.count; i++) counts.set(points.category[i], (counts.get(points.category[i]) ?? 0) + 1);
  const numbers = [...points.categories.keys(), NO_CATEGORY].filter((category) => counts.has(category));
  const update = () => {
    [...list.children].forEach((item, k) => { item.firstChild.ariaPressed = String(!hidden.has(numbers[k])); });
    onChange();
  };
  for (const category of numbers) {
    const button = document.createElement("button");
    const swatch = document.createElement("i");
    swatch.className = category === NO_CATEGORY ? "swatch untagged" : `swatch series-${points.categories[category].series}`;
    const count = document.createElement("span");
    count.textContent = number(counts.get(category));
    button.type = "button";
    button.ariaPressed = "true";
    button.title = "Show or hide. Double-click: show only this category";
    button.append(swatch, nameCategory(points, category), count);
    button.addEventListener("click", () => {
      if (!hidden.delete(category)) hidden.add(category);
      update();
    });
    button.addEventListener("dblclick", () => {
      for (const other of numbers) hidden.add(other);
      hidden.delete(category);
      update();
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}

// The selection on the map: find the points in a polygon, describe them, and make the query that opens them in the grid.
import { NO_CATEGORY, nameCategory, number } from "./map_view.js";

const MAX_VERTICES = 40;
const OUTSIDE = 32768; // in hundredths, just outside of all points, so clamping loses none at the edge
const MAX_NAMES = 3;

// Select the points in a polygon, also hidden ones, which can be shown later. Return null if there is none. Otherwise,
// chosen has a flag for each point, and counts the number of chosen points of each category.
export function selectPoints(points, polygon) {
  const clamp = (value) => Math.min(Math.max(value, -OUTSIDE), OUTSIDE);
  const vertices = simplify(polygon.map((vertex) => vertex.map(clamp)), MAX_VERTICES);
  const chosen = new Uint8Array(points.count);
  const counts = new Map();
  for (let i = 0; i < points.count; i++) {
    if (!contains(vertices, points.x[i], points.y[i])) continue;
    chosen[i] = 1;
    counts.set(points.category[i], (counts.get(points.category[i]) ?? 0) + 1);
  }
  return counts.size ? { polygon: vertices, chosen, counts } : null;
}

// Describe the visible points of a selection. opened is the number of images in the grid, or 0 if none is visible.
export function describe({ polygon, counts }, points, hiddenCategories) {
  const sum = (entries) => entries.reduce((total, [, count]) => total + count, 0);
  const visible = [...counts].filter(([category]) => !hiddenCategories.has(category)).sort((a, b) => b[1] - a[1]);
  const total = sum(visible);
  if (!total) return { words: "All images in this area are hidden.", opened: 0, query: "" };
  const names = visible.slice(0, MAX_NAMES).map(([category, count]) => `${number(count)} ${nameCategory(points, category)}`);
  if (visible.length > MAX_NAMES) names.push("…");
  let words = `${number(total)} ${total === 1 ? "image" : "images"} selected: ${names.join(", ")}`;
  const query = new URLSearchParams({ area: polygon.map(([x, y]) => `${x / 100},${y / 100}`).join(";") });
  // The grid filters by at most one category, and not by a missing one.
  if (visible.length === 1 && visible[0][0] !== NO_CATEGORY) {
    query.set("category", nameCategory(points, visible[0][0]));
    return { words, opened: total, query };
  }
  const opened = sum([...counts]);
  if (opened > total) words += `. The grid also shows ${number(opened - total)} of hidden categories.`;
  return { words, opened, query };
}

// Keep the vertices that shape a polygon most: remove the one with the smallest triangle until few enough are left.
function simplify(polygon, limit) {
  const kept = polygon.slice();
  const area = (k) => {
    const n = kept.length;
    const [a, b, c] = [kept[(k + n - 1) % n], kept[k], kept[(k + 1) % n]];
    return Math.abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1]));
  };
  while (kept.length > limit) {
    let least = 0;
    for (let k = 1, best = area(0); k < kept.length; k++) {
      const value = area(k);
      if (value < best) [best, least] = [value, k];
    }
    kept.splice(least, 1);
  }
  return kept;
}

// Whether a polygon winds around a point, which is how Postgres decides too.
function contains(polygon, x, y) {
  let winding = 0;
  for (let k = 0, last = polygon.length - 1; k < polygon.length; last = k++) {
    const [ax, ay] = polygon[last], [bx, by] = polygon[k];
    if (ay <= y !== by <= y) {
      const side = (bx - ax) * (y - ay) - (x - ax) * (by - ay);
      if (by > ay && side > 0) winding++;
      else if (by < ay && side < 0) winding--;
    }
  }
  return winding !== 0;
}

// Select images: the boxes of a grid, ranges with Shift, x for the image under the pointer or with the focus.
import { findTopDialog, isShortcut } from "./dialogs.js";
import { listVisible, showSelection } from "./needs.js";

let hovered = null;
let lastBox = null;
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse") hovered = event.target.closest("[data-image]");
});

// The image that a shortcut is meant for: the zoomed one, else that with the focus, else that under the pointer.
export function findCurrent() {
  const zoomed = document.querySelector(".is-zoomed");
  return zoomed ?? document.activeElement.closest("[data-image]") ?? (hovered?.isConnected ? hovered : null);
}

document.addEventListener("click", (event) => {
  if (!event.target.matches(".pick input")) return;
  const box = event.target;
  const boxes = listVisible(`.pick input[name="${box.name}"]`);
  const [from, to] = [boxes.indexOf(lastBox), boxes.indexOf(box)].sort((one, other) => one - other);
  if (event.shiftKey && from >= 0) for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
  lastBox = box;
  showSelection();
});
// A click with Shift would also select the text between the images.
document.addEventListener("mousedown", (event) => {
  const pick = event.target.closest(".pick");
  if (!event.shiftKey || !pick) return;
  event.preventDefault();
  pick.querySelector("input").focus();
});

document.addEventListener("keydown", (event) => {
  if (!isShortcut(event) || findTopDialog()) return;
  const card = findCurrent();
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === "x" && card) card.querySelector(".pick input")?.click();
  if (event.key === "Escape") {
    for (const box of document.querySelectorAll(".pick input:checked")) box.checked = false;
    showSelection();
  }
  // Elsewhere, the arrow keys scroll.
  const isFree = document.activeElement.matches("body, main") || document.activeElement.closest("[data-image]");
  if (!step || event.shiftKey || !isFree) return;
  const links = listVisible("[data-image] [data-zoom]");
  if (links.length === 0) return;
  event.preventDefault();
  const next = card ? links.indexOf(card.querySelector("[data-zoom]")) + step : 0;
  links[Math.min(Math.max(next, 0), links.length - 1)].focus();
});

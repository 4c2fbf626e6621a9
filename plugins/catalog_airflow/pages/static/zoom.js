// Zoom images in place: click or z, then the arrow keys, the buttons or a swipe.
import { findTopDialog, isShortcut } from "./dialogs.js";
import { listVisible } from "./needs.js";
import { findCurrent } from "./selection.js";

const dialog = document.getElementById("zoom");
const listLinks = () => listVisible("[data-zoom]");
let shown = null;

function show(link) {
  const links = listLinks();
  const place = links.indexOf(link);
  mark(link);
  dialog.querySelector("img").src = link.href;
  dialog.querySelector("img").alt = link.querySelector("img").alt;
  dialog.querySelector("[data-caption]").textContent = link.querySelector("img").alt;
  dialog.querySelector("[data-place]").textContent = `${place + 1} of ${links.length}`;
  for (const button of dialog.querySelectorAll("[data-step]")) {
    button.disabled = !links[place + Number(button.dataset.step)];
  }
  // Load the next one while the person looks at this one.
  if (links[place + 1]) new Image().src = links[place + 1].href;
  if (!dialog.open) dialog.showModal();
}

function mark(link) {
  shown?.closest("[data-image]")?.classList.remove("is-zoomed");
  shown = link;
  shown?.closest("[data-image]")?.classList.add("is-zoomed");
}

function step(by) {
  const links = listLinks();
  const next = links[links.indexOf(shown) + by];
  if (next) show(next);
}

if (dialog) {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-zoom]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) {
      event.preventDefault();
      show(link);
    }
    const button = event.target.closest("#zoom [data-step]");
    if (button) step(Number(button.dataset.step));
    if (event.target.matches("#zoom img")) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    if (!isShortcut(event)) return;
    const isTop = findTopDialog() === dialog;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (isTop && by) step(by);
    else if (isTop && event.key === "z") dialog.close();
    else if (event.key === "z" && !findTopDialog()) {
      const link = findCurrent()?.querySelector("[data-zoom]") ?? listLinks()[0];
      if (link) show(link);
    }
  });
  let startX = null;
  dialog.addEventListener("touchstart", (event) => (startX = event.touches[0].clientX), { passive: true });
  dialog.addEventListener("touchend", (event) => {
    const moved = event.changedTouches[0].clientX - startX;
    if (Math.abs(moved) > 50) step(moved < 0 ? 1 : -1);
  });
  dialog.addEventListener("close", () => {
    const link = shown;
    mark(null);
    dialog.querySelector("img").removeAttribute("src");
    if (link?.isConnected) link.focus();
  });
}

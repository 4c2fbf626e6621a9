// Correct tags in place: a menu for one image or the selected ones, and forms that replace only the grid.
import { isShortcut } from "./dialogs.js";
import { listSelected, showSelection } from "./needs.js";
import { findCurrent } from "./selection.js";

const MAX_SHOWN = 12;

// Open the menu for an image, or for all selected ones if it is one of them or none is given.
function openMenu(card) {
  const menu = document.getElementById("correct");
  let cards = listSelected("image").map((box) => box.closest("[data-image]"));
  if (card && !cards.includes(card)) cards = [card];
  if (!menu || cards.length === 0 || !cards[0].dataset.suggestions) return;
  const form = menu.querySelector("form");
  form.querySelectorAll("input[name=image]").forEach((input) => input.remove());
  for (const each of cards) form.prepend(makeElement("input", { type: "hidden", name: "image", value: each.dataset.image }));
  const images = cards.slice(0, MAX_SHOWN).map((each) => each.querySelector("img").cloneNode());
  menu.querySelector("[data-corrected]").replaceChildren(...images);
  const suggestions = cards.length === 1 ? JSON.parse(cards[0].dataset.suggestions) : [];
  const buttons = suggestions.map((category, place) => {
    const button = makeElement("button", { name: "answer", value: category });
    button.dataset.key = place + 1;
    const key = makeElement("kbd", { textContent: place + 1 });
    button.append(key, ` ${category}`);
    return button;
  });
  menu.querySelector("[data-suggested]").replaceChildren(...buttons);
  menu.querySelector("h2").textContent = cards.length === 1 ? "What is this?" : `What are these ${cards.length} images?`;
  menu.showModal();
}

function makeElement(name, properties) {
  return Object.assign(document.createElement(name), properties);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-correct]");
  if (button) openMenu(button.closest("[data-image]"));
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "e" || !isShortcut(event) || document.querySelector("dialog[open]:not(#zoom)")) return;
  const zoomed = document.querySelector(".is-zoomed");
  openMenu(zoomed ?? (listSelected("image").length ? null : findCurrent()));
});

// data-swap: send a form without leaving the page, and take over the images of the response.
document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (event.defaultPrevented || !("swap" in form.dataset)) return;
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(form, event.submitter));
  try {
    const response = await fetch(form.action, { method: "POST", body: fields });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (response.ok) takeOver(page, response.url);
    else report(page.querySelector(".notice")?.textContent ?? "The server refused this.");
  } catch {
    report("The server is unavailable. Try again.");
  }
  delete form.dataset.sent;
  form.removeAttribute("aria-busy");
});

function takeOver(page, address) {
  const [old, fresh] = [document, page].map((one) => [...one.querySelectorAll("ul.grid, #corrections, [data-live]")]);
  if (old.length !== fresh.length) {
    location.assign(address);
    return;
  }
  // Closing gives the focus back to the image, which is about to be replaced.
  document.getElementById("correct").close();
  document.getElementById("zoom").close();
  const focused = findCurrent()?.dataset.image;
  old.forEach((part, place) => part.replaceWith(fresh[place]));
  history.replaceState(null, "", address);
  showSelection();
  const next = document.querySelector(`[data-image="${focused}"] [data-zoom]`) ?? document.querySelector("[data-key=u]");
  next?.focus({ preventScroll: true });
}

function report(message) {
  document.getElementById("correct").close();
  const corrections = document.getElementById("corrections");
  corrections.querySelector(".notice")?.remove();
  const notice = makeElement("p", { className: "notice bad", textContent: message });
  notice.setAttribute("role", "alert");
  corrections.prepend(notice);
  corrections.classList.add("sticky");
}

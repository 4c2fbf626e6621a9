// Buttons that act on checked boxes.
const selectBoxes = (name) => `input[type=checkbox][name="${CSS.escape(name)}"]`;

export const listSelected = (name) => [...document.querySelectorAll(`${selectBoxes(name)}:checked`)];

// The elements outside closed details, in the part of the page if one is given.
export const listVisible = (selector, part = document) =>
  [...part.querySelectorAll(selector)].filter((element) => element.checkVisibility());

// data-needs: disable the button until a box of that name is checked.
// data-count: show how many boxes of that name are checked, and mark the form as active.
// data-needs-hint: show this text until a box of that name is checked.
export function showSelection() {
  for (const button of document.querySelectorAll("[data-needs]")) {
    button.disabled = listSelected(button.dataset.needs).length === 0;
    button.title = button.disabled ? "Select images first" : "";
  }
  for (const text of document.querySelectorAll("[data-count]")) {
    const selected = listSelected(text.dataset.count).length;
    text.textContent = selected ? `${selected} selected` : "selected";
    text.closest("form").classList.toggle("is-active", selected > 0);
  }
  for (const hint of document.querySelectorAll("[data-needs-hint]")) {
    hint.hidden = listSelected(hint.dataset.needsHint).length > 0;
  }
}

// data-check: check all visible boxes of that name, or uncheck them if all are checked.
// data-own: only the boxes in this part of the page, if there is one.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-check]");
  if (!button) return;
  const boxes = listVisible(selectBoxes(button.dataset.check), document.querySelector("[data-own]") ?? document);
  const all = boxes.every((box) => box.checked);
  for (const box of boxes) box.checked = !all;
  showSelection();
});

document.addEventListener("change", showSelection);
// After the user goes back to this page, the browser restores its boxes.
window.addEventListener("pageshow", showSelection);
showSelection();

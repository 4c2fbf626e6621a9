// Buttons that act on checked boxes.
const boxesOf = (name) => [...document.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)];

// data-needs: disable the button until a box of that name is checked.
// data-count: show how many boxes of that name are checked, in the text of a button.
// data-needs-hint: show this text until a box of that name is checked.
const showSelection = () => {
  const count = (name) => boxesOf(name).filter((box) => box.checked).length;
  for (const button of document.querySelectorAll("[data-needs]")) button.disabled = count(button.dataset.needs) === 0;
  for (const text of document.querySelectorAll("[data-count]")) {
    const checked = count(text.dataset.count);
    text.textContent = checked ? `${checked} selected` : "selected";
  }
  for (const hint of document.querySelectorAll("[data-needs-hint]")) hint.hidden = count(hint.dataset.needsHint) > 0;
};

// data-check: check all boxes of that name, or uncheck them if all are checked.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-check]");
  if (!button) return;
  const boxes = boxesOf(button.dataset.check);
  const all = boxes.every((box) => box.checked);
  for (const box of boxes) {
    box.checked = !all;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  }
});

document.addEventListener("change", showSelection);
// After the user goes back to this page, the browser restores its boxes.
window.addEventListener("pageshow", showSelection);
showSelection();

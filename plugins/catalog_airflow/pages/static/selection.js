// Buttons that act on checked boxes.
const boxesOf = (name) => [...document.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)];

// data-needs: disable the button until a box of that name is checked, and append their number to its text.
// data-needs-hint: show this text instead, until then.
const showSelection = () => {
  for (const button of document.querySelectorAll("[data-needs]")) {
    const checked = boxesOf(button.dataset.needs).filter((box) => box.checked).length;
    button.disabled = checked === 0;
    let count = button.querySelector(".count");
    if (!count) {
      count = document.createElement("span");
      count.className = "count";
      button.append(count);
    }
    count.textContent = checked ? ` (${checked})` : "";
  }
  for (const hint of document.querySelectorAll("[data-needs-hint]")) {
    hint.hidden = boxesOf(hint.dataset.needsHint).some((box) => box.checked);
  }
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

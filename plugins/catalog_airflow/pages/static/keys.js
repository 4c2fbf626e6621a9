// What bears data-key is pressed, or given the focus, by that key, unless somebody is writing.
document.addEventListener("keydown", (event) => {
  // A key that is held down must not answer the next page, too.
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const writes = event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select");
  if (writes) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const target = document.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input, select, textarea")) target.focus();
  else target.click();
});

// A form is sent once, and says that it is on its way.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  form.setAttribute("aria-busy", "true");
});

// Back from another page, a form may be sent again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

// What bears data-copy puts the text of another element into the clipboard, or selects it where that is forbidden.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  source.select();
  try {
    await navigator.clipboard.writeText(source.value);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Selected: copy it now";
  }
});

// What bears data-check checks all boxes of that name, or none if all were checked.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-check]");
  if (!button) return;
  const boxes = [...document.querySelectorAll(`input[type=checkbox][name="${CSS.escape(button.dataset.check)}"]`)];
  const all = boxes.every((box) => box.checked);
  for (const box of boxes) box.checked = !all;
});

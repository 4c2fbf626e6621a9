// Open dialogs by data-dialog, and close them by data-close or a click next to them. Other scripts import the rest.

// Whether a key is meant as a shortcut: nobody is typing, and the key is not held down, which would also act on the next page.
export function isShortcut(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return false;
  return !event.target.closest("input:not([type=checkbox]):not([type=radio]), textarea, select");
}

export const findTopDialog = () => [...document.querySelectorAll("dialog[open]")].at(-1) ?? null;

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog]");
  if (opener) document.getElementById(opener.dataset.dialog).showModal();
  else if (event.target.closest("[data-close]") || event.target.matches("dialog")) event.target.closest("dialog").close();
});

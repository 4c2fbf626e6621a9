// Shortcuts, forms that are sent once, copying, and live progress.
import { findTopDialog, isShortcut } from "./dialogs.js";

// On a narrow screen, the navigation is one line that scrolls.
document.querySelector("nav.pages [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A key clicks or focuses the element with that data-key, unless the user is typing.
document.addEventListener("keydown", (event) => {
  if (!isShortcut(event)) {
    if (event.key === "Escape" && event.target.matches("input, textarea, select")) event.target.blur();
    return;
  }
  // In an open dialog, only its own keys work.
  const scope = findTopDialog() ?? document;
  const target = scope.querySelector(`[data-key="${CSS.escape(event.key)}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input, select, textarea")) target.focus();
  else target.click();
});

// Send a form only once, and show it as busy until the response.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  form.setAttribute("aria-busy", "true");
});

// After the user goes back to this page, its forms can be sent again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.removeAttribute("aria-busy");
  }
});

// data-copy: copy the text of another element, or select it if the clipboard is not available.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.querySelector(button.dataset.copy);
  source.select();
  try {
    await navigator.clipboard.writeText(source.value);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Selected. Press Ctrl+C";
  }
});

// data-reload: reload the window around the pages, in which Airflow asks for the login.
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-reload]")) window.top.location.reload();
});

// data-progress: reload the section from that address, every 3 seconds while a job runs, otherwise every 15.
for (const section of document.querySelectorAll("[data-progress]")) {
  const refresh = async () => {
    // Do not reload while a link in it has the focus, which would be lost.
    if (!document.hidden && !section.contains(document.activeElement)) {
      try {
        const response = await fetch(section.dataset.progress);
        if (response.ok) section.innerHTML = await response.text();
      } catch {
        // The server is unavailable. The next attempt may succeed.
      }
    }
    schedule();
  };
  const schedule = () => setTimeout(refresh, section.childElementCount ? 3000 : 15000);
  schedule();
}

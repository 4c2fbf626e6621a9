// data-copy-link: copy the address of the link, or show it in a field if the clipboard is not available.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("[data-copy-link]");
  if (!link) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText(link.href);
    link.textContent = "Link copied";
  } catch {
    const field = document.createElement("input");
    field.readOnly = true;
    field.value = link.href;
    field.setAttribute("aria-label", "Link to this view");
    link.replaceWith(field);
    field.select();
  }
});

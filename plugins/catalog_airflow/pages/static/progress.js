// What bears data-progress is loaded again from that address: every 3 seconds while a job runs, else every 15.
for (const section of document.querySelectorAll("[data-progress]")) {
  const refresh = async () => {
    // Not under somebody's hands: a link that has the focus would lose it.
    if (!document.hidden && !section.contains(document.activeElement)) {
      try {
        const answer = await fetch(section.dataset.progress);
        if (answer.ok) section.innerHTML = await answer.text();
      } catch {
        // The server is away; the next attempt may find it.
      }
    }
    plan();
  };
  const plan = () => setTimeout(refresh, section.childElementCount ? 3000 : 15000);
  plan();
}

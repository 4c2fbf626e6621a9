// The pages follow Airflow's theme: that of the window around them, or the one that it keeps for this browser.
(() => {
  const root = document.documentElement;
  const outer = (() => {
    try {
      return window.parent !== window ? window.parent.document.documentElement : null;
    } catch {
      return null;
    }
  })();

  const choose = () => {
    if (outer) return outer.classList.contains("dark") ? "dark" : "light";
    const kept = localStorage.getItem("theme");
    if (kept === "dark" || kept === "light") return kept;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  };
  const apply = () => {
    root.dataset.theme = choose();
  };

  apply();
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
})();

// Follow Airflow's theme: from the surrounding window, or as stored in this browser.
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
    const stored = localStorage.getItem("theme");
    if (stored === "dark" || stored === "light") return stored;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  };
  const apply = () => {
    root.dataset.theme = choose();
  };

  apply();
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
})();

/* Names that the theme leaves out or contradicts (axe: label-content-name-mismatch, region, scrollable-region-focusable). */
(() => {
  function mend() {
    document.querySelectorAll('summary[aria-label="Toggle hidden content"]').forEach((e) => e.removeAttribute("aria-label"));
    document.querySelectorAll(".search-button-field").forEach((e) => e.removeAttribute("aria-label"));
    const home = document.querySelector(".navbar-brand")?.closest(".sidebar-primary-item");
    home?.setAttribute("role", "navigation");
    home?.setAttribute("aria-label", "Home");
    document.querySelectorAll("div.highlight pre, div.output pre, mjx-container[display=true], table").forEach((e) => {
      if (e.scrollWidth > e.clientWidth) e.tabIndex = 0;
    });
  }
  addEventListener("load", mend);
})();

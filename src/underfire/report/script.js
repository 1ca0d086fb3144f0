"use strict";
{
  const toolbar = document.querySelector(".toolbar");
  const cards = document.getElementById("cards");

  const fade = () => {
    const { value } = document.getElementById("opacity");
    document.documentElement.style.setProperty("--opacity", value / 100);
    document.querySelector("output[for=opacity]").value = `${value} %`;
  };

  const sort = () => {
    const [key, sign] = document.getElementById("sort").value.split(":");
    const compare = key === "id"
      ? (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true })
      : (a, b) => sign * (a.dataset[key] - b.dataset[key]);
    cards.append(...[...cards.children].sort(compare));
  };

  const filter = () => {
    const filters = [...toolbar.querySelectorAll("[data-filter]")].filter((select) => select.value);
    for (const card of cards.children) {
      card.hidden = filters.some((select) => card.dataset[select.dataset.filter] !== select.value);
    }
    const shown = [...cards.children].filter((card) => !card.hidden).length;
    document.getElementById("count").textContent = `${shown} of ${cards.children.length} cards`;
  };

  if (toolbar) {
    document.getElementById("opacity").addEventListener("input", fade);
    document.getElementById("sort").addEventListener("change", sort);
    toolbar.querySelectorAll("[data-filter]").forEach((select) => select.addEventListener("change", filter));
    toolbar.hidden = false;
    fade();
    sort();
    filter();
  }
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
  });
}

// All maps of one image: its cards, for as long as the page's address ends in #image=ID.
const viewer = document.getElementById("viewer");
const ADDRESS = "#image=";
const addressOf = (id) => ADDRESS + encodeURIComponent(id);

const addressed = () => {
  if (!location.hash.startsWith(ADDRESS)) return null;
  try {
    return decodeURIComponent(location.hash.slice(ADDRESS.length));
  } catch {
    return null;
  }
};

const idsOf = (chosen) => [...new Set(chosen.map((card) => card.dataset.id))];

// In the order of the gallery, those that its filter leaves; all of them where it hides the one on display.
const sequence = (id) => {
  const all = [...cards.children];
  const left = idsOf(all.filter((card) => !card.hidden));
  return left.includes(id) ? left : idsOf(all);
};

const copyOf = (card) => {
  const copy = card.cloneNode(true);
  copy.hidden = false;
  copy.querySelector("h3 a").remove();
  copy.querySelectorAll("details").forEach((details) => { details.open = true; });
  return copy;
};

const plain = (card) => {
  const picture = card.querySelector(".picture").cloneNode(true);
  picture.querySelector(".heat")?.remove();
  picture.setAttribute("aria-label", `benign picture of ${card.dataset.id}`);
  return picture;
};

const view = () => {
  const id = addressed();
  const interpreters = [...toolbar.elements.interpreter.options].map((option) => option.value);
  const rank = (card) => interpreters.indexOf(card.dataset.interpreter);
  const found = [...cards.children].filter((card) => card.dataset.id === id).sort((a, b) => rank(a) - rank(b));
  if (!found.length) {
    viewer.close();
    return;
  }
  const ids = sequence(id);
  const place = document.createElement("small");
  place.textContent = `image ${ids.indexOf(id) + 1} of ${ids.length}`;
  document.getElementById("viewer-title").replaceChildren(id, " ", place);
  viewer.querySelector(".plain .picture")?.remove();
  viewer.querySelector(".plain").prepend(plain(found[0]));
  viewer.querySelector(".sheet").replaceChildren(...found.map(copyOf));
  viewer.scrollTop = 0;
  if (!viewer.open) viewer.showModal();
};

const step = (by) => {
  const ids = sequence(addressed());
  const next = (ids.indexOf(addressed()) + by + ids.length) % ids.length;
  history.replaceState(null, "", addressOf(ids[next]));
  view();
};

cards.addEventListener("click", (event) => {
  const link = event.target.closest(".picture")?.closest(".card").querySelector("h3 a");
  link?.focus({ preventScroll: true });
  link?.click();
});
viewer.addEventListener("click", (event) => {
  const button = event.target.closest("header button[value]");
  if (button) step(Number(button.value));
});
viewer.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, .scroll")) return;
  event.preventDefault();
  step(by);
});
viewer.addEventListener("close", () => {
  if (addressed() !== null) history.replaceState(null, "", location.pathname + location.search);
});
addEventListener("hashchange", view);
view();

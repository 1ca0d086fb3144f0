// One image with its numbers unfolded, for as long as the page's address ends in #image=ID.
const viewer = document.getElementById("viewer");

const addressed = () => new URLSearchParams(location.hash.slice(1)).get("image");
const addressOf = (id) => `#image=${encodeURIComponent(id)}`;

// In the order of the gallery, those that its filter leaves; all of them where it hides the one on display.
const sequence = (id) => {
  const left = ordered.map((card) => card.id);
  return left.includes(id) ? left : data.cards.map((card) => card.id);
};

const view = () => {
  const id = addressed();
  const card = data.cards.find((each) => each.id === id);
  if (!card) {
    viewer.close();
    return;
  }
  const ids = sequence(id);
  const place = make("small", {}, `image ${ids.indexOf(id) + 1} of ${ids.length}`);
  document.getElementById("viewer-title").replaceChildren(id, " ", place);
  viewer.querySelector(".sheet").replaceChildren(classesOf(card), picturesOf(card), ...numbersOf(card));
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
  const link = event.target.closest(".maps .picture")?.closest(".card").querySelector("h3 a");
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

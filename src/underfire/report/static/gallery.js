// The gallery's toolbar: how strongly maps are drawn, which images are shown in which order, twelve at a time.
const AT_ONCE = 12;
const toolbar = document.querySelector(".toolbar");
const cards = document.getElementById("cards");
const more = document.getElementById("more");
const faders = document.querySelectorAll(".fader");
let ordered = []; // what the filter leaves, in the order of the sorting

const fade = (value) => {
  document.documentElement.style.setProperty("--opacity", value / 100);
  for (const fader of faders) {
    fader.value = value;
    fader.nextElementSibling.value = `${value} %`;
  }
};

// The outcomes by which a card is judged.
const judged = (card, { attack, interpreter }) =>
  card.rows.filter((row) => row.attack.name === attack && (!interpreter || row.interpreter.name === interpreter));

const passes = (row, ending) => !ending || (ending === "deceived" ? deceiving.has(row.ending) : row.ending === ending);
const mean = (rows) => rows.reduce((sum, row) => sum + row.l1, 0) / rows.length;
const byName = (a, b) => a.id.localeCompare(b.id, undefined, { numeric: true });

const sorted = (chosen, { sort, ...wanted }) => {
  if (sort === "typical") return chosen;
  if (sort === "id") return chosen.sort(byName);
  const sign = Number(sort.split(":")[1]);
  const distance = new Map(chosen.map((card) => [card, mean(judged(card, wanted))]));
  return chosen.sort((a, b) => sign * (distance.get(a) - distance.get(b)) || byName(a, b));
};

const show = (count) => {
  const from = cards.children.length;
  cards.append(...ordered.slice(from, from + count).map(cardOf));
  const left = ordered.length - cards.children.length;
  more.hidden = left === 0;
  more.firstElementChild.textContent = `Show ${Math.min(AT_ONCE, left)} more of ${left}`;
  document.getElementById("count").textContent = `${cards.children.length} of ${ordered.length} images`;
};

const arrange = () => {
  const wanted = Object.fromEntries(new FormData(toolbar));
  ordered = sorted(data.cards.filter((card) => judged(card, wanted).some((row) => passes(row, wanted.ending))), wanted);
  cards.replaceChildren();
  show(AT_ONCE);
};

// Links in the page name the images they mean by attack, interpreter and ending.
const followed = () => {
  const named = new URLSearchParams(location.hash.slice(1));
  if (!named.has("ending")) return;
  for (const name of ["attack", "interpreter", "ending"]) toolbar.elements[name].value = named.get(name) ?? "";
  arrange();
  document.getElementById("gallery").scrollIntoView();
};

faders.forEach((fader) => fader.addEventListener("input", () => fade(fader.value)));
toolbar.addEventListener("change", (event) => { if (event.target.matches("select")) arrange(); });
toolbar.addEventListener("submit", (event) => event.preventDefault());
toolbar.addEventListener("reset", () => setTimeout(arrange));
more.firstElementChild.addEventListener("click", () => {
  const next = cards.children.length;
  show(AT_ONCE);
  cards.children[next].querySelector("h3 a").focus();
});
addEventListener("hashchange", followed);
toolbar.hidden = false;
arrange();
followed();

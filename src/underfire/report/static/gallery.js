// The gallery's toolbar: how strongly maps are drawn, and which cards are shown in which order.
const toolbar = document.querySelector(".toolbar");
const cards = document.getElementById("cards");
const faders = document.querySelectorAll(".fader");

const fade = (value) => {
  document.documentElement.style.setProperty("--opacity", value / 100);
  for (const fader of faders) {
    fader.value = value;
    fader.nextElementSibling.value = `${value} %`;
  }
};

const panelOf = (card, attack) => [...card.querySelectorAll("[data-attack]")].find((each) => each.dataset.attack === attack);
const byName = (a, b) => a.dataset.id.localeCompare(b.dataset.id, undefined, { numeric: true });

const arrange = () => {
  const { sort, attack, interpreter, ...wanted } = Object.fromEntries(new FormData(toolbar));
  const [key, sign] = sort.split(":");
  const found = new Map([...cards.children].map((card) => [card, panelOf(card, attack)?.dataset ?? {}]));
  const rank = (card) => Number(found.get(card)[key] ?? NaN);
  const compare = (a, b) => isNaN(rank(a)) - isNaN(rank(b)) || sign * (rank(a) - rank(b)) || byName(a, b);
  cards.append(...[...found.keys()].sort(key === "id" ? byName : compare));
  for (const [card, judged] of found) {
    const passes = ([name, value]) => !value || judged[name] === value;
    card.hidden = !Object.entries(wanted).every(passes) || (interpreter !== "" && card.dataset.interpreter !== interpreter);
  }
  const shown = [...cards.children].filter((card) => !card.hidden).length;
  document.getElementById("count").textContent = `${shown} of ${cards.children.length} cards`;
};

faders.forEach((fader) => fader.addEventListener("input", () => fade(fader.value)));
toolbar.addEventListener("change", arrange);
toolbar.addEventListener("submit", (event) => event.preventDefault());
toolbar.addEventListener("reset", () => setTimeout(arrange));
toolbar.hidden = false;
arrange();

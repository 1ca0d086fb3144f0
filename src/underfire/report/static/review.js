// Blinded review: the reader tells attacked maps from benign ones without knowing which is which.
const review = document.getElementById("review");
const offer = document.getElementById("offer");
const setup = review.querySelector(".setup");
const item = review.querySelector(".item");
const score = review.querySelector(".score");
let shown = []; // the panels to be judged, in their order
let answers = []; // of the first of them
let since = 0;

// Marsaglia's xorshift: whole numbers below a bound, the same in every browser.
const drawing = (seed) => {
  let state = Math.imul(seed + 1, 0x9e3779b1) || 1;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
};

const shuffled = (list, draw) => {
  const mixed = [...list];
  for (let last = mixed.length - 1; last > 0; last--) {
    const other = draw(last + 1);
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
};

const cardOf = (panel) => panel.closest(".card").dataset;
const isAttacked = (panel) => panel.dataset.attack !== "benign";
const hasMap = (panel) => panel?.querySelector(".heat");
const successes = (card) => [...card.querySelectorAll("[data-success=true]")].filter(hasMap);

// Cards with something to tell apart, in an order that neither sorting nor filtering changes.
const pool = [...cards.children]
  .filter((card) => hasMap(panelOf(card, "benign")) && successes(card).length)
  .map((card) => [JSON.stringify([card.dataset.id, card.dataset.interpreter]), card])
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([, card]) => card);

// One panel of each card: half of them benign, the others of each attack about equally often.
const choose = (count, seed) => {
  const draw = drawing(seed);
  const half = Math.floor(Math.min(count, pool.length) / 2);
  const chosen = shuffled(pool, draw).slice(0, 2 * half);
  const times = {};
  const attacked = chosen.slice(half).map((card) => {
    const least = (a, b) => (times[a.dataset.attack] ?? 0) - (times[b.dataset.attack] ?? 0);
    const [panel] = shuffled(successes(card), draw).sort(least);
    times[panel.dataset.attack] = (times[panel.dataset.attack] ?? 0) + 1;
    return panel;
  });
  return shuffled([...chosen.slice(0, half).map((card) => panelOf(card, "benign")), ...attacked], draw);
};

const turnTo = (part) => {
  for (const each of [setup, item, score]) each.hidden = each !== part;
  if (!review.contains(document.activeElement) || document.activeElement.closest("[hidden]")) {
    document.getElementById("review-title").focus();
  }
};

// A copy that does not tell: what was done to the picture stays behind, and so do names.
const blinded = (panel, label) => {
  const picture = panel.querySelector(".picture").cloneNode(true);
  picture.setAttribute("aria-label", label);
  if (setup.elements.view.value === "maps-alone") {
    picture.querySelector("use:not(.heat)")?.remove();
    picture.querySelector(".heat").classList.remove("heat");
  }
  return picture;
};

const present = () => {
  if (answers.length === shown.length) {
    sum();
    return;
  }
  const panel = shown[answers.length];
  const interpreter = panel.closest(".card").querySelector("h3 b").textContent;
  const place = `Map ${answers.length + 1} of ${shown.length}`;
  item.querySelector("[role=status]").textContent = `${place}, by ${interpreter}`;
  item.querySelector(".shown").replaceChildren(blinded(panel, place));
  Object.assign(item.querySelector("progress"), { max: shown.length, value: answers.length });
  turnTo(item);
  since = performance.now();
};

const answer = (value) => {
  if (value === "undo") answers.pop();
  else answers.push({ value, milliseconds: Math.round(performance.now() - since) });
  present();
};

const isRight = (panel, index) => (answers[index].value === "attacked") === isAttacked(panel);

// Wilson's 95 % interval, as in the tables of the page.
const percentages = (right, n) => {
  const z = 1.96;
  const centre = right + z * z / 2;
  const spread = z * Math.sqrt(right * (n - right) / n + z * z / 4);
  return [right / n, (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)]
    .map((share) => (100 * Math.min(1, Math.max(0, share))).toFixed(0));
};

const sum = () => {
  const right = shown.filter(isRight).length;
  const [share, low, high] = percentages(right, shown.length);
  score.querySelector("[role=status]").textContent =
    `You were right on ${right} of ${shown.length} maps: ${share} % (95 % interval ${low}–${high} %). Guessing gives 50 %.`;
  const names = [["benign", "Benign"], ...[...toolbar.elements.attack.options].map((option) => [option.value, option.text])];
  score.querySelector("tbody").replaceChildren(...names.flatMap(([attack, name]) => {
    const flags = shown.map((panel, index) => panel.dataset.attack === attack && isRight(panel, index));
    const n = shown.filter((panel) => panel.dataset.attack === attack).length;
    return n ? [row(name, flags.filter(Boolean).length, n)] : [];
  }));
  turnTo(score);
};

const row = (name, right, n) => {
  const [share, low, high] = percentages(right, n);
  const line = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  line.append(head);
  for (const text of [`${right} of ${n}`, `${share} % (${low}–${high})`]) line.insertCell().textContent = text;
  return line;
};

// Quoted; what a spreadsheet would take for a formula gets an apostrophe in front.
const field = (value) => `"${String(value).replace(/^[=+\-@\t\r\n]/, "'$&").replaceAll('"', '""')}"`;

const csv = () => {
  const head = ["item", "image", "interpreter", "shown", "answer", "correct", "milliseconds"];
  const lines = shown.map((panel, index) => [
    index + 1, cardOf(panel).id, cardOf(panel).interpreter, panel.dataset.attack,
    answers[index].value, isRight(panel, index), answers[index].milliseconds,
  ]);
  return [head, ...lines].map((line) => `${line.map(field).join(",")}\r\n`).join("");
};

const save = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `review-${setup.elements.view.value}-seed-${setup.elements.seed.value}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

setup.addEventListener("submit", (event) => {
  event.preventDefault();
  answers = [];
  shown = choose(setup.elements.items.valueAsNumber, setup.elements.seed.valueAsNumber);
  present();
});
item.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) answer(button.value);
});
review.addEventListener("keydown", (event) => {
  const value = { a: "attacked", b: "benign", u: "undo" }[event.key.toLowerCase()];
  if (!value || item.hidden || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  answer(value);
});
score.querySelector("[value=save]").addEventListener("click", save);
score.querySelector("[value=again]").addEventListener("click", () => turnTo(setup));
offer.querySelector("button").addEventListener("click", () => {
  review.showModal();
  since = performance.now();
});
setup.elements.items.max = pool.length - pool.length % 2;
setup.elements.items.value = Math.min(20, setup.elements.items.max);
offer.hidden = pool.length < 2;

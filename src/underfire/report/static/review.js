// Blinded review: the reader tells attacked maps from benign ones without knowing which is which.
const review = document.getElementById("review");
const offer = document.getElementById("offer");
const setup = review.querySelector(".setup");
const item = review.querySelector(".item");
const score = review.querySelector(".score");
let shown = []; // the maps to be judged, in their order
let answers = []; // of the first of them
let since = 0;

// Marsaglia's xorshift: whole numbers below a bound, the same in every browser.
const drawn = (seed) => {
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

const isAttacked = (item) => item.attack !== "benign";

// What an interpreter shows of an image: the benign map, and those of attacks that succeeded and have one.
const versions = (card, interpreter, place) => {
  const made = { image: card.id, interpreter };
  return {
    benign: { ...made, attack: "benign", photo: card.photo, heat: card.heats[place] },
    attacked: card.rows
      .filter((row) => row.interpreter === interpreter && row.ending !== "failed" && row.heat !== null)
      .map((row) => ({ ...made, attack: row.attack.name, photo: row.photo, heat: row.heat })),
  };
};

// Maps with something to tell apart, in an order that neither sorting nor filtering changes.
const pool = data.cards
  .flatMap((card) => data.interpreters.map((interpreter, place) => versions(card, interpreter, place)))
  .filter(({ benign, attacked }) => benign.heat !== null && attacked.length)
  .map((each) => [JSON.stringify([each.benign.image, each.benign.interpreter.name]), each])
  .sort(([a], [b]) => (a < b ? -1 : 1))
  .map(([, each]) => each);

// One version of each map: half of them benign, the others of each attack about equally often.
const choose = (count, seed) => {
  const draw = drawn(seed);
  const half = Math.floor(Math.min(count, pool.length) / 2);
  const chosen = shuffled(pool, draw).slice(0, 2 * half);
  const times = {};
  const attacked = chosen.slice(half).map((each) => {
    const least = (a, b) => (times[a.attack] ?? 0) - (times[b.attack] ?? 0);
    const [version] = shuffled(each.attacked, draw).sort(least);
    times[version.attack] = (times[version.attack] ?? 0) + 1;
    return version;
  });
  return shuffled([...chosen.slice(0, half).map((each) => each.benign), ...attacked], draw);
};

const turnTo = (part) => {
  for (const each of [setup, item, score]) each.hidden = each !== part;
  if (!review.contains(document.activeElement) || document.activeElement.closest("[hidden]")) {
    document.getElementById("review-title").focus();
  }
};

// A picture that does not tell: neither names nor what was done to it.
const blinded = ({ photo, heat }, label) => {
  const alone = setup.elements.view.value === "maps-alone";
  return drawing(alone ? null : photo, heat, label);
};

const present = () => {
  if (answers.length === shown.length) {
    sum();
    return;
  }
  const version = shown[answers.length];
  const place = `Map ${answers.length + 1} of ${shown.length}`;
  item.querySelector("[role=status]").textContent = `${place}, by ${version.interpreter.title}`;
  item.querySelector(".shown").replaceChildren(blinded(version, place));
  Object.assign(item.querySelector("progress"), { max: shown.length, value: answers.length });
  turnTo(item);
  since = performance.now();
};

const answer = (value) => {
  if (value === "undo") answers.pop();
  else answers.push({ value, milliseconds: Math.round(performance.now() - since) });
  present();
};

const isRight = (version, index) => (answers[index].value === "attacked") === isAttacked(version);

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
  const names = [["benign", "Benign"], ...data.attacks.map((each) => [each.name, each.title])];
  score.querySelector("tbody").replaceChildren(...names.flatMap(([attack, name]) => {
    const flags = shown.map((version, index) => version.attack === attack && isRight(version, index));
    const n = shown.filter((version) => version.attack === attack).length;
    return n ? [row(name, flags.filter(Boolean).length, n)] : [];
  }));
  turnTo(score);
};

const row = (name, right, n) => {
  const [share, low, high] = percentages(right, n);
  const line = document.createElement("tr");
  line.append(make("th", { scope: "row" }, name));
  for (const text of [`${right} of ${n}`, `${share} % (${low}–${high})`]) line.insertCell().textContent = text;
  return line;
};

// Quoted; what a spreadsheet would take for a formula gets an apostrophe in front.
const field = (value) => `"${String(value).replace(/^[=+\-@\t\r\n]/, "'$&").replaceAll('"', '""')}"`;

const csv = () => {
  const names = ["item", "image", "interpreter", "shown", "answer", "correct", "milliseconds"];
  const lines = shown.map((version, index) => [
    index + 1, version.image, version.interpreter.name, version.attack,
    answers[index].value, isRight(version, index), answers[index].milliseconds,
  ]);
  return [names, ...lines].map((line) => `${line.map(field).join(",")}\r\n`).join("");
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

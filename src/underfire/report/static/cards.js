// Cards, drawn from the page's data when they are shown: one image, its interpreters in rows, its attacks in columns.
const data = JSON.parse(document.getElementById("data").textContent);
const endings = new Map(data.endings);
const deceiving = new Set(["unchanged", "plausible"]);

// An outcome as it lies in the data.
const outcome = ([attack, interpreter, photo, change, heat, ending, predicted, confidence, iou, l1, benign]) => ({
  attack: data.attacks[attack], interpreter: data.interpreters[interpreter], photo, change, heat,
  ending: data.endings[ending][0], predicted: data.classes[predicted], confidence, iou, l1, benign,
});
for (const card of data.cards) card.rows = card.rows.map(outcome);

// An element; children that are texts stay texts.
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const drawing = (photo, heat, label) => {
  const picture = make("span", { class: "picture", role: "img", "aria-label": label });
  if (photo !== null) picture.append(make("img", { src: data.album[photo], alt: "" }));
  if (heat !== null) picture.append(make("img", { src: data.album[heat], alt: "", class: "heat" }));
  return picture;
};

const number = (value) => (value === null ? "–" : value.toFixed(3));
const drawnAttacks = data.attacks.filter((attack) => attack.drawn);
const find = (card, attack, interpreter) => card.rows.find((row) => row.attack === attack && row.interpreter === interpreter);
const head = (cells) => make("tr", {}, ...cells.map((text) => (text ? make("th", { scope: "col" }, text) : make("td"))));

// The pictures as they arrive; of attacks on one interpreter that of the first.
const plainRow = (card) => {
  const made = (attack) => data.interpreters.map((each) => find(card, attack, each)).find((row) => row);
  return make("tr", { class: "plain" },
    make("th", { scope: "row" }, "Picture"),
    make("td", {}, drawing(card.photo, null, `benign picture of ${card.id}`)),
    ...(data.targeted ? [make("td")] : []),
    ...drawnAttacks.map((attack) => make("td", {}, drawing(made(attack)?.photo ?? null, null, `${attack.title} picture of ${card.id}`))),
  );
};

const mapCell = (card, attack, interpreter) => {
  const row = find(card, attack, interpreter);
  if (!row) return make("td", {}, "–");
  const label = `${attack.title} picture of ${card.id} under its ${interpreter.title} map: ${endings.get(row.ending)}`;
  return make("td", { "data-attack": attack.name },
    drawing(row.photo, row.heat, label),
    make("span", { class: `ending ${row.ending.replaceAll(" ", "-")}`, title: endings.get(row.ending) }, number(row.l1)),
  );
};

const mapRow = (card, interpreter, place) => make("tr", { "data-interpreter": interpreter.name },
  make("th", { scope: "row" }, interpreter.title),
  make("td", { "data-attack": "benign" }, drawing(card.photo, card.heats[place], `benign picture of ${card.id} under its ${interpreter.title} map`)),
  ...(data.targeted ? [make("td", {}, drawing(card.photo, card.wanted[place], `benign picture of ${card.id} under the ${interpreter.title} map that is wanted`))] : []),
  ...drawnAttacks.map((attack) => mapCell(card, attack, interpreter)),
);

const picturesOf = (card) => make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Pictures of ${card.id}` },
  make("table", { class: "maps" },
    make("thead", {}, head(["", "Benign", ...(data.targeted ? ["Wanted"] : []), ...drawnAttacks.map((each) => each.title)])),
    make("tbody", {}, plainRow(card), ...data.interpreters.map((each, place) => mapRow(card, each, place))),
  ),
);

const HEADS = ["Interpreter", "Attack", "Ending", "Predicted", data.cards[0].target === null ? "p(predicted)" : "p(target)", "IoU", "ΔL1", ...(data.targeted ? ["to benign"] : []), "Change"];

const numbersRow = (card, row) => make("tr", {},
  make("th", { scope: "row" }, row.interpreter.title),
  ...[row.attack.title, endings.get(row.ending), row.predicted].map((text) => make("td", {}, text)),
  ...[row.confidence, row.iou, row.l1, ...(data.targeted ? [row.benign] : [])].map((value) => make("td", {}, number(value))),
  make("td", {}, row.change === null ? "–" : drawing(row.change, null, `what ${row.attack.title} did to ${card.id}`)),
);

const numbersOf = (card) => [
  make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Numbers of ${card.id}` },
    make("table", { class: "numbers" },
      make("thead", {}, head(HEADS)),
      make("tbody", {}, ...card.rows.map((row) => numbersRow(card, row))),
    ),
  ),
  document.getElementById("changes").content.cloneNode(true),
];

const classesOf = (card) => {
  const donor = card.donor ? `; wanted: the map of ${card.donor}` : "";
  return make("p", { class: "classes" }, data.classes[card.true], " → ", data.classes[card.target] ?? "any other", donor);
};

// Numbers and changes are folded away, and made when they are first asked for.
const cardOf = (card) => {
  const details = make("details", {}, make("summary", {}, "Numbers and changes"));
  details.addEventListener("toggle", () => details.append(...numbersOf(card)), { once: true });
  return make("article", { class: "card", "data-id": card.id },
    make("h3", {}, make("a", { href: `#image=${encodeURIComponent(card.id)}` }, card.id)),
    classesOf(card), picturesOf(card), details,
  );
};

// The page asks its own server alone, and puts every name in as text. The query stays here: the server keeps nothing of a visitor.
"use strict";

const one = selector => document.querySelector(selector);
const limits = {};
let code = null, latest = 0, pause = null;

async function ask(path, options) {
  let response, answer;
  try {
    response = await fetch(path, options);
    answer = await response.json();
  } catch {
    throw new Error("the demo gave no answer; fix: try again, or reload the page");
  }
  if (!response.ok) throw Object.assign(new Error(answer.error), {field: answer.field});
  return answer;
}

const post = (path, content) => ask(path, {method: "POST", body: JSON.stringify(content)});

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function showHits(line, hits) {
  one(".status-line").textContent = line;
  const groups = []; // of hits with the same rank
  for (const hit of hits) {
    if (hit.rank === groups.at(-1)?.[0].rank) groups.at(-1).push(hit);
    else groups.push([hit]);
  }
  one(".grid").replaceChildren(...groups.map(group => group.length > 1 ? ties(group) : picture(group[0])));
}

const ties = group => make("div", {className: "ties"}, make("p", {textContent: group[0].tie}),
  make("div", {className: "tiles"}, ...group.map(picture)));

// Each error stands beside what it is about, one at a time; what was found before stays.
function showError({message, field}) {
  for (const line of document.querySelectorAll(".error")) line.textContent = "";
  one(`#${field || "other"}-error`).textContent = message;
  if (field === "where") one("details").open = true;
}

function picture({id, image, lines}) {
  const shown = image ? make("img", {alt: "", src: image}) : make("span", {className: "gone", textContent: `can't be shown:\n${id}`});
  const texts = lines.map(text => make("span", {textContent: text}));
  const button = make("button", {type: "button", className: "picture", title: id}, shown, ...texts);
  button.dataset.id = id;
  button.addEventListener("click", () => findLike(() => post("select", {id})));
  return button;
}

function showQuery(query) {
  code = query.code;
  one(".query").hidden = false;
  one(".query p").textContent = `the query's code: ${query.bits.length} bits`;
  one(".query img").src = query.image;
  Object.assign(one(".query span"), {textContent: query.name, title: query.id});
  one(".bits").replaceChildren(...[...query.bits].map(bit => make("i", {className: bit === "1" ? "on" : ""})));
}

// The newest question alone changes the page: `work` returns a function that does.
async function newest(work) {
  const number = ++latest;
  one(".found").setAttribute("aria-busy", "true");
  let change;
  try {
    change = await work();
  } catch (error) {
    change = () => showError(error);
  }
  if (number !== latest) return;
  one(".found").setAttribute("aria-busy", "false");
  showError({message: ""});
  change();
}

const findLike = getQuery => newest(async () => {
  const query = await getQuery();
  // without hits, since those on the page are another query's
  const showFound = await search(query.code).catch(error => () => { showHits("", []); showError(error); });
  return () => { showQuery(query); showFound(); scrollTo(0, 0); };
});

// Pictures must have one of the labels that are chosen, and pass the filter that is written.
function filter() {
  const labels = [...document.querySelectorAll(".chips [aria-pressed=true]")].map(chip => chip.dataset.where).join(" or ");
  const parts = [labels, one("#where input").value].filter(part => part.trim());
  return parts.length > 1 ? parts.map(part => `(${part})`).join(" and ") : parts.join();
}

function chip({label, where}) {
  const button = make("button", {type: "button", textContent: label, title: label, ariaPressed: "false"});
  button.dataset.where = where;
  button.addEventListener("click", () => {
    button.ariaPressed = String(button.ariaPressed !== "true");
    searchAgain();
  });
  return button;
}

async function search(code) {
  if (code === null) return () => {};
  const {line, hits} = await post("search", {code, k: limits.k(), radius: limits.radius(), where: filter()});
  return () => showHits(line, hits);
}

const searchAgain = () => newest(() => search(code));

function searchSoon() {
  clearTimeout(pause);
  pause = setTimeout(searchAgain, 100);
}

function give(file) {
  if (!file) return;
  findLike(async () => {
    try {
      if (file.size > limits.bytes) throw new Error(`${file.name} has more than ${limits.bytes >> 20} MiB; fix: make it smaller`);
      return await ask(`upload?name=${encodeURIComponent(file.name)}`, {method: "POST", body: file});
    } catch (error) {
      throw Object.assign(error, {field: "drop"});
    }
  });
}

// A slider and a box with the same number; one that is empty, half typed or out of range becomes the nearest allowed one.
function connect(id, low, high, value) {
  const [range, box] = document.querySelectorAll(`#${id} input`);
  const set = text => {
    const number = Math.min(Math.max(Math.round(Number(text)) || 0, low), high);
    const changed = number !== Number(range.value);
    range.value = box.value = number;
    if (changed) searchSoon();
  };
  range.max = box.max = high;
  range.value = box.value = value;
  let shown = value;
  range.addEventListener("input", () => {
    box.value = range.value;
    if (range.value !== shown) searchSoon();
    shown = range.value;
  });
  box.addEventListener("change", () => set(box.value));
  limits[id] = () => Number(range.value);
}

async function start() {
  const {heading, bits, mostHits, mostBytes, samples, labels} = await ask("start");
  document.title = one("h1").textContent = heading;
  limits.bytes = mostBytes;
  connect("k", 1, mostHits, 20);
  connect("radius", 0, bits, bits);
  one("#radius label").textContent = `Radius in bits (${bits}: any)`;
  one("#where input").addEventListener("change", searchAgain);
  const chosen = one(".drop input");
  chosen.addEventListener("change", () => { give(chosen.files[0]); chosen.value = ""; });
  // Anywhere on the page: the browser would leave it, and open what misses the box.
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => { event.preventDefault(); give(event.dataTransfer.files[0]); });
  one(".chips").replaceChildren(...labels.map(chip));
  one(".strip").replaceChildren(...samples.map(picture));
  if (!samples.length) one("#samples").textContent = "The index has no picture that can be shown.";
}

one("details").open = !matchMedia("(max-width: 720px)").matches; // on a phone the hits come first
start().catch(showError);

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
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const post = (path, content) => ask(path, {method: "POST", body: JSON.stringify(content)});

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function showHits(line, hits, isBad) {
  one(".status-line").textContent = line;
  one(".status-line").classList.toggle("bad", isBad);
  one(".grid").replaceChildren(...hits.map(picture));
}

const showError = error => showHits(error.message, [], true);

function picture({id, image, lines}) {
  const shown = image ? make("img", {alt: "", src: image}) : make("span", {className: "gone", textContent: `can't be shown:\n${id}`});
  const texts = lines.map(text => make("span", {textContent: text}));
  const button = make("button", {type: "button", className: "picture", title: id}, shown, ...texts);
  button.dataset.id = id;
  button.addEventListener("click", () => findLike(() => post("select", {id})));
  return button;
}

function showQuery(query) {
  code = query ? query.code : null;
  one(".query").hidden = !query;
  if (!query) return;
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
  change();
}

const findLike = getQuery => newest(async () => {
  let query;
  try {
    query = await getQuery();
  } catch (error) {
    return () => { showQuery(null); showError(error); };
  }
  const showFound = await search(query.code).catch(error => () => showError(error));
  return () => { showQuery(query); showFound(); };
});

async function search(code) {
  if (code === null) return () => {};
  const {line, hits} = await post("search", {code, k: limits.k(), radius: limits.radius(), where: one("#where input").value});
  return () => showHits(line, hits, false);
}

const searchAgain = () => newest(() => search(code));

function searchSoon() {
  clearTimeout(pause);
  pause = setTimeout(searchAgain, 100);
}

function give(file) {
  if (!file) return;
  findLike(async () => {
    if (file.size > limits.bytes) throw new Error(`${file.name} has more than ${limits.bytes >> 20} MiB; fix: make it smaller`);
    return ask(`upload?name=${encodeURIComponent(file.name)}`, {method: "POST", body: file});
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
  const {bits, mostHits, mostBytes, samples} = await ask("start");
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
  one("#samples").hidden = false;
  if (samples.length) one(".strip").replaceChildren(...samples.map(picture));
  else one("#samples p").textContent = "The index has no picture that can be shown.";
}

newest(async () => {
  await start();
  return () => {};
});

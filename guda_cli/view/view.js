"use strict";
// The page of `guda view`: pictures go to the server that sent this script, and what it answers is shown.
const at = (id) => document.getElementById(id);
const state = at("state");
let waiting = 0;

function element(tag, text, css) {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (css) made.className = css;
  return made;
}

async function ask(path, options) {
  let answer;
  try {
    const response = await fetch(path, { credentials: "same-origin", ...options });
    if (response.status === 403) return { error: "this page's cookie is gone", why: "", fix: "open the address that guda view printed" };
    if (response.status === 413) return { error: "the file is larger than 64 MB", why: "", fix: "a smaller picture" };
    answer = await response.json();
  } catch {
    answer = { error: "guda view does not answer", why: "", fix: "start it again" };
  }
  return answer;
}

function trouble(answer) {
  const shown = element("div", "", "trouble");
  shown.append(element("p", answer.why ? `${answer.error}: ${answer.why}` : answer.error));
  if (answer.fix) shown.append(element("p", `try: ${answer.fix}`, "small"));
  return shown;
}

function withGallery(card) {
  const shown = element("div", "", "answer-of");
  shown.innerHTML = card.html;
  if (!card.pixels) return shown;
  const button = element("button", "Had it never seen …");
  button.type = "button";
  button.title = "Draw this image again by models without its highest groups";
  button.addEventListener("click", async () => {
    button.disabled = true;
    button.textContent = "Drawing …";
    const answer = await ask("gallery", { method: "POST", body: card.pixels });
    const found = element("div", "", "drawn-again");
    if (answer.html) found.innerHTML = answer.html;
    else found.append(trouble(answer));
    shown.classList.add("wide");
    button.replaceWith(found);
  });
  shown.append(button);
  return shown;
}

function notes(texts) {
  const box = element("div", "", "note");
  const list = element("ul");
  for (const text of texts) list.append(element("li", text));
  box.append(list);
  return box;
}

async function score(file) {
  waiting += 1;
  state.textContent = `Scoring ${file.name} …`;
  const headers = { "X-File-Name": encodeURIComponent(file.name) };
  if (at("condition").value) headers["X-Condition"] = encodeURIComponent(at("condition").value);
  const answer = await ask("picture", { method: "POST", body: file, headers });
  waiting -= 1;
  if (!waiting) state.textContent = "";
  if (answer.cards) {
    for (const card of answer.cards) at("cards").prepend(withGallery(card));
    return;
  }
  const shown = trouble(answer);
  shown.prepend(element("strong", file.name));
  at("cards").prepend(shown);
}

async function all(files) {
  for (const file of files) await score(file);
}

const drop = at("drop");
const inside = (event) => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
document.addEventListener("dragover", (event) => {
  if (!inside(event)) return;
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  if (!inside(event)) return;
  event.preventDefault();
  drop.classList.remove("over");
  show("score");
  all([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) { show("score"); all(files); }
});
at("file").addEventListener("change", (event) => {
  all([...event.target.files]);
  event.target.value = "";
});

const parts = {
  async scored(section) {
    const answer = await ask("scored");
    if (!answer.cards) { section.replaceChildren(trouble(answer)); return; }
    const cards = element("div", "", "answers");
    cards.append(...answer.cards.map(withGallery));
    section.replaceChildren(...(answer.notes.length ? [notes(answer.notes)] : []), cards);
  },
  async store(section) {
    const answer = await ask("store");
    if (answer.html) section.innerHTML = answer.html;
    else section.replaceChildren(trouble(answer));
  },
};

function show(name) {
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-pressed", String(button.dataset.part === name));
  }
  for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
  if (!parts[name]) return;
  at(name).replaceChildren(element("p", "Reading the store …", "muted"));
  parts[name](at(name));
}
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => show(button.dataset.part));
}

(async () => {
  const about = await ask("about");
  if (!about.recipe) { at("cards").prepend(trouble(about)); return; }
  at("recipe").textContent = `· ${about.recipe}`;
  if (!about.told) return;
  at("told").hidden = false;
  at("told").querySelector("label").textContent = about.told === "prompt" ? "Its prompt:" : "Its class:";
  at("classes").append(...about.classes.map((name) => new Option(name)));
})();

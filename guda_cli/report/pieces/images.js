// The cards of images: search, filter and sort. The view stands in the page's address, so that it can be sent.
// Without a script all cards are there, the first in the open and the others in a fold.
(() => {
  "use strict";
  const controls = document.querySelector(".controls");
  if (!controls) return;
  const open = document.querySelector(".cards");
  const fold = document.querySelector("details.others");
  const first = open.children.length; // how many stand in the open
  const count = controls.querySelector("output");
  const fields = [...controls.querySelectorAll("input, select")];
  const field = Object.fromEntries(fields.map((one) => [one.name, one]));
  const usual = Object.fromEntries(fields.map((one) => [one.name, one.value]));
  const plain = (text) => text.toLowerCase().normalize("NFC");
  const full = (cell) => cell.querySelector("[title]")?.title ?? cell.textContent;
  const number = (text) => (text === undefined ? null : Number(text));

  const cards = [...document.querySelectorAll(".card[data-verdict]")].map((card, order) => {
    const heads = [...card.querySelectorAll(".bars tbody th")];
    const ranked = heads.slice(0, 1).map(full);
    const named = heads.filter((head) => head.querySelector("strong")).map(full);
    named.push(...JSON.parse(card.dataset.also ?? "[]")); // too many to show
    const told = [...card.querySelectorAll("[data-text]")].map(full);
    const { verdict, score, z, se } = card.dataset;
    return {
      card, order, verdict, first: ranked, out: named, both: [...new Set([...ranked, ...named])],
      text: plain([...told, ...ranked, ...named].join("\n")),
      score: number(score), z: number(z), se: number(se),
    };
  });

  const compare = new Intl.Collator("en", { numeric: true }).compare;
  const groups = new Map();
  for (const one of cards) for (const group of one.both) groups.set(group, (groups.get(group) ?? 0) + 1);
  for (const group of [...groups.keys()].sort(compare)) {
    field.group.append(new Option(`${group} (${groups.get(group)})`, group));
  }

  function matches(one) {
    const words = plain(field.q.value).split(/\s+/);
    return words.every((word) => one.text.includes(word))
      && (!field.verdict.value || one.verdict === field.verdict.value)
      && (!field.group.value || one[field.as.value].includes(field.group.value));
  }

  // A sort is a number's name and its direction, such as "z-": the highest first. Unknown numbers come last.
  function sorted() {
    const [, name, sign] = /^(\w*)([+-]?)$/.exec(field.sort.value);
    if (!name) return cards;
    const known = cards.filter((one) => one[name] !== null);
    known.sort((a, b) => (sign === "-" ? b[name] - a[name] : a[name] - b[name]) || a.order - b.order);
    return [...known, ...cards.filter((one) => one[name] === null)];
  }

  const home = fold ? fold.querySelector(".cards") : open;
  let ordered = cards;
  let opened = fold ? cards.slice(0, first) : [];

  // Moving thousands of cards takes long: a filter moves those that come into the open, and those that leave it.
  function goHome(one) {
    const after = ordered.slice(ordered.indexOf(one) + 1);
    home.insertBefore(one.card, after.find((other) => other.card.parentNode === home)?.card ?? null);
  }

  function sort() {
    ordered = sorted();
    home.append(...ordered.map((one) => one.card));
    opened = [];
  }

  function show() {
    const found = ordered.filter(matches);
    const chosen = new Set(found);
    for (const one of cards) if (one.card.hidden === chosen.has(one)) one.card.hidden = !one.card.hidden;
    if (fold) {
      const head = found.slice(0, first);
      for (const one of opened) if (!head.includes(one)) goHome(one);
      open.append(...head.map((one) => one.card));
      opened = head;
      const others = (found.length - head.length).toLocaleString("en");
      fold.hidden = others === "0";
      fold.querySelector("summary").textContent = `The other ${others} images`;
    }
    const counts = [found.length, cards.length].map((n) => n.toLocaleString("en"));
    count.textContent = `${counts[0]} of ${counts[1]} images`;
    field.as.disabled = !field.group.value;
  }

  function remember() {
    const changed = fields.filter((one) => one.value !== usual[one.name]);
    const view = new URLSearchParams(changed.map((one) => [one.name, one.value]));
    history.replaceState(null, "", `#${changed.length ? view : "queries"}`);
  }

  function recall() {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return; // a section
    const view = new URLSearchParams(hash);
    for (const one of fields) {
      one.value = view.get(one.name) ?? usual[one.name];
      if (one.selectedIndex === -1) one.value = usual[one.name]; // of another report
    }
    sort();
    show();
  }

  function changed(event) {
    if (event.target === field.sort) sort();
    show();
    remember();
  }

  for (const one of fields) one.addEventListener("input", changed);
  controls.querySelector("button").addEventListener("click", () => {
    for (const one of fields) one.value = usual[one.name];
    sort();
    show();
    remember();
    field.q.focus();
  });
  addEventListener("hashchange", recall);
  controls.hidden = false;
  show();
  if (location.hash.includes("=")) recall();
})();

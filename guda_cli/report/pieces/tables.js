// Tables: the head of a column sorts, and long ones show their first rows. Without a script the other rows are
// a table of their own in a fold.
(() => {
  "use strict";
  const compare = new Intl.Collator("en", { numeric: true }).compare;

  const SIZES = { k: 1e3, M: 1e6, G: 1e9, T: 1e12 };

  // A cell begins with its value, such as "1,234 \u00b1 5" or "12.3 k"; what stands below it is another node.
  function value(row, column, numeric) {
    const text = row.cells[column].firstChild?.textContent.trim() ?? "";
    if (!numeric) return text;
    const plain = text.replaceAll("\u2212", "-").replaceAll(",", "");
    const [, number, size] = /^\u00d7?([+-]?\d[\d.]*(?:e[+-]?\d+)?)(?: ([kMGT])\b)?/.exec(plain) ?? [];
    return parseFloat(number) * (SIZES[size] ?? 1);
  }

  // Numbers that are none come last, whatever the direction.
  function ordered(rows, column, numeric, down) {
    const keyed = rows.map((row) => [value(row, column, numeric), row]);
    keyed.sort(([a], [b]) => {
      if (!numeric) return down ? compare(b, a) : compare(a, b);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return down ? b - a : a - b;
    });
    return keyed.map(([, row]) => row);
  }

  function unfolded(table) {
    const fold = table.closest(".fold");
    const more = fold?.querySelector("details");
    if (!more) return () => {};
    const body = table.tBodies[0];
    const first = body.rows.length;
    body.append(...more.querySelectorAll("tbody > tr"));
    const button = document.createElement("button");
    more.replaceWith(button);
    const name = `all ${body.rows.length.toLocaleString("en")} rows`;
    let folded = true;
    function mark() {
      const rows = [...body.rows];
      rows.forEach((row, i) => row.classList.toggle("beyond", i >= first && !row.classList.contains("keep")));
      table.classList.toggle("folded", folded);
      button.textContent = folded ? `Show ${name}` : `Show the first ${first} rows`;
      button.setAttribute("aria-expanded", String(!folded));
    }
    button.addEventListener("click", () => {
      folded = !folded;
      mark();
    });
    mark();
    return mark;
  }

  // The first click sorts numbers downwards and text upwards, the second the other way, the third as it was.
  function sortable(table, refold) {
    const body = table.tBodies[0];
    const listed = [...body.rows];
    const heads = [...table.tHead.rows[0].cells].filter((cell) => cell.textContent.trim());
    for (const head of heads) {
      const button = document.createElement("button");
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("num");
        const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
        const next = [...order, null][order.indexOf(head.getAttribute("aria-sort")) + 1];
        for (const other of heads) other.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        body.append(...(next ? ordered(listed, head.cellIndex, numeric, next === "descending") : listed));
        refold();
      });
    }
  }

  for (const table of document.querySelectorAll("table[data-sort]")) {
    if (table.isConnected) sortable(table, unfolded(table));
  }
})();

// A picture that is clicked is shown large; the arrow keys go on to the next of its kind in the section.
(() => {
  "use strict";
  const main = document.querySelector("main");
  const pictures = main.querySelectorAll("img");
  if (!pictures.length) return;
  for (const picture of pictures) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
  }

  const element = (tag, content, label) => {
    const made = document.createElement(tag);
    made.append(...content);
    if (label) made.setAttribute("aria-label", label);
    return made;
  };
  const image = element("img", []);
  const caption = element("figcaption", []);
  const [back, on, close] = [
    element("button", ["\u2190"], "Previous picture"), element("button", ["\u2192"], "Next picture"),
    element("button", ["Close"]),
  ];
  const bar = element("div", [back, on, close]);
  const dialog = element("dialog", [element("figure", [image, caption]), bar], "Enlarged picture");
  document.body.append(dialog);
  let shown = null;

  const kind = (picture) => picture.classList[0];
  const alike = () => [...(shown.closest("section") ?? main).querySelectorAll("img")]
    .filter((one) => kind(one) === kind(shown) && (one.checkVisibility?.() ?? true));

  function show(picture) {
    shown = picture;
    const all = alike();
    image.src = picture.src;
    image.alt = picture.alt;
    image.className = picture.classList.contains("crisp") ? "crisp" : "";
    caption.textContent = all.length > 1 ? `${picture.alt} (${all.indexOf(picture) + 1} of ${all.length})` : picture.alt;
    back.disabled = on.disabled = all.length < 2;
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const all = alike();
    show(all[(all.indexOf(shown) + by + all.length) % all.length]);
  }

  main.addEventListener("click", (event) => {
    if (event.target.matches("img")) show(event.target);
  });
  main.addEventListener("keydown", (event) => {
    if (!event.target.matches("img") || !["Enter", " "].includes(event.key)) return;
    event.preventDefault();
    show(event.target);
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    shown.focus({ preventScroll: true });
    shown.scrollIntoView({ block: "nearest" });
  });
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  close.addEventListener("click", () => dialog.close());
})();

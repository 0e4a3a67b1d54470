// A word or a number with more to say. The style sheet shows it; here it stays on the screen, Escape puts it
// away, and by touch the first tap says it and the second one follows the link.
"use strict";
(() => {
  const find = (event) => event.target.closest?.("[data-more]");
  let touched = null;
  let shown = null;

  function place(word) {
    word.classList.remove("quiet");
    word.style.setProperty("--shift", "0px");
    const style = getComputedStyle(word, "::after");
    const box = word.getBoundingClientRect();
    const half = (parseFloat(style.width) || 0) / 2 + 12;
    const middle = box.left + box.width / 2;
    const width = document.documentElement.clientWidth;
    const shift = Math.max(0, half + 8 - middle) || Math.min(0, width - 8 - half - middle);
    word.style.setProperty("--shift", `${shift}px`);
  }

  document.addEventListener("pointerover", (event) => find(event) && place(find(event)));
  document.addEventListener("focusin", (event) => find(event) && place(find(event)));
  document.addEventListener("pointerdown", (event) => {
    touched = event.pointerType === "touch" ? find(event) : null;
    if (!find(event)) shown = null;
  });
  document.addEventListener("click", (event) => {
    const word = find(event);
    if (word && word === touched && word !== shown) {
      event.preventDefault();
      shown = word;
      word.focus();
      place(word);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const word of document.querySelectorAll("[data-more]:hover, [data-more]:focus")) word.classList.add("quiet");
  });
})();

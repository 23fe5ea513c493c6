// The keyboard: `/` to the query, arrows among the results, Enter for why, d for the document, Escape back.

import { counterpart } from "./compare.js";

/** Listens on the whole page. `box` is the query input, `results` the section that holds the hits. */
export function listenToKeys(box, results) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const handled = event.target === box ? inBox(event.key, results) : onPage(event, box, results);
    if (handled) event.preventDefault();
  });
  results.addEventListener("click", ({ target }) => {
    const button = target.closest('[data-act="counterpart"]');
    if (button) go(counterpart(button.closest(".hit")));
  });
}

function inBox(key, results) {
  return key === "ArrowDown" && go(results.querySelector(".hit"));
}

function onPage(event, box, results) {
  const { key, target } = event;
  if (target.matches("input:not([type=radio]), select, textarea")) return false;
  if (key === "/") return focusBox(box);
  const article = target.closest(".hit");
  if (!article || target.matches(".whole")) return false;
  if (key === "Escape") return focusBox(box);
  if (key === "ArrowDown" || key === "j") return go(neighbour(article, 1));
  if (key === "ArrowUp" || key === "k") return go(neighbour(article, -1)) || focusBox(box);
  if (key === "ArrowLeft" || key === "ArrowRight") return sideways(article, key === "ArrowRight" ? 1 : 0);
  if (target !== article) return false;
  if (key === "Enter") return press(article, "why") || press(article, "document");
  if (key === "d") return press(article, "document");
  return false;
}

function neighbour(article, step) {
  const list = [...article.closest(".hits").querySelectorAll(".hit")];
  return list[list.indexOf(article) + step];
}

/** Into the other column: the same document, else the same rank. */
function sideways(article, side) {
  const column = article.closest(".column");
  if (!column || Number(column.dataset.side) === side) return false;
  const other = article.closest(".comparison").querySelector(`.column[data-side="${side}"]`);
  const hits = other.querySelectorAll(".hit");
  return go(counterpart(article) ?? hits[Math.min(Number(article.dataset.rank), hits.length) - 1]);
}

function go(article) {
  if (!article) return false;
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
  return true;
}

function press(article, act) {
  const button = article.querySelector(`[data-act="${act}"]`);
  button?.click();
  return button !== null;
}

function focusBox(box) {
  box.focus();
  box.select();
  return true;
}

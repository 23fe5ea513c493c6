// The keyboard: `/` to the query, `f` to the filters, arrows among the results, Escape back; on a result Enter for why, d for
// the document, + and - for more and less like it. What is open above the page has the keyboard to itself.

import { counterpart } from "./compare.js";

/** Listens on the whole page. `box` is the query input, `results` the section that holds the hits, `toFilters()` goes to the first. */
export function listenToKeys(box, results, toFilters) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest?.("dialog")) return;
    const handled = event.target === box ? inBox(event.key, results) : onPage(event, box, toFilters);
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

function onPage(event, box, toFilters) {
  const { key, target } = event;
  if (key === "Escape" && target.closest(".filters")) return focusBox(box);
  if (target.matches("input:not([type=radio], [type=checkbox]), select, textarea")) return false;
  if (key === "/") return focusBox(box);
  if (key === "f") return toFilters();
  const article = target.closest(".hit");
  if (!article) return false;
  if (key === "Escape") return focusBox(box);
  if (key === "ArrowDown" || key === "j") return go(neighbour(article, 1));
  if (key === "ArrowUp" || key === "k") return go(neighbour(article, -1)) || focusBox(box);
  if (key === "ArrowLeft" || key === "ArrowRight") return sideways(article, key === "ArrowRight" ? 1 : 0);
  if (target !== article) return false;
  if (key === "Enter") return press(article, "why") || press(article, "document");
  if (key === "d") return press(article, "document");
  if (key === "+") return press(article, "like");
  if (key === "-") return press(article, "unlike");
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

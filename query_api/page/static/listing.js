// One list of results, and what follows its end: a further page, or why there is none.

import { PAGE_SIZE } from "./address.js";
import { h } from "./dom.js";
import { renderHit } from "./hit.js";

/**
 * {element, append(answer, from)} for an answer. `more` is {size, most, onMore}: how many hits the view shows and can
 * show, and what is told the next size.
 */
export function renderList(answer, context, { size, most, onMore }) {
  const items = (hits, from) => hits.map((hit, at) => h("li", {}, renderHit(hit, { ...context, unit: answer.unit, rank: from + at + 1, relation: null })));
  const list = h("ol", { class: "hits" }, items(answer.hits, 0));
  const foot = h("div", { class: "further" });
  const end = (latest, shown) => foot.replaceChildren(...[further(latest, shown, onMore, most)].filter(Boolean));
  end(answer, size);
  return {
    element: [list, foot],
    append(next, from) {
      const added = items(next.hits, from);
      list.append(...added);
      end(next, from + next.hits.length);
      added[0]?.querySelector(".hit").focus({ preventScroll: true });
    },
  };
}

/** A button for the next page where there may be one. */
export function further(answer, shown, onMore, most) {
  if (answer.end === "matches") return shown > PAGE_SIZE && h("p", { class: "faint" }, "That is all.");
  if (answer.end === "candidates") {
    return h("p", { class: "faint" }, "The list ends here: it is made of the first 100 of each list. Sparse or keyword search alone goes on.");
  }
  const may = answer.cursor ? true : answer.hits.length >= shown;
  if (!may || shown >= most) return null;
  const next = Math.min(most, shown + PAGE_SIZE);
  return h("button", { type: "button", class: "example", data: { act: "more" }, on: { click: () => onMore(next) } }, `Show ${next - shown} more`);
}

// Keyword and sparse lists next to each other, with the same result tied together.

import { h, svg } from "./dom.js";
import { duration } from "./format.js";
import { keyOf, renderHit } from "./hit.js";

const LISTS = [
  { mode: "lexical", label: "Keyword", note: "the words of the query (BM25)" },
  { mode: "sparse", label: "Sparse", note: "what the encoder made of the document" },
];

/** How two ranked lists of hits relate: {both, only: [n, n]} and for the key of each its rank (from 1) in each list. */
export function align(left, right, unit) {
  const ranks = [left, right].map((hits) => new Map(hits.map((hit, position) => [keyOf(hit, unit), position + 1])));
  const both = left.filter((hit) => ranks[1].has(keyOf(hit, unit))).length;
  return { both, only: [left.length - both, right.length - both], ranks };
}

/** The two columns with the ties between them. `answers` are keyword and sparse, in this order. */
export function renderComparison(answers, context) {
  const alignment = align(answers[0].hits, answers[1].hits, answers[0].unit);
  const ties = svg("svg", { class: "ties", "aria-hidden": "true" });
  const columns = LISTS.map(({ mode, label, note }, side) =>
    h(
      "section",
      { class: "column", "aria-label": `${label} results`, data: { side } },
      h("header", { class: "column-head" }, h("h2", {}, label), h("p", {}, note), h("p", { class: "took" }, duration(answers[side].timings_ms?.total))),
      answers[side].hits.length === 0 && h("p", { class: "nothing" }, "Nothing found."),
      h(
        "ol",
        { class: "hits" },
        answers[side].hits.map((hit, position) => {
          const rank = position + 1;
          const relation = relationOf(rank, alignment.ranks[1 - side].get(keyOf(hit, answers[side].unit)), LISTS[1 - side].label.toLowerCase());
          return h("li", {}, renderHit(hit, { ...context, mode, unit: answers[side].unit, like: context.like && mode === "sparse", rank, relation }));
        }),
      ),
    ),
  );
  const element = h("div", { class: "comparison" }, columns[0], ties, columns[1]);
  keepTied(element, ties);
  return { element, alignment };
}

function relationOf(rank, other, label) {
  if (other === undefined) return h("span", { class: "relation only" }, "only here");
  const climbed = other - rank;
  const [arrow, words] =
    climbed === 0 ? ["=", "the same rank"] : [climbed > 0 ? "▲" : "▼", `${Math.abs(climbed)} ${climbed > 0 ? "higher" : "lower"} here`];
  return h(
    "button",
    {
      type: "button",
      class: `relation ${climbed > 0 ? "up" : climbed < 0 ? "down" : "same"}`,
      data: { act: "counterpart" },
      title: "Go to the same result in the other list",
    },
    h("span", { class: "arrow", "aria-hidden": "true" }, arrow, climbed === 0 ? "" : String(Math.abs(climbed))),
    ` ${label} ${other}`,
    h("span", { class: "quiet" }, `, ${words}`),
  );
}

/** The article with the same result in the other column, or null. */
export function counterpart(article) {
  const side = article.closest(".column")?.dataset.side;
  if (side === undefined) return null;
  const other = article.closest(".comparison").querySelector(`.column[data-side="${1 - Number(side)}"]`);
  return [...other.querySelectorAll(".hit")].find((candidate) => candidate.dataset.key === article.dataset.key) ?? null;
}

/** Draws a curve between the titles of each result that both columns hold; again whenever anything moves. */
function keepTied(comparison, ties) {
  const draw = () => {
    const frame = ties.getBoundingClientRect();
    ties.replaceChildren();
    if (frame.width === 0) return;
    for (const article of comparison.querySelectorAll('.column[data-side="0"] .hit')) {
      const other = counterpart(article);
      if (!other) continue;
      const [from, to] = [middle(article, frame), middle(other, frame)];
      const bend = frame.width / 2;
      const path = `M4 ${from} C${bend} ${from} ${bend} ${to} ${frame.width - 10} ${to}`;
      const tie = svg("path", { d: path, class: "tie" });
      tie.dataset.key = article.dataset.key;
      ties.append(tie);
    }
  };
  const watcher = new ResizeObserver(draw);
  watcher.observe(comparison);
  comparison.addEventListener("fold", draw);
  for (const event of ["pointerover", "focusin"]) {
    comparison.addEventListener(event, ({ target }) => light(comparison, target.closest?.(".hit")?.dataset.key));
  }
  comparison.addEventListener("pointerleave", () => light(comparison, undefined));
}

const middle = (article, frame) => {
  const title = article.querySelector("h3").getBoundingClientRect();
  return Math.round(title.top - frame.top + Math.min(title.height, 26) / 2);
};

/** Lights up the result under the pointer or focus in both columns. */
function light(comparison, key) {
  for (const element of comparison.querySelectorAll(".hit, .tie")) {
    element.classList.toggle("lit", key !== undefined && element.dataset.key === key);
  }
}

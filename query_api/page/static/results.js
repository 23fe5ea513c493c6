// The results of a view: one list with further pages, or the lexical and the sparse list side by side.

import { formatCount, formatDuration, h, svg } from "./dom.js";
import { keyOf, renderHit } from "./hit.js";
import { maxSizeOf } from "./requests.js";
import { PAGE_SIZE } from "./state.js";

/** @typedef {import("./api.js").Answer} Answer */
/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./hit.js").HitContext} HitContext */
/** @typedef {import("./state.js").View} View */

/**
 * @typedef {object} Handlers
 * @property {HitContext["linkTo"]} linkTo
 * @property {boolean} like
 * @property {(size: number) => void} onMore is called with the number of hits to show
 */
/** @typedef {(page: Answer, from: number) => void} Append adds a page below the list; `from` hits stand there already */

/**
 * Create the results of a view.
 * @param {View} view
 * @param {Answer[]} answers
 * @param {Handlers} handlers
 * @returns {{ status: string, body: Child, append: Append | null }} `append`: null for lists side by side
 */
export function renderAnswers(view, answers, handlers) {
  if (view.mode === "compare") return renderSideBySide(view, answers, handlers);
  const [answer] = answers;
  const list = renderList(view, answer, handlers);
  return {
    status: `${formatCount(answer.hits.length, "result")} in ${formatDuration(answer.timings_ms?.total)}`,
    body: list.body,
    append: list.append,
  };
}

// ---- one list

/**
 * @param {View} view
 * @param {Answer} answer
 * @param {Handlers} handlers
 * @returns {{ body: Child, append: Append }}
 */
function renderList(view, answer, { linkTo, like, onMore }) {
  const context = { mode: answer.mode, unit: answer.unit, linkTo, like, relation: null };
  /** @type {(hits: Hit[], from: number) => HTMLElement[]} */
  const itemsOf = (hits, from) =>
    hits.map((hit, at) => h("li", {}, renderHit(hit, { ...context, rank: from + at + 1 })));
  const list = h("ol", { class: "hits" }, itemsOf(answer.hits, 0));
  const end = h("div", { class: "further" }, renderEnd(answer, view.size, maxSizeOf(view), onMore));
  return {
    body: [list, end],
    append(page, from) {
      const items = itemsOf(page.hits, from);
      list.append(...items);
      const next = renderEnd(page, from + page.hits.length, maxSizeOf(view), onMore);
      end.replaceChildren(...(next ? [next] : []));
      focusOn(items[0]?.querySelector(".hit"));
    },
  };
}

/** @param {Element | null | undefined} element */
const focusOn = (element) => {
  if (element instanceof HTMLElement) element.focus({ preventScroll: true });
};

/** @type {(answer: Answer, shown: number, most: number, onMore: (size: number) => void) => HTMLElement | null} the button for a further page, or why there is none */
function renderEnd(answer, shown, most, onMore) {
  if (answer.end === "matches") return shown > PAGE_SIZE ? h("p", { class: "faint" }, "These are all results.") : null;
  if (answer.end === "candidates") {
    const text =
      "The list ends here: it is fused from the first 100 hits of each list. Sparse or lexical search alone goes further.";
    return h("p", { class: "faint" }, text);
  }
  const more = Boolean(answer.cursor) || answer.hits.length >= shown;
  if (!more || shown >= most) return null;
  const next = Math.min(most, shown + PAGE_SIZE);
  const properties = { type: "button", class: "example", data: { act: "more" }, on: { click: () => onMore(next) } };
  return h("button", properties, `Show ${next - shown} more`);
}

// ---- two lists side by side, with the same result tied together

const LISTS = [
  { mode: "lexical", label: "Lexical", note: "keyword search: the words of the query (BM25)" },
  { mode: "sparse", label: "Sparse", note: "the encoder’s weights of the document" },
];

/**
 * Compare two ranked lists. Return the number of results in both and in only one of them, and for each list the ranks
 * (from 1) by the identity of a result.
 * @param {readonly Hit[]} left
 * @param {readonly Hit[]} right
 * @param {Answer["unit"]} unit
 */
export function compareLists(left, right, unit) {
  const ranks = [left, right].map((hits) => new Map(hits.map((hit, at) => [keyOf(hit, unit), at + 1])));
  const both = left.filter((hit) => ranks[1].has(keyOf(hit, unit))).length;
  return { both, only: [left.length - both, right.length - both], ranks };
}

/**
 * @param {View} view
 * @param {Answer[]} answers of the lexical and the sparse list, in this order
 * @param {Handlers} handlers
 */
function renderSideBySide(view, answers, { linkTo, like, onMore }) {
  const unit = answers[0].unit;
  const { both, only, ranks } = compareLists(answers[0].hits, answers[1].hits, unit);
  const columns = LISTS.map(({ mode, label, note }, side) => {
    const { hits, timings_ms } = answers[side];
    const context = { mode, unit, linkTo, like: like && mode === "sparse" };
    const items = hits.map((hit, at) => {
      const rank = at + 1;
      const relation = renderRelation(rank, ranks[1 - side].get(keyOf(hit, unit)), LISTS[1 - side].mode);
      return h("li", {}, renderHit(hit, { ...context, rank, relation }));
    });
    return h(
      "section",
      { class: "column", "aria-label": `${label} results`, data: { side } },
      h(
        "header",
        { class: "column-head" },
        h("h2", {}, label),
        h("p", {}, note),
        h("p", { class: "took" }, formatDuration(timings_ms?.total)),
      ),
      hits.length === 0 && h("p", { class: "nothing" }, "Nothing found."),
      h("ol", { class: "hits" }, items),
    );
  });
  const ties = svg("svg", { class: "ties", "aria-hidden": "true" });
  const comparison = h("div", { class: "comparison" }, columns[0], ties, columns[1]);
  drawTies(comparison, ties);
  const longer = answers[answers[0].hits.length >= answers[1].hits.length ? 0 : 1];
  const end = renderEnd(longer, view.size, maxSizeOf(view), onMore);
  const shared = `${both || "No"} ${unit ?? "document"}${both === 1 ? "" : "s"} in both lists`;
  return {
    status: `${shared}, ${only[0]} only in the lexical list, ${only[1]} only in the sparse list`,
    body: [comparison, h("div", { class: "further" }, end)],
    append: null,
  };
}

/** @type {(rank: number, other: number | undefined, list: string) => HTMLElement} how a rank compares with that in the other list */
function renderRelation(rank, other, list) {
  if (other === undefined) return h("span", { class: "relation only" }, "only here");
  const climbed = other - rank;
  const kind = climbed > 0 ? "up" : climbed < 0 ? "down" : "same";
  const words = climbed === 0 ? "the same rank" : `${Math.abs(climbed)} ${climbed > 0 ? "higher" : "lower"} here`;
  return h(
    "button",
    {
      type: "button",
      class: `relation ${kind}`,
      data: { act: "counterpart" },
      title: "Go to the same result in the other list",
    },
    h(
      "span",
      { class: "arrow", "aria-hidden": "true" },
      { up: "▲", down: "▼", same: "=" }[kind],
      climbed !== 0 && String(Math.abs(climbed)),
    ),
    ` ${list} ${other}`,
    h("span", { class: "visually-hidden" }, `, ${words}`),
  );
}

/**
 * Return the article with the same result in the other list, or null.
 * @param {HTMLElement} article
 * @returns {HTMLElement | null}
 */
export function counterpartOf(article) {
  const side = columnOf(article)?.dataset.side;
  const other = article.closest(".comparison")?.querySelector(`.column[data-side="${1 - Number(side)}"]`);
  return hitsIn(other).find((hit) => hit.dataset.key === article.dataset.key) ?? null;
}

/** @type {(article: HTMLElement) => HTMLElement | null} the list side by side that holds an article */
export const columnOf = (article) => article.closest(".column");

/** @type {(element: Element | null | undefined) => HTMLElement[]} articles of hits */
export const hitsIn = (element) => [.../** @type {Iterable<HTMLElement>} */ (element?.querySelectorAll(".hit") ?? [])];

/** @type {(comparison: HTMLElement, ties: SVGSVGElement) => void} draw a curve between the titles of each result in both lists, and draw it again when anything moves */
function drawTies(comparison, ties) {
  const draw = () => {
    const frame = ties.getBoundingClientRect();
    ties.replaceChildren();
    if (frame.width === 0) return;
    for (const article of hitsIn(comparison.querySelector('.column[data-side="0"]'))) {
      const other = counterpartOf(article);
      if (!other) continue;
      const [from, to] = [heightOf(article, frame), heightOf(other, frame)];
      const bend = frame.width / 2;
      const path = `M4 ${from} C${bend} ${from} ${bend} ${to} ${frame.width - 10} ${to}`;
      ties.append(svg("path", { d: path, class: "tie", data: { key: article.dataset.key } }));
    }
  };
  new ResizeObserver(draw).observe(comparison);
  comparison.addEventListener("fold", draw);
  for (const event of ["pointerover", "focusin"]) {
    comparison.addEventListener(event, ({ target }) => {
      const article = target instanceof Element ? target.closest(".hit") : null;
      highlight(comparison, article instanceof HTMLElement ? article.dataset.key : undefined);
    });
  }
  comparison.addEventListener("pointerleave", () => highlight(comparison, undefined));
}

/** @type {(article: HTMLElement, frame: DOMRect) => number} the middle of the first line of its title, in pixels below the frame's top */
function heightOf(article, frame) {
  const title = /** @type {HTMLElement} */ (article.querySelector("h3")).getBoundingClientRect();
  return Math.round(title.top - frame.top + Math.min(title.height, 26) / 2);
}

/** @type {(comparison: HTMLElement, key: string | undefined) => void} highlight the result under the pointer or with the focus in both lists */
function highlight(comparison, key) {
  const elements = /** @type {NodeListOf<HTMLElement | SVGElement>} */ (comparison.querySelectorAll(".hit, .tie"));
  for (const element of elements) element.classList.toggle("lit", key !== undefined && element.dataset.key === key);
}

// ---- what the rules of the index did to a search

/**
 * Describe the rules that concerned the answers of a view; nothing where no rule did.
 * @param {readonly Answer[]} answers
 * @returns {HTMLElement[]}
 */
export function renderRules(answers) {
  const curations = answers.flatMap(({ curation }) => curation ?? []);
  const applied = withoutRepetition(curations.flatMap((curation) => curation.applied));
  const skipped = withoutRepetition(curations.flatMap((curation) => curation.skipped ?? []));
  /** @param {string} kind */
  const matchedBy = (kind) => applied.filter((rule) => rule.kind === kind).map(({ matched }) => matched);
  const pinned = Math.max(0, ...answers.map(({ hits }) => hits.filter((hit) => hit.pinned).length));
  const hidden = Math.max(0, ...curations.map((curation) => curation.hidden ?? 0));
  /** @type {Child[]} */
  const parts = [
    quoteWords("synonyms of", matchedBy("synonym")),
    quoteWords("weights of", matchedBy("term")),
    pinned > 0 && `${formatCount(pinned, "document")} pinned`,
    hidden > 0 && `${formatCount(hidden, "document")} hidden`,
    ...matchedBy("boost").map((filter) => ["factor for ", h("code", {}, filter)]),
    ...matchedBy("field").map((field) => `words of the ${field} count more`),
    ...skipped.map(({ what, reason }) => [h("code", {}, what), ` ${SKIPPED.get(reason) ?? "was left out"}`]),
  ].filter(Boolean);
  if (parts.length === 0) return [];
  const sentence = parts.map((part, at) => [at > 0 && "; ", part]);
  return [h("p", { class: "remark rules" }, "By rules of the index: ", sentence, ".")];
}

const SKIPPED = new Map([
  ["too_many", "was left out because there are too many"],
  ["not_found", "is pinned but was not found"],
  ["sorted", "is not pinned in a sorted list"],
  ["several_indexes", "is not pinned across indexes"],
  ["unfit", "does not fit this generation of the index"],
  ["by_unit", "applies to whole documents only"],
]);

/** @template T @param {readonly T[]} list @returns {T[]} */
const withoutRepetition = (list) => [...new Map(list.map((entry) => [JSON.stringify(entry), entry])).values()];

/** @type {(label: string, words: string[]) => Child} */
const quoteWords = (label, words) =>
  words.length > 0 && [`${label} `, words.map((word, at) => [at > 0 && ", ", h("q", {}, word)])];

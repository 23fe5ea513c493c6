// Why a document matched: a bar for each contribution, by list. Sparse: query weight × document weight.

import { h } from "./dom.js";
import { weight } from "./format.js";

const SHOWN = 8;
const LISTS = [
  { list: "sparse", label: "Sparse", note: "query weight × document weight" },
  { list: "lexical", label: "Keyword", note: "each word’s share of the BM25 score" },
];

/** The panel for a hit that has `why`, strongest contribution first. */
export function whyPanel(hit) {
  return h(
    "div",
    { class: "why" },
    hit.fusion && fused(hit),
    LISTS.map(({ list, label, note }) => {
      const entries = hit.why.filter((entry) => entry.list === list).sort((a, b) => b.contribution - a.contribution);
      return entries.length > 0 && contributions(entries, { list, label, note });
    }),
  );
}

/** How a fused score is made: of each list its share times the document's score on the common scale. */
function fused(hit) {
  const parts = LISTS.filter(({ list }) => hit.fusion[list]).map(({ list, label }) => {
    const { share, scaled, contribution } = hit.fusion[list];
    return h("span", { class: "part" }, `${label.toLowerCase()} ${weight(share)} × ${weight(scaled)} = `, h("b", {}, contribution.toFixed(3)));
  });
  return h("p", { class: "fused" }, h("b", {}, `Fused ${total(Object.values(hit.fusion)).toFixed(3)}`), parts);
}

function contributions(entries, { list, label, note }) {
  const strongest = entries[0].contribution;
  const [shown, rest] = [entries.slice(0, SHOWN), entries.slice(SHOWN)];
  const bars = h("ol", { class: "bars" }, shown.map((entry) => bar(entry, strongest)));
  const more =
    rest.length > 0 &&
    h("button", { type: "button", class: "toggle more" }, `${rest.length} more, together ${weight(total(rest))}`);
  if (more) {
    more.addEventListener("click", () => {
      bars.append(...rest.map((entry) => bar(entry, strongest)));
      more.remove();
      bars.dispatchEvent(new CustomEvent("fold", { bubbles: true }));
    });
  }
  const expansions = entries.filter((entry) => entry.expansion);
  return h(
    "div",
    { class: "contributions", data: { list } },
    h("p", { class: "why-head" }, h("b", {}, `${label} ${weight(total(entries))}`), ` ${note}`),
    bars,
    more,
    expansions.length > 0 && expansionNote(total(expansions) / total(entries)),
  );
}

const total = (entries) => entries.reduce((sum, entry) => sum + entry.contribution, 0);

function expansionNote(part) {
  return h(
    "p",
    { class: "why-note" },
    h("span", { class: "swatch expansion" }),
    `not in the document’s own words, added by the encoder: ${Math.round(100 * part)} % of the score`,
  );
}

function bar(entry, strongest) {
  const factors = Number.isFinite(entry.query_weight) && `${weight(entry.query_weight)} × ${weight(entry.document_weight)} = `;
  const rule = ["boost", "title"].find((origin) => entry.origins && origin in entry.origins);
  return h(
    "li",
    { class: entry.expansion ? "expansion" : "", data: { piece: entry.piece } },
    h("span", { class: "piece" }, entry.piece, entry.expansion && h("span", { class: "quiet" }, " (expansion)"), rule && h("span", { class: "quiet" }, ` (${rule})`)),
    h("span", { class: "bar", part: entry.contribution / strongest, "aria-hidden": "true" }),
    h("span", { class: "product" }, factors && h("span", {}, factors), h("b", {}, weight(entry.contribution))),
  );
}

// Beside the results: the query as the index sees it, and where the time went.

import { h } from "./dom.js";
import { duration, weight } from "./format.js";

const SHOWN = 12;

/** `answers` is a list of {label, answer}: one for a plain search, two side by side. */
export function renderInsight(answers) {
  const pieces = answers.map(({ answer }) => answer.pieces ?? []).find((list) => list.length > 0) ?? [];
  const longest = Math.max(...answers.map(({ answer }) => answer.timings_ms?.total ?? 0));
  return [
    pieces.length > 0 && queryPieces(pieces),
    h(
      "section",
      { class: "times" },
      h("h2", {}, "Time"),
      answers.map(({ label, answer }) => times(label, answer.timings_ms ?? {}, longest)),
    ),
    pieces.length > 0 && legend(),
  ].filter(Boolean);
}

function queryPieces(pieces) {
  const sorted = [...pieces].sort((a, b) => b.weight - a.weight);
  const strongest = sorted[0].weight;
  const [shown, rest] = [sorted.slice(0, SHOWN), sorted.slice(SHOWN)];
  const row = (entry) => pieceRow(entry, strongest);
  const bars = h("ol", { class: "bars" }, shown.map(row));
  const more = rest.length > 0 && h("button", { type: "button", class: "toggle more" }, `${rest.length} lighter ones`);
  if (more) {
    more.addEventListener("click", () => {
      bars.append(...rest.map(row));
      more.remove();
    });
  }
  return h("section", { class: "query-pieces" }, h("h2", {}, "The query in pieces"), bars, more);
}

function pieceRow(entry, strongest) {
  const title = entry.pruned ? "pruned: in no score" : null;
  return h(
    "li",
    { class: entry.pruned ? "pruned" : originOf(entry), data: { piece: entry.piece }, title },
    h("span", { class: "piece" }, entry.piece, entry.pruned && h("span", { class: "quiet" }, " (pruned)")),
    h("span", { class: "bar", part: entry.weight / strongest, "aria-hidden": "true" }),
    h("span", { class: "product" }, h("b", {}, weight(entry.weight))),
  );
}

/** "added" for a piece that the query's own words do not hold: examples or earlier turns brought it. */
const originOf = ({ origins }) => (origins && !origins.query ? "added" : "");

/** The stages in the order they happen. What OpenSearch reports as its own is split from the way there and back. */
export function stages(timings) {
  const { encode = 0, opensearch = 0, engine = 0, fuse = 0, rerank = 0, shape = 0, total = 0 } = timings;
  const list = [
    ["encode", "query to pieces", encode],
    ["engine", "OpenSearch itself", Math.min(engine, opensearch)],
    ["transport", "to OpenSearch and back", Math.max(0, opensearch - engine)],
    ["fuse", "merge the lists", fuse],
    ["rerank", "the second opinion", rerank],
    ["shape", "passages, reasons", shape],
  ];
  const known = list.reduce((sum, [, , ms]) => sum + ms, 0);
  return [...list, ["rest", "everything else", Math.max(0, total - known)]]
    .map(([name, meaning, ms]) => ({ name, meaning, ms }))
    .filter(({ ms }) => ms > 0.0005);
}

function times(label, timings, longest) {
  const parts = stages(timings);
  return h(
    "div",
    { class: "time" },
    h("p", { class: "time-total" }, label && `${label} `, h("b", {}, duration(timings.total))),
    h(
      "div",
      { class: "stack", "aria-hidden": "true" },
      parts.map(({ name, ms }) => h("span", { class: `stage-${name}`, part: ms / (longest || 1) })),
    ),
    h(
      "dl",
      { class: "stage-list" },
      parts.map(({ name, meaning, ms }) =>
        h("div", {}, h("dt", {}, h("span", { class: `swatch stage-${name}` }), meaning), h("dd", {}, duration(ms))),
      ),
    ),
  );
}

function legend() {
  return h(
    "section",
    { class: "legend" },
    h("h2", {}, "A marked word adds"),
    h("p", {}, h("mark", { class: "m3" }, "most"), " ", h("mark", { class: "m2" }, "some"), " ", h("mark", { class: "m1" }, "a little")),
  );
}

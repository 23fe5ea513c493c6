// One result: title, best passage, what is known about it, and on demand why it matched and the whole document.

import { getDocument } from "./api.js";
import { disclosure, h } from "./dom.js";
import { plain, weight } from "./format.js";
import { excerpt, markRuns, wordStrength } from "./marking.js";
import { whyPanel } from "./why.js";

const EXCERPT = { wide: 340, narrow: 190 };
const PHONE = window.matchMedia("(width < 40rem)");
let hits = 0;

/**
 * An article for `hit`. `context` is {index, mode, rank, narrow, relation}: `mode` as the API names it,
 * `relation` an element that tells where the other list has the document, or null.
 */
export function renderHit(hit, context) {
  const { rank, narrow } = context;
  const why = hit.why ?? [];
  const strength = wordStrength(why);
  const title = hit.title || hit.id;
  const name = `hit-${(hits += 1)}`;

  const whyFold = h("div", { class: "fold", hidden: true });
  const documentFold = h("div", { class: "fold", hidden: true });
  const article = h(
    "article",
    { class: "hit", tabindex: "-1", "aria-labelledby": `${name}-title`, data: { id: hit.id, rank } },
    h("p", { class: "rank", "aria-label": `Rank ${rank}` }, String(rank)),
    h(
      "div",
      { class: "hit-head" },
      h("h3", { id: `${name}-title` }, runs(title, strength)),
      h("p", { class: "score", title: scoreTitle(context.mode) }, scoreText(hit, context.mode)),
    ),
    passage(hit, strength, narrow || PHONE.matches ? EXCERPT.narrow : EXCERPT.wide),
    h("ul", { class: "chips", "aria-label": "About the document" }, chips(hit, title)),
    h(
      "div",
      { class: "hit-foot" },
      why.length > 0 && disclosure("Why", whyFold, (panel) => panel.append(whyPanel(hit)), { data: { act: "why" } }),
      disclosure("Document", documentFold, (panel) => showDocument(panel, context.index, hit, strength), {
        data: { act: "document" },
      }),
      scoreParts(hit, context.mode),
      context.relation,
    ),
    whyFold,
    documentFold,
  );
  return article;
}

const runs = (text, strength) =>
  markRuns(text, strength).map((run) => (run.level ? h("mark", { class: `m${run.level}` }, run.text) : run.text));

function passage(hit, strength, length) {
  const { text = "", start = 0, window: number = 0, windows = 0 } = hit.passage ?? {};
  const line = text.replace(/\s+/g, " ").trim();
  if (!line) return null;
  const cut = excerpt(line, strength, length);
  const goesOn = cut.after || number + 1 < windows;
  return h("p", { class: "passage" }, (cut.before || start > 0) && "… ", runs(cut.text, strength), goesOn && " …");
}

function chips(hit, title) {
  const list = [];
  if (hit.state && hit.state !== "encoded") {
    list.push(h("li", { class: `chip state state-${hit.state}`, title: STATES[hit.state] }, hit.state));
  }
  if (!title.startsWith(hit.id)) list.push(h("li", { class: "chip id" }, hit.id));
  for (const [field, value] of Object.entries(hit.metadata ?? {})) {
    if (value === null || value === "") continue;
    list.push(h("li", { class: "chip" }, h("span", { class: "field" }, field), " ", plain(value)));
  }
  const { window: number, windows } = hit.passage ?? {};
  if (windows > 1) list.push(h("li", { class: "chip part" }, `part ${number + 1} of ${windows}`));
  return list;
}

const STATES = {
  pending: "Waiting to be encoded: keyword search finds it, sparse search not yet",
  dead: "Could not be encoded: only keyword search finds it",
};

const scoreText = (hit, mode) => (mode === "hybrid" ? hit.score.toFixed(3) : weight(hit.score));
const scoreTitle = (mode) =>
  mode === "hybrid" ? "Fused score: both lists scaled to 0…1 and weighted" : "Score as OpenSearch computed it";

/** In a hybrid list, the score that each of the two lists gave. */
function scoreParts(hit, mode) {
  if (mode !== "hybrid" || !hit.scores) return null;
  const part = (name, value) =>
    h("span", { class: value === undefined || value === null ? "absent" : "" }, name, " ", h("b", {}, value == null ? "–" : weight(value)));
  return h("p", { class: "parts" }, part("sparse", hit.scores.sparse), part("keyword", hit.scores.lexical));
}

async function showDocument(panel, index, hit, strength) {
  const waiting = h("p", { class: "faint" }, "Fetching the document …");
  panel.append(waiting);
  try {
    const stored = await getDocument(index, hit.id);
    waiting.replaceWith(
      h("dl", { class: "record" }, RECORD.map((field) => row(field, stored[field]))),
      h("div", { class: "whole", tabindex: "0", role: "group", "aria-label": "Whole text" }, wholeText(stored, hit, strength)),
    );
  } catch (problem) {
    waiting.replaceWith(h("p", { class: "faint" }, `${problem.title ?? "Error"}: ${problem.message}`));
  }
  panel.dispatchEvent(new CustomEvent("fold", { bubbles: true }));
}

const RECORD = ["id", "state", "version", "attempts", "encoder", "job", "error"];

function row(field, value) {
  if (value === undefined || value === null || value === "") return null;
  const text = field === "error" ? `${value.code}: ${value.reason}` : plain(value);
  return h("div", {}, h("dt", {}, field), h("dd", {}, text));
}

/** The stored text with the best passage set off. The API counts characters as code points, JavaScript does not. */
function wholeText(stored, hit, strength) {
  const points = [...(stored.text ?? "")];
  const { start = 0, end = 0, windows = 0 } = hit.passage ?? {};
  if (windows <= 1) return runs(stored.text ?? "", strength);
  return [
    runs(points.slice(0, start).join(""), strength),
    h("span", { class: "best", title: "The best passage" }, runs(points.slice(start, end).join(""), strength)),
    runs(points.slice(end).join(""), strength),
  ];
}

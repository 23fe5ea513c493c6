// One result: title, best passage with the words that matched, what is known about it, and on demand why it matched.

import { disclosure, h } from "./dom.js";
import { plain, weight } from "./format.js";
import { runsOf, strongest, worthNaming } from "./highlight.js";
import { lineOf, whereSaid } from "./talk.js";
import { whyPanel } from "./why.js";

const NAMED = 5;
let hits = 0;

/**
 * An article for `hit`. `context` is {mode, unit, rank, relation, linkTo, like}: `mode` and `unit` as the API names them, `relation` an
 * element that tells where the other list has the document, or null; `linkTo` gives the address of its document view,
 * and `like` says whether documents may be named as examples.
 */
export function renderHit(hit, context) {
  const { rank } = context;
  const title = hit.title || hit.id;
  const name = `hit-${(hits += 1)}`;
  const most = strongest(hit.highlight);
  const spans = hit.title ? (hit.highlight?.title ?? []) : [];
  const whyFold = h("div", { class: "fold", hidden: true });
  return h(
    "article",
    { class: "hit", tabindex: "-1", "aria-labelledby": `${name}-title`, data: { id: hit.id, key: keyOf(hit, context.unit), rank } },
    h("p", { class: "rank", "aria-label": `Rank ${rank}` }, String(rank)),
    h(
      "div",
      { class: "hit-head" },
      h("h3", { id: `${name}-title` }, h("a", { class: "open", href: context.linkTo(hit), data: { act: "document" } }, marked(runsOf(title, 0, spans, most)))),
      hit.score !== null && h("p", { class: "score", title: scoreTitle(context.mode) }, scoreText(hit, context.mode)),
    ),
    whereSaid(hit, context.unit),
    passage(hit, most),
    lineOf(hit, context.linkTo),
    beside(hit.highlight, most),
    h("ul", { class: "chips", "aria-label": "About the document" }, chips(hit, title)),
    h(
      "div",
      { class: "hit-foot" },
      (hit.why ?? []).length > 0 && disclosure("Why", whyFold, (panel) => panel.append(whyPanel(hit)), { data: { act: "why" } }),
      context.like && example("like", "More like this", title),
      context.like && example("unlike", "Less", title),
      scoreParts(hit, context.mode),
      context.relation,
    ),
    whyFold,
  );
}

/** What a result is, the same in every list: a document, or a chapter or passage of one. */
export const keyOf = ({ id, chapter, passage }, unit) => JSON.stringify([id, unit === "chapter" ? chapter?.number : unit === "passage" ? passage?.start : null]);

/** Runs of a text as elements; a marked word tells what it added. */
export const marked = (runs) =>
  runs.map(({ text, level, matches }) => (level ? h("mark", { class: `m${level}`, title: matches.map(matchText).join("\n") }, text) : text));

const LIST_NAMES = { sparse: "sparse", lexical: "keyword" };
const matchText = ({ list, piece, contribution }) => `${LIST_NAMES[list]} ${piece} ${weight(contribution)}`;

const example = (act, label, title) =>
  h("button", { type: "button", class: "toggle example-of", data: { act } }, label, h("span", { class: "quiet" }, ` ${act === "like" ? "as" : "like"} “${title}”`));

function passage(hit, most) {
  const { start = 0, window: number = 0, windows = 0 } = hit.passage ?? {};
  const shown = hit.highlight?.excerpt ?? hit.passage;
  if (!shown?.text.trim()) return null;
  const before = shown.start > 0 || start > 0;
  const goesOn = shown.end < (hit.passage?.end ?? 0) || number + 1 < windows;
  return h("p", { class: "passage" }, before && "… ", marked(runsOf(shown.text, shown.start, hit.highlight?.text ?? [], most)), goesOn && " …");
}

/** What matched and stands nowhere in what is shown. */
function beside(highlight, most) {
  if (!highlight) return null;
  const named = (matches) => {
    const list = worthNaming(matches, most).slice(0, NAMED);
    return list.map((match, at) => [at > 0 && ", ", h("span", { class: "named", title: matchText(match) }, match.piece)]);
  };
  const [added, elsewhere] = [named(highlight.expansions), named(highlight.elsewhere)];
  if (added.length + elsewhere.length === 0) return null;
  return h(
    "p",
    { class: "beside" },
    added.length > 0 && h("span", { class: "by-meaning" }, h("span", { class: "swatch expansion" }), "also by meaning: ", added),
    elsewhere.length > 0 && h("span", { class: "elsewhere" }, "elsewhere in it: ", elsewhere),
  );
}

function chips(hit, title) {
  const list = [];
  if (hit.pinned) list.push(h("li", { class: "chip pinned", title: "A rule of the index put it at this place" }, "pinned"));
  if (hit.state && hit.state !== "encoded") {
    list.push(h("li", { class: `chip state state-${hit.state}`, title: STATES[hit.state] }, hit.state));
  }
  if (!title.startsWith(hit.id)) list.push(h("li", { class: "chip id" }, hit.id));
  list.push(...metadataChips(hit.metadata));
  const { window: number, windows } = hit.passage ?? {};
  if (windows > 1) list.push(h("li", { class: "chip part" }, `part ${number + 1} of ${windows}`));
  return list;
}

/** Metadata as list items, a chip for each field that has a value, by name: OpenSearch gives members in any order. */
export const metadataChips = (metadata) =>
  Object.entries(metadata ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([field, value]) => h("li", { class: "chip" }, h("span", { class: "field" }, field), " ", plain(value)));

const STATES = {
  pending: "Waiting to be encoded: keyword search finds it, sparse search not yet",
  dead: "Could not be encoded: only keyword search finds it",
};

const scoreText = (hit, mode) => (mode === "hybrid" ? hit.score.toFixed(3) : weight(hit.score));
const scoreTitle = (mode) =>
  mode === "hybrid" ? "Fused score: both lists brought to one scale and weighted" : "Score as OpenSearch computed it";

const PARTS = [["sparse", "sparse"], ["keyword", "lexical"], ["dense", "dense"]];

/** The score that each list gave, where there are several. */
function scoreParts(hit, mode) {
  const { scores = {} } = hit;
  if (mode !== "hybrid" && scores.dense === undefined) return null;
  const shown = PARTS.filter(([, list]) => scores[list] !== undefined || (mode === "hybrid" && list !== "dense"));
  const part = ([name, list]) =>
    h("span", { class: scores[list] === undefined ? "absent" : "" }, name, " ", h("b", {}, scores[list] === undefined ? "–" : weight(scores[list])));
  return h("p", { class: "parts" }, shown.map(part));
}

// A hit: title, best passage with the matched words marked, metadata, and on demand the contributions to its score.

import { disclosure, foldList, formatValue, formatWeight, h } from "./dom.js";
import { placeInTalk, timelineOf } from "./talk.js";

/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./api.js").Match} Match */
/** @typedef {import("./api.js").Span} Span */
/** @typedef {import("./api.js").Why} Why */
/** @typedef {import("./api.js").Highlight} Highlight */
/** @typedef {import("./dom.js").Child} Child */

/**
 * How a list shows its hits.
 * @typedef {object} HitContext
 * @property {string} mode of the API
 * @property {"chapter" | "passage" | null} [unit] the kind of result; none: a document
 * @property {(hit: { id: string, passage?: { start: number, end: number } | null }) => string} linkTo gives the address that opens a hit's document
 * @property {boolean} like whether hits can be named as examples
 */

// Pieces that are named below a passage.
const NAMED = 5;
let count = 0;

/**
 * Create the article of a hit.
 * @param {Hit} hit
 * @param {HitContext & { rank: number, relation: Child }} context `relation` tells the rank in the other list, if any
 */
export function renderHit(hit, { mode, unit, linkTo, like, rank, relation }) {
  const title = hit.title || hit.id;
  count += 1;
  const name = `hit-${count}-title`;
  const strongest = strongestOf(hit.highlight);
  const spans = hit.title ? (hit.highlight?.title ?? []) : [];
  const whyFold = h("div", { class: "fold", hidden: true });
  return h(
    "article",
    { class: "hit", tabindex: "-1", "aria-labelledby": name, data: { id: hit.id, key: keyOf(hit, unit), rank } },
    h("p", { class: "rank", "aria-label": `Rank ${rank}` }, String(rank)),
    h(
      "div",
      { class: "hit-head" },
      h(
        "h3",
        { id: name },
        h(
          "a",
          { class: "open", href: linkTo(hit), data: { act: "document" } },
          marked(runsOf(title, 0, spans, strongest)),
        ),
      ),
      hit.score !== null && h("p", { class: "score", title: scoreTitle(mode) }, formatScore(hit.score, mode)),
    ),
    placeInTalk(hit, unit),
    passageOf(hit, strongest),
    timelineOf(hit, linkTo),
    hit.highlight && piecesBeside(hit.highlight, strongest),
    h("ul", { class: "chips", "aria-label": "About the document" }, chips(hit, title)),
    h(
      "div",
      { class: "hit-foot" },
      (hit.why ?? []).length > 0 &&
        disclosure("Why", whyFold, (panel) => panel.append(renderWhy(hit)), { data: { act: "why" } }),
      like && [
        h(
          "button",
          { type: "button", class: "toggle", data: { act: "like" } },
          "More like this",
          hiddenText(` as “${title}”`),
        ),
        h(
          "button",
          { type: "button", class: "toggle", data: { act: "unlike" } },
          "Less",
          hiddenText(` like “${title}”`),
        ),
      ],
      scoresByList(hit, mode),
      relation,
    ),
    whyFold,
  );
}

/** @param {string} text for screen readers only */
const hiddenText = (text) => h("span", { class: "visually-hidden" }, text);

/**
 * Return the identity of a result, the same in every list: of a document, or of a chapter or passage of it.
 * @param {Hit} hit
 * @param {"chapter" | "passage" | null} [unit]
 */
export function keyOf({ id, chapter, passage }, unit) {
  return JSON.stringify([id, unit === "chapter" ? chapter?.number : unit === "passage" ? passage?.start : null]);
}

/** @type {(hit: Hit, strongest: Strongest) => Child} */
function passageOf(hit, strongest) {
  const { start = 0, end = 0, window = 0, windows = 0 } = hit.passage ?? {};
  const shown = hit.highlight?.excerpt ?? hit.passage;
  if (!shown?.text.trim()) return null;
  const before = shown.start > 0 || start > 0;
  const after = shown.end < end || window + 1 < windows;
  const runs = runsOf(shown.text, shown.start, hit.highlight?.text ?? [], strongest);
  return h("p", { class: "passage" }, before && "… ", marked(runs), after && " …");
}

/** @type {(highlight: Highlight, strongest: Strongest) => Child} the pieces that matched outside the shown text */
function piecesBeside(highlight, strongest) {
  /** @param {Match[]} matches */
  const named = (matches) =>
    worthNaming(matches, strongest)
      .slice(0, NAMED)
      .map((match, at) => [at > 0 && ", ", h("span", { class: "named", title: describeMatch(match) }, match.piece)]);
  const [added, elsewhere] = [named(highlight.expansions), named(highlight.elsewhere)];
  if (added.length + elsewhere.length === 0) return null;
  return h(
    "p",
    { class: "beside" },
    added.length > 0 &&
      h("span", { class: "by-meaning" }, h("span", { class: "swatch expansion" }), "also by meaning: ", added),
    elsewhere.length > 0 && h("span", { class: "elsewhere" }, "elsewhere in the document: ", elsewhere),
  );
}

/** @type {(hit: Hit, title: string) => Child[]} */
function chips(hit, title) {
  const { window = 0, windows = 0 } = hit.passage ?? {};
  return [
    hit.pinned &&
      h("li", { class: "chip pinned", title: "A rule of the index puts the document at this rank" }, "pinned"),
    hit.state !== undefined &&
      hit.state !== "encoded" &&
      h("li", { class: `chip state state-${hit.state}`, title: STATES.get(hit.state) }, hit.state),
    !title.startsWith(hit.id) && h("li", { class: "chip id" }, hit.id),
    metadataChips(hit.metadata),
    windows > 1 && h("li", { class: "chip window" }, `window ${window + 1} of ${windows}`),
  ];
}

const STATES = new Map([
  ["pending", "Not encoded yet: lexical search finds the document, sparse search does not yet"],
  ["dead", "Could not be encoded: only lexical search finds the document"],
]);

/**
 * Create a chip for each metadata field with a value, by name: OpenSearch returns the fields in any order.
 * @param {Record<string, unknown> | null | undefined} metadata
 */
export const metadataChips = (metadata) =>
  Object.entries(metadata ?? {})
    .filter(([, value]) => value !== null && value !== "")
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([field, value]) => h("li", { class: "chip" }, h("span", { class: "field" }, field), " ", formatValue(value)));

/** @type {(score: number, mode: string) => string} */
const formatScore = (score, mode) => (mode === "hybrid" ? score.toFixed(3) : formatWeight(score));

/** @param {string} mode */
const scoreTitle = (mode) =>
  mode === "hybrid" ? "Fused score: the weighted sum of both lists on one scale" : "Score computed by OpenSearch";

const SCORES = ["sparse", "lexical", "dense", "table"];

/** @type {(hit: Hit, mode: string) => Child} the score in each list, when there are several */
function scoresByList({ scores = {} }, mode) {
  const shown = SCORES.filter((list) => scores[list] !== undefined || (mode === "hybrid" && SCORES.indexOf(list) < 2));
  if (mode !== "hybrid" && shown.length < 2) return null;
  return h(
    "p",
    { class: "scores" },
    shown.map((list) => h("span", {}, list, " ", h("b", {}, formatWeight(scores[list])))),
  );
}

// ---- marked words: the API names the matches and their contributions

/** @typedef {Record<import("./api.js").ListName, number>} Strongest the largest contribution in each list */
/** @typedef {{ text: string, level: number, matches: Match[] }} Run */

// Function words match too, with almost no weight: to mark them would be noise. A share of the strongest contribution.
const NOISE = 0.04;

/**
 * @param {Partial<Highlight> | null | undefined} highlight
 * @returns {Strongest}
 */
export function strongestOf(highlight) {
  const strongest = { sparse: 0, lexical: 0 };
  const { title = [], text = [], expansions = [], elsewhere = [] } = highlight ?? {};
  const matches = [...[...title, ...text].flatMap((span) => span.matches), ...expansions, ...elsewhere];
  for (const { list, contribution } of matches) strongest[list] = Math.max(strongest[list], contribution);
  return strongest;
}

/**
 * Split a text at its marked words. Levels are 0 (not marked) to 3 (strong).
 * @param {string} text
 * @param {number} offset of the text; spans count code points, as the API does and JavaScript does not
 * @param {readonly Span[]} spans
 * @param {Strongest} strongest
 * @returns {Run[]}
 */
export function runsOf(text, offset, spans, strongest) {
  const points = [...text];
  /** @type {Run[]} */
  const runs = [];
  let at = 0;
  /** @param {number} end */
  const addPlain = (end) => {
    if (end > at) runs.push({ text: points.slice(at, end).join(""), level: 0, matches: [] });
  };
  for (const { start, end, matches } of spans) {
    const [from, to] = [Math.max(at, start - offset), Math.min(points.length, end - offset)];
    const level = levelOf(strengthOf(matches, strongest));
    if (level === 0 || to <= from) continue;
    addPlain(from);
    runs.push({ text: points.slice(from, to).join(""), level, matches });
    at = to;
  }
  addPlain(points.length);
  return runs;
}

/** @type {(matches: readonly Match[], strongest: Strongest) => Match[]} without noise and repetition, strongest first */
export function worthNaming(matches, strongest) {
  /** @param {Match} match */
  const shareOf = ({ list, contribution }) => (strongest[list] > 0 ? contribution / strongest[list] : 0);
  const loud = matches.filter((match) => shareOf(match) >= NOISE);
  return loud
    .filter(({ piece }, at) => loud.findIndex((match) => match.piece === piece) === at)
    .sort((a, b) => shareOf(b) - shareOf(a));
}

/** @type {(matches: readonly Match[], strongest: Strongest) => number} 0 to 1 */
function strengthOf(matches, strongest) {
  // In a hybrid search, a word that only the lexical list matched counts half.
  const lexical = strongest.sparse > 0 ? 0.5 : 1;
  return Math.max(
    0,
    ...matches.map(({ list, contribution }) =>
      strongest[list] > 0 ? (contribution / strongest[list]) * (list === "lexical" ? lexical : 1) : 0,
    ),
  );
}

/** @param {number} strength */
const levelOf = (strength) => (strength < NOISE ? 0 : strength >= 0.6 ? 3 : strength >= 0.25 ? 2 : 1);

/**
 * Create the content of a text with marked words. The title of a mark tells its contributions.
 * @param {readonly Run[]} runs
 * @returns {Child[]}
 */
export const marked = (runs) =>
  runs.map(({ text, level, matches }) =>
    level ? h("mark", { class: `m${level}`, title: matches.map(describeMatch).join("\n") }, text) : text,
  );

/** @param {Match} match */
const describeMatch = ({ list, piece, contribution }) => `${list} ${piece} ${formatWeight(contribution)}`;

// ---- why a document matched: a bar for each contribution, by list

const SHOWN = 8;
/** @type {{ list: import("./api.js").ListName, label: string, note: string }[]} */
const LISTS = [
  { list: "sparse", label: "Sparse", note: "query weight × document weight" },
  { list: "lexical", label: "Lexical", note: "each word’s share of the BM25 score" },
];

/** @param {Hit} hit */
function renderWhy({ fusion, why }) {
  return h(
    "div",
    { class: "why" },
    fusion && renderFusion(fusion),
    LISTS.map(({ list, label, note }) => {
      const entries = (why ?? [])
        .filter((entry) => entry.list === list)
        .sort((a, b) => b.contribution - a.contribution);
      return entries.length > 0 && renderContributions(entries, list, label, note);
    }),
  );
}

/** @type {(fusion: NonNullable<Hit["fusion"]>) => HTMLElement} each list's weight times the document's score on the common scale */
function renderFusion(fusion) {
  const terms = LISTS.filter(({ list }) => fusion[list]).map(({ list }) => {
    const { share, scaled, contribution } = fusion[list];
    return h(
      "span",
      {},
      `${list} ${formatWeight(share)} × ${formatWeight(scaled)} = `,
      h("b", {}, contribution.toFixed(3)),
    );
  });
  return h("p", { class: "fused" }, h("b", {}, `Fused ${sumOf(Object.values(fusion)).toFixed(3)}`), terms);
}

/** @type {(entries: Why[], list: string, label: string, note: string) => HTMLElement} */
function renderContributions(entries, list, label, note) {
  const sum = sumOf(entries);
  const strongest = entries[0].contribution;
  const expansions = entries.filter((entry) => entry.expansion);
  const bars = h("ol", { class: "bars" });
  const more = foldList(
    bars,
    entries,
    SHOWN,
    (entry) => renderBar(entry, strongest),
    (rest) => `${rest.length} more, together ${formatWeight(sumOf(rest))}`,
  );
  return h(
    "div",
    { class: "contributions", data: { list } },
    h("p", { class: "why-head" }, h("b", {}, `${label} ${formatWeight(sum)}`), ` ${note}`),
    bars,
    more,
    expansions.length > 0 &&
      h(
        "p",
        { class: "why-note" },
        h("span", { class: "swatch expansion" }),
        `not in the document’s own words, added by the encoder: ${Math.round((100 * sumOf(expansions)) / sum)} % of the score`,
      ),
  );
}

/** @type {(entries: readonly { contribution: number }[]) => number} */
const sumOf = (entries) => entries.reduce((sum, entry) => sum + entry.contribution, 0);

/** @type {(entry: Why, strongest: number) => HTMLElement} */
function renderBar({ piece, contribution, expansion, query_weight, document_weight, origins }, strongest) {
  const factors = query_weight != null && `${formatWeight(query_weight)} × ${formatWeight(document_weight)} = `;
  const rule = ["boost", "title"].find((origin) => origins && origin in origins);
  return h(
    "li",
    { class: expansion ? "expansion" : "", data: { piece } },
    h("span", { class: "piece" }, piece, expansion && hiddenText(" (expansion)"), rule && hiddenText(` (${rule})`)),
    h("span", { class: "bar", fraction: contribution / strongest, "aria-hidden": "true" }),
    h("span", { class: "product" }, factors && h("span", {}, factors), h("b", {}, formatWeight(contribution))),
  );
}

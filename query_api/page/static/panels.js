// Panels beside and in place of the results: the pieces and the time of a query, its request, notices and errors.

import { forgetKey, hasKey, searchAddress, storeKey } from "./api.js";
import { foldList, formatDuration, formatWeight, h } from "./dom.js";
import { curlOf } from "./requests.js";

/** @typedef {import("./api.js").Answer} Answer */
/** @typedef {import("./api.js").Problem} Problem */
/** @typedef {import("./api.js").QueryPiece} QueryPiece */
/** @typedef {import("./state.js").View} View */

// ---- the query as the index sees it, and where the time went

// Pieces of the query that are shown without a click.
const SHOWN = 12;

/**
 * @param {readonly { label: string, answer: Answer }[]} answers one, or two for lists side by side
 * @returns {HTMLElement[]}
 */
export function renderInsight(answers) {
  const pieces = answers.map(({ answer }) => answer.pieces ?? []).find((list) => list.length > 0) ?? [];
  const longest = Math.max(...answers.map(({ answer }) => answer.timings_ms?.total ?? 0));
  const times = h(
    "section",
    { class: "times" },
    h("h2", {}, "Time"),
    answers.map(({ label, answer }) => renderTime(label, answer.timings_ms ?? {}, longest)),
  );
  return pieces.length > 0 ? [renderPieces(pieces), times, renderLegend()] : [times];
}

/** @param {QueryPiece[]} pieces */
function renderPieces(pieces) {
  const sorted = [...pieces].sort((a, b) => b.weight - a.weight);
  const strongest = sorted[0].weight;
  const bars = h("ol", { class: "bars" });
  const more = foldList(
    bars,
    sorted,
    SHOWN,
    (piece) => renderPiece(piece, strongest),
    (rest) => `${rest.length} lighter ones`,
  );
  return h("section", { class: "query-pieces" }, h("h2", {}, "The query in pieces"), bars, more);
}

/** @type {(entry: QueryPiece, strongest: number) => HTMLElement} */
function renderPiece({ piece, weight, pruned, origins, encoder_weight, factor }, strongest) {
  const added = origins && !origins.query; // by examples, earlier turns or rules, not by words of the query
  const adapted =
    factor != null
      ? `The encoder’s weight ${formatWeight(encoder_weight)} × ${formatWeight(factor)} for this index`
      : null;
  return h(
    "li",
    {
      class: pruned ? "pruned" : added ? "added" : "",
      data: { piece },
      title: pruned ? "Pruned: it adds to no score" : adapted,
    },
    h("span", { class: "piece" }, piece, pruned && h("span", { class: "visually-hidden" }, " (pruned)")),
    h("span", { class: "bar", fraction: weight / strongest, "aria-hidden": "true" }),
    h("span", { class: "product" }, adapted && `× ${formatWeight(factor)} = `, h("b", {}, formatWeight(weight))),
  );
}

/**
 * Divide the time of a search into stages, in the order they happen, without the empty ones. The time that OpenSearch
 * reports is separated from the way there and back.
 * @param {Record<string, number>} timings in milliseconds
 */
export function stagesOf({ encode = 0, opensearch = 0, engine = 0, fuse = 0, rerank = 0, shape = 0, total = 0 }) {
  const stages = [
    { name: "encode", meaning: "query to pieces", ms: encode },
    { name: "engine", meaning: "OpenSearch itself", ms: Math.min(engine, opensearch) },
    { name: "transport", meaning: "to OpenSearch and back", ms: Math.max(0, opensearch - engine) },
    { name: "fuse", meaning: "fuse the lists", ms: fuse },
    { name: "rerank", meaning: "rerank", ms: rerank },
    { name: "shape", meaning: "passages, reasons", ms: shape },
  ];
  const known = stages.reduce((sum, { ms }) => sum + ms, 0);
  const rest = { name: "rest", meaning: "everything else", ms: Math.max(0, total - known) };
  return [...stages, rest].filter(({ ms }) => ms > 0.0005);
}

/** @type {(label: string, timings: Record<string, number>, longest: number) => HTMLElement} */
function renderTime(label, timings, longest) {
  const stages = stagesOf(timings);
  const rows = stages.map(({ name, meaning, ms }) =>
    h("div", {}, h("dt", {}, h("span", { class: `swatch stage-${name}` }), meaning), h("dd", {}, formatDuration(ms))),
  );
  return h(
    "div",
    { class: "time" },
    h("p", { class: "time-total" }, label && `${label} `, h("b", {}, formatDuration(timings.total))),
    h(
      "div",
      { class: "stack", "aria-hidden": "true" },
      stages.map(({ name, ms }) => h("span", { class: `stage-${name}`, fraction: ms / (longest || 1) })),
    ),
    h("dl", { class: "stage-list" }, rows),
  );
}

function renderLegend() {
  const marks = [
    h("mark", { class: "m3" }, "most"),
    " ",
    h("mark", { class: "m2" }, "some"),
    " ",
    h("mark", { class: "m1" }, "a little"),
  ];
  return h("section", { class: "legend" }, h("h2", {}, "A marked word adds"), h("p", {}, marks));
}

// ---- the requests behind the results

/**
 * Show requests as JSON, with buttons that copy them as JSON and as a command for a shell.
 * @param {string} index
 * @param {readonly import("./requests.js").Request[]} requests
 */
export function renderRequests(index, requests) {
  const address = searchAddress(index);
  return requests.map(({ label, body }) => {
    const json = JSON.stringify(body, null, 2);
    return h(
      "section",
      { class: "request", "aria-label": `${label || "The"} request` },
      h(
        "header",
        {},
        h("h2", {}, label && `${label} · `, h("code", {}, `POST ${new URL(address).pathname}`)),
        copyButton("Copy JSON", () => json),
        copyButton("Copy as curl", () => curlOf(address, body)),
      ),
      h("pre", { tabindex: "0", "aria-label": "JSON" }, json),
    );
  });
}

const CONFIRMATION_MS = 1600;

/**
 * Create a button that copies a text to the clipboard and confirms it.
 * @param {string} label
 * @param {() => string} textOf
 */
export function copyButton(label, textOf) {
  const shown = h("span", {}, label);
  const button = h("button", { type: "button", class: "action copy", "aria-live": "polite" }, shown);
  button.addEventListener("click", async () => {
    shown.textContent = (await copy(textOf(), button)) ? "Copied" : "Not allowed here";
    setTimeout(() => {
      shown.textContent = label;
    }, CONFIRMATION_MS);
  });
  return button;
}

/** @type {(text: string, beside: HTMLElement) => Promise<boolean>} whether it worked: outside secure contexts the clipboard is missing, and the older command may work */
async function copy(text, beside) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "visually-hidden", readonly: true, "aria-hidden": "true" });
    area.value = text;
    beside.after(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    beside.focus();
    return done;
  }
}

// ---- notices in place of results

const EXAMPLES = new Map([
  [
    "stdlib",
    [
      "make a temporary folder",
      "pause the program for a while",
      "pick a random element",
      "how many days between two dates",
    ],
  ],
]);
const OTHER_EXAMPLES = ["how do I get started", "what happens when something fails", "keep a copy in a safe place"];

const MODE_NOTES = [
  ["Sparse", "matches the meaning of a text: the encoder also stores weights for related words"],
  ["Lexical", "keyword search: matches the words themselves (BM25)"],
  ["Hybrid", "weights both"],
];

/**
 * Create the notice of a view without a search: how to ask, example queries, and the modes.
 * @param {string} index
 * @param {(query: string) => void} onExample
 */
export function renderWelcome(index, onExample) {
  const examples = (EXAMPLES.get(index) ?? OTHER_EXAMPLES).map((query) =>
    h(
      "li",
      {},
      offerButton(query, () => onExample(query)),
    ),
  );
  return h(
    "div",
    { class: "notice welcome" },
    h("h2", {}, "Ask as you would ask a colleague"),
    h("p", {}, "Your words need not be the words of the text. Try one of these:"),
    h("ul", { class: "examples" }, examples),
    h(
      "dl",
      { class: "mode-notes" },
      MODE_NOTES.map(([name, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, note))),
    ),
  );
}

/** @type {(label: string, onClick: () => void, data?: Record<string, string>) => HTMLElement} */
const offerButton = (label, onClick, data = {}) =>
  h("button", { type: "button", class: "example", data, on: { click: onClick } }, label);

/**
 * Create the notice of an index without documents, or of a service without an index: how to load documents.
 * @param {string} name "" when there is no index
 */
export function renderHowToLoad(name) {
  const index = name || "notes";
  const bulk = `curl -X POST ${window.location.origin}/v1/indexes/${index}/documents \\
  -H 'content-type: application/json' \\
  -d '[{"id": "1", "title": "A first note", "text": "Water the plants on Friday."}]'`;
  const create = `curl -X PUT ${window.location.origin}/v1/indexes/${index} \\
  -H 'content-type: application/json' -d '{"fields": {}}'`;
  return h(
    "div",
    { class: "notice" },
    h("h2", {}, name ? `“${name}” has no documents yet` : "There is no index yet"),
    h("p", {}, "Load a file with one JSON document a line. Each document has an id, a text and perhaps a title:"),
    h("pre", { tabindex: "0" }, `sparsewell load documents.jsonl --index ${index}${name ? "" : " --create"}`),
    h("p", {}, "Or send documents over HTTP:"),
    h("pre", { tabindex: "0" }, name ? bulk : `${create}\n${bulk}`),
    h(
      "p",
      {},
      "For an example, ",
      h("code", {}, "make demo KEEP=1"),
      " indexes the documentation of Python’s standard library.",
    ),
  );
}

/**
 * Create the notice of a search without results, with buttons that change the view.
 * @param {View} view
 * @param {(change: Partial<View>) => void} onChange
 */
export function renderNothingFound({ query, mode, filters, like, unlike }, onChange) {
  const filtered = filters.length > 0;
  const lexical = mode === "lexical" && query !== "";
  /** @type {(label: string, change: Partial<View>) => HTMLElement} */
  const offer = (label, change) =>
    h(
      "p",
      {},
      offerButton(label, () => onChange(change)),
    );
  return h(
    "div",
    { class: "notice" },
    h("h2", {}, "Nothing found"),
    h(
      "p",
      {},
      "No document ",
      filtered && "that passes the filters ",
      query ? ["matches ", h("q", {}, query)] : "is there",
      lexical ? " word for word." : ".",
    ),
    filtered && offer(filters.length === 1 ? "Without the filter" : "Without the filters", { filters: [] }),
    like.length + unlike.length > 0 && offer("Without the examples", { like: [], unlike: [] }),
    lexical && offer("Search for the meaning instead", { mode: "sparse" }),
  );
}

// ---- remarks above the results

/**
 * Offer the corrected query, when no document has a word of the query.
 * @param {readonly Answer[]} answers
 * @param {(query: string) => void} onQuery
 */
export function renderDidYouMean(answers, onQuery) {
  const query = answers.find((answer) => answer.did_you_mean)?.did_you_mean?.query;
  if (query === undefined) return [];
  return [
    h(
      "p",
      { class: "remark" },
      "Did you mean ",
      offerButton(query, () => onQuery(query), { act: "meant" }),
      "?",
    ),
  ];
}

/**
 * Say what a search could not do although it answered.
 * @param {Answer} answer
 */
export function renderRemarks({ rerank, feedback }) {
  /** @type {import("./dom.js").Child[]} */
  const sentences = [];
  if (rerank && !rerank.applied) {
    const reason = NOT_RERANKED.get(rerank.reason ?? "") ?? "the reranker gave no answer";
    sentences.push([`Not reranked: ${reason}. `, h("code", {}, rerank.reason)]);
  } else if (rerank?.reason) {
    const reason = NOT_RERANKED.get(rerank.reason) ?? "the model gave no answer";
    sentences.push([`Reranked by the query table, because ${reason}. `, h("code", {}, rerank.reason)]);
  }
  if (feedback?.without_vector.length) {
    sentences.push(`Not encoded yet, so without effect: ${feedback.without_vector.join(", ")}.`);
  }
  if (feedback?.unknown.length) sentences.push(`Not in this index: ${feedback.unknown.join(", ")}.`);
  return sentences.map((sentence) => h("p", { class: "remark" }, sentence));
}

const NOT_RERANKED = new Map([
  ["model_not_configured", "the service has no model process"],
  ["model_timeout", "the model process did not answer in time"],
  ["model_unavailable", "the model process does not answer"],
  ["model_resting", "the model process failed a moment ago and is not asked for a while"],
  ["model_refused", "the model process refused the request"],
  ["model_mismatch", "the model process has another encoder than the index"],
  ["model_garbage", "the answer of the model process was invalid"],
  ["no_dense_table", "the index’s dense encoder has no query table"],
  ["no_known_words", "the encoder knows none of the words"],
]);

// ---- errors

/**
 * Show an error of the API, and a field for a key when the API asks for one.
 * @param {Problem} problem
 * @param {(() => void) | null} onRetry
 */
export function renderProblem(problem, onRetry) {
  return h(
    "div",
    { class: "problem" },
    h("h2", {}, problem.title),
    problem.detail && h("p", {}, problem.detail),
    onRetry && KEY_PROBLEMS.has(problem.code) && renderKeyForm(onRetry),
    h(
      "p",
      { class: "problem-foot" },
      h("code", {}, problem.code),
      problem.status > 0 && h("span", {}, `HTTP ${problem.status}`),
      onRetry && h("button", { type: "button", class: "toggle", on: { click: onRetry } }, "Try again"),
    ),
  );
}

const KEY_PROBLEMS = new Set(["no_credentials", "bad_key", "bad_credentials", "bad_token", "insufficient_scope"]);

/** Return whether the reader is entering a key: a page that refreshes itself would remove the field. */
export const isEnteringKey = () => Boolean(document.activeElement?.closest(".key-form"));

/** @param {() => void} onKey is called when the key has changed */
function renderKeyForm(onKey) {
  const input = h("input", {
    type: "password",
    name: "key",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    pattern: "\\s*[A-Za-z0-9._~+\\/=\\-]+\\s*",
    "aria-label": "API key",
  });
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    storeKey(input.value.trim());
    input.blur();
    onKey();
  };
  const forget = () => {
    forgetKey();
    onKey();
  };
  return h(
    "form",
    { class: "key-form", on: { submit } },
    input,
    h("button", { type: "submit", class: "toggle" }, "Use this key"),
    hasKey() && h("button", { type: "button", class: "toggle", on: { click: forget } }, "Forget the key"),
  );
}

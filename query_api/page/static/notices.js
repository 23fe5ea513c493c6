// What stands in place of results: a welcome, an empty index, nothing found, an error.

import { keyForm } from "./credential.js";
import { h } from "./dom.js";

const EXAMPLES = new Map([
  ["stdlib", ["make a temporary folder", "pause the program for a while", "pick a random element", "how many days between two dates"]],
]);
const EVERYDAY = ["how do I get started", "what happens when something fails", "keep a copy in a safe place"];

const MODE_NOTES = [
  ["Sparse", "matches what a text means: its encoder stored weights for words it never uses"],
  ["Keyword", "matches the words themselves (BM25)"],
  ["Hybrid", "weighs both"],
];

/** The first view: how to ask, examples to try and what the modes do. */
export function welcome(name, onExample) {
  const examples = EXAMPLES.get(name) ?? EVERYDAY;
  return h(
    "div",
    { class: "notice welcome" },
    h("h2", {}, "Ask as you would ask a colleague"),
    h("p", {}, "The words need not be the ones in the text. Try one of these:"),
    h(
      "ul",
      { class: "examples" },
      examples.map((text) =>
        h("li", {}, h("button", { type: "button", class: "example", on: { click: () => onExample(text) } }, text)),
      ),
    ),
    h("dl", { class: "mode-notes" }, MODE_NOTES.map(([name, note]) => h("div", {}, h("dt", {}, name), h("dd", {}, note)))),
  );
}

/** No index at all, or one without documents: how to load some. */
export function howToLoad(name) {
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
    h("p", {}, "Load a file with one JSON document a line, each with an id, a text and perhaps a title:"),
    h("pre", { tabindex: "0" }, `sparsewell load documents.jsonl --index ${index}${name ? "" : " --create"}`),
    h("p", {}, "or send documents over HTTP:"),
    h("pre", { tabindex: "0" }, name ? bulk : `${create}\n${bulk}`),
    h("p", {}, "For something to look at right away, ", h("code", {}, "make demo KEEP=1"), " indexes the documentation of Python’s standard library."),
  );
}

/** A search that found nothing; `onView` takes what may help. */
export function nothingFound(view, onView) {
  const { query, mode, filters, like, unlike } = view;
  const narrowed = filters.length > 0;
  const button = (label, part) => h("p", {}, h("button", { type: "button", class: "example", on: { click: () => onView(part) } }, label));
  return h(
    "div",
    { class: "notice" },
    h("h2", {}, "Nothing found"),
    h("p", {}, "No document ", narrowed && "that passes the filters ", query ? ["matches ", h("q", {}, query)] : "is there", mode === "keyword" && query ? " word for word." : "."),
    narrowed && button(filters.length === 1 ? "Without the filter" : "Without the filters", { filters: [] }),
    like.length + unlike.length > 0 && button("Without the examples", { like: [], unlike: [] }),
    mode === "keyword" && query && button("Look for the meaning instead", { mode: "sparse" }),
  );
}

/** Words that may have been meant by a query that no document has a word of; `onQuery` takes the query in those words. */
export function didYouMean(answers, onQuery) {
  const meant = answers.find((answer) => answer.did_you_mean)?.did_you_mean;
  if (!meant) return [];
  const button = h("button", { type: "button", class: "example", data: { act: "meant" }, on: { click: () => onQuery(meant.query) } }, meant.query);
  return [h("p", { class: "remark" }, "Did you mean ", button, "?")];
}

/** What a search could not do although it answered, as sentences. */
export function remarks(answer) {
  const { rerank, feedback } = answer;
  const said = [];
  if (rerank && !rerank.applied) said.push([`Not reranked, so the list is in its own order: ${REASONS[rerank.reason] ?? "no second opinion came"}. `, h("code", {}, rerank.reason)]);
  if (feedback?.without_vector.length > 0) said.push(`Without a vector yet, so it moved nothing: ${feedback.without_vector.join(", ")}.`);
  if (feedback?.unknown.length > 0) said.push(`Not in this index: ${feedback.unknown.join(", ")}.`);
  return said.map((sentence) => h("p", { class: "remark" }, sentence));
}

const REASONS = {
  model_not_configured: "the service knows no model process",
  model_timeout: "the model process was late",
  model_unavailable: "the model process does not answer",
  model_resting: "the model process failed a moment ago and is left alone for a while",
  model_refused: "the model process refused",
  model_mismatch: "the model process has another encoder than the index",
  model_garbage: "the model process answered nonsense",
};

/** The API's problem+json, as it says it. */
export function problemNotice(problem, onRetry) {
  return h(
    "div",
    { class: "problem" },
    h("h2", {}, problem.title),
    problem.detail && h("p", {}, problem.detail),
    keyForm(problem, onRetry),
    h(
      "p",
      { class: "problem-foot" },
      h("code", {}, problem.code),
      problem.status > 0 && h("span", {}, `HTTP ${problem.status}`),
      onRetry && h("button", { type: "button", class: "toggle", on: { click: onRetry } }, "Try again"),
    ),
  );
}

// The state of the service on the operator's page: readiness, indexes, queues, workers and generations, as elements.

import { formatAge, formatCount, formatNumber, h } from "./dom.js";

/** @typedef {import("./api.js").Index} Index */
/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./api.js").Status} Status */

/**
 * Show the facts of GET /readyz.
 * @param {import("./api.js").Readiness} readiness
 */
export function renderFacts({ encoder, indexes, queue }) {
  // Without a key, the API does not return more than the readiness.
  if (queue === undefined)
    return [renderFact("Search", "Ready", "OpenSearch answers; enter a key to see more", "good")];
  const searchable = `OpenSearch answers; ${formatCount(indexes, "index", "indexes")} to search`;
  const journalled =
    "Documents are journalled and lexical search finds them; the sweeper enqueues them when Redis is back";
  return [
    renderFact("Search", "Ready", searchable, "good"),
    queue.reachable
      ? renderFact("Queue", `${formatCount(queue.messages, "message")} waiting`, "Redis is reachable", "good")
      : renderFact("Queue", "Redis is not reachable", journalled, "bad"),
    renderFact("Encoder", encoder.name, h("code", {}, encoder.fingerprint)),
  ];
}

/** @param {import("./api.js").Problem} problem the answer of GET /readyz when the service is not ready */
export const renderNotReady = (problem) => [
  renderFact("Search", "Not ready", [problem.detail, " ", h("code", {}, problem.code)], "bad"),
];

/** @type {(name: string, value: string, note: Child, kind?: "good" | "bad" | "") => HTMLElement} */
const renderFact = (name, value, note, kind = "") =>
  h(
    "div",
    { class: `fact ${kind}` },
    h("dt", {}, name),
    h("dd", { class: "value" }, value),
    h("dd", { class: "note" }, note),
  );

// ---- indexes

const STATES = /** @type {const} */ (["encoded", "pending", "dead"]);
const DELETED_TITLE = "Tombstones: for some days they keep late writes from restoring a deleted document";

/**
 * Create the table of indexes.
 * @param {readonly Index[]} indexes
 * @param {string} chosen the index whose dead letters are shown
 * @param {(name: string) => void} onChoose
 */
export function renderIndexes(indexes, chosen, onChoose) {
  /** @type {(name: string, properties?: import("./dom.js").Properties) => HTMLElement} */
  const head = (name, properties = {}) => h("th", { scope: "col", ...properties }, name);
  return h(
    "table",
    { class: "indexes" },
    h("caption", { class: "visually-hidden" }, "Documents of each index by state"),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        head("Index"),
        h("td", { class: "share" }),
        head("documents", { class: "all" }),
        STATES.map((state) => head(state)),
        head("deleted", { class: "removed", title: DELETED_TITLE }),
      ),
    ),
    h(
      "tbody",
      {},
      indexes.map((index) => renderIndex(index, index.name === chosen, onChoose)),
    ),
  );
}

/** @type {(index: Index, chosen: boolean, onChoose: (name: string) => void) => HTMLElement} */
function renderIndex(index, chosen, onChoose) {
  const { name, total } = index;
  const link = h("a", { href: `operate?index=${encodeURIComponent(name)}` }, name);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    onChoose(name);
  });
  /** @type {(value: number, kind?: string) => HTMLElement} */
  const number = (value, kind = "") => h("td", { class: `${kind} ${value === 0 ? "zero" : ""}` }, formatNumber(value));
  const bars = STATES.map((state) => index[state] > 0 && h("span", { class: state, fraction: index[state] / total }));
  return h(
    "tr",
    { "aria-current": chosen && "true", data: { index: name } },
    h("th", { scope: "row" }, link),
    h("td", { class: "share" }, total > 0 && h("div", { class: "share-bar", "aria-hidden": "true" }, bars)),
    number(total, "all"),
    number(index.encoded),
    number(index.pending),
    number(index.dead, index.dead > 0 ? "some-dead" : ""),
    number(index.deleted, "removed"),
  );
}

// ---- queues, workers and generations: GET /v1/status

/**
 * Show queues and workers; Redis keeps both.
 * @param {Status} status
 */
export function renderWork({ queues, workers }) {
  if (queues === null) return [renderNothing("Redis does not answer: queues and workers are unknown.")];
  const queueRows = queues.map(({ queue, messages, oldest_seconds }) => [
    queue,
    formatNumber(messages),
    messages === 0 ? "–" : oldest_seconds === null ? "unknown" : formatAge(oldest_seconds),
  ]);
  const workerRows = workers.map(({ name, encoder, processes, version, seen_ago }) => [
    name,
    encoder,
    formatNumber(processes),
    version,
    `${formatAge(seen_ago)} ago`,
  ]);
  return [
    renderTable("Queues", ["Queue", "messages", "oldest waits"], queueRows),
    workers.length === 0
      ? renderNothing("No worker has reported: documents wait, and lexical search finds them meanwhile.")
      : renderTable("Workers", ["Worker", "encoder", "processes", "version", "seen"], workerRows),
  ];
}

/**
 * Show the generations of all indexes, with the progress of a reindex.
 * @param {Status} status
 */
export function renderGenerations({ indexes }) {
  if (indexes.length === 0) return [renderNothing("None yet.")];
  const rows = indexes.flatMap(({ name, generations, reindex }) =>
    generations.map(({ number, state, encoder, pending, dead, oldest_pending_seconds }) => [
      `${name} ${number}`,
      describeProgress(number, state, reindex),
      `${encoder.name} (${encoder.fingerprint})`,
      pending === null ? "–" : formatNumber(pending),
      dead === null ? "–" : formatNumber(dead),
      oldest_pending_seconds === null ? "–" : formatAge(oldest_pending_seconds),
    ]),
  );
  return [renderTable("Generations", ["Generation", "state", "encoder", "pending", "dead", "oldest pending"], rows)];
}

/** @type {(number: number, state: string, reindex: import("./api.js").Reindex | null) => string} */
function describeProgress(number, state, reindex) {
  if (reindex === null || number !== reindex.to || reindex.step === "swapped") return state;
  const copied = formatCount(reindex.copied, "document");
  return `${state}: ${reindex.step}, ${copied} copied, last progress ${formatAge(reindex.idle_seconds ?? 0)} ago`;
}

/** @param {string} text */
const renderNothing = (text) => h("p", { class: "nothing" }, text);

/** @type {(caption: string, head: string[], rows: string[][]) => HTMLElement} */
function renderTable(caption, head, rows) {
  const body = rows.map(([first, ...rest]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, first),
      rest.map((cell) => h("td", {}, cell)),
    ),
  );
  return h(
    "table",
    { class: "indexes work", data: { table: caption.toLowerCase() } },
    h("caption", { class: "visually-hidden" }, caption),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        head.map((name) => h("th", { scope: "col" }, name)),
      ),
    ),
    h("tbody", {}, body),
  );
}

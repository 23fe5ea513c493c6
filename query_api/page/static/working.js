// What works and what waits: queues, workers, and generations that are built or kept. From GET /v1/status.

import { h } from "./dom.js";
import { ago, counted, whole } from "./format.js";

/** Queues and workers, or why they cannot be told. */
export function renderWork({ queues, workers }) {
  if (queues === null) return [h("p", { class: "nothing" }, "Redis does not answer: neither queues nor workers can be seen.")];
  return [
    grid("Queues", ["Queue", "messages", "next has waited"], queues.map(({ queue, messages, oldest_seconds }) => [
      queue, whole(messages), messages > 0 ? (oldest_seconds === null ? "unknown" : ago(oldest_seconds)) : "–",
    ])),
    workers.length === 0
      ? h("p", { class: "nothing" }, "No worker has said that it is there: documents wait, and are found by keyword meanwhile.")
      : grid("Workers", ["Worker", "encoder", "processes", "version", "seen"], workers.map(({ name, encoder, processes, version, seen_ago }) => [
        name, encoder, whole(processes), version, `${ago(seen_ago)} ago`,
      ])),
  ];
}

/** Generations by index, with how far a reindexing is. */
export function renderGenerations({ indexes }) {
  if (indexes.length === 0) return [h("p", { class: "nothing" }, "None yet.")];
  const rows = indexes.flatMap(({ name, generations, reindex }) =>
    generations.map(({ number, state, encoder, pending, dead, oldest_pending_seconds }) => [
      `${name} ${number}`,
      progress(number, state, reindex),
      `${encoder.name} (${encoder.fingerprint})`,
      pending === null ? "–" : whole(pending),
      dead === null ? "–" : whole(dead),
      oldest_pending_seconds === null ? "–" : ago(oldest_pending_seconds),
    ]),
  );
  return [grid("Generations", ["Generation", "state", "encoder", "pending", "dead", "oldest pending"], rows)];
}

function progress(number, state, reindex) {
  if (reindex === null || number !== reindex.to || reindex.step === "swapped") return state;
  return `${state}: ${reindex.step}, ${counted(reindex.carried, "document")} carried, last heard of ${ago(reindex.idle_seconds ?? 0)} ago`;
}

function grid(caption, head, rows) {
  return h(
    "table",
    { class: "indexes work", data: { table: caption.toLowerCase() } },
    h("caption", { class: "quiet" }, caption),
    h("thead", {}, h("tr", {}, head.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first), rest.map((cell) => h("td", {}, cell))))),
  );
}

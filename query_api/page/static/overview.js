// The service's facts and its indexes by state.

import { h } from "./dom.js";
import { counted, whole } from "./format.js";

/** What GET /readyz said: three facts, or the problem that it answered with. */
export function renderFacts(readiness, problem) {
  if (problem) {
    return [fact("Search", "Not ready", [problem.detail, " ", h("code", {}, problem.code)], "bad")];
  }
  const { encoder, indexes, queue } = readiness;
  // Without a key it is told no more than this.
  if (queue === undefined) return [fact("Search", "Ready", "OpenSearch answers; who has a key is told more", "good")];
  return [
    fact("Search", "Ready", `OpenSearch answers; ${counted(indexes, "index", "indexes")} to search`, "good"),
    queue.reachable
      ? fact("Queue", `${counted(queue.messages, "message")} waiting`, "Redis is reachable", "good")
      : fact("Queue", "Redis is not reachable", "Documents are journalled and found by keyword; the sweeper enqueues them once it is back", "bad"),
    fact("Encoder", encoder.name, h("code", {}, encoder.fingerprint)),
  ];
}

function fact(name, said, note, kind = "") {
  return h("div", { class: `fact ${kind}` }, h("dt", {}, name), h("dd", { class: "said" }, said), h("dd", { class: "note" }, note));
}

/** The table of indexes. `onChoose` is told the name of the one whose dead letters are wanted. */
export function renderIndexes(indexes, chosen, onChoose) {
  const head = [["Index", ""], ["", "share"], ["documents", "all"], ["encoded", ""], ["pending", ""], ["dead", ""], ["deleted", "removed"]];
  return h(
    "table",
    { class: "indexes" },
    h("caption", { class: "quiet" }, "Documents of each index by state"),
    h("thead", {}, h("tr", {}, head.map(([name, kind]) => h(name ? "th" : "td", { class: kind, scope: name ? "col" : null, title: TITLES[name] }, name)))),
    h("tbody", {}, indexes.map((index) => row(index, index.name === chosen, onChoose))),
  );
}

const TITLES = { deleted: "Tombstones: they keep late writes from bringing a deleted document back, for some days" };

function row(index, chosen, onChoose) {
  const { name, total } = index;
  const link = h("a", { href: `operate?index=${encodeURIComponent(name)}` }, name);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    onChoose(name);
  });
  const number = (value, kind = "") => h("td", { class: `${kind} ${value === 0 ? "zero" : ""}` }, whole(value));
  return h(
    "tr",
    { "aria-current": chosen && "true", data: { index: name } },
    h("th", { scope: "row" }, link),
    h("td", { class: "share" }, total > 0 && h("div", { class: "share-bar", "aria-hidden": "true" }, STATES.map((state) => index[state] > 0 && h("span", { class: state, part: index[state] / total })))),
    number(total, "all"),
    number(index.encoded),
    number(index.pending),
    number(index.dead, index.dead > 0 ? "some-dead" : ""),
    number(index.deleted, "removed"),
  );
}

const STATES = ["encoded", "pending", "dead"];

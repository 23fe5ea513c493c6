// The choice of an index, and how many of its documents are in which state.

import { inspectIndex } from "./api.js";
import { h } from "./dom.js";
import { counted, whole } from "./format.js";

const LOOKED_AT = 12;

/** Of the first indexes the one with most documents, "" when there is none. */
export async function fullest(names) {
  const looked = await Promise.all(names.slice(0, LOOKED_AT).map(inspectIndex));
  return looked.reduce((best, next) => (best === null || next.total > best.total ? next : best), null)?.name ?? "";
}

/** Offers the names; one that is not there stays: the API says what is wrong with it. */
export function offer(select, names, named) {
  const offered = named && !names.includes(named) ? [named, ...names] : names;
  select.replaceChildren(...(offered.length > 0 ? offered : ["none yet"]).map((name) => h("option", { value: name }, name)));
  select.disabled = offered.length === 0;
}

/** The counts of an index as elements. */
export function renderStates(index) {
  const part = (kind, meaning) => index[kind] > 0 && h("span", { class: `state-${kind}`, title: meaning }, `${whole(index[kind])} ${kind}`);
  return [
    h("span", {}, counted(index.total, "document")),
    part("pending", "Keyword search finds them already, sparse search once they are encoded"),
    index.dead > 0 &&
      h(
        "a",
        { class: "state-dead", href: `operate?index=${encodeURIComponent(index.name)}`, title: "Could not be encoded; keyword search finds them. See why" },
        `${whole(index.dead)} dead`,
      ),
  ].filter(Boolean);
}

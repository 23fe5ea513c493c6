// What rules of the index did to a search, in a sentence above its results.

import { h } from "./dom.js";
import { counted } from "./format.js";

/** A remark on the rules that concerned the answers of a view; none where no rule did. */
export function rulesRemark(answers) {
  const rules = answers.map(({ curation }) => curation).filter(Boolean);
  const applied = once(rules.flatMap((one) => one.applied));
  const skipped = once(rules.flatMap((one) => one.skipped ?? []));
  const said = [
    ...quoted("synonyms of", applied, "synonym"),
    ...quoted("weighed", applied, "term"),
    shown("pinned", Math.max(0, ...answers.map(({ hits }) => hits.filter(({ pinned }) => pinned).length))),
    shown("hidden", Math.max(0, ...rules.map(({ hidden = 0 }) => hidden))),
    ...named(applied, "boost", (filter) => ["factor for ", h("code", {}, filter)]),
    ...named(applied, "field", (field) => [`words of the ${field} count more`]),
    ...skipped.map(({ what, reason }) => [h("code", {}, what), ` ${REASONS[reason] ?? "was left out"}`]),
  ].filter(Boolean);
  if (said.length === 0) return [];
  return [h("p", { class: "remark rules" }, "By rules of the index: ", said.map((part, at) => [at > 0 && "; ", part]), ".")];
}

const REASONS = {
  too_many: "was left out, there are too many",
  not_found: "is pinned and not among what is asked for",
  sorted: "is not pinned in a sorted list",
  several_indexes: "is not pinned across indexes",
  unfit: "does not fit this generation of the index",
};

const once = (list) => [...new Map(list.map((one) => [JSON.stringify(one), one])).values()];
const named = (applied, kind, say) => applied.filter((one) => one.kind === kind).map(({ matched }) => say(matched));
const shown = (what, count) => count > 0 && `${counted(count, "document")} ${what}`;

function quoted(what, applied, kind) {
  const words = applied.filter((one) => one.kind === kind).map(({ matched }, at) => [at > 0 && ", ", h("q", {}, matched)]);
  return words.length > 0 ? [[`${what} `, words]] : [];
}

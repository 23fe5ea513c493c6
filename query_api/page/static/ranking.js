// How the list is made: weights and fusion of the two lists, a shorter query, the second opinion, the order.

import { METHODS } from "./address.js";
import { h } from "./dom.js";

const METHOD_NAMES = { min_max: "min-max", z_score: "z-score", rrf: "reciprocal ranks" };
const USUAL_SHARE = 0.5;
const USUAL_SECOND = 0.7;
const SORTABLE = ["keyword", "number", "date", "boolean"];

/** Controls for what a view's mode and its index can do; `onView` takes what changes. */
export function renderRanking(view, index, onView) {
  const hybrid = view.mode === "hybrid";
  const sparse = view.mode !== "keyword";
  return [index.talk && talk(view, onView), hybrid && lists(view, onView), sparse && shorter(view, onView), sparse && index.windows === "both" && long(view, onView), index.dense && second(view, onView)].filter(Boolean);
}

const UNITS = [["", "whole talks"], ["chapter", "chapters"], ["passage", "passages"]];

function talk(view, onView) {
  const unit = h("select", { data: { key: "unit" } }, UNITS.map(([value, label]) => h("option", { value, selected: view.unit === value }, label)));
  // Parts are found by words alone, in the order of their scores.
  unit.addEventListener("change", () => onView({ unit: unit.value, ...(unit.value && { sort: "", rerank: null, phases: false, by: "", like: [], unlike: [] }) }));
  return group("Talk", [row("find", unit, "each with its place in the talk")]);
}

function lists(view, onView) {
  const share = slider("share", "Share of the sparse list", view.share ?? USUAL_SHARE, (value) => onView({ share: value === USUAL_SHARE ? null : value }));
  const method = h(
    "select",
    { data: { key: "fusion" } },
    METHODS.map((name) => h("option", { value: name, selected: view.fusion === name }, METHOD_NAMES[name])),
  );
  method.addEventListener("change", () => onView({ fusion: method.value }));
  return group("Two lists into one", [
    row("sparse", share, "of the score is meaning, the rest keywords"),
    row("scaled by", method, "before they are added up"),
  ]);
}

function shorter(view, onView) {
  const prune = h("input", { type: "number", min: 0, max: 0.9, step: 0.05, placeholder: "as set", data: { key: "prune" } });
  if (view.prune !== null) prune.value = view.prune;
  prune.addEventListener("change", () => prune.reportValidity() && onView({ prune: prune.value === "" ? null : Number(prune.value) }));
  const phases = h("input", { type: "checkbox", checked: view.phases, data: { key: "phases" } });
  phases.addEventListener("change", () => onView({ phases: phases.checked }));
  return group("A query that costs less", [
    row("prune below", prune, "of the heaviest piece’s weight"),
    row("two phases", phases, "light pieces only rescore the best"),
  ]);
}

function long(view, onView) {
  const by = h("select", { data: { key: "by" } }, [["", "best window"], ["document", "whole vector"]].map(([value, label]) => h("option", { value, selected: view.by === value }, label)));
  by.addEventListener("change", () => onView({ by: by.value }));
  return group("Long documents", [row("scored by", by, "of a document’s vectors")]);
}

function second(view, onView) {
  const on = view.rerank !== null;
  const box = h("input", { type: "checkbox", checked: on, data: { key: "rerank" } });
  box.addEventListener("change", () => onView({ rerank: box.checked ? USUAL_SECOND : null, ...(box.checked && { sort: "" }) }));
  return group("A second opinion", [
    row("rerank", box, "the best 100, by dense vectors"),
    on && row("share", slider("rerank-share", "Share of the second opinion", view.rerank, (value) => onView({ rerank: value })), "of the final score"),
  ]);
}

/** What the order can be: by score, or by a declared field. Null when there is nothing to sort by. */
export function renderSort(view, fields, onView) {
  const names = Object.keys(fields).filter((field) => SORTABLE.includes(fields[field]));
  if (names.length === 0) return null;
  const choices = [["", view.query.trim() ? "best match" : "latest"], ...names.flatMap((field) => [[field, `${field} ↑`], [`-${field}`, `${field} ↓`]])];
  if (!choices.some(([value]) => value === view.sort)) choices.push([view.sort, view.sort]);
  const select = h("select", { data: { key: "sort" } }, choices.map(([value, label]) => h("option", { value, selected: value === view.sort }, label)));
  // Two orders at once are none.
  select.addEventListener("change", () => onView({ sort: select.value, ...(select.value && { rerank: null }) }));
  return h("label", { class: "sort" }, "Sort by ", select);
}

/** How much of the ranking is not as the service does it by itself. */
export const changes = (view) =>
  [view.share !== null, view.fusion !== "min_max", view.prune !== null, view.phases, view.by !== "", view.unit !== "", view.rerank !== null].filter(Boolean).length;

function slider(key, label, value, onValue) {
  const output = h("output", {}, value.toFixed(2));
  const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": label, data: { key } });
  input.value = value;
  input.addEventListener("input", () => (output.textContent = Number(input.value).toFixed(2)));
  input.addEventListener("change", () => onValue(Number(input.value)));
  return h("span", { class: "slider" }, input, output);
}

const group = (name, rows) => h("fieldset", { class: "group" }, h("legend", {}, name), rows.filter(Boolean));

const row = (label, control, note) => h("label", { class: "row" }, h("span", {}, label), control, h("span", { class: "faint" }, note));

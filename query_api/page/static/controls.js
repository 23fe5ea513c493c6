// Controls of the search page: the form, the keyboard, the index, the panels, the ranking and the order. Each control
// makes the next view of the present one.

import { inspectIndex } from "./api.js";
import { byId, formatCount, formatNumber, h } from "./dom.js";
import { columnOf, counterpartOf, hitsIn } from "./results.js";
import { EMPTY_VIEW, FUSIONS, PAGE_SIZE, readAddress } from "./state.js";

/** @typedef {import("./api.js").Index} Index */
/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./state.js").View} View */
/** @typedef {(change: Partial<View>) => void} OnChange */

const TYPING_PAUSE_MS = 220;
const PANELS = ["filters", "ranking", "request", "insight"];

/**
 * Listen to all controls of the page.
 * @param {object} handlers
 * @param {() => View} handlers.view returns the view on the page
 * @param {(view: View, options?: { draft?: boolean, again?: boolean }) => void} handlers.show
 * @param {OnChange} handlers.change
 * @param {() => boolean} handlers.toFilters moves the focus to the filters; false when there are none
 */
export function listenToControls({ view, show, change, toFilters }) {
  const form = byId("search", HTMLFormElement);
  const box = byId("q", HTMLInputElement);
  const select = byId("index", HTMLSelectElement);
  const results = byId("results");
  /** @type {number | undefined} */
  let typing;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    delete box.dataset.ahead;
    show({ ...view(), query: box.value, size: PAGE_SIZE }, { again: true });
  });
  box.addEventListener("input", (event) => {
    clearTimeout(typing);
    box.dataset.ahead = "of the view"; // an answer for an earlier query must not remove letters
    if (event instanceof InputEvent && event.isComposing) return;
    typing = window.setTimeout(() => {
      delete box.dataset.ahead;
      show({ ...view(), query: box.value, size: PAGE_SIZE }, { draft: true });
    }, TYPING_PAUSE_MS);
  });
  form.addEventListener("change", ({ target }) => {
    if (target instanceof HTMLInputElement && target.name === "mode")
      change({ mode: /** @type {View["mode"]} */ (target.value) });
  });
  // Another index has other fields and documents, so filters, order and examples do not apply to it.
  select.addEventListener("change", () =>
    show({ ...EMPTY_VIEW, query: box.value, mode: view().mode, index: select.value }),
  );
  byId("brand").addEventListener("click", (event) => {
    event.preventDefault();
    show({ ...EMPTY_VIEW, index: view().index });
    box.focus();
  });
  results.addEventListener("click", (event) => {
    const control = event.target instanceof Element ? event.target.closest("[data-act]") : null;
    if (!(control instanceof HTMLElement)) return;
    const { act } = control.dataset;
    const id = articleOf(control)?.dataset.id ?? "";
    if (control instanceof HTMLAnchorElement && act === "document") {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      show({ ...view(), document: readAddress(new URL(control.href).search).document });
    } else if (act === "like" || act === "unlike") {
      const like = view().like.filter((other) => other !== id);
      const unlike = view().unlike.filter((other) => other !== id);
      change(act === "like" ? { like: [...like, id], unlike } : { like, unlike: [...unlike, id] });
    } else if (act === "counterpart") {
      const article = articleOf(control);
      focusHit(article && counterpartOf(article));
    }
  });
  for (const name of PANELS) {
    byId(`${name}-toggle`).addEventListener("click", () => setPanel(name, !isPanelOpen(name)));
  }
  listenToKeys(box, results, toFilters);
}

/** @type {(element: Element) => HTMLElement | null} */
const articleOf = (element) => element.closest(".hit");

// ---- panels

/** @param {string} name */
const isPanelOpen = (name) => byId(`${name}-toggle`).getAttribute("aria-expanded") === "true";

/** @type {(name: string, open: boolean) => void} */
function setPanel(name, open) {
  byId(`${name}-toggle`).setAttribute("aria-expanded", String(open));
  byId(name).dataset.fold = open ? "open" : "folded";
}

/** @type {(name: string) => boolean} open a panel; false when the page does not have it now */
export function openPanel(name) {
  if (byId(name).hidden) return false;
  setPanel(name, true);
  return true;
}

// ---- the keyboard: an open dialog has it to itself

/** @type {(box: HTMLInputElement, results: HTMLElement, toFilters: () => boolean) => void} */
function listenToKeys(box, results, toFilters) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { key, target } = event;
    if (!(target instanceof Element) || target.closest("dialog")) return;
    const handled =
      target === box ? key === "ArrowDown" && focusHit(hitsIn(results)[0]) : handleKey(key, target, box, toFilters);
    if (handled) event.preventDefault();
  });
}

/** @type {(key: string, target: Element, box: HTMLInputElement, toFilters: () => boolean) => boolean} */
function handleKey(key, target, box, toFilters) {
  if (key === "Escape" && target.closest(".filters")) return focusBox(box);
  if (target.matches("input:not([type=radio], [type=checkbox]), select, textarea")) return false;
  if (key === "/") return focusBox(box);
  if (key === "f") return toFilters();
  const article = articleOf(target);
  if (!article) return false;
  if (key === "Escape") return focusBox(box);
  if (key === "ArrowDown" || key === "j") return focusHit(neighbourOf(article, 1));
  if (key === "ArrowUp" || key === "k") return focusHit(neighbourOf(article, -1)) || focusBox(box);
  if (key === "ArrowLeft" || key === "ArrowRight") return focusHit(besideOf(article, key === "ArrowRight" ? 1 : 0));
  if (target !== article) return false;
  if (key === "Enter") return press(article, "why") || press(article, "document");
  const act = { d: "document", "+": "like", "-": "unlike" }[key];
  return act !== undefined && press(article, act);
}

/** @type {(article: HTMLElement, step: 1 | -1) => HTMLElement | undefined} */
function neighbourOf(article, step) {
  const list = hitsIn(article.closest(".hits"));
  return list[list.indexOf(article) + step];
}

/** @type {(article: HTMLElement, side: 0 | 1) => HTMLElement | null | undefined} the same document in the list of this side, else the same rank */
function besideOf(article, side) {
  const column = columnOf(article);
  if (!column || Number(column.dataset.side) === side) return null;
  const hits = hitsIn(article.closest(".comparison")?.querySelector(`.column[data-side="${side}"]`));
  return counterpartOf(article) ?? hits[Math.min(Number(article.dataset.rank), hits.length) - 1];
}

/** @type {(article: HTMLElement | null | undefined) => boolean} */
function focusHit(article) {
  if (!article) return false;
  article.focus({ preventScroll: true });
  article.scrollIntoView({ block: "nearest" });
  return true;
}

/** @type {(article: HTMLElement, act: string) => boolean} */
function press(article, act) {
  const button = article.querySelector(`[data-act="${act}"]`);
  if (button instanceof HTMLElement) button.click();
  return button !== null;
}

/** @param {HTMLInputElement} box */
function focusBox(box) {
  box.focus();
  box.select();
  return true;
}

// ---- the index

// Indexes that are inspected to find the largest.
const INSPECTED = 12;

/** @type {(names: readonly string[]) => Promise<string>} the index with most documents among the first; "" when there is none */
export async function findLargest(names) {
  const indexes = await Promise.all(names.slice(0, INSPECTED).map(inspectIndex));
  const largest = Math.max(...indexes.map(({ total }) => total));
  return indexes.find(({ total }) => total === largest)?.name ?? "";
}

/**
 * Offer indexes to choose from. A name that does not exist is offered too: the API says that it does not exist.
 * @param {HTMLSelectElement} select
 * @param {readonly string[]} names
 * @param {string} current
 */
export function fillIndexes(select, names, current) {
  const offered = current && !names.includes(current) ? [current, ...names] : names;
  select.replaceChildren(
    ...(offered.length > 0 ? offered : ["none yet"]).map((name) => h("option", { value: name }, name)),
  );
  select.disabled = offered.length === 0;
}

/** @type {(index: Index) => Child} the numbers of documents by state */
export function renderStates({ name, total, pending, dead }) {
  const pendingTitle = "Lexical search finds them already; sparse search finds them when they are encoded";
  const deadTitle = "Could not be encoded; lexical search finds them. See why";
  return [
    h("span", {}, formatCount(total, "document")),
    pending > 0 && h("span", { class: "state-pending", title: pendingTitle }, `${formatNumber(pending)} pending`),
    dead > 0 &&
      h(
        "a",
        { class: "state-dead", href: `operate?index=${encodeURIComponent(name)}`, title: deadTitle },
        `${formatNumber(dead)} dead`,
      ),
  ];
}

// ---- the ranking: weights and fusion of the lists, pruning, the reranker

const FUSION_NAMES = { min_max: "min-max", z_score: "z-score", rrf: "reciprocal ranks" };
const DEFAULT_SHARE = 0.5;
// Of the dense query table, which an index of its own encoder's vectors has, and of a model.
const TABLE_SHARE = 0.4;
const MODEL_SHARE = 0.7;
const RESULT_UNITS = /** @type {const} */ ([
  ["", "whole talks"],
  ["chapter", "chapters"],
  ["passage", "passages"],
]);
const VECTORS = /** @type {const} */ ([
  ["", "best window"],
  ["document", "whole vector"],
]);

/**
 * Create the controls that the mode of a view and its index allow.
 * @param {View} view
 * @param {Pick<Index, "talk" | "windows" | "dense" | "encoder"> | null} index
 * @param {OnChange} onChange
 */
export function renderRanking(view, index, onChange) {
  const sparse = view.mode !== "lexical";
  return [
    ...(index?.talk ? [renderTalk(view, onChange)] : []),
    ...(view.mode === "hybrid" ? [renderFusion(view, onChange)] : []),
    ...(sparse ? [renderCost(view, onChange)] : []),
    ...(sparse && index?.windows === "both" ? [renderVectors(view, onChange)] : []),
    ...(index?.dense ? [renderRerank(view, index, onChange)] : []),
  ];
}

/** @type {(view: View, onChange: OnChange) => HTMLElement} */
function renderTalk(view, onChange) {
  // Chapters and passages are found by words alone, in the order of their scores.
  /** @type {Partial<View>} */
  const words = { sort: "", rerank: null, phases: false, by: "", like: [], unlike: [] };
  const unit = renderSelect("unit", RESULT_UNITS, view.unit, (value) => onChange({ unit: value, ...(value && words) }));
  return renderGroup("Talk", renderRow("find", unit, "each with its place in the talk"));
}

/** @type {(view: View, onChange: OnChange) => HTMLElement} */
function renderFusion(view, onChange) {
  const share = renderSlider("share", "Share of the sparse list", view.share ?? DEFAULT_SHARE, (value) =>
    onChange({ share: value === DEFAULT_SHARE ? null : value }),
  );
  const choices = FUSIONS.map((name) => /** @type {const} */ ([name, FUSION_NAMES[name]]));
  const fusion = renderSelect("fusion", choices, view.fusion, (value) => onChange({ fusion: value }));
  return renderGroup(
    "Fusion of the two lists",
    renderRow("sparse", share, "of the score, the rest is lexical"),
    renderRow("scaled by", fusion, "before the scores are added"),
  );
}

/** @type {(view: View, onChange: OnChange) => HTMLElement} */
function renderCost(view, onChange) {
  const prune = h("input", {
    type: "number",
    min: 0,
    max: 0.9,
    step: 0.05,
    placeholder: "default",
    data: { key: "prune" },
  });
  if (view.prune !== null) prune.value = String(view.prune);
  prune.addEventListener("change", () => {
    if (prune.reportValidity()) onChange({ prune: prune.value === "" ? null : Number(prune.value) });
  });
  const phases = renderCheckbox("phases", view.phases, (checked) => onChange({ phases: checked }));
  return renderGroup(
    "Cost of the query",
    renderRow("prune below", prune, "of the heaviest piece’s weight"),
    renderRow("two phases", phases, "light pieces only rescore the best hits"),
  );
}

/** @type {(view: View, onChange: OnChange) => HTMLElement} */
function renderVectors(view, onChange) {
  const by = renderSelect("by", VECTORS, view.by, (value) => onChange({ by: value }));
  return renderGroup("Long documents", renderRow("scored by", by, "of a document’s vectors"));
}

/** @type {(view: View, index: Pick<Index, "dense" | "encoder">, onChange: OnChange) => HTMLElement} */
function renderRerank(view, index, onChange) {
  const share = index.dense?.fingerprint === index.encoder.fingerprint ? TABLE_SHARE : MODEL_SHARE;
  const box = renderCheckbox("rerank", view.rerank !== null, (checked) =>
    onChange(checked ? { rerank: share, sort: "" } : { rerank: null }),
  );
  return renderGroup(
    "Reranking",
    renderRow("rerank", box, "the best 100 hits, by dense vectors"),
    view.rerank !== null &&
      renderRow(
        "share",
        renderSlider("rerank-share", "Share of the reranker", view.rerank, (value) => onChange({ rerank: value })),
        "of the final score",
      ),
  );
}

/** @type {(view: View) => number} how many ranking options differ from the defaults */
export const countRankingOptions = (view) =>
  /** @type {const} */ (["share", "fusion", "prune", "phases", "by", "unit", "rerank"]).filter(
    (name) => view[name] !== EMPTY_VIEW[name],
  ).length;

const SORTABLE = ["keyword", "number", "date", "boolean"];

/**
 * Create the choice of an order: by score or by a declared field. Return null when no field can be sorted by.
 * @param {View} view
 * @param {import("./api.js").Fields} fields
 * @param {OnChange} onChange
 */
export function renderSort(view, fields, onChange) {
  const names = Object.keys(fields).filter((field) => SORTABLE.includes(fields[field]));
  if (names.length === 0) return null;
  /** @type {[string, string][]} */
  const choices = [["", view.query.trim() ? "best match" : "latest"]];
  for (const field of names) choices.push([field, `${field} ↑`], [`-${field}`, `${field} ↓`]);
  if (!choices.some(([value]) => value === view.sort)) choices.push([view.sort, view.sort]);
  // A sorted list cannot be reranked.
  const select = renderSelect("sort", choices, view.sort, (value) =>
    onChange({ sort: value, ...(value && { rerank: null }) }),
  );
  return h("label", { class: "sort" }, "Sort by ", select);
}

/**
 * @template {string} T
 * @param {string} key
 * @param {readonly (readonly [value: T, label: string])[]} choices
 * @param {T} current
 * @param {(value: T) => void} onChoice
 */
function renderSelect(key, choices, current, onChoice) {
  const options = choices.map(([value, label]) => h("option", { value, selected: value === current }, label));
  const select = h("select", { data: { key } }, options);
  select.addEventListener("change", () => onChoice(/** @type {T} */ (select.value)));
  return select;
}

/** @type {(key: string, checked: boolean, onCheck: (checked: boolean) => void) => HTMLElement} */
function renderCheckbox(key, checked, onCheck) {
  const box = h("input", { type: "checkbox", checked, data: { key } });
  box.addEventListener("change", () => onCheck(box.checked));
  return box;
}

/** @type {(key: string, label: string, value: number, onValue: (value: number) => void) => HTMLElement} */
function renderSlider(key, label, value, onValue) {
  const output = h("output", {}, value.toFixed(2));
  const input = h("input", { type: "range", min: 0, max: 1, step: 0.05, "aria-label": label, data: { key } });
  input.value = String(value);
  input.addEventListener("input", () => {
    output.textContent = Number(input.value).toFixed(2);
  });
  input.addEventListener("change", () => onValue(Number(input.value)));
  return h("span", { class: "slider" }, input, output);
}

/** @type {(name: string, ...rows: Child[]) => HTMLElement} */
const renderGroup = (name, ...rows) => h("fieldset", { class: "group" }, h("legend", {}, name), rows);

/** @type {(label: string, control: HTMLElement, note: string) => HTMLElement} */
const renderRow = (label, control, note) =>
  h("label", { class: "row" }, h("span", {}, label), control, h("span", { class: "faint" }, note));

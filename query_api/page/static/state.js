// The view: what is searched and how it is shown. Its address holds all of it, so that a link reproduces it and the back
// button works. Pure functions, but for saveView.
//
//   ?index=&q=&mode=&size=             the index, the query, the mode, the number of hits
//   &f.FIELD=VALUE                     filters, one for each value (see below)
//   &sort=year | -year                 the order
//   &share=&fusion=&prune=&phases=2    how the lists are computed and fused
//   &by=document                       the vector that is scored, where an index has both kinds
//   &unit=chapter | passage            the kind of result, where an index has talk
//   &rerank=                           the weight of the reranker
//   &like=ID&unlike=ID                 more like these documents, less like those
//   &doc=ID&start=&end=                the open document, and the passage that is marked in it

const MODES = /** @type {const} */ (["hybrid", "sparse", "lexical", "compare"]);
const UNITS = /** @type {const} */ (["chapter", "passage"]);
export const FUSIONS = /** @type {const} */ (["min_max", "z_score", "rrf"]);
export const PAGE_SIZE = 10;
export const MAX_SIZE = 200;

/** @typedef {readonly [field: string, value: string]} Filter */
/** @typedef {{ id: string, start: number | null, end: number | null }} Place a document and the passage in it */

/**
 * null and "" stand for the default of the service.
 * @typedef {object} View
 * @property {string} index
 * @property {string} query
 * @property {typeof MODES[number]} mode
 * @property {number} size
 * @property {readonly Filter[]} filters
 * @property {string} sort a field, with "-" before it for descending order
 * @property {number | null} share of the sparse list in hybrid search, 0 to 1
 * @property {typeof FUSIONS[number]} fusion
 * @property {number | null} prune 0 to 0.99
 * @property {boolean} phases whether a sparse search has two phases
 * @property {"document" | ""} by "document": score the vector of the whole document, not that of the best window
 * @property {typeof UNITS[number] | ""} unit the kind of result; "": a document
 * @property {number | null} rerank weight of the reranker, 0 to 1
 * @property {readonly string[]} like
 * @property {readonly string[]} unlike
 * @property {Place | null} document
 */

/** @type {Readonly<View>} */
export const EMPTY_VIEW = Object.freeze({
  index: "",
  query: "",
  mode: "hybrid",
  size: PAGE_SIZE,
  filters: Object.freeze([]),
  sort: "",
  share: null,
  fusion: "min_max",
  prune: null,
  phases: false,
  by: "",
  unit: "",
  rerank: null,
  like: Object.freeze([]),
  unlike: Object.freeze([]),
  document: null,
});

// ---- the address

const FILTER = "f.";

/**
 * Read a view from the query string of an address. Unknown and missing members take their defaults.
 * @param {string} [text]
 * @returns {View}
 */
export function readAddress(text = window.location.search) {
  const given = new URLSearchParams(text);
  const id = given.get("doc");
  // Links from before the mode was named as in the API.
  const mode = given.get("mode") === "keyword" ? "lexical" : given.get("mode");
  return {
    index: given.get("index") || "",
    query: given.get("q") || "",
    mode: oneOf(MODES, mode) ?? EMPTY_VIEW.mode,
    size: integerIn(given.get("size"), 1, MAX_SIZE) ?? PAGE_SIZE,
    filters: [...given].flatMap(([name, value]) =>
      name.startsWith(FILTER) ? [[name.slice(FILTER.length), value]] : [],
    ),
    sort: given.get("sort") || "",
    share: numberIn(given.get("share"), 0, 1),
    fusion: oneOf(FUSIONS, given.get("fusion")) ?? EMPTY_VIEW.fusion,
    prune: numberIn(given.get("prune"), 0, 0.99),
    phases: given.get("phases") === "2",
    by: given.get("by") === "document" ? "document" : "",
    unit: oneOf(UNITS, given.get("unit")) ?? "",
    rerank: numberIn(given.get("rerank"), 0, 1),
    like: given.getAll("like"),
    unlike: given.getAll("unlike"),
    document: id ? { id, start: integerIn(given.get("start"), 0), end: integerIn(given.get("end"), 0) } : null,
  };
}

/**
 * Write the address of a view, without its defaults.
 * @param {View} view
 */
export function writeAddress(view) {
  const given = new URLSearchParams();
  /** @type {(name: string, value: string | number | null, usual?: string | number | null) => void} */
  const put = (name, value, usual = null) => {
    if (value !== null && value !== "" && value !== usual) given.append(name, String(value));
  };
  put("index", view.index);
  put("q", view.query);
  put("mode", view.mode, EMPTY_VIEW.mode);
  put("size", view.size, PAGE_SIZE);
  for (const [field, value] of view.filters) given.append(FILTER + field, value);
  put("sort", view.sort);
  put("share", view.share);
  put("fusion", view.fusion, EMPTY_VIEW.fusion);
  put("prune", view.prune);
  put("phases", view.phases ? 2 : null);
  put("by", view.by);
  put("unit", view.unit);
  put("rerank", view.rerank);
  for (const id of view.like) given.append("like", id);
  for (const id of view.unlike) given.append("unlike", id);
  put("doc", view.document?.id ?? null);
  put("start", view.document?.start ?? null);
  put("end", view.document?.end ?? null);
  const text = given.toString();
  return text ? `?${text}` : "./";
}

/**
 * @template {string} T
 * @param {readonly T[]} allowed
 * @param {string | null} text
 */
const oneOf = (allowed, text) => allowed.find((value) => value === text);

/** @type {(text: string | null, least: number, most?: number) => number | null} */
function numberIn(text, least, most = Infinity) {
  const number = text === null || text.trim() === "" ? Number.NaN : Number(text);
  return number >= least && number <= most ? number : null;
}

/** @type {(text: string | null, least: number, most?: number) => number | null} */
function integerIn(text, least, most = Number.MAX_SAFE_INTEGER) {
  const number = numberIn(text, least, most);
  return Number.isInteger(number) ? number : null;
}

/**
 * Put a view into the browser's history. Typing adds one entry, the draft, and then replaces it, so that the back button
 * goes to the query before and not to its letters. Enter, a mode or an index add an entry that stays.
 * @param {View} view
 * @param {{ draft?: boolean, replace?: boolean }} [options] `replace`: the view shows the same, only more of it
 */
export function saveView(view, { draft = false, replace = false } = {}) {
  const onDraft = window.history.state?.draft === true;
  const address = writeAddress(view);
  const same = writeAddress(readAddress()) === address;
  if (onDraft || same || replace) window.history.replaceState({ draft: draft && onDraft }, "", address);
  else window.history.pushState({ draft }, "", address);
}

// ---- filters
//
// The value of a keyword or boolean filter is the value itself, that of a text filter its words, that of a number or date
// filter a range "from..to". Either end may be missing; "from..<to" excludes the end.

/** @typedef {{ gte?: string, lte?: string, lt?: string }} Range both ends included but for `lt` */

/** @type {(filters: readonly Filter[], field: string) => string[]} values of a field */
export const valuesOf = (filters, field) => filters.filter(([name]) => name === field).map(([, value]) => value);

/** @type {(filters: readonly Filter[], field: string, values: readonly string[]) => Filter[]} filters with other values of a field */
export const setValues = (filters, field, values) => [
  ...filters.filter(([name]) => name !== field),
  ...values.map((value) => /** @type {Filter} */ ([field, value])),
];

/** @type {(filters: readonly Filter[], field: string, value: string) => Filter[]} filters with a value of a field added or removed */
export function toggleValue(filters, field, value) {
  const values = valuesOf(filters, field);
  return setValues(
    filters,
    field,
    values.includes(value) ? values.filter((other) => other !== value) : [...values, value],
  );
}

/** @type {(range: Range) => string} */
export function writeRange({ gte, lte, lt }) {
  return `${gte ?? ""}..${lt === undefined ? "" : "<"}${lt ?? lte ?? ""}`;
}

/** @type {(value: string) => Range | null} null when the value is not a range */
export function readRange(value) {
  const found = /^(.*?)\.\.(<?)(.*)$/s.exec(value);
  if (!found) return null;
  const [, from, open, to] = found;
  return { ...(from && { gte: from }), ...(to && { [open ? "lt" : "lte"]: to }) };
}

/**
 * Build the filter of a request; null when there is none. A value that does not fit the type of its field goes to the API
 * as it is: the API says what is wrong with it.
 * @param {readonly Filter[]} filters
 * @param {import("./api.js").Fields} fields
 * @returns {object | null}
 */
export function filterOf(filters, fields) {
  const names = [...new Set(filters.map(([name]) => name))];
  const conditions = names.map((field) => conditionOf(field, valuesOf(filters, field), fields[field]));
  return conditions.length > 1 ? { all: conditions } : (conditions[0] ?? null);
}

/** @type {(field: string, values: string[], type: string | undefined) => object} */
function conditionOf(field, values, type) {
  if (type === "number" || type === "date") {
    const conditions = values.map((value) => rangeCondition(field, value, type));
    return conditions.length > 1 ? { any: conditions } : conditions[0];
  }
  if (type === "text")
    return values.length > 1 ? { all: values.map((match) => ({ field, match })) } : { field, match: values[0] };
  const typed = type === "boolean" ? values.map((value) => BOOLEANS.get(value) ?? value) : values;
  return typed.length > 1 ? { field, any_of: typed } : { field, is: typed[0] };
}

const BOOLEANS = new Map([
  ["true", true],
  ["false", false],
]);

/** @type {(field: string, value: string, type: "number" | "date") => object} */
function rangeCondition(field, value, type) {
  /** @param {string} end */
  const typed = (end) => (type === "number" && end.trim() !== "" && Number.isFinite(Number(end)) ? Number(end) : end);
  const range = readRange(value);
  if (range === null) return { field, is: typed(value) };
  return { field, range: Object.fromEntries(Object.entries(range).map(([bound, end]) => [bound, typed(end)])) };
}

/** @type {(value: string, type: string | undefined) => string} the value of a filter as the page shows it */
export function formatFilter(value, type) {
  if (type === "boolean") return value === "true" ? "yes" : "no";
  if (type === "text") return `“${value}”`;
  const range = type === "number" || type === "date" ? readRange(value) : null;
  if (range === null) return value;
  const { gte, lte, lt } = range;
  const year = yearOf(gte, lt);
  if (year !== null) return year;
  if (lte === undefined && lt === undefined) return `from ${gte ?? "?"}`;
  const to = lte ?? `before ${lt}`;
  if (gte !== undefined) return `${gte} – ${to}`;
  return lte === undefined ? to : `up to ${to}`;
}

/** @type {(gte: string | undefined, lt: string | undefined) => string | null} the year that a range covers */
function yearOf(gte, lt) {
  const year = /^(\d{4})-01-01$/.exec(gte ?? "")?.[1];
  return year !== undefined && lt === `${String(Number(year) + 1).padStart(4, "0")}-01-01` ? year : null;
}

// The whole state of a search lives in the address, so that a link reproduces it and the back button works.
//
//   ?index=&q=&mode=&size=             what is asked, where, how, and how many hits are shown
//   &f.FIELD=VALUE                     filters, as often as there are values (filters.js reads the values)
//   &sort=year | -year                 the order
//   &share=&fusion=&prune=&phases=2    how the lists are made and put together
//   &by=document                       the vector that is scored, where an index has both kinds
//   &unit=chapter | passage            what a result is, where an index has talk
//   &rerank=                           share of the second opinion
//   &like=ID&unlike=ID                 more like these, not like those
//   &doc=ID&start=&end=                the document that is open, and the passage that is marked in it

export const MODES = ["hybrid", "sparse", "keyword", "compare"];
export const UNITS = ["chapter", "passage"];
export const METHODS = ["min_max", "z_score", "rrf"];
export const PAGE_SIZE = 10;
export const MAX_SIZE = 200;

const FILTER = "f.";

/** The view that nothing is asked of yet. `null` means: as the service does it by itself. */
export const NOTHING = Object.freeze({
  index: "",
  query: "",
  mode: "hybrid",
  size: PAGE_SIZE,
  filters: Object.freeze([]), // of [field, value]
  sort: "",
  share: null, // of the sparse list in hybrid search, 0 to 1
  fusion: "min_max",
  prune: null,
  phases: false,
  by: "", // "document": sparse scores of the whole vector where the index would take the best window's
  unit: "", // what a result is; "": a document
  rerank: null, // share of the second opinion, 0 to 1
  like: Object.freeze([]),
  unlike: Object.freeze([]),
  document: null, // or {id, start, end}; the offsets may be null
});

/** The view that an address names; unknown or missing parts take their defaults. */
export function readAddress(text = window.location.search) {
  const given = new URLSearchParams(text);
  const mode = given.get("mode") === "lexical" ? "keyword" : given.get("mode");
  const id = given.get("doc");
  return {
    index: given.get("index") || "",
    query: given.get("q") || "",
    mode: MODES.includes(mode) ? mode : "hybrid",
    size: countIn(given.get("size"), 1, MAX_SIZE) ?? PAGE_SIZE,
    filters: [...given].filter(([name]) => name.startsWith(FILTER)).map(([name, value]) => [name.slice(FILTER.length), value]),
    sort: given.get("sort") || "",
    share: numberIn(given.get("share"), 0, 1),
    fusion: METHODS.includes(given.get("fusion")) ? given.get("fusion") : "min_max",
    prune: numberIn(given.get("prune"), 0, 0.99),
    phases: given.get("phases") === "2",
    by: given.get("by") === "document" ? "document" : "",
    unit: UNITS.includes(given.get("unit")) ? given.get("unit") : "",
    rerank: numberIn(given.get("rerank"), 0, 1),
    like: given.getAll("like"),
    unlike: given.getAll("unlike"),
    document: id ? { id, start: countIn(given.get("start"), 0), end: countIn(given.get("end"), 0) } : null,
  };
}

/** The address of a view, defaults left out. */
export function writeAddress(view) {
  const given = new URLSearchParams();
  const put = (name, value, usual = null) => value !== null && value !== "" && value !== usual && given.append(name, String(value));
  put("index", view.index);
  put("q", view.query);
  put("mode", view.mode, "hybrid");
  put("size", view.size, PAGE_SIZE);
  for (const [field, value] of view.filters) given.append(FILTER + field, value);
  put("sort", view.sort);
  put("share", view.share);
  put("fusion", view.fusion, "min_max");
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

function numberIn(text, least, most = Infinity) {
  const number = text === null || text.trim() === "" ? Number.NaN : Number(text);
  return number >= least && number <= most ? number : null;
}

function countIn(text, least, most = Number.MAX_SAFE_INTEGER) {
  const number = numberIn(text, least, most);
  return Number.isInteger(number) ? number : null;
}

/**
 * Puts a view into the history. Typing makes one draft entry and keeps replacing it, so that the back button goes to
 * the query before and not to its letters; Enter, a mode or an index make an entry that stays. `replace`: what is
 * looked at is the same, there is more of it.
 */
export function remember(view, { draft = false, replace = false } = {}) {
  const onDraft = window.history.state?.draft === true;
  const address = writeAddress(view);
  const same = writeAddress(readAddress()) === address;
  if (onDraft || same || replace) window.history.replaceState({ draft: draft && onDraft }, "", address);
  else window.history.pushState({ draft }, "", address);
}

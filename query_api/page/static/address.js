// What is looked at lives in the address: ?index=&q=&mode=&size=. So it can be shared, and the back button works.

export const MODES = ["hybrid", "sparse", "keyword", "compare"];
export const PAGE_SIZE = 10;
export const MAX_SIZE = 50;

/** The view that an address names; unknown or missing parts take their defaults. */
export function readAddress(text = window.location.search) {
  const parameters = new URLSearchParams(text);
  const named = parameters.get("mode") === "lexical" ? "keyword" : parameters.get("mode");
  const size = Number(parameters.get("size"));
  return {
    index: parameters.get("index") || "",
    query: parameters.get("q") || "",
    mode: MODES.includes(named) ? named : "hybrid",
    size: Number.isInteger(size) && size > 0 && size <= MAX_SIZE ? size : PAGE_SIZE,
  };
}

/** The address of a view, defaults left out. */
export function writeAddress({ index, query, mode, size }) {
  const parameters = new URLSearchParams();
  if (index) parameters.set("index", index);
  if (query) parameters.set("q", query);
  if (mode !== "hybrid") parameters.set("mode", mode);
  if (size !== PAGE_SIZE) parameters.set("size", String(size));
  const text = parameters.toString();
  return text ? `?${text}` : "./";
}

/**
 * Puts a view into the history. Typing makes one draft entry and keeps replacing it, so that the back button goes to
 * the query before and not to its letters; Enter, a mode or an index make an entry that stays.
 */
export function remember(view, { draft = false } = {}) {
  const onDraft = window.history.state?.draft === true;
  const address = writeAddress(view);
  const same = writeAddress(readAddress()) === address;
  if (onDraft || same) window.history.replaceState({ draft: draft && onDraft }, "", address);
  else window.history.pushState({ draft }, "", address);
}

// A whole document in a dialog. It has an address of its own: the linked passage is marked and scrolled to.

import { getChapters, getDocument, Problem, search } from "./api.js";
import { formatValue, h, nodesOf } from "./dom.js";
import { marked, metadataChips, runsOf, strongestOf } from "./hit.js";
import { copyButton } from "./panels.js";
import { renderChapters, renderTranscript, turnsOf } from "./talk.js";

/** @typedef {import("./api.js").StoredDocument} StoredDocument */
/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./state.js").Place} Place */

const RECORD = ["id", "state", "version", "attempts", "encoder", "job", "error"];

/**
 * Return a function that shows the document of a view, or closes the dialog when the view has none.
 * @param {HTMLDialogElement} dialog
 * @param {{ onClose: () => void, linkTo: (place: Place) => string }} handlers `onClose` is called when the reader closes
 *   the dialog, `linkTo` returns the address of a place in a document
 */
export function documentView(dialog, { onClose, linkTo }) {
  /** @type {string | null} */
  let open = null; // the document that is shown, as JSON
  dialog.addEventListener("close", () => {
    if (open === null) return;
    open = null;
    onClose();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) return dialog.close(); // a click beside the dialog
    const chapter = event.target instanceof Element ? event.target.closest("a[data-start]") : null;
    if (!(chapter instanceof HTMLElement) || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    scrollTo(dialog, `.chapter-head[data-start="${chapter.dataset.start}"]`, 0);
  });

  /** @type {(index: string, place: Place, body: object | null) => Promise<import("./dom.js").Child[]>} */
  async function load(index, place, body) {
    const [stored, answer] = await Promise.all([
      getDocument(index, place.id),
      body ? search(index, body).catch(() => null) : null,
    ]);
    const talk = stored.kind === "talk" ? await getChapters(index, place.id).catch(() => null) : null;
    return [
      renderHead(stored),
      talk && renderChapters(talk, ({ start, end }) => linkTo({ id: place.id, start, end })),
      renderText(stored, place, answer?.hits[0], talk),
      renderRecord(stored),
    ];
  }

  /**
   * @param {import("./state.js").View} view
   * @param {object | null} body a search for the document that highlights it as the view's search does
   */
  return async function show(view, body) {
    const { index, query, mode, document: place } = view;
    const wanted = place && JSON.stringify([index, query, mode, place]);
    if (wanted === open) return;
    open = wanted;
    if (place === null) return dialog.close();
    dialog.replaceChildren(closeButton(dialog), h("p", { class: "faint" }, "Loading the document …"));
    if (!dialog.open) dialog.showModal();
    const content = await load(index, place, body).catch(renderProblem);
    if (open !== wanted) return;
    dialog.replaceChildren(closeButton(dialog), ...nodesOf(content));
    scrollTo(dialog, ".best", 1 / 4);
  };
}

/** @type {(dialog: HTMLElement, selector: string, place: number) => void} scroll an element of the text to a height of its frame; 0 is the top */
function scrollTo(dialog, selector, place) {
  const text = /** @type {HTMLElement | null} */ (dialog.querySelector(".whole"));
  const found = text?.querySelector(selector);
  if (text && found) {
    const distance = found.getBoundingClientRect().top - text.getBoundingClientRect().top;
    text.scrollTop += distance - text.clientHeight * place;
  }
  text?.focus({ preventScroll: true });
}

/** @param {HTMLDialogElement} dialog */
const closeButton = (dialog) =>
  h("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => dialog.close() } }, "×");

/** @param {unknown} error */
function renderProblem(error) {
  const { title, message, code } = Problem.of(error);
  return [h("h2", { id: "document-title" }, title), h("p", { class: "faint" }, message, " ", h("code", {}, code))];
}

/** @param {StoredDocument} stored */
function renderHead(stored) {
  return h(
    "header",
    { class: "document-head" },
    h("h2", { id: "document-title" }, stored.title || stored.id),
    h("ul", { class: "chips", "aria-label": "Metadata" }, metadataChips(stored.metadata)),
    copyButton("Copy link", () => window.location.href),
  );
}

/** @param {StoredDocument & Record<string, any>} stored */
function renderRecord(stored) {
  const rows = RECORD.map((field) => {
    const value = stored[field];
    if (value === undefined || value === null || value === "") return null;
    const shown = field === "error" ? `${value.code}: ${value.reason}` : formatValue(value);
    return h("div", {}, h("dt", {}, field), h("dd", {}, shown));
  });
  return h("dl", { class: "record" }, rows);
}

/**
 * Show the text of a document with the linked passage set off, and the words marked that match the query.
 * @param {StoredDocument} stored
 * @param {Place} place
 * @param {Hit | undefined} hit
 * @param {import("./api.js").Chapters | null} talk
 */
function renderText(stored, place, hit, talk) {
  const points = [...(stored.text ?? "")];
  const spans = hit?.highlight?.text ?? [];
  const strongest = strongestOf(hit?.highlight);
  /** @type {(from: number, to: number) => import("./dom.js").Child} */
  const cut = (from, to) => {
    const inside = spans.filter(({ start, end }) => end > from && start < to);
    return marked(runsOf(points.slice(from, to).join(""), from, inside, strongest));
  };
  const passage = passageOf(points, place, hit);
  /** @type {(from: number, to: number) => import("./dom.js").Child} */
  const setOff = (from, to) => {
    const [start, end] = [passage.start, passage.end].map((offset) => Math.min(Math.max(offset, from), to));
    const best = start < end && h("span", { class: "best", title: "The passage" }, cut(start, end));
    return [cut(from, start), best, cut(end, to)];
  };
  const turns = talk ? turnsOf(points, stored.segments ?? []) : [];
  const transcript = talk !== null && turns.length > 0;
  return h(
    "div",
    { class: transcript ? "whole talk" : "whole", tabindex: "0", role: "group", "aria-label": "Whole text" },
    transcript ? renderTranscript(turns, talk.chapters, setOff) : setOff(0, points.length),
  );
}

/**
 * Return the range of the linked passage, else of the search's best passage; an empty one when that is the whole text.
 * @param {readonly string[]} points
 * @param {Place} place
 * @param {Hit | undefined} hit
 */
function passageOf(points, { start, end }, hit) {
  if (start !== null && start < points.length) {
    return { start, end: end !== null && end > start ? Math.min(end, points.length) : endOfParagraph(points, start) };
  }
  const passage = hit?.passage;
  return passage && passage.windows > 1 ? { start: passage.start, end: passage.end } : { start: 0, end: 0 };
}

/** @type {(points: readonly string[], start: number) => number} */
function endOfParagraph(points, start) {
  const end = points.findIndex((point, at) => at >= start && point === "\n" && points[at + 1] === "\n");
  return end === -1 ? points.length : end;
}

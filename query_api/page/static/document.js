// The whole of one document, with its own address: the passage that was linked to is set off and scrolled to.

import { getChapters, getDocument, search } from "./api.js";
import { h } from "./dom.js";
import { plain } from "./format.js";
import { marked, metadataChips } from "./hit.js";
import { runsOf, strongest } from "./highlight.js";
import { copyButton } from "./copying.js";
import { chapterList, turnsOf, wholeTalk } from "./transcript.js";

const RECORD = ["id", "state", "version", "attempts", "encoder", "job", "error"];

/** Keeps a dialog in step with what is open. `onClose` is told when the reader closes it, `linkTo`
 * gives the address of a place in a document. */
export function documentView(dialog, { onClose, linkTo }) {
  let open = null; // as JSON, what is shown
  dialog.addEventListener("close", () => {
    if (open !== null) {
      open = null;
      onClose();
    }
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) return dialog.close(); // the space around it
    const chapter = event.target.closest("a[data-start]");
    if (!chapter || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    scrollTo(dialog, `.chapter-head[data-start="${chapter.dataset.start}"]`, 0);
  });

  /** Shows `view.document` of `view.index`, or nothing. `body` finds it as the view does, or is null. */
  return async function show(view, body) {
    const wanted = view.document && JSON.stringify([view.index, view.query, view.mode, view.document]);
    if (wanted === open) return;
    open = wanted;
    if (wanted === null) return dialog.close();
    dialog.replaceChildren(closeButton(dialog), h("p", { class: "faint" }, "Fetching the document …"));
    if (!dialog.open) dialog.showModal();
    const { index, document: asked } = view;
    let content;
    try {
      const [stored, answer] = await Promise.all([getDocument(index, asked.id), body ? search(index, body).catch(() => null) : null]);
      const talk = stored.kind === "talk" ? await getChapters(index, asked.id).catch(() => null) : null;
      content = [head(stored), talk && chapterList(talk, (chapter) => linkTo({ id: asked.id, start: chapter.start, end: chapter.end })), wholeText(stored, asked, answer?.hits[0], talk), record(stored)].filter(Boolean);
    } catch (problem) {
      content = [
        h("h2", { id: "document-title" }, problem.title ?? "The page could not show this"),
        h("p", { class: "faint" }, problem.message, " ", h("code", {}, problem.code ?? "page_error")),
      ];
    }
    if (open !== wanted) return;
    dialog.replaceChildren(closeButton(dialog), ...content);
    scrollTo(dialog, ".best", 1 / 4);
  };
}

/** Brings what a selector finds in the text to a place of what is seen of it: 0 is its top. */
function scrollTo(dialog, selector, place) {
  const text = dialog.querySelector(".whole");
  const found = text?.querySelector(selector);
  if (found) text.scrollTop += found.getBoundingClientRect().top - text.getBoundingClientRect().top - text.clientHeight * place;
  text?.focus({ preventScroll: true });
}

const closeButton = (dialog) => h("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => dialog.close() } }, "×");

function head(stored) {
  return h(
    "header",
    { class: "document-head" },
    h("h2", { id: "document-title" }, stored.title || stored.id),
    h("ul", { class: "chips", "aria-label": "Metadata" }, metadataChips(stored.metadata)),
    copyButton("Copy link", () => window.location.href),
  );
}

function record(stored) {
  const row = (field) => {
    const value = stored[field];
    if (value === undefined || value === null || value === "") return null;
    return h("div", {}, h("dt", {}, field), h("dd", {}, field === "error" ? `${value.code}: ${value.reason}` : plain(value)));
  };
  return h("dl", { class: "record" }, RECORD.map(row));
}

/** The stored text, the asked passage set off, and in the best passage of the search the words that matched. */
function wholeText(stored, asked, hit, talk) {
  const points = [...(stored.text ?? "")];
  const spans = hit?.highlight?.text ?? [];
  const most = strongest(hit?.highlight);
  const cut = (from, to) => marked(runsOf(points.slice(from, to).join(""), from, within(spans, from, to), most));
  const passage = passageOf(points, asked, hit) ?? { start: 0, end: 0 };
  const setOff = (from, to) => {
    const [start, end] = [passage.start, passage.end].map((place) => Math.min(Math.max(place, from), to));
    return [cut(from, start), start < end && h("span", { class: "best", title: "The passage" }, cut(start, end)), cut(end, to)];
  };
  const turns = talk ? turnsOf(points, stored.segments ?? []) : [];
  const body = turns.length > 0 ? wholeTalk(turns, talk.chapters, setOff) : setOff(0, points.length);
  return h("div", { class: turns.length > 0 ? "whole talk" : "whole", tabindex: "0", role: "group", "aria-label": "Whole text" }, body);
}

const within = (spans, from, to) => spans.filter(({ start, end }) => end > from && start < to);

/** The asked passage, else the search's best one; null when that is all there is. */
function passageOf(points, asked, hit) {
  if (asked.start !== null && asked.start < points.length) {
    const end = asked.end !== null && asked.end > asked.start ? Math.min(asked.end, points.length) : endOfParagraph(points, asked.start);
    return { start: asked.start, end };
  }
  const { start = 0, end = 0, windows = 0 } = hit?.passage ?? {};
  return windows > 1 ? { start, end } : null;
}

function endOfParagraph(points, start) {
  for (let at = start; at < points.length; at += 1) if (points[at] === "\n" && points[at + 1] === "\n") return at;
  return points.length;
}

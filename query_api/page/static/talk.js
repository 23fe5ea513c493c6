// Talk as talk: when something is said, the chapters as a line of time, and what was found on it.

import { search } from "./api.js";
import { h } from "./dom.js";

/** Seconds as a player shows them: 0:07, 12:34, 1:02:03. Null where no time is known. */
export function clock(seconds) {
  if (!Number.isFinite(seconds)) return null;
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, String(whole % 60).padStart(2, "0")];
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** A time, as a link to the recording where it can be played. */
export function when(seconds, link) {
  const shown = clock(seconds);
  if (shown === null) return null;
  return link ? h("a", { class: "listen", href: link, rel: "noreferrer" }, `▶ ${shown}`) : h("span", { class: "listen" }, shown);
}

const CROWDED = 40; // chapters whose titles a line has no room for

/**
 * A line of chapters, each as long as it is; `linkTo(chapter)` is where a chapter leads, `current` the number of the
 * one that stands out. Talk without times is as long as its text. `markPassages` puts on it what was found. It is one
 * stop of the Tab key; arrows go along it.
 */
export function timeline(chapters, { current = null, linkTo }) {
  if (chapters.length === 0) return null;
  const timed = chapters.every(({ start_time, end_time }) => Number.isFinite(start_time) && Number.isFinite(end_time));
  const [from, to] = timed ? ["start_time", "end_time"] : ["start", "end"];
  const length = Math.max(...chapters.map((chapter) => chapter[to])) || 1;
  const stop = (chapters.find(({ number }) => number === current) ?? chapters[0]).number;
  const link = (chapter) =>
    h(
      "a",
      { href: linkTo(chapter), title: named(chapter), tabindex: chapter.number === stop ? "0" : "-1", data: { act: "document", chapter: chapter.number } },
      h("span", { class: "timeline-title" }, chapter.title),
    );
  const ends = [0, ...chapters.map((chapter) => chapter[to])]; // (an opening is in no chapter of a producer's)
  const items = chapters.map((chapter, at) => [
    chapter[from] > ends[at] && h("li", { class: "gap", "aria-hidden": "true", part: (chapter[from] - ends[at]) / length }),
    h("li", { part: (chapter[to] - chapter[from]) / length, class: chapter.number === current ? "current" : null }, link(chapter)),
  ]);
  return h(
    "div",
    { class: chapters.length > CROWDED ? "timeline crowded" : "timeline", data: { from, length } },
    h("ol", { class: "timeline-chapters", "aria-label": "Chapters", on: { keydown: along } }, items),
    h("div", { class: "timeline-marks", "aria-hidden": "true" }),
  );
}

const TO = { ArrowLeft: (at) => at - 1, ArrowRight: (at) => at + 1, Home: () => 0, End: (at, last) => last };

/** Arrows, Home and End move among the chapters of a line. */
function along(event) {
  if (!(event.key in TO) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const links = [...event.currentTarget.querySelectorAll("a")];
  const next = links[TO[event.key](links.indexOf(event.target), links.length - 1)];
  event.preventDefault(); // (at an end it stays: the page's own arrows lead elsewhere)
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

/** The line of a hit, with the chapter and the passage that were found on it. Null for what has no chapters. */
export function lineOf({ id, chapters = null, chapter, passage }, linkTo) {
  if (!chapters?.length) return null;
  const line = timeline(chapters, { current: chapter?.number, linkTo: (one) => linkTo({ id, passage: one }) });
  if (passage) markPassages(line, [passage]);
  return line;
}

/** Puts passages on a line, where they begin. */
export function markPassages(line, passages) {
  const { from, length } = line.dataset;
  const places = passages.map((passage) => passage[from]).filter(Number.isFinite);
  line.querySelector(".timeline-marks").replaceChildren(...places.map((at) => h("span", { class: "timeline-mark", part: at / Number(length) })));
}

const named = ({ title, start_time: start }) => (clock(start) ? `${clock(start)} ${title}` : title);

/**
 * Where a hit on talk is: the chapter with its time, who speaks, and where to listen. Null for other documents. The time
 * is that to which the link leads: of a chapter where chapters are found (`unit`), else of the passage.
 */
export function whereSaid({ chapter, passage, link }, unit) {
  const speaker = passage?.speaker;
  if (!chapter && !speaker && passage?.start_time === undefined) return null;
  return h(
    "p",
    { class: "said-where" },
    when((unit === "chapter" ? null : passage?.start_time) ?? chapter?.start_time, link),
    chapter && h("span", { class: "chapter-title" }, chapter.title),
    speaker && h("span", { class: "speaker" }, speaker),
  );
}

const MARKS = 5; // passages of a talk that are marked
const PARTS = 100; // hits that a search gives at most

/**
 * Marks on the lines of the results where else their talk answers what was asked: one search more, for passages. A list of
 * chapters or passages says it by itself.
 */
export async function markElsewhere(results, index, { query, mode, unit }, { hits }, signal) {
  const ids = [...new Set(hits.filter(({ chapters }) => chapters?.length > 0).map(({ id }) => id))];
  if (unit || ids.length === 0 || query.trim() === "") return;
  const filter = { field: "_id", any_of: ids };
  const body = { query, mode, unit: "passage", per_document: MARKS, size: Math.min(PARTS, MARKS * ids.length), fields: [], filter, learn: false };
  const articles = [...results.querySelectorAll(".hit")]; // those of now: others may be there when the answer comes
  const found = await search(index, body, signal).catch(() => null); // an ornament; the results stand
  if (found === null) return;
  for (const article of articles) {
    const line = article.querySelector(".timeline");
    const of = (list) => list.filter(({ id, passage }) => id === article.dataset.id && passage).map(({ passage }) => passage);
    if (line) markPassages(line, [...of(hits), ...of(found.hits)]); // (its own may be none of the best: they may be alike)
  }
}

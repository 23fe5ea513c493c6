// Talk: times, a timeline of the chapters with marks for the passages that were found, and the transcript.

import { search } from "./api.js";
import { h } from "./dom.js";

/** @typedef {import("./api.js").Chapter} Chapter */
/** @typedef {import("./api.js").Hit} Hit */
/** @typedef {import("./api.js").Passage} Passage */
/** @typedef {import("./dom.js").Child} Child */

/**
 * Format seconds as a player does: 0:07, 12:34, 1:02:03. Return null when no time is known.
 * @param {number | null | undefined} seconds
 */
export function formatClock(seconds) {
  if (!isNumber(seconds)) return null;
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, twoDigits(whole % 60)];
  return hours > 0 ? `${hours}:${twoDigits(minutes)}:${rest}` : `${minutes}:${rest}`;
}

/** @param {number} number */
const twoDigits = (number) => String(number).padStart(2, "0");

/**
 * @param {unknown} value
 * @returns {value is number}
 */
const isNumber = (value) => Number.isFinite(value);

/** @type {(seconds: number | null | undefined, link: string | null | undefined) => Child} a time, with a link that plays the recording from there */
function renderTime(seconds, link) {
  const shown = formatClock(seconds);
  if (shown === null) return null;
  return link
    ? h("a", { class: "listen", href: link, rel: "noreferrer" }, `▶ ${shown}`)
    : h("span", { class: "listen" }, shown);
}

/**
 * Show the place of a hit in its talk: the chapter with its time, the speaker, and a link that plays it. Return null for
 * other documents. The time is the one that the link plays: that of the chapter where chapters are found, else that of
 * the passage.
 * @param {Hit} hit
 * @param {"chapter" | "passage" | null} [unit] the kind of result
 */
export function placeInTalk({ chapter, passage, link }, unit) {
  const speaker = passage?.speaker;
  if (!chapter && !speaker && passage?.start_time === undefined) return null;
  return h(
    "p",
    { class: "talk-place" },
    renderTime((unit === "chapter" ? null : passage?.start_time) ?? chapter?.start_time, link),
    chapter && h("span", { class: "chapter-title" }, chapter.title),
    speaker && h("span", { class: "speaker" }, speaker),
  );
}

// ---- the timeline

// Chapters above this number have no room for their titles.
const CROWDED = 40;

/**
 * Create the timeline of a hit's talk, with the chapter and the passage that were found. Return null without chapters.
 * @param {Hit} hit
 * @param {(place: { id: string, passage: { start: number, end: number } }) => string} linkTo
 */
export function timelineOf({ id, chapters, chapter, passage }, linkTo) {
  if (!chapters?.length) return null;
  const timeline = renderTimeline(chapters, chapter?.number, (place) => linkTo({ id, passage: place }));
  if (passage) markPassages(timeline, [passage]);
  return timeline;
}

/**
 * Create a timeline on which each chapter is as long as it lasts, or as its text where times are missing. It is one stop
 * of the Tab key; arrows, Home and End move along it.
 * @param {Chapter[]} chapters
 * @param {number | undefined} current number of the chapter that stands out
 * @param {(chapter: Chapter) => string} linkTo
 */
function renderTimeline(chapters, current, linkTo) {
  const timed = chapters.every(({ start_time, end_time }) => isNumber(start_time) && isNumber(end_time));
  const unit = timed ? "start_time" : "start";
  /** @type {(chapter: Chapter) => [number, number]} */
  const rangeOf = (chapter) =>
    timed ? [chapter.start_time ?? 0, chapter.end_time ?? 0] : [chapter.start, chapter.end];
  const length = Math.max(...chapters.map((chapter) => rangeOf(chapter)[1])) || 1;
  const stop = (chapters.find(({ number }) => number === current) ?? chapters[0]).number;
  const items = chapters.map((chapter, at) => {
    const [from, to] = rangeOf(chapter);
    const gap = from - (at > 0 ? rangeOf(chapters[at - 1])[1] : 0); // a producer's chapters may leave parts out
    const { number, title } = chapter;
    const link = h(
      "a",
      {
        href: linkTo(chapter),
        title: [formatClock(chapter.start_time), title].filter(Boolean).join(" "),
        tabindex: number === stop ? "0" : "-1",
        data: { act: "document", chapter: number },
      },
      h("span", { class: "timeline-title" }, title),
    );
    return [
      gap > 0 && h("li", { class: "gap", "aria-hidden": "true", fraction: gap / length }),
      h("li", { fraction: (to - from) / length, class: number === current ? "current" : null }, link),
    ];
  });
  return h(
    "div",
    { class: chapters.length > CROWDED ? "timeline crowded" : "timeline", data: { unit, length } },
    h("ol", { class: "timeline-chapters", "aria-label": "Chapters", on: { keydown: moveAlong } }, items),
    h("div", { class: "timeline-marks", "aria-hidden": "true" }),
  );
}

/** @type {Record<string, (at: number, last: number) => number>} */
const MOVES = { ArrowLeft: (at) => at - 1, ArrowRight: (at) => at + 1, Home: () => 0, End: (_, last) => last };

/** @param {KeyboardEvent & { currentTarget: HTMLElement, target: HTMLAnchorElement }} event */
function moveAlong(event) {
  if (!(event.key in MOVES) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  const links = [...event.currentTarget.querySelectorAll("a")];
  const next = links[MOVES[event.key](links.indexOf(event.target), links.length - 1)];
  event.preventDefault(); // also at an end, where the arrows would leave the list
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

/** @type {(timeline: HTMLElement, passages: readonly Passage[]) => void} mark where passages begin */
function markPassages(timeline, passages) {
  const { unit, length } = timeline.dataset;
  const starts = passages.map((passage) => (unit === "start_time" ? passage.start_time : passage.start));
  const marks = starts
    .filter(isNumber)
    .map((start) => h("span", { class: "timeline-mark", fraction: start / Number(length) }));
  timeline.querySelector(".timeline-marks")?.replaceChildren(...marks);
}

// Passages of a talk that are marked.
const MARKS = 5;
// Hits that a search returns at most.
const MAX_HITS = 100;

/**
 * Mark on the timelines of the results where else their talks match the query. This takes one more search, for passages.
 * A list of chapters or passages needs no such marks.
 * @param {HTMLElement} results
 * @param {string} index
 * @param {import("./requests.js").Body} body of the search that found the answer
 * @param {import("./api.js").Answer} answer
 * @param {AbortSignal} signal
 */
export async function markElsewhere(results, index, { query, mode, unit }, { hits }, signal) {
  const ids = [...new Set(hits.filter(({ chapters }) => chapters?.length).map(({ id }) => id))];
  if (unit || ids.length === 0 || String(query).trim() === "") return;
  const passages = { unit: "passage", per_document: MARKS, size: Math.min(MAX_HITS, MARKS * ids.length), fields: [] };
  const body = { query, mode, ...passages, filter: { field: "_id", any_of: ids }, learn: false };
  // The articles of this search: the page may show others when the answer comes.
  const articles = /** @type {HTMLElement[]} */ ([...results.querySelectorAll(".hit")]);
  const found = await search(index, body, signal).catch(() => null); // without the marks, the results are still right
  if (found === null) return;
  for (const article of articles) {
    const timeline = article.querySelector(".timeline");
    if (!(timeline instanceof HTMLElement)) continue;
    // The passage of the hit itself is marked in any case: if passages are alike, the search may not return it.
    const own = [...hits, ...found.hits].filter(({ id }) => id === article.dataset.id);
    markPassages(
      timeline,
      own.flatMap(({ passage }) => passage ?? []),
    );
  }
}

// ---- the transcript

/**
 * List the chapters: a time, which plays the recording where there is a link, and a title, which leads to the text.
 * @param {import("./api.js").Chapters} talk
 * @param {(chapter: Chapter) => string} linkTo
 */
export function renderChapters({ chapters, chaptering }, linkTo) {
  if (chapters.length === 0) {
    const why =
      chaptering?.error?.reason ?? (chaptering ? "None were requested." : "They are made when it is encoded.");
    return h("p", { class: "faint" }, `This talk has no chapters: ${why}`);
  }
  const items = chapters.map((chapter) =>
    h(
      "li",
      {},
      renderTime(chapter.start_time, chapter.link),
      h("a", { href: linkTo(chapter), data: { chapter: chapter.number, start: chapter.start } }, chapter.title),
    ),
  );
  const engine = chaptering?.engine ?? "none";
  const source = engine === "given" ? "Chapters of the producer" : `Chapters made by the service (${engine})`;
  return h(
    "nav",
    { class: "chapter-list", "aria-label": "Chapters" },
    h("ol", {}, items),
    h("p", { class: "faint" }, source),
  );
}

/** @typedef {{ start: number, end: number, speaker: string | null, time: number | null }} Turn in characters and seconds */

// Seconds of one speaker before the transcript shows the next time.
const LONGEST_TURN = 60;

/**
 * Divide the text of a talk into turns, in order and without a gap: what one speaker says, a minute at most.
 * @param {readonly string[]} points the text
 * @param {readonly import("./api.js").Segment[]} segments each stands in the text, after the one before it
 * @returns {Turn[]}
 */
export function turnsOf(points, segments) {
  /** @type {Turn[]} */
  const turns = [];
  let at = 0;
  for (const segment of segments) {
    const words = [...segment.text.trimEnd()];
    const start = findNear(points, words, at);
    if (start === null) continue;
    at = start + words.length;
    const last = turns.at(-1);
    const { speaker = null, start: time = null } = segment;
    const timed = time !== null && last !== undefined && last.time !== null;
    const continues = last?.speaker === speaker && !(timed && time - (last.time ?? 0) >= LONGEST_TURN);
    // Without times, only paragraphs divide a long speech.
    if (last && continues && !(time === null && points[start - 1] === "\n")) continue;
    if (last) last.end = start;
    turns.push({ start: last ? start : 0, end: points.length, speaker, time });
  }
  return turns;
}

// Characters of white space between two segments, at most.
const JOINER = 4;

/** @type {(points: readonly string[], wanted: readonly string[], from: number) => number | null} where `wanted` begins, at `from` or after white space; null when it does not */
function findNear(points, wanted, from) {
  for (let at = from; at <= from + JOINER; at += 1) {
    if (wanted.every((point, offset) => points[at + offset] === point)) return at;
  }
  return null;
}

/**
 * Show turns, with headings where chapters begin.
 * @param {readonly Turn[]} turns
 * @param {readonly Chapter[]} chapters
 * @param {(from: number, to: number) => Child} cut returns the marked text of a range
 * @returns {Child}
 */
export function renderTranscript(turns, chapters, cut) {
  const starts = new Map(chapters.map((chapter) => [chapter.start, chapter]));
  /** @type {string | null} */
  let speaker = null;
  return turns
    .flatMap((turn) => splitTurn(turn, [...starts.keys()]))
    .map((piece) => {
      const chapter = starts.get(piece.start);
      const name = piece.speaker !== speaker && piece.speaker ? h("b", {}, piece.speaker) : null;
      const time = piece.first ? formatClock(piece.time) : null;
      speaker = piece.speaker;
      return [
        chapter &&
          h(
            "h3",
            { class: "chapter-head", data: { start: chapter.start } },
            chapter.title,
            " ",
            renderTime(chapter.start_time, chapter.link),
          ),
        h(
          "div",
          { class: "turn" },
          (name || time) && h("p", { class: "turn-head" }, name, name && time && " ", time),
          h("p", {}, cut(piece.start, piece.end)),
        ),
      ];
    });
}

/** @type {(turn: Turn, starts: readonly number[]) => (Turn & { first: boolean })[]} a turn, split where chapters begin within it */
function splitTurn(turn, starts) {
  const inside = starts.filter((start) => start > turn.start && start < turn.end).sort((a, b) => a - b);
  const from = [turn.start, ...inside];
  return from.map((start, at) => ({ ...turn, start, end: from[at + 1] ?? turn.end, first: at === 0 }));
}

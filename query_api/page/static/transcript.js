// The whole of a talk: its chapters to choose among, and who says what when.

import { h } from "./dom.js";
import { clock, when } from "./talk.js";

const LONGEST_TURN = 60; // seconds that somebody speaks before the next time is shown

/** The chapters as lines: a time, which plays where there is a link, and a title, which leads to the place in the text. */
export function chapterList({ chapters, chaptering }, linkTo) {
  if (chapters.length === 0) {
    const why = chaptering?.error?.reason ?? (chaptering ? "None were asked for." : "They are made with the vectors.");
    return h("p", { class: "faint" }, `This talk has no chapters: ${why}`);
  }
  return h(
    "nav",
    { class: "chapter-list", "aria-label": "Chapters" },
    h(
      "ol",
      {},
      chapters.map((chapter) =>
        h(
          "li",
          {},
          when(chapter.start_time, chapter.link),
          h("a", { href: linkTo(chapter), data: { chapter: chapter.number, start: chapter.start } }, chapter.title),
        ),
      ),
    ),
    h("p", { class: "faint" }, chaptering?.engine === "given" ? "Chapters of the producer" : `Chapters made here (${chaptering?.engine ?? "none"})`),
  );
}

/**
 * Stretches of a talk's text, [{start, end, speaker, time}] in characters, in order and without a gap: what one speaker says, a
 * minute at most. `segments` are those of the document, each of which stands in the text, after the one before it.
 */
export function turnsOf(points, segments) {
  const turns = [];
  let at = 0;
  for (const segment of segments) {
    const said = [...segment.text.trimEnd()];
    const start = find(points, said, at);
    if (start === null) continue;
    at = start + said.length;
    const last = turns.at(-1);
    const { speaker = null, start: time = null } = segment;
    const goesOn = last && last.speaker === speaker && (time === null || last.time === null || time - last.time < LONGEST_TURN);
    // (without times nothing else breaks a long speech but its paragraphs)
    if (goesOn && !(time === null && points[start - 1] === "\n")) continue;
    turns.push({ start: turns.length === 0 ? 0 : start, end: points.length, speaker, time });
    if (last) last.end = start;
  }
  return turns;
}

const JOINER = 4; // characters of white space between two segments, at most

/** Where `wanted` begins, at `from` or behind white space; null when the text has something else there. */
function find(points, wanted, from) {
  for (let at = from; at <= from + JOINER; at += 1) if (wanted.every((point, offset) => points[at + offset] === point)) return at;
  return null;
}

/** The turns as elements, with headings where chapters begin. `cut(from, to)` gives the marked text of a stretch. */
export function wholeTalk(turns, chapters, cut) {
  const starts = new Map(chapters.map((chapter) => [chapter.start, chapter]));
  const pieces = turns.flatMap((turn) => broken(turn, [...starts.keys()]));
  let speaker;
  return pieces.map((piece) => {
    const chapter = starts.get(piece.start);
    const head = [piece.speaker !== speaker && piece.speaker && h("b", {}, piece.speaker), piece.first && clock(piece.time)].filter(Boolean);
    speaker = piece.speaker;
    return [
      chapter && h("h3", { class: "chapter-head", data: { start: chapter.start } }, chapter.title, " ", when(chapter.start_time, chapter.link)),
      h("div", { class: "turn" }, head.length > 0 && h("p", { class: "turn-head" }, head.map((part, number) => [number > 0 && " ", part])), h("p", {}, cut(piece.start, piece.end))),
    ];
  });
}

/** A turn in parts, where chapters begin within it. */
function broken(turn, starts) {
  const inside = starts.filter((start) => start > turn.start && start < turn.end).sort((a, b) => a - b);
  const ends = [...inside, turn.end];
  return ends.map((end, number) => ({ ...turn, start: number === 0 ? turn.start : inside[number - 1], end, first: number === 0 }));
}

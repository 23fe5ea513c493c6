// Numbers and times as the page shows them, the stages of a search, and the turns of a talk.

import assert from "node:assert/strict";
import { test } from "node:test";
import { formatAge, formatCount, formatDuration, formatNumber, formatValue, formatWeight } from "./static/dom.js";
import { stagesOf } from "./static/panels.js";
import { formatClock, turnsOf } from "./static/talk.js";

test("numbers and counts", () => {
  assert.deepEqual([0, 999, 1234567].map(formatNumber), ["0", "999", "1,234,567"]);
  assert.deepEqual([formatCount(1, "document"), formatCount(2000, "document")], ["1 document", "2,000 documents"]);
  assert.equal(formatCount(0, "index", "indexes"), "0 indexes");
});

test("durations have the unit of their size", () => {
  const shown = [undefined, Number.NaN, 0.0123, 0.1, 9.94, 12.6, 999.4, 1500].map(formatDuration);
  assert.deepEqual(shown, ["–", "–", "12 µs", "0.1 ms", "9.9 ms", "13 ms", "999 ms", "1.5 s"]);
});

test("ages have their largest whole unit", () => {
  assert.deepEqual([0.4, 59, 60, 7199, 200000].map(formatAge), ["0 s", "59 s", "1 min", "1 h", "2 d"]);
});

test("weights have about three digits", () => {
  assert.deepEqual([undefined, 0, 1.234, -12.34, 123.4].map(formatWeight), ["–", "0.00", "1.23", "-12.3", "123"]);
});

test("metadata of any type is one line", () => {
  assert.deepEqual(["a", [1, "b", [true]], { a: 1 }].map(formatValue), ["a", "1, b, true", '{"a":1}']);
});

test("times are those of a player", () => {
  const shown = [null, undefined, 0, 7.9, 754, 3723].map(formatClock);
  assert.deepEqual(shown, [null, null, "0:00", "0:07", "12:34", "1:02:03"]);
});

test("the stages of a search add up to its time, without the empty ones", () => {
  const stages = stagesOf({ encode: 1, opensearch: 5, engine: 3, fuse: 0, shape: 2, total: 10 });
  assert.deepEqual(
    stages.map(({ name, ms }) => [name, ms]),
    [
      ["encode", 1],
      ["engine", 3],
      ["transport", 2],
      ["shape", 2],
      ["rest", 2],
    ],
  );
  assert.deepEqual(stagesOf({}), []);
});

// ---- turns

const TEXT = [..."One two. 🫖 three.\n\nFour."];

/** @param {import("./static/api.js").Segment[]} segments */
const turns = (segments) =>
  turnsOf(TEXT, segments).map(({ start, end, speaker, time }) => [TEXT.slice(start, end).join(""), speaker, time]);

test("a turn lasts while a speaker goes on", () => {
  const spoken = [
    { speaker: "Ada", start: 5, text: "One two. " },
    { speaker: "Ada", start: 9, text: "🫖 three." },
    { speaker: "Bo", start: 12, text: "Four." },
  ];
  assert.deepEqual(turns(spoken), [
    ["One two. 🫖 three.\n\n", "Ada", 5],
    ["Four.", "Bo", 12],
  ]);
});

test("a long turn is divided by times, or by paragraphs where there are none", () => {
  const timed = [
    { start: 5, text: "One two." },
    { start: 65, text: "🫖 three." },
  ];
  assert.deepEqual(turns(timed), [
    ["One two. ", null, 5],
    ["🫖 three.\n\nFour.", null, 65],
  ]);
  assert.deepEqual(turns([{ text: "One two." }, { text: "🫖 three." }, { text: "Four." }]), [
    ["One two. 🫖 three.\n\n", null, null],
    ["Four.", null, null],
  ]);
});

test("segments that are not in the text are left out", () => {
  assert.deepEqual(turns([{ text: "Zero." }]), []);
  assert.deepEqual(turns([{ text: "One two." }, { text: "else" }]), [["One two. 🫖 three.\n\nFour.", null, null]]);
});

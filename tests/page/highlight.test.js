// Marked words of a hit, typed letters of a suggestion, and lists side by side.

import assert from "node:assert/strict";
import { test } from "node:test";
import { splitTyped } from "./static/completing.js";
import { keyOf, runsOf, strongestOf, worthNaming } from "./static/hit.js";
import { compareLists } from "./static/results.js";

/** @type {(start: number, end: number, list: "sparse" | "lexical", piece: string, contribution: number) => import("./static/api.js").Span} */
const span = (start, end, list, piece, contribution) => ({ start, end, matches: [{ list, piece, contribution }] });

const SPANS = [span(12, 15, "sparse", "tea", 4), span(19, 22, "sparse", "the", 0.1), span(23, 26, "lexical", "cup", 1)];

test("spans count code points from the offset of the text, and noise is not marked", () => {
  const runs = runsOf("🫖 tea in the cup", 10, SPANS, strongestOf({ text: SPANS }));
  assert.deepEqual(
    runs.map(({ text, level }) => [text, level]),
    [
      ["🫖 ", 0],
      ["tea", 3],
      [" in the ", 0],
      ["cup", 2],
    ],
  );
  assert.deepEqual(runs[1].matches, SPANS[0].matches);
});

test("a word of the lexical list alone counts in full where there is no sparse list", () => {
  const spans = [span(0, 3, "lexical", "cup", 1)];
  assert.deepEqual(runsOf("cup", 0, spans, strongestOf({ text: spans })), [
    { text: "cup", level: 3, matches: spans[0].matches },
  ]);
});

test("spans outside the text or over each other mark nothing twice", () => {
  const spans = [span(0, 4, "sparse", "a", 1), span(2, 6, "sparse", "b", 1), span(90, 99, "sparse", "c", 1)];
  const runs = runsOf("abcdefgh", 0, spans, strongestOf({ text: spans }));
  assert.deepEqual(
    runs.map(({ text, level }) => [text, level]),
    [
      ["abcd", 3],
      ["ef", 3],
      ["gh", 0],
    ],
  );
  assert.equal(runs.map(({ text }) => text).join(""), "abcdefgh");
});

test("a text without spans is one run, an empty text none", () => {
  const nothing = strongestOf(null);
  assert.deepEqual(nothing, { sparse: 0, lexical: 0 });
  assert.deepEqual(runsOf("abc", 0, SPANS.slice(0, 0), nothing), [{ text: "abc", level: 0, matches: [] }]);
  assert.deepEqual(runsOf("", 0, [], nothing), []);
});

test("pieces are named once, strongest first, without noise", () => {
  /** @type {import("./static/api.js").Match[]} */
  const matches = [
    { list: "sparse", piece: "weak", contribution: 1 },
    { list: "sparse", piece: "noise", contribution: 0.1 },
    { list: "sparse", piece: "strong", contribution: 5 },
    { list: "lexical", piece: "weak", contribution: 1 },
  ];
  const named = worthNaming(matches, { sparse: 10, lexical: 10 });
  assert.deepEqual(
    named.map(({ piece }) => piece),
    ["strong", "weak"],
  );
});

test("a suggestion is split at its typed letters", () => {
  assert.deepEqual(splitTyped("🫖 Storm 1", [{ start: 2, end: 5 }]), [
    { text: "🫖 ", isNew: true },
    { text: "Sto", isNew: false },
    { text: "rm 1", isNew: true },
  ]);
});

test("lists are compared by the kind of result", () => {
  /** @type {(id: string, number: number) => import("./static/api.js").Hit} */
  const hit = (id, number) => ({ id, score: 1, chapter: { number, title: "", start: 0, end: 1 } });
  const [left, right] = [
    [hit("a", 1), hit("a", 2)],
    [hit("a", 2), hit("b", 1)],
  ];
  const chapters = compareLists(left, right, "chapter");
  assert.deepEqual([chapters.both, chapters.only], [1, [1, 1]]);
  assert.equal(chapters.ranks[1].get(keyOf(left[1], "chapter")), 1);
  assert.deepEqual(compareLists([hit("a", 1)], right, null).both, 1);
});

// The view and its address, and filters as conditions of the API.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  EMPTY_VIEW,
  filterOf,
  formatFilter,
  MAX_SIZE,
  readAddress,
  readRange,
  setValues,
  toggleValue,
  writeAddress,
  writeRange,
} from "./static/state.js";

/** @typedef {import("./static/state.js").View} View */

/** @type {View} a view without any default */
const FULL = {
  index: "my books",
  query: "storm & sea=? 100 %",
  mode: "sparse",
  size: 20,
  filters: [
    ["genre", "crime"],
    ["genre", "sea & land"],
    ["pages", "150..420"],
  ],
  sort: "-pages",
  share: 0.2,
  fusion: "rrf",
  prune: 0.35,
  phases: true,
  by: "document",
  unit: "chapter",
  rerank: 0,
  like: ["a/1", "b"],
  unlike: ["ü?#"],
  document: { id: "harbour/no 7?#a", start: 0, end: 12 },
};

test("an empty address is the empty view, and its address is the page itself", () => {
  assert.deepEqual(readAddress(""), EMPTY_VIEW);
  assert.equal(writeAddress(EMPTY_VIEW), "./");
});

test("an address holds every member of a view", () => {
  assert.deepEqual(Object.keys(FULL), Object.keys(EMPTY_VIEW));
  assert.deepEqual(readAddress(writeAddress(FULL)), FULL);
});

test("an address leaves defaults out", () => {
  assert.equal(writeAddress({ ...EMPTY_VIEW, index: "books", query: "a b" }), "?index=books&q=a+b");
  assert.equal(writeAddress({ ...EMPTY_VIEW, mode: "lexical" }), "?mode=lexical");
});

test("a share of 0 is not the default", () => {
  assert.equal(writeAddress({ ...EMPTY_VIEW, share: 0 }), "?share=0");
  assert.equal(readAddress("?share=0").share, 0);
});

test("older links call the lexical mode keyword", () => {
  assert.equal(readAddress("?mode=keyword").mode, "lexical");
});

for (const [name, text] of /** @type {const} */ ([
  ["mode", "?mode=fast"],
  ["size", "?size=0"],
  ["size", `?size=${MAX_SIZE + 1}`],
  ["size", "?size=2.5"],
  ["share", "?share=1.1"],
  ["share", "?share="],
  ["prune", "?prune=1"],
  ["prune", "?prune=NaN"],
  ["fusion", "?fusion=sum"],
  ["phases", "?phases=1"],
  ["by", "?by=window"],
  ["unit", "?unit=document"],
  ["rerank", "?rerank=-0.1"],
  ["document", "?start=3&end=4"],
])) {
  test(`${text} falls back to the default`, () => assert.deepEqual(readAddress(text)[name], EMPTY_VIEW[name]));
}

test("offsets of a document may be missing or invalid", () => {
  assert.deepEqual(readAddress("?doc=a&start=-1&end=2").document, { id: "a", start: null, end: 2 });
});

for (const [range, text] of /** @type {[import("./static/state.js").Range, string][]} */ ([
  [{ gte: "1850", lte: "1900" }, "1850..1900"],
  [{ gte: "9" }, "9.."],
  [{ lte: "9" }, "..9"],
  [{ gte: "1991-01-01", lt: "1992-01-01" }, "1991-01-01..<1992-01-01"],
  [{}, ".."],
])) {
  test(`the range ${text}`, () => {
    assert.equal(writeRange(range), text);
    assert.deepEqual(readRange(text), range);
  });
}

test("a value without two dots is no range", () => assert.equal(readRange("2024-02-29"), null));

for (const [type, values, condition] of /** @type {[string | undefined, string[], object | null][]} */ ([
  ["number", ["1850..1900"], { field: "x", range: { gte: 1850, lte: 1900 } }],
  [
    "number",
    ["..<5", "9.."],
    {
      any: [
        { field: "x", range: { lt: 5 } },
        { field: "x", range: { gte: 9 } },
      ],
    },
  ],
  ["number", ["7"], { field: "x", is: 7 }],
  ["number", ["abc.."], { field: "x", range: { gte: "abc" } }],
  ["date", ["2024-02-29"], { field: "x", is: "2024-02-29" }],
  ["date", ["2024..2025"], { field: "x", range: { gte: "2024", lte: "2025" } }],
  ["boolean", ["false"], { field: "x", is: false }],
  ["boolean", ["true", "false"], { field: "x", any_of: [true, false] }],
  ["boolean", ["maybe"], { field: "x", is: "maybe" }],
  ["keyword", ["1..2"], { field: "x", is: "1..2" }],
  ["keyword", ["a", "b"], { field: "x", any_of: ["a", "b"] }],
  ["text", ["a b"], { field: "x", match: "a b" }],
  [
    "text",
    ["a", "b"],
    {
      all: [
        { field: "x", match: "a" },
        { field: "x", match: "b" },
      ],
    },
  ],
  [undefined, ["y"], { field: "x", is: "y" }],
  ["keyword", [], null],
])) {
  test(`the filter of ${type ?? "an undeclared field"}: ${values.join(", ") || "nothing"}`, () => {
    const filters = values.map((value) => /** @type {const} */ (["x", value]));
    assert.deepEqual(filterOf(filters, type ? { x: type } : {}), condition);
  });
}

test("filters of several fields must all pass", () => {
  /** @type {import("./static/state.js").Filter[]} */
  const filters = [
    ["a", "1"],
    ["b", "2"],
    ["a", "3"],
  ];
  const conditions = [
    { field: "a", any_of: ["1", "3"] },
    { field: "b", is: "2" },
  ];
  assert.deepEqual(filterOf(filters, {}), { all: conditions });
});

test("values are added, removed and replaced without touching other fields", () => {
  /** @type {import("./static/state.js").Filter[]} */
  const filters = [
    ["genre", "sea"],
    ["lent", "true"],
  ];
  const added = toggleValue(filters, "genre", "crime");
  assert.deepEqual(added, [
    ["lent", "true"],
    ["genre", "sea"],
    ["genre", "crime"],
  ]);
  assert.deepEqual(toggleValue(added, "genre", "sea"), [
    ["lent", "true"],
    ["genre", "crime"],
  ]);
  assert.deepEqual(setValues(added, "genre", []), [["lent", "true"]]);
});

for (const [value, type, shown] of /** @type {const} */ ([
  ["true", "boolean", "yes"],
  ["false", "boolean", "no"],
  ["a b", "text", "“a b”"],
  ["1..2", "keyword", "1..2"],
  ["5", "number", "5"],
  ["150..420", "number", "150 – 420"],
  ["..250", "number", "up to 250"],
  ["250..", "number", "from 250"],
  ["..<250", "number", "before 250"],
  ["..", "number", "from ?"],
  ["1991-01-01..<1992-01-01", "date", "1991"],
  ["0999-01-01..<1000-01-01", "date", "0999"],
  ["1991-01-01..<1993-01-01", "date", "1991-01-01 – before 1993-01-01"],
])) {
  test(`the ${type} filter ${value} is shown as ${shown}`, () => assert.equal(formatFilter(value, type), shown));
}

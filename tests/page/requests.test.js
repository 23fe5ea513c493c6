// The requests of a view.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bodyOfOne, curlOf, isSearch, maxSizeOf, requestsOf } from "./static/requests.js";
import { EMPTY_VIEW } from "./static/state.js";

/** @typedef {import("./static/state.js").View} View */

const PLAIN = { fields: {}, talk: null };
const SHELF = {
  fields: { genre: "keyword", lent: "boolean", published: "date", pages: "number", blurb: "text" },
  talk: null,
};
const TALKS = { fields: { show: "keyword" }, talk: {} };

/** @type {(members: Partial<View>, declared?: import("./static/requests.js").Declared) => import("./static/requests.js").Body} */
const bodyOf = (members, declared = PLAIN) => requestsOf({ ...EMPTY_VIEW, ...members }, declared)[0].body;

test("a plain search has no options but the page's own", () => {
  assert.deepEqual(bodyOf({ query: "storm" }), {
    query: "storm",
    mode: "hybrid",
    size: 10,
    explain: true,
    highlight: { characters: 340 },
  });
});

test("facets are counted for fields with a few values", () => {
  assert.deepEqual(Object.keys(bodyOf({ query: "storm" }, SHELF).facets ?? {}), ["genre", "lent", "published"]);
});

test("options apply to the modes that have them", () => {
  /** @type {Partial<View>} */
  const view = { query: "a", share: 0.7, fusion: "rrf", prune: 0.2, phases: true, by: "document", like: ["x"] };
  const has = (/** @type {View["mode"]} */ mode) => Object.keys(bodyOf({ ...view, mode }));
  const sparse = ["prune", "two_phase", "score_by", "like"];
  assert.deepEqual(has("hybrid").slice(3, -2), ["weights", "fusion", ...sparse]);
  assert.deepEqual(has("sparse").slice(3, -2), sparse);
  assert.deepEqual(has("lexical").slice(3, -2), []);
  assert.deepEqual(bodyOf(view).weights, { sparse: 0.7, lexical: 0.3 });
});

test("without words, only positive examples find documents", () => {
  assert.deepEqual(bodyOf({ like: ["a"], unlike: ["b"] }).unlike, ["b"]);
  const body = bodyOf({ unlike: ["b"], sort: "-pages" });
  assert.deepEqual(body, { query: "", mode: "hybrid", size: 10, sort: [{ field: "pages", order: "desc" }] });
});

test("chapters and passages are neither counted nor sorted, and examples do not move them", () => {
  const body = bodyOf({ query: "rope", unit: "chapter", sort: "show", like: ["a"], rerank: 0.5, phases: true }, TALKS);
  assert.deepEqual(body, {
    query: "rope",
    mode: "hybrid",
    size: 10,
    unit: "chapter",
    fields: ["title", "metadata", "chapters"],
    explain: true,
    highlight: { characters: 340 },
  });
  assert.equal(
    bodyOf({ unit: "chapter", sort: "show" }, TALKS).unit,
    undefined,
    "without words, whole talks are listed",
  );
  assert.equal(bodyOf({ query: "rope", unit: "chapter" }, PLAIN).unit, undefined, "without talk, documents are found");
});

test("lists side by side are two requests, of which one is learnt", () => {
  const requests = requestsOf({ ...EMPTY_VIEW, query: "a", mode: "compare", size: 80 }, PLAIN);
  assert.deepEqual(
    requests.map(({ label, body }) => [label, body.mode, body.size, body.learn, body.cursor]),
    [
      ["Lexical", "lexical", 50, undefined, undefined],
      ["Sparse", "sparse", 50, false, undefined],
    ],
  );
  assert.equal(requestsOf({ ...EMPTY_VIEW, query: "a" }, PLAIN, { learn: false })[0].body.learn, false);
});

test("more than a page needs a point in time", () => {
  assert.equal(bodyOf({ query: "a", size: 20 }).cursor, "*");
  assert.equal(bodyOf({ query: "a", size: 20, unit: "chapter" }, TALKS).cursor, undefined);
  assert.deepEqual([maxSizeOf(EMPTY_VIEW), maxSizeOf({ ...EMPTY_VIEW, mode: "compare" })], [200, 50]);
});

test("the search of one document keeps the query and the ranking", () => {
  const body = bodyOf({ query: "a", size: 20, prune: 0.1, sort: "pages", filters: [["genre", "sea"]] }, SHELF);
  assert.deepEqual(bodyOfOne(body, "x/1"), {
    query: "a",
    mode: "hybrid",
    size: 1,
    prune: 0.1,
    explain: true,
    filter: { field: "_id", is: "x/1" },
    highlight: true,
    learn: false,
  });
});

test("words, examples, filters and an order make a search", () => {
  assert.equal(isSearch({ ...EMPTY_VIEW, query: " ", index: "a", unlike: ["b"] }), false);
  /** @type {Partial<View>[]} */
  const searches = [{ query: "a" }, { like: ["a"] }, { filters: [["a", "b"]] }, { sort: "a" }];
  for (const view of searches) assert.equal(isSearch({ ...EMPTY_VIEW, ...view }), true);
});

test("curl's arguments are quoted for a shell", () => {
  const command = curlOf("http://localhost/v1/indexes/a/search", { query: "the kettle's" });
  assert.match(command, /^curl 'http:\/\/localhost\/v1\/indexes\/a\/search' \\\n/);
  assert.ok(command.endsWith(`-d '{\n  "query": "the kettle'\\''s"\n}'`));
});

// The searches of a view: one request, or two for lists side by side, and the pages that follow the first.

import { search } from "./api.js";
import { filterOf, MAX_SIZE, PAGE_SIZE } from "./state.js";

/** @typedef {import("./state.js").View} View */
/** @typedef {import("./api.js").Answer} Answer */
/** @typedef {{ fields: import("./api.js").Fields, talk: object | null }} Declared what an index declares */
/** @typedef {{ cursor?: string, [member: string]: unknown }} Body of POST /v1/indexes/{index}/search */
/** @typedef {{ label: string, body: Body }} Request */

// Hits in one answer: fewer than the API allows under any likely settings.
const CHUNK = 50;
/** Number of values of a keyword field that are counted. */
const FACET_VALUES = 30;

/** @type {Record<string, object>} */
const FACETS = {
  keyword: { terms: FACET_VALUES, ignore_own_filter: true },
  boolean: { terms: 2, ignore_own_filter: true },
  date: { dates: "year", ignore_own_filter: true },
};

// The timeline of a talk is made of its chapters.
const TALK_FIELDS = ["title", "metadata", "chapters"];

/** @type {(view: View) => boolean} whether a view searches: by words, examples, filters or an order */
export const isSearch = (view) =>
  view.query.trim() !== "" || view.like.length > 0 || view.filters.length > 0 || view.sort !== "";

/** @type {(view: View) => boolean} lists side by side, chapters and passages have one page */
const hasPages = (view) => view.mode !== "compare" && !view.unit;

/** @type {(view: View) => number} the most hits that a view can show */
export const maxSizeOf = (view) => (hasPages(view) ? MAX_SIZE : CHUNK);

/** @type {(view: View) => ("hybrid" | "sparse" | "lexical")[]} modes of the API */
const modesOf = ({ mode }) => (mode === "compare" ? ["lexical", "sparse"] : [mode]);

const LABELS = { lexical: "Lexical", sparse: "Sparse", hybrid: "" };
// Characters of an excerpt.
const EXCERPT = { wide: 340, narrow: 190 };

/**
 * Build the requests of a view.
 * @param {View} view
 * @param {Declared} declared
 * @param {{ learn?: boolean, narrow?: boolean }} [options] `learn`: the query counts as asked, once, where the service
 *   learns frequent queries; `narrow`: results are shown in a narrow column
 * @returns {Request[]}
 */
export function requestsOf(view, declared, { learn = true, narrow = false } = {}) {
  const compare = view.mode === "compare";
  const characters = compare || narrow ? EXCERPT.narrow : EXCERPT.wide;
  const size = Math.min(view.size, CHUNK);
  return modesOf(view).map((mode, number) => ({
    label: compare ? LABELS[mode] : "",
    body: {
      ...bodyOf(view, declared, { mode, size, characters }),
      ...(!(learn && number === 0) && { learn: false }),
      // More than the first page: pages of one point in time, so that no hit moves while the next page is fetched.
      ...(hasPages(view) && view.size > PAGE_SIZE && { cursor: "*" }),
    },
  }));
}

/**
 * Build the body of a search.
 * @param {View} view
 * @param {Declared} declared
 * @param {{ mode: "hybrid" | "sparse" | "lexical", size: number, characters: number }} options
 * @returns {Body}
 */
export function bodyOf(view, { fields, talk }, { mode, size, characters }) {
  const words = view.query.trim() !== "";
  const hybrid = mode === "hybrid";
  const sparse = mode !== "lexical";
  // Chapters and passages are found by words alone; they are neither counted nor sorted.
  const unit = words && talk ? view.unit : "";
  const facets = unit ? null : facetsOf(fields);
  const filter = filterOf(view.filters, fields);
  // Examples find documents without words. Without words and positive examples, nothing is scored.
  const examples = !unit && sparse && (words || view.like.length > 0);
  return {
    query: view.query,
    mode,
    size,
    ...(unit && { unit }),
    ...(filter && { filter }),
    ...(talk && { fields: TALK_FIELDS }),
    ...(facets && { facets }),
    ...(!unit && view.sort && { sort: [sortOf(view.sort)] }),
    ...(hybrid && view.share !== null && { weights: { sparse: view.share, lexical: rounded(1 - view.share) } }),
    ...(hybrid && view.fusion !== "min_max" && { fusion: view.fusion }),
    ...(sparse && view.prune !== null && { prune: view.prune }),
    ...(!unit && sparse && view.phases && { two_phase: true }),
    ...(!unit && sparse && view.by && { score_by: view.by }),
    ...(!unit && words && view.rerank !== null && { rerank: { weight: view.rerank } }),
    ...(examples && view.like.length > 0 && { like: view.like }),
    ...(examples && view.unlike.length > 0 && { unlike: view.unlike }),
    ...((words || examples) && { explain: true, highlight: { characters } }),
  };
}

/** @type {(body: Body, id: string) => Body} the search that highlights one document as `body` would */
export function bodyOfOne(body, id) {
  const { facets, sort, rerank, like, unlike, cursor, unit, ...rest } = body;
  return { ...rest, size: 1, filter: { field: "_id", is: id }, highlight: true, learn: false };
}

/** @param {import("./api.js").Fields} fields */
function facetsOf(fields) {
  const counted = Object.entries(fields).filter(([, type]) => FACETS[type] !== undefined);
  return counted.length > 0 ? Object.fromEntries(counted.map(([field, type]) => [field, FACETS[type]])) : null;
}

/** @param {string} sort */
const sortOf = (sort) =>
  sort.startsWith("-") ? { field: sort.slice(1), order: "desc" } : { field: sort, order: "asc" };

/** @param {number} number */
const rounded = (number) => Math.round(number * 1000) / 1000;

/**
 * Search for a view, with as many pages as its size needs.
 * @param {View} view
 * @param {Request[]} requests
 * @param {AbortSignal} signal
 * @returns {Promise<Answer[]>} in the order of the requests
 */
export function searchView(view, requests, signal) {
  return Promise.all(
    requests.map(async ({ body }) => {
      let all = await search(view.index, body, signal);
      if (body.cursor === undefined) return all;
      while (all.hits.length < view.size && all.cursor) {
        const size = Math.min(CHUNK, view.size - all.hits.length);
        const page = await searchPage(view.index, body, all.cursor, size, signal);
        all = { ...all, cursor: page.cursor, end: page.end, hits: [...all.hits, ...page.hits] };
      }
      return all;
    }),
  );
}

/** @type {(index: string, body: Body, cursor: string, size: number, signal?: AbortSignal) => Promise<Answer>} the page after a cursor */
export const searchPage = (index, body, cursor, size, signal) => search(index, { ...body, cursor, size }, signal);

/** @type {(address: string, body: Body) => string} a request as a command for a POSIX shell */
export const curlOf = (address, body) =>
  `curl ${quoted(address)} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(body, null, 2))}`;

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// What the API is asked for a view. Pure functions.

import { filterOf } from "./filters.js";

/** How many of the values of a keyword are counted. */
export const FACET_VALUES = 30;

const COUNTED = {
  keyword: { terms: FACET_VALUES, ignore_own_filter: true },
  boolean: { terms: 2, ignore_own_filter: true },
  date: { dates: "year", ignore_own_filter: true },
};

/** Whether a view asks for documents: by words, by examples, or by what is declared. */
export const asks = (view) => view.query.trim() !== "" || view.like.length > 0 || view.filters.length > 0 || view.sort !== "";

/** What a view shows of each document: of an index with talk also the chapters, of which a line of time is made. */
const SHOWN_OF_TALK = ["title", "metadata", "chapters"];

/**
 * The body of POST /v1/indexes/{index}/search. `declared` has the `fields` by their types and `talk`; `mode` is the
 * API's; `characters` the length of an excerpt.
 */
export function bodyOf(view, { fields, talk }, { mode, size, characters }) {
  const words = view.query.trim() !== "";
  if (words && talk && view.unit) return bodyOfParts(view, fields, { mode, size, characters });
  const hybrid = mode === "hybrid";
  const sparse = mode !== "lexical";
  const facets = facetsOf(fields);
  const filter = filterOf(view.filters, fields);
  // Without words, examples alone find documents, and need no others: nothing is scored where there are neither.
  const moved = sparse && (words || view.like.length > 0);
  return {
    query: view.query,
    mode,
    size,
    ...(filter && { filter }),
    ...(talk && { fields: SHOWN_OF_TALK }),
    ...(facets && { facets }),
    ...(view.sort && { sort: [sortKey(view.sort)] }),
    ...(hybrid && view.share !== null && { weights: { sparse: view.share, lexical: rounded(1 - view.share) } }),
    ...(hybrid && view.fusion !== "min_max" && { fusion: view.fusion }),
    ...(sparse && view.prune !== null && { prune: view.prune }),
    ...(sparse && view.phases && { two_phase: true }),
    ...(sparse && view.by && { score_by: view.by }),
    ...(words && view.rerank !== null && { rerank: { weight: view.rerank } }),
    ...(moved && view.like.length > 0 && { like: view.like }),
    ...(moved && view.unlike.length > 0 && { unlike: view.unlike }),
    ...((words || moved) && { explain: true, highlight: { characters } }),
  };
}

/** The body that finds chapters or passages, which words alone find, and which are not counted or sorted. */
function bodyOfParts(view, fields, { mode, size, characters }) {
  const hybrid = mode === "hybrid";
  const filter = filterOf(view.filters, fields);
  return {
    query: view.query,
    mode,
    size,
    unit: view.unit,
    fields: SHOWN_OF_TALK,
    ...(filter && { filter }),
    ...(hybrid && view.share !== null && { weights: { sparse: view.share, lexical: rounded(1 - view.share) } }),
    ...(hybrid && view.fusion !== "min_max" && { fusion: view.fusion }),
    ...(mode !== "lexical" && view.prune !== null && { prune: view.prune }),
    explain: true,
    highlight: { characters },
  };
}

/** The body that finds one document as the view does, to mark in it what matched. */
export function bodyOfOne(body, id) {
  const { facets, sort, rerank, like, unlike, cursor, unit, ...rest } = body;
  return { ...rest, size: 1, filter: { field: "_id", is: id }, highlight: true, learn: false };
}

function facetsOf(fields) {
  const counted = Object.entries(fields).filter(([, type]) => COUNTED[type] !== undefined);
  return counted.length > 0 ? Object.fromEntries(counted.map(([field, type]) => [field, COUNTED[type]])) : null;
}

const sortKey = (sort) => (sort.startsWith("-") ? { field: sort.slice(1), order: "desc" } : { field: sort, order: "asc" });

const rounded = (number) => Math.round(number * 1000) / 1000;

/** A request as a shell takes it. Quotes in it are those of a POSIX shell. */
export function curlOf(address, body) {
  return `curl ${quoted(address)} \\\n  -H 'content-type: application/json' \\\n  -d ${quoted(JSON.stringify(body, null, 2))}`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

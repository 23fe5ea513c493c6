// The searches of a view: one, or two for side by side; and the pages that follow the first.

import { MAX_SIZE, PAGE_SIZE } from "./address.js";
import { search } from "./api.js";
import { bodyOf } from "./request.js";

// Below what an API takes at once, whatever its settings are likely to be.
const CHUNK = 50;
/** How many results a view can show: lists side by side and parts of documents are asked for at once. */
export const mostOf = (view) => (paged(view) ? MAX_SIZE : CHUNK);
const paged = (view) => view.mode !== "compare" && !view.unit;

const EXCERPT = { wide: 340, narrow: 190 };
const PHONE = window.matchMedia("(width < 40rem)");
const API_MODES = { hybrid: ["hybrid"], sparse: ["sparse"], keyword: ["lexical"], compare: ["lexical", "sparse"] };
const LABELS = { hybrid: "", sparse: "Sparse", lexical: "Keyword" };

/** The requests that a view stands for: [{label, mode, body}]. `learn`: somebody asks this, and it counts once. */
export function requestsOf(view, declared, learn = true) {
  const side = view.mode === "compare";
  const characters = side || PHONE.matches ? EXCERPT.narrow : EXCERPT.wide;
  const size = Math.min(view.size, CHUNK);
  return API_MODES[view.mode].map((mode, at) => {
    const body = { ...bodyOf(view, declared, { mode, size, characters }), ...(!(learn && at === 0) && { learn: false }) };
    // More than a first look: pages of one snapshot, so that none of them moves while the next is fetched.
    return { label: side ? LABELS[mode] : "", mode, body: paged(view) && view.size > PAGE_SIZE ? { ...body, cursor: "*" } : body };
  });
}

/** The answers of a view, in the order of its requests; as many pages as its size takes. */
export function answer(view, requests, signal) {
  return Promise.all(
    requests.map(async ({ body }) => {
      const first = await search(view.index, body, signal);
      if (body.cursor === undefined) return first;
      let all = first;
      while (all.hits.length < view.size && all.cursor) {
        const page = await nextPage(view.index, body, all.cursor, Math.min(CHUNK, view.size - all.hits.length), signal);
        all = { ...all, cursor: page.cursor, end: page.end, hits: [...all.hits, ...page.hits] };
      }
      return all;
    }),
  );
}

/** The page after a cursor. */
export function nextPage(index, body, cursor, size, signal) {
  return search(index, { ...body, cursor, size }, signal);
}

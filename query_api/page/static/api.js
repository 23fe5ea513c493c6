// The REST API as the page uses it. Addresses are relative, so the page also works below the path of a proxy.

// ---- answers: the members that the page reads (docs/api/openapi.json has all). Offsets count characters (code points)
// of a document's text, times are seconds, timings milliseconds.

/** @typedef {"sparse" | "lexical"} ListName */
/** @typedef {{ [field: string]: string }} Fields declared fields: name to type */
/** @typedef {{ list: ListName, piece: string, contribution: number }} Match */
/** @typedef {{ start: number, end: number, matches: Match[] }} Span */
/** @typedef {{ text: string, start: number, end: number }} Excerpt */
/** @typedef {{ title: Span[], text: Span[], excerpt?: Excerpt | null, expansions: Match[], elsewhere: Match[] }} Highlight */
/**
 * @typedef {object} Passage
 * @property {string} text
 * @property {number} start
 * @property {number} end
 * @property {number} window number of the window that it is of, from 0
 * @property {number} windows
 * @property {number | null} [start_time]
 * @property {string | null} [speaker]
 */
/**
 * @typedef {object} Chapter
 * @property {number} number
 * @property {string} title
 * @property {number} start
 * @property {number} end
 * @property {number | null} [start_time]
 * @property {number | null} [end_time]
 * @property {string | null} [link] plays the recording from here
 */
/**
 * @typedef {object} Why
 * @property {ListName} list
 * @property {string} piece
 * @property {number} contribution
 * @property {boolean} expansion
 * @property {number} [query_weight]
 * @property {number} [document_weight]
 * @property {Record<string, number>} [origins]
 */
/**
 * @typedef {object} Hit
 * @property {string} id
 * @property {number | null} score
 * @property {Record<string, number>} [scores] by list
 * @property {boolean | null} [pinned]
 * @property {string} [state]
 * @property {string | null} [title]
 * @property {Record<string, unknown> | null} [metadata]
 * @property {Chapter[] | null} [chapters]
 * @property {Chapter | null} [chapter]
 * @property {Passage | null} [passage]
 * @property {string | null} [link]
 * @property {Highlight | null} [highlight]
 * @property {Why[] | null} [why]
 * @property {Record<string, { share: number, scaled: number, contribution: number }> | null} [fusion] by list
 */
/**
 * A piece of the query. In an index with adapted weights, `weight` is `encoder_weight` times `factor`.
 * @typedef {{ piece: string, weight: number, pruned: boolean, origins: Record<string, number>, encoder_weight?: number, factor?: number }} QueryPiece
 */
/** @typedef {{ value?: string | number | boolean, range?: Record<string, string>, count: number }} Bucket */
/** @typedef {{ kind: string, matched: string }} AppliedRule */
/** @typedef {{ applied: AppliedRule[], hidden?: number | null, skipped?: { what: string, reason: string }[] | null }} Curation */
/**
 * @typedef {object} Answer
 * @property {string} mode
 * @property {"chapter" | "passage" | null} [unit]
 * @property {Hit[]} hits
 * @property {string | null} [cursor]
 * @property {"matches" | "candidates" | null} [end]
 * @property {Record<string, number>} [timings_ms]
 * @property {QueryPiece[] | null} [pieces]
 * @property {Curation | null} [curation]
 * @property {{ applied: boolean, reason?: string } | null} [rerank]
 * @property {{ without_vector: string[], unknown: string[] } | null} [feedback]
 * @property {{ query: string } | null} [did_you_mean]
 * @property {Record<string, { buckets: Bucket[], other: number }> | null} [facets]
 * @property {{ documents: number, among: string } | null} [counted]
 */
/**
 * An index: its declared fields, its dense encoder or null, which vectors are searched, how talk is divided into
 * chapters or null, and documents by state. `total` leaves tombstones (`deleted`) out.
 * @typedef {object} Index
 * @property {string} name
 * @property {Fields} fields
 * @property {{ fingerprint: string } | null} dense
 * @property {{ fingerprint: string }} encoder
 * @property {string} windows
 * @property {object | null} talk
 * @property {number} pending
 * @property {number} encoded
 * @property {number} dead
 * @property {number} deleted
 * @property {number} total
 */
/** @typedef {{ speaker?: string | null, start?: number | null, text: string }} Segment */
/** @typedef {{ id: string, kind?: string, title?: string | null, text?: string, metadata?: Record<string, unknown>, segments?: Segment[] }} StoredDocument */
/** @typedef {{ engine?: string, error?: { reason: string } | null }} Chaptering */
/** @typedef {{ chapters: Chapter[], chaptering?: Chaptering | null }} Chapters */
/** @typedef {{ code: string, reason: string }} Cause */
/**
 * @typedef {object} DeadLetter
 * @property {string} id
 * @property {number} version
 * @property {number} attempts
 * @property {Cause} error
 * @property {string | null} [title]
 * @property {string | null} [job]
 * @property {string | null} [dead_at]
 * @property {{ retries: number, attempts: number, error?: Cause | null } | null} [earlier]
 */
/** @typedef {{ total: number, dead: DeadLetter[], cursor: string | null }} DeadLetters */
/** @typedef {{ retried: string[], not_retried: (Cause & { id: string })[], failed: number, queued: boolean, remaining: number, cursor: string | null }} Retried */
/** @typedef {{ encoder: { name: string, fingerprint: string }, indexes: number, queue?: { reachable: boolean, messages: number } }} Readiness */
/** @typedef {{ queue: string, messages: number, oldest_seconds: number | null }} Queue */
/** @typedef {{ name: string, encoder: string, processes: number, version: string, seen_ago: number }} Worker */
/** @typedef {{ step: string, to: number, copied: number, idle_seconds: number | null }} Reindex */
/**
 * @typedef {object} Generation
 * @property {number} number
 * @property {string} state
 * @property {{ name: string, fingerprint: string }} encoder
 * @property {number | null} pending
 * @property {number | null} dead
 * @property {number | null} oldest_pending_seconds
 */
/** @typedef {{ name: string, generations: Generation[], reindex: Reindex | null }} IndexStatus */
/** @typedef {{ queues: Queue[] | null, workers: Worker[], indexes: IndexStatus[] }} Status */

/** An error as the API's problem+json describes it, or in the same form when there was no answer. */
export class Problem extends Error {
  /** @param {{ title?: string, detail?: string, code?: string, status?: number }} members */
  constructor({ title, detail, code, status }) {
    super(detail || title);
    this.title = title || "The request failed";
    this.detail = detail || "";
    this.code = code || "unknown";
    this.status = status || 0;
  }

  /**
   * Wrap an error of the page itself.
   * @param {unknown} error
   */
  static of(error) {
    if (error instanceof Problem) return error;
    return new Problem({ title: "The page could not show this", detail: String(error), code: "page_error" });
  }
}

/** @param {unknown} error */
export const isAbort = (error) => error instanceof Error && error.name === "AbortError";

// ---- the API key: stored in the session of this tab, sent as a header and never in an address

const KEY = "sparsewell.key";

/** Return whether this tab has a key. */
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

/** @param {string} key used for every request from now on */
export const storeKey = (key) => sessionStorage.setItem(KEY, key);

export const forgetKey = () => sessionStorage.removeItem(KEY);

/** @returns {Record<string, string>} */
function credentials() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

// ---- requests

/**
 * Send a request and return the JSON of its answer. Throw a Problem when there is none.
 * @param {string} path
 * @param {{ body?: object, signal?: AbortSignal }} [options] a request with a body is a POST
 */
async function request(path, { body, signal } = {}) {
  const post = body && { method: "POST", body: JSON.stringify(body) };
  const headers = { accept: "application/json", ...credentials(), ...(body && { "content-type": "application/json" }) };
  let response;
  try {
    response = await fetch(path, { ...post, headers, signal });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new Problem({
      title: "The service does not answer",
      detail: "No connection to the API. Check that it runs (sparsewell api, or make up), then try again.",
      code: "unreachable",
    });
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (isAbort(error)) throw error;
  }
  if (response.ok && answer !== null) return answer;
  throw new Problem({
    title: `The service answered ${response.status}`,
    detail: response.ok ? "The answer is not JSON." : response.statusText,
    code: "unexpected_answer",
    status: response.status,
    ...(response.ok ? {} : answer),
  });
}

/** @param {string} index */
const at = (index) => `v1/indexes/${encodeURIComponent(index)}`;

/** @returns {Promise<string[]>} the names of the indexes, in order */
export async function listIndexes() {
  /** @type {{ indexes: { name: string }[] }} */
  const { indexes } = await request("v1/indexes");
  return indexes.map(({ name }) => name).sort((a, b) => a.localeCompare(b));
}

/**
 * @param {string} name
 * @returns {Promise<Index>}
 */
export async function inspectIndex(name) {
  const { fields, encoder, dense = null, windows, talk = null, documents } = await request(at(name));
  const { pending = 0, encoded = 0, dead = 0, deleted = 0 } = documents;
  return {
    name,
    fields,
    encoder,
    dense,
    windows,
    talk,
    pending,
    encoded,
    dead,
    deleted,
    total: pending + encoded + dead,
  };
}

const INSPECTIONS = 4; // at a time

/** Inspect all indexes. An index that is deleted meanwhile is left out. */
export async function inspectAll() {
  const names = await listIndexes();
  /** @type {Map<string, Index>} */
  const found = new Map();
  const rest = [...names];
  const inspect = async () => {
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      try {
        found.set(name, await inspectIndex(name));
      } catch (error) {
        if (!(error instanceof Problem && error.code === "index_not_found")) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: INSPECTIONS }, inspect));
  return names.flatMap((name) => found.get(name) ?? []);
}

/** @returns {Promise<Readiness>} throws a Problem when the service cannot answer searches */
export const getReadiness = () => request("readyz");

/** @returns {Promise<Status>} queues, workers and generations */
export const getStatus = () => request("v1/status");

/**
 * List a page of the dead letters of an index.
 * @param {string} index
 * @param {number} size
 * @param {string | null} [cursor]
 * @returns {Promise<DeadLetters>}
 */
export function listDeadLetters(index, size, cursor = null) {
  const parameters = new URLSearchParams({ size: String(size) });
  if (cursor !== null) parameters.set("cursor", cursor);
  return request(`${at(index)}/dead-letters?${parameters}`);
}

/**
 * Put dead letters back to pending.
 * @param {string} index
 * @param {{ ids: string[] } | { all: true, cursor?: string }} which
 * @returns {Promise<Retried>}
 */
export const retryDeadLetters = (index, which) => request(`${at(index)}/dead-letters/retry`, { body: which });

/** @param {string} index whose absolute address for searches is returned */
export const searchAddress = (index) => new URL(`${at(index)}/search`, document.baseURI).href;

/**
 * @param {string} index
 * @param {object} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<Answer>}
 */
export const search = (index, body, signal) => request(`${at(index)}/search`, { body, signal });

/**
 * Complete the text of a query from the documents that pass a filter (null: from all).
 * @param {string} index
 * @param {string} text
 * @param {object | null} filter
 * @param {AbortSignal} signal
 * @returns {Promise<{ suggestions: { text: string, kind: string, typed: { start: number, end: number }[] }[] }>}
 */
export function suggest(index, text, filter, signal) {
  const parameters = new URLSearchParams({ q: text });
  if (filter) parameters.set("filter", JSON.stringify(filter));
  return request(`${at(index)}/suggest?${parameters}`, { signal });
}

/**
 * Get a stored document; a talk with its segments.
 * @param {string} index
 * @param {string} id
 * @returns {Promise<StoredDocument>}
 */
export const getDocument = (index, id) => request(`${at(index)}/documents/${encodeURIComponent(id)}?segments=true`);

/**
 * Get the chapters of a talk.
 * @param {string} index
 * @param {string} id
 * @returns {Promise<Chapters>}
 */
export const getChapters = (index, id) => request(`${at(index)}/chapters/${encodeURIComponent(id)}`);

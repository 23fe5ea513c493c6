// The REST API as this page uses it. Addresses are relative, so the page also works below a path of a proxy.

import { credentials } from "./credential.js";

/** A refusal, as the API's problem+json says it, or in the same form when there was no answer at all. */
export class Problem extends Error {
  constructor({ title, detail, code, status }) {
    super(detail || title);
    this.title = title || "The request failed";
    this.detail = detail || "";
    this.code = code || "unknown";
    this.status = status || 0;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { accept: "application/json", ...credentials(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The service does not answer",
      detail: "No connection to the API. Check that it runs (sparsewell api, or make up), then try again.",
      code: "unreachable",
    });
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (response.ok && body !== null) return body;
  throw new Problem({
    title: `The service answered ${response.status}`,
    detail: response.ok ? "The answer is not JSON." : response.statusText,
    code: "unexpected_answer",
    status: response.status,
    ...(response.ok ? {} : body),
  });
}

const at = (index) => `v1/indexes/${encodeURIComponent(index)}`;

/** The names of the indexes, in order. */
export async function listIndexes() {
  const { indexes } = await request("v1/indexes");
  return indexes.map(({ name }) => name).sort((a, b) => a.localeCompare(b));
}

/**
 * One index: {name, fields, dense, windows, talk, pending, encoded, dead, deleted, total}: the declared fields by their types,
 * the dense encoder or null, which vectors are searched, how talk is chaptered or null, documents by state. Tombstones are in
 * no total.
 */
export async function inspectIndex(name) {
  const { fields, dense = null, windows, talk = null, documents } = await request(at(name));
  const { pending = 0, encoded = 0, dead = 0, deleted = 0 } = documents;
  return { name, fields, dense, windows, talk, pending, encoded, dead, deleted, total: pending + encoded + dead };
}

/** All indexes, inspected a few at a time. One that is deleted meanwhile is left out. */
export async function inspectAll() {
  const names = await listIndexes();
  const found = new Map();
  const rest = [...names];
  const inspect = async () => {
    for (let name = rest.shift(); name !== undefined; name = rest.shift()) {
      try {
        found.set(name, await inspectIndex(name));
      } catch (error) {
        if (error.code !== "index_not_found") throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: 4 }, inspect));
  return names.filter((name) => found.has(name)).map((name) => found.get(name));
}

/** What GET /readyz tells; a Problem when searches cannot be answered. */
export function getReadiness() {
  return request("readyz");
}

/** Queues, workers and generations. */
export function getStatus() {
  return request("v1/status");
}

/** A page of an index's dead documents. */
export function listDead(index, size, cursor = null) {
  const parameters = new URLSearchParams({ size: String(size) });
  if (cursor !== null) parameters.set("cursor", cursor);
  return request(`${at(index)}/dead?${parameters}`);
}

/** Puts dead documents back to pending: {ids} or {all}. */
export function retryDead(index, which) {
  return request(`${at(index)}/dead/retry`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(which),
  });
}

/** Where an index is searched, as an address to send to. */
export const searchAddress = (index) => new URL(`${at(index)}/search`, document.baseURI).href;

/** One search. */
export function search(index, body, signal) {
  return request(`${at(index)}/search`, {
    method: "POST",
    signal,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** What completes what was typed, of the documents that pass a filter (null: of all). */
export function suggest(index, typed, filter, signal) {
  const parameters = new URLSearchParams({ q: typed });
  if (filter) parameters.set("filter", JSON.stringify(filter));
  return request(`${at(index)}/suggest?${parameters}`, { signal });
}

/** One stored document, whole; of talk also what is said when and by whom. */
export function getDocument(index, id) {
  return request(`${at(index)}/documents/${encodeURIComponent(id)}?segments=true`);
}

/** The chapters of a talk, with links that play them. */
export function getChapters(index, id) {
  return request(`${at(index)}/chapters/${encodeURIComponent(id)}`);
}

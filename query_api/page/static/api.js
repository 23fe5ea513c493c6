// The REST API as this page uses it. Addresses are relative, so the page also works below a path of a proxy.

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
    response = await fetch(path, { ...options, headers: { accept: "application/json", ...options.headers } });
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

/** One index: {name, pending, encoded, dead, total}, documents by state. */
export async function inspectIndex(name) {
  const { pending = 0, encoded = 0, dead = 0 } = (await request(at(name))).documents;
  return { name, pending, encoded, dead, total: pending + encoded + dead };
}

/** One search with everything the page shows; `mode` is the API's: hybrid, sparse or lexical. */
export function search({ index, query, mode, size }, signal) {
  return request(`${at(index)}/search`, {
    method: "POST",
    signal,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ query, mode, size, explain: true, passage: true }),
  });
}

/** One stored document, whole. */
export function getDocument(index, id) {
  return request(`${at(index)}/documents/${encodeURIComponent(id)}`);
}

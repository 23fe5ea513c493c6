// The search page: an address names a view, the view is searched and shown, and controls make the next view.

import { inspectIndex, isAbort, listIndexes, Problem } from "./api.js";
import { completeBox } from "./completing.js";
import {
  countRankingOptions,
  fillIndexes,
  findLargest,
  listenToControls,
  openPanel,
  renderRanking,
  renderSort,
  renderStates,
} from "./controls.js";
import { documentView } from "./document.js";
import { byId, nodesOf, replaceControls } from "./dom.js";
import { renderActive, renderFacets } from "./facets.js";
import {
  renderDidYouMean,
  renderHowToLoad,
  renderInsight,
  renderNothingFound,
  renderProblem,
  renderRemarks,
  renderRequests,
  renderWelcome,
} from "./panels.js";
import { bodyOfOne, isSearch, requestsOf, searchPage, searchView } from "./requests.js";
import { hitsIn, renderAnswers, renderRules } from "./results.js";
import { filterOf, PAGE_SIZE, readAddress, saveView, writeAddress } from "./state.js";
import { markElsewhere } from "./talk.js";

/** @typedef {import("./api.js").Answer} Answer */
/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./requests.js").Request} Request */
/** @typedef {import("./state.js").View} View */

const SLOW_MS = 150;
const STATE_POLL_MS = 3000;
const PHONE = window.matchMedia("(width < 40rem)");

const form = byId("search", HTMLFormElement);
const box = byId("q", HTMLInputElement);
const select = byId("index", HTMLSelectElement);
const stage = byId("stage");
const results = byId("results");
const insight = byId("insight");
const filters = byId("filters");
const waiting = byId("waiting");

let view = readAddress();
/** @type {string[] | null} of the indexes; null until the API has returned them */
let names = null;
/** @type {import("./api.js").Index | null} the last inspected one */
let inspected = null;
/** @type {AbortController | null} of the search in progress */
let running = null;
/** @type {string | null} the address of the search on the page, without its document */
let shown = null;
/** @type {Map<string, string>} titles of the documents that were shown, by id */
const titles = new Map();
const showDocument = documentView(byId("document", HTMLDialogElement), {
  onClose: () => show({ ...view, document: null }),
  linkTo: (place) => writeAddress({ ...view, document: place }),
});

/** Return the index in view; null until it has been inspected. */
const currentIndex = () => (inspected?.name === view.index ? inspected : null);
const fields = () => currentIndex()?.fields ?? {};

/** @type {(view: View, options?: { learn?: boolean }) => Request[]} */
const requestsFor = (view, options) =>
  requestsOf(view, currentIndex() ?? { fields: {}, talk: null }, { ...options, narrow: PHONE.matches });

/** @param {Partial<View>} part replaces members of the view */
const change = (part) => show({ ...view, query: box.value, size: PAGE_SIZE, ...part }, { learn: false });

/** @param {string} query */
const submit = (query) => {
  box.value = query;
  form.requestSubmit();
};

// ---- from a view to the page

/**
 * Show a view.
 * @param {View} next
 * @param {object} [options]
 * @param {boolean} [options.draft] the query is being typed
 * @param {boolean} [options.push] save the view in the browser's history
 * @param {boolean} [options.again] search even if the page shows this search
 * @param {boolean} [options.learn] the query counts as asked, where the service learns frequent queries; half-typed words
 *   do not count
 */
async function show(next, { draft = false, push = true, again = false, learn = !draft } = {}) {
  view = next;
  if (push) saveView(view, { draft });
  if (names === null) return start();
  const search = writeAddress({ ...view, document: null });
  fillControls();
  if (again || shown !== search) await showSearch(search, learn);
  if (view === next) await showDocument(view, documentBody());
}

/** @type {(search: string, learn: boolean) => Promise<void>} */
async function showSearch(search, learn) {
  shown = search;
  running?.abort();
  const mine = new AbortController();
  running = mine;
  document.title = view.query ? `${view.query} · sparsewell` : "sparsewell";
  const slow = setTimeout(() => {
    waiting.hidden = false;
  }, SLOW_MS);
  results.setAttribute("aria-busy", "true");
  try {
    if (currentIndex() === null) await inspect(view.index);
    if (running !== mine) return;
    fillControls();
    const searches = isSearch(view);
    if (!searches) showIdle();
    const requests = requestsFor(searches ? view : { ...view, mode: "hybrid", size: 1 }, { learn });
    // Without a search, the page still counts the values of the fields.
    const counts = requests[0].body.facets !== undefined && (currentIndex()?.total ?? 0) > 0;
    if (!view.index || !(searches || counts)) return;
    const answers = await searchView(view, requests, mine.signal);
    if (running !== mine) return;
    if (!searches) return fillFilters(answers[0]);
    showAnswers(requests, answers);
    const last = answers.length - 1;
    markElsewhere(results, view.index, requests[last].body, answers[last], mine.signal);
  } catch (error) {
    if (running === mine) showProblem(error);
    mine.abort(); // when one of two searches has failed, the other is useless
  } finally {
    clearTimeout(slow);
    if (running === mine) {
      running = null;
      waiting.hidden = true;
      results.removeAttribute("aria-busy");
    }
  }
}

function showIdle() {
  const index = currentIndex();
  if (names?.length === 0 && !view.index) put({ body: renderHowToLoad("") });
  else if (index)
    put({
      body:
        index.total === 0
          ? renderHowToLoad(index.name)
          : renderWelcome(index.name, (query) => show({ ...view, query })),
    });
}

/** @type {(requests: Request[], answers: Answer[]) => void} */
function showAnswers(requests, answers) {
  for (const hit of answers.flatMap(({ hits }) => hits)) if (hit.title) titles.set(hit.id, hit.title);
  const around = {
    requests,
    remarks: [renderDidYouMean(answers, submit), answers.map(renderRemarks), renderRules(answers)],
    facets: answers[0],
  };
  if (answers.every(({ hits }) => hits.length === 0)) {
    const empty = currentIndex()?.total === 0;
    const body = empty ? renderHowToLoad(view.index) : renderNothingFound(view, (part) => show({ ...view, ...part }));
    put({ ...around, status: view.query ? `Nothing found for “${view.query}”.` : "Nothing found.", body });
    return;
  }
  const { status, body, append } = renderAnswers(view, answers, {
    linkTo: ({ id, passage }) =>
      writeAddress({ ...view, document: { id, start: passage?.start ?? null, end: passage?.end ?? null } }),
    like: view.mode !== "lexical" && !view.unit,
    onMore: (size) => showMore(size, requests[0].body, answers[0], append),
  });
  put({
    ...around,
    status,
    body,
    insight: renderInsight(requests.map(({ label }, at) => ({ label, answer: answers[at] }))),
  });
}

/**
 * Show a further page of the point in time that the cursor keeps open, else search again with a point in time.
 * @param {number} size
 * @param {import("./requests.js").Body} body
 * @param {Answer} latest
 * @param {import("./results.js").Append | null} append
 */
async function showMore(size, body, latest, append) {
  const from = view.size;
  const before = shown;
  if (latest.cursor && append) {
    try {
      const page = await searchPage(view.index, body, latest.cursor, size - from);
      if (shown !== before) return;
      view = { ...view, size };
      shown = writeAddress({ ...view, document: null });
      saveView(view, { replace: true });
      Object.assign(latest, { cursor: page.cursor, end: page.end });
      append(page, from);
      byId("status").textContent = `${from + page.hits.length} results`;
      return;
    } catch (error) {
      if (!(error instanceof Problem && error.code === "cursor_expired")) return showProblem(error);
    }
  }
  await show({ ...view, size }, { learn: false });
  if (view.size === size) hitsIn(results)[from]?.focus({ preventScroll: true });
}

/** @param {unknown} error */
function showProblem(error) {
  if (isAbort(error)) return;
  shown = null;
  put({ problem: renderProblem(Problem.of(error), start) });
}

/**
 * Replace everything below the form at once, so that nothing of an earlier view remains. The focus stays among the
 * results, at the same rank: the answer for the last letters may come when a result has the focus already.
 * @param {object} content
 * @param {string} [content.status]
 * @param {Child} [content.body]
 * @param {Child} [content.insight]
 * @param {Child} [content.remarks]
 * @param {Request[]} [content.requests]
 * @param {Answer | null} [content.facets]
 * @param {Child} [content.problem]
 */
function put({ status = "", body, insight: aside, remarks, requests = [], facets = null, problem }) {
  byId("status").textContent = status;
  const rank = hitsIn(results).findIndex((hit) => hit.contains(document.activeElement));
  results.replaceChildren(...nodesOf(body));
  const hits = hitsIn(results);
  if (rank >= 0) hits[Math.min(rank, hits.length - 1)]?.focus({ preventScroll: true });
  insight.replaceChildren(...nodesOf(aside));
  byId("note").replaceChildren(...nodesOf(remarks));
  byId("request").replaceChildren(...renderRequests(view.index, requests));
  byId("problem").replaceChildren(...nodesOf(problem));
  stage.dataset.mode = view.mode;
  byId("insight-toggle").hidden = insight.hidden = insight.childElementCount === 0;
  byId("request-toggle").hidden = requests.length === 0;
  fillFilters(facets);
}

/** @param {Answer | null} answer */
function fillFilters(answer) {
  const controls = renderFacets(fields(), view.filters, answer, (next) => change({ filters: next(view.filters) }));
  replaceControls(filters, controls);
  byId("filters-toggle").hidden = filters.hidden = controls.length === 0;
}

function fillControls() {
  if (box.dataset.ahead === undefined && box.value !== view.query) box.value = view.query;
  /** @type {RadioNodeList} */ (form.elements.namedItem("mode")).value = view.mode;
  if (view.index && select.value !== view.index) select.value = view.index;
  showIndexState();
  byId("active").replaceChildren(...renderActive(view, fields(), (id) => titles.get(id) ?? id, change));
  replaceControls(byId("ranking"), renderRanking(view, currentIndex(), change));
  const sort = renderSort(view, fields(), change);
  replaceControls(byId("sort"), sort ? [sort] : []);
  byId("ranking-toggle").textContent = countedLabel("Ranking", countRankingOptions(view));
  byId("filters-toggle").textContent = countedLabel("Filters", view.filters.length);
}

/** @type {(label: string, count: number) => string} */
const countedLabel = (label, count) => (count > 0 ? `${label} (${count})` : label);

/** Return the search that highlights the open document; null without a query in words. */
function documentBody() {
  const request = requestsFor(view).at(-1);
  return view.document && request && view.query.trim() !== "" ? bodyOfOne(request.body, view.document.id) : null;
}

// ---- indexes and the states of their documents

/** List the indexes, choose one when the address names none, and show the view. */
async function start() {
  put({});
  try {
    names = await listIndexes();
    if (!view.index) view = { ...view, index: await findLargest(names) };
  } catch (error) {
    names = null;
    showProblem(error);
    return;
  }
  fillIndexes(select, names, view.index);
  inspected = null;
  await show(view, { push: false, again: true });
}

/**
 * Inspect an index, and show its counts if it is still in view.
 * @param {string} name
 * @param {{ quiet?: boolean }} [options] `quiet`: ignore errors
 */
async function inspect(name, { quiet = false } = {}) {
  if (!name) return;
  try {
    const fresh = await inspectIndex(name);
    if (name !== view.index) return;
    const filled = currentIndex()?.total === 0 && fresh.total > 0;
    inspected = fresh;
    showIndexState();
    if (filled && !isSearch(view)) showIdle();
  } catch (error) {
    // A search shows the same error by itself.
    if (!quiet && name === view.index && !isSearch(view)) throw error;
  }
}

function showIndexState() {
  const index = currentIndex();
  byId("index-state").replaceChildren(...nodesOf(index && renderStates(index)));
}

/** Update the counts while documents wait to be encoded, or while there are none. */
async function pollStates() {
  if (document.hidden || names === null) return;
  const index = currentIndex();
  if (names.length === 0 && !view.index) {
    const found = await listIndexes().catch(() => []);
    if (found.length > 0) await start();
  } else if (index && (index.pending > 0 || index.total === 0)) {
    await inspect(view.index, { quiet: true });
  }
}

// ---- from controls to views

listenToControls({ view: () => view, show, change, toFilters });
completeBox(box, byId("suggestions"), {
  where: () => ({ index: view.index, filter: filterOf(view.filters, fields()) }),
  onChoice: submit,
});
window.addEventListener("popstate", () => {
  const next = readAddress();
  show({ ...next, index: next.index || view.index }, { push: false, learn: false });
});
setInterval(pollStates, STATE_POLL_MS);
if (box.value !== "" && view.query === "") box.dispatchEvent(new Event("input")); // typed before this script ran
start();

function toFilters() {
  if (!openPanel("filters")) return false;
  const first = filters.querySelector("[data-key]");
  if (first instanceof HTMLElement) first.focus();
  return true;
}

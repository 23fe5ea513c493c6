// The page: the address names a view, a view is searched and shown, controls make the next view.

import { PAGE_SIZE, readAddress, remember, writeAddress } from "./address.js";
import { inspectIndex, listIndexes, Problem } from "./api.js";
import { renderAsked } from "./asked.js";
import { complete } from "./completing.js";
import { h } from "./dom.js";
import { documentView } from "./document.js";
import { filterOf } from "./filters.js";
import { renderFacets, replaceControls } from "./facets.js";
import { listenToControls, openPanel } from "./controls.js";
import { fullest, offer, renderStates } from "./indexbar.js";
import { renderInsight } from "./insight.js";
import { didYouMean, howToLoad, nothingFound, problemNotice, remarks, welcome } from "./notices.js";
import { changes, renderRanking, renderSort } from "./ranking.js";
import { asks, bodyOfOne } from "./request.js";
import { renderRequests } from "./requestpanel.js";
import { renderAnswers } from "./results.js";
import { rulesRemark } from "./rules.js";
import { answer, nextPage, requestsOf } from "./searching.js";
import { markElsewhere } from "./talk.js";

const SLOW_MS = 150;
const STATE_POLL_MS = 3000;

const element = (id) => document.getElementById(id);
const [form, box, select, stage, results, insight] = ["search", "q", "index", "stage", "results", "insight"].map(element);
const [status, note, problem, waiting, filters] = ["status", "note", "problem", "waiting", "filters"].map(element);
const [ranking, rankingToggle, request, asked, sort] = ["ranking", "ranking-toggle", "request", "asked", "sort"].map(element);

let view = readAddress();
let names = null; // of the indexes; null until the API has told them
let index = null; // the one in view, with what it declares and its counts
let running = null; // the AbortController of the search under way
let shown = null; // the address of the search that is on the page, without its document
const titles = new Map(); // of documents that were seen, by id
const showDocument = documentView(element("document"), {
  onClose: () => show({ ...view, document: null }),
  linkTo: (place) => writeAddress({ ...view, document: place }),
});

const known = () => (index?.name === view.index ? index : null);
const fields = () => known()?.fields ?? {};
const declared = () => known() ?? { fields: {}, talk: null };
const change = (part) => show({ ...view, query: box.value, size: PAGE_SIZE, ...part }, { learn: false });
const ask = (query) => {
  box.value = query;
  form.requestSubmit();
};

// ---- from a view to the page

/** `learn`: somebody asks this now, which a service that learns frequent queries counts; half-typed words do not count. */
async function show(next, { draft = false, push = true, again = false, learn = !draft } = {}) {
  view = next;
  if (push) remember(view, { draft });
  if (names === null) return start();
  const search = writeAddress({ ...view, document: null });
  fillControls();
  if (again || shown !== search) await showSearch(search, learn);
  if (view === next) await showDocument(view, documentBody());
}

async function showSearch(search, learn) {
  shown = search;
  running?.abort();
  const mine = new AbortController();
  running = mine;
  document.title = view.query ? `${view.query} · sparsewell` : "sparsewell";
  const slow = setTimeout(() => (waiting.hidden = false), SLOW_MS);
  results.setAttribute("aria-busy", "true");
  try {
    if (known() === null) await inspect(view.index);
    if (running !== mine) return;
    fillControls();
    const requests = requestsOf(asks(view) ? view : { ...view, mode: "hybrid", size: 1 }, declared(), learn);
    if (!asks(view)) showIdle();
    // Nothing is asked: what could be chosen among is still worth counting.
    if (!view.index || (!asks(view) && !(requests[0].body.facets && known()?.total > 0))) return;
    const answers = await answer(view, requests, mine.signal);
    if (running !== mine) return;
    if (asks(view)) {
      showAnswers(requests, answers);
      markElsewhere(results, view.index, requests.at(-1).body, answers.at(-1), mine.signal);
    } else fillFilters(answers[0]);
  } catch (error) {
    if (running === mine) showProblem(error);
    mine.abort(); // of two searches, the one still under way is of no use any more
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
  if (names.length === 0 && !view.index) put({ body: howToLoad("") });
  else if (known()) put({ body: index.total === 0 ? howToLoad(index.name) : welcome(index.name, (query) => show({ ...view, query })) });
}

function showAnswers(requests, answers) {
  for (const hit of answers.flatMap(({ hits }) => hits)) if (hit.title) titles.set(hit.id, hit.title);
  const found = answers.some(({ hits }) => hits.length > 0);
  const side = {
    requests,
    remarks: [...didYouMean(answers, ask), ...answers.flatMap(remarks), ...rulesRemark(answers)],
    facets: answers[0],
  };
  if (!found) {
    const body = known()?.total === 0 ? howToLoad(view.index) : nothingFound(view, (part) => show({ ...view, ...part }));
    put({ ...side, said: view.query ? `Nothing found for “${view.query}”.` : "Nothing found.", body });
    return;
  }
  const linkTo = (hit) => writeAddress({ ...view, document: { id: hit.id, start: hit.passage?.start ?? null, end: hit.passage?.end ?? null } });
  const { said, body, append } = renderAnswers(view, answers, { linkTo, like: view.mode !== "keyword" && !view.unit, onMore: (size) => more(size, requests[0].body, answers[0], append) });
  put({ ...side, said, body, insight: renderInsight(requests.map(({ label }, at) => ({ label, answer: answers[at] }))) });
}

/** A further page: of the snapshot that there is, else everything anew, and as a snapshot. */
async function more(size, body, latest, append) {
  const from = view.size;
  const here = shown;
  if (latest.cursor) {
    try {
      const page = await nextPage(view.index, body, latest.cursor, size - from);
      if (shown !== here) return;
      view = { ...view, size };
      shown = writeAddress({ ...view, document: null });
      remember(view, { replace: true });
      Object.assign(latest, { cursor: page.cursor, end: page.end });
      append(page, from);
      status.textContent = `${from + page.hits.length} results`;
      return;
    } catch (error) {
      if (error.code !== "cursor_expired") return showProblem(error);
    }
  }
  await show({ ...view, size }, { learn: false });
  if (view.size === size) results.querySelectorAll(".hit")[from]?.focus({ preventScroll: true });
}

function showProblem(error) {
  if (error.name === "AbortError") return;
  shown = null;
  const said = error instanceof Problem ? error : new Problem({ title: "The page could not show this", detail: String(error), code: "page_error" });
  put({ trouble: problemNotice(said, () => start()) });
}

/**
 * Replaces everything below the form at once, so that nothing of an earlier view stays. Who was among the results stays
 * there, at the same rank: an answer to the last letters may come when the first result has the focus already.
 */
function put({ said = "", body = [], insight: aside = [], remarks: remarked = [], requests = [], facets = null, trouble = null }) {
  status.textContent = said;
  const rank = [...results.querySelectorAll(".hit")].findIndex((hit) => hit.contains(document.activeElement));
  results.replaceChildren(...[body].flat(Infinity).filter(Boolean));
  const hits = results.querySelectorAll(".hit");
  if (rank >= 0) hits[Math.min(rank, hits.length - 1)]?.focus({ preventScroll: true });
  insight.replaceChildren(...aside);
  note.replaceChildren(...remarked);
  request.replaceChildren(...renderRequests(view.index, requests));
  problem.replaceChildren(...(trouble ? [trouble] : []));
  stage.dataset.mode = view.mode;
  element("insight-toggle").hidden = insight.hidden = aside.length === 0;
  element("request-toggle").hidden = requests.length === 0;
  fillFilters(facets);
}

function fillFilters(latest) {
  replaceControls(filters, renderFacets(fields(), view.filters, latest, (next) => change({ filters: next(view.filters) })));
  element("filters-toggle").hidden = filters.hidden = filters.childElementCount === 0;
}

function fillControls() {
  if (box.dataset.ahead === undefined && box.value !== view.query) box.value = view.query;
  form.elements.mode.value = view.mode;
  if (view.index && select.value !== view.index) select.value = view.index;
  showIndexState();
  asked.replaceChildren(...renderAsked(view, fields(), (id) => titles.get(id) ?? id, change));
  replaceControls(ranking, renderRanking(view, known() ?? {}, change));
  replaceControls(sort, [renderSort(view, fields(), change)].filter(Boolean));
  const count = changes(view);
  rankingToggle.textContent = count > 0 ? `Ranking (${count})` : "Ranking";
  element("filters-toggle").textContent = view.filters.length > 0 ? `Filters (${view.filters.length})` : "Filters";
}

/** The search that tells what in the open document matched; null when nothing is asked in words. */
function documentBody() {
  if (!view.document || view.query.trim() === "") return null;
  return bodyOfOne(requestsOf(view, declared()).at(-1).body, view.document.id);
}

// ---- indexes and their states

/** Asks which indexes there are, chooses one when the address names none, and shows the view. */
async function start() {
  put({});
  try {
    names = await listIndexes();
    if (!view.index) view = { ...view, index: await fullest(names) };
  } catch (error) {
    names = null;
    showProblem(error);
    return;
  }
  offer(select, names, view.index);
  index = null;
  await show(view, { push: false, again: true });
}

/** Fetches an index, and shows its counts when it is still the one in view. */
async function inspect(name, { quiet = false } = {}) {
  if (!name) return;
  try {
    const fresh = await inspectIndex(name);
    if (name !== view.index) return;
    const filled = index?.name === name && index.total === 0 && fresh.total > 0;
    index = fresh;
    showIndexState();
    if (filled && !asks(view)) showIdle();
  } catch (error) {
    // With a query, the search says what is wrong.
    if (!quiet && name === view.index && !asks(view)) throw error;
  }
}

const showIndexState = () => element("index-state").replaceChildren(...(known() ? renderStates(index) : []));

/** While documents wait to be encoded, or there are none yet, the counts follow. */
async function followStates() {
  if (document.hidden || names === null) return;
  if (names.length === 0 && !view.index) {
    const found = await listIndexes().catch(() => []);
    if (found.length > 0) await start();
  } else if (known() && (index.pending > 0 || index.total === 0)) {
    await inspect(view.index, { quiet: true });
  }
}

// ---- from controls to views

listenToControls({
  view: () => view,
  show,
  change,
  toFilters: () => openPanel("filters") && (filters.querySelector("[data-key]")?.focus(), true),
});
window.addEventListener("popstate", () => show({ ...readAddress(), index: readAddress().index || view.index }, { push: false, learn: false }));
complete(box, element("suggestions"), { where: () => ({ index: view.index, filter: filterOf(view.filters, fields()) }), onChoice: ask });
setInterval(followStates, STATE_POLL_MS);
if (box.value !== "" && view.query === "") box.dispatchEvent(new Event("input")); // somebody was faster than this page
start();

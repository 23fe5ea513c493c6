// The page: the address names a view, a view is searched and shown, controls make the next view.

import { MAX_SIZE, PAGE_SIZE, readAddress, remember } from "./address.js";
import { inspectIndex, listIndexes, Problem, search } from "./api.js";
import { renderComparison } from "./compare.js";
import { h } from "./dom.js";
import { counted, duration, whole } from "./format.js";
import { renderHit } from "./hit.js";
import { renderInsight } from "./insight.js";
import { listenToKeys } from "./keys.js";
import { howToLoad, nothingFound, problemNotice, welcome } from "./notices.js";

const TYPING_PAUSE_MS = 220;
const SLOW_MS = 150;
const STATE_POLL_MS = 3000;
const LOOKED_AT = 12;
const API_MODES = { hybrid: ["hybrid"], sparse: ["sparse"], keyword: ["lexical"], compare: ["lexical", "sparse"] };

const element = (id) => document.getElementById(id);
const [form, box, select, stage] = ["search", "q", "index", "stage"].map(element);
const [results, insight, status, problem, waiting] = ["results", "insight", "status", "problem", "waiting"].map(element);
const [indexState, insightToggle] = ["index-state", "insight-toggle"].map(element);

let view = readAddress();
let names = null; // of the indexes; null until the API has told them
let index = null; // the one in view, with its counts
let running = null; // the AbortController of the search under way
let typing = 0;

// ---- from a view to the page

async function show(next, { draft = false, push = true } = {}) {
  view = next;
  if (push) remember(view, { draft });
  if (names === null) return start();
  fillControls();
  running?.abort();
  running = null;
  clearTimeout(typing);
  document.title = view.query ? `${view.query} · sparsewell` : "sparsewell";
  const counts = index?.name === view.index ? null : inspect(view.index);
  if (view.query.trim() === "" || !view.index) return showIdle();

  const mine = new AbortController();
  running = mine;
  const slow = setTimeout(() => (waiting.hidden = false), SLOW_MS);
  results.setAttribute("aria-busy", "true");
  try {
    const asked = API_MODES[view.mode].map((mode) => search({ ...view, mode }, mine.signal));
    const answers = await Promise.all(asked);
    // Only then it matters whether there is anything to find.
    if (answers.every(({ hits }) => hits.length === 0)) await counts;
    if (running === mine) showAnswers(answers);
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
  waiting.hidden = true;
  results.removeAttribute("aria-busy");
  const known = index?.name === view.index ? index : null;
  if (names.length === 0 && !view.index) put({ body: howToLoad("") });
  else if (known) put({ body: known.total === 0 ? howToLoad(known.name) : welcome(known.name, (query) => show({ ...view, query })) });
  else put({});
}

function showAnswers(answers) {
  const { query, mode } = view;
  const found = answers.reduce((sum, { hits }) => sum + hits.length, 0);
  const empty = index?.name === view.index && index.total === 0;
  if (found === 0) {
    put({
      said: `Nothing found for “${query}”.`,
      body: empty ? howToLoad(view.index) : nothingFound(query, mode, (other) => show({ ...view, mode: other })),
    });
  } else if (mode === "compare") {
    const { element: body, alignment } = renderComparison(answers, { index: view.index });
    const [left, right] = alignment.only;
    put({
      said: `${alignment.both || "No"} document${alignment.both === 1 ? "" : "s"} in both lists, ${left} only by keyword, ${right} only by sparse`,
      body: [body, more(answers)],
      side: renderInsight([{ label: "Keyword", answer: answers[0] }, { label: "Sparse", answer: answers[1] }]),
    });
  } else {
    const [answer] = answers;
    const context = { index: view.index, mode: answer.mode };
    const list = answer.hits.map((hit, position) => h("li", {}, renderHit(hit, { ...context, rank: position + 1, relation: null })));
    put({
      said: `${counted(found, "result")} in ${duration(answer.timings_ms?.total)}`,
      body: [h("ol", { class: "hits" }, list), more(answers)],
      side: renderInsight([{ label: "", answer }]),
    });
  }
}

function more(answers) {
  if (view.size >= MAX_SIZE || answers.every(({ hits }) => hits.length < view.size)) return null;
  const size = Math.min(MAX_SIZE, view.size + PAGE_SIZE);
  return h("p", { class: "further" }, h("button", { type: "button", class: "example", on: { click: () => show({ ...view, size }) } }, `Show ${size - view.size} more`));
}

function showProblem(error) {
  if (error.name === "AbortError") return;
  const shown = error instanceof Problem ? error : new Problem({ title: "The page could not show this", detail: String(error), code: "page_error" });
  put({ trouble: problemNotice(shown, () => start()) });
}

/** Replaces everything below the form at once, so that nothing of an earlier view stays. */
function put({ said = "", body = [], side = [], trouble = null }) {
  const children = [body].flat().filter(Boolean);
  status.textContent = said;
  results.replaceChildren(...children);
  insight.replaceChildren(...side);
  insight.hidden = insightToggle.hidden = side.length === 0;
  problem.replaceChildren(...(trouble ? [trouble] : []));
  stage.dataset.mode = view.mode;
}

function fillControls() {
  if (box.value !== view.query) box.value = view.query;
  form.elements.mode.value = view.mode;
  if (view.index && select.value !== view.index) select.value = view.index;
  showIndexState();
}

// ---- indexes and their states

/** Asks which indexes there are, chooses one when the address names none, and shows the view. */
async function start() {
  put({});
  try {
    names = await listIndexes();
    if (!view.index) view = { ...view, index: await fullest() };
  } catch (error) {
    names = null;
    showProblem(error);
    return;
  }
  // An index that is not there stays in the list: the API says what is wrong with it.
  const offered = view.index && !names.includes(view.index) ? [view.index, ...names] : names;
  select.replaceChildren(...(offered.length > 0 ? offered : ["none yet"]).map((name) => h("option", { value: name }, name)));
  select.disabled = offered.length === 0;
  index = null;
  await show(view, { push: false });
}

/** Of the first indexes the one with most documents, "" when there is none. */
async function fullest() {
  const looked = await Promise.all(names.slice(0, LOOKED_AT).map(inspectIndex));
  return looked.reduce((best, next) => (best === null || next.total > best.total ? next : best), null)?.name ?? "";
}

/** Fetches an index's counts and shows them, when it is still the one in view. */
async function inspect(name, { quiet = false } = {}) {
  if (!name) return;
  try {
    const fresh = await inspectIndex(name);
    if (name !== view.index) return;
    const first = index?.name !== name || (index.total === 0) !== (fresh.total === 0);
    index = fresh;
    showIndexState();
    if (first && view.query.trim() === "") showIdle();
  } catch (error) {
    // With a query, the search says what is wrong.
    if (!quiet && name === view.index && view.query.trim() === "") showProblem(error);
  }
}

function showIndexState() {
  if (index?.name !== view.index) {
    indexState.replaceChildren();
    return;
  }
  const part = (kind, meaning) => index[kind] > 0 && h("span", { class: `state-${kind}`, title: meaning }, `${whole(index[kind])} ${kind}`);
  const parts = [
    h("span", {}, counted(index.total, "document")),
    part("pending", "Keyword search finds them already, sparse search once they are encoded"),
    index.dead > 0 &&
      h(
        "a",
        { class: "state-dead", href: `operate?index=${encodeURIComponent(index.name)}`, title: "Could not be encoded; keyword search finds them. See why" },
        `${whole(index.dead)} dead`,
      ),
  ];
  indexState.replaceChildren(...parts.filter(Boolean));
}

/** While documents wait to be encoded, or there are none yet, the counts follow. */
async function followStates() {
  if (document.hidden || names === null) return;
  if (names.length === 0 && !view.index) {
    const found = await listIndexes().catch(() => []);
    if (found.length > 0) await start();
  } else if (index?.name === view.index && (index.pending > 0 || index.total === 0)) {
    await inspect(view.index, { quiet: true });
  }
}

// ---- from controls to views

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show({ ...view, query: box.value, size: PAGE_SIZE });
});
box.addEventListener("input", (event) => {
  clearTimeout(typing);
  if (event.isComposing) return;
  typing = setTimeout(() => show({ ...view, query: box.value, size: PAGE_SIZE }, { draft: true }), TYPING_PAUSE_MS);
});
form.addEventListener("change", ({ target }) => {
  if (target.name === "mode") show({ ...view, query: box.value, mode: target.value });
});
select.addEventListener("change", () => show({ ...view, query: box.value, index: select.value, size: PAGE_SIZE }));
element("brand").addEventListener("click", (event) => {
  event.preventDefault();
  show({ ...view, query: "", mode: "hybrid", size: PAGE_SIZE });
  box.focus();
});
window.addEventListener("popstate", () => show({ ...readAddress(), index: readAddress().index || view.index }, { push: false }));

insightToggle.addEventListener("click", () => {
  const open = insightToggle.getAttribute("aria-expanded") !== "true";
  insightToggle.setAttribute("aria-expanded", String(open));
  stage.dataset.insight = open ? "open" : "folded";
});

listenToKeys(box, results);
setInterval(followStates, STATE_POLL_MS);
start();

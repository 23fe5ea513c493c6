// The operator's page: refreshes the state of the service every few seconds, and retries dead letters.

import { getReadiness, getStatus, inspectAll, listDeadLetters, Problem, retryDeadLetters } from "./api.js";
import { byId, formatCount, formatTime, h } from "./dom.js";
import { renderFacts, renderGenerations, renderIndexes, renderNotReady, renderWork } from "./overview.js";
import { isEnteringKey, renderProblem } from "./panels.js";

/** @typedef {import("./api.js").DeadLetter} DeadLetter */
/** @typedef {import("./api.js").DeadLetters} DeadLetters */
/** @typedef {import("./api.js").Index} Index */
/** @typedef {import("./api.js").Retried} Retried */

const POLL_MS = 3000;
const PAGE_SIZE = 20;
const MAX_SIZE = 100;

const section = byId("letters");
const list = byId("letters-list");
const lettersProblem = byId("letters-problem");
const retryAll = byId("retry-all", HTMLButtonElement);
const more = byId("more");

/** @type {Index[] | null} with their counts; null until the API has returned them */
let indexes = null;
let chosen = indexInAddress();
/** @type {DeadLetters & { index: string | null }} the dead letters on the page */
let shown = { index: null, total: 0, dead: [], cursor: null };
let loads = 0; // only the latest of several loads is shown
let retrying = false;
/** @type {Map<string, HTMLElement>} articles of the dead letters on the page, by key */
const articles = new Map();

function indexInAddress() {
  return new URLSearchParams(window.location.search).get("index") || "";
}

// ---- the service and its indexes

async function refresh() {
  if (isEnteringKey()) return;
  const [readiness, found, status] = await Promise.allSettled([getReadiness(), inspectAll(), getStatus()]);
  const facts =
    readiness.status === "fulfilled" ? renderFacts(readiness.value) : renderNotReady(Problem.of(readiness.reason));
  byId("facts").replaceChildren(...facts);
  showStatus(status);
  if (found.status === "rejected") {
    byId("problem").replaceChildren(renderProblem(Problem.of(found.reason), refresh));
    return;
  }
  byId("problem").replaceChildren();
  const before = indexNamed(chosen);
  indexes = found.value;
  if (!chosen && indexes.length > 0) chosen = worstOf(indexes).name;
  showIndexes();
  const now = indexNamed(chosen);
  const changed = before?.dead !== now?.dead || before?.pending !== now?.pending || (now?.pending ?? 0) > 0;
  if (chosen && !retrying && (shown.index !== chosen || changed)) await load();
}

/** @param {PromiseSettledResult<import("./api.js").Status>} status */
function showStatus(status) {
  if (status.status === "fulfilled") {
    byId("work").replaceChildren(...renderWork(status.value));
    byId("generations").replaceChildren(...renderGenerations(status.value));
  } else {
    byId("work").replaceChildren(renderProblem(Problem.of(status.reason), refresh));
    byId("generations").replaceChildren();
  }
}

/** @param {string} name */
const indexNamed = (name) => indexes?.find((index) => index.name === name);

/** @type {(indexes: readonly Index[]) => Index} the index with most dead letters; the largest if there are several */
const worstOf = (indexes) =>
  indexes.reduce((worst, next) =>
    next.dead > worst.dead || (next.dead === worst.dead && next.total > worst.total) ? next : worst,
  );

function showIndexes() {
  const table = byId("indexes");
  const all = indexes ?? [];
  const row = document.activeElement?.closest("[data-index]");
  const focused = row instanceof HTMLElement ? row.dataset.index : undefined;
  const body =
    all.length > 0 ? renderIndexes(all, chosen, choose) : h("p", { class: "nothing" }, "There is no index yet.");
  table.replaceChildren(body);
  if (focused !== undefined)
    table
      .querySelector(`[data-index="${CSS.escape(focused)}"]`)
      ?.querySelector("a")
      ?.focus();
  byId("to-search").setAttribute("href", chosen ? `./?index=${encodeURIComponent(chosen)}` : "./");
}

/**
 * Show the dead letters of an index.
 * @param {string} name
 * @param {{ push?: boolean }} [options] `push`: save the choice in the browser's history
 */
function choose(name, { push = true } = {}) {
  chosen = name;
  if (push) window.history.pushState(null, "", `operate?index=${encodeURIComponent(name)}`);
  byId("status").textContent = "";
  shown = { index: null, total: 0, dead: [], cursor: null };
  showLetters();
  if (indexes) showIndexes();
  return load();
}

// ---- dead letters

/** Load the list again, with as many letters as it shows at present. */
async function load() {
  loads += 1;
  const mine = loads;
  const index = chosen;
  const size = Math.min(MAX_SIZE, Math.max(PAGE_SIZE, shown.index === index ? shown.dead.length : 0));
  try {
    const answer = await listDeadLetters(index, size);
    if (mine !== loads) return;
    shown = { ...answer, index };
    lettersProblem.replaceChildren();
  } catch (error) {
    if (mine !== loads) return;
    shown = { index, total: 0, dead: [], cursor: null };
    lettersProblem.replaceChildren(renderProblem(Problem.of(error), load));
  }
  showLetters();
}

async function loadMore() {
  loads += 1;
  const mine = loads;
  const { index } = shown;
  if (index === null) return;
  try {
    const answer = await listDeadLetters(index, PAGE_SIZE, shown.cursor);
    if (mine !== loads) return;
    shown = { ...answer, index, dead: [...shown.dead, ...answer.dead] };
    showLetters();
    const [first] = answer.dead;
    if (first) articles.get(keyOf(first))?.focus();
  } catch (error) {
    lettersProblem.replaceChildren(renderProblem(Problem.of(error), loadMore));
  }
}

/** Show the loaded letters. Letters that stay keep their elements, and with them the focus. */
function showLetters() {
  const { index, total, dead, cursor } = shown;
  byId("letters-title").textContent = chosen ? `Dead letters of ${chosen}` : "Dead letters";
  byId("letters-count").textContent = total > 0 ? formatCount(total, "document") : "";
  retryAll.hidden = total === 0;
  more.hidden = cursor === null;
  const healthy = index !== null && total === 0 && lettersProblem.childElementCount === 0;
  byId("letters-none").hidden = !healthy;
  byId("letters-none").textContent = healthy ? "No document is dead." : "";
  const keys = dead.map(keyOf);
  if (keys.length === articles.size && keys.every((key) => articles.has(key))) return;
  const active = document.activeElement;
  const focused = active instanceof HTMLElement && list.contains(active) ? active : null;
  const place = [...list.children].findIndex((item) => item.contains(focused));
  const next = dead.map((letter, at) => articles.get(keys[at]) ?? renderLetter(letter));
  articles.clear();
  next.forEach((article, at) => {
    articles.set(keys[at], article);
  });
  list.replaceChildren(...next.map((article) => h("li", {}, article)));
  if (!focused) return;
  if (focused.isConnected) focused.focus();
  else (next[Math.min(place, next.length - 1)] ?? section).focus();
}

/** @type {(letter: DeadLetter) => string} the same only for the same death of a document */
const keyOf = ({ id, version, dead_at, earlier }) => JSON.stringify([id, version, dead_at, earlier?.retries ?? 0]);

let count = 0;

/** @type {(letter: DeadLetter) => HTMLElement} */
function renderLetter(letter) {
  count += 1;
  const name = `letter-${count}`;
  const title = letter.title || letter.id;
  const retry = {
    type: "button",
    class: "action second",
    "aria-label": `Retry ${title}`,
    on: { click: () => retryOne(letter.id) },
  };
  return h(
    "article",
    { class: "letter", tabindex: "-1", "aria-labelledby": name, data: { id: letter.id } },
    h("h3", { id: name }, title),
    h("button", retry, "Retry"),
    h("p", { class: "cause" }, h("code", {}, letter.error.code), letter.error.reason),
    letter.earlier && h("p", { class: "before" }, describeEarlier(letter.earlier)),
    h(
      "ul",
      { class: "chips", "aria-label": "About the document" },
      title !== letter.id && h("li", { class: "chip id" }, letter.id),
      renderChip("attempts", String(letter.attempts)),
      letter.dead_at &&
        renderChip("died", h("time", { datetime: letter.dead_at, title: letter.dead_at }, formatTime(letter.dead_at))),
      letter.job && renderChip("job", letter.job),
      renderChip("version", String(letter.version)),
    ),
  );
}

/** @type {(field: string, value: import("./dom.js").Child) => HTMLElement} */
const renderChip = (field, value) => h("li", { class: "chip" }, h("span", { class: "field" }, field), " ", value);

/** @param {NonNullable<DeadLetter["earlier"]>} earlier */
function describeEarlier({ retries, attempts, error }) {
  const cause = error ? `; it had failed with ${error.code}: ${error.reason}` : "";
  return `Retried ${retries === 1 ? "once" : `${retries} times`}, after ${formatCount(attempts, "attempt")}${cause}`;
}

// ---- retries

/** @param {string} id */
async function retryOne(id) {
  const { index } = shown;
  if (index === null) return;
  await retryWith(async () => {
    const answer = await retryDeadLetters(index, { ids: [id] });
    report({ retried: answer.retried.length, queued: answer.queued, failed: answer.failed });
    return answer.not_retried;
  });
}

async function retryEvery() {
  const { index } = shown;
  if (index === null) return;
  await retryWith(async () => {
    const sum = { retried: 0, failed: 0, queued: true };
    /** @type {Retried["not_retried"]} */
    const left = [];
    /** @type {string | null} */
    let cursor = null;
    do {
      /** @type {Retried} */
      const answer = await retryDeadLetters(index, cursor === null ? { all: true } : { all: true, cursor });
      sum.retried += answer.retried.length;
      sum.failed += answer.failed;
      sum.queued &&= answer.queued;
      left.push(...answer.not_retried);
      cursor = answer.cursor;
      report({ ...sum, remaining: answer.remaining });
    } while (cursor !== null);
    return left;
  });
}

/**
 * Retry, one request at a time; then show the list again, with the reasons for documents that were not retried.
 * @param {() => Promise<Retried["not_retried"]>} retry
 */
async function retryWith(retry) {
  if (retrying) return;
  setRetrying(true);
  lettersProblem.replaceChildren();
  try {
    const left = await retry();
    await load();
    for (const { id, code, reason } of left) {
      const article = [...articles.values()].find((letter) => letter.dataset.id === id);
      article?.querySelector(".not-retried")?.remove();
      article?.append(h("p", { class: "not-retried" }, reason, " ", h("code", {}, code)));
    }
  } catch (error) {
    lettersProblem.replaceChildren(renderProblem(Problem.of(error), null));
  } finally {
    setRetrying(false);
  }
  await refresh();
}

/** @param {boolean} now */
function setRetrying(now) {
  retrying = now;
  // The buttons of the letters stay enabled, because a disabled one would lose the focus; they do nothing meanwhile.
  retryAll.disabled = now;
  section.toggleAttribute("aria-busy", now);
}

/** @param {{ retried: number, queued: boolean, failed: number, remaining?: number }} sums */
function report({ retried, queued, failed, remaining = 0 }) {
  const parts = [
    `${formatCount(retried, "document")} pending again`,
    failed > 0 && `${formatCount(failed, "document")} not retried`,
    remaining > 0 && `${formatCount(remaining, "document")} to go`,
    retried > 0 && !queued && "the queue could not be reached; the sweeper will enqueue pending documents",
  ];
  byId("status").textContent = `${parts.filter(Boolean).join("; ")}.`;
}

// ---- controls

retryAll.addEventListener("click", retryEvery);
more.addEventListener("click", loadMore);
window.addEventListener("popstate", () => choose(indexInAddress() || chosen, { push: false }));

/** @type {Record<string, 1 | -1>} */
const STEPS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const letter = document.activeElement?.closest(".letter");
  const all = [...articles.values()];
  const step = STEPS[event.key];
  if (step !== undefined && all.length > 0) {
    const next = letter instanceof HTMLElement ? all[all.indexOf(letter) + step] : step > 0 ? all[0] : null;
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    event.preventDefault();
  } else if (event.key === "r" && letter instanceof HTMLElement) {
    retryOne(letter.dataset.id ?? "");
    event.preventDefault();
  }
});

setInterval(() => document.hidden || refresh(), POLL_MS);
refresh();

// The operator's view: asks again every few seconds, shows what changed, and puts dead documents back to pending.

import { getReadiness, getStatus, inspectAll, listDead, Problem, retryDead } from "./api.js";
import { enteringKey } from "./credential.js";
import { h } from "./dom.js";
import { counted } from "./format.js";
import { letterKey, renderLetter, sayNotRetried } from "./letters.js";
import { problemNotice } from "./notices.js";
import { renderFacts, renderIndexes } from "./overview.js";
import { renderGenerations, renderWork } from "./working.js";

const POLL_MS = 3000;
const PAGE_SIZE = 20;
const MAX_SIZE = 100;

const element = (id) => document.getElementById(id);
const [facts, table, problem, section, list, none] = ["facts", "indexes", "problem", "letters", "letters-list", "letters-none"].map(element);
const [heading, count, status, lettersProblem] = ["letters-title", "letters-count", "status", "letters-problem"].map(element);
const [work, generations] = ["work", "generations"].map(element);
const [retryAll, more, toSearch] = ["retry-all", "more", "to-search"].map(element);

let indexes = null; // with their counts; null until the API has told them
let chosen = new URLSearchParams(window.location.search).get("index") || "";
let shown = { index: null, total: 0, dead: [], cursor: null };
let loading = 0; // of several loads under way the latest counts
let working = false; // a retry is under way
const articles = new Map(); // of the letters on the page, by key

// ---- the service and its indexes

async function look() {
  if (enteringKey()) return;
  const [readiness, found, told] = await Promise.allSettled([getReadiness(), inspectAll(), getStatus()]);
  if (readiness.status === "fulfilled") facts.replaceChildren(...renderFacts(readiness.value, null));
  else facts.replaceChildren(...renderFacts(null, asProblem(readiness.reason)));
  showWork(told);
  if (found.status === "rejected") {
    problem.replaceChildren(problemNotice(asProblem(found.reason), look));
    return;
  }
  problem.replaceChildren();
  const before = of(chosen);
  indexes = found.value;
  if (!chosen && indexes.length > 0) chosen = worst().name;
  showIndexes();
  const now = of(chosen);
  const changed = before?.dead !== now?.dead || before?.pending !== now?.pending || now?.pending > 0;
  if (chosen && !working && (shown.index !== chosen || changed)) await load();
}

function showWork(answer) {
  if (answer.status === "fulfilled") {
    work.replaceChildren(...renderWork(answer.value));
    generations.replaceChildren(...renderGenerations(answer.value));
  } else {
    work.replaceChildren(problemNotice(asProblem(answer.reason), look));
    generations.replaceChildren();
  }
}

const of = (name) => indexes?.find((index) => index.name === name);
const worst = () => indexes.reduce((most, next) => (next.dead > most.dead || (next.dead === most.dead && next.total > most.total) ? next : most));

function showIndexes() {
  const focused = document.activeElement?.closest?.("[data-index]")?.dataset.index;
  const body = indexes.length > 0 ? renderIndexes(indexes, chosen, choose) : h("p", { class: "nothing" }, "There is no index yet.");
  table.replaceChildren(body);
  if (focused !== undefined) [...table.querySelectorAll("[data-index]")].find((row) => row.dataset.index === focused)?.querySelector("a").focus();
  toSearch.setAttribute("href", chosen ? `./?index=${encodeURIComponent(chosen)}` : "./");
}

function choose(name, { push = true } = {}) {
  chosen = name;
  if (push) window.history.pushState(null, "", `operate?index=${encodeURIComponent(name)}`);
  status.textContent = "";
  shown = { index: null, total: 0, dead: [], cursor: null };
  showLetters();
  if (indexes) showIndexes();
  return load();
}

// ---- dead letters

/** Loads the list anew, as long as it is shown at present. */
async function load() {
  const mine = (loading += 1);
  const index = chosen;
  const size = Math.min(MAX_SIZE, Math.max(PAGE_SIZE, shown.index === index ? shown.dead.length : 0));
  try {
    const answer = await listDead(index, size);
    if (mine !== loading) return;
    shown = { ...answer, index };
    lettersProblem.replaceChildren();
  } catch (error) {
    if (mine !== loading) return;
    shown = { index, total: 0, dead: [], cursor: null };
    lettersProblem.replaceChildren(problemNotice(asProblem(error), load));
  }
  showLetters();
}

async function loadMore() {
  const mine = (loading += 1);
  try {
    const answer = await listDead(shown.index, PAGE_SIZE, shown.cursor);
    if (mine !== loading) return;
    const [first] = answer.dead;
    shown = { ...answer, index: shown.index, dead: [...shown.dead, ...answer.dead] };
    showLetters();
    if (first) articles.get(letterKey(first)).focus();
  } catch (error) {
    lettersProblem.replaceChildren(problemNotice(asProblem(error), loadMore));
  }
}

/** Brings the list on the page to what is known; letters that stay keep their elements, and one of them the focus. */
function showLetters() {
  const { index, total, dead, cursor } = shown;
  heading.textContent = chosen ? `Dead letters of ${chosen}` : "Dead letters";
  count.textContent = total > 0 ? counted(total, "document") : "";
  retryAll.hidden = total === 0;
  more.hidden = cursor === null;
  const healthy = index !== null && total === 0 && lettersProblem.childElementCount === 0;
  none.hidden = !healthy;
  none.textContent = healthy ? "No document is dead." : "";
  const keys = dead.map(letterKey);
  if (keys.length === articles.size && keys.every((key) => articles.has(key))) return;
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...list.children].indexOf(focused.closest("li")) : -1;
  const kept = new Map(articles);
  articles.clear();
  dead.forEach((letter, at) => articles.set(keys[at], kept.get(keys[at]) ?? renderLetter(letter, retryOne)));
  list.replaceChildren(...keys.map((key) => h("li", {}, articles.get(key))));
  if (!focused) return;
  if (focused.isConnected) focused.focus();
  else (list.children[Math.min(place, list.children.length - 1)]?.firstElementChild ?? section).focus();
}

async function retryOne(id) {
  const { index } = shown;
  await act(async () => {
    const answer = await retryDead(index, { ids: [id] });
    say(answer.retried.length, answer.queued, answer.failed);
    return answer.not_retried;
  });
}

async function retryEvery() {
  const { index } = shown;
  await act(async () => {
    const sum = { retried: 0, failed: 0, queued: true };
    const left = [];
    let cursor = null;
    do {
      const answer = await retryDead(index, cursor === null ? { all: true } : { all: true, cursor });
      sum.retried += answer.retried.length;
      sum.failed += answer.failed;
      sum.queued &&= answer.queued;
      left.push(...answer.not_retried);
      cursor = answer.cursor;
      say(sum.retried, sum.queued, sum.failed, answer.remaining);
    } while (cursor !== null);
    return left;
  });
}

/** One retry at a time; then the list as it is by then, with the reasons of those that were not retried. */
async function act(retry) {
  if (working) return;
  setWorking(true);
  lettersProblem.replaceChildren();
  try {
    const left = await retry();
    await load();
    for (const one of left) {
      const article = [...articles.values()].find((letter) => letter.dataset.id === one.id);
      if (article) sayNotRetried(article, one);
    }
  } catch (error) {
    lettersProblem.replaceChildren(problemNotice(asProblem(error), null));
  } finally {
    setWorking(false);
  }
  await look();
}

function setWorking(now) {
  working = now;
  // Not the letters' own buttons: one that is disabled would lose the focus. They do nothing meanwhile.
  retryAll.disabled = now;
  section.toggleAttribute("aria-busy", now);
}

function say(retried, queued, failed, remaining = 0) {
  const parts = [
    `${counted(retried, "document")} pending again`,
    failed > 0 && `${counted(failed, "document")} not retried`,
    remaining > 0 && `${counted(remaining, "document")} to go`,
    retried > 0 && !queued && "the queue was not reached, the sweeper will enqueue what is pending",
  ];
  status.textContent = `${parts.filter(Boolean).join("; ")}.`;
}

function asProblem(error) {
  return error instanceof Problem ? error : new Problem({ title: "The page could not show this", detail: String(error), code: "page_error" });
}

// ---- controls

retryAll.addEventListener("click", retryEvery);
more.addEventListener("click", loadMore);
window.addEventListener("popstate", () => choose(new URLSearchParams(window.location.search).get("index") || chosen, { push: false }));

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const letter = document.activeElement?.closest?.(".letter");
  const all = [...articles.values()];
  const at = all.indexOf(letter);
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  if (step !== undefined && all.length > 0) {
    const next = letter ? all[at + step] : step > 0 ? all[0] : null;
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
    event.preventDefault();
  } else if (event.key === "r" && letter) {
    retryOne(letter.dataset.id);
    event.preventDefault();
  }
});

setInterval(() => document.hidden || look(), POLL_MS);
look();

// Completion of the query: a combobox with a list below it, as in the ARIA Authoring Practices. The list never gets in the
// way: an error shows nothing, an answer for an older text is dropped, and keys go to the list only while it is open.

import { suggest } from "./api.js";
import { h } from "./dom.js";

const PAUSE_MS = 120;
// The API refuses longer texts.
const MAX_TYPED = 100;

/**
 * Complete the text of a box from a list.
 * @param {HTMLInputElement} box
 * @param {HTMLElement} list
 * @param {object} handlers
 * @param {() => { index: string, filter: object | null }} handlers.where returns the documents to complete from
 * @param {(text: string) => void} handlers.onChoice is called with the chosen text
 */
export function completeBox(box, list, { where, onChoice }) {
  /** @type {number | undefined} */
  let pause;
  /** @type {AbortController | null} */
  let running = null;
  let active = -1;

  const close = () => {
    clearTimeout(pause);
    running?.abort();
    running = null;
    open([]);
  };
  /** @param {Suggestion[]} suggestions */
  const open = (suggestions) => {
    list.replaceChildren(...suggestions.map(renderOption));
    list.hidden = suggestions.length === 0;
    box.setAttribute("aria-expanded", String(!list.hidden));
    activate(-1);
  };
  /** @param {number} at */
  const activate = (at) => {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = at;
    const option = list.children[at];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) box.setAttribute("aria-activedescendant", option.id);
    else box.removeAttribute("aria-activedescendant");
  };
  /** @param {Element} option */
  const choose = (option) => {
    const { text = "" } = /** @type {HTMLElement} */ (option).dataset;
    close();
    onChoice(text);
  };
  const ask = async () => {
    const typed = box.value;
    const { index, filter } = where();
    running?.abort();
    const mine = new AbortController();
    running = mine;
    if (!index) return;
    const isCurrent = () => running === mine && box.value === typed && document.activeElement === box;
    try {
      const { suggestions } = await suggest(index, typed, filter, mine.signal);
      if (isCurrent()) open(suggestions.filter(({ text }) => text !== typed));
    } catch {
      if (running === mine) open([]);
    }
  };

  box.addEventListener("input", (event) => {
    clearTimeout(pause);
    if (event instanceof InputEvent && event.isComposing) return;
    if (box.value.trim() === "" || box.value.length > MAX_TYPED) close();
    else pause = window.setTimeout(ask, PAUSE_MS);
  });
  box.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = list.children.length - 1;
    if (event.key === "ArrowDown") activate(active < last ? active + 1 : -1);
    else if (event.key === "ArrowUp") activate(active === -1 ? last : active - 1);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && active >= 0) choose(list.children[active]);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", close);
  box.form?.addEventListener("submit", close);
  // The box keeps the focus while the reader clicks in the list.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", ({ target }) => {
    const option = target instanceof Element ? target.closest("[role=option]") : null;
    if (option) choose(option);
  });
}

/** @typedef {{ text: string, kind: string, typed: { start: number, end: number }[] }} Suggestion */

/** @type {(suggestion: Suggestion, at: number) => HTMLElement} */
function renderOption({ text, kind, typed }, at) {
  const label = h(
    "span",
    { class: "suggested" },
    splitTyped(text, typed).map(({ text: run, isNew }) => (isNew ? h("b", {}, run) : run)),
  );
  const note = kind === "query" && h("span", { class: "faint" }, "often asked");
  return h(
    "li",
    { role: "option", id: `suggestion-${at}`, "aria-selected": "false", data: { text, kind } },
    label,
    note,
  );
}

/**
 * Split a suggestion into the runs that were typed and those that are new. Spans count code points, as JavaScript does not.
 * @param {string} text
 * @param {readonly { start: number, end: number }[]} typed
 */
export function splitTyped(text, typed) {
  const points = [...text];
  let at = 0;
  const runs = [];
  for (const { start, end } of [...typed, { start: points.length, end: points.length }]) {
    runs.push(
      { text: points.slice(at, start).join(""), isNew: true },
      { text: points.slice(start, end).join(""), isNew: false },
    );
    at = end;
  }
  return runs.filter((run) => run.text !== "");
}

// What is clicked and typed, as changes of the view.

import { NOTHING, PAGE_SIZE, readAddress } from "./address.js";
import { listenToKeys } from "./keys.js";

const TYPING_PAUSE_MS = 220;
const PANELS = ["filters", "ranking", "request", "insight"];

const element = (id) => document.getElementById(id);

/** Listens to everything. `view()` is the one on the page; `show` and `change` make the next. */
export function listenToControls({ view, show, change, toFilters }) {
  const [form, box, select, results] = ["search", "q", "index", "results"].map(element);
  let typing = 0;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    delete box.dataset.ahead;
    show({ ...view(), query: box.value, size: PAGE_SIZE }, { again: true });
  });
  box.addEventListener("input", (event) => {
    clearTimeout(typing);
    box.dataset.ahead = "of the view"; // an answer to an earlier query must not take letters away
    if (event.isComposing) return;
    typing = setTimeout(() => {
      delete box.dataset.ahead;
      show({ ...view(), query: box.value, size: PAGE_SIZE }, { draft: true });
    }, TYPING_PAUSE_MS);
  });
  form.addEventListener("change", ({ target }) => {
    if (target.name === "mode") change({ mode: target.value });
  });
  // What is declared, and which documents there are, is another index's business.
  select.addEventListener("change", () => show({ ...NOTHING, query: box.value, mode: view().mode, index: select.value }));
  element("brand").addEventListener("click", (event) => {
    event.preventDefault();
    show({ ...NOTHING, index: view().index });
    box.focus();
  });
  results.addEventListener("click", (event) => {
    const control = event.target.closest("[data-act]");
    if (!control) return;
    const id = control.closest(".hit")?.dataset.id;
    const { act } = control.dataset;
    if (act === "document" && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      show({ ...view(), document: readAddress(new URL(control.href).search).document });
    } else if (act === "like" || act === "unlike") {
      const without = (ids) => ids.filter((one) => one !== id);
      const next = { like: without(view().like), unlike: without(view().unlike) };
      change({ ...next, [act]: [...next[act], id] });
    }
  });
  for (const name of PANELS) {
    element(`${name}-toggle`).addEventListener("click", () => setPanel(name, !isOpen(name)));
  }
  listenToKeys(box, results, toFilters);
}

const isOpen = (name) => element(`${name}-toggle`).getAttribute("aria-expanded") === "true";

function setPanel(name, open) {
  element(`${name}-toggle`).setAttribute("aria-expanded", String(open));
  element(name).dataset.fold = open ? "open" : "folded";
}

/** Opens a panel; false when the page has none of it now. */
export function openPanel(name) {
  if (element(name).hidden) return false;
  setPanel(name, true);
  return true;
}

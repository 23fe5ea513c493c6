// What is typed is completed: a combobox with a list below it, as the ARIA Authoring Practices have it. The list is a help and
// never in the way: a failure shows nothing, an answer to what is not in the box any more is dropped, and the keyboard
// goes into it only while it is open.

import { suggest } from "./api.js";
import { h } from "./dom.js";

const PAUSE_MS = 120;
// More than this is no beginning of anything; the API refuses it.
const MOST_TYPED = 100;

/**
 * Makes `box` the combobox of `list`. `where()` tells {index, filter} to complete from, `onChoice(text)` takes what is chosen.
 */
export function complete(box, list, { where, onChoice }) {
  let pause = 0;
  let running = null;
  let active = -1;

  const close = () => {
    clearTimeout(pause);
    running?.abort();
    running = null;
    open([]);
  };
  const open = (found) => {
    list.replaceChildren(...found.map(option));
    list.hidden = found.length === 0;
    box.setAttribute("aria-expanded", String(!list.hidden));
    activate(-1);
  };
  const activate = (at) => {
    list.children[active]?.setAttribute("aria-selected", "false");
    active = at;
    const chosen = list.children[at];
    chosen?.setAttribute("aria-selected", "true");
    chosen?.scrollIntoView({ block: "nearest" });
    if (chosen) box.setAttribute("aria-activedescendant", chosen.id);
    else box.removeAttribute("aria-activedescendant");
  };
  const choose = (chosen) => {
    const { text } = chosen.dataset;
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
    try {
      const { suggestions } = await suggest(index, typed, filter, mine.signal);
      if (running === mine && box.value === typed && document.activeElement === box) open(suggestions.filter(({ text }) => text !== typed));
    } catch {
      if (running === mine) open([]);
    }
  };

  box.addEventListener("input", (event) => {
    clearTimeout(pause);
    if (event.isComposing) return;
    if (box.value.trim() === "" || box.value.length > MOST_TYPED) close();
    else pause = setTimeout(ask, PAUSE_MS);
  });
  box.addEventListener("keydown", (event) => {
    if (list.hidden || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const count = list.children.length;
    if (event.key === "ArrowDown") activate(active + 1 < count ? active + 1 : -1);
    else if (event.key === "ArrowUp") activate(active === -1 ? count - 1 : active - 1);
    else if (event.key === "Escape") close();
    else if (event.key === "Enter" && active >= 0) choose(list.children[active]);
    else return;
    event.preventDefault();
  });
  box.addEventListener("blur", close);
  box.form.addEventListener("submit", close);
  // The box keeps the focus while the list is clicked.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", ({ target }) => {
    const chosen = target.closest("[role=option]");
    if (chosen) choose(chosen);
  });
}

function option({ text, kind, typed }, at) {
  const label = h("span", { class: "suggested" }, runs(text, typed));
  const note = kind === "query" && h("span", { class: "faint" }, "often asked");
  return h("li", { role: "option", id: `suggestion-${at}`, "aria-selected": "false", data: { text, kind } }, label, note);
}

/** The text with what was not typed in bold: that is what is new. Spans count code points, as JavaScript does not. */
function runs(text, typed) {
  const points = [...text];
  const found = [];
  let at = 0;
  const rest = (end) => end > at && found.push(h("b", {}, points.slice(at, end).join("")));
  for (const { start, end } of typed) {
    rest(start);
    found.push(points.slice(start, end).join(""));
    at = end;
  }
  rest(points.length);
  return found;
}

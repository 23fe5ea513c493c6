// One dead letter: what it is, what it died of, after how many attempts, and another try.

import { h } from "./dom.js";
import { counted, moment } from "./format.js";

let letters = 0;

/** An article for a dead document; `onRetry` is told its id. */
export function renderLetter(dead, onRetry) {
  const name = `letter-${(letters += 1)}`;
  const title = dead.title || dead.id;
  return h(
    "article",
    { class: "letter", tabindex: "-1", "aria-labelledby": name, data: { id: dead.id } },
    h("h3", { id: name }, title),
    h("button", { type: "button", class: "action second", "aria-label": `Retry ${title}`, on: { click: () => onRetry(dead.id) } }, "Retry"),
    h("p", { class: "cause" }, h("code", {}, dead.error.code), dead.error.reason),
    dead.earlier && h("p", { class: "before" }, before(dead.earlier)),
    h("ul", { class: "chips", "aria-label": "About the document" }, chips(dead, title)),
  );
}

function before({ retries, attempts, error }) {
  const cause = error ? `; before that it died of ${error.code}: ${error.reason}` : "";
  return `Retried ${retries === 1 ? "once" : `${retries} times`}, after ${counted(attempts, "attempt")}${cause}`;
}

function chips(dead, title) {
  const chip = (field, value) => h("li", { class: "chip" }, h("span", { class: "field" }, field), " ", value);
  return [
    title !== dead.id && h("li", { class: "chip id" }, dead.id),
    chip("attempts", String(dead.attempts)),
    dead.dead_at && chip("died", h("time", { datetime: dead.dead_at, title: dead.dead_at }, moment(dead.dead_at))),
    dead.job && chip("job", dead.job),
    chip("version", String(dead.version)),
  ];
}

/** What tells one dead letter from a later death of the same document. */
export const letterKey = (dead) => JSON.stringify([dead.id, dead.version, dead.dead_at, dead.earlier?.retries ?? 0]);

/** Why a document was not retried, below its letter. */
export function sayNotRetried(article, { code, reason }) {
  article.querySelector(".not-retried")?.remove();
  article.append(h("p", { class: "not-retried" }, reason, " ", h("code", {}, code)));
}

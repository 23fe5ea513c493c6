// The key of the API that somebody enters: kept in this tab's session, and sent as a header, never in an address.

import { h } from "./dom.js";

const NAME = "sparsewell.key";
const ASKED_BY = new Set(["no_credentials", "bad_key", "bad_credentials", "bad_token", "insufficient_scope"]);

/** The headers of a request: none without a key. */
export function credentials() {
  const key = sessionStorage.getItem(NAME);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Whether somebody is at it: a page that looks again by itself would take the field away. */
export const enteringKey = () => document.activeElement?.closest(".key-form") != null;

/** A field for the key where `problem` is about it, else null; `onKey` is told when there is one. */
export function keyForm(problem, onKey) {
  if (!onKey || !ASKED_BY.has(problem.code)) return null;
  const input = h("input", { type: "password", name: "key", autocomplete: "off", spellcheck: "false", required: true, pattern: "\\s*[A-Za-z0-9._~+\\/=\\-]+\\s*", "aria-label": "Key of the API" });
  const submit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(NAME, input.value.trim());
    input.blur();
    onKey();
  };
  const forget = () => {
    sessionStorage.removeItem(NAME);
    onKey();
  };
  return h(
    "form",
    { class: "key-form", on: { submit } },
    input,
    h("button", { type: "submit", class: "toggle" }, "Use this key"),
    sessionStorage.getItem(NAME) && h("button", { type: "button", class: "toggle", on: { click: forget } }, "Forget the key"),
  );
}

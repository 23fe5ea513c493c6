// What a search is narrowed to and moved by, each with a way back.

import { h } from "./dom.js";
import { shownValue } from "./filters.js";

/** Chips for the filters and examples of a view; `title` names a document, `onView` takes what changes. */
export function renderAsked(view, fields, title, onView) {
  const filters = view.filters.map(([field, value], at) =>
    chip(field, shownValue(value, fields[field]), () => onView({ filters: view.filters.filter((_, other) => other !== at) })),
  );
  const examples = [["like", "more like"], ["unlike", "less like"]].flatMap(([member, label]) =>
    view[member].map((id) => chip(label, title(id), () => onView({ [member]: view[member].filter((other) => other !== id) }))),
  );
  const all = [...filters, ...examples];
  const clear = () => onView({ filters: [], like: [], unlike: [] });
  return all.length > 1 ? [...all, h("li", {}, h("button", { type: "button", class: "toggle", on: { click: clear } }, "Clear all"))] : all;
}

const chip = (name, value, remove) =>
  h(
    "li",
    { class: "chip asked" },
    h("span", { class: "field" }, name),
    " ",
    value,
    h("button", { type: "button", "aria-label": `Remove ${name} ${value}`, on: { click: remove } }, "×"),
  );

// A control for every declared field: counted values to choose among, or the ends of a range.

import { h } from "./dom.js";
import { counted as documents, whole } from "./format.js";
import { choose, chosen, rangeValue, readRange, shownValue, toggle } from "./filters.js";

const SHOWN = 8;
const TYPES = ["keyword", "boolean", "date", "number", "text"]; // what is chosen with one click comes first
const unfolded = new Set(); // fields of which all values are shown

/**
 * The controls, one fieldset a field. `answer` has `facets` and `counted`, or is null; `onFilters` takes what makes the new filters of
 * those that there are by then.
 */
export function renderFacets(fields, filters, answer, onFilters) {
  const names = Object.keys(fields).sort((a, b) => TYPES.indexOf(fields[a]) - TYPES.indexOf(fields[b]) || a.localeCompare(b));
  if (names.length === 0) return [];
  const panels = names.map((field) => {
    const type = fields[field];
    const controls = CONTROLS[type]?.({ field, type, filters, counts: answer?.facets?.[field] ?? null, onFilters });
    return controls && h("fieldset", { class: "facet", data: { field, type } }, h("legend", {}, field), controls);
  });
  return [countedNote(answer?.counted), ...panels].filter(Boolean);
}

function countedNote(counted) {
  if (!counted) return null;
  const best = counted.among === "candidates";
  return h("p", { class: "counted" }, best ? `counted among the ${whole(counted.documents)} best` : `counted in ${documents(counted.documents, "document")}`);
}

const CONTROLS = {
  keyword: (control) => [values(control), (control.counts === null || control.counts.other > 0) && another(control)],
  boolean: values,
  date: ({ ...control }) => [range({ ...control, input: "date" }), values(control)],
  number: (control) => range({ ...control, input: "number" }),
  text: words,
};

/** The value of a bucket as the address has it. */
const bucketValue = ({ value, range: stretch }) => (stretch ? rangeValue(stretch) : String(value));

function values({ field, type, filters, counts, onFilters }) {
  const on = chosen(filters, field);
  const buckets = (counts?.buckets ?? []).map((bucket) => ({ value: bucketValue(bucket), count: bucket.count }));
  if (type === "date") buckets.reverse(); // the latest year first
  const known = new Set(buckets.map(({ value }) => value));
  // What is chosen stays to be seen, and to be taken back, when no document has it; of two values both do.
  const kept = { keyword: on, boolean: counts ? ["true", "false"] : on, date: [] }[type];
  const all = [...buckets, ...kept.filter((value) => !known.has(value)).map((value) => ({ value, count: 0 }))];
  if (all.length === 0) return counts === null || type === "date" ? null : h("p", { class: "faint" }, "nothing to choose");
  const most = Math.max(1, ...all.map(({ count }) => count));
  const visible = unfolded.has(field) ? all : all.filter(({ value }, at) => at < SHOWN || on.includes(value));
  const list = h("ul", { class: "values" }, visible.map(({ value, count }) => option({ field, type, value, count, most, on, onFilters })));
  if (visible.length === all.length) return list;
  const more = h("button", { type: "button", class: "toggle" }, `${all.length - visible.length} more`);
  more.addEventListener("click", () => {
    unfolded.add(field);
    const rest = all.filter((one) => !visible.includes(one)).map(({ value, count }) => option({ field, type, value, count, most, on, onFilters }));
    list.append(...rest);
    more.remove();
    rest[0].querySelector("input").focus();
  });
  return [list, more];
}

function option({ field, type, value, count, most, on, onFilters }) {
  const box = h("input", { type: "checkbox", checked: on.includes(value), data: { key: `${field}=${value}` } });
  box.addEventListener("change", () => onFilters((now) => toggle(now, field, value)));
  return h(
    "li",
    {},
    h("label", { part: count / most }, box, h("span", { class: "value" }, shownValue(value, type)), " ", h("span", { class: "count" }, whole(count))),
  );
}

function range({ field, filters, input, onFilters }) {
  const values = chosen(filters, field);
  const one = values.length === 1 ? readRange(values[0]) : null;
  const { gte = "", lte = "" } = one === null || one.lt !== undefined ? {} : one; // a year is chosen below
  const ends = [["from", gte], ["to", lte]].map(([label, value]) => {
    const end = h("input", { type: input, step: input === "number" ? "any" : null, "aria-label": `${field} ${label}`, placeholder: label, data: { key: `${field} ${label}` } });
    end.value = value;
    return end;
  });
  for (const end of ends) {
    end.addEventListener("change", () => {
      const [from, to] = ends.map((each) => each.value);
      onFilters((now) => choose(now, field, from || to ? [rangeValue({ gte: from || null, lte: to || null })] : []));
    });
  }
  return h("div", { class: "range" }, ends[0], h("span", { "aria-hidden": "true" }, "–"), ends[1]);
}

/** A value that is not among those that are shown. */
function another({ field, onFilters }) {
  const box = h("input", { type: "text", "aria-label": `${field}: another value`, placeholder: "another value", data: { key: `${field} another` } });
  box.addEventListener("change", () => {
    const value = box.value;
    box.value = "";
    if (value !== "") onFilters((now) => choose(now, field, [...new Set([...chosen(now, field), value])]));
  });
  return box;
}

function words({ field, filters, onFilters }) {
  const box = h("input", { type: "text", "aria-label": `${field}: words`, placeholder: "contains the words", data: { key: `${field} words` } });
  box.value = chosen(filters, field).join(" ");
  box.addEventListener("change", () => onFilters((now) => choose(now, field, box.value.trim() ? [box.value.trim()] : [])));
  return box;
}

/** Puts controls in place of others; the one with the focus keeps it, and what is being typed into it. */
export function replaceControls(panel, children) {
  const before = document.activeElement;
  const key = panel.contains(before) ? before.dataset.key : undefined;
  panel.replaceChildren(...children);
  if (key === undefined) return;
  const after = [...panel.querySelectorAll("[data-key]")].find((control) => control.dataset.key === key);
  if (!after) return;
  if (after.type === "number" || after.type === "text") after.value = before.value;
  after.focus({ preventScroll: true });
}

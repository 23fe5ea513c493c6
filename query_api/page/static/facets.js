// Filters: a control for every declared field, with counted values or the ends of a range, and chips of the active ones.

import { formatCount, formatNumber, h } from "./dom.js";
import { formatFilter, readRange, setValues, toggleValue, valuesOf, writeRange } from "./state.js";

/** @typedef {import("./api.js").Bucket} Bucket */
/** @typedef {import("./dom.js").Child} Child */
/** @typedef {import("./state.js").Filter} Filter */
/** @typedef {import("./state.js").View} View */

// Values that are shown without a click.
const SHOWN = 8;
// Controls in this order of types: first those that need one click.
const TYPES = ["keyword", "boolean", "date", "number", "text"];
/** @type {Set<string>} fields of which all values are shown */
const unfolded = new Set();

/** @typedef {(change: (filters: readonly Filter[]) => Filter[]) => void} OnFilters takes a function of the filters at the time of the change */
/**
 * @typedef {object} Control
 * @property {string} field
 * @property {string} type
 * @property {readonly Filter[]} filters
 * @property {{ buckets: Bucket[], other: number } | null} counts
 * @property {OnFilters} onFilters
 */

/**
 * Create the controls, a fieldset for each field.
 * @param {import("./api.js").Fields} fields
 * @param {readonly Filter[]} filters
 * @param {import("./api.js").Answer | null} answer with `facets` and `counted`
 * @param {OnFilters} onFilters
 */
export function renderFacets(fields, filters, answer, onFilters) {
  const order = (/** @type {string} */ field) => TYPES.indexOf(fields[field]);
  const names = Object.keys(fields).sort((a, b) => order(a) - order(b) || a.localeCompare(b));
  if (names.length === 0) return [];
  const panels = names.flatMap((field) => {
    const type = fields[field];
    const controls = CONTROLS[type]?.({ field, type, filters, counts: answer?.facets?.[field] ?? null, onFilters });
    return controls ? [h("fieldset", { class: "facet", data: { field, type } }, h("legend", {}, field), controls)] : [];
  });
  return [...renderCounted(answer?.counted), ...panels];
}

/** @param {{ documents: number, among: string } | null | undefined} counted */
function renderCounted(counted) {
  if (!counted) return [];
  const { documents, among } = counted;
  const best = among === "candidates";
  return [
    h(
      "p",
      { class: "counted" },
      best ? `counted among the best ${formatNumber(documents)}` : `counted in ${formatCount(documents, "document")}`,
    ),
  ];
}

/** @type {Record<string, (control: Control) => Child>} */
const CONTROLS = {
  keyword: (control) => [renderValues(control), hasOther(control) && renderOther(control)],
  boolean: renderValues,
  date: (control) => [renderRange(control), renderValues(control)],
  number: renderRange,
  text: renderWords,
};

/** @type {(control: Control) => boolean} whether the field may have values that are not listed */
const hasOther = ({ counts }) => counts === null || counts.other > 0;

/** @type {(bucket: Bucket) => string} a filter value */
const bucketValue = ({ value, range }) => (range ? writeRange(range) : String(value));

/** @param {Control} control */
function renderValues(control) {
  const { field, type, filters, counts } = control;
  const selected = valuesOf(filters, field);
  const buckets = (counts?.buckets ?? []).map((bucket) => ({ value: bucketValue(bucket), count: bucket.count }));
  if (type === "date") buckets.reverse(); // the latest year first
  // Selected values, and both values of a boolean, stay visible when no document has them.
  const kept = { keyword: selected, boolean: counts ? ["true", "false"] : selected }[type] ?? [];
  const missing = kept.filter((value) => !buckets.some((bucket) => bucket.value === value));
  const all = [...buckets, ...missing.map((value) => ({ value, count: 0 }))];
  if (all.length === 0) return counts !== null && type !== "date" && h("p", { class: "faint" }, "no values");
  const most = Math.max(1, ...all.map(({ count }) => count));
  /** @param {{ value: string, count: number }} option */
  const itemOf = ({ value, count }) => renderOption(control, value, count, count / most);
  const shown = unfolded.has(field) ? all : all.filter(({ value }, at) => at < SHOWN || selected.includes(value));
  const list = h("ul", { class: "values" }, shown.map(itemOf));
  if (shown.length === all.length) return list;
  const more = h("button", { type: "button", class: "toggle" }, `${all.length - shown.length} more`);
  more.addEventListener("click", () => {
    unfolded.add(field);
    const rest = all.filter((option) => !shown.includes(option)).map(itemOf);
    list.append(...rest);
    more.remove();
    rest[0].querySelector("input")?.focus();
  });
  return [list, more];
}

/** @type {(control: Control, value: string, count: number, fraction: number) => HTMLElement} */
function renderOption({ field, type, filters, onFilters }, value, count, fraction) {
  const checked = valuesOf(filters, field).includes(value);
  const box = h("input", { type: "checkbox", checked, data: { key: `${field}=${value}` } });
  box.addEventListener("change", () => onFilters((now) => toggleValue(now, field, value)));
  return h(
    "li",
    {},
    h(
      "label",
      { fraction },
      box,
      h("span", { class: "value" }, formatFilter(value, type)),
      " ",
      h("span", { class: "count" }, formatNumber(count)),
    ),
  );
}

/** @param {Control} control */
function renderRange({ field, type, filters, onFilters }) {
  const values = valuesOf(filters, field);
  const range = values.length === 1 ? readRange(values[0]) : null;
  // A range with an excluded end is a year, which is chosen among the values.
  const { gte, lte } = range === null || range.lt !== undefined ? {} : range;
  /** @type {(label: string, value: string | undefined) => HTMLInputElement} */
  const inputOf = (label, value) => {
    const input = h("input", {
      type,
      step: type === "number" ? "any" : null,
      "aria-label": `${field} ${label}`,
      placeholder: label,
      data: { key: `${field} ${label}` },
    });
    input.value = value ?? "";
    input.addEventListener("change", onChange);
    return input;
  };
  const onChange = () => {
    const value = from.value || to.value ? [writeRange({ gte: from.value, lte: to.value })] : [];
    onFilters((now) => setValues(now, field, value));
  };
  const from = inputOf("from", gte);
  const to = inputOf("to", lte);
  return h("div", { class: "range" }, from, h("span", { "aria-hidden": "true" }, "–"), to);
}

/** @param {Control} control a box for a value that is not listed */
function renderOther({ field, onFilters }) {
  const properties = { type: "text", "aria-label": `${field}: another value`, placeholder: "another value" };
  const box = h("input", { ...properties, data: { key: `${field} another` } });
  box.addEventListener("change", () => {
    const value = box.value;
    box.value = "";
    if (value !== "") onFilters((now) => setValues(now, field, [...new Set([...valuesOf(now, field), value])]));
  });
  return box;
}

/** @param {Control} control */
function renderWords({ field, filters, onFilters }) {
  const properties = { type: "text", "aria-label": `${field}: words`, placeholder: "contains the words" };
  const box = h("input", { ...properties, data: { key: `${field} words` } });
  box.value = valuesOf(filters, field).join(" ");
  box.addEventListener("change", () => {
    const words = box.value.trim();
    onFilters((now) => setValues(now, field, words ? [words] : []));
  });
  return box;
}

// ---- active filters and examples

const EXAMPLES = /** @type {const} */ ([
  ["like", "more like"],
  ["unlike", "less like"],
]);

/**
 * Create a chip for each active filter and example, with a button that removes it.
 * @param {View} view
 * @param {import("./api.js").Fields} fields
 * @param {(id: string) => string} titleOf
 * @param {(change: Partial<View>) => void} onChange
 */
export function renderActive(view, fields, titleOf, onChange) {
  const filters = view.filters.map(([field, value], at) =>
    renderChip(field, formatFilter(value, fields[field]), () =>
      onChange({ filters: view.filters.filter((_, other) => other !== at) }),
    ),
  );
  const examples = EXAMPLES.flatMap(([member, label]) =>
    view[member].map((id) =>
      renderChip(label, titleOf(id), () => onChange({ [member]: view[member].filter((other) => other !== id) })),
    ),
  );
  const chips = [...filters, ...examples];
  if (chips.length < 2) return chips;
  const clear = () => onChange({ filters: [], like: [], unlike: [] });
  return [...chips, h("li", {}, h("button", { type: "button", class: "toggle", on: { click: clear } }, "Clear all"))];
}

/** @type {(name: string, value: string, remove: () => void) => HTMLElement} */
const renderChip = (name, value, remove) =>
  h(
    "li",
    { class: "chip active" },
    h("span", { class: "field" }, name),
    " ",
    value,
    h("button", { type: "button", "aria-label": `Remove ${name} ${value}`, on: { click: remove } }, "×"),
  );

// Filters: values as the address and the controls have them, and the condition that the API takes. Pure functions.
//
// Of a keyword or a boolean a value is the value itself, of a text its words, of a number or a date a range "from..to",
// either end may be missing; "from..<to" leaves the end out.

/** The values that are chosen of a field. */
export const chosen = (filters, field) => filters.filter(([name]) => name === field).map(([, value]) => value);

/** The filters with other values of one field. */
export const choose = (filters, field, values) => [...filters.filter(([name]) => name !== field), ...values.map((value) => [field, value])];

/** The filters with one value of a field put in or taken out. */
export function toggle(filters, field, value) {
  const values = chosen(filters, field);
  return choose(filters, field, values.includes(value) ? values.filter((one) => one !== value) : [...values, value]);
}

/** A range as a value. */
export function rangeValue({ gte = null, lte = null, lt = null }) {
  return `${gte ?? ""}..${lt === null ? "" : "<"}${lt ?? lte ?? ""}`;
}

/** The range of a value: {gte, lte} or {gte, lt}, of texts; null when it is none. */
export function readRange(value) {
  const found = /^(.*?)\.\.(<?)(.*)$/s.exec(value);
  if (!found) return null;
  const [, from, open, to] = found;
  return { ...(from && { gte: from }), ...(to && { [open ? "lt" : "lte"]: to }) };
}

/**
 * The API's filter, null when there is none. `fields` are the declared ones by their types. What does not fit is sent as
 * it is: the API knows what is wrong with it.
 */
export function filterOf(filters, fields) {
  const names = [...new Set(filters.map(([name]) => name))];
  const conditions = names.map((field) => conditionOf(field, chosen(filters, field), fields[field]));
  return conditions.length > 1 ? { all: conditions } : (conditions[0] ?? null);
}

function conditionOf(field, values, type) {
  if (type === "number" || type === "date") return anyOf(values.map((value) => rangeCondition(field, value, type)));
  if (type === "text") return values.length > 1 ? { all: values.map((match) => ({ field, match })) } : { field, match: values[0] };
  const typed = type === "boolean" ? values.map((value) => (value === "true" ? true : value === "false" ? false : value)) : values;
  return typed.length > 1 ? { field, any_of: typed } : { field, is: typed[0] };
}

const anyOf = (conditions) => (conditions.length > 1 ? { any: conditions } : conditions[0]);

function rangeCondition(field, value, type) {
  const typed = (end) => (type === "number" && end.trim() !== "" && Number.isFinite(Number(end)) ? Number(end) : end);
  const range = readRange(value);
  if (range === null) return { field, is: typed(value) };
  return { field, range: Object.fromEntries(Object.entries(range).map(([bound, end]) => [bound, typed(end)])) };
}

/** A value as people read it. */
export function shownValue(value, type) {
  if (type === "boolean") return value === "true" ? "yes" : "no";
  if (type === "text") return `“${value}”`;
  const range = type === "number" || type === "date" ? readRange(value) : null;
  if (range === null) return value;
  const { gte, lte, lt } = range;
  const year = yearOf(gte, lt);
  if (year !== null) return year;
  if (lte === undefined && lt === undefined) return `from ${gte ?? "?"}`;
  const to = lte ?? `before ${lt}`;
  if (gte !== undefined) return `${gte} – ${to}`;
  return lte === undefined ? to : `up to ${to}`;
}

/** The year that a range is, else null. */
function yearOf(gte, lt) {
  const year = /^(\d{4})-01-01$/.exec(gte ?? "")?.[1];
  return year !== undefined && lt === `${String(Number(year) + 1).padStart(4, "0")}-01-01` ? year : null;
}

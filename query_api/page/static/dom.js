// Elements and the numbers in them. Strings become text nodes, never markup: documents and queries are hostile.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Content of an element. null, undefined and false add nothing.
 * @typedef {string | Node | null | undefined | false | readonly Child[]} Child
 */

/**
 * Attributes by name; null, undefined and false leave one out, true gives an empty one. Three names are special: `on`
 * holds event listeners, `data` the dataset, and `fraction` (0 to 1) the length of a bar.
 * @typedef {{ on?: Record<string, (event: any) => unknown>, data?: Record<string, unknown>, fraction?: number, [name: string]: unknown }} Properties
 */

/**
 * Create an HTML element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/**
 * Create an SVG element.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/**
 * @template {HTMLElement | SVGElement} E
 * @param {E} element
 * @param {Properties} properties
 * @param {readonly Child[]} children
 * @returns {E}
 */
function fill(element, { on = {}, data = {}, fraction, ...attributes }, children) {
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  Object.assign(element.dataset, data);
  if (fraction !== undefined) setFraction(element, fraction);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodesOf(children));
  return element;
}

/**
 * Flatten content to strings and nodes.
 * @param {Child} content
 * @returns {(string | Node)[]}
 */
export function nodesOf(content) {
  if (content === null || content === undefined || content === false) return [];
  return typeof content === "string" || content instanceof Node ? [content] : content.flatMap(nodesOf);
}

/**
 * Set the length of a bar. Through the CSSOM, which the content security policy allows; it refuses a style attribute.
 * @param {HTMLElement | SVGElement} element
 * @param {number} fraction
 */
function setFraction(element, fraction) {
  const length = Number.isFinite(fraction) ? Math.min(1, Math.max(0, fraction)) : 0;
  element.style.setProperty("--fraction", length.toFixed(4));
}

/**
 * Return the element with an id. Throw an error when the page has none of this class.
 * @template {HTMLElement} [E=HTMLElement]
 * @param {string} id
 * @param {new () => E} [type]
 * @returns {E}
 */
export function byId(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof (type ?? HTMLElement)))
    throw new Error(`The page has no element ${id} of the expected type.`);
  return /** @type {E} */ (element);
}

/**
 * Create a button that shows and hides a panel.
 * @template {HTMLElement} E
 * @param {string} label
 * @param {E} panel
 * @param {(panel: E) => void} build fills the panel when it opens for the first time
 * @param {Properties} [properties]
 */
export function disclosure(label, panel, build, properties = {}) {
  let built = false;
  const button = h("button", { type: "button", class: "toggle", "aria-expanded": "false", ...properties }, label);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    if (open && !built) {
      built = true;
      build(panel);
    }
    button.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
    panel.dispatchEvent(new CustomEvent("fold", { bubbles: true }));
  });
  return button;
}

/**
 * Show the first entries of a list, and the others after a click on the button below it.
 * @template T
 * @param {HTMLElement} list
 * @param {T[]} entries
 * @param {number} shown how many come without a click
 * @param {(entry: T) => HTMLElement} render
 * @param {(rest: T[]) => string} label of the button
 * @returns {HTMLButtonElement | null} the button; null when there are no others
 */
export function foldList(list, entries, shown, render, label) {
  list.append(...entries.slice(0, shown).map(render));
  const rest = entries.slice(shown);
  if (rest.length === 0) return null;
  const button = h("button", { type: "button", class: "toggle more" }, label(rest));
  button.addEventListener("click", () => {
    list.append(...rest.map(render));
    button.remove();
    list.dispatchEvent(new CustomEvent("fold", { bubbles: true }));
  });
  return button;
}

/**
 * Replace the controls of a panel. The control with the focus keeps it, and the text that is being typed into it.
 * @param {HTMLElement} panel
 * @param {readonly HTMLElement[]} children
 */
export function replaceControls(panel, children) {
  const before = document.activeElement;
  const key = before instanceof HTMLElement && panel.contains(before) ? before.dataset.key : undefined;
  panel.replaceChildren(...children);
  if (key === undefined) return;
  const controls = /** @type {NodeListOf<HTMLElement>} */ (panel.querySelectorAll("[data-key]"));
  const after = [...controls].find((control) => control.dataset.key === key);
  if (!after) return;
  if (after instanceof HTMLInputElement && before instanceof HTMLInputElement && TYPED.includes(after.type)) {
    after.value = before.value;
  }
  after.focus({ preventScroll: true });
}

const TYPED = ["number", "text"];

// ---- numbers

const NUMBER = new Intl.NumberFormat("en-GB");
const TIME = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  year: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** @param {number} number for example 12345, shown as "12,345" */
export const formatNumber = (number) => NUMBER.format(number);

/**
 * Format a count with its noun: (1, "document") gives "1 document".
 * @param {number} number
 * @param {string} noun
 * @param {string} [plural]
 */
export const formatCount = (number, noun, plural = `${noun}s`) =>
  `${formatNumber(number)} ${number === 1 ? noun : plural}`;

/** @param {string} iso a time in ISO 8601, shown in the reader's time zone */
export const formatTime = (iso) => TIME.format(new Date(iso));

/**
 * Format milliseconds: in microseconds below 0.1 ms, in seconds from 1,000 ms.
 * @param {number | undefined} ms
 */
export function formatDuration(ms) {
  if (ms === undefined || !Number.isFinite(ms)) return "–";
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 0.1) return `${Math.round(ms * 1000)} µs`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

const AGES = /** @type {const} */ ([
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
]);

/** @param {number} seconds shown in its largest whole unit: "8 s", "5 min", "3 h", "2 d" */
export function formatAge(seconds) {
  for (const [unit, size] of AGES) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.round(seconds)} s`;
}

/** @param {number | undefined} value a weight or a score, shown with about three significant digits */
export function formatWeight(value) {
  if (value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

/**
 * Format a metadata value of any type in one line.
 * @param {unknown} value
 * @returns {string}
 */
export function formatValue(value) {
  if (Array.isArray(value)) return value.map(formatValue).join(", ");
  return value !== null && typeof value === "object" ? JSON.stringify(value) : String(value);
}

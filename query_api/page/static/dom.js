// Builds elements. Strings become text nodes, never markup: documents and queries are hostile.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children. `on` holds listeners, `data` the dataset; null and false are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "part") setPart(element, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The length of a bar, 0 to 1. Through the CSSOM, which the content security policy allows; a style attribute is not. */
function setPart(element, fraction) {
  const part = Number.isFinite(fraction) ? Math.min(1, Math.max(0, fraction)) : 0;
  element.style.setProperty("--part", part.toFixed(4));
}

/** A button that shows and hides `panel`, which `build` fills when it is first opened. */
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

// Copies text to the clipboard.

import { h } from "./dom.js";

const SAID_MS = 1600;

/** A button that copies what `text()` gives and says so. */
export function copyButton(label, text) {
  const said = h("span", {}, label);
  const button = h("button", { type: "button", class: "action copy", "aria-live": "polite" }, said);
  button.addEventListener("click", async () => {
    said.textContent = (await copy(text(), button)) ? "Copied" : "Not allowed here";
    setTimeout(() => (said.textContent = label), SAID_MS);
  });
  return button;
}

/** The clipboard of the browser belongs to secure pages; elsewhere the older way may do. */
async function copy(text, beside) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "quiet", readonly: true, "aria-hidden": "true" });
    area.value = text;
    beside.after(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    beside.focus();
    return done;
  }
}

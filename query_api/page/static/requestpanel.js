// The requests behind what is shown, to copy: as JSON, and as a command for a shell.

import { searchAddress } from "./api.js";
import { copyButton } from "./copying.js";
import { h } from "./dom.js";
import { curlOf } from "./request.js";

/** `requests` is a list of {label, body}: one, or two side by side. */
export function renderRequests(index, requests) {
  const address = searchAddress(index);
  return requests.map(({ label, body }) => {
    const json = JSON.stringify(body, null, 2);
    return h(
      "section",
      { class: "request", "aria-label": `${label || "The"} request` },
      h(
        "header",
        {},
        h("h2", {}, label && `${label} · `, h("code", {}, `POST ${new URL(address).pathname}`)),
        copyButton("Copy JSON", () => json),
        copyButton("Copy as curl", () => curlOf(address, body)),
      ),
      h("pre", { tabindex: "0", "aria-label": "JSON" }, json),
    );
  });
}

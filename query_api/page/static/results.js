// Answers as what is said of them and what stands below: one list, or two side by side.

import { renderComparison } from "./compare.js";
import { h } from "./dom.js";
import { counted, duration } from "./format.js";
import { further, renderList } from "./listing.js";
import { mostOf } from "./searching.js";

/** {said, body, append} of the answers of a view; `append(page, from)` puts a further page behind a single list. */
export function renderAnswers(view, answers, { linkTo, like, onMore }) {
  if (view.mode === "compare") return sideBySide(view, answers, { linkTo, like, onMore });
  const [answer] = answers;
  const list = renderList(answer, { mode: answer.mode, linkTo, like }, { size: view.size, most: mostOf(view), onMore });
  return {
    said: `${counted(answer.hits.length, "result")} in ${duration(answer.timings_ms?.total)}`,
    body: list.element,
    append: list.append,
  };
}

function sideBySide(view, answers, { linkTo, like, onMore }) {
  const { element, alignment } = renderComparison(answers, { linkTo, like });
  const { both } = alignment;
  const [left, right] = alignment.only;
  const longer = answers[answers[0].hits.length >= answers[1].hits.length ? 0 : 1];
  return {
    said: `${both || "No"} ${answers[0].unit ?? "document"}${both === 1 ? "" : "s"} in both lists, ${left} only by keyword, ${right} only by sparse`,
    body: [element, h("div", { class: "further" }, further(longer, view.size, onMore, mostOf(view)))],
    append: null,
  };
}

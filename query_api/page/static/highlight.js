// Which words to mark, and how strongly: the API names them, with what each added to the score of its list. Pure functions.

// Function words match too, with next to no weight: marking them would be noise.
const NOISE = 0.04;

/** The largest contribution of each list among all that matched: {sparse, lexical}. */
export function strongest(highlight) {
  const most = { sparse: 0, lexical: 0 };
  const { title = [], text = [], expansions = [], elsewhere = [] } = highlight ?? {};
  const matches = [...[...title, ...text].flatMap((span) => span.matches), ...expansions, ...elsewhere];
  for (const { list, contribution } of matches) most[list] = Math.max(most[list], contribution);
  return most;
}

/**
 * A text in runs: [{text, level, matches}], level 0 for unmarked, 1 to 3 by strength. The spans count characters (code
 * points) from `offset` before the text, as the API does and JavaScript does not.
 */
export function runsOf(text, offset, spans, most) {
  const points = [...text];
  const runs = [];
  let at = 0;
  const plain = (end) => end > at && runs.push({ text: points.slice(at, end).join(""), level: 0, matches: [] });
  for (const { start, end, matches } of spans) {
    const [from, to] = [Math.max(at, start - offset), Math.min(points.length, end - offset)];
    const level = levelOf(strengthOf(matches, most));
    if (level === 0 || to <= from) continue;
    plain(from);
    runs.push({ text: points.slice(from, to).join(""), level, matches });
    at = to;
  }
  plain(points.length);
  return runs;
}

/** Matches beside the marked words that are worth naming, each once, strongest first. */
export function worthNaming(matches, most) {
  const seen = new Set();
  return matches
    .map((match) => ({ ...match, part: most[match.list] > 0 ? match.contribution / most[match.list] : 0 }))
    .filter(({ piece, part }) => part >= NOISE && !seen.has(piece) && seen.add(piece))
    .sort((a, b) => b.part - a.part);
}

function strengthOf(matches, most) {
  // Where both lists answer, a word that only keyword search found counts half.
  const half = most.sparse > 0 ? 0.5 : 1;
  return Math.max(0, ...matches.map(({ list, contribution }) => (most[list] > 0 ? (contribution / most[list]) * (list === "lexical" ? half : 1) : 0)));
}

const levelOf = (strength) => (strength < NOISE ? 0 : strength >= 0.6 ? 3 : strength >= 0.25 ? 2 : 1);

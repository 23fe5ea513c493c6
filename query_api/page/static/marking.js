// Which words of a text to mark, as far as the pieces that contributed can tell. Pure functions.

// BERT's pre-tokeniser: Han characters stand alone, everything that is no letter or digit separates.
const WORDS = /\p{Script=Han}|(?:(?!\p{Script=Han})[\p{L}\p{N}\p{M}])+/gu;

// What the English analyser of keyword search takes off a word, and what it may have put an `i` in place of.
const ENDING =
  /^(?:e|y|s|es|ed|er|ers|ing|ings|ies|ied|ier|iest|ily|ion|ions|ation|ations|ate|ates|ated|ating|able|ably|ible|al|ally|ly|ment|ments|ness|ive|ity|ities|ance|ence|ant|ent|or|ors|ous|ful|i[sz](?:e|es|ed|ing|er|ation))$/;

/** As the uncased vocabularies see a word: lower case, no accents. */
export const fold = (word) => word.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/** Whether keyword search may have made `term` of `word`: the same, or the same and an ending ("run", "running"). */
function isFormOf(word, term) {
  if (word === term) return true;
  const base = term.length > 3 && term.endsWith("i") ? term.slice(0, -1) : term;
  if (base.length < 2 || !word.startsWith(base)) return false;
  const rest = word.slice(base.length);
  return ENDING.test(rest) || (rest[0] === base.at(-1) && ENDING.test(rest.slice(1)));
}

/**
 * A function from a word to its strength, 0 (leave alone) to 1 (the strongest of this hit). `why` are the hit's
 * contributions: vocabulary pieces of the sparse list, analysed words of the keyword list.
 */
export function wordStrength(why) {
  const own = why.filter((entry) => entry.list === "sparse" && !entry.expansion);
  const first = new Map(own.filter(({ piece }) => !piece.startsWith("##")).map((e) => [e.piece, e.contribution]));
  const inner = new Map(own.filter(({ piece }) => piece.startsWith("##")).map((e) => [e.piece.slice(2), e.contribution]));
  const terms = why.filter((entry) => entry.list === "lexical");
  // Expansions count here: a word that only supports them is not the strongest of its hit.
  const strongest = largest(why.filter((entry) => entry.list === "sparse"));
  const strongestTerm = largest(terms);

  return (text) => {
    const word = fold(text);
    const sparse = strongest > 0 ? piecesOf(word, first, inner) / strongest : 0;
    const term = terms.find(({ piece }) => isFormOf(word, piece));
    const keyword = term ? (term.contribution / strongestTerm) * (strongest > 0 ? 0.5 : 1) : 0;
    const strength = Math.min(1, Math.max(sparse, keyword));
    // Function words match too, with next to no weight: marking them would be noise.
    return strength < 0.04 ? 0 : strength;
  };
}

const largest = (entries) => Math.max(0, ...entries.map(({ contribution }) => contribution));

/**
 * The summed contribution of the pieces that spell `word`: whole, a start and what follows, or a start and an ending
 * that did not contribute, for half ("folders" may be `folder` and `##s`, or a piece of its own). 0 when none do.
 */
function piecesOf(word, first, inner) {
  if (first.has(word)) return first.get(word);
  for (let end = word.length - 1; end > 0; end -= 1) {
    const start = first.get(word.slice(0, end));
    if (start === undefined) continue;
    const rest = longestRun(word.slice(end), inner);
    if (rest > 0) return start + rest;
    if (isFormOf(word, word.slice(0, end))) return start / 2;
  }
  return 0;
}

/** Greedy WordPiece over the contributing inner pieces, until one does not fit. */
function longestRun(rest, inner) {
  let sum = 0;
  for (let at = 0; at < rest.length; ) {
    let end = rest.length;
    while (end > at && !inner.has(rest.slice(at, end))) end -= 1;
    if (end === at) break;
    sum += inner.get(rest.slice(at, end));
    at = end;
  }
  return sum;
}

/** The text in runs: [{text, level}], level 0 for unmarked, 1 to 3 by strength. */
export function markRuns(text, strength) {
  const runs = [];
  let at = 0;
  for (const match of text.matchAll(WORDS)) {
    const level = levelOf(strength(match[0]));
    if (level === 0) continue;
    if (match.index > at) runs.push({ text: text.slice(at, match.index), level: 0 });
    runs.push({ text: match[0], level });
    at = match.index + match[0].length;
  }
  if (at < text.length) runs.push({ text: text.slice(at), level: 0 });
  return runs;
}

const levelOf = (strength) => (strength <= 0 ? 0 : strength >= 0.6 ? 3 : strength >= 0.25 ? 2 : 1);

/**
 * The stretch of at most `length` characters with the most of what matched, each word counted in full once.
 * Returns {text, before, after}: whether something was left out on either side.
 */
export function excerpt(text, strength, length) {
  if (text.length <= length) return { text, before: false, after: false };
  const words = [...text.matchAll(WORDS)].map((match) => {
    const word = fold(match[0]);
    return { word, start: match.index, end: match.index + match[0].length, value: strength(match[0]) };
  });
  let best = { value: -1, start: 0 };
  for (const { start } of words.filter((word, position) => position === 0 || word.value > 0)) {
    const from = sentenceBefore(text, start, Math.floor(length / 3));
    const seen = new Set();
    let value = 0;
    for (const word of words) {
      if (word.start < from || word.value === 0) continue;
      if (word.end > from + length) break;
      value += seen.has(word.word) ? word.value / 10 : word.value;
      seen.add(word.word);
    }
    if (value > best.value + 1e-9) best = { value, start: from };
  }
  const cut = text.slice(best.start, best.start + length);
  const end = best.start + length >= text.length ? cut.length : Math.max(cut.lastIndexOf(" "), Math.floor(length / 2));
  return { text: cut.slice(0, end).trim(), before: best.start > 0, after: best.start + end < text.length };
}

/** Where the sentence of `position` begins when that is at most `reach` characters before, else a word's start. */
function sentenceBefore(text, position, reach) {
  if (position <= reach) return 0;
  const before = text.slice(position - reach, position);
  const sentence = Math.max(before.lastIndexOf(". "), before.lastIndexOf(": "), before.lastIndexOf("; "));
  if (sentence >= 0) return position - reach + sentence + 2;
  const gap = before.indexOf(" ", Math.floor(reach / 2));
  return gap >= 0 ? position - reach + gap + 1 : position;
}

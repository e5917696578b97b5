// Texts and their offsets: the service counts Unicode code points, JavaScript counts UTF-16 units.

/** The UTF-16 offset of each code point of a text, and of its end. */
export function codePointOffsets(text) {
  const offsets = [];
  let place = 0;
  for (const character of text) {
    offsets.push(place);
    place += character.length;
  }
  offsets.push(place);
  return offsets;
}

/** The number of code points before a UTF-16 offset. */
export function codePointsBefore(text, offset) {
  return Array.from(text.slice(0, offset)).length;
}

const LETTER_END = /[\p{L}\p{M}\p{N}]$/u;
const LETTER_START = /^[\p{L}\p{M}\p{N}]/u;
// Word pieces that go on with a word begin with ## (WordPiece); or those that begin one, with ▁ or Ġ (others).
const GOES_ON = /^##/;
const BEGINS = /^[▁Ġ]/;

/** The words of a text from its judged tokens: [{start, end, probability, pieces}], offsets in UTF-16 units.
 *
 * A word was replaced if any of its pieces was, so its probability is that of its most suspicious piece.
 */
export function wordsOf(text, tokens) {
  const offsets = codePointOffsets(text);
  const marksBeginnings = tokens.some((token) => BEGINS.test(token.token));
  const words = [];
  for (const token of tokens) {
    let start = offsets[token.start];
    const end = offsets[token.end];
    while (start < end && /\s/.test(text[start])) start += 1;
    if (start >= end) continue;
    const last = words[words.length - 1];
    const piece = { text: text.slice(start, end), probability: token.probability_replaced };
    const touches =
      last !== undefined &&
      last.end === start &&
      LETTER_END.test(text.slice(last.start, last.end)) &&
      LETTER_START.test(piece.text);
    const goesOn = marksBeginnings ? !BEGINS.test(token.token) : GOES_ON.test(token.token);
    if (goesOn && touches) {
      last.end = end;
      last.probability = Math.max(last.probability, piece.probability);
      last.pieces.push(piece);
    } else {
      words.push({ start, end, probability: piece.probability, pieces: [piece] });
    }
  }
  return words;
}

// Enough context for one word; longer texts would only cost time.
const CONTEXT_UNITS = 400;

/** A text with one word masked, without what is far away: {text, place}; place is in code points. */
export function masked(text, word, mask) {
  const before = text.slice(0, word.start);
  const after = text.slice(word.end);
  const from = before.length > CONTEXT_UNITS ? nextSpace(before, before.length - CONTEXT_UNITS) : 0;
  const to = after.length > CONTEXT_UNITS ? nextSpace(after, CONTEXT_UNITS) : after.length;
  const shown = before.slice(from);
  return { text: shown + mask + after.slice(0, to), place: codePointsBefore(shown, shown.length) };
}

function nextSpace(text, from) {
  const place = text.slice(from).search(/\s/);
  // Text without spaces, such as Chinese, is cut where no surrogate pair is parted.
  const cut = place < 0 ? from : from + place;
  return /[\uDC00-\uDFFF]/.test(text[cut] ?? "") ? cut + 1 : cut;
}

/** Where each word of a list stands in the text, in order, in UTF-16 units; null if one is not found. */
export function placesOf(text, words) {
  const places = [];
  let from = 0;
  for (const word of words) {
    const start = text.indexOf(word, from);
    if (start < 0) return null;
    from = start + word.length;
    places.push({ start, end: from });
  }
  return places;
}

const BLANK = /_{2,}|[＿﹍]+|\[MASK\]/g;
export const BLANK_SIGN = "____";

/** The parts of a text between its blanks. */
export function partsAroundBlanks(text) {
  return text.split(BLANK);
}

/** The text with a blank at the selection or, where nothing is selected, at the word around the caret. */
export function withBlank(text, start, end) {
  let [from, to] = [start, end];
  if (from === to) {
    from -= /[\p{L}\p{M}\p{N}'’]*$/u.exec(text.slice(0, from))[0].length;
    to += /^[\p{L}\p{M}\p{N}'’]*/u.exec(text.slice(to))[0].length;
    // Scripts without spaces have no word around the caret that could be told here.
    if (/[\u2E80-\u9FFF\uF900-\uFAFF]/.test(text.slice(from, to))) [from, to] = [start, end];
  } else {
    const chosen = text.slice(from, to);
    from += chosen.length - chosen.trimStart().length;
    to -= chosen.length - chosen.trimEnd().length;
    if (to <= from) [from, to] = [start, end];
  }
  const result = text.slice(0, from) + BLANK_SIGN + text.slice(to);
  return { text: result, caret: from + BLANK_SIGN.length };
}

/** A candidate as it is shown, and whether it goes on with the word before it. */
export function candidateText(token) {
  if (GOES_ON.test(token)) return { text: token.slice(2), goesOn: true };
  return { text: token.replace(BEGINS, ""), goesOn: false };
}

/** Cosines between vectors: a square table. */
export function cosines(vectors) {
  const lengths = vectors.map((vector) => Math.hypot(...vector) || 1);
  return vectors.map((one, row) =>
    vectors.map((other, column) => {
      let sum = 0;
      for (let place = 0; place < one.length; place += 1) sum += one[place] * other[place];
      return sum / (lengths[row] * lengths[column]);
    }),
  );
}

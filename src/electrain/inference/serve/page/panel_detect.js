// Which words were replaced: each is shaded by its probability, and what the model would write there is asked lazily.
import { Asking, exampleButtons, field } from "./asking.js";
import { el, label, percent, setShare, t } from "./dom.js";
import { examplesOf } from "./examples.js";
import { post } from "./service.js";
import { candidateText, masked, wordsOf } from "./text.js";

const PAUSE_MILLISECONDS = 700; // after the last key, before the text is judged by itself
const SUSPICIOUS = 0.5;
const MOST_LISTED = 5;

export function detectPanel(models, all) {
  const fillers = all.filter((model) => model.tasks.includes("fill"));
  const text = field({ label: "detect.text", hint: "detect.hint", rows: 3 });
  const card = new WordCard(() => {
    const own = asking.choice.model.name;
    const model = fillers.find((one) => one.name === own) ?? fillers[0];
    return model && { ...model, isOther: model.name !== own };
  });
  let timer;
  const asking = new Asking({
    task: "detect",
    models,
    send: "detect.send",
    read: () => {
      clearTimeout(timer); // the pause must not take away an answer that somebody reads
      if (!text.input.value.trim()) return asking.fault.say("missing.text"), null;
      return { body: { inputs: [text.input.value] } };
    },
    show: ([answer]) => show(asking.answer, answer, card),
  });
  text.input.addEventListener("input", () => {
    clearTimeout(timer);
    if (!text.input.value.trim()) asking.reset();
    else timer = setTimeout(() => asking.run(), PAUSE_MILLISECONDS);
  });
  const examples = exampleButtons(() => examplesOf("detect"), (example) => {
    text.input.value = example;
    asking.run();
  });
  asking.form.append(asking.choice.element, text.element, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

function show(place, answer, card) {
  card.close();
  const words = wordsOf(answer.text, answer.tokens ?? []);
  const numbers = el("input", { type: "checkbox", role: "switch" });
  const shaded = shadedText(answer.text, words, card);
  numbers.addEventListener("change", () => shaded.classList.toggle("numbers", numbers.checked));
  // Punctuation is judged too, but nobody counts it as words.
  const counted = words.filter((word) => /[\p{L}\p{N}]/u.test(answer.text.slice(word.start, word.end)));
  const suspicious = counted.filter((word) => word.probability >= SUSPICIOUS).length;
  // Tokenizers for Chinese make each character a word.
  const ideographs = counted.filter((word) => /^\p{Script=Han}$/u.test(answer.text.slice(word.start, word.end)));
  const isOfCharacters = ideographs.length > counted.length / 2;
  const [one, many] = isOfCharacters ? ["detect.told.characters.one", "detect.told.characters"] : ["detect.told.one", "detect.told"];
  const told = suspicious === 1 ? one : many;
  const count = { count: suspicious, all: counted.length };
  place.append(
    el("div", { class: "answer-head" },
      el("h3", { words: words.length ? told : "detect.nothing", given: count }),
      el("label", { class: "switch" }, numbers, el("span", { words: "detect.numbers" }))),
    shaded,
    scale(),
    el("p", { class: "note", words: card.isAble ? "detect.how" : "detect.how.plain" }),
    listOf(answer.text, counted, isOfCharacters ? "detect.top.characters" : "detect.top"),
    card.element,
  );
  return t(words.length ? told : "detect.nothing", count);
}

/** The colours from 0 to 1, with the signs that do not need colour. */
function scale() {
  const steps = [0, 0.1, 0.25, 0.5, 0.75, 1];
  const swatches = steps.map((step) => {
    const swatch = setShare(el("span", { class: "swatch" }, `${100 * step}`), step, "--p");
    if (step >= SUSPICIOUS) swatch.classList.add("suspicious");
    return swatch;
  });
  const name = el("span", { class: "note", words: "detect.scale" });
  return el("div", { class: "scale", role: "img", label: "detect.scale.label" }, name, ...swatches);
}

/** The text with its words shaded. One tab stop; the arrow keys go from word to word. */
function shadedText(text, words, card) {
  const paragraph = el("p", { class: "shaded", dir: "auto", role: "group", label: "detect.words" });
  let place = 0;
  const spans = words.map((word, number) => {
    paragraph.append(text.slice(place, word.start));
    place = word.end;
    const span = el("span", { class: "word", role: "button", tabindex: number ? "-1" : "0" }, text.slice(word.start, word.end));
    setShare(span, word.probability, "--p");
    span.dataset.percent = percent(word.probability);
    if (word.probability >= SUSPICIOUS) span.classList.add("suspicious");
    label(span, "detect.word", { word: span.textContent, p: percent(word.probability) });
    paragraph.append(span);
    return span;
  });
  paragraph.append(text.slice(place));
  card.attend(paragraph, spans, words, text);
  return paragraph;
}

/** The most suspicious words, each once. */
function listOf(text, words, title) {
  if (words.length < 2) return null;
  const seen = new Map();
  for (const word of [...words].sort((one, other) => other.probability - one.probability)) {
    const shown = text.slice(word.start, word.end);
    if (!seen.has(shown.toLowerCase())) seen.set(shown.toLowerCase(), { shown, probability: word.probability });
  }
  const rows = [...seen.values()].slice(0, MOST_LISTED).map((word) =>
    el("li", {},
      el("bdi", { class: "name" }, word.shown),
      el("span", { class: "bar", "aria-hidden": "true" }, setShare(el("span", {}), word.probability)),
      el("span", { class: "number" }, percent(word.probability))));
  return el("div", { class: "block" }, el("h4", { words: title }), el("ol", { class: "bars mark" }, ...rows));
}

/** What is known of one word: shown at the word on a wide screen, at the bottom of a phone. */
class WordCard {
  constructor(filler) {
    this.filler = filler;
    this.known = new Map();
    this.element = el("div", { class: "card", role: "status", hidden: true });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
    document.addEventListener("pointerdown", (event) => {
      if (!event.target.closest?.(".word, .card")) this.close();
    });
    this.element.addEventListener("pointerleave", () => this.leave());
    this.element.addEventListener("pointerenter", () => clearTimeout(this.leaving));
  }

  get isAble() {
    return this.filler() !== undefined;
  }

  attend(paragraph, spans, words, text) {
    this.known.clear();
    const show = (span) => {
      const number = spans.indexOf(span);
      if (number >= 0) this.open(paragraph, span, words[number], text);
    };
    paragraph.addEventListener("pointerover", (event) => {
      const span = event.target.closest(".word");
      if (span === null || event.pointerType === "touch") return;
      clearTimeout(this.leaving);
      clearTimeout(this.entering);
      // A pointer that only passes asks nothing.
      this.entering = setTimeout(() => show(span), this.element.hidden ? 120 : 40);
    });
    paragraph.addEventListener("pointerleave", () => {
      clearTimeout(this.entering);
      this.leave();
    });
    paragraph.addEventListener("click", (event) => show(event.target.closest(".word")));
    paragraph.addEventListener("focusin", (event) => {
      if (event.target.matches(":focus-visible")) show(event.target);
    });
    paragraph.addEventListener("focusout", () => this.leave());
    paragraph.addEventListener("keydown", (event) => {
      const now = spans.indexOf(document.activeElement);
      if (now < 0) return;
      const isLeft = getComputedStyle(paragraph).direction === "rtl";
      const steps = { ArrowRight: isLeft ? -1 : 1, ArrowLeft: isLeft ? 1 : -1, ArrowDown: 1, ArrowUp: -1 };
      const ends = { Home: 0, End: spans.length - 1 };
      const next = event.key in steps ? now + steps[event.key] : ends[event.key];
      if (event.key === "Enter" || event.key === " ") show(spans[now]);
      else if (next === undefined) return;
      event.preventDefault();
      if (spans[next] === undefined) return;
      spans[now].tabIndex = -1;
      spans[next].tabIndex = 0;
      spans[next].focus();
    });
  }

  leave() {
    clearTimeout(this.leaving);
    this.leaving = setTimeout(() => this.close(), 250);
  }

  close() {
    clearTimeout(this.leaving);
    clearTimeout(this.entering);
    this.asking?.abort();
    this.open_?.classList.remove("open");
    this.element.hidden = true;
  }

  async open(paragraph, span, word, text) {
    clearTimeout(this.leaving);
    if (this.open_ === span && !this.element.hidden) return;
    this.close();
    this.open_ = span;
    span.classList.add("open");
    const pieces =
      word.pieces.length > 1
        ? el("p", { class: "note pieces" },
            ...word.pieces.map((piece) => el("span", {}, el("bdi", {}, piece.text), ` ${percent(piece.probability)}`)))
        : null;
    const told = el("p", { class: "told" },
      el("bdi", { class: "name" }, text.slice(word.start, word.end)),
      el("span", { words: "detect.card", given: { p: percent(word.probability) } }));
    const own = el("div", { class: "instead" });
    this.element.replaceChildren(told, ...(pieces ? [pieces] : []), own);
    this.element.hidden = false;
    this.place(span);
    if (!this.isAble) return;
    own.append(el("p", { class: "note" }, el("span", { class: "wheel", "aria-hidden": "true" }), el("span", { words: "waiting" })));
    const asking = (this.asking = new AbortController());
    try {
      const candidates = await this.candidates(text, word, asking.signal);
      if (this.open_ !== span || this.element.hidden) return;
      own.replaceChildren(...instead(candidates, text.slice(word.start, word.end), this.filler()));
    } catch (error) {
      if (asking.signal.aborted) return;
      own.replaceChildren(el("p", { class: "note", words: "detect.card.failed" }));
    }
    this.place(span);
  }

  async candidates(text, word, signal) {
    if (!this.known.has(word)) {
      const model = this.filler();
      const asked = masked(text, word, model.gap);
      const body = { inputs: [asked.text], model: model.name, candidates: 8 };
      const { answers } = await post("fill", body, signal);
      const masks = answers[0].masks ?? [];
      const own = masks.find((mask) => mask.start === asked.place) ?? masks[0];
      this.known.set(word, own?.candidates ?? []);
    }
    return this.known.get(word);
  }

  /** Below the word, or above it where there is no room; the style sheet places it on a phone. */
  place(span) {
    const box = span.getClientRects()[0];
    const width = this.element.offsetWidth;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, document.documentElement.clientWidth - width - 8));
    const height = this.element.offsetHeight;
    const isAbove = box.bottom + height + 12 > window.innerHeight && box.top > height + 12;
    this.element.style.setProperty("left", `${left}px`);
    this.element.style.setProperty("top", `${isAbove ? box.top - height - 8 : box.bottom + 8}px`);
  }
}

function instead(candidates, word, model) {
  const shown = candidates.map((one) => ({ ...candidateText(one.token), probability: one.probability })).filter((one) => !one.goesOn);
  if (!shown.length) return [el("p", { class: "note", words: "detect.card.none" })];
  const rows = shown.slice(0, MOST_LISTED).map((one) => {
    const isSame = one.text.toLowerCase() === word.toLowerCase();
    return el("li", { class: isSame ? "same" : undefined },
      el("bdi", { class: "name" }, one.text),
      el("span", { class: "bar", "aria-hidden": "true" }, setShare(el("span", {}), one.probability)),
      el("span", { class: "number" }, percent(one.probability)));
  });
  const who = model.isOther ? "detect.card.other" : "detect.card.instead";
  return [el("p", { class: "note", words: who, given: { name: model.name } }), el("ol", { class: "bars" }, ...rows)];
}

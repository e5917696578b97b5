// Answers about a text: its class, a number, the names in it, and the answer to a question in it.
import { Asking, exampleButtons, field } from "./asking.js";
import { currentLanguage, el, has, percent, setShare, t } from "./dom.js";
import { examplesOf } from "./examples.js";
import { codePointOffsets, placesOf } from "./text.js";

const MOST_BARS = 8;
const ENTITY_COLOURS = 6;
const COLOURS = { PER: 0, PERSON: 0, LOC: 1, ORG: 2, MISC: 3, GPE: 4, DATE: 5 }; // a kind keeps its colour from text to text
const CLOSE = 0.2; // between the first and the second label: the model can hardly decide
const UNSURE = 0.5; // of an answer

/** One text, or two where the model reads pairs; where it does not say, the second one may stay empty. */
function textOrPair(task, models, send, show) {
  const text = field({ label: "pair.text", hint: `${task}.hint`, rows: 3 });
  const second = field({ label: "pair.second", rows: 2 });
  const optional = el("p", { class: "note", words: "pair.optional" });
  const asking = new Asking({
    task,
    models,
    send,
    read: () => {
      const pairs = asking.choice.model.reads_pairs;
      const [first, other] = [text.input.value, second.input.value];
      if (!first.trim()) return asking.fault.say("missing.text"), null;
      if (pairs === true && !other.trim()) return asking.fault.say("missing.second"), null;
      return { body: { inputs: [pairs !== false && other.trim() ? { text: first, pair: other } : first] } };
    },
    show: ([answer]) => show(asking.answer, answer),
  });
  const fit = () => {
    const pairs = asking.choice.model.reads_pairs;
    second.element.hidden = pairs === false;
    optional.hidden = pairs === true || pairs === false;
  };
  asking.choice.select.addEventListener("change", fit);
  fit();
  const examples = exampleButtons(() => examplesOf(asking.choice.model.reads_pairs === true ? "pair" : task), (example) => {
    const [first, other] = Array.isArray(example) ? example : [example, ""];
    text.input.value = first;
    second.input.value = other;
    asking.run();
  });
  asking.form.append(asking.choice.element, text.element, second.element, optional, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

export function classifyPanel(models) {
  return textOrPair("classify", models, "classify.send", (place, answer) => {
    if (!answer.probabilities) return nothing(place);
    const sorted = Object.entries(answer.probabilities).sort((one, other) => other[1] - one[1]);
    const chosen = answer.labels ?? [answer.label];
    const rows = sorted.map(([name, probability]) =>
      el("li", { class: chosen.includes(name) ? "chosen" : undefined },
        el("span", { class: "name" }, el("bdi", {}, labelName(name)), chosen.includes(name) ? el("span", { class: "tick", "aria-hidden": "true" }, " ✓") : null),
        el("span", { class: "bar", "aria-hidden": "true" }, setShare(el("span", {}), probability)),
        el("span", { class: "number" }, percent(probability))));
    const verdict = el("p", { class: "verdict" }, el("bdi", {}, chosen.map(labelName).join(", ") || t("classify.none")));
    if (answer.label !== undefined) {
      const sure = { p: percent(answer.probability) };
      verdict.append(" ", el("span", { class: "note", words: "classify.sure", given: sure }));
    }
    const isClose = answer.label !== undefined && sorted.length > 1 && sorted[0][1] - sorted[1][1] < CLOSE;
    const unsure = isClose ? [el("p", { class: "note", words: "unsure" })] : [];
    place.append(verdict, ...unsure, el("ol", { class: "bars wide" }, ...rows.slice(0, MOST_BARS)));
    if (rows.length > MOST_BARS) {
      const count = { count: rows.length - MOST_BARS };
      const others = el("ol", { class: "bars wide" }, ...rows.slice(MOST_BARS));
      place.append(el("details", {}, el("summary", { words: "classify.others", given: count }), others));
    }
    return [verdict, ...unsure].map((part) => part.textContent).join(". ");
  });
}

/** A label as it is shown: a bare number would not say what it is. */
function labelName(name) {
  return /^\d+$/.test(name) ? t("classify.number", { name }) : name;
}

export function regressPanel(models) {
  return textOrPair("regress", models, "regress.send", (place, answer) => {
    if (typeof answer.value !== "number") return nothing(place);
    const shown = new Intl.NumberFormat(currentLanguage(), { minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(answer.value);
    place.append(
      el("p", { class: "figure" }, shown),
      el("p", { class: "note", words: "regress.scale" }));
    return t("regress.told", { value: shown });
  });
}

function nothing(place) {
  place.append(el("p", { class: "note", words: "nothing" }));
  return t("nothing");
}

export function tagPanel(models) {
  const text = field({ label: "tag.text", hint: "tag.hint", rows: 4 });
  const asking = new Asking({
    task: "tag",
    models,
    send: "tag.send",
    read: () => {
      if (!text.input.value.trim()) return asking.fault.say("missing.text"), null;
      return { body: { inputs: [text.input.value] }, text: text.input.value };
    },
    show: ([answer], asked) => showTags(asking.answer, answer, asked.text),
  });
  const examples = exampleButtons(() => examplesOf("tag"), (example) => {
    text.input.value = example;
    asking.run();
  });
  asking.form.append(asking.choice.element, text.element, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

function showTags(place, answer, given) {
  const words = answer.words ?? [];
  if (!words.length) return nothing(place);
  // Where cleaning changed the words, they are shown by themselves.
  let [text, places] = [given, placesOf(given, words)];
  if (places === null) {
    text = words.join(" ");
    places = placesOf(text, words);
  }
  return answer.entities ? showEntities(place, text, places, answer.entities) : showWordTags(place, text, places, answer.tags);
}

function typeName(type) {
  const key = `entity.${type.toUpperCase()}`;
  return has(key) ? t(key) : "";
}

function showEntities(place, text, places, entities) {
  const types = [...new Set(entities.map((entity) => entity.type))];
  const colour = (type) => `kind kind-${COLOURS[type.toUpperCase()] ?? types.indexOf(type) % ENTITY_COLOURS}`;
  const shown = el("p", { class: "tagged", dir: "auto" });
  let from = 0;
  for (const entity of entities) {
    const [start, end] = [places[entity.first_word].start, places[entity.last_word].end];
    shown.append(text.slice(from, start));
    shown.append(el("mark", { class: `entity ${colour(entity.type)}` }, el("bdi", {}, text.slice(start, end)), el("span", { class: "type" }, entity.type)));
    from = end;
  }
  shown.append(text.slice(from));
  const legend = types.map((type) => {
    const found = entities.filter((entity) => entity.type === type);
    const names = [...new Set(found.map((entity) => entity.text))];
    return el("li", {},
      el("span", { class: `type ${colour(type)}` }, type),
      el("span", { class: "note" }, [typeName(type), `× ${found.length}`].filter(Boolean).join(" ")),
      el("bdi", {}, names.join(currentLanguage() === "zh" ? "、" : ", ")));
  });
  const count = entities.length;
  const told = count === 1 ? "tag.told.one" : "tag.told";
  place.append(el("h3", { words: count ? told : "tag.none", given: { count } }), shown);
  if (count) place.append(el("ul", { class: "legend" }, ...legend));
  return t(count ? told : "tag.none", { count });
}

/** Tags of every word, such as parts of speech: each below its word. */
function showWordTags(place, text, places, tags) {
  const shown = el("p", { class: "tagged words", dir: "auto" });
  let from = 0;
  places.forEach((word, number) => {
    shown.append(text.slice(from, word.start));
    const pair = el("span", { class: "tagged-word" }, el("bdi", {}, text.slice(word.start, word.end)), el("span", { class: "type" }, tags[number]));
    shown.append(pair);
    from = word.end;
  });
  shown.append(text.slice(from));
  const count = places.filter(({ start, end }) => /[\p{L}\p{N}]/u.test(text.slice(start, end))).length; // without punctuation
  place.append(el("h3", { words: "tag.words", given: { count } }), shown);
  return t("tag.words", { count });
}

export function answerPanel(models) {
  const context = field({ label: "answer.context", hint: "answer.context.hint", rows: 6 });
  const question = field({ label: "answer.question", hint: "answer.question.hint", rows: 1 });
  const asking = new Asking({
    task: "answer",
    models,
    send: "answer.send",
    read: () => {
      if (!context.input.value.trim()) return asking.fault.say("missing.text"), null;
      if (!question.input.value.trim()) return asking.fault.say("missing.question"), null;
      const asked = { question: question.input.value, context: context.input.value };
      return { body: { inputs: [asked] }, context: asked.context };
    },
    show: ([answer], asked) => showAnswer(asking.answer, answer, asked.context),
  });
  const examples = exampleButtons(() => examplesOf("answer"), ([asked, text]) => {
    question.input.value = asked;
    context.input.value = text;
    asking.run();
  });
  asking.form.append(asking.choice.element, context.element, question.element, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

function showAnswer(place, answer, context) {
  const isAnswered = Boolean(answer.answer);
  const span = isAnswered ? answer : (answer.best_span ?? null);
  const verdict = el("p", { class: "verdict", dir: "auto" });
  if (isAnswered) {
    verdict.append(answer.answer, " ", el("span", { class: "note", words: "answer.sure", given: { p: percent(answer.score) } }));
  } else {
    verdict.append(el("span", { words: "answer.none" }));
    if (answer.score) verdict.append(" ", el("span", { class: "note", words: "answer.sure", given: { p: percent(answer.score) } }));
  }
  place.append(verdict);
  const isUnsure = isAnswered && answer.score < UNSURE;
  if (isUnsure) {
    verdict.classList.add("weak");
    place.append(el("p", { class: "note", words: "unsure" }));
  }
  if (!isAnswered && span) {
    place.append(el("p", { class: "note" }, el("span", { words: "answer.closest" }), " ", el("bdi", {}, span.answer), ` (${percent(span.score)})`));
  }
  const text = el("p", { class: "context", dir: "auto" });
  if (span && Number.isInteger(span.start)) {
    const offsets = codePointOffsets(context);
    const [start, end] = [offsets[span.start], offsets[span.end]];
    const mark = el("mark", { class: isAnswered && !isUnsure ? "found" : "closest" }, context.slice(start, end));
    text.append(context.slice(0, start), mark, context.slice(end));
  } else text.append(context);
  place.append(text);
  return isUnsure ? `${verdict.textContent}. ${t("unsure")}` : verdict.textContent;
}

// Gaps in a text, filled by the model; the user makes blanks and never sees the model's own sign for them.
import { Asking, exampleButtons, field } from "./asking.js";
import { el, freshId, percent, setShare, t } from "./dom.js";
import { examplesOf } from "./examples.js";
import { candidateText, partsAroundBlanks, withBlank } from "./text.js";

const CANDIDATES = 6;
const UNSURE = 0.1; // a first choice below it is little more than a guess

export function fillPanel(models) {
  const text = field({ label: "fill.text", hint: "fill.hint", rows: 3 });
  const make = el("button", {
    type: "button",
    words: "fill.make",
    on: {
      click: () => {
        const { value, selectionStart, selectionEnd } = text.input;
        const made = withBlank(value, selectionStart, selectionEnd);
        text.input.value = made.text;
        text.input.focus();
        text.input.setSelectionRange(made.caret, made.caret);
      },
    },
  });
  const asking = new Asking({
    task: "fill",
    models,
    send: "fill.send",
    read: () => {
      const parts = partsAroundBlanks(text.input.value);
      if (!text.input.value.trim()) return asking.fault.say("missing.text"), null;
      if (parts.length < 2) return asking.fault.say("fill.missing"), null;
      return { body: { inputs: [parts.join(asking.choice.model.gap)], candidates: CANDIDATES }, parts };
    },
    show: ([answer], asked) => show(asking.answer, answer, asked.parts),
  });
  const examples = exampleButtons(() => examplesOf("fill"), (example) => {
    text.input.value = example;
    asking.run();
  });
  asking.actions.insertBefore(make, asking.button.nextSibling);
  const how = el("p", { class: "note", words: "fill.how" });
  asking.form.append(asking.choice.element, text.element, how, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

function show(place, answer, parts) {
  const masks = answer.masks ?? [];
  const sentence = el("p", { class: "filled", dir: "auto" });
  const blanks = parts.slice(1).map((part, number) => {
    const before = document.createTextNode("");
    const blank = el("mark", { class: "blank" });
    const set = (candidate) => {
      const { text, goesOn } = candidateText(candidate.token);
      before.data = goesOn ? parts[number].trimEnd() : parts[number];
      blank.textContent = text;
    };
    sentence.append(before, blank);
    return { set, candidates: masks[number]?.candidates ?? [], blank };
  });
  sentence.append(parts[parts.length - 1]);
  const lists = blanks.map(({ set, candidates, blank }, number) => {
    if (!candidates.length) {
      blank.textContent = "…";
      return el("p", { class: "note", words: "fill.none" });
    }
    set(candidates[0]);
    return choices(candidates, set, blanks.length > 1 ? number + 1 : 0);
  });
  place.append(sentence, el("div", { class: "gaps" }, ...lists));
  return t("fill.told", { text: sentence.textContent });
}

/** The candidates of one blank: choosing one puts it into the sentence. */
function choices(candidates, set, number) {
  const name = freshId("blank");
  const rows = candidates.map((candidate, place) => {
    const { text, goesOn } = candidateText(candidate.token);
    const input = el("input", { type: "radio", name, checked: place === 0, on: { change: () => set(candidate) } });
    return el("label", {},
      input,
      el("bdi", { class: "name" }, goesOn ? `…${text}` : text),
      el("span", { class: "bar", "aria-hidden": "true" }, setShare(el("span", {}), candidate.probability)),
      el("span", { class: "number" }, percent(candidate.probability)));
  });
  const title = number ? el("legend", { words: "fill.blank", given: { number } }) : el("legend", { words: "fill.only" });
  const unsure = candidates[0].probability < UNSURE ? el("p", { class: "note", words: "unsure" }) : null;
  return el("fieldset", { class: "choices bars" }, title, ...rows, unsure);
}

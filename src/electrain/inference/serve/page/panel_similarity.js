// How similar sentences are to each other: cosines of their vectors, as a table that is shaded.
import { Asking, exampleButtons, field } from "./asking.js";
import { el, setShare, t } from "./dom.js";
import { examplesOf } from "./examples.js";
import { cosines } from "./text.js";

const MOST_SENTENCES = 12;
const NARROW = 0.2; // with two decimals, many values of a smaller range would look equal

export function similarityPanel(models) {
  const text = field({ label: "embed.text", hint: "embed.hint", rows: 6 });
  const sentences = () => text.input.value.split("\n").map((line) => line.trim()).filter(Boolean);
  const asking = new Asking({
    task: "embed",
    models,
    send: "embed.send",
    read: () => {
      const inputs = sentences();
      if (inputs.length < 2) return asking.fault.say("embed.missing"), null;
      if (inputs.length > MOST_SENTENCES) return asking.fault.say("embed.many"), null;
      return { body: { inputs } };
    },
    show: (answers) => show(asking.answer, answers),
  });
  const examples = exampleButtons(() => examplesOf("embed"), (example) => {
    text.input.value = example;
    asking.run();
  });
  asking.form.append(asking.choice.element, text.element, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

function show(place, answers) {
  const table = cosines(answers.map((answer) => answer.embedding));
  const pairs = table.flatMap((row, one) => row.slice(one + 1).map((value, other) => ({ value, one, other: one + 1 + other })));
  pairs.sort((one, other) => other.value - one.value);
  const [high, low] = [pairs[0].value, pairs[pairs.length - 1].value];
  // Vectors of one encoder are all rather alike: the colours are spread over the values that there are.
  const shade = (value) => (high > low ? Math.max(0, (value - low) / (high - low)) : 1);
  const digits = high - low < NARROW ? 3 : 2;
  const head = el("tr", {}, el("td", {}), ...answers.map((_, number) => el("th", { scope: "col" }, String(number + 1))));
  const rows = table.map((row, number) => {
    const cells = row.map((value, column) => {
      if (column === number) return el("td", { class: "self" }, "1");
      return setShare(el("td", {}, value.toFixed(digits)), shade(value), "--p");
    });
    const name = el("th", { scope: "row" }, el("span", { class: "order" }, String(number + 1)), el("bdi", {}, answers[number].text));
    return el("tr", {}, name, ...cells);
  });
  const heat = el("table", { class: "heat" }, el("caption", { class: "unseen", words: "embed.caption" }), el("thead", {}, head), el("tbody", {}, ...rows));
  const best = { one: pairs[0].one + 1, other: pairs[0].other + 1, value: pairs[0].value.toFixed(digits) };
  place.append(
    el("h3", { words: "embed.told", given: best }),
    el("ol", { class: "sentences", "aria-hidden": "true" }, ...answers.map((answer) => el("li", {}, el("bdi", {}, answer.text)))),
    el("div", { class: "wide", tabindex: "0", role: "region", label: "embed.caption" }, heat),
    el("p", { class: "note", words: "embed.scale", given: { low: low.toFixed(digits), high: high.toFixed(digits) } }));
  return t("embed.told", best);
}

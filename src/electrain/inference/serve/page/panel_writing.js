// What a model writes: a summary or a translation beside its source, and the continuation of a text.
import { Asking, exampleButtons, field } from "./asking.js";
import { el, freshId, t, words } from "./dom.js";
import { examplesOf } from "./examples.js";

function besideSource(task, models) {
  const text = field({ label: `${task}.text`, hint: `${task}.hint`, rows: task === "translate" ? 3 : 7 });
  const asking = new Asking({
    task,
    models,
    send: `${task}.send`,
    read: () => {
      if (!text.input.value.trim()) return asking.fault.say("missing.text"), null;
      return { body: { inputs: [text.input.value] } };
    },
    show: ([answer]) => {
      const output = answer.output ?? "";
      const note = !output ? "written.nothing" : /[\p{L}\p{N}]/u.test(output) ? "" : "written.signs";
      const written = [output ? el("p", { dir: "auto" }, output) : null, note ? el("p", { class: "note", words: note }) : null];
      asking.answer.append(
        el("div", { class: "beside" },
          el("div", { class: "source" }, el("h3", { words: "source" }), el("p", { dir: "auto" }, answer.text)),
          el("div", { class: "written" }, el("h3", { words: `${task}.written` }), ...written)));
      return note ? t(note) : output;
    },
  });
  const examples = exampleButtons(() => examplesOf(task), (example) => {
    text.input.value = example;
    asking.run();
  });
  asking.form.append(asking.choice.element, text.element, examples, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

export const summarizePanel = (models) => besideSource("summarize", models);
export const translatePanel = (models) => besideSource("translate", models);

function slider(name, { min, max, step, value }) {
  const id = freshId(name);
  const shown = el("output", { for: id }, String(value));
  const input = el("input", { id, type: "range", min, max, step, value, on: { input: () => (shown.textContent = input.value) } });
  return { element: el("div", { class: "slider" }, el("label", { for: id, words: `generate.${name}` }), shown, input), input };
}

export function generatePanel(models) {
  const text = field({ label: "generate.text", hint: "generate.hint", rows: 3 });
  const tokens = slider("tokens", { min: 5, max: 100, step: 5, value: 40 });
  const temperature = slider("temperature", { min: 0.1, max: 2, step: 0.1, value: 1 });
  const topP = slider("top_p", { min: 0.1, max: 1, step: 0.05, value: 0.95 });
  let seed = 0;
  const asking = new Asking({
    task: "generate",
    models,
    send: "generate.send",
    read: () => ({
      body: {
        inputs: [text.input.value],
        tokens: Number(tokens.input.value),
        temperature: Number(temperature.input.value),
        top_p: Number(topP.input.value),
        seed,
      },
    }),
    show: ([answer]) => {
      const shown = el("p", { class: "continued", dir: "auto" }, answer.text);
      if (answer.text && !/[\s\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]$/.test(answer.text) && /^[\p{L}\p{N}]/u.test(answer.written) && !/^[\u2E80-\u9FFF]/.test(answer.written)) {
        shown.append(" ");
      }
      shown.append(el("mark", { class: "new" }, answer.written));
      asking.answer.append(shown, el("p", { class: "note", words: "generate.key" }));
      words(asking.button, "generate.again");
      return answer.written;
    },
  });
  asking.button.addEventListener("click", () => {
    if (asking.last) seed += 1;
  });
  text.input.addEventListener("input", () => {
    seed = 0;
    words(asking.button, "generate.send");
  });
  const examples = exampleButtons(() => examplesOf("generate"), (example) => {
    text.input.value = example;
    seed = 0;
    asking.run();
  });
  const controls = el("div", { class: "sliders" }, tokens.element, temperature.element, topP.element);
  const more = el("details", {}, el("summary", { words: "generate.more" }), controls);
  asking.form.append(asking.choice.element, text.element, examples, more, asking.actions);
  return [asking.form, asking.fault.element, asking.answer, asking.status];
}

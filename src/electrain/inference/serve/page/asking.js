// A form that asks the service: it says that it waits, what went wrong, and tries again by itself where that helps.
import { el, freshId, setShare, t, words, wordless } from "./dom.js";
import { post, ServiceError } from "./service.js";

const RETRY_SECONDS = [1, 2, 4, 8];

const FAULTS = {
  dead: "fault.dead",
  busy: "fault.busy",
  unavailable: "fault.unavailable",
  large: "fault.large",
  slow: "fault.slow",
  failed: "fault.failed",
  refused: "fault.refused",
  unauthorized: "fault.unauthorized",
};

/** A place in the page that says what went wrong. */
export class Fault {
  constructor() {
    this.text = el("p", {});
    this.detail = el("p", { class: "detail", dir: "auto" });
    this.again = el("button", { type: "button", words: "fault.again" });
    this.element = el("div", { class: "fault", role: "alert", hidden: true }, this.text, this.detail, this.again);
  }

  show(error) {
    const isOurs = error instanceof ServiceError;
    if (!isOurs) console.error(error);
    const key = isOurs ? FAULTS[error.kind] : "fault.page";
    // The same fault is not announced a second time.
    if (this.element.hidden || this.text.dataset.words !== key) words(this.text, key);
    this.detail.textContent = isOurs && ["refused", "large"].includes(error.kind) ? error.line : "";
    this.detail.hidden = !this.detail.textContent;
    this.again.hidden = !isOurs || error.kind === "refused" || error.kind === "large";
    this.element.hidden = false;
  }

  /** Says something that the page found itself. */
  say(key) {
    words(this.text, key);
    this.detail.hidden = this.again.hidden = true;
    this.element.hidden = false;
  }

  clear() {
    this.element.hidden = true;
  }
}

/** Repeats `attempt` until it succeeds, for as long as its faults pass by themselves; `onFault` is told of each. */
export async function patiently(attempt, onFault, signal, wake) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (signal?.aborted) throw error;
      onFault(error);
      if (!(error instanceof ServiceError) || !error.passes) throw error;
      const seconds = Math.max(error.retrySeconds, RETRY_SECONDS[Math.min(tries, RETRY_SECONDS.length - 1)]);
      await pause(Math.min(seconds, 30), signal, wake);
    }
  }
}

function pause(seconds, signal, wake) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    wake?.addEventListener("click", () => (clearTimeout(timer), resolve()), { once: true });
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** The model that answers for a panel, with a choice where several can. */
export class ModelChoice {
  constructor(models) {
    this.models = models;
    const id = freshId("model");
    this.select = el(
      "select",
      { id },
      ...models.map((model) => el("option", { value: model.name }, model.name)),
    );
    const one = el("span", { class: "model-name" }, models[0]?.name ?? "");
    this.element =
      models.length > 1
        ? el("p", { class: "model" }, el("label", { for: id, words: "model" }), " ", this.select)
        : el("p", { class: "model" }, el("span", { words: "model" }), " ", one);
  }

  get model() {
    return this.models.find((model) => model.name === this.select.value) ?? this.models[0];
  }
}

/** A form with its button, its faults and the place of its answers.
 *
 * Args:
 *   task: the route.
 *   models: those that can do it.
 *   read: returns {inputs, ...options} or null, after it has said by `fault.say` what is missing.
 *   show: is given the answers and what was asked; fills `answer` and returns a line for those who do not see it.
 *   send: the key of the button's text.
 */
export class Asking {
  constructor({ task, models, read, show, send }) {
    Object.assign(this, { task, read, show });
    this.choice = new ModelChoice(models);
    this.button = el("button", { type: "submit", class: "main", words: send });
    this.fault = new Fault();
    this.waiting = el("span", { class: "waiting", hidden: true }, el("span", { class: "wheel", "aria-hidden": "true" }));
    this.waiting.append(el("span", { words: "waiting" }));
    this.form = el("form", { class: "ask", novalidate: true, on: { submit: (event) => this.submitted(event) } });
    this.actions = el("div", { class: "actions" }, this.button, this.waiting);
    this.answer = el("div", { class: "answer", hidden: true });
    this.status = el("p", { class: "unseen", role: "status" });
    this.fault.again.addEventListener("click", () => {
      if (!this.running) this.run();
    });
    this.choice.select.addEventListener("change", () => {
      if (!this.answer.hidden) this.run();
    });
    document.addEventListener("language", () => {
      if (this.last) this.display(...this.last);
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submitted(event);
    });
  }

  submitted(event) {
    event.preventDefault();
    this.run();
  }

  /** Takes the answer away, because the text is another one. */
  reset() {
    this.running?.abort();
    this.running = this.last = undefined;
    this.fault.clear();
    this.settle();
    this.answer.hidden = true;
    wordless(this.status);
  }

  async run() {
    this.running?.abort();
    this.fault.clear();
    const asked = this.read();
    if (asked === null) {
      this.running = undefined;
      this.settle();
      return;
    }
    const running = (this.running = new AbortController());
    this.waiting.hidden = false;
    this.answer.setAttribute("aria-busy", "true");
    this.answer.classList.add("old");
    const body = { ...asked.body, model: this.choice.model.name };
    try {
      const ask = () => post(this.task, body, running.signal);
      const reply = await patiently(ask, (error) => this.fault.show(error), running.signal, this.fault.again);
      if (this.running !== running) return;
      this.fault.clear();
      this.last = [reply.answers, asked];
      this.display(reply.answers, asked);
    } catch (error) {
      if (this.running === running && !(error instanceof ServiceError)) this.fault.show(error);
      if (this.running === running) this.answer.hidden = true;
    } finally {
      if (this.running === running) {
        this.running = undefined;
        this.settle();
      }
    }
  }

  settle() {
    this.waiting.hidden = true;
    this.answer.removeAttribute("aria-busy");
    this.answer.classList.remove("old");
  }

  display(answers, asked) {
    this.answer.replaceChildren();
    const line = this.show(answers, asked);
    this.answer.hidden = false;
    this.status.textContent = line ?? t("answered");
  }
}

/** A text field with its label. Args: rows: 1 makes it a line. */
export function field({ label, hint, rows = 4, value = "" }) {
  const id = freshId("field");
  const input =
    rows === 1
      ? el("input", { id, type: "text", dir: "auto", hint, autocomplete: "off" })
      : setShare(el("textarea", { id, rows, dir: "auto", hint, spellcheck: "false" }), rows, "--rows");
  input.value = value;
  const element = el("div", { class: "field" }, el("label", { for: id, words: label }), input);
  return { element, input };
}

/** Buttons that put an example into the fields: one for each entry of `EXAMPLES`, as the page's language orders them. */
export function exampleButtons(examples, take) {
  const row = el("div", { class: "examples", role: "group", label: "examples" });
  const fill = () => {
    const buttons = examples().map((example) => {
      const shown = Array.isArray(example) ? example[0] : example;
      const line = shown.split("\n")[0];
      const short = shortened(line, 34);
      return el("button", { type: "button", class: "chip", dir: "auto", on: { click: () => take(example) } }, short);
    });
    row.replaceChildren(el("span", { class: "note", words: "examples" }), ...buttons);
  };
  fill();
  document.addEventListener("language", fill);
  return row;
}

/** The beginning of a line, as wide as so many Latin letters; Chinese characters are twice as wide. */
function shortened(line, columns) {
  let [shown, width] = ["", 0];
  for (const character of line) {
    width += character.codePointAt(0) >= 0x2e80 ? 2 : 1;
    if (width > columns) return `${shown.trimEnd()} …`;
    shown += character;
  }
  return line;
}

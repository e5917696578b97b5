// The live report of a run: asked again every few seconds, for as long as somebody looks at it.
import { Fault, patiently } from "./asking.js";
import { Chart, short } from "./curves.js";
import { currentLanguage, el, freshId, has, percent, setShare, t, wordless } from "./dom.js";
import { get, ServiceError } from "./service.js";
import { plainWarning } from "./warnings.js";

const EVERY_MILLISECONDS = { waiting: 3000, training: 2000, stopped: 10_000, finished: 30_000, gone: 5000 };
const SUSPICIOUS = 0.5;
const TILES = ["discriminator_auc", "generator_loss", "masked_language_model_accuracy", "loss"];

export function livePanel(names) {
  return new LivePanel(names).parts;
}

class LivePanel {
  constructor(names) {
    this.names = names;
    const id = freshId("run");
    this.select = el("select", { id, on: { change: () => this.start() } }, ...names.map((name) => el("option", { value: name }, name)));
    const choice =
      names.length > 1
        ? el("p", { class: "model" }, el("label", { for: id, words: "live.run" }), " ", this.select)
        : el("p", { class: "model" }, el("span", { words: "live.run" }), " ", el("span", { class: "model-name" }, names[0]));
    this.fault = new Fault();
    this.state = el("p", { class: "state" });
    this.status = el("p", { class: "unseen", role: "status" });
    this.progress = el("progress", { max: "1", label: "live.progress" });
    this.tiles = el("dl", { class: "tiles" });
    this.warnings = el("div", {});
    this.figures = el("div", { class: "curves" });
    this.examples = el("div", {});
    this.more = el("details", { class: "block" });
    this.report = el("div", { class: "report", hidden: true },
      el("div", { class: "state-row" }, this.state, this.progress), this.tiles,
      el("h3", { words: "live.warnings" }), this.warnings,
      el("h3", { words: "live.curves" }), this.figures, el("p", { class: "note", words: "live.lines" }),
      this.examples, this.more);
    this.waiting = el("p", { class: "notice", words: "loading" });
    this.parts = [choice, this.fault.element, this.waiting, this.report, this.status];
    document.addEventListener("language", () => this.display());
    // Nobody looks at a hidden page or panel.
    new IntersectionObserver(([entry]) => (entry.isIntersecting ? this.start() : this.stop())).observe(choice);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.stop();
      else if (choice.offsetParent !== null) this.start();
    });
  }

  stop() {
    this.running?.abort();
    this.running = undefined;
  }

  async start() {
    const name = this.select.value || this.names[0];
    if (this.running && this.name === name) return;
    this.stop();
    const running = (this.running = new AbortController());
    if (this.name !== name) this.begin(name);
    this.fault.clear();
    try {
      while (this.running === running) {
        // The newest step is asked again: its scores may be written after its losses.
        const after = Math.max(0, (this.points[this.points.length - 1]?.step ?? 0) - 1);
        const path = `runs/${encodeURIComponent(name)}?after_step=${after}`;
        const ask = () => get(path, running.signal);
        const told = await patiently(ask, (error) => this.fault.show(error), running.signal, this.fault.again).catch((error) => {
          if (error instanceof ServiceError && error.kind === "refused") return null; // somebody deleted the folder
          throw error;
        });
        if (this.running !== running) return;
        this.fault.clear();
        if (told === null) this.miss();
        else this.take(told);
        await new Promise((resolve) => setTimeout(resolve, EVERY_MILLISECONDS[told?.state ?? "gone"] ?? 5000));
      }
    } catch (error) {
      if (!running.signal.aborted) this.running = undefined;
    }
  }

  begin(name) {
    this.name = name;
    this.points = [];
    this.charts = new Map();
    this.told = undefined;
    this.shownExamples = [];
    this.figures.replaceChildren();
    this.report.hidden = true;
    this.waiting.hidden = false;
    wordless(this.status);
  }

  take(told) {
    // A run that begins anew, or goes on from a checkpoint, has lost what it did after that.
    if (this.told && this.told.began !== told.began) this.begin(this.name);
    const from = told.points[0]?.step ?? Infinity;
    this.points = this.points.filter((point) => point.step < from && point.step <= told.step).concat(told.points);
    if (told.examples !== null) this.shownExamples = told.examples;
    const before = this.told?.state;
    this.told = told;
    this.display();
    if (before !== told.state) this.status.textContent = [...this.state.children].map((part) => part.textContent).join(": ");
  }

  /** The folder of the run is gone: what it last told stays, and says that it is no longer so. */
  miss() {
    this.fault.say("live.gone");
    this.waiting.hidden = true;
    if (!this.told || this.told.state === "gone") return;
    this.told = { ...this.told, state: "gone", seconds_left: null };
    this.showState();
    this.status.textContent = t("live.gone");
  }

  display() {
    if (!this.told) return;
    this.waiting.hidden = true;
    this.report.hidden = false;
    this.showState();
    this.showWarnings();
    this.showFigures();
    this.showExamples();
    this.showConfiguration();
  }

  showState() {
    const { told } = this;
    const kind = told.task && has(`task.${told.task}`) ? t(`task.${told.task}`) : t(`kind.${told.kind}`);
    const sign = el("span", { class: `badge ${told.state}` }, t(`state.${told.state}`));
    const left = told.seconds_left === null ? "" : t("live.left", { time: duration(told.seconds_left) });
    this.state.replaceChildren(sign, el("span", {}, [kind, left].filter(Boolean).join(" · ")));
    this.progress.hidden = !told.steps;
    if (told.steps) this.progress.value = told.step / told.steps;
    const tiles = [[told.steps ? t("live.of", { all: told.steps }) : "live.steps", short(told.step, 1)]];
    if (told.tokens !== null) tiles.push(["live.tokens", short(told.tokens)]);
    if (told.seconds !== null) tiles.push(["live.time", duration(told.seconds)]);
    if ("tokens_per_second" in told.recent) tiles.push(["live.speed", short(told.recent.tokens_per_second, 1)]);
    const scores = told.kind === "fine-tuning" ? told.figures.find((figure) => figure.name === "scores")?.curves ?? [] : [];
    const shown = scores.length ? scores.slice(0, 2) : TILES.filter((name) => name in told.recent).slice(0, 2);
    for (const name of shown) {
      const value = told.best[name] ?? told.recent[name];
      const key = [`tile.${name}`, `curve.${name}`].find(has) ?? name;
      if (value !== undefined) tiles.push([key, short(value)]);
    }
    this.tiles.replaceChildren(...tiles.map(([key, value]) =>
      el("div", {}, el("dt", {}, has(key) ? t(key) : key), el("dd", {}, value))));
  }

  showWarnings() {
    const { warnings } = this.told;
    if (!warnings.length) {
      this.warnings.replaceChildren(el("p", { class: "healthy" }, el("span", { "aria-hidden": "true" }, "✓ "), t("live.healthy")));
      return;
    }
    const items = [...warnings].reverse().map(({ step, message }) => {
      const { text, isKnown } = plainWarning(message);
      // A message of another version is read in its own language, by a screen reader too.
      const own = isKnown ? el("span", {}, text) : el("span", { lang: "en", dir: "ltr" }, text);
      const isForeign = !isKnown && currentLanguage() !== "en";
      const about = isForeign ? el("span", { class: "note" }, t("live.untranslated"), " ") : null;
      return el("li", {}, el("span", { class: "when" }, t("live.at", { step })), about, own);
    });
    const list = (own) => el("ul", { class: "warnings" }, ...own);
    const all = [list(items.slice(0, 3))];
    if (items.length > 3) {
      const isOpen = this.warnings.querySelector("details")?.open;
      all.push(el("details", { open: Boolean(isOpen) }, el("summary", {}, t("live.older", { count: items.length - 3 })), list(items.slice(3))));
    }
    this.warnings.replaceChildren(...all);
  }

  showFigures() {
    const drawn = this.told.figures.map((figure) => {
      const known = this.charts.get(figure.name);
      const chart = known && String(known.figure.curves) === String(figure.curves) ? known : new Chart(figure);
      this.charts.set(figure.name, chart);
      return chart;
    });
    const elements = drawn.map((chart) => chart.element);
    const isSame = elements.length === this.figures.children.length && elements.every((one, place) => one === this.figures.children[place]);
    if (!isSame) this.figures.replaceChildren(...elements);
    if (!elements.length) this.figures.replaceChildren(el("p", { class: "note", words: "live.nothing" }));
    for (const chart of drawn) chart.update(this.points);
  }

  showExamples() {
    const shown = this.shownExamples;
    if (!shown.length) return this.examples.replaceChildren();
    const key = `${document.documentElement.lang} ${shown.map((one) => one.step)}`;
    if (this.examples.dataset.key === key) return undefined;
    this.examples.dataset.key = key;
    const rows = [...shown].reverse().map((example) =>
      el("article", { class: "example" }, el("h4", {}, t("live.at", { step: example.step })), exampleText(example.tokens)));
    return this.examples.replaceChildren(el("h3", { words: "live.examples" }), el("p", { class: "note", words: "live.examples.how" }), ...rows);
  }

  showConfiguration() {
    const { configuration, machine } = this.told;
    const key = `${document.documentElement.lang} ${configuration}`;
    if (this.more.dataset.key === key) return;
    this.more.dataset.key = key;
    const facts = Object.values(machine).length ? el("p", { class: "note" }, `${t("live.machine")} ${machine.device ?? ""}, ${machine.precision ?? ""}`) : null;
    this.more.replaceChildren(el("summary", { words: "live.configuration" }), ...(facts ? [facts] : []), el("pre", { tabindex: "0" }, configuration));
  }
}

/** A row that the discriminator read: shaded by its judgement, replaced words underlined and followed by the original. */
function exampleText(tokens) {
  const paragraph = el("p", { class: "shaded small", dir: "auto" });
  let isFirst = true;
  for (const { token, probability_replaced: probability, original } of tokens) {
    const goesOn = token.startsWith("##");
    const text = goesOn ? token.slice(2) : token;
    const isIdeograph = /^[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]+$/.test(text);
    if (!isFirst && !goesOn && !isIdeograph) paragraph.append(" ");
    isFirst = false;
    const span = setShare(el("span", { class: "word", title: percent(probability) }, text), probability, "--p");
    if (original === null) {
      paragraph.append(span);
      continue;
    }
    span.classList.add("replaced");
    const right = probability >= SUSPICIOUS ? t("live.found") : "";
    paragraph.append(span, " ", el("small", {}, original.replace(/^##/, ""), right ? el("span", { class: "tick", title: right }, "✓") : null));
  }
  return paragraph;
}

/** Seconds as people say them. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return t("time.seconds", { seconds: whole });
  if (whole < 600) return t("time.minutes", { minutes: Math.floor(whole / 60), seconds: whole % 60 });
  if (whole < 3600) return t("time.whole_minutes", { minutes: Math.round(whole / 60) });
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return t("time.hours", { hours, minutes: Math.floor((whole % 3600) / 60) });
  return t("time.days", { days: Math.floor(hours / 24), hours: hours % 24 });
}

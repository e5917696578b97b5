// The page: its tabs are what the loaded models can do, and the runs that are shown.
import { Fault, patiently } from "./asking.js";
import { currentLanguage, el, setLanguage, t, words, wordless } from "./dom.js";
import { livePanel } from "./live.js";
import { detectPanel } from "./panel_detect.js";
import { fillPanel } from "./panel_fill.js";
import { similarityPanel } from "./panel_similarity.js";
import { answerPanel, classifyPanel, regressPanel, tagPanel } from "./panel_texts.js";
import { generatePanel, summarizePanel, translatePanel } from "./panel_writing.js";
import { get, keepToken, onUnauthorized, ServiceError } from "./service.js";

const PANELS = {
  detect: detectPanel,
  fill: fillPanel,
  classify: classifyPanel,
  regress: regressPanel,
  tag: tagPanel,
  answer: answerPanel,
  summarize: summarizePanel,
  translate: translatePanel,
  generate: generatePanel,
  embed: similarityPanel,
};
const LIVE = "live";

const main = document.getElementById("main");
const tabs = document.getElementById("tabs");
const notice = document.getElementById("notice");
const places = new Map(); // the tab and the panel of each task

// ---- language and colours, both kept -------------------------------------------------------------------------------

function chooseLanguage(chosen) {
  setLanguage(chosen);
  const button = document.getElementById("language");
  button.textContent = chosen === "zh" ? "English" : "中文";
  button.lang = chosen === "zh" ? "en" : "zh";
  document.title = t("title");
  nameTheme();
}

function prefersDark() {
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : prefersDark();
}

function nameTheme() {
  words(document.getElementById("theme"), isDark() ? "theme.light" : "theme.dark");
}

function chooseTheme(chosen) {
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  nameTheme();
}

function kept(name) {
  try {
    return localStorage.getItem(`electrain-${name}`);
  } catch {
    return null; // a browser that keeps nothing
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`electrain-${name}`, value);
  } catch {
    // The page works without.
  }
}

document.getElementById("language").addEventListener("click", () => {
  const other = currentLanguage() === "zh" ? "en" : "zh";
  keep("language", other);
  chooseLanguage(other);
});
document.getElementById("theme").addEventListener("click", () => {
  const other = isDark() ? "light" : "dark";
  keep("theme", other);
  chooseTheme(other);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

// ---- the token -----------------------------------------------------------------------------------------------------

const dialog = document.getElementById("token");
const tokenForm = document.getElementById("token-form");
const tokenValue = document.getElementById("token-value");
const tokenWrong = document.getElementById("token-wrong");
let tokenWanted = null;

onUnauthorized((wasRefused) => {
  if (tokenWanted === null) {
    if (wasRefused) words(tokenWrong, "token.wrong");
    else wordless(tokenWrong);
    tokenValue.value = "";
    dialog.showModal();
    let settle;
    tokenWanted = { given: new Promise((resolve) => (settle = resolve)) };
    tokenWanted.settle = settle;
  }
  return tokenWanted.given;
});

tokenForm.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = tokenValue.value.trim();
  // What a header can hold.
  if (!/^[\x21-\x7e]+$/.test(token)) return words(tokenWrong, token ? "token.wrong" : "token.missing");
  keepToken(token);
  dialog.close();
});
dialog.addEventListener("close", () => {
  const wanted = tokenWanted;
  tokenWanted = null;
  wanted?.settle(Boolean(tokenValue.value.trim()));
});

// ---- tabs ----------------------------------------------------------------------------------------------------------

function addTab(task, parts) {
  const tab = el("button", {
    type: "button",
    id: `tab-${task}`,
    role: "tab",
    "aria-controls": `panel-${task}`,
    "aria-selected": "false",
    tabindex: "-1",
    words: `tab.${task}`,
    on: { click: () => select(task) },
  });
  const head = el("div", { class: "panel-head" }, el("h2", { words: `title.${task}` }), el("p", { words: `intro.${task}` }));
  const panel = el(
    "section",
    { id: `panel-${task}`, role: "tabpanel", "aria-labelledby": `tab-${task}`, class: "panel", hidden: true },
    head,
    ...parts,
  );
  tabs.append(tab);
  main.append(panel);
  places.set(task, { tab, panel });
}

function select(task, { focus = false, remember = true } = {}) {
  for (const [name, { tab, panel }] of places) {
    const isChosen = name === task;
    tab.setAttribute("aria-selected", String(isChosen));
    tab.tabIndex = isChosen ? 0 : -1;
    panel.hidden = !isChosen;
    if (isChosen && focus) tab.focus();
  }
  if (remember) history.replaceState(null, "", `#${task}`);
}

tabs.addEventListener("keydown", (event) => {
  const names = [...places.keys()];
  const now = names.findIndex((name) => places.get(name).tab === document.activeElement);
  const moves = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const ends = { Home: 0, End: names.length - 1 };
  let next = ends[event.key];
  if (event.key in moves) next = (now + moves[event.key] + names.length) % names.length;
  if (now < 0 || next === undefined) return;
  event.preventDefault();
  select(names[next], { focus: true });
});
addEventListener("hashchange", () => {
  const task = location.hash.slice(1);
  if (places.has(task)) select(task, { remember: false });
});

// ---- what the service can do ---------------------------------------------------------------------------------------

const fault = new Fault();
main.prepend(fault.element);

async function load() {
  const ask = async () => {
    const { models } = await get("models");
    const { runs } = await get("runs").catch((error) => {
      if (error instanceof ServiceError && error.kind === "refused") return { runs: [] };
      throw error;
    });
    return { models, runs };
  };
  let found;
  try {
    found = await patiently(ask, (error) => fault.show(error), undefined, fault.again);
  } catch {
    notice.hidden = true; // the fault says why, and its button tries again
    fault.again.hidden = false;
    fault.again.addEventListener("click", () => load(), { once: true });
    return;
  }
  fault.clear();
  const { models, runs } = found;
  for (const [task, panel] of Object.entries(PANELS)) {
    const able = models.filter((model) => model.tasks.includes(task));
    if (able.length) addTab(task, panel(able, models));
  }
  if (runs.length) addTab(LIVE, livePanel(runs));
  document.getElementById("sides").hidden = places.size < 2;
  document.body.classList.toggle("single", places.size < 2);
  notice.hidden = places.size > 0;
  if (!places.size) return void words(notice, "empty");
  const wanted = location.hash.slice(1);
  select(places.has(wanted) ? wanted : [...places.keys()][0], { remember: false });
}

const preferred = navigator.languages?.find((language) => /^(zh|en)\b/i.test(language)) ?? "en";
chooseLanguage(["en", "zh"].includes(kept("language")) ? kept("language") : preferred.slice(0, 2).toLowerCase());
chooseTheme(kept("theme"));
load();

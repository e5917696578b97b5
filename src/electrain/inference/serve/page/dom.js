// Elements, and words in the language of the page. All text reaches the page as text, never as markup.
import { STRINGS } from "./strings.js";

let language = "en";
const values = new WeakMap();

export function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-words], [data-label], [data-hint]")) refresh(element);
  document.dispatchEvent(new Event("language"));
}

export function currentLanguage() {
  return language;
}

function formatted(value, how) {
  const locale = language === "zh" ? "zh-CN" : "en";
  if (typeof value !== "number") return String(value);
  if (how === "percent") return percent(value);
  return new Intl.NumberFormat(locale, { maximumFractionDigits: 3 }).format(value);
}

/** A probability with a decimal, or more where it would look like none or certainty. */
export function percent(value) {
  const digits = value > 0 && value < 0.001 ? 3 : 1;
  const shown = (100 * value).toFixed(digits);
  return `${value < 1 && Number(shown) === 100 ? "99.9" : shown} %`;
}

/** A text of the table, with its {places} filled. */
export function t(key, given = {}) {
  const template = STRINGS[language][key] ?? STRINGS.en[key] ?? key;
  return template.replace(/\{(\w+)(?::(\w+))?\}/g, (whole, name, how) =>
    name in given ? formatted(given[name], how) : whole,
  );
}

/** Whether the table has this text. */
export function has(key) {
  return key in STRINGS.en;
}

function refresh(element) {
  const given = values.get(element) ?? {};
  const { words: text, label: name, hint } = element.dataset;
  if (text !== undefined) element.textContent = t(text, given);
  if (name !== undefined) element.setAttribute("aria-label", t(name, given));
  if (hint !== undefined) element.placeholder = t(hint, given);
}

/** Puts a text of the table into an element; it follows the language of the page. */
export function words(element, key, given = {}) {
  element.dataset.words = key;
  values.set(element, given);
  refresh(element);
  return element;
}

/** Takes such a text away again. */
export function wordless(element) {
  delete element.dataset.words;
  element.textContent = "";
  return element;
}

/** Gives an element a name for those who do not see it. */
export function label(element, key, given = {}) {
  element.dataset.label = key;
  values.set(element, given);
  refresh(element);
  return element;
}

/** An element. `words`, `label` and `hint` are keys of the table, and `given` fills their places; functions listen. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  const { words: text, label: name, hint, given, on = {}, ...others } = attributes;
  for (const [key, value] of Object.entries(others)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  for (const [event, listen] of Object.entries(on)) element.addEventListener(event, listen);
  if (given !== undefined) values.set(element, given);
  if (text !== undefined) element.dataset.words = text;
  if (name !== undefined) element.dataset.label = name;
  if (hint !== undefined) element.dataset.hint = hint;
  refresh(element);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let numbers = 0;

/** An id that no other element has. */
export function freshId(prefix) {
  numbers += 1;
  return `${prefix}-${numbers}`;
}

/** A number that the style sheet reads; the page's policy forbids style attributes, not this. */
export function setShare(element, value, name = "--share") {
  element.style.setProperty(name, String(Math.round(value * 10000) / 10000));
  return element;
}

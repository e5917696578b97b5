// What a run warns of, in plain words: each message of the journal as a text of the table, with its numbers.
import { t } from "./dom.js";

// Earlier versions worded some of them otherwise, and knew others; their runs are shown too.
const MESSAGES = [
  ["few_tokens", /^a step has (?<tokens>[\d,]+) tokens?; (?:runs with fewer than|steps below) about (?<fewest>[\d,]+)/],
  ["plateau", /^the (?<who>generator|model) has not learned from the context yet: its loss of (?<loss>[\d.]+) nats is (?:above|close to|that of)[^\d]*(?<frequency>[\d.]+)/],
  ["strong", /^little is left to detect: the generator restores (?<restored>[\d.]+%) .* only (?<replaced>[\d.]+%) of the tokens/],
  ["collapsed", /^the discriminator has collapsed: AUC (?<auc>[\d.]+) \(0\.5 is guessing\), recall (?<recall>[\d.]+)/],
  ["frequency", /^the discriminator \(AUC (?<auc>[\d.]+)\) is no better than word frequency alone \((?<baseline>[\d.]+)\)/],
  ["early", /^too early to tell how well the (?:run|model) learns: (?:it|the run) ends after (?<done>[\d,]+) (?<what>token|line)s?\b.*; judging takes (?<needed>[\d,]+)/],
  ["early_discriminator", /^too early to tell whether the discriminator learns .* has seen (?<done>[\d,]+) tokens, and is judged from (?<needed>[\d,]+) on/],
  ["refused", /^(?<count>[\d,]+) updates? (?:was|were) refused .*\((?<all>[\d,]+) in all\); after (?<most>\d+) in a row/],
  ["jump", /^the gradient norm jumped to (?<norm>[\d.e+-]+) from about (?<usual>[\d.e+-]+)/],
  ["one_word", /^the generator's choices have collapsed to (?<entropy>[\d.]+) nats/],
  ["few_words", /^the adversarial generator is losing its variety \(entropy (?<entropy>[\d.]+) nats\)/],
  ["won", /^the discriminator has won the game \(value (?<value>[\d.-]+),/],
  ["style", /^the discriminator learns the generator's style rather than the language/],
];

/** {text, isKnown}: the message in the language of the page, or as it stands where it is a new one. */
export function plainWarning(message) {
  for (const [name, pattern] of MESSAGES) {
    const found = pattern.exec(message);
    if (!found) continue;
    const given = { ...found.groups };
    if ("who" in given) given.who = t(`who.${given.who}`);
    if ("what" in given) given.what = t(given.done === "1" ? `one.${given.what}` : `what.${given.what}s`);
    return { text: t(`warning.${name}`, given), isKnown: true };
  }
  return { text: message, isKnown: false };
}

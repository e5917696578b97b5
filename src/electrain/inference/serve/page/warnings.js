// What a run warns of, in plain words: each message of the journal as a text of the table, with its numbers.
import { t } from "./dom.js";

const MESSAGES = [
  ["few_tokens", /^a step has (?<tokens>[\d,]+) tokens; runs with fewer than about (?<fewest>[\d,]+)/],
  ["plateau", /^the (?<who>generator|model) has not learned from the context yet: its loss of (?<loss>[\d.]+) nats is (?:above|close to) the (?<frequency>[\d.]+) nats/],
  ["strong", /^little is left to detect: the generator restores (?<restored>[\d.]+%) .* only (?<replaced>[\d.]+%) of the tokens/],
  ["collapsed", /^the discriminator has collapsed: AUC (?<auc>[\d.]+) \(0\.5 is guessing\), recall (?<recall>[\d.]+)/],
  ["frequency", /^the discriminator \(AUC (?<auc>[\d.]+)\) is no better than word frequency alone \((?<baseline>[\d.]+)\)/],
  ["early", /^too early to tell how well the run learns: it ends after (?<done>[\d,]+) (?<what>tokens|lines)(?: of the journal)?; judging takes (?<needed>[\d,]+)/],
  ["early_discriminator", /^too early to tell whether the discriminator learns .* has seen (?<done>[\d,]+) tokens, and is judged from (?<needed>[\d,]+) on/],
  ["refused", /^(?<count>[\d,]+) updates? (?:was|were) refused .*\((?<all>[\d,]+) in all\); after (?<most>\d+) in a row/],
  ["jump", /^the gradient norm jumped to (?<norm>[\d.e+-]+) from about (?<usual>[\d.e+-]+)/],
];

/** {text, isKnown}: the message in the language of the page, or as it stands where it is a new one. */
export function plainWarning(message) {
  for (const [name, pattern] of MESSAGES) {
    const found = pattern.exec(message);
    if (!found) continue;
    const given = { ...found.groups };
    for (const key of ["who", "what"]) if (key in given) given[key] = t(`${key}.${given[key]}`);
    return { text: t(`warning.${name}`, given), isKnown: true };
  }
  return { text: message, isKnown: false };
}

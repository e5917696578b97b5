"""Scores how well a pretrained model detects replaced tokens in text that it has not seen.

python examples/evaluate_from_python.py RUN
"""

import sys

import electrain

HELD_OUT = "the function returns a new list with the items that the caller asked for . "


def main() -> None:
    """Prints the area under the ROC curve, and what the scores depend on."""
    found = electrain.evaluate("detection", model=sys.argv[1], data=[{"text": HELD_OUT * 40}], rows=8, seed=0)
    print(f"AUC {found.scores['discriminator']['auc']:.3f} over {found.counts['scored_tokens']:,} tokens")
    print({name: found.settings[name] for name in ("model", "generator", "seed")})
    print(found.to_dict().keys())  # the JSON object that `electrain evaluate` prints


if __name__ == "__main__":
    main()

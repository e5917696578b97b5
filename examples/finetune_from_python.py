"""Fine-tunes an encoder on rows in memory, scores it on others, and asks it.

python examples/finetune_from_python.py MODEL OUTPUT
"""

import itertools
import sys

import electrain

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "poor", "dull", "awful")
THINGS = ("film", "book", "song", "meal", "trip", "game")


def rows(things: tuple[str, ...]) -> list[dict[str, str]]:
    """Invented reviews; a pandas DataFrame or the name of a file would do as well."""
    labelled = [(word, "good") for word in GOOD] + [(word, "bad") for word in BAD]
    return [
        {"text": f"the {thing} was {word} .", "label": label}
        for thing, (word, label) in itertools.product(things, labelled)
    ]


def main() -> None:
    """Prints validation scores, test scores, and answers."""
    model, output = sys.argv[1:]
    tuned = electrain.finetune(
        "classification",
        model=model,
        train=rows(THINGS[:4]),
        validation=rows(THINGS[4:5]),
        output=output,
        overrides={"training": {"epochs": 10, "batch_rows": 8}},
        allow_unknown=True,  # the encoder may come from a demo whose vocabulary lacks these words
    )
    print(f"validation: {tuned.scores}")
    found = electrain.evaluate("classification", model=tuned.output, data=rows(THINGS[5:]))
    print(f"test: {dict(found.scores)}")
    for answer in electrain.load(tuned.output).classify(["the game was lovely .", "the game was awful ."]):
        print(answer)
        print(answer.to_dict())


if __name__ == "__main__":
    main()

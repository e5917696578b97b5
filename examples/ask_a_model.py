"""Opens a model and asks it everything that it can do.

python examples/ask_a_model.py runs/demo/run
"""

import sys

import electrain

TEXTS = ["The function returns the value of its argument.", "The function returns the colour of its argument."]


def main() -> None:
    """Prints the answers for people, and one of them as JSON has it."""
    model = electrain.load(sys.argv[1])
    print(model)
    if "detect" in model.tasks:
        for answer in model.detect(TEXTS):
            print(answer)  # each token that was probably replaced is followed by its probability
            worst = max(answer.tokens, key=lambda token: token.probability_replaced)
            print(f"  most suspicious: {worst.token} {worst.probability_replaced:.2f}")
    if "fill" in model.tasks:
        print(model.fill("The function [MASK] a value.", candidates=3))
    if "embed" in model.tasks:
        one, other = (answer.embedding for answer in model.embed(TEXTS))
        product = sum(a * b for a, b in zip(one, other, strict=True))
        print(f"dot product of the two vectors: {product:.3f}")
    try:
        print(model.translate(TEXTS[0]))
    except electrain.ElectrainError as error:  # one line that says what is wrong, as for every mistake
        print(error)


if __name__ == "__main__":
    main()

"""Compares sentences with sentence-transformers, which opens the encoder of a run as it is.

python examples/sentence_vectors.py RUN/model
"""

import sys

from sentence_transformers import SentenceTransformer

import electrain

TEXTS = ["The function returns a list.", "A list is returned by the function.", "The weather is fine today."]


def main() -> None:
    """Prints the similarity of each pair of sentences; the vectors are those of `electrain predict embed`."""
    folder = sys.argv[1]
    model = SentenceTransformer(folder)
    vectors = model.encode(TEXTS)
    print(model.similarity(vectors, vectors))
    ours = electrain.load(folder).embed(TEXTS)
    furthest = max(
        abs(a - b)
        for one, answer in zip(vectors, ours, strict=True)
        for a, b in zip(one, answer.embedding, strict=True)
    )
    print(f"largest difference from electrain's own vectors: {furthest:.1e}")


if __name__ == "__main__":
    main()

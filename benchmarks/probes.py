"""Two cheap probes of a frozen encoder: what a linear classifier reads out of it.

Tagging: the tag of each word from its first piece. Sentiment: the label of a text from the mean of its pieces. The
features are the hidden states of all layers side by side, standardised; the classifier is multinomial logistic
regression. Nothing of the encoder is trained, so minutes of pretraining can be told apart in seconds.

    python benchmarks/probes.py --model RUN/model [MODEL...] --tagging-train FILE --tagging-test FILE
        --sentiment-train FILE --sentiment-test FILE
"""

import argparse
import csv
import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoTokenizer

from electrain.pretraining.probe import ProbeText, places_of, states_of

# Inverse strength of the L2 penalty on standardised features; of 0.001, 0.01, 0.1 and 1 the best, or within 0.3
# points of it, for both probes of an encoder trained for minutes.
INVERSE_PENALTY = 0.01


class FrozenEncoder:
    """An encoder folder as a function from words to features."""

    def __init__(self, folder: str, longest_row: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()
        self.longest_row = longest_row

    def features(self, rows: list[list[str]], *, is_pooled: bool) -> list[NDArray[np.float32]]:
        """For each row of words (words, layers, width), or (1, layers, width) where pooled; words cut off are left out.

        Layer 0 holds the embeddings.
        """
        encoded = self.tokenizer(rows, is_split_into_words=True, truncation=True, max_length=self.longest_row)
        texts = [
            ProbeText(np.array(ids, np.int64), places_of(encoded.word_ids(row), is_pooled=is_pooled), ())
            for row, ids in enumerate(encoded["input_ids"])
        ]
        return states_of(self.model, texts, self.tokenizer.pad_token_id)


@dataclass(frozen=True)
class Features:
    """What a frozen encoder says of labelled words or texts."""

    vectors: NDArray[np.float32]  # (examples, layers, width)
    labels: NDArray[np.str_]  # (examples,)


def features_of(encoder: FrozenEncoder, pairs: list[tuple[Any, Any]], *, is_pooled: bool) -> Features:
    """The features of pairs of words and their labels, or where pooled their one label."""
    vectors, labels = [], []
    found = encoder.features([words for words, _ in pairs], is_pooled=is_pooled)
    for of_row, (_, label) in zip(found, pairs, strict=True):
        vectors.append(of_row)
        labels.extend([label] if is_pooled else label[: len(of_row)])
    return Features(np.concatenate(vectors), np.array(labels))


def accuracies(train: Features, tests: list[Features], layer: int | None = None) -> list[float]:
    """Accuracies in per cent, on each of `tests`, of a linear classifier fitted to `train`.

    Args: layer: the one that it reads; None reads all layers side by side.
    """

    def read(features: Features) -> NDArray[np.float32]:
        count = len(features.vectors)
        return (features.vectors if layer is None else features.vectors[:, layer]).reshape(count, -1)

    scaler = StandardScaler().fit(read(train))
    classifier = LogisticRegression(C=INVERSE_PENALTY, max_iter=100, tol=1e-3)
    classifier.fit(scaler.transform(read(train)), train.labels)
    return [100 * float(classifier.score(scaler.transform(read(test)), test.labels)) for test in tests]


def probe(
    encoder: FrozenEncoder, train: list[tuple[Any, Any]], test: list[tuple[Any, Any]], *, is_pooled: bool
) -> float:
    """Accuracy in per cent on `test` of a linear classifier of all layers, fitted to `train`; pairs as above."""
    sets = [features_of(encoder, pairs, is_pooled=is_pooled) for pairs in (train, test)]
    return accuracies(sets[0], sets[1:])[0]


def read_tagged(path: Path, most: int) -> list[tuple[list[str], list[str]]]:
    """Sentences of a CoNLL file of words and tags."""
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            fields = line.split()
            if fields:
                sentences[-1][0].append(fields[0])
                sentences[-1][1].append(fields[-1])
            elif sentences[-1][0]:
                if len(sentences) == most:
                    break
                sentences.append(([], []))
    return [sentence for sentence in sentences if sentence[0]]


def read_labelled(path: Path, most: int) -> list[tuple[list[str], str]]:
    """Texts of a tsv file with the columns sentence and label."""
    with path.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        pairs = [(row["sentence"].split(), row["label"]) for row, _ in zip(table, range(most), strict=False)]
    return [pair for pair in pairs if pair[0]]


def main() -> None:
    """Prints one JSON object per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--tagging-train", type=Path, required=True)
    parser.add_argument("--tagging-test", type=Path, required=True)
    parser.add_argument("--sentiment-train", type=Path, required=True)
    parser.add_argument("--sentiment-test", type=Path, required=True)
    parser.add_argument("--tagging-sentences", type=int, default=1000)
    parser.add_argument("--sentiment-texts", type=int, default=2000)
    parser.add_argument("--longest-row", type=int, default=64)
    options = parser.parse_args()
    tagging = (read_tagged(options.tagging_train, options.tagging_sentences), read_tagged(options.tagging_test, 1000))
    sentiment = (
        read_labelled(options.sentiment_train, options.sentiment_texts),
        read_labelled(options.sentiment_test, 10_000),
    )
    for folder in options.model:
        encoder = FrozenEncoder(folder, options.longest_row)
        scores = {
            "tagging_accuracy": probe(encoder, *tagging, is_pooled=False),
            "sentiment_accuracy": probe(encoder, *sentiment, is_pooled=True),
        }
        print(json.dumps({"model": folder, **{name: round(value, 2) for name, value in scores.items()}}), flush=True)


if __name__ == "__main__":
    main()

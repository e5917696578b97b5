"""Writes pairs of a text and its first words, which teach a new decoder to copy before it learns to summarize.

python examples/learn_to_copy.py --train train.jsonl --output copies.jsonl
"""

import argparse
import json
from pathlib import Path

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.reading import read_examples
from electrain.finetuning.tasks.sequence_to_sequence import copying_pairs
from electrain.foundation.errors import ElectrainError


def main() -> None:
    """Writes one pair per training example; the first words are as long as the median summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--text-column", default="")
    parser.add_argument("--label-column", default="")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    columns = Columns(options.text_column, "", options.label_column)
    try:
        examples = read_examples("summarization", [options.train], columns).examples
    except ElectrainError as error:
        raise SystemExit(f"learn_to_copy: {error}") from None
    pairs = copying_pairs([example.text for example in examples], [example.target for example in examples])
    options.output.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), "utf-8")
    print(f"{options.output}: {len(pairs):,} texts and their first words")


if __name__ == "__main__":
    main()

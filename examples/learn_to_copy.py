"""Pairs of texts and their first words, as long as the summaries are: they teach a new decoder to copy.

python examples/learn_to_copy.py --train train.jsonl --output copies.jsonl
"""

import argparse
import json
import statistics
from pathlib import Path

from electrain.tasks.columns import Columns
from electrain.tasks.examples import read_examples
from electrain.tasks.sequence_to_sequence import first_words


def main() -> None:
    """One line for each example of the training file, whose summary gives no more than its length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--text-column", default="")
    parser.add_argument("--label-column", default="")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    columns = Columns(options.text_column, "", options.label_column)
    examples = read_examples("summarization", [options.train], columns).examples
    length = round(statistics.median(len(example.target) for example in examples))
    pairs = [{"text": example.text, "summary": first_words(example.text, length)} for example in examples]
    options.output.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), "utf-8")
    print(f"{options.output}: {len(pairs):,} texts and their first {length} characters")


if __name__ == "__main__":
    main()

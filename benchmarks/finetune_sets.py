"""The public data sets that `finetune_table.py` and `race.py` fine-tune on: their files, slices and settings."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from electrain.data.labelled.examples import TaskName

# Of tasks that write nothing: the better one of 1e-3 and 2e-3 on validation examples (docs/experiments.md).
LEARNING_RATE = 1e-3
# Few labels: so many training examples, with the epochs they need to be learned.
FEW_LABELS = {500: 20.0, 2000: 10.0}


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        task: of electrain.
        language: of the encoder: english or chinese.
        train, validation: file names in its folder.
        tests: names of test files, by what they show.
        shown: the score in the table.
        folder: where the files are, if not in a folder of the set's own name.
        train_examples, validation_examples, test_examples: slices; 0: all.
        few: trained on few labels as well.
        epochs: other than the recipe's, for two cores; 0: the recipe's.
        longest_tokens: other than the recipe's, for two cores; 0: the recipe's.
        references: column of further references.
        recipe: if not of the set's own name.
        words: the set is made of those rows of `folder` that hold one of these words; the test file "test_other.tsv"
            has the rows that do not.
        copies_of: before the targets the decoder learns to write the first words of these texts, as many as the targets
            have: file beside the sets' folders, its column of texts, and another column.
        learning_rate, word_embedding_rate_ratio: of a pretrained encoder where it is trained on all examples of the
            slice (docs/experiments.md).
        held_out: so many examples at the end of the training file are the validation set, where there is no other.
        quoting: of its .tsv files, where they are quoted as CSV is.
    """

    task: TaskName
    language: str
    train: str
    validation: str
    tests: dict[str, str]
    shown: str
    folder: str = ""
    train_examples: int = 0
    validation_examples: int = 0
    test_examples: int = 0
    few: bool = False
    epochs: float = 0.0
    longest_tokens: int = 0
    references: str = ""
    recipe: str = ""
    words: tuple[str, ...] = ()
    learning_rate: float = LEARNING_RATE
    word_embedding_rate_ratio: float = 1.0
    held_out: int = 0
    quoting: str = ""
    copies_of: tuple[str, ...] = ()


def _tables(language: str, task: TaskName, shown: str, suffix: str, **more: Any) -> DataSet:
    files = {"train": f"train.{suffix}", "validation": f"validation.{suffix}", "tests": {"test": f"test.{suffix}"}}
    return DataSet(task, language, **{**files, "shown": shown, **more})


SETS: dict[str, DataSet] = {
    "sst2": _tables(
        "english",
        "classification",
        "accuracy",
        "tsv",
        few=True,
        train_examples=20_000,
        word_embedding_rate_ratio=10,
    ),
    "cola": _tables(
        "english",
        "classification",
        "matthews",
        "tsv",
        tests={"in domain": "validation.tsv", "out of domain": "validation_out_of_domain.tsv"},
        quoting="csv",
    ),
    "stsb": _tables("english", "regression", "spearman", "tsv", quoting="csv"),
    "rte": _tables(
        "english", "classification", "accuracy", "tsv", tests={"validation": "validation.tsv"}, quoting="csv"
    ),
    "brown_pos": _tables("english", "tagging", "accuracy", "conll.gz", few=True, train_examples=20_000),
    "squad": _tables(
        "english",
        "question-answering",
        "f1",
        "json.gz",
        tests={"validation": "validation.json.gz"},
        train_examples=5_000,
        validation_examples=300,
        test_examples=1_000,
    ),
    "chnsenticorp": _tables(
        "chinese",
        "classification",
        "accuracy",
        "tsv",
        few=True,
        validation_examples=600,
        longest_tokens=128,
        learning_rate=5e-4,
        word_embedding_rate_ratio=10,
        quoting="csv",
    ),
    # Trained on reviews of hotels, tested on those of books and laptops too: what is learned of another domain.
    "chnsenticorp_hotels": _tables(
        "chinese",
        "classification",
        "accuracy",
        "tsv",
        tests={"in domain": "test.tsv", "out of domain": "test_other.tsv"},
        folder="chnsenticorp",
        longest_tokens=128,
        recipe="chnsenticorp",
        quoting="csv",
        words=("酒店", "宾馆", "房间", "入住", "前台", "早餐"),
    ),
    "people_daily_ner": _tables(
        "chinese", "tagging", "f1", "conll.gz", few=True, train_examples=10_000, validation_examples=1_000
    ),
    "cmrc2018": _tables(
        "chinese",
        "question-answering",
        "f1",
        "json.gz",
        tests={"validation": "validation.json.gz"},
        train_examples=2_500,
        validation_examples=200,
        test_examples=1_000,
    ),
    "aeslc": _tables(
        "english",
        "summarization",
        "rougeL",
        "jsonl.gz",
        validation_examples=200,
        test_examples=500,
        epochs=4,
        longest_tokens=128,
        references="reference_subjects",
    ),
    "csl_titles": _tables(
        "chinese", "summarization", "rougeL", "jsonl.gz", held_out=100, test_examples=500, epochs=10, longest_tokens=128
    ),
    "multi30k_en_de": _tables("english", "translation", "bleu", "jsonl.gz", validation_examples=200, epochs=8),
    "multi30k_de_en": _tables(
        "english", "translation", "bleu", "jsonl.gz", folder="multi30k_en_de", validation_examples=200, epochs=4
    ),
    "tatoeba_en_zh": _tables(
        "english", "translation", "bleu", "jsonl.gz", train_examples=15_000, validation_examples=200, epochs=4
    ),
    "tatoeba_zh_en": _tables(
        "chinese",
        "translation",
        "bleu",
        "jsonl.gz",
        folder="tatoeba_en_zh",
        train_examples=15_000,
        validation_examples=200,
        epochs=4,
    ),
    "classical_modern_zh": _tables(
        "chinese",
        "translation",
        "bleu",
        "jsonl.gz",
        train_examples=2_500,
        validation_examples=200,
        test_examples=500,
        epochs=4,
    ),
}

for _name, _epochs, _copies in (
    ("aeslc", 6.0, ("aeslc/train.jsonl.gz", "email", "subject")),
    ("csl_titles", 0.0, ("pretrain/chinese_wikipedia.train.parquet", "text", "title")),
):
    SETS[f"{_name}_after_copying"] = dataclasses.replace(
        SETS[_name], folder=_name, recipe=_name, epochs=_epochs, copies_of=_copies
    )

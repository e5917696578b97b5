"""A folder with small files of every name that the documents use, and what makes each command take a second in it."""

import gzip
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tiny_pretraining import invented_text

# Sizes and lengths that a page leaves to its preset, or sets for a real run.
SMALL_PRETRAINING = {
    "encoder.layers": "1",
    "encoder.hidden-size": "16",
    "encoder.feed-forward-size": "32",
    "encoder.heads": "2",
    "encoder.embedding-size": "0",
    "generator.size-fraction": "0.5",
    "data.sequence-length": "24",
    "training.steps": "6",
    "training.warmup-steps": "2",
    "training.batch-rows": "8",
    "training.micro-batch-rows": "0",
    "training.compile": "false",
    "training.precision": "float32",
}
SMALL_FINE_TUNING = {"training.epochs": "1", "data.train-examples": "0", "training.precision": "float32"}
SMALL_WRITING = {"generation.longest-output-tokens": "6", "generation.beams": "1", "data.validation-examples": "4"}
SMALL_VOCABULARY = "3000"  # a few articles in Chinese have that many different characters
# Names on the hub for which folders of that name stand in.
RELEASED = ("google/electra-small-discriminator", "google/electra-small-generator")


def reduced(words: Sequence[str]) -> list[str]:
    """A command of electrain, as the words after `electrain`, that trains something tiny in the same way."""
    verb = words[0]
    if verb == "tokenizer":
        return with_options(words, {"vocab-size": SMALL_VOCABULARY})
    if verb in ("pretrain", "plan"):
        return with_options(words, SMALL_PRETRAINING)
    if verb == "finetune":
        writes = words[1] in ("summarization", "translation")
        words = with_options(words, SMALL_FINE_TUNING | (SMALL_WRITING if writes else {}))
        recipe_learns_vocabulary = "multi30k_en_de" in words or "own" in words
        return with_options(words, {"decoder.vocabulary-size": "270"}) if recipe_learns_vocabulary else words
    return list(words)


def with_options(words: Sequence[str], options: dict[str, str]) -> list[str]:
    """The words with these options in place of what they were."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word.removeprefix("--") in options:
            skip = True
        else:
            kept.append(word)
    return kept + [word for name, value in options.items() for word in (f"--{name}", value)]


def write_files(folder: Path) -> None:
    """Every file that a page names and no command of it makes."""
    english = [" ".join(text.split()[:20]) + " ." for text in invented_text(160, seed=3)]
    chinese = ["".join(chr(0x4E00 + hash_of(word) % 60) for word in text.split()) + "。" for text in english]
    write_jsonl(folder / "held_out.jsonl", [{"text": text} for text in english[:40]])
    sequences = [{"text": "MKV" * 8 + text[:9].upper().replace(" ", "")} for text in english]
    write_jsonl(folder / "proteins.jsonl", sequences)
    for name in ("my_text", "my_corpus"):
        (folder / name).mkdir()
        with gzip.open(folder / name / "part.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps({"text": text}) + "\n" for text in english))
    both = [f"{one} {other}" for one, other in zip(chinese, english, strict=True)]
    write_parquet(folder / "wikipedia.parquet", both)
    write_parquet(folder / "held-out.parquet", both[:40])
    for split in ("train", "validation", "test"):
        rows = [f"{text[:60]}\t{number % 2}" for number, text in enumerate(english[:24])]
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", "utf-8")
        fields = [{"en": text[:30], "de": text[:20], "text": text[:40], "summary": text[:12]} for text in english[:16]]
        write_jsonl(folder / f"{split}.jsonl", fields)
        rows = [f"{text[:9]}\t{text[5:19]}\t{number % 5}" for number, text in enumerate(english[:24])]
        (folder / f"pairs-{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n", "utf-8")
        tagged = [
            "".join(f"{word} {'B-X' if place % 3 else 'O'}\n" for place, word in enumerate(text.split()[:6]))
            for text in english[:24]
        ]
        (folder / f"{split}.conll").write_text("\n".join(tagged), "utf-8")
        if split == "validation":
            (folder / "validation-300.conll").write_text("\n".join(tagged), "utf-8")
        questions = [
            {"id": text, "question": text[:9], "context": text, "answers": {"text": [text[:3]], "answer_start": [0]}}
            for text in english[:16]
        ]
        write_jsonl(folder / f"questions-{split}.jsonl", questions)
    pairs = [
        {"sentence_good": text[:19], "sentence_bad": text[19::-1], "UID": "u", "linguistics_term": "t", "field": "f"}
        for text in english[:4]
    ]
    write_jsonl(folder / "blimp.jsonl", pairs)
    with gzip.open(folder / "blimp.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write((folder / "blimp.jsonl").read_text("utf-8"))
    (folder / "reviews.txt").write_text("\n".join(english[:24]) + "\n", "utf-8")


def write_real_chinese(folder: Path) -> bool:
    """Puts a few real Chinese articles and reviews in place of invented ones; False where ELECTRAIN_DATA names none."""
    source = Path(os.environ.get("ELECTRAIN_DATA", ""))
    articles = source / "pretrain" / "chinese_wikipedia.train.parquet"
    reviews = source / "chnsenticorp" / "train.tsv"
    if not (articles.is_file() and reviews.is_file()):
        return False
    from pyarrow import parquet

    texts = [text[:600] for text in parquet.read_table(articles, columns=["text"])["text"].slice(0, 80).to_pylist()]
    rows = [line.rsplit("\t", 1) for line in reviews.read_text("utf-8").splitlines()[1:61]]
    lines = [f"{text[:80]}\t{label}" for text, label in rows]
    for name in ("wikipedia.parquet", "held-out.parquet", "train.tsv", "validation.tsv", "test.tsv"):
        (folder / name).unlink()
    write_parquet(folder / "wikipedia.parquet", texts[:60] + [text for text, _ in rows])
    write_parquet(folder / "held-out.parquet", texts[60:])
    for split in ("train", "validation", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", "utf-8")
    return True


def hash_of(word: str) -> int:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(word))


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def write_parquet(path: Path, texts: Sequence[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": list(texts)}), path)


def link_files(template: Path, folder: Path) -> None:
    """The files of a template in a folder of their own: small ones copied, folders of models linked."""
    for entry in template.iterdir():
        target = folder / entry.name
        if entry.is_dir():
            shutil.copytree(entry, target, copy_function=os.link)
        else:
            shutil.copy(entry, target)

"""Damaged tables, sentences, questions and texts: every read ends in a value or in one line.

More cases: ELECTRAIN_FUZZ_CASES=100000 python -m pytest tests/fuzz -k tables
"""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from damage import CASES, damaged, draws_of, ends_of
from electrain.data.labelled.columns import Columns
from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.reading import read_examples
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.inference.evaluate.blimp import read_minimal_pairs

TEXTS = ["the cat sees", "ein Hund läuft", "a", "猫 坐在 垫子 上", 'a "quoted" text, with a comma', "x" * 300] * 4
LABELS = ["a", "b", "d", "a", "c", "b"] * 4


def _delimited(delimiter: str) -> bytes:
    rows = [f'"{text}"{delimiter}{label}' for text, label in zip(TEXTS, LABELS, strict=True)]
    rows = [row.replace('a "quoted"', 'a ""quoted""') if delimiter == "," else row.replace('"', "") for row in rows]
    return "\n".join([f"text{delimiter}label", *rows]).encode()


def _json_lines(**columns: list[object]) -> bytes:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _table() -> pa.Table:
    return pa.table(
        {
            "text": TEXTS,
            "label": pa.array(LABELS).dictionary_encode(),
            "words": [text.split() for text in TEXTS],
            "number": pa.array(range(len(TEXTS)), pa.float32()),
            "when": pa.array(range(len(TEXTS)), pa.timestamp("ns")),
        }
    )


def _parquet(compression: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(_table(), buffer, compression=compression, row_group_size=10)
    return buffer.getvalue()


def _arrow(writer: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    buffer, table = io.BytesIO(), _table()
    with writer(buffer, table.schema) as file:
        file.write_table(table, max_chunksize=10)
    return buffer.getvalue()


def _squad() -> bytes:
    qas = [
        {"id": f"q{number}", "question": "who sees?", "answers": [{"text": "cat", "answer_start": 4}]}
        for number in range(4)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": "the cat sees", "qas": qas}]}]}).encode()


CONLL = b"-DOCSTART- O\n\nthe O\ncat B-PER\nsees O\n\na O\ndog B-PER\nx I-PER\n\n" * 3
CONLLU = b"# text = a cat\n1\ta\ta\tDET\t_\t_\t2\tdet\t_\t_\n2\tcat\tcat\tNOUN\t_\t_\t0\troot\t_\t_\n\n" * 3
FILES: dict[str, tuple[TaskName, bytes]] = {
    "csv": ("classification", _delimited(",")),
    "tsv": ("classification", _delimited("\t")),
    "jsonl": ("classification", _json_lines(text=TEXTS, label=LABELS)),
    "parquet": ("classification", _parquet("snappy")),
    "zstd.parquet": ("classification", _parquet("zstd")),
    "arrow": ("classification", _arrow(pa.ipc.new_file)),
    "stream.arrow": ("classification", _arrow(pa.ipc.new_stream)),
    "conll": ("tagging", CONLL),
    "conllu.conll": ("tagging", CONLLU),
    "json": ("question-answering", _squad()),
    "numbers.jsonl": ("regression", _json_lines(text=TEXTS, score=[0.5] * len(TEXTS))),
    "pairs.csv": ("summarization", _delimited(",").replace(b"label", b"summary")),
}
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("name", FILES)
def test_labelled_tables(tmp_path: Path, name: str) -> None:
    task, content = FILES[name]
    path = tmp_path / f"t.{name}"

    def read(case: int) -> None:
        draws = draws_of(name, case)
        path.write_bytes(damaged(content, draws) if case else content)
        with_targets, skips = draws.random() < 0.7, draws.random() < 0.5
        read_examples(task, [str(path)], Columns(), with_targets=with_targets, skip_broken=skips)

    ends_of(read, range(CASES))


@pytest.mark.parametrize("name", [*(name for name in FILES if "conll" not in name and name != "json"), "txt"])
def test_corpora_of_tables(tmp_path: Path, name: str) -> None:
    content = "\n".join(TEXTS).encode() if name == "txt" else FILES[name][1]
    path = tmp_path / f"t.{name}"

    def read(case: int) -> None:
        draws = draws_of(f"corpus {name}", case)
        path.write_bytes(damaged(content, draws) if case else content)
        separator = draws.choice((None, "\\n", "the"))
        form = CorpusFormat(document_separator=separator, strict=draws.random() < 0.3)
        for document in read_documents([str(path)], form, counts=CorpusCounts()):
            assert document.text.encode()  # what is passed on can be written

    ends_of(read, range(CASES))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_tables(tmp_path: Path, compression: str) -> None:
    """The damage is done to the compressed bytes."""

    def read(case: int) -> None:
        draws = draws_of(compression, case)
        name = draws.choice(("csv", "jsonl", "txt", "parquet"))
        content = "\n".join(TEXTS).encode() if name == "txt" else FILES[name][1]
        path = tmp_path / f"t.{name}{compression}"
        whole = COMPRESSIONS[compression](content)
        path.write_bytes(damaged(whole, draws) if case else whole)
        list(read_documents([str(path)], counts=CorpusCounts()))

    ends_of(read, range(CASES))


def test_minimal_pairs_of_tables(tmp_path: Path) -> None:
    fields = ("sentence_good", "sentence_bad", "UID", "linguistics_term", "field")
    content = _json_lines(**{field: list(TEXTS) for field in fields})
    path = tmp_path / "pairs.jsonl"

    def read(case: int) -> None:
        path.write_bytes(damaged(content, draws_of("blimp", case)) if case else content)
        read_minimal_pairs(path)

    ends_of(read, range(CASES))

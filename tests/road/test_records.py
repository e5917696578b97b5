"""Labelled data of every format becomes the same examples; a file that is broken is told with its line."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from electrain.data.labelled.examples import QuestionExample, TaggedExample, TextExample
from electrain.data.labelled.reading import Columns, read_examples
from electrain.data.labelled.records import read_records
from electrain.foundation.errors import DataError
from labelled_files import jsonl, read, written

ROWS = [
    {"sentence": 'a "quoted" film', "label": "good"},
    {"sentence": "nicht übel, aber lang", "label": "bad"},
    {"sentence": "好电影", "label": "good"},
]
SENTENCES = [(["Ada", "lives"], ["B-PER", "O"]), (["北", "京", "#"], ["B-LOC", "I-LOC", "O"])]
TAGGED_ROWS = [{"tokens": words, "ner_tags": tags} for words, tags in SENTENCES]
CONTEXT = "Ada 住在 London.\nShe  writes."
QUESTION_ROWS = [
    {"id": "q1", "question": "Where?", "context": CONTEXT, "answers": {"text": ["London"], "answer_start": [7]}},
    {"id": "q2", "question": "Who?", "context": CONTEXT, "answers": {"text": ["Ada", "She"], "answer_start": [0, 15]}},
]
SQUAD = {
    "version": "x",
    "data": [
        {
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {"id": "q1", "question": "Where?", "answers": [{"text": "London", "answer_start": 7}]},
                        {
                            "id": "q2",
                            "question": "Who?",
                            "answers": [{"text": "Ada", "answer_start": 0}, {"text": "She", "answer_start": 15}],
                        },
                    ],
                }
            ]
        }
    ],
}


def zstandard(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard,
}


def delimited(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    if delimiter == "\t":
        return "".join("\t".join(row) + "\n" for row in [list(rows[0]), *(list(row.values()) for row in rows)]).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


def arrow(rows: list[dict[str, Any]]) -> bytes:
    sink, table = pyarrow.BufferOutputStream(), pyarrow.Table.from_pylist(rows)
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def conll(separator: str) -> bytes:
    blocks = ["\n".join(separator.join([w, t]) for w, t in zip(*sentence, strict=True)) for sentence in SENTENCES]
    return ("-DOCSTART- O\n\n" + "\n\n\n".join(blocks) + "\n").encode()


TABLES = {
    "a.tsv": delimited(ROWS, "\t"),
    "a.csv": b"\xef\xbb\xbf" + delimited(ROWS, ","),
    "a.jsonl": jsonl(ROWS),
    "a.parquet": parquet(ROWS),
    "a.arrow": arrow(ROWS),
}
TAGGED = {
    "a.conll": conll("\t"),
    "a.txt": conll(" "),
    "a.bio": conll(" NN 1 "),
    "a.iob": conll("  ").replace(b"\n", b"\r\n"),
    "a.jsonl": jsonl(TAGGED_ROWS),
    "a.parquet": parquet(TAGGED_ROWS),
    "a.arrow": arrow(TAGGED_ROWS),
}
QUESTIONS = {
    "a.json": json.dumps(SQUAD, indent=1).encode(),
    "a.jsonl": jsonl(QUESTION_ROWS),
    "a.parquet": parquet(QUESTION_ROWS),
    "a.arrow": arrow(QUESTION_ROWS),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", TABLES)
def test_tables_in_every_format_and_compression(tmp_path: Path, name: str, suffix: str) -> None:
    path = written(tmp_path / (name + suffix), COMPRESS[suffix](TABLES[name]))
    found = read(path)
    assert [(example.first, example.labels) for example in found] == [(r["sentence"], (r["label"],)) for r in ROWS]
    places = {"a.jsonl": [":1", ":3", ":5"], "a.tsv": [":2", ":3", ":4"], "a.csv": [":2", ":3", ":4"]}
    expected = places.get(name, [": row 0", ": row 1", ": row 2"])
    assert [example.source for example in found] == [f"{path}{place}" for place in expected]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", TAGGED)
def test_tagged_sentences_in_every_format_and_compression(tmp_path: Path, name: str, suffix: str) -> None:
    path = written(tmp_path / (name + suffix), COMPRESS[suffix](TAGGED[name]))
    found = read(path, "tagging")
    assert [(list(example.words), list(example.tags)) for example in found] == SENTENCES
    places = {"a.jsonl": [":1", ":3"], "a.parquet": [": row 0", ": row 1"], "a.arrow": [": row 0", ": row 1"]}
    assert [example.source for example in found] == [f"{path}{place}" for place in places.get(name, [":3", ":7"])]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_in_every_format_and_compression(tmp_path: Path, name: str, suffix: str) -> None:
    path = written(tmp_path / (name + suffix), COMPRESS[suffix](QUESTIONS[name]))
    found = read(path, "question-answering")
    places = {"a.json": [": question q1", ": question q2"], "a.jsonl": [":1", ":3"]}.get(name, [": row 0", ": row 1"])
    assert found == [
        QuestionExample("q1", "Where?", CONTEXT, (("London", 7),), f"{path}{places[0]}"),
        QuestionExample("q2", "Who?", CONTEXT, (("Ada", 0), ("She", 15)), f"{path}{places[1]}"),
    ]


def test_a_header_in_the_middle_is_told_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\nt,x\n\ufefftext,label\nu,y\n")
    with pytest.raises(DataError, match=r"a.csv:3: the header once more"):
        read(path)
    assert [one.first for one in read(path, skip_broken=True)] == ["t", "u"]
    assert len(read(written(tmp_path / "b.csv", "text\ntext\n"), with_targets=False)) == 1  # a text, as any other


def test_nameless_columns_of_spreadsheets_are_passed_over(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.csv", "text,label,,\nt,x,,\nu,y,,\n"))
    assert [(one.first, one.labels) for one in found] == [("t", ("x",)), ("u", ("y",))]


def test_what_an_annotator_rejected_is_not_learned(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": "x", "answer": answer, "_task_hash": 1} for answer in ("accept", "reject", "ignore")]
    path = written(tmp_path / "a.jsonl", jsonl(rows))
    with pytest.raises(DataError, match=r'a.jsonl:3: "answer" is "reject", so that the label is not true'):
        read(path)
    assert len(read(path, skip_broken=True)) == 1
    assert len(read(path, with_targets=False)) == 3


def test_folders_globs_and_several_sources(tmp_path: Path) -> None:
    written(tmp_path / "b.tsv", "text\tlabel\none\tx\n")
    written(tmp_path / "a.jsonl", '{"text": "two", "label": "x"}')
    written(tmp_path / "notes.md", "nothing")
    written(tmp_path / ".hidden.tsv", "text\tlabel\nhidden\tx\n")
    assert [example.first for example in read(tmp_path)] == ["two", "one"]
    assert [example.first for example in read(tmp_path / "*.tsv")] == ["one"]
    both = read_examples("classification", [str(tmp_path / "b.tsv"), str(tmp_path / "a.jsonl")], Columns())
    assert [example.first for example in both.examples] == ["one", "two"]


def test_hub_data_set_gives_its_labels_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-PER"])),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
        }
    )
    columns = {"tokens": [["Ada", "left"]], "ner_tags": [[1, 0]], "text": ["fine"], "label": [1]}
    rows = datasets.Dataset.from_dict(columns, features=features)
    unlabelled = datasets.Dataset.from_dict(columns | {"label": [-1]}, features=features)
    datasets.DatasetDict({"train": rows, "test": unlabelled}).save_to_disk(tmp_path / "saved")
    rows.to_parquet(tmp_path / "rows.parquet")
    for source in (f"hub:{tmp_path}/saved", tmp_path / "rows.parquet"):
        assert read(source) == [TextExample("fine", labels=("good",), source=f"{source}: row 0")]
        assert read(source, "tagging") == [TaggedExample(("Ada", "left"), ("B-PER", "O"), f"{source}: row 0")]
    with pytest.raises(DataError, match=r'saved:test: row 0: no label in "label"'):
        read(f"hub:{tmp_path}/saved:test")
    with pytest.raises(DataError, match="cannot be opened"):
        read(f"hub:{tmp_path}/saved:nosuch")


COMMENTS = """# text = one # two
# id 7
The D
# D
pound N

# N
10 D

# newpar
"""


def test_comments_are_told_from_the_word(tmp_path: Path) -> None:
    """A "# " line is a word inside a sentence, and before it where its tag occurs elsewhere; else a comment."""
    found = read(written(tmp_path / "a.conll", COMMENTS), "tagging")
    assert [example.words for example in found] == [("The", "#", "pound"), ("#", "10")]
    assert [example.source[-2:] for example in found] == [":3", ":7"]
    found = read(written(tmp_path / "b.conll", "# one two\tx\n#\tO\nNew York\tB\n"), "tagging")
    assert [example.words for example in found] == [("#", "New York")]


def test_words_without_tags_are_enough_to_predict(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "Ada\nleft\n\nShe\n")
    assert read(path, "tagging", with_targets=False) == [
        TaggedExample(("Ada", "left"), (), f"{path}:1"),
        TaggedExample(("She",), (), f"{path}:4"),
    ]


# Files with many control characters are refused as binary.
CONTROLS = "".join(map(chr, [*range(9), *range(11, 13), *range(14, 32)]))
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS), max_size=20)
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=CONTROLS + "\t\n\r"), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(TEXTS, CELLS), min_size=1, max_size=6))
def test_any_table_is_read_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """Every format gives the values that were written; .tsv cannot hold its own separators."""
    table = [{"text": text, "label": "x" + cell} for text, cell in rows]
    flat = [{"text": cell, "label": "x" + cell} for _, cell in rows]
    contents = {"a.jsonl": jsonl(table), "a.parquet": parquet(table), "a.csv": delimited(table, ",")}
    contents["a.tsv"] = delimited(flat, "\t")
    for name, content in contents.items():
        path = written(tmp_path / name, content)
        found = [record.values for record in read_records([str(path)], kind="table")]
        assert found == (flat if name == "a.tsv" else table), name

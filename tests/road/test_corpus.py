"""Every form of corpus is read into the same documents; what cannot be read is told in one line."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from electrain.data.text import text_files
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.foundation.errors import DataError

TEXTS = ["First document, with an é.", "第二篇文章。", '"Third is quoted, with a comma']


def texts(*sources: object, **options: object) -> list[str]:
    """The texts of the documents, pieces joined."""
    found, held = [], ""
    for document in read_documents(list(map(str, sources)), CorpusFormat(**options), counts=CorpusCounts()):  # type: ignore[arg-type]
        held = f"{held} {document.text}".strip()
        if not document.continues:
            found.append(held)
            held = ""
    assert not held
    return found


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in TEXTS), "utf-8")


def write_csv(path: Path) -> None:
    rows = ["id,text", *('1,"{}"'.format(text.replace('"', '""')) for text in TEXTS)]
    path.write_text("\r\n".join(rows), "utf-8")


def write_tsv(path: Path) -> None:
    path.write_text("\n".join(["text\tid", *(f"{text}\t1" for text in TEXTS)]) + "\n", "utf-8")


def write_txt(path: Path) -> None:
    path.write_text("\n\n".join(TEXTS), "utf-8")


def write_parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "text": TEXTS}), path, row_group_size=2)


def write_arrow_file(path: Path) -> None:
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_arrow_stream(path: Path) -> None:
    table = pyarrow.table({"text": TEXTS})
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def zstandard(content: bytes) -> bytes:
    """Two frames, as `zstd` makes of concatenated files."""
    frames = []
    for part in (content[:10], content[10:]):
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(part)
        frames.append(sink.getvalue().to_pybytes())
    return b"".join(frames)


WRITERS: dict[str, Callable[[Path], None]] = {
    "corpus.txt": write_txt,
    "corpus.jsonl": write_jsonl,
    "corpus.csv": write_csv,
    "corpus.tsv": write_tsv,
    "corpus.parquet": write_parquet,
    "corpus.arrow": write_arrow_file,
    "corpus.stream.arrow": write_arrow_stream,
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard,
}


@pytest.mark.parametrize("suffix", ["", *COMPRESS])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_and_compression(tmp_path: Path, name: str, suffix: str) -> None:
    WRITERS[name](tmp_path / name)
    path = tmp_path / (name + suffix)
    if suffix:
        path.write_bytes(COMPRESS[suffix]((tmp_path / name).read_bytes()))
    assert texts(path, document_separator="\\n\\n") == TEXTS


def test_folder_and_glob_are_read_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "read.me").write_text("not text")
    (tmp_path / ".hidden.txt").write_text("hidden")
    assert texts(tmp_path) == ["two", "one"]
    assert texts(tmp_path / "**" / "*.txt") == ["two", "one"]
    assert texts(tmp_path / "deep", tmp_path / "b.txt") == ["one", "two"]


def test_saved_hub_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk(tmp_path / "several")
    assert texts(f"hub:{tmp_path}/one") == TEXTS
    assert texts(f"hub:{tmp_path}/several:test") == TEXTS[2:]
    with pytest.raises(DataError, match=r"no column \"body\"; .*: text, label"):
        texts(f"hub:{tmp_path}/one", text_column="body")
    with pytest.raises(DataError, match="cannot be opened"):
        texts(f"hub:{tmp_path}/several:nosuch")


def test_hub_data_set_is_streamed_by_its_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl")
    assert texts(f"hub:{folder}") == TEXTS
    assert texts(f"hub:{folder}:train") == TEXTS


def test_documentation_is_read_without_importing() -> None:
    program = (
        "import sys; from electrain.data.text.corpus import *; c = CorpusCounts()\n"
        "d = [next(r) for r in [read_documents(['builtin:documentation'], counts=c)] for _ in range(140)]\n"
        "assert any(x.source.startswith('topic') for x in d) and any(x.source == 'argparse.py' for x in d)\n"
        "assert 'asyncore' not in sys.modules and 'antigravity' not in sys.modules and len({x.text for x in d}) == 140"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_long_file_is_one_document_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "PIECE_CHARACTERS", 100)
    monkeypatch.setattr(text_files, "_BLOCK_CHARACTERS", 130)
    words = [f"word{number}" for number in range(300)]
    (tmp_path / "long.txt").write_text(" ".join(words) + "   ")
    counts = CorpusCounts()
    pieces = list(read_documents([str(tmp_path / "long.txt")], counts=counts))
    assert [piece.continues for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert max(len(piece.text) for piece in pieces) <= 100
    assert " ".join(piece.text for piece in pieces).split() == words
    assert counts.documents == 1


@pytest.mark.parametrize("block", [3, 7, 50, 1000])
def test_separator_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_CHARACTERS", block)
    monkeypatch.setattr(text_files, "PIECE_CHARACTERS", 20)
    documents = ["a b c", "x" * 50, "some words and some more words", "", "end"]
    (tmp_path / "a.txt").write_text("<|end|>".join(documents))
    found = texts(tmp_path / "a.txt", document_separator="<|end|>")
    assert [text.replace(" ", "") for text in found] == [text.replace(" ", "") for text in documents if text]


@pytest.mark.parametrize("block", [2, 1000])
@pytest.mark.parametrize(
    ("content", "documents", "empty"),
    [
        ("one\ntwo\n", 2, 0),
        ("one\ntwo", 2, 0),
        ("one\n\ntwo\n", 2, 1),  # a blank line is an empty document
        ("one\n" + "x" * 50 + "\n", 2, 0),
        ("one\n" + "y " * 25 + "\n  ", 2, 0),
    ],
)
def test_the_line_break_at_the_end_of_a_file_begins_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, content: str, documents: int, empty: int
) -> None:
    monkeypatch.setattr(text_files, "_BLOCK_CHARACTERS", block)
    monkeypatch.setattr(text_files, "PIECE_CHARACTERS", 20)
    (tmp_path / "a.txt").write_text(content)
    counts = CorpusCounts()
    list(read_documents([str(tmp_path / "a.txt")], CorpusFormat(document_separator="\\n"), counts=counts))
    assert (counts.documents, counts.empty_documents) == (documents, empty)


def test_dropped_text_is_counted_and_said(tmp_path: Path) -> None:
    content = "\ufeffA caf\u00e9\x00 with\u200b\n\n a\ttab".encode() + b" and \xe9\xff bytes " + b"word " * 20
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "b.jsonl").write_text('{"text": "  "}\n\n{"text": null}\n{"text": "lone \\ud83d surrogate"}\n')
    counts = CorpusCounts()
    found = list(read_documents([str(tmp_path)], counts=counts))
    assert found[0].text.startswith("A café with a tab and bytes word")
    assert found[1].text == "lone surrogate"
    assert counts == CorpusCounts(2, sum(len(document.text.encode()) for document in found), 2, 0, 3, 2)
    assert "2 bytes that are not UTF-8" in counts.describe()
    assert "3 control characters" in counts.describe()


def test_strict_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"a.jsonl:2: bytes that are not UTF-8"):
        texts(tmp_path / "a.jsonl", strict=True)


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "missing": ("missing.txt", b"", "no such file, folder or glob"),
    "empty": ("empty.txt", b"", "is empty"),
    "blank": ("blank.txt", b" \n ", "no document holds any text"),
    "binary": ("binary.txt", bytes(range(256)) * 40, "not UTF-8 text"),
    "utf-16": ("utf16.txt", "plain text".encode("utf-16"), "not UTF-8 text"),
    "unknown format": ("text.docx", b"word", "unknown format"),
    "broken line": ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', r"a.jsonl:2: not valid JSON"),
    "not an object": ("a.jsonl", b'"text"\n', r"a.jsonl:1: not a JSON object"),
    "no field": ("a.jsonl", b'{"body": "a", "title": "b"}\n', 'no column "text"; .*: body, title'),
    "not text": ("a.jsonl", b'{"text": 5}\n', "holds int, not text"),
    "no csv column": ("a.csv", b"id,body\n1,a\n", 'no column "text"; .*: id, body'),
    "short csv row": ("a.csv", b"id,text\n1,a\n2\n", r"a.csv:3: 1 field, but the header has 2"),
    "no parquet": ("a.parquet", b"PAR1 nothing PAR1", "truncated or damaged"),
    "no arrow": ("a.arrow", b"ARROW1 nothing", "truncated or damaged"),
    "no gzip": ("a.txt.gz", b"plain text", "truncated or damaged"),
    "no xz": ("a.txt.xz", b"plain text", "truncated or damaged"),
    "no bzip2": ("a.txt.bz2", b"plain text", "truncated or damaged"),
    "no zstandard": ("a.txt.zst", b"plain text", "truncated or damaged"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_input_is_told_in_one_line(tmp_path: Path, case: str) -> None:
    name, content, message = BROKEN[case]
    if case != "missing":
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        texts(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.parquet"])
def test_truncated_archive(tmp_path: Path, name: str, suffix: str) -> None:
    WRITERS[name](tmp_path / name)
    content = COMPRESS[suffix]((tmp_path / name).read_bytes() + b"\n" * 10_000)
    path = tmp_path / (name + suffix)
    path.write_bytes(content[: len(content) - 12])
    with pytest.raises(DataError, match="truncated or damaged"):
        texts(path)


@pytest.mark.parametrize("column", ["parquet", "arrow"])
def test_missing_table_column_names_those_that_exist(tmp_path: Path, column: str) -> None:
    path = tmp_path / f"corpus.{column}"
    WRITERS[path.name](path)
    with pytest.raises(DataError, match=r'no column "body"; give one of these with --text-column: .*text'):
        texts(path, text_column="body")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in this folder"):
        texts(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.txt").write_text("text")
    monkeypatch.setattr("electrain.data.text.compression._open", refuse)
    with pytest.raises(DataError, match=r"a.txt: cannot be read \(Permission denied\)"):
        texts(tmp_path / "a.txt")

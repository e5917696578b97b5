"""Corpora in a code page are refused with the command that converts them; a few damaged bytes are left out."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from command_line import command
from electrain.data.text import invalid_bytes
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.foundation.errors import DataError

GERMAN = "Im Mittelpunkt der Ausstellung stehen zwei Bilder, die bisher nicht gezeigt wurden, und ein Brief. "
TEXTS = [f"{GERMAN}Die Straße führt über die Brücke, Nummer {number}." for number in range(40)]


def read(path: Path, **options: bool) -> CorpusCounts:
    counts = CorpusCounts()
    list(read_documents([str(path)], CorpusFormat(**options), counts=counts))
    return counts


def lines(texts: list[str], encodings: list[str]) -> bytes:
    """A line of JSON for each text, in its own encoding."""
    return b"".join(
        json.dumps({"text": text}, ensure_ascii=False).encode(encoding) + b"\n"
        for text, encoding in zip(texts, encodings, strict=True)
    )


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_corpus_in_a_code_page_is_refused_with_its_conversion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content = {
        "a.txt": "\n".join(TEXTS).encode("cp1252"),
        "a.jsonl": lines(TEXTS, ["cp1252"] * len(TEXTS)),
        "a.csv": "\n".join(["text", *(f'"{text}"' for text in TEXTS)]).encode("cp1252"),
    }[name]
    path = tmp_path / name
    path.write_bytes(content)
    for verb, more in (("tokenizer", []), ("prepare", ["--tokenizer", tmp_path, "--processes", 1])):
        (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
        code, results, stderr = command(capsys, verb, path, "--output", tmp_path / "out", *more)
        assert (code, results) == (2, [])
        refusal = stderr.splitlines()[-1]
        assert "40 of 40 " in refusal
        assert not (tmp_path / "out").exists() or verb == "prepare"
    found = re.search(r"`(iconv -f CP1252 -t UTF-8 [^`]*)`", refusal)
    assert found is not None
    if shutil.which("iconv"):
        subprocess.run(found[1], shell=True, check=True)
        assert read(tmp_path / f"utf8-{name}").invalid_bytes == 0


@pytest.mark.parametrize(("touched", "is_refused"), [(3, False), (5, True)])
def test_one_document_in_a_hundred_may_be_damaged(tmp_path: Path, touched: int, is_refused: bool) -> None:
    """Also where the rest of the file is UTF-8, and nothing converts it as a whole."""
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS * 10, ["cp1252"] * touched + ["utf-8"] * (400 - touched)))
    if is_refused:
        with pytest.raises(DataError, match=r"a\.jsonl:1: not UTF-8, like 5 of 400 documents.*iconv -c -f UTF-8"):
            read(tmp_path / "a.jsonl")
    else:
        assert read(tmp_path / "a.jsonl").invalid_bytes == 4 * touched


def test_two_stray_bytes_are_left_out_of_the_smallest_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a few words \xff and \xe9 more")
    assert read(tmp_path / "a.txt").invalid_bytes == 2
    (tmp_path / "a.txt").write_bytes("Straße führt über".encode("cp1252"))
    with pytest.raises(DataError, match="1 of 1 lines"):
        read(tmp_path / "a.txt")


def test_lines_count_in_a_file_that_is_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electrain.data.text.text_files.PIECE_CHARACTERS", 100)
    damaged = b"damaged \xff\xfe\xfd\xfc bytes\n"
    (tmp_path / "a.txt").write_bytes("\n".join(TEXTS * 10).encode() + b"\n" + damaged)
    assert read(tmp_path / "a.txt").invalid_bytes == 4


def test_a_long_file_is_refused_before_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invalid_bytes, "_ENOUGH_DOCUMENTS", 20)
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS, ["cp1252"] * 30 + ["utf-8"] * 10))
    with pytest.raises(DataError, match="like 20 of 20 documents"):
        read(tmp_path / "a.jsonl")


def test_strict_names_the_conversion(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS, ["cp1252"] * 40))
    with pytest.raises(DataError, match=r"a\.jsonl:1: bytes that are not UTF-8; it looks like CP1252; .*--strict"):
        read(tmp_path / "a.jsonl", strict=True)


@pytest.mark.parametrize("wrong", [4, 30])
def test_no_conversion_is_given_that_spoils_lines_in_utf8(tmp_path: Path, wrong: int) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS, ["cp1252"] * wrong + ["utf-8"] * (40 - wrong)))
    with pytest.raises(DataError, match=r"other lines are UTF-8.*convert only those") as caught:
        read(tmp_path / "a.jsonl")
    assert "look like CP1252" in str(caught.value)
    assert "iconv -f CP1252" not in str(caught.value)
    assert "ENCODING" not in str(caught.value)

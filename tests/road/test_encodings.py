"""Files that are not UTF-8 are refused with the command that converts them, whatever language they are in."""

import gzip
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from electrain.data.text.encodings import likely_encoding
from electrain.foundation.errors import DataError
from electrain.inference.predict.pretrained import read_texts
from labelled_files import read, written

TEXTS = {
    "CP1252": [
        "Text,Kategorie\r\nDas Hotel war schön,gut\r\nZu laut fürs Geld,schlecht\r\n",
        "déjà à midi, café fermé",
    ],
    "CP1250": ["To był świetny film,dobry\n", "Příliš žluťoučký kůň úpěl ďábelské ódy", "Az étel őrült jó volt"],
    "CP1251": ["Отличный фильм, рекомендую,хорошо\n", "Дуже гарний готель, її"],
    "KOI8-R": ["Отличный фильм, рекомендую,хорошо\n"],
    "CP866": ["Отличный фильм, рекомендую,хорошо\n"],
    "CP1253": ["Το ξενοδοχείο ήταν πολύ καλό"],
    "CP1254": ["Çok güzel bir otel, ışıl ışıl"],
    "CP1255": ["המלון היה טוב מאוד"],
    "CP1256": ["كان الفندق جيدا جدا"],
    "CP874": ["โรงแรมดีมาก"],
    "GB18030": ["这家酒店很好,好\n太吵了,坏\n", "房间干净卫生"],
    "BIG5": ["這家酒店很好,好\n太吵了,壞\n"],
    "CP932": ["このホテルはとても良かったです,良い\n"],
    "EUC-JP": ["このホテルはとても良かったです,良い\n"],
    "CP949": ["이 호텔은 아주 좋았어요,좋음\n"],
    "CP850": ["Das Hotel war schön, laut fürs Geld"],
    "UTF-16": ["text,label\nschön,gut\n"],
    "UTF-16LE": ["text,label\nschön,gut\n"],
}


@pytest.mark.parametrize("name", TEXTS)
def test_encodings_are_known_by_what_they_say(name: str) -> None:
    for text in TEXTS[name]:
        assert likely_encoding(text.encode(name)) == name, text


def test_utf8_and_binary_data_are_no_other_encoding() -> None:
    broken = "schön, größer, müde, 好电影".encode()[:-1]
    assert [likely_encoding(sample) for sample in (b"", b"ascii", broken, bytes(range(256)) * 8)] == [None] * 4


@pytest.mark.skipif(shutil.which("iconv") is None, reason="iconv is not installed")
@pytest.mark.parametrize(("name", "row"), [("CP1252", "schön,gut"), ("GB18030", "很好,好"), ("UTF-16", "schön,gut")])
@pytest.mark.parametrize("file", ["a b.csv", "a.csv.gz"])
def test_the_command_in_the_message_converts_the_file(tmp_path: Path, name: str, row: str, file: str) -> None:
    pack = gzip.compress if file.endswith(".gz") else bytes
    path = written(tmp_path / file, pack(f"text,label\n{row}\n".encode(name)))
    with pytest.raises(DataError, match=f"it looks like {name}; convert it with `") as caught:
        read(path)
    (command,) = re.findall("`(.*)`", str(caught.value))
    subprocess.run(command, shell=True, check=True)
    (found,) = read(tmp_path / f"utf8-{file}")
    assert [found.first, *found.labels] == row.split(",")


@pytest.mark.parametrize(("name", "text"), [("CP1252", "das Hotel war schön\n"), ("UTF-16", "a hotel\n")])
def test_a_pipe_in_another_encoding_is_told_what_to_pass_through(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode(name))))
    with pytest.raises(DataError, match=f"standard input:1: not UTF-8 .*`iconv -f {name} -t UTF-8`"):
        list(read_texts([]))

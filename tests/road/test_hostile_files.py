"""Files that are damaged or made to do harm: each costs one line, and never the process or its memory."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import command, refuse
from electrain.data.labelled.records import read_records
from electrain.data.text import table_process, text_files
from electrain.data.text.corpus import CorpusCounts, read_documents
from electrain.data.text.tables import read_table
from electrain.foundation.errors import DataError
from electrain.foundation.json_reading import parse_json

Run = Callable[..., Path]


def _write_arrow(path: Path, array: pa.Array) -> None:
    batch = pa.record_batch([array], ["text"])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize("offsets", [(0, 77, 1 << 30), (0, -5, 133), (0, 133, 77), (1 << 30, 1 << 30, 133)])
def test_an_arrow_file_that_points_outside_itself(tmp_path: Path, offsets: tuple[int, ...]) -> None:
    """Such a file ended the process, or read what was not its own."""
    _write_arrow(tmp_path / "t.arrow", pa.array(["x" * 77, "y" * 56]))
    content = (tmp_path / "t.arrow").read_bytes()
    assert content.count(struct.pack("<iii", 0, 77, 133)) == 1
    (tmp_path / "t.arrow").write_bytes(content.replace(struct.pack("<iii", 0, 77, 133), struct.pack("<iii", *offsets)))
    with pytest.raises(DataError, match=r"t\.arrow: (truncated or )?damaged"):
        list(read_table(tmp_path / "t.arrow", "text"))
    with pytest.raises(DataError, match=r"t\.arrow: (truncated or )?damaged"):
        list(read_records([str(tmp_path / "t.arrow")], kind="table"))


def test_a_table_whose_text_is_not_utf8_names_its_row(tmp_path: Path) -> None:
    content = b"a" * 77 + b"\xff" + b"a" * 22
    array = pa.array([content[place : place + 1] for place in range(100)]).cast(pa.string(), safe=False)
    _write_arrow(tmp_path / "t.arrow", array)
    pq.write_table(pa.table({"text": array}), tmp_path / "t.parquet")
    for name in ("t.arrow", "t.parquet"):
        with pytest.raises(DataError, match=r"row 77: bytes that are not UTF-8"):
            list(read_table(tmp_path / name, "text"))


def test_a_child_that_dies_costs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]}), tmp_path / "t.parquet")
    start = table_process.start_child
    monkeypatch.setattr(table_process, "_idle", [])
    with monkeypatch.context() as patch:
        patch.setattr(table_process, "start_child", lambda *_, **__: start("electrain.absent"))
        with pytest.raises(DataError, match=r"t\.parquet: damaged \(reading it ended the process that reads"):
            list(read_table(tmp_path / "t.parquet", "text"))
    assert [row.text for row in read_table(tmp_path / "t.parquet", "text")] == ["a", "b"]


def test_a_table_that_asks_for_too_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["x" * 200_000_000]}), tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 1_000_000
    monkeypatch.setattr(table_process, "memory_limit", lambda: 150_000_000)
    with pytest.raises(DataError, match=r"t\.parquet: (needs more than 0\.1 GB|damaged)"):
        list(read_table(tmp_path / "t.parquet", "text"))


def test_many_tables_share_one_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = table_process.start_child
    monkeypatch.setattr(table_process, "_idle", [])
    monkeypatch.setattr(table_process, "start_child", lambda *a, **b: started.append(1) or start(*a, **b))
    for number in range(5):
        pq.write_table(pa.table({"text": [f"text {number}"]}), tmp_path / f"{number}.parquet")
    monkeypatch.chdir(tmp_path)
    assert [one.text for one in read_documents(["."], counts=CorpusCounts())] == [f"text {one}" for one in range(5)]
    interleaved = zip(read_table(Path("0.parquet"), "text"), read_table(Path("1.parquet"), "text"), strict=True)
    assert [(one.text, two.text) for one, two in interleaved] == [("text 0", "text 1")]
    assert len(started) == 2


def test_a_column_that_python_has_no_values_for_is_no_fault_of_the_text(tmp_path: Path) -> None:
    years = pa.array([10**13], pa.timestamp("s"))  # after the year 9999
    pq.write_table(pa.table({"text": ["a"], "when": years}), tmp_path / "t.parquet")
    (row,) = read_records([str(tmp_path / "t.parquet")], kind="table")
    assert row.values["text"] == "a"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\ud800b"', "a\ufffdb"),
        (r'"\udc00\ud800"', "\ufffd\ufffd"),
        (r'"\ud800\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\\ud800"', r"\ud800"),
        (r'"\\\ud800"', "\\\ufffd"),
        (r'{"\ud800": ["\uD83D\uDE00"]}', {"\ufffd": ["\U0001f600"]}),
    ],
)
def test_half_of_a_surrogate_pair_is_a_replacement_character(text: str, value: object) -> None:
    assert parse_json(text, "place") == value


@pytest.mark.parametrize("task", ["detect", "embed", "corrupt"])
def test_half_of_a_surrogate_pair_does_not_end_a_batch(
    capsys: pytest.CaptureFixture[str], tiny_run: Run, tmp_path: Path, task: str
) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "the cat \\ud800 sees"}\n{"text": "a dog"}\n')
    model = tiny_run()
    capsys.readouterr()
    code, lines, _ = command(capsys, "predict", task, "--model", model, "--input", tmp_path / "t.jsonl")
    assert (code, [line["text"] for line in lines]) == (0, ["the cat \ufffd sees", "a dog"])
    code, lines, _ = command(capsys, "predict", task, "the cat\udcff", "a dog", "--model", model)
    assert (code, [line["text"] for line in lines]) == (0, ["the cat\ufffd", "a dog"])


def test_half_of_a_surrogate_pair_in_minimal_pairs(
    capsys: pytest.CaptureFixture[str], tiny_run: Run, tmp_path: Path
) -> None:
    fields = {"sentence_good": "the cat\ud800", "sentence_bad": "cat the", "linguistics_term": "l", "field": "f"}
    (tmp_path / "b.jsonl").write_text(json.dumps(fields | {"UID": "\ud800\n\x1b[2J"}) + "\n")
    code, (result,), error = command(capsys, "evaluate", "blimp", "--model", tiny_run(), "--data", tmp_path / "b.jsonl")
    assert (code, list(result["scorers"]["discriminator"]["by_set"])) == (0, ["\ufffd\n\x1b[2J"])
    assert "\x1b" not in error


def test_half_of_a_surrogate_pair_in_a_corpus_is_counted(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a \\ud800\\udc80 b"}\n{"text": "c\\udcffd"}\n')
    counts = CorpusCounts()
    assert [one.text for one in read_documents([str(tmp_path / "t.jsonl")], counts=counts)] == ["a \U00010080 b", "cd"]
    assert (counts.dropped_characters, counts.invalid_bytes) == (1, 0)


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.tsv", "t.conll", "b.jsonl"])
def test_a_line_without_end_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(text_files, "MOST_LINE_CHARACTERS", 1000)
    (tmp_path / name).write_text('{"text": "a"}\n' if "json" in name else "text\tlabel\n" if name == "t.tsv" else "a\n")
    with open(tmp_path / name, "a") as file:
        file.write("x" * 1001)
    arguments = ["evaluate", "blimp", "--model", "none", "--data", str(tmp_path / name)]
    if name != "b.jsonl":
        kind = "tagging" if name == "t.conll" else "table"
        with pytest.raises(DataError, match=r":2: longer than 1,000 characters; divide this line"):
            list(read_records([str(tmp_path / name)], kind=kind))
    else:
        (tmp_path / name).write_text("x" * 1001)
        assert ":1: longer than 1,000 characters; divide this line" in refuse(arguments, capsys)


def test_an_unclosed_quote_is_found_where_it_opens(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,label\n"a ""b""",x\n"never closed,y\nc,z\nd,z\n')
    with pytest.raises(DataError, match=r"t\.csv:3: a quote that this row opens is not rightly closed up to line 5"):
        list(read_records([str(tmp_path / "t.csv")], kind="table"))


def test_links_to_folders_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus" / "a.txt").write_text("the cat")
    (tmp_path / "elsewhere" / "b.txt").write_text("a dog")
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "elsewhere")
    texts = [one.text for one in read_documents([str(tmp_path / "corpus")], counts=CorpusCounts())]
    assert texts == ["the cat"]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{tmp_path / 'corpus' / 'link'}: a link to a folder, which is left out; name it as well to read it" in error


def test_a_message_in_the_place_of_a_table(tmp_path: Path) -> None:
    """Hostile metadata is one line too."""
    buffer = io.BytesIO()
    table = pa.table({"text": ["a"]}).replace_schema_metadata({"huggingface": '{"info": {"features": 7}}'})
    pq.write_table(table, buffer)
    (tmp_path / "t.parquet").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"t\.parquet: damaged metadata"):
        list(read_records([str(tmp_path / "t.parquet")], kind="table"))


@pytest.mark.parametrize("flag", ["--training.seed", "--data.text-column", "--data.cut", "--data.train-examples"])
@pytest.mark.parametrize("value", ["0x" + "9" * 5000, "[0x" + "9" * 5000 + "]", "9" * 5000])
def test_a_number_that_python_cannot_write(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    files = ["--model", "absent", "--train", "absent", "--validation", "absent", "--output", "absent"]
    code, _, error = command(capsys, "finetune", "classification", *files, flag, value)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("electrain finetune: ")


def test_a_damaged_data_set_on_disk(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["x" * 77, "y" * 56]}).save_to_disk(str(tmp_path / "set"))
    assert len(list(read_records([f"hub:{tmp_path / 'set'}"], kind="table"))) == 2
    (path,) = (tmp_path / "set").glob("*.arrow")
    good, bad = struct.pack("<iii", 0, 77, 133), struct.pack("<iii", 0, 77, 1 << 30)
    assert path.read_bytes().count(good) == 1
    path.write_bytes(path.read_bytes().replace(good, bad))
    with pytest.raises(DataError, match=r"\.arrow: (truncated or )?damaged"):
        list(read_records([f"hub:{tmp_path / 'set'}"], kind="table"))

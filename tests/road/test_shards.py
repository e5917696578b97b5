"""Shards hold each document once, in order, whoever writes and reads them; damage and mix-ups are found on opening."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from command_line import command
from electrain.data.shards import encoding_pool
from electrain.data.shards import prepare as preparation
from electrain.data.shards.encoding import Encoder, encode_texts
from electrain.data.shards.prepare import prepare
from electrain.data.shards.shards import Shards, open_shards, shards_in_memory
from electrain.data.text.corpus import CorpusCounts, CorpusFormat, read_documents
from electrain.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    SpecialIds,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
    word_piece_tokenizer,
    wrap,
)
from electrain.foundation.errors import DataError, ElectrainError, RunDirectoryError, TokenizerError
from electrain.foundation.output_folder import Manifest, write_manifest
from electrain.foundation.sums import SUMS_NAME

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "mat", "##s", ".", "[", "]", "mask", "sep"]
DOCUMENTS = ["the cat sat.", "cats", "", "the mats the mats the mats", "sat [SEP] the [MASK] cat 你"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A small tokenizer's folder."""
    save(tmp_path / "tokenizer", {token: number for number, token in enumerate(WORDS)})
    return tmp_path / "tokenizer"


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Three hundred short documents, some of them empty."""
    path = tmp_path / "corpus.jsonl"
    rows = [f"{text} {'cat ' * (number % 7)}" if text else "" for number in range(60) for text in DOCUMENTS]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return str(path)


def save(folder: Path, vocabulary: dict[str, int]) -> None:
    save_tokenizer(wrap(word_piece_tokenizer(vocabulary, cased=False)), folder)


def everything(shards: Shards) -> list[int]:
    return shards.read(0, shards.token_count).tolist()


def test_stream_by_hand(tmp_path: Path, tokenizer: Path) -> None:
    for number, text in enumerate(DOCUMENTS):
        (tmp_path / f"{number}.txt").write_text(text)
    prepare([str(tmp_path / "?.txt")], tokenizer, tmp_path / "shards", processes=1)
    shards = open_shards(tmp_path / "shards")
    documents = [[5, 6, 7, 10, 3], [6, 9, 3], [5, 8, 9] * 3 + [3], [7, 11, 14, 12, 5, 11, 13, 12, 6, 1, 3]]
    assert everything(shards) == [token for document in documents for token in document]
    assert shards.document_ends.tolist() == [5, 8, 18, 29]
    assert shards.document_ends.dtype == np.int64
    assert shards.read(3, 4).tolist() == [10, 3, 6, 9]
    assert shards.read(29, 0).tolist() == []
    assert shards.unigram_counts.tolist() == np.bincount(everything(shards), minlength=len(WORDS)).tolist()
    assert shards.special_ids == SpecialIds(pad=0, cls=2, sep=3, mask=4)
    assert shards.vocabulary_size == len(WORDS)
    assert shards.tokenizer_hash == tokenizer_hash(tokenizer) == tokenizer_hash(shards.tokenizer_directory)
    facts = shards.manifest.facts
    assert (facts["tokens"], facts["documents"], facts["longest_document_tokens"]) == (29, 4, 11)
    assert facts["dtype"] == "uint16"
    assert facts["read"]["empty_files"] == 1
    with pytest.raises(IndexError):
        shards.read(20, 10)


def test_bytes_on_disk_are_datatroves_layout(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat")
    prepare([str(tmp_path / "a.txt")], tokenizer, tmp_path / "shards", processes=1)
    assert (tmp_path / "shards/corpus_00000.ds").read_bytes() == b"\x05\x00\x06\x00\x03\x00"
    assert (tmp_path / "shards/corpus_00000.ds.index").read_bytes() == b"\x03" + b"\x00" * 7
    assert (tmp_path / "shards/corpus_00000.ds.metadata").read_text().splitlines()[:2] == [
        "tokenizer/tokenizer.json|2",
        "3",
    ]


def test_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate([*WORDS, *(f"w{number}" for number in range(1 << 16))])}
    save(tmp_path / "tokenizer", vocabulary)
    (tmp_path / "a.txt").write_text("the w65535")
    prepare([str(tmp_path / "a.txt")], tmp_path / "tokenizer", tmp_path / "shards", processes=1)
    assert everything(open_shards(tmp_path / "shards")) == [5, 65535 + len(WORDS), 3]
    assert open_shards(tmp_path / "shards").manifest.facts["dtype"] == "uint32"


def test_number_of_processes_changes_nothing(
    tmp_path: Path, tokenizer: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_BATCH_CHARACTERS", 300)
    monkeypatch.setattr(preparation, "_TOKENS_PER_FILE", 500)
    for processes in (1, 3):
        prepare([corpus], tokenizer, tmp_path / str(processes), processes=processes)
    names = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*"))
    assert names == sorted(path.relative_to(tmp_path / "3") for path in (tmp_path / "3").rglob("*"))
    assert len([name for name in names if name.suffix == ".ds"]) > 3
    for name in names:
        if (tmp_path / "1" / name).is_file():
            assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    memory = shards_in_memory(read_documents([corpus], counts=CorpusCounts()), tokenizer)
    assert open_shards(tmp_path / "3").document_ends.tolist() == memory.document_ends.tolist()


def test_files_join_into_one_stream(
    tmp_path: Path, tokenizer: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare([corpus], tokenizer, tmp_path / "one", processes=1)
    monkeypatch.setattr(preparation, "_TOKENS_PER_FILE", 100)
    prepare([corpus], tokenizer, tmp_path / "many", processes=1)
    many, one = open_shards(tmp_path / "many"), open_shards(tmp_path / "one")
    memory = shards_in_memory(read_documents([corpus], counts=CorpusCounts()), tokenizer)
    for other in (many, memory):
        assert everything(other) == everything(one)
        assert other.document_ends.tolist() == one.document_ends.tolist()
        assert other.unigram_counts.tolist() == one.unigram_counts.tolist()
        assert other.tokenizer_hash == one.tokenizer_hash
    for start in range(0, one.token_count - 250, 77):
        assert many.read(start, 250).tolist() == one.read(start, 250).tolist()
    assert all(many.read(int(end) - 1, 1) == many.special_ids.sep for end in many.document_ends)


def test_long_document_is_one_document(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("electrain.data.text.text_files.PIECE_CHARACTERS", 50)
    monkeypatch.setattr(preparation, "_BATCH_CHARACTERS", 120)
    monkeypatch.setattr(preparation, "_TOKENS_PER_FILE", 20)
    text = "the cats sat. " * 40 + "你" * 200
    (tmp_path / "a.txt").write_text(text, "utf-8")
    manifest = prepare([str(tmp_path / "a.txt")], tokenizer, tmp_path / "shards", processes=2, allow_unknown=True)
    whole = load_tokenizer(tokenizer)(text, add_special_tokens=False)["input_ids"]
    assert everything(open_shards(tmp_path / "shards")) == [*whole, 3]
    assert manifest.facts["documents"] == 1
    assert manifest.facts["longest_document_tokens"] == len(whole) + 1


def test_datatrove_reads_ours(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    dataset = pytest.importorskip("datatrove.utils.dataset")
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    shards = open_shards(tmp_path / "shards")
    rows = dataset.DatatroveFolderDataset(
        str(tmp_path / "shards"), seq_len=19, filename_pattern="*.ds", return_positions=True
    )
    assert len(rows) == shards.token_count // 20
    starts = {0, *shards.document_ends.tolist()}
    for number in range(len(rows)):
        assert rows[number]["input_ids"].tolist() == shards.read(20 * number, 20).tolist()
        expected = {place for place in range(20) if 20 * number + place in starts} | {0}
        assert {place for place in range(20) if rows[number]["positions"][place] == 0} == expected


def datatrove_tokenise(folder: Path, tokenizer: Path, eos_token: str | None) -> None:
    tokens = pytest.importorskip("datatrove.pipeline.tokens")
    data = pytest.importorskip("datatrove.data")
    step = tokens.DocumentTokenizer(
        str(folder), str(tokenizer / "tokenizer.json"), eos_token=eos_token, shuffle_documents=False, batch_size=2
    )
    texts = [text for text in DOCUMENTS if text and "[" not in text]
    list(step.run([data.Document(text, str(number)) for number, text in enumerate(texts)], rank=0, world_size=1) or [])


def test_ours_reads_datatroves(tmp_path: Path, tokenizer: Path) -> None:
    datatrove_tokenise(tmp_path / "theirs", tokenizer, "[SEP]")
    (tmp_path / "a.txt").write_text("|".join(text for text in DOCUMENTS if "[" not in text))
    prepare([str(tmp_path / "theirs")], tokenizer, tmp_path / "taken")
    prepare(
        [str(tmp_path / "a.txt")],
        tokenizer,
        tmp_path / "own",
        corpus_format=CorpusFormat(document_separator="|"),
        processes=1,
    )
    taken, own = open_shards(tmp_path / "taken"), open_shards(tmp_path / "own")
    assert everything(taken) == everything(own)
    assert taken.document_ends.tolist() == own.document_ends.tolist()
    assert taken.unigram_counts.tolist() == own.unigram_counts.tolist()
    assert taken.manifest.facts["longest_document_tokens"] == own.manifest.facts["longest_document_tokens"]
    with pytest.raises(RunDirectoryError, match="has no manifest"):
        open_shards(tmp_path / "theirs")


def test_datatroves_without_sep_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    datatrove_tokenise(tmp_path / "theirs", tokenizer, None)
    with pytest.raises(TokenizerError, match=r"begin with \[CLS\]; give datatrove.*eos_token"):
        prepare([str(tmp_path / "theirs")], tokenizer, tmp_path / "taken")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".metadata", b"tokenizer.json|2"),
        (".metadata", b""),
        (".metadata", b"tokenizer.json|2\nmany"),
        (".metadata", b"tokenizer.json|3\n4"),
        (".metadata", b"tokenizer.json|2\n5"),
        (".metadata", None),
        (".index", b""),
        (".index", np.array([0, 4], "<u8").tobytes()),
        (".index", b"odd"),
        ("", b""),
    ],
)
def test_damaged_files_of_datatrove_are_one_line(
    tmp_path: Path, tokenizer: Path, ending: str, content: bytes | None
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "a.ds").write_bytes(np.array([5, 6, 7, 3], "<u2").tobytes())
    (folder / "a.ds.index").write_bytes(np.array([4], "<u8").tobytes())
    (folder / "a.ds.metadata").write_text("tokenizer.json|2\n4\n4 T")
    prepare([str(folder)], tokenizer, tmp_path / "good")
    if content is None:
        (folder / f"a.ds{ending}").unlink()
    else:
        (folder / f"a.ds{ending}").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.ds: .*copy (it|them) again") as raised:
        prepare([str(folder)], tokenizer, tmp_path / "taken")
    assert "\n" not in str(raised.value)


def test_foreign_folder_is_refused(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    output = tmp_path / "output"
    output.mkdir()
    (output / "thesis.txt").write_text("important")
    with pytest.raises(RunDirectoryError, match="is not empty"):
        prepare([corpus], tokenizer, output)
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    write_manifest(output, Manifest("shards", False, {}, {}))
    with pytest.raises(RunDirectoryError, match=r"also thesis\.txt"):
        prepare([corpus], tokenizer, output)
    assert (output / "thesis.txt").read_text() == "important"


def test_finished_shards_are_kept(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    with pytest.raises(RunDirectoryError, match="holds finished shards already"):
        prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    open_shards(tmp_path / "shards")


PREPARE = (
    "import sys; from pathlib import Path; from electrain.data.shards import prepare as p\n"
    "p._BATCH_CHARACTERS = 500; p._TOKENS_PER_FILE = 2000\n"
    "from electrain.foundation.errors import ElectrainError\n"
    "try: p.prepare(sys.argv[3:], Path(sys.argv[1]), Path(sys.argv[2]), processes=2)\n"
    "except ElectrainError as error: print(error); sys.exit(2)"
)


def test_killed_preparation_is_begun_anew(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    fifo = tmp_path / "slow.jsonl"
    os.mkfifo(fifo)  # the preparation waits here, half way
    command = [sys.executable, "-c", PREPARE, str(tokenizer), str(tmp_path / "shards"), corpus, str(fifo)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "shards" / "corpus_00000.ds").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "the tokenising processes go on without their parent"
        time.sleep(0.05)
    with pytest.raises(RunDirectoryError, match="interrupted"):
        open_shards(tmp_path / "shards")
    (tmp_path / "shards" / "corpus_00007.ds").write_bytes(b"left over")
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    prepare([corpus], tokenizer, tmp_path / "fresh", processes=1)
    assert everything(open_shards(tmp_path / "shards")) == everything(open_shards(tmp_path / "fresh"))
    assert not (tmp_path / "shards" / "corpus_00007.ds").exists()


@pytest.mark.parametrize("from_file", [True, False])
def test_a_script_needs_no_guard(tmp_path: Path, tokenizer: Path, corpus: str, from_file: bool) -> None:
    """Neither a script without `if __name__ == "__main__"` nor a program on standard input runs again in a child."""
    (tmp_path / "script.py").write_text(PREPARE)
    program = [str(tmp_path / "script.py")] if from_file else ["-"]
    command = [sys.executable, *program, str(tokenizer), str(tmp_path / "shards"), corpus]
    subprocess.run(command, input=PREPARE, text=True, check=True, stderr=subprocess.DEVNULL)
    open_shards(tmp_path / "shards")


@pytest.mark.parametrize("ids_fail_first", [False, True])
def test_full_disk_is_one_line(tmp_path: Path, tokenizer: Path, corpus: str, ids_fail_first: bool) -> None:
    """Also where the ids no longer fit before their index is begun."""
    if ids_fail_first:  # more than a buffer of Python's files, so that they reach the disk at once
        corpus = str(tmp_path / "large.txt")
        Path(corpus).write_text("the cat " * 20_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [sys.executable, "-c", PREPARE, str(tokenizer), str(tmp_path / "shards"), corpus]
    done = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written (File too large); free some space" in done.stdout
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    open_shards(tmp_path / "shards")


def test_killed_child_is_one_line(
    tmp_path: Path, tokenizer: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_child = encoding_pool._start_child

    def start_dead_child() -> "subprocess.Popen[bytes]":
        child = start_child()
        child.kill()
        child.wait()
        return child

    monkeypatch.setattr(encoding_pool, "_start_child", start_dead_child)
    with pytest.raises(DataError, match=r"ended early \(exit code -9"):
        prepare([corpus], tokenizer, tmp_path / "shards", processes=2)


def test_children_end_with_the_pool(tokenizer: Path) -> None:
    backend = (tokenizer / "tokenizer.json").read_text("utf-8")
    with closing(encoding_pool.EncodingPool(backend, "<u2", 2)) as pool:
        batches = [([f"the cat {number}"] * 3, number) for number in range(9)]
        results = list(pool.encode(batches))
    assert [label for _, label in results] == list(range(9))
    expected = encode_texts(Encoder(backend), ["the cat 4"] * 3, "<u2")
    assert results[4][0] == expected
    assert all(child.poll() is not None for child in pool._children)


@pytest.mark.parametrize("name", ["corpus_00000.ds", "corpus_00000.ds.index", "unigram_counts.npy"])
@pytest.mark.parametrize("damage", ["missing", "shorter", "changed"])
def test_damage_is_found(tmp_path: Path, tokenizer: Path, corpus: str, name: str, damage: str) -> None:
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    path = tmp_path / "shards" / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-1] if damage == "shorter" else content)
    with pytest.raises(DataError, match=r"missing|damaged") as caught:
        open_shards(tmp_path / "shards")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"files": [{"name": "corpus_00000.ds"}]}, {"dtype": None}, {"tokens": None}])
def test_a_damaged_manifest_is_one_line(
    tmp_path: Path, tokenizer: Path, corpus: str, change: dict[str, object]
) -> None:
    manifest = prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    facts = {name: fact for name, fact in (manifest.facts | change).items() if fact is not None}
    write_manifest(tmp_path / "shards", Manifest("shards", True, manifest.inputs, facts))
    with pytest.raises(DataError, match=r"manifest\.json: damaged .*prepare the shards again"):
        open_shards(tmp_path / "shards")


def test_foreign_tokenizer_is_found(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)
    other = {token: number for number, token in enumerate(WORDS)} | {"cat": 7, "sat": 6}
    save(tmp_path / "shards" / "tokenizer", other)
    (tmp_path / "shards" / "tokenizer" / SUMS_NAME).unlink()
    with pytest.raises(TokenizerError, match="not the tokenizer"):
        open_shards(tmp_path / "shards")


def test_corpus_without_text(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no document holds any text"):
        prepare([str(tmp_path / "a.jsonl")], tokenizer, tmp_path / "shards", processes=1)
    with pytest.raises(DataError, match="no document"):
        shards_in_memory([], tokenizer)


def test_broken_corpus_leaves_a_folder_that_is_begun_anew(tmp_path: Path, tokenizer: Path, corpus: str) -> None:
    with pytest.raises(ElectrainError, match="no such file"):
        prepare([corpus, str(tmp_path / "missing.txt")], tokenizer, tmp_path / "shards", processes=1)
    prepare([corpus], tokenizer, tmp_path / "shards", processes=1)


def test_manifest_says_what_was_dropped_and_read(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_bytes(b"the c\x00at \xff sat")
    path = str(tmp_path / "a.txt")
    manifest = prepare([path], tokenizer, tmp_path / "shards", processes=1)
    assert manifest.facts["read"]["dropped_characters"] == 1
    assert manifest.facts["read"]["invalid_bytes"] == 1
    assert "1 byte that is not UTF-8" in capsys.readouterr().err
    (tmp_path / "a.txt").write_bytes(b"the c\x00at \xff sats")
    assert prepare([path], tokenizer, tmp_path / "other", processes=1).inputs[path] != manifest.inputs[path]


def test_a_text_file_of_many_lines_is_said_to_be_one_document(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text("the cat\n" * (2900 if number else 900))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "the cat\n" * 2000}))
    road = ["prepare", tmp_path / "?.txt", tmp_path / "rows.jsonl", "--tokenizer", tokenizer, "--processes", 1]
    code, [result], err = command(capsys, *road, "--output", tmp_path / "whole")
    assert code == 0
    assert result["documents"] == 7
    said = [line for line in err.splitlines() if "--document-separator" in line]
    assert said[0] == (
        f"prepare: {tmp_path / '1.txt'}: its 2,900 lines are read as one document; if each line is a document, "
        'give --document-separator "\\n"'
    )
    assert [Path(line.split(":")[1].strip()).name for line in said] == ["1.txt", "2.txt", "3.txt"]
    assert err.count("they are not named") == 1
    code, [result], err = command(capsys, *road, "--output", tmp_path / "lines", "--document-separator", r"\n")
    assert code == 0
    assert result["documents"] == 5 * 2900 + 900 + 1
    assert "--document-separator" not in err


def test_a_vocabulary_that_skips_ids_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """transformers gives a token that vocab.txt names twice the second place, and leaves the first one out."""
    words = [*SPECIAL_TOKENS.values(), "cat", "the", "cat"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "a.txt").write_text("the cat")
    code, results, stderr = command(
        capsys, "prepare", tmp_path / "a.txt", "--tokenizer", tmp_path, "--output", tmp_path / "shards"
    )
    assert (code, results, stderr.count("\n")) == (2, [], 1)
    assert "7 tokens with ids up to 7, so that some ids are skipped; if its vocab.txt names a token twice" in stderr
    (tmp_path / "vocab.txt").write_text("\n".join([*words[:5], "[unused0]", *words[6:]]) + "\n")
    code, results, _ = command(
        capsys, "prepare", tmp_path / "a.txt", "--tokenizer", tmp_path, "--output", tmp_path / "shards"
    )
    assert (code, results[0]["vocabulary_size"]) == (0, 8)

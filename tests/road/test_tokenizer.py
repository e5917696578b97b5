"""A trained or given tokenizer does the same before it is saved and after it is loaded; hashes tell behaviour apart."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizerFast

from electrain.data.text.corpus import Document
from electrain.data.tokenizer.tokenizer import (
    SpecialIds,
    load_tokenizer,
    save_tokenizer,
    special_ids_of,
    tokenizer_hash,
    word_piece_tokenizer,
    wrap,
)
from electrain.data.tokenizer.training import train_tokenizer
from electrain.foundation.errors import ElectrainError, RunDirectoryError, TokenizerError
from electrain.foundation.output_folder import Manifest, read_manifest, write_manifest
from electrain.foundation.sums import SUMS_NAME

TEXTS = [
    "Hello world, Hello café! The naïve façade was happy; unhappily, the world was not.",
    "Happy worlds, happier Worlds, happiest WORLDS. 你好世界,你好。",
    "The quick brown fox jumps over the lazy dog, the dog was not happy.",
] * 4
SAMPLES = ["Hello, unhappy café world!", "你好世界 hello", "WORLDS\tof\x00 happiness ☃", "[MASK] the dog [SEP]"]


def train(folder: Path, *, size: int = 160, cased: bool = False, texts: Sequence[str] = TEXTS, **options: int) -> Path:
    """A tokenizer trained on `texts`."""
    train_tokenizer((Document(text, "test") for text in texts), folder, size, cased, **options)
    return folder


@pytest.mark.parametrize("cased", [True, False])
def test_same_tokens_after_reloading(tmp_path: Path, cased: bool) -> None:
    loaded = load_tokenizer(train(tmp_path / "tokenizer", cased=cased))
    reloaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    for sample in SAMPLES:
        assert reloaded(sample)["input_ids"] == loaded(sample)["input_ids"]
        assert reloaded(sample, "pair")["token_type_ids"] == loaded(sample, "pair")["token_type_ids"]
    tokens = reloaded.convert_ids_to_tokens(reloaded("Hello café 你好")["input_ids"])
    assert tokens[0] == "[CLS]"
    assert tokens[-3:] == ["你", "好", "[SEP]"]
    assert tokens[1] == ("Hello" if cased else "hello")
    assert ("cafe" in "".join(tokens)) != cased
    assert reloaded.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    assert (
        json.loads((tmp_path / "tokenizer/tokenizer_config.json").read_text())["tokenizer_class"]
        == "PreTrainedTokenizerFast"
    )


def test_special_tokens_come_first(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train(tmp_path / "tokenizer"))
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id] == [0, 1, 4]
    assert len(tokenizer) <= 160
    assert AutoTokenizer.from_pretrained(tmp_path / "tokenizer").model_max_length == 512


def test_training_is_repeatable(tmp_path: Path) -> None:
    hashes = {tokenizer_hash(train(tmp_path / str(number))) for number in range(4)}
    assert len(hashes) == 1


def test_vocabulary_smaller_than_the_alphabet(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"a vocabulary of 30 is smaller than .* \(at least \d+\)") as caught:
        train(tmp_path / "tokenizer", size=30)
    assert "\n" not in str(caught.value)
    train(tmp_path / "tokenizer")
    alphabet_size = read_manifest(tmp_path / "tokenizer", "tokenizer").facts["alphabet_size"]
    with pytest.raises(TokenizerError, match="is smaller than"):  # room for the characters, but not for their "##"
        train(tmp_path / "other", size=5 + alphabet_size)


def test_a_vocabulary_far_smaller_than_asked_for_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "few", texts=["the cat sees the dog", "a rare word"], size=8192)
    size = read_manifest(tmp_path / "few", "tokenizer").facts["vocabulary_size"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tokenizer: {size} of 8,192 tokens: the text has only 7 different words (1 of them ")
    train(tmp_path / "enough", texts=["the cat sees the dog", "a rare word"], size=size + 20)
    assert "different words" not in capsys.readouterr().err


def test_rarest_characters_are_left_to_unknown(tmp_path: Path) -> None:
    texts = ["common words " * 100, "a rare ☃ ∅ sign"]
    train(tmp_path / "most", texts=texts, character_coverage=0.99)
    assert load_tokenizer(tmp_path / "most").tokenize("common ☃") == ["common", "[UNK]"]
    train(tmp_path / "all", texts=texts, character_coverage=1.0)
    assert load_tokenizer(tmp_path / "all").tokenize("common ☃") == ["common", "☃"]


def test_training_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(RunDirectoryError, match="is not empty"):
        train(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_full_disk_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("electrain.data.tokenizer.training._collect", full)
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        train(tmp_path / "tokenizer")
    monkeypatch.undo()
    train(tmp_path / "tokenizer")


VOCABULARY = [
    "[PAD]",
    "[unused1]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "hello",
    "world",
    "##s",
    "cafe",
    "你",
    "\u2028",
]


@pytest.mark.parametrize(
    ("extra", "tokens"), [([], ["hello", "[UNK]", "cafe"]), (["World"], ["[UNK]", "World", "[UNK]"])]
)
def test_vocabulary_file(tmp_path: Path, extra: list[str], tokens: list[str]) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY + extra) + "\n", "utf-8")
    text = "hello WORLDx café" if not extra else "Hello World café"
    assert load_tokenizer(tmp_path / "vocab.txt").tokenize(text) == tokens
    assert load_tokenizer(tmp_path).tokenize(text) == tokens


def test_equals_the_published_class(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    theirs = BertTokenizerFast(vocab=vocabulary)
    ours = wrap(word_piece_tokenizer(vocabulary, cased=False))
    for sample in [*SAMPLES, "hello worlds 你 café\u200b"]:
        assert ours(sample)["input_ids"] == theirs(sample)["input_ids"]
    theirs.save_pretrained(tmp_path / "theirs")
    save_tokenizer(load_tokenizer(tmp_path / "theirs"), tmp_path / "copy")
    assert tokenizer_hash(tmp_path / "copy") == tokenizer_hash(tmp_path / "theirs") == tokenizer_hash(ours)


def test_hash_follows_behaviour_not_formatting(tmp_path: Path) -> None:
    original = tokenizer_hash(train(tmp_path / "a"))
    (tmp_path / "a" / SUMS_NAME).unlink()
    path = tmp_path / "a" / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(dict(reversed(content.items()))), "utf-8")
    assert tokenizer_hash(tmp_path / "a") == original
    assert tokenizer_hash(load_tokenizer(tmp_path / "a")) == original
    for part, value in (("lowercase", False), ("strip_accents", False), ("handle_chinese_chars", False)):
        changed = json.loads(json.dumps(content))
        changed["normalizer"][part] = value
        path.write_text(json.dumps(changed), "utf-8")
        assert tokenizer_hash(tmp_path / "a") != original
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content), "utf-8")
    assert tokenizer_hash(tmp_path / "a") != original


def test_truncation_and_padding_are_not_kept(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(train(tmp_path / "a"))
    original = tokenizer_hash(tokenizer)
    tokenizer(["a", "longer text"], truncation=True, padding="max_length", max_length=4)
    assert tokenizer_hash(tokenizer) == original
    save_tokenizer(tokenizer, tmp_path / "b")
    content = json.loads((tmp_path / "b" / "tokenizer.json").read_text("utf-8"))
    assert content["truncation"] is None
    assert content["padding"] is None


def test_without_token_types(tmp_path: Path) -> None:
    save_tokenizer(load_tokenizer(train(tmp_path / "a")), tmp_path / "b", with_token_types=False)
    assert set(AutoTokenizer.from_pretrained(tmp_path / "b")("hello")) == {"input_ids", "attention_mask"}


BROKEN = {
    "missing": "no such tokenizer",
    "empty folder": "holds no tokenizer.json",
    "broken json": "cannot be read",
    "vocabulary without specials": r"lacks \[MASK\]",
    "vocabulary with a repetition": "names a token twice",
    "no mask token": "has no .*mask.* token",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tokenizers_are_told_in_one_line(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "tokenizer"
    if case != "missing":
        folder.mkdir()
    if case == "broken json":
        (folder / "tokenizer.json").write_text('{"model": ')
    if case.startswith("vocabulary"):
        lines = [token for token in VOCABULARY if token != "[MASK]"] if "without" in case else [*VOCABULARY, "hello"]
        (folder / "vocab.txt").write_text("\n".join(lines))
    if case == "no mask token":
        train(folder)
        (folder / SUMS_NAME).unlink()
        path = folder / "tokenizer_config.json"
        configuration = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in configuration.items() if name != "mask_token"}))
    with pytest.raises(ElectrainError, match=BROKEN[case]) as caught:
        load_tokenizer(folder)
    assert "\n" not in str(caught.value)


GERMAN = ["Einer sagt schön, der andere sagt schon, und beide meinen etwas anderes. Möchte er?"] * 20


def test_lost_accents_are_said_with_an_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "uncased", texts=GERMAN)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "accents" in line]
    assert '"schön" becomes "schon", like the word "schon" of the corpus' in said
    assert "11.1% of the words" in said  # 2 of 18, marks counted
    assert "--cased" in said


@pytest.mark.parametrize(
    ("texts", "cased"),
    [
        (GERMAN, True),
        (["Plain English words, and a naïve one. " + "More plain words. " * 40] * 4, False),
        (["저는 학교에 갑니다. 오늘은 날씨가 좋습니다."] * 4, False),
        (["我 喜欢 狗。 今天 天气 很好。"] * 4, False),
    ],
)
def test_nothing_is_said_where_few_words_lose_an_accent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: list[str], cased: bool
) -> None:
    train(tmp_path / "tokenizer", texts=texts, cased=cased)
    assert "accents" not in capsys.readouterr().err


def test_a_missing_mask_token_is_refused_and_never_0() -> None:
    """The id 0 is some other token, which a run would then mask with."""
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"])}
    whole = wrap(word_piece_tokenizer(vocabulary, cased=False))
    assert special_ids_of(whole) == SpecialIds(pad=0, cls=2, sep=3, mask=4)
    whole.mask_token = None
    with pytest.raises(TokenizerError, match=r"has no \[MASK\] token; train one"):
        special_ids_of(whole)


KILLED = """
import os, sys
from pathlib import Path
from electrain.data.text.corpus import Document
from electrain.data.tokenizer import training
place, folder = sys.argv[1:]
original = getattr(training, place)
def end(*_, **__):
    original(*_, **__)
    os._exit(9)
setattr(training, place, end)
training.train_tokenizer([Document("some words and more words " * 20, "test")], Path(folder), 100, False)
"""


@pytest.mark.parametrize("place", ["begin_anew", "_collect", "save_tokenizer"])
def test_a_killed_training_is_begun_anew(tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As by a power cut: nothing of Python's own cleaning up runs."""
    killed = subprocess.run([sys.executable, "-c", KILLED, place, str(tmp_path / "tokenizer")], check=False)
    assert killed.returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]  # no temporary file
    train(tmp_path / "tokenizer")
    assert f"{tmp_path / 'tokenizer'} holds interrupted work; starting over" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == [
        SUMS_NAME,
        "manifest.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with pytest.raises(RunDirectoryError, match="holds a finished tokenizer already"):
        train(tmp_path / "tokenizer")


def test_foreign_files_beside_an_interrupted_training_stay(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest("tokenizer", False, {}, {}))
    (tmp_path / "thesis.txt").write_text("important")
    with pytest.raises(RunDirectoryError, match=r"holds interrupted work and also thesis\.txt"):
        train(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_a_failed_training_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("electrain.data.tokenizer.training.write_manifest", fail)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "tokenizer")
    assert list(tmp_path.iterdir()) == []

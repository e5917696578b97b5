"""Text that a tokenizer does not know, and vocabulary that no text can reach, are said or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertTokenizerFast

from command_line import command
from electrain.data.tokenizer.tokenizer import load_tokenizer, save_tokenizer, word_piece_tokenizer, wrap
from electrain.data.tokenizer.training import TokenizerKind
from electrain.data.tokenizer.unknown import UnknownShare, unknown_characters, unknown_share, unreachable
from electrain.foundation.output_folder import read_manifest

Runs = Callable[..., Path]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KNOWN = ["the", "cat", "sees", "dog"]


def write_tokenizer(folder: Path, words: list[str]) -> Path:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    save_tokenizer(wrap(word_piece_tokenizer(vocabulary, cased=False)), folder)
    return folder


def write_corpus(path: Path, unknown_of_thousand: int) -> Path:
    words = ["xyz" if number < unknown_of_thousand else KNOWN[number % 4] for number in range(1000)]
    path.write_text("".join(json.dumps({"text": " ".join(words[n : n + 10])}) + "\n" for n in range(0, 1000, 10)))
    return path


@pytest.mark.parametrize(
    ("of_thousand", "said"), [(0, None), (5, "0.5% of the tokens are [UNK]"), (30, "3.0% of the tokens")]
)
def test_prepare_says_the_share_of_unknown_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], of_thousand: int, said: str | None
) -> None:
    tokenizer, corpus = write_tokenizer(tmp_path / "t", KNOWN), write_corpus(tmp_path / "c.jsonl", of_thousand)
    code, (result,), stderr = command(
        capsys, "prepare", corpus, "--tokenizer", tokenizer, "--output", tmp_path / "s", "--processes", 1
    )
    assert code == 0
    assert result["unknown_tokens"] == of_thousand
    assert read_manifest(tmp_path / "s", "shards").facts["unknown_tokens"] == of_thousand
    assert ("[UNK]" in stderr) == (said is not None)
    assert said is None or f"prepare: the corpus: {said}" in stderr
    assert ("warning: prepare: the corpus: " in stderr) == (of_thousand == 30)
    assert ('learns nothing, most often because of "x"' in stderr) == (said is not None)


def test_prepare_refuses_a_corpus_that_is_mostly_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sequence of more than 100 characters without spaces is a single [UNK]."""
    tokenizer, corpus = write_tokenizer(tmp_path / "t", ["m", "##k", "##t"]), tmp_path / "protein.jsonl"
    corpus.write_text(json.dumps({"text": "MKT" * 50}) + "\n")
    arguments = ["prepare", corpus, "--tokenizer", tokenizer, "--output", tmp_path / "s", "--processes", 1]
    code, results, stderr = command(capsys, *arguments)
    assert (code, results) == (2, [])
    (line,) = [line for line in stderr.splitlines() if line.startswith("electrain prepare: ")]
    assert line.startswith("electrain prepare: the corpus: 100.0% of the tokens are [UNK]")
    assert "--kind characters" in line
    assert not (tmp_path / "s").exists()
    code, (result,), stderr = command(capsys, *arguments, "--allow-unknown")
    assert (code, result["unknown_tokens"], result["tokens"]) == (0, 1, 2)
    assert "warning: prepare: the corpus: 100.0%" in stderr


def test_special_tokens_do_not_count() -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *KNOWN])}
    tokenizer = wrap(word_piece_tokenizer(vocabulary, cased=False))
    assert unknown_share([[2, 5, 1, 4, 3, 0, 0], [2, 6, 3]], tokenizer) == UnknownShare(1, 3)
    tokenizer.unk_token = "[SEP]"  # GPT-2's tokenizer has one token for both
    assert unknown_share([[2, 5, 3]], tokenizer).unknown == 0


@pytest.mark.parametrize(
    ("words", "cased", "texts", "named"),
    [
        (["N", "##o", "##t"], True, ["Not Ton E", "E E ☃"], ["E", "T", "n", "☃"]),
        (["n", "##o", "N", "##e"], True, ["on eNo"], ["N", "e", "n", "o"]),  # known, but not in these places
        (["e", "##t"], False, ["\u00c9t\u00e9 ETE et"], ["e"]),  # as the tokenizer reads them: without the accent
        (["的", "m"], False, ["的确 确", "m" * 101, "☃"], ["确", "☃"]),
    ],
)
def test_unknown_characters_are_named_by_their_number(
    words: list[str], cased: bool, texts: list[str], named: list[str]
) -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    found = unknown_characters(texts, wrap(word_piece_tokenizer(vocabulary, cased=cased)))
    assert found == named


def test_unknown_characters_of_sequences_are_named() -> None:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, "A", "C"])}
    tokenizer = wrap(TokenizerKind("characters").backend(vocabulary))
    assert unknown_characters(["ACGGT CA"], tokenizer) == ["G", "T"]


GERMAN = ["für", "über", "schön", "der", "##schön", "f", "##u", "##r", "ü", "##ü"]


def test_a_vocabulary_that_its_normaliser_cannot_reach_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lower-cased vocab.txt with umlauts, and no word of how it was made."""
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *GERMAN]) + "\n", "utf-8")
    (tmp_path / "c.txt").write_text("f für " * 20)
    output = tmp_path / "s"
    _, _, stderr = command(
        capsys, "prepare", tmp_path / "c.txt", "--tokenizer", tmp_path, "--output", output, "--processes", 1
    )
    (line,) = [line for line in stderr.splitlines() if "never reached" in line]
    assert '6 of 10 entries of the vocabulary are never reached, because accents are stripped: "für" becomes' in line
    assert "f ##u ##r" in line
    remedy = json.loads(line[line.index("{") :])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(remedy))  # what the line says to do
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.tokenize("Für") == ["für"]
    assert unreachable(tokenizer.backend_tokenizer)[0] == {}


@pytest.mark.parametrize(
    ("words", "cased"),
    [
        (["word", "##ing", "中", "##中", "##文", "ᄀ", "##ᆨ", "か", "!", "①", "[unused1]", "[unused2]"], False),
        (["Für", "über", "É", "IŞIK"], True),
    ],
)
def test_ordinary_vocabularies_are_not_alarming(words: list[str], cased: bool) -> None:
    """Pieces of Chinese, [unused] entries, and letters that the vocabulary's own kind of text holds."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *words])}
    assert unreachable(BertTokenizerFast(vocab=vocabulary, do_lower_case=not cased).backend_tokenizer)[0] == {}


def test_fine_tuning_refuses_texts_that_are_mostly_unknown(
    tiny_run: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = tmp_path / "a.tsv"
    train.write_text("text\tlabel\n" + "the cat wxyz\tone\nthe dog wxyz\tother\n" * 4)
    arguments = ["finetune", "classification", "--model", tiny_run(), "--train", train, "--validation", train,
                 "--output", tmp_path / "out", "--training.epochs", "1"]  # fmt: skip
    code, results, stderr = command(capsys, *arguments)
    assert (code, results) == (2, [])
    assert "the training texts: 33.3% of the tokens are [UNK]" in stderr
    assert ', most often because of "' in stderr
    assert "train the tokenizer on text like this too before you pretrain, or use a model whose" in stderr
    assert not (tmp_path / "out").exists()
    code, _, stderr = command(capsys, *arguments, "--allow-unknown")
    assert code != 2
    assert "warning: the training texts: 33.3% of the tokens are [UNK]" in stderr
    assert "allow_unknown = true" in (tmp_path / "out/config.toml").read_text()

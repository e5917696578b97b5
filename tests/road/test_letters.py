"""Accents, Turkish letters and invisible joiners: kept on request, by every verb, and their loss is said."""

import argparse
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from command_line import command
from electrain.data.labelled.columns import Columns
from electrain.data.shards.encoding import Encoder
from electrain.data.shards.shards import open_shards
from electrain.data.text.words import split_words
from electrain.data.tokenizer.letters import Letters, keeps_joiners
from electrain.data.tokenizer.lost_letters import say_lost_dots
from electrain.data.tokenizer.plain_text import cleaner_for
from electrain.data.tokenizer.tokenizer import (
    SPECIAL_TOKENS,
    load_tokenizer,
    plain_backend,
    save_tokenizer,
    word_piece_tokenizer,
    wrap,
)
from electrain.data.tokenizer.windows import tokenize_texts
from electrain.finetuning.configuration import ExamplesConfig
from electrain.finetuning.examples import read_all
from electrain.foundation.output_folder import read_manifest
from electrain.models.backbones import EncoderConfig, encoder_configuration
from electrain.models.discriminator import Discriminator
from labelled_files import read, written
from tiny_pretraining import SPECIAL_IDS

Capture = pytest.CaptureFixture[str]
Trained = Callable[..., tuple[Path, str]]
GERMAN = "Er sagt schon und möchte schön mochte. "
TURKISH = "IŞIK ışık İNCİR incir Irmak ırmak İzmir izmir. "
PERSIAN = "می\u200cروم به خانه\u200cها و کتاب\u200cها. "


@pytest.fixture
def trained(tmp_path: Path, capsys: Capture) -> Trained:
    """`trained(text, *options)`: a tokenizer's folder that the command line made, and what it said on stderr."""

    def make(text: str, *options: object) -> tuple[Path, str]:
        corpus = tmp_path / "corpus.txt"
        corpus.write_text(text * 40, "utf-8")
        folder = tmp_path / f"tokenizer{len(list(tmp_path.iterdir()))}"
        code, results, stderr = command(capsys, "tokenizer", corpus, "--output", folder, "--vocab-size", 300, *options)
        assert code == 0, stderr
        assert results[0]["output"] == str(folder)
        return folder, stderr

    return make


def tokens(folder: Path, text: str) -> list[str]:
    """As any program reads the folder."""
    found: list[str] = AutoTokenizer.from_pretrained(folder).tokenize(text)
    return found


SMILES = "CC(=O)Oc1ccccc1C(=O)O CN1C=NC2=C1C(=O)N(C(=O)N2C)C CC(C)Cc1ccc(cc1)C(C)C(=O)O CCO "


def test_lower_casing_of_text_in_which_capitals_mean_something_is_said(trained: Trained) -> None:
    _, said = trained(SMILES)
    (line,) = [line for line in said.splitlines() if "lower-cased" in line]
    assert line == (
        "tokenizer: lower-cased, though 18% of the characters are capitals inside words, such as "
        '"CC(=O)Oc1ccccc1C(=O)O": give --cased to keep capitals, or --kind characters'
    )
    for text, *options in (
        (SMILES, "--cased"),
        (SMILES, "--kind", "characters"),
        ("ALL OF THIS TEXT STANDS IN CAPITALS. ",),
        (inspect.getsource(argparse)[:20_000],),
        ("中文没有大写字母，只有很少的外来词语保留它们 iPhone ",),
    ):
        assert "lower-cased, though" not in trained(text, *options)[1]
    said = trained(SMILES, "--keep-accents")[1]
    assert "lower-cased, though" in said


def test_accents_are_kept_while_lower_casing(trained: Trained) -> None:
    folder, said = trained(GERMAN)
    assert tokens(folder, "Schön") == tokens(folder, "schon")
    assert "--keep-accents" in said
    folder, said = trained(GERMAN, "--keep-accents")
    assert tokens(folder, "SCHÖN Schon") == ["schön", "schon"]
    assert "accents" not in said
    assert tokens(folder, "scho\u0308n") == ["schön"]  # in two characters, as from macOS
    assert Encoder(plain_backend(load_tokenizer(folder)).to_str()).encode(["SCHÖN Schon"]) == [
        AutoTokenizer.from_pretrained(folder)("schön schon", add_special_tokens=False)["input_ids"]
    ]


def test_turkish_letters_are_lower_cased_as_in_turkish(trained: Trained, capsys: Capture) -> None:
    folder, said = trained(TURKISH)
    assert tokens(folder, "IŞIK") != tokens(folder, "ışık")
    (line,) = [line for line in said.splitlines() if line.startswith("tokenizer: ") and "dotless" in line]
    assert "of the words hold a dotless ı or had a dotted İ" in line
    assert "--language tr" in line
    backend = load_tokenizer(folder).backend_tokenizer
    counts = np.bincount(backend.encode(TURKISH).ids, minlength=backend.get_vocab_size())
    say_lost_dots(backend, counts)
    assert "the tokenizer makes i of the capital I" in capsys.readouterr().err

    folder, said = trained(TURKISH, "--language", "tr")
    assert "dotless" not in said
    assert tokens(folder, "IŞIK İNCİR") == ["ışık", "incir"] == tokens(folder, "ışık incir")
    # In capitals with a dot of their own (Unicode's form NFD), and as a general lower-casing left them.
    assert tokens(folder, "I\u0307NCI\u0307R i\u0307ncir") == ["incir", "incir"]
    assert tokens(folder, "irmak") != tokens(folder, "ırmak")
    (text,) = tokenize_texts(load_tokenizer(folder), ["bir I\u0307NCI\u0307R"])
    assert text.spans[-1] == (4, 11)
    backend = load_tokenizer(folder).backend_tokenizer
    say_lost_dots(backend, counts)
    assert capsys.readouterr().err == ""


def test_nothing_is_said_of_dots_in_other_text(trained: Trained) -> None:
    assert "dotless" not in trained("It is in Istanbul that I sit, in Diyarbakır or Izmir. " + "I sit still. " * 30)[1]


def test_joiners_are_dropped_by_default_and_named(tmp_path: Path, trained: Trained, capsys: Capture) -> None:
    folder, said = trained(PERSIAN)
    assert tokens(folder, "می\u200cروم") == tokens(folder, "میروم")
    named = "120 control characters (most often U+200C ZERO WIDTH NON-JOINER, which a tokenizer trained with --keep-"
    assert named in said
    shards = ["--tokenizer", folder, "--output", tmp_path / "s", "--processes", 1]
    _, [result], said = command(capsys, "prepare", tmp_path / "corpus.txt", *shards)
    assert named in said
    assert (
        result["read"]["dropped"] == {"U+200C": 120} == read_manifest(tmp_path / "s", "shards").facts["read"]["dropped"]
    )


def test_the_character_dropped_most_often_is_named(tmp_path: Path, trained: Trained) -> None:
    _, said = trained("soft\u00adware on\u00adline\x01 ")
    assert "120 control characters (most often U+00AD SOFT HYPHEN: 80)" in said
    assert "most often" not in trained(GERMAN)[1]


def test_joiners_are_kept_on_request_by_every_reader(tmp_path: Path, trained: Trained, capsys: Capture) -> None:
    folder, said = trained(PERSIAN, "--keep-joiners")
    assert "0 control characters" in said
    assert tokens(folder, "می\u200cروم") == ["می\u200cروم"] != tokens(folder, "میروم")
    tokenizer = load_tokenizer(folder)
    text = "و\u200b می\u200cروم"  # U+200B goes as ever
    (made,) = tokenize_texts(tokenizer, [text])
    assert [text[start:end] for start, end in made.spans] == ["و", "می\u200cروم"]
    ids = tokenizer("و می\u200cروم", add_special_tokens=False)["input_ids"]
    assert made.token_ids == ids == Encoder(plain_backend(tokenizer).to_str()).encode(["و می\u200cروم"])[0]
    corpus = ["prepare", tmp_path / "corpus.txt", "--tokenizer", folder, "--output", tmp_path / "s", "--processes", 1]
    command(capsys, *corpus)
    shards = open_shards(tmp_path / "s")
    assert shards.read(0, 1).tolist() == tokenizer("می\u200cروم", add_special_tokens=False)["input_ids"]
    assert shards.manifest.facts["read"]["dropped_characters"] == 0
    # Fine-tuning and prediction read it from the tokenizer.
    labelled = written(
        tmp_path / "a.jsonl", json.dumps({"text": text, "label": "x"}) + "\n" + json.dumps({"text": "b", "label": "y"})
    )
    own, other = cleaner_for(tokenizer), cleaner_for(load_tokenizer(trained(PERSIAN)[0]))
    for clean, kept in ((own, "و می\u200cروم"), (other, "و میروم")):
        assert read(labelled, columns=Columns(), clean=clean)[0].first == kept
        examples = read_all("classification", ExamplesConfig(), [str(labelled)], [str(labelled)], 0, clean=clean)
        assert examples.train[0].first == examples.validation[0].first == kept
    assert split_words(own(text)) == ["و", "می\u200cروم"]


def test_fine_tuning_and_prediction_keep_joiners(tmp_path: Path, capsys: Capture) -> None:
    """The vocabulary has only the words with joiners, so that [UNK] would show it if they were lost."""
    words = ["می\u200cروم", "خانه\u200cها"]
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    tokenizer = wrap(word_piece_tokenizer(vocabulary, letters=Letters(keeps_joiners=True)))
    encoder = EncoderConfig(layers=1, hidden_size=16, feed_forward_size=24, heads=2)
    configuration = encoder_configuration(
        encoder, vocabulary_size=len(vocabulary), sequence_length=16, dropout=0.1, special_ids=SPECIAL_IDS
    )
    Discriminator(configuration).network.save_pretrained(tmp_path / "pretrained")
    save_tokenizer(tokenizer, tmp_path / "pretrained")
    train = written(
        tmp_path / "a.tsv", "text\tlabel\n" + "".join(f"{word}\t{n % 2}\n" for n, word in enumerate(words * 20))
    )
    code, _, stderr = command(
        capsys, "finetune", "classification", "--model", tmp_path / "pretrained", "--train", train,
        "--validation", train, "--output", tmp_path / "run", "--training.epochs", 20,
        "--training.peak-learning-rate", "1e-2",
    )  # fmt: skip
    assert code == 0
    assert "[UNK]" not in stderr
    _, answers, _ = command(capsys, "predict", "classify", "--model", tmp_path / "run", "--input", train)
    assert [answer["label"] for answer in answers] == ["0", "1"] * 20
    texts = written(tmp_path / "a.txt", "\n".join(words))
    _, answers, _ = command(capsys, "predict", "classify", "--model", tmp_path / "run", "--input", texts)
    assert [answer["label"] for answer in answers] == ["0", "1"]
    _, answers, _ = command(capsys, "predict", "embed", "--model", tmp_path / "run", "--input", texts)
    assert answers[0]["embedding"] != answers[1]["embedding"]
    _, [result], _ = command(capsys, "evaluate", "classification", "--model", tmp_path / "run", "--data", train)
    assert result["scores"]["accuracy"] == 100


@pytest.mark.parametrize("letters", [Letters(), Letters(cased=True), Letters(keeps_accents=True)])
def test_only_tokenizers_made_so_keep_joiners(letters: Letters) -> None:
    assert not keeps_joiners(word_piece_tokenizer({}, letters=letters))


def test_contradictions_are_refused(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "c.txt").write_text("text")
    for options, message in (
        (["--language", "tr", "--cased"], "--language tr: says how to lower-case"),
        (["--kind", "characters", "--keep-accents"], "--kind characters: keeps all letters as they are"),
        (["--k", "3"], "--k 3: is read only with --kind k-mers"),
        (["--kind", "k-mers", "--k", "1"], "--k 1: must be from 2 to 64"),
    ):
        code, _, stderr = command(capsys, "tokenizer", tmp_path / "c.txt", "--output", tmp_path / "t", *options)
        assert (code, stderr.count("\n")) == (2, 1)
        assert message in stderr

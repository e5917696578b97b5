"""Proteins, genomes and molecules: tokenizers of characters and k-mers, from text to the answers of every verb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from command_line import command
from electrain.data.shards.rows import DataConfig, RowSource
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.tokenizer import continues_word, load_tokenizer
from electrain.foundation.configuration import to_toml
from electrain.foundation.output_folder import read_manifest
from tiny_pretraining import tiny_configuration

Capture = pytest.CaptureFixture[str]
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def sequences(letters: str, count: int, length: int, seed: int = 1) -> list[str]:
    drawn = np.random.default_rng(seed).choice(list(letters), (count, length))
    return ["".join(row) for row in drawn]


def write_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def train(capsys: Capture, folder: Path, texts: list[str], *options: object) -> tuple[Path, str]:
    corpus = write_lines(folder / "corpus.jsonl", texts)
    code, _, stderr = command(capsys, "tokenizer", corpus, "--output", folder / "tokenizer", *options)
    assert code == 0, stderr
    return folder / "tokenizer", stderr


def test_a_tokenizer_of_words_is_refused_for_sequences(tmp_path: Path, capsys: Capture) -> None:
    corpus = write_lines(tmp_path / "c.jsonl", sequences(RESIDUES, 20, 150))
    arguments = ["tokenizer", corpus, "--output", tmp_path / "t", "--vocab-size", 100]
    code, results, stderr = command(capsys, *arguments)
    assert (code, results) == (2, [])
    assert "the corpus: 100.0% of the tokens are [UNK]" in stderr
    assert "--kind characters" in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl"]
    code, [result], stderr = command(capsys, *arguments, "--allow-unknown")
    assert (code, result["unknown_fraction"]) == (0, 1.0)
    assert "warning: tokenizer: the corpus: 100.0% of the tokens are [UNK]" in stderr


def test_characters(tmp_path: Path, capsys: Capture) -> None:
    molecules = ["CC(=O)Oc1ccccc1C(=O)O", "c1##cc[Cl-]", "N#N"]  # aspirin, and "##" that continues no word
    folder, said = train(capsys, tmp_path, molecules, "--kind", "characters", "--character-coverage", 1)
    assert "[UNK]" not in said
    loaded = AutoTokenizer.from_pretrained(folder)
    made = loaded("Cc1 ##\x00Cl?", return_offsets_mapping=True)
    assert loaded.convert_ids_to_tokens(made["input_ids"]) == ["[CLS]", *"Cc1##Cl", "[UNK]", "[SEP]"]
    assert made["offset_mapping"][1:-1] == [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (7, 8), (8, 9), (9, 10)]
    assert loaded.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert loaded.decode(made["input_ids"], skip_special_tokens=True) == "Cc1##Cl"
    pair = loaded("CC", "N")
    assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    facts = read_manifest(folder, "tokenizer").facts
    assert (facts["kind"], facts["cased"]) == ("characters", True)


def test_k_mers_do_not_overlap_and_fall_back_to_characters(tmp_path: Path, capsys: Capture) -> None:
    genome = ["ACGTAC" * 30 + "N", "##CACGTAC"]
    folder, _ = train(capsys, tmp_path, genome, "--kind", "k-mers", "--k", 3, "--character-coverage", 1)
    loaded = AutoTokenizer.from_pretrained(folder)
    made = loaded("ACGTAC ACNA", return_offsets_mapping=True)
    assert loaded.convert_ids_to_tokens(made["input_ids"]) == ["[CLS]", "ACG", "TAC", "A", "C", "N", "A", "[SEP]"]
    assert made["offset_mapping"][1:-1] == [(0, 3), (3, 6), (7, 8), (8, 9), (9, 10), (10, 11)]
    again, _ = train(capsys, _new(tmp_path / "other"), genome[::-1], "--kind", "k-mers", "--k", 3)
    own, other = (json.loads((one / "tokenizer.json").read_text())["model"]["vocab"] for one in (folder, again))
    assert own["ACG"] == other["ACG"]  # the order of the corpus does not matter


def test_a_k_mer_that_begins_with_two_hashes_continues_no_word(tmp_path: Path, capsys: Capture) -> None:
    folder, _ = train(capsys, tmp_path, ["##C" * 30], "--kind", "k-mers", "--k", 3)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.tokenize("##C") == ["##C"]
    assert not continues_word(tokenizer).any()


def test_few_k_mers_in_the_vocabulary_are_said(tmp_path: Path, capsys: Capture) -> None:
    _, said = train(capsys, tmp_path, sequences(RESIDUES, 20, 150), "--kind", "k-mers")
    assert "0% of the 6-mers are in the vocabulary, the others become single characters" in said
    _, said = train(capsys, _new(tmp_path / "dna"), ["ACGTACCA" * 30] * 3, "--kind", "k-mers")
    assert "6-mers" not in said


def test_small_letters_of_a_genome_are_said(tmp_path: Path, capsys: Capture) -> None:
    _, said = train(capsys, tmp_path, ["ACGTACCA" * 20 + "acgtacca" * 10] * 3, "--kind", "k-mers", "--k", 4)
    assert "33% of the letters are a beside A and the like, and count as other letters" in said
    _, said = train(capsys, _new(tmp_path / "large"), ["ACGTACCA" * 20] * 3, "--kind", "k-mers", "--k", 4)
    assert "letters" not in said


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def protein_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on proteins, one in each row, two steps long."""
    from electrain.data.shards.prepare import prepare
    from electrain.data.text.corpus import CorpusCounts, read_documents
    from electrain.data.tokenizer.training import TokenizerKind, train_tokenizer
    from electrain.pretraining.run import pretrain

    folder = tmp_path_factory.mktemp("protein")
    corpus = str(write_lines(folder / "c.jsonl", sequences(RESIDUES, 40, 150)))
    documents = read_documents([corpus], counts=CorpusCounts())
    train_tokenizer(documents, folder / "tokenizer", 100, False, kind=TokenizerKind("characters"))
    prepare([corpus], folder / "tokenizer", folder / "shards", processes=1)
    alone: dict[str, Any] = {"data": {"segments": 1}, "parity": {"reference_packing": True}}
    config = tiny_configuration(training={"steps": 2, "warmup_steps": 0}, **alone)
    pretrain(config, folder / "shards", folder / "run")
    assert "reference_packing = true" in to_toml(config)
    return folder


def test_a_row_holds_one_sequence(protein_run: Path) -> None:
    shards = open_shards(protein_run / "shards")
    assert shards.unigram_counts[1] == 0
    rows = RowSource(shards, DataConfig(24, 1), 0, reference_packing=True)
    batch = rows.batch(np.arange(rows.rows_per_epoch))
    assert (batch.token_ids == shards.special_ids.sep).sum(1).tolist() == [1] * len(batch.token_ids)


def test_every_verb_reads_sequences(protein_run: Path, tmp_path: Path, capsys: Capture) -> None:
    run, text = protein_run / "run", "MKT AYI\u200bAKQR"
    given = tmp_path / "given.txt"
    given.write_text(text + "\n", "utf-8")
    _, [found], _ = command(capsys, "predict", "detect", "--model", run, "--input", given)
    assert [token["token"] for token in found["tokens"]] == [*"MKTAYIAKQR"]
    assert all(text[token["start"] : token["end"]] == token["token"] for token in found["tokens"])
    (tmp_path / "masked.txt").write_text("MKT[MASK]YIA\n")
    _, [found], _ = command(capsys, "predict", "fill", "--model", run, "--input", tmp_path / "masked.txt")
    assert [(mask["start"], mask["end"]) for mask in found["masks"]] == [(3, 9)]
    assert all(len(candidate["token"]) == 1 for candidate in found["masks"][0]["candidates"])
    _, [found], _ = command(capsys, "predict", "embed", "--model", run, "--input", given)
    assert len(found["embedding"]) == 32


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_fine_tuning_on_sequences(protein_run: Path, tmp_path: Path, capsys: Capture, task: str) -> None:
    texts = sequences(RESIDUES, 8, 15)
    if task == "classification":
        data = tmp_path / "a.tsv"
        data.write_text("text\tlabel\n" + "".join(f"{text}\t{text > 'K'}\n" for text in texts))
    else:
        data = tmp_path / "a.jsonl"
        rows = [{"words": list(text), "tags": ["H" if letter < "K" else "E" for letter in text]} for text in texts]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, stderr = command(
        capsys, "finetune", task, "--model", protein_run / "run", "--train", data, "--validation", data,
        "--output", tmp_path / "run", "--training.epochs", 1,
    )  # fmt: skip
    assert code != 2, stderr
    assert "[UNK]" not in stderr
    (tmp_path / "given.txt").write_text(texts[0] + "\n")
    verb = "classify" if task == "classification" else "tag"
    _, [answer], _ = command(capsys, "predict", verb, "--model", tmp_path / "run", "--input", tmp_path / "given.txt")
    if task == "classification":
        assert answer["label"] in ("true", "false", "True", "False")
    else:
        assert answer["words"] == list(texts[0])  # as trained: a residue is a word
        assert len(answer["tags"]) == 15

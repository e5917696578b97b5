"""Models whose tokenizers are of SentencePiece: they are fine-tuned, asked and started from like any other."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertTokenizer,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2Tokenizer,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaTokenizer,
)

from command_line import command, refuse
from electrain.data.tokenizer.tokenizer import continues_word, load_tokenizer

Capture = pytest.CaptureFixture[str]
PIECES = [*(f"▁{word}" for word in ("", "the", "cat", "dog", "sees", "happy", "sad", "a", "is")), *"s.,ehinpty北京"]
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
}


def vocabulary(*special: str, last: str = "") -> list[tuple[str, float]]:
    words = [(piece, -3.0 - number / 100) for number, piece in enumerate(PIECES)]
    return [(token, 0.0) for token in special] + words + ([(last, 0.0)] if last else [])


FAMILIES: dict[str, Any] = {
    "xlm-roberta": (
        lambda: XLMRobertaTokenizer(vocab=vocabulary("<s>", "<pad>", "</s>", "<unk>", last="<mask>")),
        lambda size: XLMRobertaForMaskedLM(XLMRobertaConfig(vocab_size=size, pad_token_id=1, **SIZES)),
    ),
    "albert": (
        lambda: AlbertTokenizer(vocab=vocabulary("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")),
        lambda size: AlbertForMaskedLM(AlbertConfig(vocab_size=size, embedding_size=8, pad_token_id=0, **SIZES)),
    ),
    "deberta": (
        lambda: DebertaV2Tokenizer(vocab=vocabulary("[PAD]", "[CLS]", "[SEP]", "[UNK]", last="[MASK]")),
        lambda size: DebertaV2ForMaskedLM(
            DebertaV2Config(
                vocab_size=size, type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], **SIZES
            )
        ),
    ),
}
SQUAD = [
    {"id": number, "question": "a cat?", "context": context, "answers": {"text": [text], "answer_start": [start]}}
    for number, context, text, start in (("1", "a dog sees the cat", "the cat", 11), ("2", "the dog is sad", "dog", 4))
]
DATA = {
    "classification": ("a.tsv", "text\tlabel\nthe cat sees a dog\tx\na dog is sad\ty\nthe dogs, happy.\tx\n"),
    "tagging": ("a.conll", "the O\ncats B-X\n北京 O\n. O\n\na O\ndog O\n"),
    "question-answering": ("a.jsonl", "\n".join(map(json.dumps, SQUAD))),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folder_of(family)`: a model with random weights, as its makers saved it."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            tokenizer, network = FAMILIES[family]
            tokenizer().save_pretrained(made[family])
            network(len(tokenizer())).save_pretrained(made[family])
        return made[family]

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_reads_a_sentence_piece_model(
    folder_of: Callable[[str], Path], tmp_path: Path, capsys: Capture, family: str
) -> None:
    model = folder_of(family)
    before = load_tokenizer(model)
    for task, (name, content) in DATA.items():
        (tmp_path / name).write_text(content)
        out = tmp_path / task
        code, _, err = command(
            capsys, "finetune", task, "--model", model, "--train", tmp_path / name, "--validation", tmp_path / name,
            "--output", out, "--training.epochs", "1",
        )  # fmt: skip
        assert code == 0, err
        after = load_tokenizer(out / "model")
        for text in ("the cats see a dog.", "<s> [MASK] 北京"):
            assert after(text, "a dog").input_ids == before(text, "a dog").input_ids
        code, [scored], err = command(capsys, "evaluate", task, "--model", out, "--data", tmp_path / name)
        assert code == 0, err
        assert scored["scores"]
    _, [answer], _ = command(capsys, "predict", "tag", "the cats, 北京", "--model", tmp_path / "tagging")
    assert answer["words"] == ["the", "cats", ",", "北", "京"]
    _, [answer], _ = command(capsys, "predict", "answer", "a dog?\tthe  dog is happy", "--model",
                             tmp_path / "question-answering")  # fmt: skip
    assert answer["answer"] == "the  dog is happy"[answer["start"] : answer["end"]].strip() == answer["answer"].strip()
    code, [answer], err = command(capsys, "predict", "embed", "the cats", "--model", model)
    assert code == 0, err
    mask = before.mask_token
    code, [answer], err = command(capsys, "predict", "fill", f"the {mask} sees", "--model", model)
    assert code == 0, err
    assert len(answer["masks"]) == 1


@pytest.mark.usefixtures("quick_pretraining")
def test_pretraining_starts_from_xlm_roberta(folder_of: Callable[[str], Path], tmp_path: Path, capsys: Capture) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cats, a dog is happy. " * 300)
    code, _, err = command(capsys, "prepare", corpus, "--tokenizer", folder_of("xlm-roberta"), "--output",
                           tmp_path / "shards", "--processes", "1")  # fmt: skip
    assert code == 0, err
    fields = {
        "encoder.layers": 2, "encoder.hidden-size": 16, "encoder.feed-forward-size": 24, "encoder.heads": 2,
        "encoder.backbone": "electra", "encoder.embedding-size": 16, "training.steps": 2, "training.warmup-steps": 0,
        "training.batch-rows": 2, "training.compile": "false", "data.sequence-length": 32,
        "corruption.noise": "whole-word",
    }  # fmt: skip
    given = [word for name, value in fields.items() for word in (f"--{name}", value)]
    code, _, err = command(capsys, "pretrain", "--config", "tiny", "--shards", tmp_path / "shards", "--output",
                           tmp_path / "run", "--start.discriminator", folder_of("xlm-roberta"), *given)  # fmt: skip
    assert code == 0, err
    assert command(capsys, "predict", "detect", "the cats", "--model", tmp_path / "run")[0] == 0


def test_the_pieces_that_go_on_with_a_word(folder_of: Callable[[str], Path]) -> None:
    """Whole-word noise would otherwise take every piece of SentencePiece for a word."""
    tokenizer = load_tokenizer(folder_of("deberta"))
    going_on = np.flatnonzero(continues_word(tokenizer)).tolist()
    assert tokenizer.convert_ids_to_tokens(going_on) == ["s", "e", "h", "i", "n", "p", "t", "y"]


def test_what_only_sentencepiece_can_read_says_what_to_install(
    folder_of: Callable[[str], Path], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    gone = ("sentencepiece", "google.protobuf")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else found(name, *more))
    for name, files in (("spiece.model", {}), ("spm.model", {"tokenizer_config.json": "{}"})):
        folder = tmp_path / name
        folder.mkdir()
        for copied in ("config.json", "model.safetensors"):
            (folder / copied).write_bytes((folder_of("albert") / copied).read_bytes())
        for other, content in {name: "any", **files}.items():
            (folder / other).write_text(content)
        line = refuse(["predict", "embed", "the cat", "--model", str(folder)], capsys)
        assert f"is a SentencePiece model ({name})" in line
        assert "run pip install sentencepiece protobuf" in line


def test_a_tokenizer_without_its_vocabulary_is_refused(
    folder_of: Callable[[str], Path], tmp_path: Path, capsys: Capture
) -> None:
    """transformers would make one of the special tokens: every word would be [UNK]."""
    for family in FAMILIES:
        folder = tmp_path / family
        folder.mkdir()
        for name in ("config.json", "model.safetensors", "tokenizer_config.json"):
            (folder / name).write_bytes((folder_of(family) / name).read_bytes())
        assert "special tokens only, and no words" in refuse(
            ["predict", "embed", "the cat", "--model", str(folder)], capsys
        )

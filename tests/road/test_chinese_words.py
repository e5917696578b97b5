"""Where words begin travels from the text through the shards to the noise."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from electrain.data.shards.prepare import prepare
from electrain.data.shards.rows import DataConfig, RowSource
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.chinese_words import word_beginnings
from electrain.data.tokenizer.tokenizer import load_tokenizer, save_tokenizer, word_piece_tokenizer, wrap
from electrain.foundation.errors import ElectrainError
from electrain.inference.predict.corrupt import predict_corrupt
from electrain.pretraining.objectives.masking import Masking, mask_batch
from electrain.pretraining.objectives.noise import word_numbers
from electrain.pretraining.run import pretrain
from tiny_pretraining import tiny_configuration

TEXT = "我们在北京大学学习deep learning，很好。"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    pieces = sorted(set("我们在北京大学习，很好。") | {"deep", "lear", "##ning"})
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *pieces])}
    save_tokenizer(wrap(word_piece_tokenizer(vocabulary, cased=False)), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def prepared(folder: Path, tokenizer: Path, *, copies: int = 40, processes: int = 1) -> Path:
    lines = [json.dumps({"text": TEXT * 3}, ensure_ascii=False)] * copies
    (folder / "corpus.jsonl").write_text("\n".join(lines), "utf-8")
    output = folder / f"shards{processes}"
    prepare([str(folder / "corpus.jsonl")], tokenizer, output, processes=processes, chinese_words=True)
    return output


def test_words_by_hand() -> None:
    tokens = [*"我们在北京大学学习", "deep", "lear", "##ning", "，", "很", "好", "。"]
    starts = [*range(9), 9, 14, 18, 22, 23, 24, 25]
    begins = word_beginnings(TEXT, tokens, starts)
    words = [token for token, begin in zip(tokens, begins, strict=True) if begin]
    assert words == ["我", "在", "北", "学", "deep", "lear", "，", "很", "好", "。"]
    assert word_beginnings("a b", ["a", "##b"], [0, 2]).tolist() == [True, False]


def test_the_shards_say_where_words_begin(tmp_path: Path, tokenizer: Path) -> None:
    shards = open_shards(prepared(tmp_path, tokenizer))
    assert shards.has_words
    pieces = load_tokenizer(tokenizer).convert_ids_to_tokens(shards.read(0, 17).tolist())
    begins = shards.read_begins(0, 17)
    assert [piece for piece, begin in zip(pieces, begins, strict=True) if begin][:4] == ["我", "在", "北", "学"]
    assert shards.read_begins(shards.token_count - 1, 1).all()  # [SEP]
    other = open_shards(prepared(tmp_path, tokenizer, processes=2))
    assert (other.read_begins(0, other.token_count) == shards.read_begins(0, shards.token_count)).all()
    words = tmp_path / "shards1/corpus_00000.ds.words"
    words.write_bytes(b"\2" + words.read_bytes()[1:])
    with pytest.raises(ElectrainError, match="damaged"):
        open_shards(tmp_path / "shards1")


@pytest.mark.parametrize("packing", [False, True])
def test_rows_carry_the_words_and_noise_takes_them_whole(tmp_path: Path, tokenizer: Path, packing: bool) -> None:
    shards = open_shards(prepared(tmp_path, tokenizer))
    batch = RowSource(shards, DataConfig(24, 2), 0, reference_packing=packing).batch(np.arange(30))
    assert batch.begins_word is not None
    tokens = load_tokenizer(tokenizer).convert_ids_to_tokens
    for ids, begins, special in zip(batch.token_ids, batch.begins_word, batch.is_special, strict=True):
        for place in range(2, 23):
            if not special[place] and not special[place - 1] and tokens(int(ids[place - 1])) == "北":
                assert tokens(int(ids[place])) != "京" or not begins[place]
    assert batch.token_ids.max() < len(load_tokenizer(tokenizer))
    continues = torch.zeros(len(load_tokenizer(tokenizer)), dtype=torch.bool)
    made = mask_batch(batch, Masking(0.3, 0, mask_id=4, noise="whole-word", continues_word=continues))
    words = word_numbers(batch, continues)
    taken_parts = 0
    for row in range(30):
        chosen = set(made.positions[row][made.is_selected[row]].tolist())
        taken = {int(words[row, place]) for place in chosen}
        assert chosen == {place for place in range(24) if int(words[row, place]) in taken}
        taken_parts += len(chosen) - len(taken)
    assert taken_parts > 20  # words of several characters are taken


def test_corrupt_takes_words_whole_as_the_run_did(tmp_path: Path, tokenizer: Path) -> None:
    config = tiny_configuration(corruption={"noise": "whole-word", "masked_fraction": 0.4}, training={"steps": 4})
    pretrain(config, prepared(tmp_path, tokenizer), tmp_path / "run")
    text = "北京大学 learning deep deep deep deep deep"  # no word is longer than the four tokens to be taken
    rows = []
    for shown in predict_corrupt(tmp_path / "run", [text] * 100):
        masked = next(step for step in shown["steps"] if step["step"] == "what the generator reads")["tokens"]
        rows.append([token == "[MASK]" for token in masked[:4]])
    together = np.array(rows)
    # A token that is taken is shown as [MASK] 85 times of 100.
    assert 0.75 < together[together[:, 0]].mean(0)[1:].mean() < 0.95
    assert together[together.any(1)].mean() == pytest.approx(0.85, abs=0.06)


def test_corrupt_needs_no_words_where_the_noise_reads_none(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(tiny_configuration(training={"steps": 4}), prepared(tmp_path, tokenizer), tmp_path / "run")
    monkeypatch.setitem(sys.modules, "rjieba", None)
    assert len(list(predict_corrupt(tmp_path / "run", ["北京大学"]))) == 1


def test_without_the_flag_shards_say_nothing(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": TEXT * 20}), "utf-8")
    prepare([str(tmp_path / "corpus.jsonl")], tokenizer, tmp_path / "plain", processes=1)
    shards = open_shards(tmp_path / "plain")
    assert not shards.has_words
    assert not list((tmp_path / "plain").glob("*.words"))
    assert RowSource(shards, DataConfig(24, 2), 0).batch(np.arange(2)).begins_word is None

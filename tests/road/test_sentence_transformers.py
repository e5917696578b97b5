"""The real `SentenceTransformer` opens every encoder and gives the vectors of `predict embed`."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

import electrain
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.sums import read_sums
from electrain.inference.check import check_folder
from electrain.pretraining.export import export_models
from tiny_pretraining import INVENTED_WORDS, invented_text, objective_of, tiny_configuration

NAMES = {"modules.json", "sentence_bert_config.json", "1_Pooling/config.json"}


def require_same_vectors(folder: Path, texts: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sentence_transformers"):
        theirs = SentenceTransformer(str(folder), device="cpu")
    assert not [record for record in caplog.records if record.name.startswith("sentence_transformers")]
    assert [type(module).__name__ for module in theirs] == ["Transformer", "Pooling"]
    vectors = theirs.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        assert vector == pytest.approx(electrain.load(folder).embed(text).embedding, abs=1e-5), text[:20]
    assert read_sums(folder).keys() >= NAMES


@pytest.mark.parametrize("backbone", ["electra", "modernbert", "bert"])
def test_the_encoder_of_a_run(
    tiny_shards: Path, tmp_path: Path, backbone: str, caplog: pytest.LogCaptureFixture
) -> None:
    objective = objective_of(tiny_configuration(encoder={"backbone": backbone}), tiny_shards)
    export_models(objective, load_tokenizer(tiny_shards / "tokenizer"), tmp_path, 24)
    texts = [*invented_text(4, seed=1), " ".join(INVENTED_WORDS), "x"]
    require_same_vectors(tmp_path / "model", texts, caplog)
    assert not (tmp_path / "generator/modules.json").exists()
    network, report = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert all("pooler" in name for name in report["missing_keys"])
    tokens = AutoTokenizer.from_pretrained(tmp_path / "model")("x", return_tensors="pt")
    assert network(**tokens).last_hidden_state.shape[-1] == 32


def test_a_fine_tuned_encoder_and_a_continued_run(
    tiny_shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, quick_pretraining: None
) -> None:
    sections: dict[str, Any] = {"training": {"steps": 2, "warmup_steps": 1}}
    first = electrain.pretrain(as_tables(sections), shards=tiny_shards, output=tmp_path / "first")
    start = {"start": {"discriminator": str(first.output / "model")}}
    assert electrain.pretrain(as_tables(sections | start), shards=tiny_shards, output=tmp_path / "second").finished
    rows = [{"text": text, "label": str(number % 2)} for number, text in enumerate(invented_text(12, seed=4))]
    tuned = electrain.finetune(
        "classification",
        model=first.output,
        train=rows,
        validation=rows,
        output=tmp_path / "tuned",
        overrides={"training.epochs": 1, "training.precision": "float32", "data.longest_tokens": 16},
    )
    require_same_vectors(tuned.output / "model", [*invented_text(3, seed=2), " ".join(INVENTED_WORDS)], caplog)
    assert json.loads((tuned.output / "model/sentence_bert_config.json").read_text())["max_seq_length"] == 16


def test_a_damaged_file_is_found(tiny_shards: Path, tmp_path: Path) -> None:
    objective = objective_of(tiny_configuration(), tiny_shards)
    export_models(objective, load_tokenizer(tiny_shards / "tokenizer"), tmp_path, 24)
    assert not check_folder(tmp_path / "model").faults
    (tmp_path / "model/1_Pooling/config.json").write_text("{}")
    assert any("1_Pooling/config.json" in fault for fault in check_folder(tmp_path / "model").faults)


def as_tables(sections: dict[str, Any]) -> dict[str, Any]:
    from electrain.foundation.configuration import merge_tables
    from tiny_pretraining import TINY_TABLES

    return merge_tables(TINY_TABLES, sections)


def test_older_folders_are_averaged_too(tiny_run: Any) -> None:
    """Without `modules.json` the library takes the mean by itself."""
    text = "the cat saw a dog"
    (vector,) = SentenceTransformer(str(tiny_run() / "model"), device="cpu").encode([text])
    assert np.allclose(vector, electrain.load(tiny_run()).embed(text).embedding, atol=1e-5)

"""One entry in the table of backbones is all that a further one needs: it trains, is saved, is read and detects."""

from pathlib import Path
from typing import Any, Literal

import pytest
from torch.nn.functional import gelu
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForTokenClassification,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DebertaV2ForTokenClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForTokenClassification,
)

from asking import asked
from electrain.foundation.errors import CheckpointError
from electrain.models.backbones import BACKBONES, Backbone, EncoderConfig, Shape
from electrain.pretraining.run import pretrain
from tiny_pretraining import INVENTED_WORDS, tiny_configuration


def _roberta(shape: Shape) -> RobertaConfig:
    dropouts = {"hidden_dropout_prob": shape.dropout, "attention_probs_dropout_prob": shape.dropout}
    return RobertaConfig(**shape.common | {"max_position_embeddings": 514}, **dropouts, type_vocab_size=1)


def _deberta(shape: Shape) -> DebertaV2Config:
    dropouts = {"hidden_dropout_prob": shape.dropout, "attention_probs_dropout_prob": shape.dropout}
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
    return DebertaV2Config(**shape.common, **dropouts, **relative, type_vocab_size=0, legacy=True)


ENTRIES = {
    "roberta": Backbone(
        _roberta,
        RobertaForMaskedLM,
        "lm_head.decoder",
        word_features=("lm_head.dense", gelu, "lm_head.layer_norm"),
        detector=RobertaForTokenClassification,
        detection=("dropout", "classifier"),
        starts_from=("roberta", "xlm-roberta"),
    ),
    "deberta-v2": Backbone(
        _deberta,
        DebertaV2ForMaskedLM,
        "cls.predictions.decoder",
        word_features=("cls.predictions.transform",),
        detector=DebertaV2ForTokenClassification,
        detection=("dropout", "classifier"),
        starts_from=("deberta-v2",),
    ),
}


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("name", list(ENTRIES))
@pytest.mark.parametrize("sharing", ["shared", "gradient-disentangled"])
def test_one_entry_is_a_backbone(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sharing: str, name: str
) -> None:
    monkeypatch.setitem(BACKBONES, name, ENTRIES[name])
    # The choices are made from the table when it is imported, before this entry.
    monkeypatch.setitem(EncoderConfig.__annotations__, "backbone", Literal[tuple(BACKBONES)])
    tables: dict[str, Any] = {
        "encoder": {"backbone": name, "embedding_size": 0},
        "generator": {"embedding_sharing": sharing},
        "discriminator": {"heads": ["detection", "correction", "electric"]},
    }
    config = tiny_configuration(**tables)
    assert pretrain(config, tiny_shards, tmp_path / "run").is_finished
    pretrain(config, tiny_shards, tmp_path / "run", resume=True)
    text = " ".join(INVENTED_WORDS[:5])
    (detected,) = asked("detect", tmp_path / "run", [text])
    assert len(detected["tokens"]) == 5
    (filled,) = asked("fill", tmp_path / "run", ["[MASK] " + text], by="correction")
    assert filled
    for folder, kind in {
        "model": AutoModel,
        "detector": AutoModelForTokenClassification,
        "electric": AutoModelForTokenClassification,
        "correction": AutoModelForMaskedLM,
        "generator": AutoModelForMaskedLM,
    }.items():
        _, report = kind.from_pretrained(tmp_path / "run" / folder, output_loading_info=True)
        assert all("pooler" in name for name in report["missing_keys"]), folder
        assert not report["mismatched_keys"], folder
    on = tiny_configuration(**tables, start={"discriminator": str(tmp_path / "run/model")})
    assert pretrain(on, tiny_shards, tmp_path / "on").is_finished


def test_without_the_entry_it_is_refused(tmp_path: Path) -> None:
    config = RobertaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    RobertaForTokenClassification(config).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="is a model of the kind roberta; a discriminator must be one of electra, modernbert"
    ):
        asked("detect", tmp_path, ["text"])[0]

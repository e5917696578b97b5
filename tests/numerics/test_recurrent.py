"""The article's `ELECTRAClassifier`, alone and as a discriminator in the loop."""

import inspect
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM

from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.models.recurrent import ELECTRAClassifier
from electrain.pretraining.export import export_models
from electrain.pretraining.run import pretrain
from tiny_pretraining import batches_of, objective_of, tiny_configuration

RECURRENT = {"encoder": {"backbone": "lstm", "embedding_size": 0}, "discriminator": {"heads": ["correction"]}}


def test_it_is_the_articles_class() -> None:
    names = list(inspect.signature(ELECTRAClassifier).parameters)
    assert names == ["input_size", "hidden_size", "num_layers", "dropout"]
    torch.manual_seed(0)
    network = ELECTRAClassifier(11, 6, 2, 0.5).eval()
    assert [name for name, _ in network.named_children()] == ["embedding", "lstm", "fc"]
    ids = torch.randint(11, (7, 3))
    logits = network(ids)
    assert logits.shape == (7, 3, 11)
    expected = network.fc(network.lstm(network.embedding(ids))[0])
    assert torch.equal(logits, expected)
    torch.testing.assert_close(network(ids.T, batch_first=True), logits.transpose(0, 1))


def test_it_reads_from_left_to_right() -> None:
    network = ELECTRAClassifier(11, 6, 1, 0.0).eval()
    ids = torch.randint(11, (7, 2))
    other = ids.clone()
    other[4:] = (other[4:] + 1) % 11
    assert torch.equal(network(ids)[:4], network(other)[:4])


@pytest.mark.usefixtures("quick_pretraining")
def test_it_trains_in_the_loop_and_comes_out(tiny_shards: Path, tmp_path: Path) -> None:
    training = {"steps": 200, "batch_rows": 32, "peak_learning_rate": 1e-2, "log_every_steps": 50}
    sections = {"generator": {"kind": "unigram"}, "corruption": {"masked_fraction": 0.3}, "training": training}
    config = tiny_configuration(**RECURRENT, **sections)
    result = pretrain(config, tiny_shards, tmp_path / "run")
    # 106 words: guessing costs 4.66 nats; each word suggests the next
    assert result.metrics["correction_loss"] < 4.3
    assert 0 < result.metrics["correction_accuracy"] < 1
    network, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "run/correction", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(network).__name__ == "RecurrentForMaskedLM"
    encoder = AutoModel.from_pretrained(tmp_path / "run/model")
    assert encoder(torch.randint(106, (2, 9))).last_hidden_state.shape == (2, 9, 32)


def test_the_exported_network_is_the_articles_class(tiny_shards: Path, tmp_path: Path) -> None:
    objective = objective_of(tiny_configuration(**RECURRENT), tiny_shards).eval()
    export_models(objective, load_tokenizer(tiny_shards / "tokenizer"), tmp_path, 24)
    network = AutoModelForMaskedLM.from_pretrained(tmp_path / "correction").eval()
    ids = batches_of(tiny_configuration(**RECURRENT), tiny_shards)(0)[0].rows.token_ids
    with torch.no_grad():
        judge = objective.discriminator
        expected = judge.correction(judge.hidden(ids, None, None), judge.word_embeddings.weight)
        torch.testing.assert_close(network(input_ids=ids).logits, expected)
        classifier = network.recurrent.network
        assert isinstance(classifier, ELECTRAClassifier)
        torch.testing.assert_close(classifier(ids, batch_first=True), expected)

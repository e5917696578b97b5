"""What a run leaves behind loads in plain Transformers, and computes exactly what was trained."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)

from asking import asked
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.tokenizer import tokenizer_hash
from electrain.finetuning.configuration import FinetuneConfig
from electrain.finetuning.model import build_model, open_pretrained
from electrain.finetuning.tasks.settings import TaskSettings
from electrain.foundation.errors import CheckpointError
from electrain.foundation.sums import SUMS_NAME
from electrain.inference.model import load_detector
from electrain.pretraining.build import build_objective, load_starting_weights
from electrain.pretraining.configuration import PretrainConfig, StartConfig
from electrain.pretraining.run import pretrain
from tiny_pretraining import SPECIAL_IDS, invented_text, tiny_configuration

SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "electra": {},
    "electra, separate": {"generator": {"embedding_sharing": "separate"}},
    "modernbert": {"encoder": {"backbone": "modernbert"}},
    "modernbert, one width": {"encoder": {"backbone": "modernbert"}, "generator": {"size_fraction": 1.0}},
    "modernbert, separate": {"encoder": {"backbone": "modernbert"}, "generator": {"embedding_sharing": "separate"}},
}
BASELINE = {"training": {"objective": "masked-language-modelling"}}


@pytest.fixture(scope="module")
def runs(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`runs(sections)`: configuration, folder, and the trained objective as the last checkpoint has it."""
    patch = pytest.MonkeyPatch()
    patch.setattr("electrain.pretraining.run.measure_matrix_rate", lambda *_: 1e9)
    patch.setattr("electrain.pretraining.report.write_report", lambda folder: folder / "report.html")
    made: dict[str, Any] = {}

    def make(sections: dict[str, Any]) -> tuple[PretrainConfig, Path, Any]:
        key = json.dumps(sections)
        if key not in made:
            config = tiny_configuration(**sections)
            folder = tmp_path_factory.mktemp("export") / "run"
            pretrain(config, tiny_shards, folder)
            stream = open_shards(tiny_shards)
            objective = build_objective(config, vocabulary_size=stream.vocabulary_size, special_ids=stream.special_ids)
            weights = load_file(folder / "checkpoints/step-10/model.safetensors")
            with torch.no_grad():
                for name, parameter in objective.named_parameters():
                    parameter.copy_(weights[name])
            made[key] = config, folder, objective.eval()
        return made[key]  # type: ignore[no-any-return]

    yield make
    patch.undo()


def loaded(kind: Any, folder: Path) -> Any:
    """A network of which nothing was missing and nothing left over."""
    network, report = kind.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    return network.eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_discriminator_computes_exactly_what_was_trained(runs: Any, shape: str) -> None:
    config, folder, objective = runs(SHAPES[shape])
    is_electra = config.encoder.backbone == "electra"
    trained = folder / ("model" if is_electra else "detector")
    network = loaded(AutoModelForPreTraining if is_electra else AutoModelForTokenClassification, trained)
    inputs = texts_as_inputs(trained)
    assert ("token_type_ids" in inputs) == is_electra
    with torch.no_grad():
        answer = network(**inputs).logits
        ours = objective.discriminator(inputs["input_ids"], inputs.get("token_type_ids"), inputs["attention_mask"])
    if not is_electra:
        assert network.config.id2label == {0: "original", 1: "replaced"}
        answer = answer[..., 1] - answer[..., 0]
    assert torch.equal(answer, ours)


@pytest.mark.parametrize("shape", SHAPES)
def test_generator_computes_exactly_what_was_trained(runs: Any, shape: str) -> None:
    _, folder, objective = runs(SHAPES[shape])
    network = loaded(AutoModelForMaskedLM, folder / "generator")
    inputs = texts_as_inputs(folder / "generator")
    positions = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
    with torch.no_grad():
        ours = objective.generator(
            inputs["input_ids"], inputs.get("token_type_ids"), inputs["attention_mask"], positions
        )
        assert torch.equal(network(**inputs).logits, ours)


@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_baseline_computes_exactly_what_was_trained(runs: Any, backbone: str) -> None:
    _, folder, objective = runs({**BASELINE, "encoder": {"backbone": backbone}})
    assert not (folder / "generator").exists()
    network = loaded(AutoModelForMaskedLM, folder / "model")
    inputs = texts_as_inputs(folder / "model")
    positions = torch.arange(inputs["input_ids"].shape[1]).expand_as(inputs["input_ids"])
    with torch.no_grad():
        ours = objective.model(inputs["input_ids"], inputs.get("token_type_ids"), inputs["attention_mask"], positions)
        assert torch.equal(network(**inputs).logits, ours)


def texts_as_inputs(folder: Path) -> Any:
    """Three texts of unequal length through the folder's own tokenizer, cut to the length trained on."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(invented_text(3, seed=1), padding=True, truncation=True, max_length=24, return_tensors="pt")


BACKBONES = ["electra", "modernbert", "bert"]
# What Hugging Face's classes put on top of each encoder; ModernBERT's baseline brings the dense layer of its own.
NEW = ("classifier.", "head.", "bert.pooler.", "pooler.", "qa_outputs.")


@pytest.mark.parametrize("sections", [{}, BASELINE], ids=["detection", "baseline"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_model_is_a_plain_encoder_for_fine_tuning(runs: Any, backbone: str, sections: Any) -> None:
    """`AutoModel` takes all of the encoder and computes what was trained; no label of pretraining is left in it."""
    _, folder, objective = runs({**sections, "encoder": {"backbone": backbone}})
    network, report = AutoModel.from_pretrained(folder / "model", output_loading_info=True)
    assert all(name.startswith("pooler.") for name in report["missing_keys"])
    inputs = texts_as_inputs(folder / "model")
    body = objective.model.body if sections == BASELINE else objective.discriminator.body
    with torch.no_grad():
        assert torch.equal(network.eval()(**inputs)[0], body(**inputs)[0])
    assert "label" not in (folder / "model/config.json").read_text()


@pytest.mark.parametrize("sections", [{}, BASELINE], ids=["detection", "baseline"])
@pytest.mark.parametrize("labels", [2, 3, 9])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_classifier_gets_a_new_head_of_its_own(runs: Any, backbone: str, labels: int, sections: Any) -> None:
    """As a user fine-tunes: any number of labels, for texts and for tokens; before training it knows nothing."""
    _, folder, _ = runs({**sections, "encoder": {"backbone": backbone}})
    inputs = texts_as_inputs(folder / "model")
    for kind in (AutoModelForSequenceClassification, AutoModelForTokenClassification):
        network, report = kind.from_pretrained(folder / "model", num_labels=labels, output_loading_info=True)
        assert {name for name in report["missing_keys"] if name.startswith("classifier.")}
        assert all(name.startswith(NEW) for name in report["missing_keys"])
        assert not report["mismatched_keys"]
        assert network.config.id2label == {number: f"LABEL_{number}" for number in range(labels)}
        with torch.no_grad():
            logits = network.eval()(**inputs).logits
        assert logits.shape[-1] == labels
        # Hugging Face draws ModernBERT's answer layer so that logits have a deviation of about 1, others of 0.1.
        assert logits.abs().max() < (4 if backbone == "modernbert" else 1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pipeline_on_an_encoder_knows_nothing_yet(runs: Any, backbone: str) -> None:
    _, folder, _ = runs({"encoder": {"backbone": backbone}})
    classify = pipeline("text-classification", model=str(folder / "model"), top_k=None)
    scores = {answer["label"]: answer["score"] for answer in classify(["bak bal dem ."])[0]}
    assert set(scores) == {"LABEL_0", "LABEL_1"}
    assert all(0.02 < score < 0.98 for score in scores.values())
    features = pipeline("feature-extraction", model=str(folder / "model"), return_tensors=True)
    assert features("bak bal").shape == (1, 4, 32)


def as_an_older_run(folder: Path, older: Path) -> Path:
    """The run as it was written before: the network with the first of the heads in `model/`."""
    shutil.copytree(folder, older)
    if (older / "detector").is_dir():
        shutil.rmtree(older / "model")
        (older / "detector").rename(older / "model")
    return older


@pytest.mark.parametrize("backbone", BACKBONES)
def test_older_runs_are_read(runs: Any, tmp_path: Path, backbone: str) -> None:
    """The detection head in `model/` still detects, still starts a run, and is never taken for a classifier."""
    config, folder, objective = runs({"encoder": {"backbone": backbone}})
    older = as_an_older_run(folder, tmp_path / "older")
    texts = invented_text(4, seed=5)
    assert asked("detect", older, texts) == asked("detect", folder, texts)
    if backbone != "electra":
        assert asked("detect", older / "model", texts) == asked("detect", folder, texts)
        with pytest.raises(CheckpointError, match="keeps the detection head in detector/"):
            load_detector(folder / "model")
    started = dataclasses.replace(config, start=StartConfig(discriminator=str(older / "model")))
    again = build_objective(started, vocabulary_size=106, special_ids=SPECIAL_IDS)
    load_starting_weights(again, started)
    inputs = texts_as_inputs(folder / "model")
    arguments = inputs["input_ids"], inputs.get("token_type_ids"), inputs["attention_mask"]
    with torch.no_grad():
        assert torch.equal(again.eval().discriminator(*arguments), objective.discriminator(*arguments))
    settings = TaskSettings("tagging", labels=("original", "replaced"))
    network = build_model(open_pretrained(older), settings, FinetuneConfig(), None)
    taken = load_file(older / "model/model.safetensors").get("classifier.weight")
    assert taken is None or not torch.allclose(network.classifier.weight, taken)
    assert network.classifier.weight.std() < 0.03


@pytest.mark.parametrize("name", ["model", "generator"])
@pytest.mark.parametrize("backbone", ["electra", "modernbert"])
def test_tokenizer_is_the_one_of_the_shards(runs: Any, tiny_shards: Path, backbone: str, name: str) -> None:
    _, folder, _ = runs({"encoder": {"backbone": backbone}} if backbone == "modernbert" else {})
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    assert tokenizer_hash(folder / name) == open_shards(tiny_shards).tokenizer_hash
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("bak BAL .", "dem")["input_ids"])
    assert tokens == ["[CLS]", "bak", "bal", ".", "[SEP]", "dem", "[SEP]"]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_tokenizers_cut_at_the_trained_length(runs: Any, backbone: str) -> None:
    _, folder, _ = runs({"encoder": {"backbone": backbone}})
    for path in folder.glob("*/model.safetensors"):
        tokenizer = AutoTokenizer.from_pretrained(path.parent)
        assert tokenizer.model_max_length == 24
        assert len(tokenizer("bak " * 100, truncation=True)["input_ids"]) == 24
    assert open_pretrained(folder).longest_row == 512  # fine-tuning may train the positions beyond


def test_folders_hold_no_code_and_nothing_pickled(runs: Any) -> None:
    _, folder, _ = runs({})
    for name in ("model", "generator"):
        files = {path.name for path in (folder / name).iterdir()}
        own = {"modules.json", "sentence_bert_config.json", "1_Pooling"} if name == "model" else set()
        standard = {
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            SUMS_NAME,
        }
        assert files == standard | own
        assert "auto_map" not in json.loads((folder / name / "config.json").read_text())


def test_weights_are_float32_also_after_bfloat16(runs: Any) -> None:
    _, folder, _ = runs({"training": {"precision": "bfloat16"}})
    for name in ("model", "generator"):
        assert {value.dtype for value in load_file(folder / name / "model.safetensors").values()} == {torch.float32}


def test_run_folder(runs: Any) -> None:
    _, folder, _ = runs({})
    names = {path.name for path in folder.iterdir()}
    assert {"config.toml", "manifest.json", "metrics.jsonl", "model", "generator", "checkpoints", "tokenizer"} <= names
    assert not [name for name in names if name.startswith(".")]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert manifest["kind"] == "run"
    assert manifest["facts"]["step"] == 10

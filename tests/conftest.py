"""Tiny run folders with random weights, and shards and configurations that train in a second, for all tests."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from short_runs import take_device

from electrain.data.tokenizer.tokenizer import save_tokenizer, word_piece_tokenizer, wrap
from electrain.foundation.configuration import to_toml
from electrain.models.backbones import EncoderConfig, encoder_configuration
from electrain.models.discriminator import Discriminator
from electrain.models.heads import language_model
from tiny_pretraining import SPECIAL_IDS, tiny_configuration, write_invented_shards

# The same examples on every machine, however slow it is.
settings.register_profile("electrain", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("electrain")

WORDS = "the a cat dog cats dogs see sees saw who is are happy sad quick ##ly ##er un ##hap ##py . , ? ! x ##x"
VOCABULARY = {
    token: number
    for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "unused", *WORDS.split()])
}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`tiny_run(backbone, objective)`: the folder of a run as pretraining leaves it; do not write into it."""
    made: dict[tuple[str, str], Path] = {}

    def make(backbone: str = "electra", objective: str = "replaced-token-detection") -> Path:
        if (backbone, objective) not in made:
            folder = tmp_path_factory.mktemp(f"{backbone}-run")
            _write_run(folder, backbone, objective)
            made[backbone, objective] = folder
        return made[backbone, objective]

    return make


def _write_run(folder: Path, backbone: str, objective: str) -> None:
    torch.manual_seed(11)
    encoder = EncoderConfig(layers=2, hidden_size=16, feed_forward_size=24, heads=2, backbone=backbone)  # type: ignore[arg-type]
    configuration = encoder_configuration(
        encoder,
        vocabulary_size=len(VOCABULARY),
        sequence_length=24,
        dropout=0.1,
        special_ids=SPECIAL_IDS,
    )
    configuration.initializer_range = 0.3  # scores that differ clearly
    configuration.max_position_embeddings = 24
    words = language_model(configuration)
    if objective == "masked-language-modelling":
        networks = {"model": words}
    else:
        exports = Discriminator(configuration).exports()
        networks = {"model" if part == "encoder" else "detector": make() for part, make in exports.items()}
        networks["generator"] = words
    tokenizer = wrap(word_piece_tokenizer(VOCABULARY, cased=False))
    for name, network in networks.items():
        network.save_pretrained(folder / name)
        save_tokenizer(tokenizer, folder / name, with_token_types=backbone == "electra")
    config = tiny_configuration(encoder=dataclasses.asdict(encoder), training={"objective": objective})
    (folder / "config.toml").write_text(to_toml(config))
    np.save(folder / "unigram_counts.npy", np.arange(len(VOCABULARY), dtype=np.int64)[::-1].copy())


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 300 invented documents, about 10,000 tokens, with a vocabulary of 106; do not write into them."""
    folder = tmp_path_factory.mktemp("invented")
    write_invented_shards(folder)
    return folder / "shards"


@pytest.fixture(autouse=True)
def on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU: only tests/devices takes it, because a GPU rounds otherwise than the committed figures."""
    if torch.cuda.is_available() and "devices" not in request.path.parts:
        take_device(monkeypatch, "cpu")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for the processes that a test starts


@pytest.fixture(autouse=True)
def same_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every machine computes in float32 unless a test says otherwise: no figure may depend on a measurement."""
    monkeypatch.setattr("electrain.training.arithmetic.measure_speedup", lambda *_: 0.0)


@pytest.fixture
def quick_pretraining(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretraining without the half second that measures the machine, and without drawing curves."""
    monkeypatch.setattr("electrain.pretraining.run.measure_matrix_rate", lambda *_: 1e9)
    monkeypatch.setattr("electrain.pretraining.report.write_report", lambda folder: folder / "report.html")


@pytest.fixture
def no_pretend_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the device that tests/devices registers for good: a DataLoader would pin memory to it."""
    monkeypatch.setattr("torch.accelerator.is_available", torch.cuda.is_available)

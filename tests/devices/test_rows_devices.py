"""Rows that a device makes are those of the CPU, to the last bit, and it never waits for one."""

import json
import shutil
from pathlib import Path
from typing import Any

import pretend_device
import pytest
import torch
from rows_of_today import GOLDEN_ROWS, KINDS, hashes_of, stream_of
from short_runs import CUDA, short_configuration

from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import Shards, open_shards
from electrain.foundation.errors import ConfigurationError
from electrain.pretraining.build import Vocabulary, micro_batches, rows_near
from electrain.pretraining.run import pretrain
from tiny_pretraining import SPECIAL_IDS, tiny_configuration

VOCABULARY = Vocabulary(300, SPECIAL_IDS.mask, torch.arange(300) % 5 == 0)


@pytest.mark.parametrize("device", [pretend_device.NAME, CUDA], indirect=True)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_device_are_those_of_the_cpu(device: str, tiny_shards: Path, kind: str) -> None:
    assert hashes_of(kind, open_shards(tiny_shards), device) == json.loads(GOLDEN_ROWS.read_text())[kind]


@pytest.mark.parametrize("device", [CUDA], indirect=True)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith(("deletion", "shuffle"))])
def test_nothing_waits_for_the_gpu_while_it_makes_rows(device: str, tiny_shards: Path, kind: str) -> None:
    sections, stored = KINDS[kind]
    config, stream = tiny_configuration(**sections), stream_of(open_shards(tiny_shards), **stored)
    rows = RowSource(stream, config.data, 0, reference_packing=config.parity.reference_packing)
    batches = micro_batches(rows.on(torch.device(device), with_words=stream.has_words), config, VOCABULARY)
    batches(0)  # the first call also allocates memory and loads kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 30):
            batches(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("quick_pretraining")
@pytest.mark.parametrize("device", [pretend_device.NAME, CUDA], indirect=True)
@pytest.mark.parametrize("name", ["replaced_token_detection_electra", "span", "masked_language_modelling", "electric"])
def test_a_run_may_resume_with_its_rows_made_elsewhere(
    device: str, name: str, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps with rows of the device, then the last two again with rows of the CPU: the same weights."""
    made_on: list[str] = []
    make = RowSource.batch
    monkeypatch.setattr(RowSource, "batch", lambda self, n: made_on.append(self.device.type) or make(self, n))
    run, weights = tmp_path / "run", tmp_path / "run/checkpoints/step-4/model.safetensors"
    assert pretrain(short_configuration(name, data={"rows_on_device": "yes"}), tiny_shards, run).is_finished
    straight = weights.read_bytes()
    assert set(made_on) == {device}
    made_on.clear()
    shutil.rmtree(run / "checkpoints/step-4")
    pretrain(short_configuration(name, data={"rows_on_device": "no"}), tiny_shards, run, resume=True)
    assert weights.read_bytes() == straight
    assert set(made_on) == {"cpu"}


def near(stream: Shards, device: str, monkeypatch: pytest.MonkeyPatch, *, free: int, **sections: Any) -> str:
    """Where rows are made for a device with so much free memory."""
    monkeypatch.setattr(Shards, "copied_to", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 2 * free))
    config = tiny_configuration(**sections)
    return rows_near(RowSource(stream, config.data, 0), config, torch.device(device)).device.type


def test_rows_are_made_on_a_gpu_whose_memory_has_room(tiny_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tenth of what is free, and only for noise that a GPU makes fast, unless the setting says so."""
    stream = stream_of(open_shards(tiny_shards), has_words=True)
    ids, all_bytes = stream.copied_bytes(with_words=False), stream.copied_bytes(with_words=True)
    assert all_bytes == 1.5 * ids == 3 * stream.token_count
    span = {"corruption": {"noise": "span"}}
    assert near(stream, "cuda", monkeypatch, free=10 * ids) == "cuda"
    assert near(stream, "cuda", monkeypatch, free=10 * ids - 1) == "cpu"
    assert near(stream, "cuda", monkeypatch, free=10 * ids, **span) == "cpu"
    assert near(stream, "cuda", monkeypatch, free=10 * all_bytes, **span) == "cuda"
    for noise in ("deletion", "shuffle"):
        assert near(stream, "cuda", monkeypatch, free=1 << 40, corruption={"noise": noise}) == "cpu"
    assert near(stream, "cuda", monkeypatch, free=0, data={"rows_on_device": "yes"}) == "cuda"
    assert near(stream, "cuda", monkeypatch, free=1 << 40, data={"rows_on_device": "no"}) == "cpu"
    assert near(stream, "cpu", monkeypatch, free=0, data={"rows_on_device": "yes"}) == "cpu"
    assert near(stream, "mps", monkeypatch, free=0) == "cpu"
    with pytest.raises(ConfigurationError, match="no float64"):
        near(stream, "mps", monkeypatch, free=0, data={"rows_on_device": "yes"})

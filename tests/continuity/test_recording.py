"""Recorded passes: the bookkeeping around CUDA graphs on every machine, and the real ones on a CUDA device."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_unflatten

from electrain.pretraining.run import pretrain
from electrain.training.loop import TrainingRun
from electrain.training.recording import RecordedPasses
from tiny_pretraining import tiny_configuration

CHOICES: dict[str, dict[str, Any]] = {
    "published": {},
    "micro-batches of two forms": {"training": {"micro_batch_rows": 3}},
    "two stages": {"generator": {"kind": "frozen", "own_stage_steps": 4, "size_fraction": 1.0}},
    "muon": {"training": {"optimizer": "muon"}},
    "padded": {"parity": {"reference_packing": True}},
    "falling temperature": {"generator": {"temperature": 1.5, "last_temperature": 0.5}},
}


def imitate_graphs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lets a CPU "record" a pass, and replay it by computing it again from the same tensors into the same tensors.

    Returns: a list that grows by one with each replay.
    """
    replays: list[int] = []
    record = RecordedPasses._recorded

    class NoStream:
        def wait_stream(self, other: Any) -> None: ...

    @contextmanager
    def nothing(*_: Any, **__: Any) -> Iterator[None]:
        yield

    def recorded(passes: RecordedPasses, leaves: list[Any], structure: Any, number: int) -> Any:
        held = [None if parameter.grad is None else parameter.grad.clone() for parameter in passes._parameters]
        recording = record(passes, leaves, structure, number)
        if recording is None:
            return None
        if number:  # a real recording computes nothing, and so adds nothing
            for gradient, before in zip(recording.gradients, held, strict=True):
                if gradient is not None:
                    gradient.copy_(before)
        static = iter(recording.inputs)
        inputs = [next(static) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        rows, counts = tree_unflatten(inputs, structure)

        def replay() -> None:
            replays.append(1)
            if number == 0:
                passes._set_gradients([None] * len(passes._parameters))
            again, outcome = passes._pass(rows, counts, number), recording.outcome
            if number == 0:
                for parameter, gradient in zip(passes._parameters, recording.gradients, strict=True):
                    if gradient is not None:
                        gradient.copy_(parameter.grad)
                passes._set_gradients(recording.gradients)
            for name, term in again.terms.items():
                outcome.terms[name].total.copy_(term.total)
            for name, value in again.observations.items():
                outcome.observations[name].copy_(value)

        recording.graph.replay = replay
        return recording

    monkeypatch.setattr(torch.cuda, "Stream", NoStream)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
    monkeypatch.setattr(torch.cuda, "stream", nothing)
    monkeypatch.setattr(torch.cuda, "graph", nothing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", SimpleNamespace)
    monkeypatch.setattr(RecordedPasses, "_recorded", recorded)
    monkeypatch.setattr(TrainingRun, "is_recorded", True)
    return replays


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The log without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    times = ("seconds", "tokens_per_second", "processor_seconds", "matrix_rate_fraction")
    return [{key: line[key] for key in line if key not in times} for line in lines if line["event"] == "log"]


@pytest.mark.parametrize("name", CHOICES)
def test_recorded_passes_train_alike(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = tiny_configuration(**CHOICES[name])
    pretrain(config, tiny_shards, tmp_path / "plain")
    replays = imitate_graphs(monkeypatch)
    pretrain(config, tiny_shards, tmp_path / "recorded")
    assert len(replays) >= 10
    assert lines_of(tmp_path / "recorded") == lines_of(tmp_path / "plain")
    for file in ("model", "optimizer"):
        one, other = (
            load_file(tmp_path / run / f"checkpoints/step-10/{file}.safetensors") for run in ("plain", "recorded")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_recording_that_fails_is_said_once_and_the_run_goes_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "plain")
    imitate_graphs(monkeypatch)

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", broken)
    assert pretrain(tiny_configuration(), tiny_shards, tmp_path / "run").is_finished
    said = capsys.readouterr().err
    assert said.count("CUDA graphs do not work here (operation not permitted when stream is capturing)") == 1
    assert lines_of(tmp_path / "run") == lines_of(tmp_path / "plain")

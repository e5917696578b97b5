"""The devices that a test runs on, and runs to ask there."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pretend_device
import pytest
import torch
from short_runs import CUDA, short_configuration, take_device

from electrain.pretraining.run import pretrain
from electrain.training.runtime import Runtime


@pytest.fixture(params=["cpu", pretend_device.NAME, pretend_device.WITHOUT_FLOAT64, CUDA])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each device in turn, as the one that training, evaluation and prediction take by themselves."""
    name = pretend_device.NAME if request.param == pretend_device.WITHOUT_FLOAT64 else request.param
    if name != "cuda":
        take_device(monkeypatch, name)
    with ExitStack() as stack:
        if name == pretend_device.NAME:
            stack.enter_context(pretend_device.in_use(monkeypatch))
        if request.param == pretend_device.WITHOUT_FLOAT64:
            monkeypatch.setattr(Runtime, "widest_float", torch.float32)
            stack.enter_context(pretend_device.without_float64())
        yield name


@pytest.fixture(scope="session")
def trained(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`trained(name)`: the folder of a short run of an objective, made on the CPU; do not write into it."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("trained") / "run"
            with pytest.MonkeyPatch.context() as patch:
                take_device(patch, "cpu")
                patch.setattr("electrain.pretraining.run.measure_matrix_rate", lambda *_: 1e9)
                patch.setattr("electrain.pretraining.report.write_report", lambda folder: folder / "report.html")
                pretrain(short_configuration(name), tiny_shards, made[name])
        return made[name]

    return make

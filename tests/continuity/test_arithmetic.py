"""The number format that a run measures for itself: chosen once, recorded, and kept when the run goes on."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from electrain.foundation.errors import ConfigurationError
from electrain.pretraining.run import pretrain
from electrain.training import arithmetic, runtime
from electrain.training.arithmetic import (
    DTYPES,
    Arithmetic,
    choose_arithmetic,
    half_precision_of,
    measure_matrix_rate,
    measure_speedup,  # the true one: while a test runs, none of the package's modules has it
    require_possible,
)
from electrain.training.runtime import Runtime
from electrain.training.settings import Precision
from tiny_pretraining import tiny_configuration

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def measured(monkeypatch: pytest.MonkeyPatch, speedup: float) -> list[torch.dtype]:
    """Makes this machine's two-byte products that much faster. Returns: the formats that are measured, as they are."""
    asked: list[torch.dtype] = []

    def measure(device: torch.device, half: torch.dtype) -> float:
        asked.append(half)
        return speedup

    monkeypatch.setattr(arithmetic, "measure_speedup", measure)
    return asked


@pytest.mark.parametrize(
    ("precision", "speedup", "expected"),
    [
        ("auto", 2.4, Arithmetic("bfloat16", True, 2.4)),
        ("auto", 1.1, Arithmetic("float32", False, 1.1)),  # the casts would cost more than the products gain
        ("auto", 0.01, Arithmetic("float32", False, 0.01)),
        ("float32", 2.4, Arithmetic("float32", True, 2.4)),  # an optimizer may still use them
        ("bfloat16", 0.01, Arithmetic("bfloat16", False, 0.01)),
    ],
)
def test_a_measurement_decides(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, speedup: float, expected: Arithmetic
) -> None:
    assert measured(monkeypatch, speedup) == []
    assert choose_arithmetic(precision, CPU) == expected


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_a_gpu_without_bfloat16_takes_float16(monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool) -> None:
    asked = measured(monkeypatch, 4.0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bfloat16)
    chosen = choose_arithmetic("auto", CUDA)
    assert asked == [torch.bfloat16 if has_bfloat16 else torch.float16]
    assert chosen == Arithmetic("bfloat16" if has_bfloat16 else "float16", has_bfloat16, 4.0)
    assert Arithmetic.from_numbers(chosen.to_numbers()) == chosen
    measured(monkeypatch, 0.02)  # a Pascal card for games multiplies float16 at a sixty-fourth of the rate
    assert choose_arithmetic("auto", CUDA).precision == "float32"


def test_what_a_device_cannot_do_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='"float16": not supported on the device cpu; set "auto"'):
        pretrain(tiny_configuration(training={"precision": "float16"}), tiny_shards, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    require_possible("float16", CUDA)
    assert half_precision_of(torch.device("mps")) is None


def test_autocast_has_the_format_of_the_run() -> None:
    for precision, dtype in DTYPES.items():
        with Runtime(CPU, 0, 1, Arithmetic(precision)).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_the_measurement_itself() -> None:
    """No figure is expected of it, and the run's own random numbers stay as they are."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    speedup = measure_speedup(CPU, torch.bfloat16)
    assert 0 < speedup < math.inf
    assert torch.equal(torch.rand(3), expected)
    assert measure_matrix_rate(CPU, torch.float32, 0.0) > 0


@pytest.mark.usefixtures("quick_pretraining")
class TestResuming:
    """Of a run whose measurement would come out otherwise now."""

    CONFIG = tiny_configuration(training={"precision": "auto", "steps": 4, "checkpoint_every_steps": 2})

    def stopped(self, monkeypatch: pytest.MonkeyPatch, shards: Path, run: Path, speedup: float) -> dict[str, Any]:
        """Two of the four steps. Returns: the manifest's facts."""
        measured(monkeypatch, speedup)
        with monkeypatch.context() as patch:
            patch.setattr(
                "electrain.training.loop.TrainingRun.has_steps_left", property(lambda run: run.state.step < 2)
            )
            pretrain(self.CONFIG, shards, run)
        facts: dict[str, Any] = json.loads((run / "manifest.json").read_text())["facts"]
        return facts

    def precision(self, run: Path) -> list[str]:
        """Of each sitting."""
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return [line["precision"] for line in lines if line["event"] == "machine"]

    @pytest.mark.parametrize("speedup", [2.0, 0.01])
    def test_it_keeps_what_it_began_with(
        self, monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path, speedup: float
    ) -> None:
        facts = self.stopped(monkeypatch, tiny_shards, tmp_path / "run", speedup)
        chosen = "bfloat16" if speedup > 1 else "float32"
        recorded = {"precision": chosen, "has_fast_bfloat16": speedup > 1, "speedup": speedup}
        assert facts["arithmetic"] == {"cpu": recorded}
        asked = measured(monkeypatch, 1 / speedup)
        assert pretrain(self.CONFIG, tiny_shards, tmp_path / "run", resume=True).is_finished
        assert asked == []
        assert self.precision(tmp_path / "run") == [chosen, chosen]
        after = json.loads((tmp_path / "run/manifest.json").read_text())["facts"]
        assert after["arithmetic"] == facts["arithmetic"]

    def test_on_another_device_it_chooses_and_records_again(
        self, monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path
    ) -> None:
        run = tmp_path / "run"
        facts = self.stopped(monkeypatch, tiny_shards, run, 0.01)
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["facts"]["arithmetic"] = {"cuda": facts["arithmetic"]["cpu"]}
        del manifest["sha256"]  # as in a manifest of an older version
        (run / "manifest.json").write_text(json.dumps(manifest))
        measured(monkeypatch, 2.0)
        assert pretrain(self.CONFIG, tiny_shards, run, resume=True).is_finished
        assert self.precision(run) == ["float32", "bfloat16"]
        after = json.loads((run / "manifest.json").read_text())["facts"]["arithmetic"]
        assert {name: one["precision"] for name, one in after.items()} == {"cuda": "float32", "cpu": "bfloat16"}

    @pytest.mark.parametrize("has_instructions", [True, False])
    def test_a_run_of_older_code_goes_by_the_processor(
        self, monkeypatch: pytest.MonkeyPatch, tiny_shards: Path, tmp_path: Path, has_instructions: bool
    ) -> None:
        run = tmp_path / "run"
        self.stopped(monkeypatch, tiny_shards, run, 0.01)
        manifest = json.loads((run / "manifest.json").read_text())
        del manifest["facts"]["arithmetic"]
        del manifest["sha256"]  # as in a manifest of an older version
        (run / "manifest.json").write_text(json.dumps(manifest))
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        asked = measured(monkeypatch, 0.5 if has_instructions else 2.0)
        assert pretrain(self.CONFIG, tiny_shards, run, resume=True).is_finished
        assert asked == []
        assert self.precision(run)[-1] == ("bfloat16" if has_instructions else "float32")

    def test_the_announcement_says_why(
        self,
        monkeypatch: pytest.MonkeyPatch,
        tiny_shards: Path,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for speedup, words in (
            (2.44, "in bfloat16 (2.4 times as fast as float32 here), matrix products at 1 GFLOP/s"),
            (1.0, "in float32 (two bytes a number are no faster here), matrix products at 1 GFLOP/s"),
        ):
            self.stopped(monkeypatch, tiny_shards, tmp_path / str(speedup), speedup)
            assert words in capsys.readouterr().err


def test_all_processes_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two hears of the first what that has chosen, and measures nothing."""
    asked = measured(monkeypatch, 0.01)
    heard = Arithmetic("bfloat16", True, 2.0).to_numbers()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.add_(torch.tensor(heard)))
    with runtime.started_runtime("auto") as second:
        assert (second.dtype, second.arithmetic.has_fast_bfloat16) == (torch.bfloat16, True)
    assert asked == []

"""`plan`: parameters, operations, memory, hours and money of a configuration."""

import json
import time
from dataclasses import asdict, replace

import pytest

from electrain.data.shards.rows import DataConfig
from electrain.foundation.errors import ConfigurationError
from electrain.models.backbones import EncoderConfig
from electrain.pretraining import hardware
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.hardware import Hardware, named_hardware
from electrain.pretraining.plan import plan, with_checkpointing
from electrain.training.arithmetic import Arithmetic
from electrain.training.settings import TrainingConfig

CONFIG = PretrainConfig(
    encoder=EncoderConfig(layers=2, hidden_size=64, feed_forward_size=128, heads=2, embedding_size=32),
    training=TrainingConfig(steps=100, batch_rows=8, peak_learning_rate=1e-3, warmup_steps=1),
    data=DataConfig(sequence_length=32),
)
GIGABYTE = 10**9


def test_a_plan_adds_up_and_is_json() -> None:
    machine = Hardware("test", 1e12, 0.0, GIGABYTE, utilisation=0.5)
    made = plan(CONFIG, machine, vocabulary_size=1000, price_per_hour=2.0)
    assert made.tokens == 100 * 8 * 32
    assert made.flops.per_run == made.flops.per_row * 800
    parameters = made.parameters
    assert parameters.together == parameters.discriminator + parameters.generator - parameters.shared
    assert parameters.shared == (1000 + 512 + 2) * 32 + 2 * 32  # three tables and a layer norm
    memory = made.memory
    buffers = memory.weights - 4 * parameters.together
    assert 0 <= buffers < 10_000  # numbers of positions
    assert memory.gradients == 4 * parameters.together
    assert memory.optimizer_state == {"exp_avg": memory.gradients, "exp_avg_sq": memory.gradients}
    state = sum(memory.optimizer_state.values())
    assert memory.total == memory.weights + memory.gradients + state + memory.activations
    assert made.duration is not None
    assert made.duration.precision == "float32"
    assert made.duration.hours == pytest.approx(made.flops.per_run / 0.5e12 / 3600)
    assert made.duration.price == pytest.approx(2 * made.duration.hours)
    assert json.loads(json.dumps(asdict(made)))["flops"]["per_run"] == made.flops.per_run


def test_devices_share_the_rows_and_the_bill_stays() -> None:
    one = plan(CONFIG, named_hardware("a100-80gb"), vocabulary_size=1000, price_per_hour=2.0).duration
    four = plan(CONFIG, named_hardware("a100-80gb"), vocabulary_size=1000, devices=4, price_per_hour=2.0).duration
    assert one is not None
    assert four is not None
    assert four.hours == pytest.approx(one.hours / 4)
    assert four.price == pytest.approx(one.price)
    assert four.precision == "bfloat16"


@pytest.mark.parametrize(("threads", "of_all"), [(1, "0% of a core"), (2, "0% of 2 cores")])
def test_a_busy_machine_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threads: int, of_all: str
) -> None:
    """A measurement that waits stands for one that other programs keep from the processor."""

    def wait(*_: object) -> float:
        time.sleep(0.2)
        return 7e9

    monkeypatch.setattr(hardware, "measure_matrix_rate", wait)
    monkeypatch.setattr(hardware, "choose_arithmetic", lambda *_: Arithmetic())
    monkeypatch.setattr(hardware.torch, "get_num_threads", lambda: threads)
    monkeypatch.setenv("ELECTRAIN_DEVICE", "cpu")
    assert named_hardware("this").float32_flops == 7e9
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("plan: matrix products run at 7 GFLOP/s in float32, measured as `pretrain` does; other ")
    assert f"the measurement got {of_all}. Alone, the run takes about 1% of these hours" in line
    assert hardware.busy_notice(0.81 * threads, threads) == ""
    assert "got 45% of" in hardware.busy_notice(0.45 * threads, threads)


def test_a_gpu_without_bfloat16_is_planned_in_float16() -> None:
    made = plan(CONFIG, named_hardware("t4"), vocabulary_size=1000)
    assert made.duration is not None
    assert (made.duration.precision, made.duration.flops_per_second) == ("float16", 65e12)
    with_bfloat16 = plan(CONFIG, named_hardware("l4"), vocabulary_size=1000)
    assert made.memory.activations == with_bfloat16.memory.activations
    config = replace(CONFIG, training=replace(CONFIG.training, precision="float16"))
    with pytest.raises(ConfigurationError, match=r'cpu-2: has no float16 instructions; .*precision = "auto"'):
        plan(config, named_hardware("cpu-2"))


def test_the_largest_micro_batch_fits_and_twice_it_does_not() -> None:
    machine = Hardware("small", 1e12, 1e12, 0.1 * GIGABYTE)
    largest = plan(CONFIG, machine, vocabulary_size=1000).memory.largest_micro_batch_rows
    assert largest is not None
    for rows, fits in ((largest, True), (2 * largest, False)):
        training = replace(CONFIG.training, batch_rows=rows, micro_batch_rows=rows)
        total = plan(replace(CONFIG, training=training), vocabulary_size=1000).memory.total
        assert (total <= 0.085 * GIGABYTE) == fits
    none = plan(CONFIG, replace(machine, memory_bytes=1e6), vocabulary_size=1000)
    assert none.memory.largest_micro_batch_rows == 0


def test_checkpointing_fits_more_rows_and_costs_time() -> None:
    machine = Hardware("small", 1e12, 1e12, 0.1 * GIGABYTE)
    deep = replace(CONFIG, encoder=replace(CONFIG.encoder, layers=8))
    kept = plan(deep, machine, vocabulary_size=1000)
    twice = plan(with_checkpointing(deep, is_on=True), machine, vocabulary_size=1000)
    assert twice.memory.activations < kept.memory.activations / 2
    assert not kept.memory.gradient_checkpointing
    assert twice.memory.gradient_checkpointing
    plain, checkpointed = kept.memory.largest_micro_batch_rows, kept.memory.largest_micro_batch_rows_with_checkpointing
    assert plain is not None
    assert checkpointed is not None
    assert checkpointed >= 2 * plain
    assert twice.memory.largest_micro_batch_rows == plain
    assert 1.25 < twice.flops.per_row / kept.flops.per_row < 4 / 3
    assert twice.flops.per_run_as_in_paper == kept.flops.per_run_as_in_paper


def test_muon_has_one_moment_for_matrices_inside_layers() -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, optimizer="muon"))
    memory = plan(config, vocabulary_size=1000).memory
    state = memory.optimizer_state
    assert state["exp_avg"] + state["momentum_buffer"] == pytest.approx(memory.gradients, rel=0.01)
    assert state["momentum_buffer"] > 0


def test_a_recurrent_network_is_planned_too() -> None:
    encoder = EncoderConfig(layers=2, hidden_size=64, feed_forward_size=128, heads=2, backbone="lstm")
    memory = plan(replace(CONFIG, encoder=encoder), named_hardware("cpu-2"), vocabulary_size=1000).memory
    assert memory.largest_micro_batch_rows
    assert memory.largest_micro_batch_rows_with_checkpointing is None


def test_the_baseline_has_one_network() -> None:
    config = replace(CONFIG, training=replace(CONFIG.training, objective="masked-language-modelling"))
    parameters = plan(config, vocabulary_size=1000).parameters
    assert parameters.generator == parameters.shared == 0
    assert parameters.together == parameters.discriminator


def test_mistakes_are_one_line_that_names_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match="did you mean h100"):
        named_hardware("h1000")
    with pytest.raises(ConfigurationError, match="did you mean a100-40gb or a100-80gb"):
        named_hardware("A100")
    assert named_hardware("RTX 4090").name == "rtx-4090"
    with pytest.raises(ConfigurationError, match="--utilisation"):
        plan(CONFIG, utilisation=40)
    with pytest.raises(ConfigurationError, match="--devices"):
        plan(CONFIG, devices=0)
    config = replace(CONFIG, training=replace(CONFIG.training, precision="bfloat16"))
    with pytest.raises(ConfigurationError, match="no bfloat16"):
        plan(config, named_hardware("v100"))


def test_this_machine_is_measured() -> None:
    here = named_hardware("this")
    assert here.float32_flops > 1e8
    assert here.memory_bytes > GIGABYTE

"""A run that was stopped, killed or split gives what one straight run gives: bit for bit, where it is one process."""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from electrain.foundation.configuration import merge_tables, to_toml
from electrain.foundation.errors import ConfigurationError, RunDirectoryError
from electrain.pretraining.configuration import PretrainConfig
from electrain.pretraining.run import RunResult, pretrain
from electrain.training import compilation, loop
from killed_runs import pretrain_until_killed
from tiny_pretraining import tiny_configuration, write_invented_shards

pytestmark = pytest.mark.usefixtures("quick_pretraining")

TWO_STAGE = {"generator": {"kind": "frozen", "own_stage_steps": 5, "size_fraction": 1.0}}
ARTICLE_GAME = {
    "generator": {"kind": "causal", "training": "policy-gradient"},
    "corruption": {"source": "generated", "missing_fraction": 0.5},
    "discriminator": {"heads": ["detection", "correction"], "correction_at": "missing"},
}
CHECKPOINTED = {"training": {"gradient_checkpointing": True}}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "electra": {},
    "separate embeddings": {"generator": {"embedding_sharing": "separate"}},
    "modernbert, muon, dropout": {
        "encoder": {"backbone": "modernbert"},
        "training": {"optimizer": "muon", "dropout": 0.1, "schedule": "warmup-stable-decay"},
    },
    "parity": {
        "parity": {
            "colliding_positions": True,
            "no_bias_correction": True,
            "multiplied_warmup": True,
            "reference_packing": True,
        }
    },
    "masked language modelling": {"training": {"objective": "masked-language-modelling", "micro_batch_rows": 3}},
    "bfloat16": {"training": {"precision": "bfloat16"}},
    "gradient checkpointing": {"training": {"gradient_checkpointing": True, "dropout": 0.1}},
    "two stages, from where the second begins": TWO_STAGE,
    "written passages and the game": ARTICLE_GAME,
    "gumbel and separate optimizers": {
        "generator": {"training": "gumbel", "embedding_sharing": "gradient-disentangled"},
        "training": {"generator_peak_learning_rate": 1e-3, "optimizer": "muon"},
    },
}
TIMINGS = ("seconds", "processor_seconds", "tokens_per_second", "matrix_rate_fraction", "started")


def results_of(output: Path) -> dict[str, str]:
    """Hashes of everything that a run learned, by file."""
    files = [*output.glob("model/*.safetensors"), *output.glob("generator/*.safetensors")]
    files += output.glob("checkpoints/step-*/*.safetensors")
    assert len(files) >= 3
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def log_of(output: Path) -> list[dict[str, Any]]:
    """The lines of metrics, without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines if line["event"] == "log"]


@pytest.mark.parametrize("kind", KINDS)
def test_ten_steps_equal_five_and_five(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Killed once at step 7, two steps after the checkpoint; then the log, too, is as if nothing had happened."""
    config = tiny_configuration(**KINDS[kind])
    pretrain(config, tiny_shards, tmp_path / "straight")
    pretrain_until_killed(monkeypatch, 7, config, tiny_shards, tmp_path / "killed")
    with open(tmp_path / "killed/metrics.jsonl", "a") as file:
        file.write('{"event": "log", "step": 8, "lo')  # a line cut short by the kill
    torch.manual_seed(12345)  # nothing may depend on the process's own random state
    result = pretrain(config, tiny_shards, tmp_path / "killed", resume=True)
    assert result.is_finished
    assert results_of(tmp_path / "killed") == results_of(tmp_path / "straight")
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "straight")
    assert [line["step"] for line in log_of(tmp_path / "killed")] == [2, 4, 6, 8, 10]
    examples = [(tmp_path / name / "examples.jsonl") for name in ("killed", "straight")]
    if examples[1].exists():
        assert examples[0].read_text() == examples[1].read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint(
    tiny_shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    config = tiny_configuration()
    pretrain(config, tiny_shards, tmp_path / "straight")
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        ask_after_step(patch, 3, number)
        result = pretrain(config, tiny_shards, tmp_path / "stopped")
    assert (result.step, result.is_finished, result.is_failed) == (3, False, False)
    assert signal.getsignal(number) is handler
    error = capsys.readouterr().err
    assert "stopping after this step" in error
    assert "continue with --resume" in error
    assert (tmp_path / "stopped/checkpoints/step-3").is_dir()
    assert (tmp_path / "stopped/model/model.safetensors").is_file()
    assert not json.loads((tmp_path / "stopped/manifest.json").read_text())["finished"]
    assert pretrain(config, tiny_shards, tmp_path / "stopped", resume=True).is_finished
    assert json.loads((tmp_path / "stopped/manifest.json").read_text())["finished"]
    straight, stopped = results_of(tmp_path / "straight"), results_of(tmp_path / "stopped")
    assert straight["model/model.safetensors"] == stopped["model/model.safetensors"]
    assert straight["generator/model.safetensors"] == stopped["generator/model.safetensors"]
    steps = [line["step"] for line in log_of(tmp_path / "stopped")]
    assert steps == sorted(set(steps))


def ask_after_step(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    update = loop._update

    def then_ask(run: Any, *arguments: Any, **named: Any) -> None:
        update(run, *arguments, **named)
        if run.state.step == step:
            signal.raise_signal(number)

    monkeypatch.setattr(loop, "_update", then_ask)


def test_resuming_a_finished_run_changes_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    config = tiny_configuration()
    pretrain(config, tiny_shards, tmp_path / "run")
    before, log = results_of(tmp_path / "run"), log_of(tmp_path / "run")
    assert pretrain(config, tiny_shards, tmp_path / "run", resume=True).is_finished
    assert results_of(tmp_path / "run") == before
    assert log_of(tmp_path / "run") == log


def test_resume_begins_where_there_is_nothing(tiny_shards: Path, tmp_path: Path) -> None:
    assert pretrain(tiny_configuration(), tiny_shards, tmp_path / "run", resume=True).is_finished


@pytest.mark.parametrize("is_ours", [True, False])
def test_only_a_beginning_of_its_own_is_removed(tiny_shards: Path, tmp_path: Path, is_ours: bool) -> None:
    """A run that was killed before its manifest is begun again; a configuration written by hand, and what lies beside
    it, is somebody's."""
    run, config = tmp_path / "run", tiny_configuration()
    (run / "tokenizer").mkdir(parents=True)
    (run / "tokenizer" / "notes.txt").write_text("half of something")
    (run / "config.toml").write_text(to_toml(config) + ("" if is_ours else "# mine\n"))
    if is_ours:
        assert pretrain(config, tiny_shards, run, resume=True).is_finished
    else:
        with pytest.raises(RunDirectoryError, match="is not empty"):
            pretrain(config, tiny_shards, run, resume=True)
    assert (run / "tokenizer" / "notes.txt").exists() != is_ours


@pytest.mark.parametrize(
    ("section", "field", "value", "named"),
    [
        ("training", "steps", 20, r"\[training\] steps was 10 and is now 20"),
        ("training", "seed", 3, r"\[training\] seed was 0 and is now 3"),
        ("encoder", "layers", 3, r"\[encoder\] layers was 2 and is now 3"),
        (
            "generator",
            "embedding_sharing",
            "separate",
            "embedding_sharing was shared and is now separate",
        ),
        ("parity", "reference_packing", True, r"\[parity\] reference_packing was False and is now True"),
    ],
)
def test_a_changed_configuration_is_refused(
    tiny_shards: Path, tmp_path: Path, section: str, field: str, value: Any, named: str
) -> None:
    pretrain(tiny_configuration(training={"steps": 10}), tiny_shards, tmp_path / "run")
    changed = tiny_configuration(**{section: {field: value}})
    with pytest.raises(RunDirectoryError, match=named) as raised:
        pretrain(changed, tiny_shards, tmp_path / "run", resume=True)
    assert "\n" not in str(raised.value)


def test_other_shards_are_refused(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "run")
    write_invented_shards(tmp_path, documents=200)
    with pytest.raises(RunDirectoryError, match="shards changed since the run began"):
        pretrain(tiny_configuration(), tmp_path / "shards", tmp_path / "run", resume=True)


def write_configuration(config: PretrainConfig, folder: Path) -> Path:
    path = folder / "run.toml"
    path.write_text(to_toml(config))
    return path


def command(config: Path, shards: Path, output: Path) -> list[str]:
    return ["-m", "electrain.cli.app", "pretrain", f"--config={config}", f"--shards={shards}", f"--output={output}"]


def environment() -> dict[str, str]:
    """As many threads as this process has: sums are split among them."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


def test_kill_9_at_any_moment(tiny_shards: Path, tmp_path: Path) -> None:
    """The real command, killed while a checkpoint is being written and again at a random moment, then resumed."""
    config = tiny_configuration(training={"steps": 90, "checkpoint_every_steps": 2})
    pretrain(config, tiny_shards, tmp_path / "straight")
    file, output = write_configuration(config, tmp_path), tmp_path / "run"
    seconds = random.Random(5)
    was_writing = False
    for kill in range(2):
        arguments = [*command(file, tiny_shards, output), *(["--resume"] if kill else [])]
        process = subprocess.Popen([sys.executable, *arguments], env=environment(), stderr=subprocess.DEVNULL)
        began = newest_step(output)
        try:
            wait_for(lambda began=began: newest_step(output) > began + 4, process)
            if kill == 0:
                wait_for(lambda: any(output.glob("checkpoints/.step-*.writing")), process)
            else:
                time.sleep(seconds.random())
        finally:
            process.kill()
            process.wait()
        was_writing |= any(output.glob("checkpoints/.step-*.writing"))
        assert process.returncode == -signal.SIGKILL
    assert was_writing
    assert pretrain(config, tiny_shards, output, resume=True).is_finished
    assert results_of(output) == results_of(tmp_path / "straight")
    assert log_of(output) == log_of(tmp_path / "straight")


def newest_step(output: Path) -> int:
    return max((int(path.name[5:]) for path in output.glob("checkpoints/step-*")), default=0)


def wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    while not condition():
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.0005)


@pytest.mark.parametrize(
    "sections",
    [{}, TWO_STAGE, {**TWO_STAGE, **CHECKPOINTED}, ARTICLE_GAME],
    ids=["published", "two stages", "two stages, checkpointed", "article's game"],
)
def test_two_processes_equal_one(tiny_shards: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    """Under torchrun with gloo: the same rows, unequal counts in the two halves, the same losses and weights."""
    tables = {"parity": {"reference_packing": True}, "training": {"micro_batch_rows": 2}}
    config = tiny_configuration(**merge_tables(tables, sections))
    straight = pretrain(config, tiny_shards, tmp_path / "one")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [*launch, *command(write_configuration(config, tmp_path), tiny_shards, tmp_path / "two")]
    done = subprocess.run(
        [sys.executable, *arguments], env=environment() | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # one of the two speaks
    assert json.loads(done.stdout)["loss"] == pytest.approx(straight.metrics["loss"], rel=1e-5)
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [line["tokens"] for line in one] == [line["tokens"] for line in two]
    for ours, theirs in zip(one, two, strict=True):
        names = [name for name in ours if name.endswith("loss") or name == "gradient_norm"]
        assert len(names) >= 3
        assert {name: theirs[name] for name in names} == pytest.approx({name: ours[name] for name in names}, rel=1e-4)
    weights = [load_file(tmp_path / name / "model/model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def two_processes(*commands: list[str]) -> list[subprocess.CompletedProcess[str]]:
    """Two commands as the two processes of one run, each on a machine of its own as far as it can tell."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(
            [sys.executable, *one],
            env=environment() | shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, one in enumerate(commands)
    ]
    ended = []
    for process in running:
        out, err = process.communicate(timeout=240)
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return ended


def test_processes_that_see_different_checkpoints_stop(tiny_shards: Path, tmp_path: Path) -> None:
    """On machines without a shared folder all but the first would begin at step 0, and nothing would say so."""
    config = tiny_configuration()
    pretrain(config, tiny_shards, tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second", ignore=shutil.ignore_patterns("checkpoints"))
    file = write_configuration(config, tmp_path)
    first, second = two_processes(
        *([*command(file, tiny_shards, tmp_path / name), "--resume"] for name in ("first", "second"))
    )
    assert (first.returncode, second.returncode) == (2, 2)
    lines = [line for line in (first.stderr + second.stderr).splitlines() if line.startswith("electrain")]
    assert len(lines) == 1
    assert "see different checkpoints (process 0 step 10, process 1 none)" in lines[0]
    assert "give --output a folder that all machines share" in lines[0]


def test_one_process_hashes_the_shards_and_all_end_with_its_verdict(tiny_shards: Path, tmp_path: Path) -> None:
    """A byte is changed in the copy of one of the two: only the first process looks, and only one line is printed."""
    shutil.copytree(tiny_shards, tmp_path / "damaged")
    file = next((tmp_path / "damaged").glob("*.ds"))
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    config = write_configuration(tiny_configuration(training={"steps": 3}), tmp_path)
    damaged, intact = (command(config, shards, tmp_path / "run") for shards in (tmp_path / "damaged", tiny_shards))
    ended = two_processes(damaged, intact)
    assert [one.returncode for one in ended] == [2, 2]
    lines = [line for one in ended for line in one.stderr.splitlines() if line.startswith(("electrain", "Traceback"))]
    assert len(lines) == 1
    assert "its SHA-256 differs" in lines[0]
    assert [one.returncode for one in two_processes(intact, damaged)] == [0, 0]


def test_processes_with_different_configurations_stop(tiny_shards: Path, tmp_path: Path) -> None:
    file = write_configuration(tiny_configuration(), tmp_path)
    one = command(file, tiny_shards, tmp_path / "run")
    first, second = two_processes(one, [*one, "--training.seed", "1"])
    assert (first.returncode, second.returncode) == (2, 2)
    assert "the processes have different shards or configurations" in first.stderr
    assert not (tmp_path / "run").exists()


def test_a_compiled_run_resumes_in_its_second_stage(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiler tries a micro-batch of the stage that the run is in, and the run stays exact."""
    config = tiny_configuration(**TWO_STAGE, training={"compile": True, "checkpoint_every_steps": 7, "steps": 12})
    monkeypatch.setattr(compilation, "_compile", lambda _: None)  # what is tried is what counts here
    pretrain(config, tiny_shards, tmp_path / "straight")
    pretrain_until_killed(monkeypatch, 9, config, tiny_shards, tmp_path / "run")
    capsys.readouterr()
    pretrain(config, tiny_shards, tmp_path / "run", resume=True)
    assert "torch.compile does not work" not in capsys.readouterr().err
    assert results_of(tmp_path / "run") == results_of(tmp_path / "straight")


def test_gradient_checkpointing_may_begin_in_the_middle(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose memory was full goes on with it, and learns what it would have learned without, bit for bit."""
    config = tiny_configuration(training={"dropout": 0.1})
    pretrain(config, tiny_shards, tmp_path / "straight")
    update = loop._update

    def full_at_seven(run: Any, *arguments: Any, **named: Any) -> None:
        if run.state.step == 7:
            raise torch.OutOfMemoryError
        update(run, *arguments, **named)

    monkeypatch.setattr(loop, "_update", full_at_seven)
    with pytest.raises(ConfigurationError, match=r"set --training\.gradient-checkpointing true"):
        pretrain(config, tiny_shards, tmp_path / "run")
    monkeypatch.setattr(loop, "_update", update)
    twice = tiny_configuration(training={"dropout": 0.1, "gradient_checkpointing": True})
    assert pretrain(twice, tiny_shards, tmp_path / "run", resume=True).is_finished
    assert results_of(tmp_path / "run") == results_of(tmp_path / "straight")
    assert "gradient_checkpointing = true" in (tmp_path / "run" / "config.toml").read_text()


def test_accumulation_equals_one_batch(tiny_shards: Path, tmp_path: Path) -> None:
    """Ten steps of 8 rows and of 4 x 2 rows learn the same, up to rounding."""
    logs = []
    for rows in (0, 2):
        config = tiny_configuration(training={"micro_batch_rows": rows}, parity={"reference_packing": True})
        pretrain(config, tiny_shards, tmp_path / str(rows))
        logs.append([line["loss"] for line in log_of(tmp_path / str(rows))])
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)


def test_a_failing_compiler_is_said_and_the_run_goes_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> RunResult:
        raise RuntimeError("no C++ compiler\nand more lines")

    monkeypatch.setattr(compilation, "run_micro_batch", fail_once(compilation.run_micro_batch, broken))
    compiled = tiny_configuration(training={"compile": True})
    assert pretrain(compiled, tiny_shards, tmp_path / "run").is_finished
    assert (
        "torch.compile does not work here (RuntimeError: no C++ compiler); continuing uncompiled"
        in capsys.readouterr().err
    )
    monkeypatch.undo()
    pretrain(tiny_configuration(), tiny_shards, tmp_path / "plain")
    assert log_of(tmp_path / "run") == log_of(tmp_path / "plain")


def fail_once(function: Any, broken: Any) -> Any:
    calls = [0]

    def wrapped(*arguments: Any) -> Any:
        calls[0] += 1
        return broken() if calls[0] == 1 else function(*arguments)

    return wrapped


@pytest.mark.slow
def test_compiled_steps_learn_what_plain_ones_do(tiny_shards: Path, tmp_path: Path) -> None:
    logs = []
    for is_compiled in (True, False):
        config = tiny_configuration(training={"compile": is_compiled})
        pretrain(config, tiny_shards, tmp_path / str(is_compiled))
        logs.append([line["loss"] for line in log_of(tmp_path / str(is_compiled))])
    machine = json.loads((tmp_path / "True/metrics.jsonl").read_text().splitlines()[0])
    if not machine["compiled"]:
        pytest.skip("torch.compile does not work on this machine")
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_algorithms_are_a_setting(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    seen = []
    update = loop._update

    def remember(*arguments: Any, **named: Any) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        update(*arguments, **named)

    monkeypatch.setattr(loop, "_update", remember)
    config = tiny_configuration(training={"deterministic": deterministic, "steps": 2, "warmup_steps": 0})
    pretrain(config, tiny_shards, tmp_path / "run")
    assert seen == [deterministic, deterministic]

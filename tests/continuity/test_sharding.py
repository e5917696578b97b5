"""Weights divided among two processes learn what whole ones learn, and move between all ways of holding them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from electrain.foundation.configuration import merge_tables
from electrain.pretraining.run import pretrain
from tiny_pretraining import tiny_configuration, write_invented_tags

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from regenerate import OBJECTIVES

pytestmark = pytest.mark.usefixtures("quick_pretraining")

Tables = dict[str, dict[str, Any]]
# Two micro-batches a step, whose halves score different numbers of tokens.
UNEVEN: Tables = {"training": {"micro_batch_rows": 2, "log_every_steps": 1}, "parity": {"reference_packing": True}}
SHARDED: Tables = {"training": {"sharding": "parameters"}}
# Matrices of 63 rows, of which one process has a row more than the other.
MUON: Tables = {"training": {"optimizer": "muon"}, "encoder": {"feed_forward_size": 63}}
FEW: dict[str, Tables] = {
    "published, with muon": MUON,
    "article's game": {
        "generator": {"kind": "causal", "training": "policy-gradient"},
        "corruption": {"source": "generated", "missing_fraction": 0.5},
        "discriminator": {"heads": ["detection", "correction"], "correction_at": "missing"},
    },
    "gumbel, two optimizers": {
        "generator": {"training": "gumbel", "embedding_sharing": "gradient-disentangled"},
        "training": {"generator_peak_learning_rate": 1e-3},
        "encoder": {"backbone": "modernbert"},
    },
    "two stages, checkpointed layers": {
        "generator": {"kind": "frozen", "own_stage_steps": 4, "size_fraction": 1.0},
        "training": {"gradient_checkpointing": True},
    },
}


def in_two_processes(folder: Path, *runs: dict[str, Any]) -> None:
    """Takes pretraining runs in two processes; see `runs_in_processes.py`."""
    (folder / "runs.json").write_text(json.dumps(runs))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launch, str(Path(__file__).with_name("runs_in_processes.py")), str(folder / "runs.json")],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def run_of(shards: Path, output: Path, *tables: Tables, **more: bool) -> dict[str, Any]:
    merged: Tables = {}
    for one in tables:
        merged = merge_tables(merged, one)
    return {"shards": str(shards), "output": str(output), "tables": merged, **more}


def losses_of(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["event"] == "log"]
    return [{k: v for k, v in line.items() if k.endswith("loss") or k == "gradient_norm"} for line in logged]


def tensors_of(run: Path) -> dict[str, torch.Tensor]:
    """Everything that a run learned: its exported networks, and its last checkpoint with the optimizers' states."""
    last = max(run.glob("checkpoints/step-*"), key=lambda path: int(path.name[5:]))
    files = [*run.glob("*/model.safetensors"), *last.glob("*.safetensors")]
    assert len(files) >= 3
    return {f"{path.parent.name} {path.name} {k}": v for path in files for k, v in load_file(path).items()}


def require_alike(one: Path, other: Path) -> None:
    """Both runs logged and learned the same, up to rounding."""
    ours, theirs = losses_of(one), losses_of(other)
    assert len(ours) == len(theirs) > 0
    for step, (line, expected) in enumerate(zip(theirs, ours, strict=True), start=1):
        assert line == pytest.approx(expected, rel=1e-4), f"{other}, step {step}"
    tensors, expected_tensors = tensors_of(other), tensors_of(one)
    assert tensors.keys() == expected_tensors.keys()
    for name, expected_tensor in expected_tensors.items():
        where = f"{other}, {name}: "
        torch.testing.assert_close(tensors[name], expected_tensor, rtol=1e-3, atol=1e-5, msg=where.__add__)


def require_one_equals_two(folder: Path, shards: Path, kinds: dict[str, Tables], shardings: list[str]) -> None:
    runs = []
    for name, tables in kinds.items():
        pretrain(tiny_configuration(**merge_tables(UNEVEN, tables)), shards, folder / "one" / name)
        for sharding in shardings:
            output = folder / sharding / name
            runs.append(run_of(shards, output, UNEVEN, tables, {"training": {"sharding": sharding}}))
    in_two_processes(folder, *runs)
    for name in kinds:
        for sharding in shardings:
            require_alike(folder / "one" / name, folder / sharding / name)


def test_two_processes_with_divided_weights_equal_one(tiny_shards: Path, tmp_path: Path) -> None:
    pretrain(tiny_configuration(training={"seed": 5}), tiny_shards, tmp_path / "first")
    started: Tables = {
        "start": {"discriminator": str(tmp_path / "first/model"), "generator": str(tmp_path / "first/generator")}
    }
    require_one_equals_two(tmp_path, tiny_shards, FEW | {"started from another run": started}, ["parameters"])


@pytest.mark.slow
def test_every_objective_is_the_same_in_two_processes(tiny_shards: Path, tmp_path: Path) -> None:
    kinds = {
        name: merge_tables(tables, {"generator": {"own_stage_steps": 5}}) if name == "two_stage" else tables
        for name, tables in OBJECTIVES.items()
    }
    require_one_equals_two(tmp_path, tiny_shards, kinds, ["none", "parameters"])


def begun_again(run: Path, copy: Path) -> Path:
    """A copy of a run of ten steps that was stopped after its fifth."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints/step-10")
    return copy


def test_checkpoints_move_between_all_ways_of_holding_weights(tiny_shards: Path, tmp_path: Path) -> None:
    """A divided run resumes bit for bit; any other way goes on from its checkpoint, whose bytes all of them write."""
    drops: Tables = merge_tables(MUON, {"training": {"dropout": 0.1, "generator_peak_learning_rate": 1e-3}})
    probed = {"probe": {"labelled": str(write_invented_tags(tmp_path)), "every_steps": 5}}
    moves: Tables = merge_tables(MUON, {"training": {"log_every_steps": 1}, **probed})
    plain = {"training": {"sharding": "none"}}
    in_two_processes(
        tmp_path,
        run_of(tiny_shards, tmp_path / "drops", drops, SHARDED),
        run_of(tiny_shards, tmp_path / "moves", moves, SHARDED),
    )
    for name, run in (("drops again", "drops"), ("to whole", "moves"), ("to one", "moves")):
        begun_again(tmp_path / run, tmp_path / name)
    for name in ("saved divided", "saved whole"):
        begun_again(tmp_path / "moves", tmp_path / name)
    one = merge_tables(moves, SHARDED)
    assert pretrain(tiny_configuration(**one), tiny_shards, tmp_path / "to one", resume=True).is_finished
    in_two_processes(
        tmp_path,
        run_of(tiny_shards, tmp_path / "drops again", drops, SHARDED, resume=True),
        run_of(tiny_shards, tmp_path / "to whole", moves, plain, resume=True),
        run_of(tiny_shards, tmp_path / "saved divided", moves, SHARDED, resume=True, saves_again=True),
        run_of(tiny_shards, tmp_path / "saved whole", moves, plain, resume=True, saves_again=True),
    )
    straight, resumed = tensors_of(tmp_path / "drops"), tensors_of(tmp_path / "drops again")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
    require_alike(tmp_path / "moves", tmp_path / "to whole")
    require_alike(tmp_path / "moves", tmp_path / "to one")
    for name in ("to whole", "to one"):  # the first process probes, of divided weights a whole copy
        assert accuracies_of(tmp_path / name) == pytest.approx(accuracies_of(tmp_path / "moves"), abs=1.0)
    for file in ("model.safetensors", "optimizer.safetensors"):
        before = (tmp_path / "moves/checkpoints/step-5" / file).read_bytes()
        for name in ("saved divided", "saved whole"):
            assert (tmp_path / name / "checkpoints/step-5" / file).read_bytes() == before
    whole, divided = ([held(tmp_path / f"saved {how}", rank) for rank in (0, 1)] for how in ("whole", "divided"))
    for kind in ("weights", "states"):
        assert whole[0][kind] == whole[1][kind]
        # A weight of an odd number of rows, or of one, leaves one process with more.
        assert max(one[kind] for one in divided) < 0.52 * whole[0][kind]


def held(run: Path, rank: int) -> dict[str, int]:
    """How many numbers a process held of the weights, and of the optimizers' states."""
    numbers: dict[str, int] = json.loads((run / f"held-{rank}.json").read_text())
    return numbers


def accuracies_of(run: Path) -> list[float]:
    """What the probes at steps 5 and 10 said; rounding may move a word or two."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    probes = [line for line in lines if line["event"] == "probe"]
    assert [line["step"] for line in probes] == [5, 10]
    return [line["probe_accuracy"] for line in probes]

"""Kills a real pretraining run with SIGKILL again and again, resumes it, and compares it with one never killed.

    python benchmarks/resume.py --work DIR [--shards DIR] [--kills 20] [--steps 2000] [--SECTION.FIELD VALUE ...]

Without --shards, shards are made of `builtin:documentation`. Kills come at random moments, and at least a quarter of
them while a checkpoint is being written (its folder stands under the temporary name). Prints one JSON line: the counts
and whether the SHA-256 of the final weights are those of the run that was never killed. Started again with the same
DIR it goes on where it was.
"""

import argparse
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "electrain.cli.app"]
# The preset `tiny`, shrunk so that many kills take minutes; any field can be set otherwise on the command line.
SMALL = {
    "encoder.layers": 2,
    "encoder.hidden-size": 64,
    "encoder.feed-forward-size": 128,
    "encoder.heads": 2,
    "generator.size-fraction": 0.5,
    "training.batch-rows": 16,
    "training.warmup-steps": 20,
    "training.compile": "false",
}
WRITING_FRACTION = 0.25
# After the first checkpoint of a sitting (without which it would never arrive), a kill comes within so many seconds.
LONGEST_DELAY_SECONDS = 2.0


def main() -> None:
    """Makes what is missing of the two runs, and prints the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and runs; reused")
    parser.add_argument("--shards", type=Path, help="shards to train on")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    arguments, fields = parser.parse_known_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    shards = arguments.shards or prepared(arguments.work)
    every = max(1, arguments.steps // (2 * arguments.kills))
    settings = {**SMALL, "training.steps": arguments.steps, "training.checkpoint-every-steps": every}
    given = {field.partition("=")[0] for field in fields}
    flags = [f"--{name}={value}" for name, value in settings.items() if f"--{name}" not in given]
    command = [*COMMAND, "pretrain", "--config=tiny", f"--shards={shards}", "--resume", *flags, *fields]
    record = Record(arguments.work / "kills.jsonl")
    run_to_the_end([*command, f"--output={arguments.work / 'straight'}"])
    kill_often([*command, f"--output={arguments.work / 'killed'}"], arguments, record)
    run_to_the_end([*command, f"--output={arguments.work / 'killed'}"])
    print(json.dumps(verdict(arguments.work, arguments.steps, record)))


class Record:
    """The kills so far, a line each, so that an interrupted benchmark goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kills: list[dict[str, Any]] = []
        if path.exists():
            self.kills = [json.loads(line) for line in path.read_text().splitlines()]

    def add(self, kill: dict[str, Any]) -> None:
        """Appends a kill and says so."""
        self.kills.append(kill)
        with open(self.path, "a") as file:
            file.write(json.dumps(kill) + "\n")
        print(f"kill {len(self.kills)}: {kill}", file=sys.stderr, flush=True)

    @property
    def while_writing(self) -> int:
        """Kills that left a half-written checkpoint."""
        return sum(kill["while_writing"] for kill in self.kills)


def prepared(work: Path) -> Path:
    """Shards of the documentation on this machine, made once."""
    if not (work / "shards/manifest.json").exists():
        tokenizer = ["tokenizer", "builtin:documentation", "--vocab-size=4096", f"--output={work / 'tokenizer'}"]
        shards = [
            "prepare",
            "builtin:documentation",
            f"--tokenizer={work / 'tokenizer'}",
            f"--output={work / 'shards'}",
        ]
        for arguments in (tokenizer, shards):
            subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    return work / "shards"


def run_to_the_end(command: list[str]) -> None:
    """Runs or resumes, and waits."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_often(command: list[str], arguments: argparse.Namespace, record: Record) -> None:
    """Starts and kills the run until there are enough kills, enough of them while a checkpoint was being written."""
    output = arguments.work / "killed"
    wanted_writing = math.ceil(arguments.kills * WRITING_FRACTION)
    while len(record.kills) < arguments.kills or record.while_writing < wanted_writing:
        number = len(record.kills)
        chance = random.Random(f"{arguments.seed} {number}")
        aims_at_writing = number % 2 == 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = newest_step(output)
        wait(process, lambda begun=begun: newest_step(output) > begun)
        if aims_at_writing:
            wait(process, lambda: is_writing(output))
        else:
            wait(process, lambda: False, chance.uniform(0.0, LONGEST_DELAY_SECONDS))
        is_alive = process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if not is_alive:
            raise SystemExit(f"the run ended before {arguments.kills} kills; give more --steps")
        record.add({"step": newest_step(output), "while_writing": is_writing(output)})


def wait(process: subprocess.Popen[bytes], condition: Any, seconds: float = 600.0) -> bool:
    """Waits until the condition holds; False when the process ended or the time is up before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if condition():
            return True
        time.sleep(0.0005)
    return False


def newest_step(output: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name[5:]) for path in output.glob("checkpoints/step-*")), default=0)


def is_writing(output: Path) -> bool:
    """True while a checkpoint stands under its temporary name."""
    return any(output.glob("checkpoints/.step-*.writing"))


def verdict(work: Path, steps: int, record: Record) -> dict[str, Any]:
    """The counts, and whether both runs ended with the same weights."""
    names = ["model/model.safetensors", "generator/model.safetensors"]
    names += [f"checkpoints/step-{steps}/{name}.safetensors" for name in ("model", "optimizer")]
    hashes = {run: {name: sha256(work / run / name) for name in names} for run in ("straight", "killed")}
    logged = [json.loads(line) for line in (work / "killed/metrics.jsonl").read_text().splitlines()]
    logged_steps = [line["step"] for line in logged if line["event"] == "log"]
    return {
        "benchmark": "resume",
        "steps": steps,
        "kills": len(record.kills),
        "kills_while_writing_a_checkpoint": record.while_writing,
        "files_compared": len(names),
        "bit_for_bit_equal": hashes["straight"] == hashes["killed"],
        "steps_logged_twice": len(logged_steps) - len(set(logged_steps)),
        "sha256_of_the_model": hashes["killed"][names[0]],
    }


def sha256(path: Path) -> str:
    """Of a file's bytes, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()

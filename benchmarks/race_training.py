"""Trains an arm of the race: its stages one after another, each in a process of its own, which resumes exactly."""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from electrain.data.shards.shards import open_shards
from electrain.foundation.configuration import to_toml
from electrain.foundation.errors import ElectrainError
from electrain.foundation.output_folder import JOURNAL_NAME, MANIFEST_NAME, write_text_durably
from electrain.foundation.process import SIGNAL_OFFSET
from electrain.foundation.report_page import json_lines, json_object
from electrain.foundation.system import ending_signals
from electrain.pretraining.configuration import load_configuration
from electrain.pretraining.run import pretrain
from electrain.training.sitting import CHECKPOINTS
from race_arms import ARMS, stage_configuration, steps_for

# A process that ends for no reason of its own (no memory, for instance) is started again, but not for ever.
MOST_STARTS_AT_A_STEP = 3


@dataclass(frozen=True)
class Race:
    """What all entries of a race share.

    Attributes:
        shards: the text.
        data: a folder of the labelled sets, each in a folder of its own name.
        output: the race's folder.
        common: settings of all arms; see `race_arms.tables_of`.
        keeps: checkpoints and fine-tuned models stay.
    """

    shards: Path
    data: Path
    output: Path
    common: str = ""
    keeps: bool = False


@dataclass(frozen=True)
class Entry:
    """An arm with a budget of counted operations and a seed."""

    budget: float
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its lock."""
        return f"{self.budget:g}-{self.arm}-{self.seed}"

    def folder(self, race: Race) -> Path:
        """Of its stages, which are numbered from 0."""
        return race.output / "runs" / self.name

    def run(self, race: Race) -> Path:
        """The run of the last stage, which holds the encoder."""
        return self.folder(race) / str(len(ARMS[self.arm].stages) - 1)


class FailedError(Exception):
    """An entry that will not get better: it diverged, cannot be configured, or dies whenever it is started."""


class StoppedError(Exception):
    """An entry that is to go on in another sitting."""


def train(race: Race, entry: Entry, deadline: float) -> dict[str, Any]:
    """Trains what is left of an entry, and returns its line.

    Args: deadline: of `time.monotonic`; a training that is not over then saves its state and stops.
    Raises: FailedError, StoppedError.
    """
    arm, before, stages = ARMS[entry.arm], "", []
    entry.folder(race).mkdir(parents=True, exist_ok=True)
    try:
        vocabulary_size = open_shards(race.shards, verify=False).vocabulary_size
        for number in range(len(arm.stages)):
            steps, cost = steps_for(arm, number, entry.budget, vocabulary_size, race.common, before)
            config = stage_configuration(arm, number, entry.budget, entry.seed, race.common, steps=steps, before=before)
            run = entry.folder(race) / str(number)
            if not is_finished(run):
                write_text_durably(entry.folder(race) / f"{number}.toml", to_toml(config))
                _train_stage(race, run, deadline)
            stages.append(_facts_of(run) | {"steps": steps, "operations": steps * cost})
            before = str(run / "model")
    except ElectrainError as error:
        raise FailedError(str(error)) from error
    if not race.keeps:
        for number in range(len(arm.stages)):
            shutil.rmtree(entry.folder(race) / str(number) / CHECKPOINTS, ignore_errors=True)
    return _line_of(stages)


def is_finished(run: Path) -> bool:
    """Whether a run has taken all of its steps and written its networks."""
    return (run / "model").is_dir() and json_object(run / MANIFEST_NAME).get("finished", False)


def _train_stage(race: Race, run: Path, deadline: float) -> None:
    """Starts the training again while its process ends for no reason of its own and makes progress in between."""
    while True:
        log = run.with_suffix(".log")
        code = start(race, run, log, deadline)
        if code == 0:
            return
        if code in (1, 2):  # it diverged, or something is wrong with what it was given
            raise FailedError(f"exit code {code}: {_last_line(log)}")
        if {-code, code - SIGNAL_OFFSET} & {signal.SIGINT, *ending_signals()}:
            raise StoppedError
        if _starts_at_last_step(run) >= MOST_STARTS_AT_A_STEP:
            raise FailedError(f"ended with {code} at one step, {MOST_STARTS_AT_A_STEP} times: {_last_line(log)}")


def start(race: Race, run: Path, log: Path, deadline: float) -> int:
    """Trains in a process of its own until it ends or the deadline is there; returns its exit code."""
    command = [sys.executable, __file__, str(run.with_suffix(".toml")), str(race.shards), str(run)]
    with log.open("ab") as file:
        # The claims stay with it (`sittings.claimed`), so that nobody else begins while it still trains.
        child = subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, close_fds=False)
        try:
            return child.wait(None if deadline == float("inf") else max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.terminate()
            return child.wait()
        except BaseException:
            child.kill()
            raise


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"


def _starts_at_last_step(run: Path) -> int:
    """How often the training was begun from the checkpoint that it was begun from last."""
    starts = [line["step"] for line in json_lines(run / JOURNAL_NAME) if line["event"] == "machine"]
    return starts.count(starts[-1]) if starts else MOST_STARTS_AT_A_STEP


def _facts_of(run: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    facts, journal = json_object(run / MANIFEST_NAME)["facts"], json_lines(run / JOURNAL_NAME)
    sittings: list[float] = []  # processor seconds of each process that trained it
    for line in journal:
        if line["event"] == "machine":
            sittings.append(0.0)
        elif line["event"] == "log" and sittings:
            sittings[-1] = line["processor_seconds"]
    machine = next(line for line in reversed(journal) if line["event"] == "machine")
    return {
        "tokens": facts["tokens"],
        "seconds": facts["seconds"],
        "processor_seconds": sum(sittings),
        "tokens_per_processor_second": tokens_per_processor_second(journal),
        "machine": f"{machine['device']}, {machine['precision']}, "
        f"{'' if machine['compiled'] else 'not '}compiled, torch {machine['torch']}",
    }


def tokens_per_processor_second(journal: Sequence[dict[str, Any]]) -> float | None:
    """Median over the lines of a journal, those between two sittings left out; None where a run is too short."""
    logged = [(line["tokens"], line["processor_seconds"]) for line in journal if line["event"] == "log"]
    pairs = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(logged)]
    rates = [tokens / seconds for tokens, seconds in pairs if seconds > 0]
    return statistics.median(rates) if rates else None


def _line_of(stages: list[dict[str, Any]]) -> dict[str, Any]:
    sums = {name: sum(stage[name] for stage in stages) for name in ("steps", "operations", "tokens")}
    times = {name: round(sum(stage[name] for stage in stages), 1) for name in ("seconds", "processor_seconds")}
    rate = round(sums["tokens"] / max(times["seconds"], 1e-9))
    machine = stages[-1]["machine"]
    more = [
        {name: stage[name] for name in ("steps", "operations", "tokens", "tokens_per_processor_second")}
        for stage in stages
    ]
    return {**sums, **times, "tokens_per_second": rate, "stages": more, "machine": machine}


def encoder_of(race: Race, entry: Entry) -> Path:
    """The run that holds an entry's encoder. Raises: FailedError: it is gone."""
    run = entry.run(race)
    if not is_finished(run):
        raise FailedError(f"{run}: holds no encoder")
    return run


def main() -> None:
    """Trains one stage: configuration file, shards, run folder."""
    config, shards, run = sys.argv[1:]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        result = pretrain(load_configuration(config), Path(shards), Path(run), resume=True)
    except ElectrainError as error:
        print(f"pretrain: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()

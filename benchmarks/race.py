"""The race: which pretraining gives the better encoder for the same counted operations, on one text.

    OMP_NUM_THREADS=1 python benchmarks/race.py --shards SHARDS --data FOLDER --output RACE --budget 1.4e13
        --arms mlm published causal --seeds 0 1 2 --measures frozen zero-shot --stop-after-minutes 60 --table

Every arm (`race_arms.ARMS`) gets the same counted operations, in as many steps as these pay for. RACE/lines.jsonl
gets a line for each training (kind `trained`: steps, operations, tokens, seconds, machine) and for each measure of
its encoder (`race_measures`): `frozen` (a linear tagger of Brown's tags, similarity on STS-B), `zero-shot` (BLiMP by
the best scorer), `few-label` (fine-tuning on brown_pos, sst2 and stsb) and `writing` (translation of Multi30k). What
failed is a line too, with the reason. What has a line is not done again. A training that was stopped goes on from its
checkpoint, exactly, and several of these commands at once share the work. FOLDER holds the sets in folders of their
names, as `benchmarks/finetune_table.py` reads them, and `blimp`. Encoders stay in RACE/runs, so that further measures
can be asked for later; `--keep` keeps checkpoints and fine-tuned models too.

`--table` ranks the arms: RACE/table.md and RACE/table.png (`race_table`). With `--arms` left out it shows all that
have lines; with `--choose` it shows validation scores, by which variants of an arm are chosen: report the chosen ones
on seeds that did not choose them. Processor seconds are those of one process; on a GPU look at the seconds instead.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from electrain.data.shards.shards import open_shards
from electrain.foundation.errors import ElectrainError
from electrain.foundation.output_folder import MANIFEST_NAME, file_hash, write_text_durably
from race_arms import ARMS, SIZES
from race_measures import FEW, MEASURES, ONLY_ENGLISH, PAIRS_PER_SET
from race_table import write_table
from race_training import Entry, FailedError, Race, StoppedError, is_finished, train
from sittings import append_line, claimed, read_lines

TRAINED = "trained"
LINES_NAME, SETTINGS_NAME = "lines.jsonl", "race.json"


def settle(race: Race, language: str) -> None:
    """Writes down what all lines of the folder share. Raises: SystemExit: it was begun with something else."""
    open_shards(race.shards, verify=False)
    shards = file_hash(race.shards / MANIFEST_NAME)
    ours = {
        "shards": shards,
        "common": race.common,
        "language": language,
        "pairs_per_set": PAIRS_PER_SET,
        "sizes": [f"up to {most:g}: {preset} {shared}".strip() for most, preset, shared in SIZES],
    }
    path = race.output / SETTINGS_NAME
    with claimed(race.output / "runs" / "race.lock", waits=True):
        if not path.is_file():
            write_text_durably(path, json.dumps(ours, indent=2) + "\n")
        theirs = json.loads(path.read_text())
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise SystemExit(
                f"{path}: was begun with {name} {theirs.get(name)!r}, not {value!r}; take another --output"
            )


def fill(race: Race, entries: Iterator[Entry], measures: list[str], language: str, minutes: float) -> None:
    """Does what is missing, appending a line for each."""
    deadline = time.monotonic() + 60 * minutes
    for entry in entries:
        with claimed(race.output / "runs" / f"{entry.name}.lock") as is_mine:
            if is_mine and not _do(race, entry, measures, language, deadline):
                return


def _do(race: Race, entry: Entry, measures: list[str], language: str, deadline: float) -> bool:
    """Trains and measures an entry as far as that is missing. False: the deadline is there."""
    jobs: dict[str, Callable[[], dict[str, Any]]] = {TRAINED: lambda: train(race, entry, deadline)}
    jobs |= {name: lambda name=name: MEASURES[name](race, entry, language) for name in measures}
    for kind, job in jobs.items():
        line = _line_of(race, entry, kind)
        if line is None or (kind == TRAINED and _must_train_again(race, entry, line, measures)):
            if time.monotonic() > deadline:
                return False
            try:
                found = _timed(kind, job)
            except StoppedError:
                return False
            if line is None:
                line = {"kind": kind, **dataclasses.asdict(entry), "settings": ARMS[entry.arm].words(), **found}
                append_line(race.output / LINES_NAME, line)
                print(json.dumps(line), flush=True)
        if kind == TRAINED and "failed" in line:
            return True
    return True


def _line_of(race: Race, entry: Entry, kind: str) -> dict[str, Any] | None:
    for line in read_lines(race.output / LINES_NAME):
        if line["kind"] == kind and Entry(line["budget"], line["arm"], line["seed"]) == entry:
            if line["settings"] != ARMS[entry.arm].words():
                raise SystemExit(f"arm {entry.arm}: has lines of other settings ({line['settings']}); rename it")
            return line
    return None


def _must_train_again(race: Race, entry: Entry, line: dict[str, Any], measures: list[str]) -> bool:
    """Whether a measure is missing, and its encoder too: lines can be copied without the networks."""
    is_asked = any(_line_of(race, entry, name) is None for name in measures)
    return is_asked and "failed" not in line and not is_finished(entry.run(race))


def _timed(kind: str, job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a job found, or why it failed, and what it cost; a training says itself what it cost."""
    began, used = time.monotonic(), time.process_time()
    try:
        found = job()
    except (StoppedError, SystemExit, KeyboardInterrupt):
        raise
    except (FailedError, ElectrainError) as error:
        found = {"failed": str(error)}
    except Exception as error:  # a line too: the next arm is not to pay for it
        found = {"failed": f"{type(error).__name__}: {error}"}
    if kind == TRAINED:
        return found
    times = {"seconds": time.monotonic() - began, "processor_seconds": time.process_time() - used}
    outcome = found if "failed" in found else {"scores": found}
    return outcome | {name: round(value, 1) for name, value in times.items()}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shards", type=Path, help="of the text; only --table does without")
    parser.add_argument("--data", type=Path, help="folder of the labelled sets")
    parser.add_argument("--budget", type=float, nargs="+", default=[], help="counted operations, such as 1.4e13")
    parser.add_argument("--arms", nargs="+", default=[], choices=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--measures", nargs="*", default=["frozen", "zero-shot"], choices=list(MEASURES))
    parser.add_argument("--language", default="english", choices=list(FEW))
    parser.add_argument("--common", default="", help="settings of all arms: SECTION.FIELD=VALUE ..., in one word")
    parser.add_argument("--stop-after-minutes", type=float, default=math.inf, help="save what is going on, and stop")
    parser.add_argument("--keep", action="store_true", help="keep checkpoints and fine-tuned models")
    parser.add_argument("--table", action="store_true", help="write the table and the figure at the end")
    parser.add_argument(
        "--choose", action="store_true", help="the table shows validation scores, to choose variants by"
    )
    options = parser.parse_args(arguments)
    if options.budget and not (options.shards and options.data and options.arms):
        parser.error("--budget: needs --shards, --data and --arms")
    if options.language != "english" and set(options.measures) & set(ONLY_ENGLISH):
        parser.error(f"--measures {' '.join(ONLY_ENGLISH)}: are of English text; leave them out")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Fills what is missing, then writes the table and the figure."""
    options = parse(arguments)
    (options.output / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    race = Race(options.shards, options.data, options.output, options.common, options.keep)
    try:
        if options.budget:
            settle(race, options.language)
            entries = (
                Entry(budget, arm, seed) for budget in options.budget for seed in options.seeds for arm in options.arms
            )
            fill(race, entries, options.measures, options.language, options.stop_after_minutes)
        if options.table or options.choose:
            print(
                write_table(
                    read_lines(options.output / LINES_NAME), options.arms, options.output, is_choosing=options.choose
                )
            )
    except ElectrainError as error:
        raise SystemExit(f"race: {error}") from None


if __name__ == "__main__":
    main()

"""What pretraining gives on public data sets: trivial and linear baselines, the network not pretrained, and pretrained.

A fifth system, adapted, is pretrained further on the texts of the set's training file, without their labels
(Gururangan et al. 2020), by `electrain prepare` and `electrain pretrain --start.discriminator`.

    python benchmarks/finetune_table.py --data FOLDER --english RUN --chinese RUN --adapted SET=RUN --output FOLDER

Each line of OUTPUT/results.jsonl is one data set, system, seed and number of training examples; what is there is not
done again, and a run that was stopped goes on, so that the table can be filled over several sittings, and by several
of these commands at once. FOLDER has a folder for each set, as `finetune_sets.SETS` names its files. Sets that are
too large for two cores are trained and tested on the slices stated there; examples are drawn by seed. Scores are those
of the test file, of the model that was best on validation.
"""

import argparse
import dataclasses
import gzip
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from electrain.data.labelled.reading import Columns, read_examples
from electrain.finetuning.configuration import WRITING_TASKS, load_finetune_configuration
from electrain.finetuning.examples import drawn
from electrain.finetuning.run import finetune
from electrain.finetuning.tasks.sequence_to_sequence import copying_pairs
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.foundation.configuration import parse_overrides
from electrain.foundation.errors import ElectrainError
from electrain.foundation.output_folder import write_bytes_durably
from finetune_baselines import LINEAR, SCORES, TRIVIAL
from finetune_sets import FEW_LABELS, LEARNING_RATE, SETS, DataSet
from sittings import claimed, read_lines

WITHOUT_NETWORK = ("trivial", "linear")
SYSTEMS = (*WITHOUT_NETWORK, "fresh", "pretrained", "adapted")
# As `LEARNING_RATE`, which is that of a pretrained encoder.
FRESH_TAGGER_LEARNING_RATE = 2e-3
COPYING = {"data.longest_tokens": 64, "data.validation_examples": 100, "training.epochs": 4, "generation.beams": 1}
AFTER_COPYING_LEARNING_RATE = 5e-4


@dataclass(frozen=True)
class Job:
    """One line of the results: a set, a system, a seed, and how many training examples (0: the set's slice)."""

    name: str
    system: str
    seed: int
    few: int = 0

    @property
    def folder(self) -> str:
        """Of its run."""
        return f"{self.name}-{self.system}-{self.few or 'all'}-{self.seed}"

    def is_in(self, rows: list[dict[str, Any]]) -> bool:
        """Whether its line is there."""
        return any(all(row[field] == value for field, value in dataclasses.asdict(self).items()) for row in rows)


def systems_of(name: str) -> tuple[str, ...]:
    """What is run for every seed, fastest last: trivial answers are the same for each."""
    return ("pretrained", "fresh", "adapted", *(("linear",) if SETS[name].task in LINEAR else ()))


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All lines of the table: whole slices of every set before further seeds and few labels."""
    for name in options.sets:
        yield Job(name, "trivial", 0)
        for few in FEW_LABELS if SETS[name].few else ():
            yield Job(name, "trivial", 0, few)
    for number, seed in enumerate(options.seeds):
        for name in options.sets:
            for system in systems_of(name):
                if number == 0 or seed < options.seeds_of_large or SETS[name].few:
                    yield Job(name, system, seed)
        for name in options.sets:
            if SETS[name].few:
                for few in FEW_LABELS:
                    for system in systems_of(name):
                        yield Job(name, system, seed, few)


def files_of(options: argparse.Namespace, name: str) -> Path:
    """The folder of a set's files; of one whose files are parts of others, made in the output folder."""
    chosen = SETS[name]
    folder, made = Path(options.data) / (chosen.folder or name), Path(options.output) / "made" / name
    if not (chosen.words or chosen.held_out):
        return folder
    made.mkdir(parents=True, exist_ok=True)
    for file, content in (_by_words if chosen.words else _held_out)(folder, chosen):
        if not (made / file).exists():
            write_bytes_durably(made / file, content)
    return made


def _by_words(folder: Path, chosen: DataSet) -> Iterator[tuple[str, bytes]]:
    for file in ("train", "validation", "test"):
        header, *rows = (folder / f"{file}.tsv").read_text("utf-8").splitlines()
        inside = [row for row in rows if any(word in row for word in chosen.words)]
        outside = [row for row in rows if not any(word in row for word in chosen.words)]
        for part, kept in ((file, inside), (f"{file}_other", outside)):
            yield f"{part}.tsv", ("\n".join([header, *kept]) + "\n").encode()


def _held_out(folder: Path, chosen: DataSet) -> Iterator[tuple[str, bytes]]:
    rows = gzip.decompress((folder / chosen.train).read_bytes()).splitlines(keepends=True)
    yield chosen.train, gzip.compress(b"".join(rows[: -chosen.held_out]))
    yield chosen.validation, gzip.compress(b"".join(rows[-chosen.held_out :]))
    for file in chosen.tests.values():
        yield file, (folder / file).read_bytes()


def read(options: argparse.Namespace, name: str, file: str) -> list[Any]:
    """The examples of one of the set's files; further references stand in test files alone."""
    data, chosen = load_finetune_configuration(SETS[name].recipe or name).data, SETS[name]
    references = "" if file == chosen.train else chosen.references
    columns = Columns(
        data.text_column, data.pair_column, data.label_column, references, quoting=chosen.quoting or data.quoting
    )
    found = read_examples(SETS[name].task, [str(files_of(options, name) / file)], columns, skip_broken=True)
    return found.examples


def test_sets(options: argparse.Namespace, name: str) -> dict[str, list[Any]]:
    """The examples that are scored, by what they show."""
    chosen = SETS[name]
    count = chosen.test_examples
    return {what: drawn(read(options, name, file), count, 0, "test") for what, file in chosen.tests.items()}


def without_network(options: argparse.Namespace, job: Job) -> dict[str, dict[str, float]]:
    """Scores of `finetune_baselines`, from the same training examples."""
    chosen = SETS[job.name]
    train = drawn(read(options, job.name, chosen.train), job.few or chosen.train_examples, job.seed, "training")
    if job.system == "trivial":
        told = TRIVIAL[chosen.task](train)
    else:
        validation = read(options, job.name, chosen.validation)
        told = LINEAR[chosen.task](train, drawn(validation, chosen.validation_examples, 0, "validation"))
    score = SCORES[chosen.task]
    return {what: score(examples, told(examples)) for what, examples in test_sets(options, job.name).items()}


def train_and_score(options: argparse.Namespace, job: Job, model: str, run: Path) -> dict[str, dict[str, float]]:
    """Fine-tunes, or goes on, then scores every test file with the model that was best on validation."""
    chosen, folder = SETS[job.name], files_of(options, job.name)
    changes: dict[str, Any] = {
        "training.seed": job.seed,
        "training.weights": "fresh" if job.system == "fresh" else "pretrained",
        "data.train_examples": job.few or chosen.train_examples,
        "data.validation_examples": chosen.validation_examples,
        "data.skip_broken": "true",
    }
    if chosen.task not in WRITING_TASKS:
        is_fresh_tagger = chosen.task == "tagging" and job.system == "fresh"
        changes["training.peak_learning_rate"] = FRESH_TAGGER_LEARNING_RATE if is_fresh_tagger else LEARNING_RATE
        if job.system != "fresh" and not job.few:
            changes["training.peak_learning_rate"] = chosen.learning_rate
            changes["training.word_embedding_rate_ratio"] = chosen.word_embedding_rate_ratio
    if job.few or chosen.epochs:
        changes["training.epochs"] = FEW_LABELS.get(job.few, chosen.epochs)
    if chosen.longest_tokens:
        changes["data.longest_tokens"] = chosen.longest_tokens
    if chosen.copies_of:
        copies, more = copies_for(options, job), {**COPYING, "data.text_column": "text", "data.label_column": "summary"}
        model = trained(options, job, model, ([copies], [copies]), {**changes, **more}, Path(f"{run}-copies"))
        changes |= {"training.weights": "pretrained", "training.peak_learning_rate": AFTER_COPYING_LEARNING_RATE}
    trained(options, job, model, ([str(folder / chosen.train)], [str(folder / chosen.validation)]), changes, run)
    tuned = load_fine_tuned(run, (chosen.task,))
    scores, samples = {}, []
    for what, examples in test_sets(options, job.name).items():
        answers = tuned.task.answer(tuned.model, examples)
        scores[what] = tuned.task.score(examples, answers)
        samples += answers[:20]
    with (run / "samples.jsonl").open("w") as file:
        file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    return scores


def trained(
    options: argparse.Namespace,
    job: Job,
    model: str,
    files: tuple[list[str], list[str]],
    changes: dict[str, Any],
    run: Path,
) -> str:
    """The run that the set's recipe makes of the training and validation files, with these changes."""
    if SETS[job.name].quoting:
        changes = {"data.quoting": SETS[job.name].quoting, **changes}
    flags = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    recipe = SETS[job.name].recipe or job.name
    config = load_finetune_configuration(recipe, parse_overrides(flags + options.common.split()))
    result = finetune(SETS[job.name].task, config, model, *files, run, resume=True)
    if not result.is_finished:
        raise SystemExit(f"{run}: was stopped; run the command again to go on")
    return str(run)


def copies_for(options: argparse.Namespace, job: Job) -> str:
    """A file of texts and their first words, as long as the median target."""
    chosen = SETS[job.name]
    file, text, other = chosen.copies_of
    texts = read_examples(chosen.task, [str(Path(options.data) / file)], Columns(text, "", other), skip_broken=True)
    targets = [example.target for example in read(options, job.name, chosen.train)]
    pairs = copying_pairs([example.text for example in texts.examples], targets)
    path = Path(options.output) / "made" / f"{job.folder}-copies.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), "utf-8")
    return str(path)


def fill(options: argparse.Namespace) -> None:
    """Does every job that is missing, appending a line for each."""
    path = options.output / "results.jsonl"
    deadline = time.monotonic() + 60 * options.stop_after_minutes
    for job in jobs(options):
        if job.system not in options.systems:
            continue
        language = getattr(options, SETS[job.name].language)
        model = options.adapted.get(job.name) if job.system == "adapted" else language
        if job.is_in(read_lines(path)) or (model is None and job.system not in WITHOUT_NETWORK):
            continue
        with claimed(options.output / "runs" / f"{job.folder}.lock") as is_mine:
            if not is_mine or job.is_in(read_lines(path)):
                continue
            if time.monotonic() > deadline:
                return
            started, used = time.monotonic(), time.process_time()
            if job.system in WITHOUT_NETWORK:
                scores = without_network(options, job)
            else:
                scores = train_and_score(options, job, model, options.output / "runs" / job.folder)
            row = {
                **dataclasses.asdict(job),
                "scores": scores,
                "seconds": round(time.monotonic() - started, 1),
                "processor_seconds": round(time.process_time() - used, 1),
            }
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Medians over seeds (least to greatest) as Markdown, one line for each set, number of examples and test."""
    lines = [
        "| set | examples | test | score | trivial | linear | not pretrained | pretrained | adapted |",
        "|---" * 9 + "|",
    ]
    for name, chosen in SETS.items():
        for few in (*FEW_LABELS, 0):
            own = [row for row in rows if row["name"] == name and row["few"] == few]
            for what in chosen.tests if own else ():
                by_system = dict.fromkeys(SYSTEMS, "-")
                for system in SYSTEMS:
                    found = [row["scores"][what] for row in rows if row["name"] == name and row["system"] == system
                             and row["few"] == few]  # fmt: skip
                    by_system[system] = _cell([scores[chosen.shown] for scores in found])
                count = few or chosen.train_examples or "all"
                cells = " | ".join(by_system[system] for system in SYSTEMS)
                lines.append(f"| {name} | {count} | {what} | {chosen.shown} | {cells} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if min(values) < max(values) else ""
    return f"{statistics.median(values):.1f}{spread}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--english", help="run of an English encoder")
    parser.add_argument("--chinese", help="run of a Chinese encoder")
    parser.add_argument(
        "--adapted", nargs="+", default=[], type=_run_of_a_set, metavar="SET=RUN", help="encoders adapted to a set"
    )
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seeds-of-large", type=int, default=1, help="seeds of the sets without few labels")
    parser.add_argument("--common", default="", help="flags for every run, in one word")
    parser.add_argument("--stop-after-minutes", type=float, default=math.inf, help="begin no run later")
    options = parser.parse_args()
    options.adapted = dict(options.adapted)
    return options


def _run_of_a_set(word: str) -> tuple[str, str]:
    name, _, run = word.partition("=")
    if name not in SETS or not run:
        raise argparse.ArgumentTypeError(f"{word}: give SET=RUN, such as sst2=adapted")
    return name, run


def main() -> None:
    """Fills what is missing, then writes the table."""
    options = parse()
    (options.output / "runs").mkdir(parents=True, exist_ok=True)
    try:
        fill(options)
    except ElectrainError as error:
        raise SystemExit(f"finetune_table: {error}") from None
    text = table(read_lines(options.output / "results.jsonl"))
    (options.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()

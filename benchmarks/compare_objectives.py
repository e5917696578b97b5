"""Every objective for the same counted operations, on the same text, from the same seeds: one table and one plot.

    python benchmarks/compare_objectives.py --shards SHARDS --held-out TEXT --blimp FOLDER --tagging-train FILE
        --tagging-test FILE --sentiment-train FILE --sentiment-test FILE --output FOLDER --minutes 20

Each row of FOLDER/results.jsonl is one variant and seed; what is there is not done again, and a run that was stopped
goes on, so that the table can be filled over several sittings, and by several of these commands at once. `--minutes`
sets the budget the first time: what the published objective would do in so many minutes of one core of this machine.
It is kept in FOLDER/budget.json; these two files are all that a later sitting needs.

Detection is scored on real held-out text, whose words the same generator replaces for all variants (that of the
published objective, seed 0, which is therefore trained first), and by each variant's own. Tagging and sentiment are
linear probes of the frozen encoder (`benchmarks/probes.py`). Words are corrected at masked positions of the same
text, shown as each variant was trained: [MASK], or the common generator's words. Every run has one thread; its
tokens/s are those of a second of processor time, which other work on the machine hardly changes.
"""

import argparse
import dataclasses
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from electrain.data.shards.shards import open_shards
from electrain.foundation.configuration import parse_overrides
from electrain.foundation.errors import ElectrainError
from electrain.inference.evaluate.blimp import evaluate_blimp
from electrain.inference.evaluate.detection import evaluate_detection
from electrain.models.generators import GeneratorConfig
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.plan import plan
from electrain.pretraining.run_folder import open_run_folder
from electrain.training.runtime import device_of
from probes import FrozenEncoder, probe, read_labelled, read_tagged
from sittings import claimed, read_lines

PUBLISHED = "published"
# Whether a row was written is one question for all of its tokens: at the usual weight it drowns all else.
ARTICLE = (
    "discriminator.loss_weight=1 generator.kind=causal corruption.source=generated corruption.missing_fraction=1.0 "
    "discriminator.correction_at=missing discriminator.heads=detection discriminator.heads=correction"
)
BOTH = "discriminator.heads=detection discriminator.heads=correction"
# What each variant changes in the common configuration; {half} is half of its steps.
VARIANTS = {
    PUBLISHED: "",
    "masked-language-modelling": "training.objective=masked-language-modelling",
    "causal": "generator.kind=causal",
    "article": ARTICLE,
    "unigram": "generator.kind=unigram",
    "clustered-unigram": "generator.kind=unigram generator.clusters=8",
    "two-stage": "generator.kind=frozen generator.size_fraction=1.0 generator.own_stage_steps={half}",
    "frozen-small": "generator.kind=frozen generator.own_stage_steps={half}",
    "correction": BOTH,
    "replace-mlm": "discriminator.heads=correction",
    "all-tokens": f"{BOTH} discriminator.correction_at=all",
    "electra-15-percent": "discriminator.detection_at=selected",
    "electric": "discriminator.heads=detection discriminator.heads=electric",
    "policy-gradient": "generator.training=policy-gradient",
    "pure-policy-gradient": "generator.training=policy-gradient game.likelihood_weight=0",
    "gumbel": "generator.training=gumbel",
    "mixture": "generator.training=mixture",
    "disentangled": "generator.embedding_sharing=gradient-disentangled",
    "separate": "generator.embedding_sharing=separate",
    "whole-word": "corruption.noise=whole-word",
    "span": "corruption.noise=span",
    "deletion": "corruption.noise=deletion",
    "shuffle": "corruption.noise=shuffle",
    "lstm": "encoder.backbone=lstm discriminator.heads=correction",
}
COLUMNS = {
    "detection_auc": "detection AUC, common generator",
    "own_detection_auc": "detection AUC, own generator",
    "correction_accuracy": "words corrected, %",
    "blimp_discriminator": "BLiMP, discriminator, %",
    "blimp_generator": "BLiMP, generator, %",
    "tagging_accuracy": "tagging probe, %",
    "sentiment_accuracy": "sentiment probe, %",
    "tokens_per_second": "tokens a second of one core",
    "peak_memory_mib": "peak memory of an uncompiled step, MiB",
}

_CHILD_PEAK_KIB = (
    "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode; "
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
)


def flags(variant: str, steps: int) -> list[str]:
    """The command-line overrides of a variant."""
    arguments = []
    for change in VARIANTS[variant].format(half=max(1, steps // 2)).split():
        name, value = change.split("=")
        arguments += [f"--{name.replace('_', '-')}", value]
    return arguments


def configuration(
    options: argparse.Namespace, variant: str, seed: int, steps: int, more: tuple[str, ...] = ()
) -> tuple[PretrainConfig, list[str]]:
    """The configuration of one run, and its command-line flags; `more` flags come last."""
    warmup = max(1, min(300, steps // 10))
    training = {"steps": steps, "warmup_steps": warmup, "seed": seed, "checkpoint_every_steps": max(1, steps // 4)}
    arguments = [
        word for name, value in training.items() for word in (f"--training.{name.replace('_', '-')}", str(value))
    ]
    own, common = [*flags(variant, steps), *more], options.common.split()
    for flag, value in zip(common[::2], common[1::2], strict=True):
        arguments += [] if flag in own else [flag, value]  # given twice, it would be a list
    arguments += own
    return load_configuration(options.config, parse_overrides(arguments)), arguments


def steps_for(options: argparse.Namespace, variant: str, budget_flops: float, vocabulary_size: int) -> int:
    """Steps that cost the budget, counted on the modules; a stage that leaves a network out costs so much less."""

    config, _ = configuration(options, variant, 0, 1000)
    cost = plan(config, vocabulary_size=vocabulary_size).flops.per_step
    if config.generator.own_stage_steps or config.corruption.source == "generated":
        # With no written rows to detect, some positions must be replaced; how many does not change the count.
        replaced = min(0.5, config.corruption.missing_fraction)
        corruption = dataclasses.replace(config.corruption, source="corpus", missing_fraction=replaced)
        alone = dataclasses.replace(config, generator=GeneratorConfig(kind="unigram"), corruption=corruption)
        judge = plan(alone, vocabulary_size=vocabulary_size).flops.per_step
        forward = (cost - judge) / 3  # the generator's forward pass; its backward pass costs twice as much
        if config.generator.own_stage_steps:  # half of the steps train it alone, half run it forward only
            cost = (3 * forward + judge + forward) / 2
        else:  # writing a row costs about one more forward pass over it
            cost += config.corruption.generated_fraction * forward
    return max(20, round(budget_flops / cost))


def budget(options: argparse.Namespace, vocabulary_size: int) -> float:
    """Counted operations for each run; measured and written down by the first sitting."""
    path = options.output / "budget.json"
    if path.is_file():
        kept = json.loads(path.read_text())
        for name in ("config", "common"):
            if kept[name] != getattr(options, name):
                raise SystemExit(f"{path}: was begun with --{name} {kept[name]!r}; give the same")
        return float(kept["flops"])
    config, arguments = configuration(options, PUBLISHED, 0, 60)
    run_pretraining(options, arguments, options.output / "runs" / "speed")
    rate = tokens_per_processor_second(options.output / "runs" / "speed")
    per_token = plan(config, vocabulary_size=vocabulary_size).flops.per_row / config.data.sequence_length
    flops = options.minutes * 60 * rate * per_token
    settings = {"flops": flops, "minutes": options.minutes, "tokens_per_second": rate, "config": options.config}
    path.write_text(json.dumps(settings | {"common": options.common}, indent=2) + "\n")
    return flops


def tokens_per_processor_second(run: Path) -> float:
    """Median over the lines of a run's journal, those of another sitting left out."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [(line["tokens"], line["processor_seconds"]) for line in lines if line["event"] == "log"]
    pairs = [(after[0] - before[0], after[1] - before[1]) for before, after in pairwise(logged)]
    return statistics.median(tokens / seconds for tokens, seconds in pairs if seconds > 0)


def run_pretraining(options: argparse.Namespace, arguments: list[str], output: Path) -> float:
    """Trains, or goes on training; returns the peak memory of the process in MiB.

    A small process starts it and asks: a child's peak begins with that of the process that forked it.
    """
    command = [sys.executable, "-c", _CHILD_PEAK_KIB, sys.executable, "-m", "electrain.cli.app", "pretrain"]
    command += ["--config", options.config, "--shards", str(options.shards), "--output", str(output), "--resume"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{output}: pretraining ended with {done.returncode}")
    return int(done.stdout) / 1024


def peak_memory(options: argparse.Namespace, variant: str) -> float:
    """Peak memory, in MiB, of a process that takes four steps, uncompiled: compiling itself needs up to 1.3 GiB."""
    _, arguments = configuration(options, variant, 0, 4, ("--training.compile", "false"))
    run = options.output / "runs" / f"{variant}-memory"
    shutil.rmtree(run, ignore_errors=True)
    return run_pretraining(options, arguments, run)


def measure(options: argparse.Namespace, run: Path) -> dict[str, float | None]:
    """The scores of a finished run."""
    scores: dict[str, float | None] = dict.fromkeys(COLUMNS)
    common = options.output / "runs" / f"{PUBLISHED}-0" / "generator"
    # Every run is shown the same rows: the published corruption, at the length that it was trained on.
    trained = open_run_folder(run).config
    assert trained is not None
    settings = dataclasses.replace(load_configuration("small"), data=trained.data)
    judged = evaluate_detection(run, [options.held_out], generator=common, settings=settings)
    if judged["correction"]:
        scores["correction_accuracy"] = 100 * judged["correction"]["accuracy"]
    if judged["discriminator"]:
        scores["detection_auc"] = judged["discriminator"]["auc"]
        if (run / "generator").is_dir():
            scores["own_detection_auc"] = evaluate_detection(run, [options.held_out])["discriminator"]["auc"]
    with torch.autocast(device_of().type, torch.bfloat16):
        blimp = evaluate_blimp(run, options.blimp, limit_pairs_per_set=options.pairs_per_set)["scorers"]
    of_judge = ("discriminator", "electric", "correction")
    of_generator = ("pseudo_log_likelihood", "generator")
    for column, names in (("blimp_discriminator", of_judge), ("blimp_generator", of_generator)):
        found = [blimp[name]["overall"]["accuracy"] for name in names if name in blimp]
        scores[column] = 100 * found[0] if found else None
    encoder = FrozenEncoder(str(run / "model"), load_configuration(str(run / "config.toml")).data.sequence_length)
    tagging = (read_tagged(options.tagging_train, 1000), read_tagged(options.tagging_test, 1000))
    sentiment = (read_labelled(options.sentiment_train, 2000), read_labelled(options.sentiment_test, 10_000))
    scores["tagging_accuracy"] = probe(encoder, *tagging, is_pooled=False)
    scores["sentiment_accuracy"] = probe(encoder, *sentiment, is_pooled=True)
    scores["tokens_per_second"] = tokens_per_processor_second(run)
    return scores


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that are there, in the order of `VARIANTS` and seeds."""
    return sorted(read_lines(path), key=lambda row: (list(VARIANTS).index(row["variant"]), row["seed"]))


def fill(options: argparse.Namespace) -> None:
    """Does every run that is missing, appending a row for each."""
    path = options.output / "results.jsonl"
    vocabulary_size = open_shards(options.shards, verify=False).vocabulary_size
    with claimed(options.output / "runs" / "budget.lock", waits=True):
        flops = budget(options, vocabulary_size)
    deadline = time.monotonic() + 60 * options.stop_after_minutes
    wanted = [PUBLISHED, *(variant for variant in options.variants if variant != PUBLISHED)]
    for seed in options.seeds:
        for variant in wanted:
            is_common = (variant, seed) == (PUBLISHED, 0)  # its generator is asked by all others
            run = options.output / "runs" / f"{variant}-{seed}"
            with claimed(run.with_suffix(".lock"), waits=is_common) as is_mine:
                is_done = any((row["variant"], row["seed"]) == (variant, seed) for row in read_rows(path))
                if not is_mine or (is_done and not (is_common and not (run / "generator").is_dir())):
                    continue
                if time.monotonic() > deadline:
                    return
                steps = steps_for(options, variant, flops, vocabulary_size)
                _, arguments = configuration(options, variant, seed, steps)
                run_pretraining(options, arguments, run)
                if is_done:  # in another sitting, which left its rows only
                    continue
                row = {"variant": variant, "seed": seed, "steps": steps, "flops": flops}
                row |= measure(options, run) | {"peak_memory_mib": peak_memory(options, variant)}
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread over seeds of every column, as Markdown."""
    lines = ["| variant | seeds | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        cells = [_cell([row[column] for row in own if row.get(column) is not None]) for column in COLUMNS]
        lines.append(f"| {variant} | {len(own)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    mean = statistics.fmean(values)
    digits = 3 if abs(mean) < 1 else 1 if abs(mean) < 100 else 0
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if max(values) > min(values) else ""
    return f"{mean:.{digits}f}{spread}"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel for each score, one point for each seed, the published objective's mean as a line."""
    from matplotlib.figure import Figure

    names = [name for name in COLUMNS if name not in ("tokens_per_second", "peak_memory_mib")]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(4 * math.ceil(len(names) / 2), 2 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots(2, math.ceil(len(names) / 2), squeeze=False, sharey=True)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for place, variant in enumerate(variants):
            values = [row[name] for row in rows if row["variant"] == variant and row.get(name) is not None]
            axis.plot(values, [place] * len(values), "o", color="#0072B2", markersize=4)
            if variant == PUBLISHED and values:
                axis.axvline(statistics.fmean(values), color="#222222", linestyle="--", linewidth=0.8)
        axis.set_title(COLUMNS[name], fontsize=9)
        axis.set_yticks(range(len(variants)), variants, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].invert_yaxis()
    figure.savefig(path)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--shards", type=Path, required=True)
    parser.add_argument("--held-out", required=True, help="text that is not in the shards")
    parser.add_argument("--blimp", required=True)
    for name in ("tagging-train", "tagging-test", "sentiment-train", "sentiment-test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--config", default="tiny")
    parser.add_argument("--common", default="", help="flags for every variant and their values, in one word")
    parser.add_argument("--minutes", type=float, default=20.0, help="of one core, for each run")
    parser.add_argument("--stop-after-minutes", type=float, default=math.inf, help="begin no run later")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--pairs-per-set", type=int, default=30)
    return parser.parse_args()


def main() -> None:
    """Fills what is missing, then writes the table and the plot."""
    options = parse()
    (options.output / "runs").mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    try:
        fill(options)
    except ElectrainError as error:
        raise SystemExit(f"compare_objectives: {error}") from None
    rows = read_rows(options.output / "results.jsonl")
    (options.output / "table.md").write_text(table(rows) + "\n")
    plot(rows, options.output / "table.svg")
    print(table(rows))


if __name__ == "__main__":
    main()

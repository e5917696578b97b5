"""Checks a machine never seen, in a given time: what it is, how fast each kind of step is, and whether all works on it.

    PYTHONPATH=src python benchmarks/machine_check.py [--minutes 8] [--output FILE] [--only NAME ...] [--skip NAME ...]

It needs torch, transformers, tokenizers, safetensors, numpy, scipy, scikit-learn, rich and jinja2 beside a checkout,
and never the network. It says first what else is missing, and what is left out for that. Every job runs in a process of
its own with a time limit, so that one that fails or hangs costs only itself. Each result is printed, and appended to
the output as a line of JSON, at once: what was measured before the check is killed stays. Measurements take turns:
while jobs share the machine to compile, only one measures. A table comes at the end.

`--quick` runs everything with networks of a toy's size, to try the check itself.
"""

import argparse
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from machine_jobs import Job, Record, Runner, serve
from machine_table import print_table

SECTIONS = ("facts", "small", "plain", "presets", "objectives", "resume", "verbs", "rows", "tests")
NEEDED = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "sklearn", "rich", "jinja2")
USES = {
    "cyclopts": "the tests that go through the command line",
    "hypothesis": "the tests",
    "pytest": "the tests",
    "sacrebleu": "fine-tuning for translation",
    "rouge_score": "fine-tuning for summarization",
    "matplotlib": "reports",
    "triton": "compiled steps on a GPU",
}
# For the table and the last lines, at the end of the given minutes.
CLOSING_SECONDS = 4.0
# What the first job makes, and the sections that go without it.
TEXT = "shards/manifest.json"
WITHOUT_TEXT = ("facts", "verbs", "tests")
# Jobs of `small` that run with nothing beside them, since compiling is what they time.
ALONE = 3
STEPS = "machine_steps:measure_training"
COMPILED: dict[str, Any] = {"compile": True}
# The objectives of tests/golden in the order of interest, when time runs out.
FIRST_OBJECTIVES = ("article", "masked_language_modelling", "causal", "gumbel", "mixture", "electric", "two_stage")
# What the published objective of `small` itself is.
SAME_AS_SMALL = ("replaced_token_detection_electra",)


@dataclass(frozen=True)
class Stage:
    """Jobs that run between two moments."""

    jobs: list[Job]
    weight: float = 0.0  # of this stage's share in the time that is left when it begins; 0 takes what its jobs may take
    together: int = 1  # jobs at once


def stages_of(device: str, together: int) -> list[Stage]:
    """All jobs, the most important first; within a stage too."""
    is_gpu = device != "cpu"
    return [
        Stage([Job("facts", "text", "machine_facts:make_text", seconds=150.0)]),
        Stage([Job("facts", "machine", "machine_facts:note_facts", seconds=60.0)]),
        Stage(small_jobs(is_gpu=is_gpu)[:ALONE], 3),
        Stage(small_jobs(is_gpu=is_gpu)[ALONE:], 4, min(3, together)),
        Stage([*plain_jobs(), *preset_jobs(is_gpu=is_gpu), *objective_jobs()], 6, together),
        Stage([*resume_jobs(), *road_jobs(), *test_jobs()], 5, max(2, together)),
    ]


def steps_job(section: str, name: str, preset: str, training: dict[str, Any], **more: Any) -> Job:
    """A job that measures training steps."""
    arguments = {"preset": preset, "tables": {**more.pop("tables", {})}, **more.pop("arguments", {})}
    arguments["tables"]["training"] = {**arguments["tables"].get("training", {}), **training}
    return Job(section, name, STEPS, arguments, **more)


def small_jobs(*, is_gpu: bool) -> list[Job]:
    """The preset `small` in every way; the first ones, whose first step is timed, with nothing beside them."""
    full = {"speed": {"with_optimizer": True}}
    kept = {"speed": {"with_optimizer": True, "keeps_trace": True}}
    short = {"speed": {"turns": 3, "turn_seconds": 1.0}}
    loose, muon, eager = {"deterministic": False}, {"optimizer": "muon"}, {"compile": False}
    jobs = [
        steps_job(
            "small",
            "compiled, adamw, cold",
            "small",
            COMPILED,
            arguments=kept,
            cache="small",
            seconds=200.0,
            compiles_in_a_trial=True,
        ),
        steps_job("small", "compiled, adamw, warm", "small", COMPILED, arguments=short, cache="small"),
        Job("small", "the verb pretrain", "machine_road:run_verb", {"preset": "small", "steps": 800}, cache="small"),
        steps_job(
            "small", "compiled, no graphs", "small", COMPILED, arguments={"records": False, **short}, cache="small"
        ),
        steps_job(
            "small",
            "compiled, rows of the CPU",
            "small",
            COMPILED,
            arguments=short,
            cache="small",
            tables={"data": {"rows_on_device": "no"}},
        ),
        steps_job("small", "uncompiled, adamw", "small", eager, arguments=short),
        steps_job("small", "uncompiled, graphs", "small", eager, arguments={"records": True, **short}),
        steps_job("small", "compiled, muon", "small", COMPILED | muon, arguments=full, cache="small"),
        steps_job(
            "small", "compiled, adamw, not deterministic", "small", COMPILED | loose, arguments=short, cache="small"
        ),
        steps_job("small", "uncompiled, muon", "small", eager | muon, arguments=short),
    ]
    return jobs if is_gpu else [replace(job, seconds=200.0) for job in jobs]


def preset_jobs(*, is_gpu: bool) -> list[Job]:
    """The other presets."""
    short = {"speed": {"turns": 3, "turn_seconds": 1.5, "profiled_steps": 2}}
    kept = {"speed": {**short["speed"], "keeps_trace": True}}
    base = {32: {"micro_batch_rows": 32}, 64: {"micro_batch_rows": 64}} if is_gpu else {4: {"micro_batch_rows": 4}}
    jobs = [
        steps_job("presets", f"base, {rows} rows of 512", "base", COMPILED | each, arguments=kept, seconds=150.0)
        for rows, each in base.items()
    ]
    return jobs + [steps_job("presets", name, name, COMPILED, arguments=short) for name in ("demo", "tiny")]


def objective_jobs() -> list[Job]:
    """Each objective of the golden losses with the sizes of `small`."""
    tests = Path(__file__).parents[1] / "tests"
    source = (tests / "golden/regenerate.py").read_text("utf-8") if (tests / "golden/regenerate.py").is_file() else ""
    objectives = tables_in(source)
    short = {"speed": {"turns": 3, "turn_seconds": 0.8, "profiled_steps": 2}}
    order = [name for name in FIRST_OBJECTIVES if name in objectives]
    order += [name for name in objectives if name not in (*order, *SAME_AS_SMALL)]
    jobs = []
    for name in order:
        tables = {section: dict(table) for section, table in objectives[name].items()}
        if tables.get("encoder", {}).get("backbone", "electra") != "electra":
            tables["encoder"]["embedding_size"] = 0
        if tables.get("generator", {}).get("own_stage_steps"):
            tables["generator"]["own_stage_steps"] = 1  # the second stage is the one to measure
        tables.get("training", {}).pop("batch_rows", None)
        jobs.append(steps_job("objectives", name, "small", COMPILED, tables=tables, arguments=short, seconds=120.0))
    return jobs


def tables_in(source: str) -> dict[str, dict[str, dict[str, Any]]]:
    """`OBJECTIVES` of tests/golden/regenerate.py, whose imports would load PyTorch into this process."""
    names: dict[str, Any] = {}
    start, end = source.find("PUBLISHED_QUIRKS ="), source.find("\n}\n", source.find("OBJECTIVES:"))
    if start < 0 or end < 0:
        return {}
    exec(source[start : end + 3], {"Any": Any}, names)  # our own file
    return names.get("OBJECTIVES", {})


def plain_jobs() -> list[Job]:
    """Hugging Face's classes without electrain."""
    kinds = {"eager, float32": False, "compiled, bfloat16": True}
    return [
        Job("plain", f"Hugging Face, {loop}, {kind}", "machine_plain:measure_plain",
            {"preset": "small", "loop": loop, "is_fast": is_fast, "tables": {}})
        for loop in ("joint", "masked words")
        for kind, is_fast in kinds.items()
    ]  # fmt: skip


def resume_jobs() -> list[Job]:
    """A killed and resumed run."""
    variants = {
        "uncompiled": {"compile": False},
        "compiled": {"compile": True},
        "muon": {**COMPILED, "optimizer": "muon"},
    }
    return [
        Job("resume", name, "machine_road:check_resume", {"preset": "small", "tables": {"training": training}}, 180.0,
            cache="small")
        for name, training in variants.items()
    ]  # fmt: skip


def road_jobs() -> list[Job]:
    """Every verb once, and the speed of rows."""
    return [
        Job("rows", "row source", "machine_facts:measure_rows", seconds=60.0),
        Job("verbs", "all verbs", "machine_road:walk_road", seconds=240.0),
    ]


def test_jobs() -> list[Job]:
    """The repository's tests of devices."""
    return [Job("tests", "tests/devices", "machine_tests:run_tests", seconds=300.0)]


def chosen(stages: Sequence[Stage], only: Sequence[str], skip: Sequence[str]) -> list[Stage]:
    """The stages with the jobs of the sections asked for; the text is made for all."""
    wanted = [name for name in SECTIONS if (not only or name in only or name == "facts") and name not in skip]
    left = [replace(stage, jobs=[job for job in stage.jobs if job.section in wanted]) for stage in stages]
    return [stage for stage in left if stage.jobs]


def run_stages(runner: Runner, stages: Sequence[Stage], deadline: float) -> None:
    """Runs the stages; what one leaves of its time goes to the later ones."""
    for number, stage in enumerate(stages):
        now, jobs = time.time(), stage.jobs
        share = runner.patience * sum(job.seconds for job in jobs)
        if stage.weight:
            share = (deadline - now) * stage.weight / sum(one.weight for one in stages[number:])
        if number and not (runner.work / TEXT).is_file():  # the first stage failed, and said why
            for job in (job for job in jobs if job.section not in WITHOUT_TEXT):
                runner.record.add(job.section, job.name, left_out="there is no text to train on")
            jobs = [job for job in jobs if job.section in WITHOUT_TEXT]
        runner.run(jobs, min(deadline, now + share), stage.together)


def device_here(asked: str) -> str:
    """cpu or cuda, without touching a GPU: a process that has touched one takes some of its memory."""
    if asked != "auto":
        return asked
    return "cuda" if shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists() else "cpu"


def arguments_of() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="the check ends after so many, whatever is left")
    parser.add_argument("--output", type=Path, default=Path("machine_check.jsonl"), help="lines are appended")
    parser.add_argument("--only", nargs="+", default=[], choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--skip", nargs="+", default=[], choices=SECTIONS, metavar="SECTION")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--together", type=int, help="jobs that may compile at once; by default a third of the cores, at most 6"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes, to try the check")
    parser.add_argument("--patience", type=float, default=1.0, help="factor of each job's limit, for a busy machine")
    parser.add_argument("--work", type=Path, help="folder for its files, which stays; by default a temporary one")
    return parser.parse_args()


def main() -> None:
    """Runs the check."""
    began = time.time()
    arguments = arguments_of()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    record = Record(arguments.output.resolve(), time.strftime("%Y-%m-%dT%H:%M:%S") + f" {os.getpid()}", began)
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        raise SystemExit(f"machine_check: {', '.join(absent)} must be installed first")
    missing = {name: use for name, use in USES.items() if importlib.util.find_spec(name) is None}
    said = "; ".join(f"{name}: without {use}" for name, use in missing.items())
    record.say(f"not installed here, and left out: {said}" if missing else "everything that it uses is installed")
    device = device_here(arguments.device)
    together = arguments.together or max(1, min(6, (os.cpu_count() or 1) // 3))
    record.add("check", "begin", missing=missing, device=device, together=together, minutes=arguments.minutes,
               quick=arguments.quick, commit=commit())  # fmt: skip
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    with contextlib.ExitStack() as stack:
        folder = arguments.work or stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        work = Path(folder).resolve()
        work.mkdir(parents=True, exist_ok=True)
        runner = Runner(record, work, arguments.quick, arguments.device == "cpu", arguments.patience)
        stages = chosen(stages_of(device, together), arguments.only, arguments.skip)
        try:
            run_stages(runner, stages, began + 60 * arguments.minutes - CLOSING_SECONDS)
        except KeyboardInterrupt:
            record.say("stopped")
        record.add("check", "end", seconds=round(time.time() - began, 1))
        print_table(record.lines())
    print(f"{time.time() - began:.0f} s; every figure: {arguments.output}", flush=True)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def commit() -> str:
    """The checkout's commit, where there is one."""
    head = Path(__file__).parents[1] / ".git"
    try:
        text = head.read_text().partition(":")[2].strip() if head.is_file() else str(head)
        reference = (Path(text) / "HEAD").read_text().strip()
        return reference
    except OSError:
        return "unknown"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        serve(sys.argv[2])
    main()

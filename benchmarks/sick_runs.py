"""Trains small pretraining runs that are sick on purpose, and draws each beside a healthy one, for docs/curves.md.

    python benchmarks/sick_runs.py --output DIR [--only NAME ...] [--images docs/images]

Every run is a small ModernBERT on made sentences, with one thing done wrong. Runs that are in DIR already are
only drawn again. Prints one JSON line for each: what the verbs said, and the last figures.
"""

import argparse
import json
import math
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot

from electrain.cli.app import main as electrain
from electrain.data.shards.shards import open_shards
from electrain.foundation.report_curves import BLACK, BLUE, GREEN, VERMILION, smoothed
from electrain.pretraining.health import entropy_of
from published_objective import PUBLISHED

COMMAND = [sys.executable, "-m", "electrain.cli.app"]
HEALTHY = PUBLISHED | {
    "encoder.layers": "2",
    "encoder.hidden-size": "64",
    "encoder.feed-forward-size": "128",
    "generator.layers": "2",
    "corruption.masked-fraction": "0.3",
    "training.steps": "800",
    "training.batch-rows": "16",
    "training.warmup-steps": "60",
    "training.log-every-steps": "5",
    "training.checkpoint-every-steps": "100000",
}
DOCUMENTS = 12_000
FEW_DOCUMENTS = 30
# Nouns, verbs and adjectives of each topic.
TOPICS = {
    "farm": (
        "cow horse pig goat hen barn tractor farmer field dog",
        "feed chase own follow graze",
        "muddy fat brown old hungry",
    ),
    "sea": (
        "ship sailor wave whale harbour captain net storm anchor gull",
        "sink cross spot lift haul",
        "deep salty blue wild grey",
    ),
    "kitchen": (
        "cook pan knife soup onion oven plate recipe spoon guest",
        "stir burn taste serve chop",
        "hot sweet sharp burnt fresh",
    ),
    "court": (
        "judge lawyer witness crime law trial clerk letter prison thief",
        "accuse defend sentence question free",
        "guilty stern legal false honest",
    ),
    "music": (
        "singer violin drum song concert piano note band stage tune",
        "play tune conduct record praise",
        "loud soft brass slow famous",
    ),
    "school": (
        "teacher pupil book lesson desk exam class pencil essay rule",
        "mark learn explain forget copy",
        "clever lazy strict difficult short",
    ),
    "road": (
        "car driver wheel bridge bus lorry engine street signal taxi",
        "overtake stop repair pass steer",
        "fast rusty narrow broken red",
    ),
    "garden": (
        "rose tree gardener bee fence weed pond seed spade path",
        "water plant dig cut trim",
        "green shady thorny tall dry",
    ),
}
GREY = "#999999"
COMPARED = ("healthy", "memorised")  # on text that they have not read


@dataclass(frozen=True)
class Sickness:
    """One run: what its picture is called, which text it reads, and the fields that differ from the healthy run."""

    title: str
    text: str = "sentences"
    vocabulary: str = "sentences"
    fields: tuple[tuple[str, str], ...] = ()
    is_faulty: bool = False


RUNS = {
    "healthy": Sickness("A healthy run"),
    "rate": Sickness(
        "The learning rate is too high",
        fields=(("training.optimizer", "adamw"), ("training.peak-learning-rate", "0.1")),
    ),
    "not-finite": Sickness("The losses stop being finite", is_faulty=True),
    "strong": Sickness("The text is too easy for the generator", text="log"),
    "pure-game": Sickness(
        "The generator learns to mislead instead of to write",
        fields=(
            ("generator.training", "policy-gradient"),
            ("generator.embedding-sharing", "separate"),
            ("game.likelihood-weight", "0"),
        ),
    ),
    "chance": Sickness(
        "The discriminator stays at chance",
        fields=(
            ("training.optimizer", "adamw"),
            ("training.peak-learning-rate", "0.1"),
            ("training.generator-peak-learning-rate", "0.003"),
            ("generator.embedding-sharing", "separate"),
            ("training.steps", "1200"),
        ),
    ),
    "memorised": Sickness("The text is too short", text="few", fields=(("training.steps", "1200"),)),
    "hot": Sickness("The sampling temperature is too high", fields=(("generator.temperature", "5"),)),
    "cold": Sickness("The sampling temperature is too low", fields=(("generator.temperature", "0.01"),)),
    "vocabulary": Sickness("The vocabulary is that of other texts", vocabulary="genome"),
}


def sentence(draw: random.Random, topic: str) -> str:
    """A sentence about a topic, in which the verb agrees with its subject."""
    nouns, verbs, adjectives = (words.split() for words in TOPICS[topic])
    subject, verb, adjective, thing, other = map(draw.choice, (nouns, verbs, adjectives, nouns, adjectives))
    if draw.random() < 0.5:
        return f"the {adjective} {subject} {verb}s {draw.choice(['the', 'a', 'every'])} {other} {thing} ."
    return (
        f"{draw.choice(['the', 'some', 'all'])} {adjective} {subject}s {verb} {draw.choice(['two', 'many'])} {thing}s ."
    )


def documents_of(draw: random.Random, number: int) -> list[str]:
    """Documents of twelve sentences about one topic each."""
    return [" ".join(sentence(draw, topic) for _ in range(12)) for topic in draw.choices(list(TOPICS), k=number)]


def write_texts(output: Path) -> dict[str, str]:
    """Writes the corpora, the same everywhere, and returns their paths by name."""
    draw = random.Random(0)
    sentences = documents_of(draw, DOCUMENTS)
    made = {
        "sentences": sentences,
        "few": sentences[:FEW_DOCUMENTS],
        "log": [
            " ".join(
                f"request {draw.randint(0, 9)} from the client was answered by the server with status "
                f"{draw.choice(['200', '404'])} and the connection was closed without any error ."
                for _ in range(20)
            )
            for _ in range(3000)
        ],
        "genome": [" ".join("".join(draw.choices("acgt", k=8)) for _ in range(60)) for _ in range(3000)],
        "held-out": documents_of(random.Random(1), 300),
    }
    for name, texts in made.items():
        (output / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return {name: str(output / f"{name}.jsonl") for name in made}


def make_faulty() -> None:
    """Losses become NaN for three steps, and later for good, as from a broken memory or a division by zero."""
    from electrain.pretraining.objectives.replaced_token_detection import ReplacedTokenDetection

    begin, forward = ReplacedTokenDetection.begin_step, ReplacedTokenDetection.forward

    def begin_step(self: Any, step: int) -> None:
        self.is_faulty = 300 <= step < 303 or step >= 600
        begin(self, step)

    def faulty_forward(self: Any, rows: Any) -> Any:
        outcome = forward(self, rows)
        if not self.is_faulty:
            return outcome
        terms = {name: term._replace(total=term.total * math.nan) for name, term in outcome.terms.items()}
        return outcome._replace(terms=terms)

    ReplacedTokenDetection.begin_step = begin_step  # type: ignore[method-assign]
    ReplacedTokenDetection.forward = faulty_forward  # type: ignore[method-assign]


def run_verb(*arguments: str, command: list[str] = COMMAND) -> list[str]:
    """The lines of standard error without those of progress; the verb may fail, which is part of the picture."""
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True)
    lines = re.split(r"[\r\n]+", ended.stderr)
    said = [line.strip() for line in lines if line.strip() and not re.match(r"(training|prepare|tokenizer): ", line)]
    return [*said, *([f"exit code {ended.returncode}"] if ended.returncode else [])]


def shards_of(output: Path, corpora: dict[str, str], one: Sickness) -> tuple[Path, list[str]]:
    """The folder of shards, made where it is missing, and what `prepare` said."""
    tokenizer, shards = output / f"tokenizer-{one.vocabulary}", output / f"shards-{one.text}-{one.vocabulary}"
    if not tokenizer.is_dir():
        run_verb("tokenizer", corpora[one.vocabulary], "--output", str(tokenizer), "--vocab-size", "1000")
    said: list[str] = []
    if not shards.is_dir():
        prepare = ["prepare", corpora[one.text], "--tokenizer", str(tokenizer), "--output", str(shards)]
        said = run_verb(*prepare)
        if said and said[-1].startswith("exit code"):
            said += run_verb(*prepare, "--allow-unknown")
    return shards, said


def train(output: Path, name: str, shards: Path) -> list[str]:
    """What `pretrain` said; nothing where the run is there."""
    run = output / name
    if (run / "metrics.jsonl").is_file():
        return []
    fields = HEALTHY | dict(RUNS[name].fields)
    options = [word for field, value in fields.items() for word in (f"--{field}", value)]
    command = [sys.executable, __file__, "--faulty"] if RUNS[name].is_faulty else COMMAND
    return run_verb(
        "pretrain", "--config", "demo", "--shards", str(shards), "--output", str(run), *options, command=command
    )


def held_out_score(output: Path, name: str, text: str) -> dict[str, float]:
    """The AUC of detection on text that the run has not read, and that of word frequency alone."""
    arguments = ["evaluate", "detection", "--model", str(output / name), "--data", text]
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True)
    scores = json.loads(ended.stdout)
    return {"auc": scores["discriminator"]["auc"], "unigram_auc": scores["baselines"]["unigram_auc"]}


def journal(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def series(lines: list[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) steps and (n,) smoothed values."""
    pairs = [(one["step"], one[name]) for one in lines if isinstance(one.get(name), int | float)]
    pairs = [pair for pair in pairs if math.isfinite(pair[1])]
    return np.array([step for step, _ in pairs]), smoothed(np.array([value for _, value in pairs], dtype=float))


def draw(name: str, output: Path, frequency: float, images: Path) -> None:
    """A picture with three figures: the generator's loss, detection, and what is replaced or the gradient."""
    lines = [one for one in journal(output / name) if one["event"] == "log"]
    healthy = [one for one in journal(output / "healthy") if one["event"] == "log"]
    figure, axes = pyplot.subplots(1, 3, figsize=(9.6, 2.7), layout="constrained")
    plans = (
        ("generator loss, nats", (("generator_loss", BLUE, "-", "generator"),)),
        (
            "detection, AUC",
            (("discriminator_auc", VERMILION, "-", "discriminator"), ("unigram_auc", BLACK, "--", "word frequency")),
        ),
        (
            "fractions",
            (("generator_accuracy", BLUE, "-", "words restored"), ("replaced_fraction", GREEN, "-", "tokens replaced")),
        ),
    )
    for axis, (title, curves) in zip(axes, plans, strict=True):
        for key, colour, dashes, label in curves:
            if name != "healthy":
                axis.plot(*series(healthy, key), dashes, color=GREY, linewidth=1, alpha=0.7)
            axis.plot(*series(lines, key), dashes, color=colour, linewidth=1.6, label=label)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, max(one["step"] for one in lines))
    axes[0].axhline(frequency, color=BLACK, linewidth=1, linestyle=":", label="word frequency alone")
    for number, one in enumerate(one for one in journal(output / name) if one["event"] == "warning"):
        axes[0].axvline(one["step"], color=VERMILION, linewidth=1, alpha=0.5, label=None if number else "a warning")
    axes[1].set_ylim(0.4, 1.02)
    axes[2].set_ylim(-0.02, 1.02)
    for axis in axes:
        axis.legend(fontsize=7, frameon=True, framealpha=0.8, edgecolor="none")
    figure.suptitle(
        RUNS[name].title + ("" if name == "healthy" else "  (grey: the healthy run)"), fontsize=10, x=0.01, ha="left"
    )
    images.mkdir(parents=True, exist_ok=True)
    figure.savefig(images / f"run-{name}.png", dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    if sys.argv[1:2] == ["--faulty"]:
        make_faulty()
        electrain(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    corpora = write_texts(options.output)
    for name in dict.fromkeys(["healthy", *options.only]):
        shards, said = shards_of(options.output, corpora, RUNS[name])
        said += train(options.output, name, shards)
        frequency = entropy_of(open_shards(shards, verify=False).unigram_counts)
        lines = journal(options.output / name)
        warnings = [(one["step"], one["message"]) for one in lines if one["event"] == "warning"]
        last = [one for one in lines if one["event"] == "log"][-1]
        held_out = held_out_score(options.output, name, corpora["held-out"]) if name in COMPARED else {}
        print(
            json.dumps(
                {
                    "run": name,
                    "frequency": frequency,
                    "held_out": held_out,
                    "said": said,
                    "warnings": warnings,
                    "last": last,
                }
            ),
            flush=True,
        )
        if options.images is not None:
            draw(name, options.output, frequency, options.images)


if __name__ == "__main__":
    main()

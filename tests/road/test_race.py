"""The race: equal operations, lines that stay, sittings that go on, and ranks by hand."""

import dataclasses
import gzip
import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from electrain.pretraining import run as pretraining_run
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.run import pretrain
from tiny_pretraining import batches_of, invented_text, objective_of, write_invented_shards

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import race_measures  # noqa: E402
import race_training  # noqa: E402
from race import main  # noqa: E402
from race_arms import ARMS, Arm, Stage, stage_configuration, steps_for, whole  # noqa: E402
from race_measures import best_of_halves  # noqa: E402
from race_table import mean_ranks, operations_needed, ranks, values_of, write_table  # noqa: E402
from sittings import append_line, read_lines  # noqa: E402

TINY = (
    "encoder.layers=2 encoder.hidden_size=16 encoder.feed_forward_size=32 encoder.heads=2 data.sequence_length=24 "
    "training.batch_rows=8 training.compile=false training.precision=float32 training.log_every_steps=5"
)
BUDGET = 4e8
VOCABULARY = 106


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    write_invented_shards(folder)
    return folder / "shards"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rows of each set."""
    folder = tmp_path_factory.mktemp("data")
    texts = [text.removesuffix(" .") for text in invented_text(60, seed=1)]
    texts = [" ".join(text.split()[:8]) for text in texts]
    for name in ("blimp", "brown_pos", "sst2", "stsb", "multi30k_en_de"):
        (folder / name).mkdir()
    pairs = [
        {"sentence_good": text, "sentence_bad": " ".join(reversed(text.split())), "UID": "order",
         "linguistics_term": "order", "field": "syntax"} for text in texts
    ]  # fmt: skip
    (folder / "blimp" / "blimp.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    for split in ("train", "validation", "test"):
        tagged = ["".join(f"{word}\t{word[0].upper()}\n" for word in text.split()) + "\n" for text in texts]
        with gzip.open(folder / "brown_pos" / f"{split}.conll.gz", "wt") as file:
            file.writelines(tagged)
        rows = [f"{text}\t{number % 2}" for number, text in enumerate(texts)]
        (folder / "sst2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        rows = [f"{text}\t{other}\t{number % 6}" for number, (text, other) in enumerate(itertools.pairwise(texts))]
        (folder / "stsb" / f"{split}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n")
        with gzip.open(folder / "multi30k_en_de" / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"en": text, "de": text}) + "\n" for text in texts)
    return folder


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Trains here, where a process of its own would take seconds; the runs that were started."""
    started = []

    def start(race: Any, run: Path, log: Path, deadline: float) -> int:
        del log, deadline
        started.append(run)
        config = race_training.load_configuration(str(run.with_suffix(".toml")))
        return pretrain(config, race.shards, run, resume=True).exit_code

    monkeypatch.setattr(race_training, "start", start)
    return started


def race(shards: Path, data: Path, output: Path, *more: str) -> list[dict[str, Any]]:
    given = ["--shards", shards, "--data", data, "--output", output, "--budget", BUDGET, "--common", TINY]
    main([str(word) for word in [*given, "--seeds", 0, *more]])
    return read_lines(output / "lines.jsonl")


@pytest.mark.parametrize(("preset", "budget"), [("demo", 1.4e13), ("tiny", 1e14)])
def test_the_presets_are_what_the_race_chose(preset, budget):
    """Of the race's arm; how long a run is, and whether so short a one is worth compiling, is the preset's own."""
    ours, chosen = (
        load_configuration(preset),
        stage_configuration(ARMS["mixed-weight-1-counted-sampled"], 0, budget, seed=0),
    )
    length = ("steps", "warmup_steps", "checkpoint_every_steps", "compile")
    own = {name: getattr(ours.training, name) for name in length}
    assert dataclasses.replace(chosen, training=dataclasses.replace(chosen.training, **own)) == ours


def test_every_arm_is_a_configuration() -> None:
    """At every size, and each stage."""
    for budget in [1.4e13, 5e14, 3e15, 1e17]:
        for arm in ARMS.values():
            for number in range(len(arm.stages)):
                config = stage_configuration(arm, number, budget, 3, before="runs/before/model")
                assert config.training.seed == 3 + 1000 * number
                assert config.start.discriminator == ("runs/before/model" if number else "")
    half = stage_configuration(ARMS["mlm-half-rate"], 0, 1.4e13, 0)
    assert half.training.peak_learning_rate == pytest.approx(1.5e-3)
    assert stage_configuration(ARMS["published"], 0, 1.4e13, 0).discriminator.loss_weight == 10
    assert stage_configuration(ARMS["published-weight-50"], 0, 1.4e13, 0).discriminator.loss_weight == 50


def operations_of(config: PretrainConfig, shards: Path) -> float:
    """What a real forward and backward pass of a whole batch dispatches."""
    torch.manual_seed(0)
    objective, (batch,) = objective_of(config, shards), batches_of(config, shards)(0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        outcome = objective(objective.prepare(batch.rows, torch.device("cpu")))
        sum(term.total * term.weight for term in outcome.terms.values()).backward()
    return float(counter.get_total_flops())


EQUAL = ("mlm", "published", "mixed", "one-network-80-selected", "electric", "words-25-then-causal")


@pytest.mark.parametrize("name", EQUAL)
def test_an_arm_costs_its_budget_whatever_its_stages(name: str, shards: Path) -> None:
    """Counted on a real step of each stage; within half a step of each."""
    total, slack, budget = 0.0, 0.0, 4e9
    for number in range(len(ARMS[name].stages)):
        steps, cost = steps_for(ARMS[name], number, budget, VOCABULARY, TINY)
        config = stage_configuration(ARMS[name], number, budget, 0, TINY, steps=steps)
        counted = operations_of(config, shards)
        assert counted == pytest.approx(cost, rel=5e-3)
        total, slack = total + steps * counted, slack + cost
    assert total == pytest.approx(budget, abs=slack / 2 + 5e-3 * budget)


def test_a_generator_with_a_stage_of_its_own_costs_what_it_runs() -> None:
    """By hand: half of the steps train it alone (three passes), the others run it forward beside the judge."""
    alone = steps_for(ARMS["unigram"], 0, 1e10, VOCABULARY, TINY)[1]
    both = steps_for(ARMS["published"], 0, 1e10, VOCABULARY, TINY)[1]
    forward = (both - alone) / 3
    # Embeddings of its own instead of a projection of shared ones: a little cheaper.
    cost = steps_for(ARMS["frozen-small"], 0, 1e10, VOCABULARY, TINY)[1]
    assert cost == pytest.approx((3 * forward + alone + forward) / 2, rel=0.03)


def test_lines_come_once_and_say_what_was_done(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path]
) -> None:
    """Trained with stages, measured frozen and zero-shot; a second sitting does only what is new."""
    arms = ("--arms", "words-25-then-causal", "mlm", "--measures", "frozen", "zero-shot")
    lines = race(shards, data, tmp_path / "race", *arms)
    assert [(line["arm"], line["kind"]) for line in lines] == [
        (arm, kind) for arm in ("words-25-then-causal", "mlm") for kind in ("trained", "frozen", "zero-shot")
    ]
    trained = lines[0]
    assert len(trained["stages"]) == 2
    assert trained["steps"] == sum(stage["steps"] for stage in trained["stages"])
    assert trained["operations"] == pytest.approx(BUDGET, rel=0.1)
    assert trained["tokens"] == trained["steps"] * 8 * 24
    assert trained["processor_seconds"] > 0
    assert "float32" in trained["machine"]
    second = tmp_path / "race" / "runs" / "4e+08-words-25-then-causal-0" / "1"
    assert 'discriminator = "' in (second / "config.toml").read_text()
    assert not (second / "checkpoints").exists()
    scores = lines[1]["scores"]
    assert len(scores["tagging_by_layer"]) == len(scores["similarity_by_layer"]) == 3
    assert scores["tagging_best_layer"] == scores["tagging_by_layer"][scores["tagging_layer"]]
    assert scores["similarity"] == scores["similarity_by_layer"][scores["similarity_layer"]]
    assert {"tagging_validation", "similarity_validation"} < set(scores)
    assert set(lines[2]["scores"]["by_scorer"]) >= {"discriminator", "generator"}
    assert len(in_this_process) == 3
    again = race(shards, data, tmp_path / "race", *arms, "--table")
    assert again == lines
    assert len(in_this_process) == 3
    assert "words-25-then-causal" in (tmp_path / "race" / "table.md").read_text()
    assert (tmp_path / "race" / "table.png").stat().st_size > 1000


def test_few_labels_and_writing(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of three rates on validation examples, and BLEU."""
    few = (("brown_pos", 40, 1.0, 20), ("sst2", 40, 1.0, 20), ("stsb", 0, 1.0, 20))
    monkeypatch.setitem(race_measures.FEW, "english", few)
    monkeypatch.setattr(race_measures, "WRITING_EPOCHS", 1.0)
    monkeypatch.setattr(race_measures, "WRITING_VALIDATION_PAIRS", 4)
    monkeypatch.setattr(race_measures, "FEW_PAIRS", 40)
    lines = race(shards, data, tmp_path / "race", "--arms", "mlm", "--measures", "few-label", "writing")
    assert [line["kind"] for line in lines] == ["trained", "few-label", "writing"]
    scores = lines[1]["scores"]
    for name in ("brown_pos", "sst2", "stsb"):
        assert len(scores[f"{name}_rates"]) == 3
        assert scores[f"{name}_validation"] == max(scores[f"{name}_rates"].values())
        assert scores[f"{name}_rates"][f"{scores[f'{name}_rate']:g}"] == scores[f"{name}_validation"]
    assert 0 <= lines[2]["scores"]["bleu"] <= 100
    assert lines[2]["scores"]["training_pairs"] == 40
    assert not list((tmp_path / "race" / "runs").glob("*/sst2-*")), "fine-tuned models are not kept"


def test_a_training_that_was_stopped_goes_on_exactly(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by a signal at step 10: the same weights in the end as without."""
    entry, uncut = race_training.Entry(BUDGET, "mlm", 0), race_training.Race(shards, data, tmp_path / "uncut", TINY)
    race_training.train(uncut, entry, math.inf)
    log = pretraining_run._log

    def stopping_log(parts: Any, rate: float, result: Any) -> None:
        log(parts, rate, result)
        if parts.sitting.run.state.step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    cut = dataclasses.replace(uncut, output=tmp_path / "cut")
    monkeypatch.setattr(pretraining_run, "_log", stopping_log)
    with pytest.raises(race_training.StoppedError):
        race_training.train(cut, entry, math.inf)
    monkeypatch.setattr(pretraining_run, "_log", log)
    assert not race_training.is_finished(entry.run(cut))
    line = race_training.train(cut, entry, math.inf)
    assert line["tokens"] == line["steps"] * 8 * 24
    assert len(in_this_process) == 3
    weights = [(entry.run(one) / "model" / "model.safetensors").read_bytes() for one in (uncut, cut)]
    assert weights[0] == weights[1]


def test_at_the_deadline_the_process_that_trains_stops_with_a_checkpoint(
    shards: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another sitting finishes what it began."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    entry, here = race_training.Entry(BUDGET, "mlm", 0), race_training.Race(shards, data, tmp_path, TINY)
    with pytest.raises(race_training.StoppedError):
        race_training.train(here, entry, 0.0)
    assert not race_training.is_finished(entry.run(here))
    assert race_training.train(here, entry, math.inf)["operations"] == pytest.approx(BUDGET, rel=0.05)
    assert "finished" in (entry.folder(here) / "0.log").read_text()


def test_what_fails_is_a_line_with_its_reason(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: it is not tried again, and nothing of it is measured; the next arm is."""
    del in_this_process
    wrong = whole("generator.kind=unigram discriminator.heads=correction discriminator.correction_at=missing")
    monkeypatch.setitem(ARMS, "correction", wrong)
    monkeypatch.setattr(race_measures, "PAIRS_PER_SET", 0)
    lines = race(shards, data, tmp_path / "race", "--arms", "correction", "mlm", "--measures", "zero-shot", "--table")
    assert [(line["arm"], line["kind"]) for line in lines] == [
        ("correction", "trained"),
        ("mlm", "trained"),
        ("mlm", "zero-shot"),
    ]
    assert "nothing is missing" in lines[0]["failed"]
    assert "minimal pairs" in lines[2]["failed"]
    assert "nothing is missing" in (tmp_path / "race" / "table.md").read_text()
    assert race(shards, data, tmp_path / "race", "--arms", "correction", "mlm", "--measures", "zero-shot") == lines


def test_other_settings_are_not_mixed(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of the race nor of an arm."""
    del in_this_process
    race(shards, data, tmp_path / "race", "--arms", "mlm", "--measures")
    with pytest.raises(SystemExit, match=r"was begun with common"):
        main(["--shards", str(shards), "--data", str(data), "--output", str(tmp_path / "race"), "--budget", "4e8",
              "--arms", "mlm"])  # fmt: skip
    monkeypatch.setitem(ARMS, "mlm", Arm((Stage(1.0, "training.objective=masked-language-modelling"),), rate=2.0))
    with pytest.raises(SystemExit, match=r"arm mlm: has lines of other settings"):
        race(shards, data, tmp_path / "race", "--arms", "mlm", "--measures")


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    """And what comes next does not stick to it."""
    path = tmp_path / "lines.jsonl"
    append_line(path, {"number": 1})
    with path.open("a") as file:
        file.write('{"number": 2, "cut')
    assert read_lines(path) == [{"number": 1}]
    append_line(path, {"number": 3})
    assert read_lines(path) == [{"number": 1}, {"number": 3}]


def test_a_scorer_is_not_chosen_by_the_pairs_that_it_is_reported_on() -> None:
    """By hand: `lucky` wins on even pairs alone, `steady` on odd ones."""
    results = {"lucky": np.array([1.0, 0, 1, 0, 1, 0]), "steady": np.array([0.0, 1, 1, 1, 0, 1])}
    # Even pairs choose lucky, which has 0 of 3 on odd ones; odd ones choose steady, which has 1 of 3 on even ones.
    assert best_of_halves(results) == (pytest.approx(1 / 6), ["lucky", "steady"])


def line(arm: str, budget: float, seed: int, kind: str, **scores: float) -> dict[str, Any]:
    return {"kind": kind, "arm": arm, "budget": budget, "seed": seed, "settings": "", "scores": scores}


LINES = [
    line("mlm", 1e13, seed, "frozen", tagging=80.0 + seed, similarity=50.0) for seed in (0, 1, 2)
] + [
    line("mlm", 1e13, 0, "zero-shot", blimp=55.0),
    line("causal", 1e13, 0, "frozen", tagging=82.0, similarity=40.0),
    line("causal", 1e13, 0, "zero-shot", blimp=55.0),
    line("published", 1e13, 0, "frozen", tagging=70.0, similarity=45.0),
    line("published", 1e13, 0, "zero-shot", blimp=52.0),
    line("published", 1e13, 0, "writing", bleu=9.0),
    line("mlm", 1e15, 0, "zero-shot", blimp=60.0),
    line("causal", 1e15, 0, "zero-shot", blimp=65.0),
    line("published", 1e15, 0, "zero-shot", blimp=58.0),
]  # fmt: skip


def test_ranks_by_hand() -> None:
    """Medians; level arms share; an arm that lacks a score of the baseline has no rank and moves no other's."""
    assert ranks({"a": 3.0, "b": 5.0, "c": 3.0}) == {"b": 1.0, "a": 2.5, "c": 2.5}
    means, measures = mean_ranks(LINES, 1e13, ["mlm", "causal", "published"])
    assert measures == ["frozen", "zero-shot"]
    # Tagging 2 1 3, similarity 1 3 2, so frozen 1.5 2 2.5; BLiMP 1.5 1.5 3.
    assert means == {"mlm": 1.5, "causal": 1.75, "published": 2.75}
    half_measured = [*LINES, line("mixed", 1e13, 0, "frozen", tagging=90.0, similarity=60.0)]
    assert mean_ranks(half_measured, 1e13, ["mixed", "mlm", "causal", "published"]) == (means, measures)
    # Without the baseline, what all have counts: tagging 1 2 and similarity 1 2.
    assert mean_ranks(half_measured, 1e13, ["mixed", "causal"]) == ({"mixed": 1.0, "causal": 2.0}, ["frozen"])


def test_a_score_below_that_of_an_untrained_network_ranks_nobody(tmp_path: Path) -> None:
    """By hand: similarity is learned by nobody; tagging is 2 1 3 and BLiMP 1.5 1.5 3."""
    floor = [*LINES, line("untrained", 1e13, 0, "frozen", tagging=60.0, similarity=55.0)]
    means, measures = mean_ranks(floor, 1e13, ["mlm", "untrained", "causal", "published"])
    assert measures == ["frozen", "zero-shot"]
    assert means == {"mlm": 1.75, "causal": 1.25, "published": 3.0}
    text = write_table(floor, [], tmp_path)
    assert "no arm is above an untrained network in similarity, frozen\n" in text
    assert "| untrained | 0 | - | 60.0 |" in text


def test_an_untrained_network_takes_two_steps_and_learns_nothing(
    shards: Path, data: Path, tmp_path: Path, in_this_process: list[Path]
) -> None:
    """Its normalisations still multiply by one."""
    del in_this_process
    entry, here = race_training.Entry(BUDGET, "untrained", 0), race_training.Race(shards, data, tmp_path, TINY)
    assert race_training.train(here, entry, math.inf)["steps"] == 2
    weights = load_file(entry.run(here) / "model" / "model.safetensors")
    of_norms = [tensor for name, tensor in weights.items() if "norm" in name.lower() and name.endswith("weight")]
    assert of_norms
    assert all(torch.equal(tensor, torch.ones_like(tensor)) for tensor in of_norms)


def test_variants_are_chosen_by_validation_scores(tmp_path: Path) -> None:
    """The better one on test sentences is not the better one on those that choose."""
    lines = [
        line("mlm", 1e13, 0, "frozen", tagging=80.0, tagging_validation=79.0),
        line("mlm-linear", 1e13, 0, "frozen", tagging=79.0, tagging_validation=81.0),
    ]
    assert "| mlm | 0 | 1.0 | 80.0 |" in write_table(lines, [], tmp_path)
    chosen = write_table(lines, [], tmp_path, is_choosing=True)
    assert "| mlm | 0 | 2.0 | 79.0 |" in chosen
    assert "| mlm-linear | 0 | 1.0 | 81.0 |" in chosen


def test_a_score_that_is_not_finite_counts_as_missing() -> None:
    line = {"arm": "mlm", "budget": 1e9, "kind": "writing"}
    lines = [{**line, "scores": {"bleu": score}} for score in (0.0, math.nan, None, 2.0)]
    assert values_of(lines, "mlm", 1e9, "writing", "bleu") == [0.0, 2.0]


def test_operations_needed_by_hand(tmp_path: Path) -> None:
    """Half of the way in quality is half of the way in log operations."""
    assert operations_needed([(1e13, 55.0), (1e15, 65.0)], 60.0) == pytest.approx(1e14)
    assert operations_needed([(1e13, 55.0), (1e14, 54.0), (1e15, 64.0)], 59.0) == pytest.approx(10**14.5)
    assert operations_needed([(1e13, 61.0), (1e15, 65.0)], 60.0) == 1e13
    assert operations_needed([(1e13, 50.0), (1e15, 58.0)], 60.0) is None
    text = write_table(LINES, [], tmp_path)
    needed = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in text.split("Part of")[1].splitlines()[4:]}
    assert needed == {"mlm": "1", "causal": "0.1", "published": "not reached"}
    assert "| mlm | 0 | 1.5 | 81.0 (80.0 to 82.0) |" in text
    assert "needs lines of two budgets" in write_table(LINES[:6], [], tmp_path)

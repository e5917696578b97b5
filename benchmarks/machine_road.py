"""Every verb once, and a run that is killed and resumed; see `machine_check.py`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from electrain.foundation.configuration import merge_tables
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.run import pretrain
from electrain.training.sitting import Sitting
from machine_facts import words_of
from machine_jobs import Job, Task

RESUMED_STEPS = 20
KILLED_AT_STEP = 10
SMALL_SIZES = {
    "encoder": {"layers": 2, "hidden_size": 64, "feed_forward_size": 128, "heads": 2},
    "data": {"sequence_length": 64},
}
SHORT = {"training": {"steps": 30, "batch_rows": 32, "warmup_steps": 3, "checkpoint_every_steps": 15, "compile": False}}


# ---------------------------------------------------------------- killed and resumed


def check_resume(task: Task) -> None:
    """The job: twenty steps straight; ten, SIGKILL after the checkpoint, and the rest: the same tensors?"""
    folder = task.work / f"resume {task.job.name}"
    folder.mkdir()
    straight, killed = (_start(task, folder / name) for name in ("straight", "killed"))
    _wait(straight, folder / "straight", 0)
    _wait(killed, folder / "killed", -signal.SIGKILL)
    left = sorted(path.name for path in (folder / "killed/checkpoints").iterdir())
    _wait(_start(task, folder / "killed", resume=True), folder / "killed", 0)
    verdict = compared(folder / "straight", folder / "killed")
    task.note(
        f"{'equal bit for bit' if verdict['equal'] else 'NOT EQUAL'}: {verdict['tensors']} tensors, "
        f"largest difference {verdict['largest_difference']:g}; losses {verdict['losses']}",
        event="resume",
        checkpoints_after_the_kill=left,
        **({} if verdict["equal"] else {"failed": f"not equal: {verdict['unequal'][:5]}"}),
        **verdict,
    )


def _start(task: Task, output: Path, *, resume: bool = False) -> tuple[subprocess.Popen[bytes], Path]:
    told = {"arguments": task.job.arguments, "work": str(task.work), "output": str(output), "resume": resume}
    log = output.with_suffix(".resumed.log" if resume else ".log")
    with log.open("wb") as file:
        command = [sys.executable, "-u", __file__, json.dumps(told | {"is_quick": task.is_quick})]
        return subprocess.Popen(command, stdout=file, stderr=file, stdin=subprocess.DEVNULL), log


def _wait(started: tuple[subprocess.Popen[bytes], Path], output: Path, expected: int) -> None:
    process, log = started
    status = process.wait()
    if status != expected:
        tail = log.read_text("utf-8", errors="replace").splitlines()[-12:]
        raise RuntimeError(f"{output.name}: exit status {status} instead of {expected}: {' | '.join(tail)[-1500:]}")


def run_and_be_killed(told: dict[str, Any]) -> None:
    """In a process of its own: the run, which kills itself once its checkpoint is written, unless it is the resumed."""
    work, output = Path(told["work"]), Path(told["output"])
    tables = merge_tables(
        told["arguments"].get("tables", {}),
        {
            "training": {
                "steps": RESUMED_STEPS,
                "warmup_steps": 4,
                "checkpoint_every_steps": KILLED_AT_STEP,
                "log_every_steps": 1,
                "batch_rows": 16 if told["is_quick"] or not torch.cuda.is_available() else 128,
            }
        },
    )
    tables = merge_tables(tables, SMALL_SIZES) if told["is_quick"] else tables
    config = load_configuration(told["arguments"]["preset"], tables)
    if output.name == "killed" and not told["resume"]:
        save = Sitting.save

        def save_and_die(sitting: Sitting[Any], **more: Any) -> None:
            save(sitting, **more)
            if sitting.run.state.step == KILLED_AT_STEP:
                os.kill(os.getpid(), signal.SIGKILL)

        Sitting.save = save_and_die  # type: ignore[method-assign]
    pretrain(config, work / "shards", output, resume=told["resume"])


def compared(one: Path, other: Path) -> dict[str, Any]:
    """Whether the last checkpoints of two runs hold the same bits, and the last losses of both."""
    unequal, count, largest = [], 0, 0.0
    for name in ("model", "optimizer"):
        first, second = (
            load_file(run / f"checkpoints/step-{RESUMED_STEPS}/{name}.safetensors") for run in (one, other)
        )
        unequal += [f"{name}: {key}" for key in first.keys() ^ second.keys()]
        for key in first.keys() & second.keys():
            count += 1
            if not torch.equal(first[key], second[key]):
                unequal.append(f"{name}: {key}")
                largest = max(largest, float((first[key].double() - second[key].double()).abs().max()))
    losses = [_losses(run) for run in (one, other)]
    together = zip(*losses, strict=False)
    first_unequal = next((step for step, (a, b) in enumerate(together, start=1) if a != b), None)
    return {
        "equal": not unequal,
        "tensors": count,
        "unequal": unequal,
        "largest_difference": largest,
        "first_unequal_loss_at_step": first_unequal,
        "losses": [one[-1] for one in losses if one],
        "compiled": [
            line.get("compiled") for run in (one, other) for line in _lines(run) if line["event"] == "machine"
        ],
    }


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _losses(run: Path) -> list[float]:
    return [line["loss"] for line in _lines(run) if line["event"] == "log"]


# ---------------------------------------------------------------- a whole run of a preset


def run_verb(task: Task) -> None:
    """The job: `electrain pretrain` from its first to its last step, and the rates that it logged itself."""
    from electrain.training.runtime import device_of
    from machine_steps import configuration_of, spread

    arguments, device = task.job.arguments, device_of()
    steps = 20 if task.is_quick or device.type == "cpu" else arguments["steps"]
    config = configuration_of(task, device)
    training = replace(
        config.training, steps=steps, warmup_steps=1, log_every_steps=max(1, steps // 8), checkpoint_every_steps=steps
    )
    output = task.work / f"verb {task.job.name}"
    result = pretrain(replace(config, training=training), task.work / "shards", output)
    logged = [line for line in _lines(output) if line["event"] == "log"]
    later = logged[len(logged) // 2 :]
    rates = spread([line["tokens_per_second"] for line in later], 0)
    task.note(
        f"{rates['median']:,.0f} tokens/s as the run logs them ({rates['least']:,.0f} to {rates['greatest']:,.0f}), "
        f"{result.step} steps, loss {logged[-1]['loss']:.3f}, {task.since_spawned:.1f} s in all",
        event="verb",
        tokens_per_second=rates,
        matrix_rate_fraction=later[-1].get("matrix_rate_fraction"),
        loss=logged[-1]["loss"],
        first_loss=logged[0]["loss"],
        whole_seconds=round(task.since_spawned, 1),
        finished=result.is_finished,
    )


# ---------------------------------------------------------------- every verb


class Road:
    """The verbs in order. Each step is guarded, times itself and writes a line."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = task.work / "road"
        self.folder.mkdir()
        self.words = words_of(400)
        self.random = random.Random(0)

    def step(self, name: str, act: Callable[[], object]) -> None:
        """Does one thing and says so."""
        with self.task.guarded(name):
            started = time.perf_counter()
            result = act()
            seconds = time.perf_counter() - started
            said = json.dumps(result, default=str)
            self.task.note(f"ok in {seconds:.1f} s: {said[:110]}", name=name, event="verb", ok=True, result=said[:400])

    def sentence(self) -> str:
        """Eight words, each of which suggests the next."""
        word, words = self.random.randrange(400), []
        for _ in range(8):
            words.append(self.words[word])
            word = (7 * word + self.random.choice((1, 2, 17))) % 400
        return " ".join(words) + " ."

    def run_of(self, name: str, preset: str, tables: dict[str, dict[str, Any]]) -> str:
        """Pretrains, and returns the folder."""
        output = self.folder / name
        sizes = merge_tables(SMALL_SIZES, SHORT)
        config: PretrainConfig = load_configuration(preset, merge_tables(sizes, tables))
        result = pretrain(config, self.folder / "shards", output)
        if not result.is_finished:
            raise RuntimeError(f"stopped at step {result.step}")
        return str(output)


def walk_road(task: Task) -> None:
    """The job: tokenizer, prepare, pretrain, evaluate, predict, report, plan, export and fine-tuning of every task."""
    road = Road(task)
    _prepare(road)
    electra = {"encoder": {"backbone": "electra", "embedding_size": 32}}
    road.step("pretrain tiny", lambda: road.run_of("tiny", "tiny", {}))
    road.step("pretrain small", lambda: road.run_of("small", "small", electra))
    road.step("pretrain article", lambda: road.run_of("article", "article", {}))
    baseline = {"training": {"objective": "masked-language-modelling"}}
    road.step("pretrain masked words", lambda: road.run_of("masked", "tiny", baseline))
    _ask(road)
    _finetune(road)


def _prepare(road: Road) -> None:
    from electrain.data.shards.prepare import prepare
    from electrain.data.text.corpus import CorpusCounts, read_documents
    from electrain.data.tokenizer.training import train_tokenizer

    corpus = road.folder / "corpus.jsonl"
    texts = [" ".join(road.sentence() for _ in range(6)) for _ in range(1500)]
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def tokenizer() -> object:
        documents = read_documents([str(corpus)], counts=CorpusCounts())
        return train_tokenizer(documents, road.folder / "tokenizer", 600, False).facts

    road.step("tokenizer", tokenizer)
    road.step(
        "prepare", lambda: prepare([str(corpus)], road.folder / "tokenizer", road.folder / "shards").facts["tokens"]
    )


def _ask(road: Road) -> None:
    from electrain.inference.evaluate.blimp import evaluate_blimp
    from electrain.inference.evaluate.detection import evaluate_detection
    from electrain.inference.predict.corrupt import predict_corrupt
    from electrain.inference.predictor import load
    from electrain.pretraining.hardware import named_hardware
    from electrain.pretraining.plan import plan
    from electrain.pretraining.report import write_report

    tiny, small, article = (str(road.folder / name) for name in ("tiny", "small", "article"))
    texts = [road.sentence(), road.sentence()[:20]]
    masked = [f"{text} [MASK] ." for text in texts]
    pairs = road.folder / "pairs.jsonl"
    facts = {"UID": "set", "linguistics_term": "order", "field": "syntax"}
    pair = {"sentence_good": texts[0], "sentence_bad": " ".join(reversed(texts[0].split())), **facts}
    pairs.write_text((json.dumps(pair) + "\n") * 20)
    shards = [str(road.folder / "shards")]
    for run in (tiny, small, article):
        name = Path(run).name
        road.step(
            f"evaluate detection {name}", lambda run=run: evaluate_detection(run, shards, rows=256)["discriminator"]
        )
        road.step(f"predict detect {name}", lambda run=run: [one.to_dict() for one in load(run).detect(texts)])
        road.step(f"predict embed {name}", lambda run=run: len(load(run).embed(texts)))
        road.step(f"predict corrupt {name}", lambda run=run: list(predict_corrupt(run, texts)))
        road.step(f"predict fill {name}", lambda run=run: [one.to_dict() for one in load(run).fill(masked)])
        road.step(f"load in Transformers {name}", lambda run=run: loaded_alike(run, texts))
    road.step("predict generate", lambda: [one.to_dict() for one in load(article).generate(texts, tokens=8)])
    road.step("evaluate blimp", lambda: evaluate_blimp(tiny, pairs)["scorers"].keys())
    road.step("report", lambda: write_report(Path(tiny)))
    road.step("plan", lambda: asdict(plan(load_configuration("small"), named_hardware("this"))))


def loaded_alike(run: str, texts: list[str]) -> str:
    """Transformers reads the exported encoder, and gives on the CPU the states that it gives on the device."""
    from transformers import AutoModel, AutoTokenizer

    from electrain.training.runtime import device_of

    tokenizer = AutoTokenizer.from_pretrained(f"{run}/model")
    model = AutoModel.from_pretrained(f"{run}/model").eval()
    rows = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        here = model(**rows).last_hidden_state
        there = model.to(device_of())(**rows.to(device_of())).last_hidden_state.cpu()
    kept = rows["attention_mask"].bool().cpu()
    difference = float((here - there)[kept].abs().max())
    if not difference < 1e-2:
        raise RuntimeError(f"states differ by {difference} between the CPU and the device")
    return f"largest difference of a state to the CPU's: {difference:.1e}"


def _finetune(road: Road) -> None:
    from electrain.finetuning.configuration import load_finetune_configuration
    from electrain.finetuning.run import finetune
    from electrain.inference.asked import TASK_OF_VERB
    from electrain.inference.evaluate.tasks import evaluate_task
    from electrain.inference.predictor import open_networks

    for verb, task in TASK_OF_VERB.items():
        examples = [str(write_examples(road, task))]
        output = road.folder / f"tuned-{task}"
        tables: dict[str, dict[str, Any]] = {"training": {"epochs": 2.0, "batch_rows": 16}}
        if task in ("summarization", "translation"):
            tables |= {"generation": {"longest_output_tokens": 6}, "decoder": {"kind": "fresh"}}

        def tune(task: Any = task, examples: Any = examples, output: Path = output, tables: Any = tables) -> object:
            config = load_finetune_configuration(None, tables)
            result = finetune(task, config, road.folder / "tiny", examples, examples, output)
            if not (output / "model").is_dir():
                raise RuntimeError(f"wrote no model: {result}")
            return result.scores

        road.step(f"finetune {task}", tune)
        if not (output / "model").is_dir():
            continue  # said above

        def ask(task: Any = task, verb: str = verb, examples: Any = examples, output: Path = output) -> object:
            scores = dict(evaluate_task(task, str(output), examples).scores)
            return {"answers": len(list(open_networks(output).ask_examples(verb, examples))), "scores": scores}

        road.step(f"evaluate and predict {task}", ask)


def write_examples(road: Road, task: str) -> Path:
    """A file of 64 examples of a task."""
    texts = [road.sentence() for _ in range(64)]
    path = road.folder / f"{task}.jsonl"
    if task == "question-answering":
        paragraphs = []
        for number, text in enumerate(texts):
            answer = {"text": text.split()[2], "answer_start": text.index(text.split()[2])}
            questions = [{"id": str(number), "question": text.split()[1], "answers": [answer]}]
            paragraphs.append({"context": text, "qas": questions})
        path = path.with_suffix(".json")
        path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}))
        return path
    if task == "tagging":
        path = path.with_suffix(".conll")
        path.write_text("\n\n".join("\n".join(f"{word} {word[0]}" for word in text.split()) for text in texts) + "\n")
        return path
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        lines.append(
            {
                "classification": {"text": text, "label": f"begins with {text[0]}"},
                "regression": {"text": text, "score": number / 2},
                "summarization": {"document": text, "summary": text.split()[0]},
                "translation": {"source": text, "target": " ".join(reversed(text.split()))},
            }[task]
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def jobs_of_resume(variants: dict[str, dict[str, Any]]) -> list[Job]:
    """A job for each variant of the resumed run."""
    return [
        Job("resume", name, "machine_road:check_resume", {"preset": "small", "tables": tables}, 150.0)
        for name, tables in variants.items()
    ]


if __name__ == "__main__":
    run_and_be_killed(json.loads(sys.argv[1]))

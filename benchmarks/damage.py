"""Damages every file of small folders of each kind, runs the verbs that read them, and counts how that ends.

    python benchmarks/damage.py --damages 2000 --seed 0 [--without-hashes]

Each trial damages one file: a bit flipped, the end cut off, emptied, removed, taken from beside it, and in JSON a key
removed or a value of another type. Then one verb that reads the folder runs in a worker process, which has a limit of
time and memory and is replaced when it dies. The file is restored afterwards. `electrain check` sees each damage too.

`--without-hashes` first removes the hashes that this version writes, so that the folders are like those of older
versions and of the hub, and only sizes and schemas can find a damage. There a flipped bit in a weight changes an answer
and nothing can tell.
"""

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ENDINGS = ("refused in one line", "harmless", "silent", "traceback", "died or out of memory", "hang")
CHECKED = "found by `check`"
MOST_SECONDS = 60
MOST_BYTES = 24 << 30  # of addresses, of which torch takes several gigabytes that it never touches
WORDS = ("ba", "de", "fi", "go", "lu", "ma", "ne", "po", "ri", "su")
SIZES = [
    "--encoder.backbone",
    "electra",
    "--encoder.layers",
    "2",
    "--encoder.hidden-size",
    "32",
    "--encoder.heads",
    "2",
]
SIZES += ["--encoder.feed-forward-size", "64", "--encoder.embedding-size", "16", "--data.sequence-length", "24"]
STEPS = ["--training.steps", "8", "--training.batch-rows", "8", "--training.warmup-steps", "2"]
STEPS += ["--training.log-every-steps", "2", "--training.checkpoint-every-steps", "4"]
STEPS += ["--training.precision", "float32", "--training.compile", "false"]


@dataclass(frozen=True)
class Ended:
    """How a command ended: one of `ENDINGS` but for what only a comparison shows, and what it answered or said."""

    kind: str  # answered | one of ENDINGS
    shown: str


def run_command(arguments: list[str], page: str) -> Ended:
    """Runs the command line inside this process. Args: page: a file that is part of the answer, or ""."""
    from electrain.cli.app import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(arguments)
            code: object = 0
    except SystemExit as ended:
        code = ended.code
    except MemoryError:
        return Ended("died or out of memory", "MemoryError")
    except BaseException:
        return Ended("traceback", traceback.format_exc())
    if code == 0:
        answer = "\n".join(line for line in out.getvalue().splitlines() if not line.startswith('{"output"'))
        return Ended("answered", answer + (Path(page).read_text("utf-8") if page else ""))
    last = err.getvalue().strip().split("\n")[-1]
    is_one_line = code == 2 and last.startswith(f"electrain {arguments[0]}: ")
    return Ended("refused in one line" if is_one_line else "traceback", err.getvalue())


def serve(connection: Connection) -> None:
    """Runs the commands that come through the connection, until it closes."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import torch

    torch.set_num_threads(1)
    # Each would take longer than everything else that a trial does.
    import electrain.finetuning.report
    import electrain.pretraining.report
    import electrain.pretraining.run
    import electrain.training.arithmetic

    electrain.pretraining.report.draw_curves = electrain.finetuning.report.draw_curves = lambda *_: []
    electrain.pretraining.run.measure_matrix_rate = lambda *_: 1e9
    electrain.training.arithmetic.measure_speedup = lambda *_: 0.0
    with contextlib.suppress(EOFError):
        while True:
            connection.send(run_command(*connection.recv()))


class Worker:
    """A process that runs commands, and is replaced when it dies or takes too long."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._connection, other = self._context.Pipe()
        self._process = self._context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()

    def run(self, arguments: list[str], page: str = "") -> Ended:
        self._connection.send((arguments, page))
        try:
            if self._connection.poll(MOST_SECONDS):
                return self._connection.recv()
            ended = Ended("hang", f"still running after {MOST_SECONDS} s")
        except (EOFError, ConnectionError):
            ended = Ended("died or out of memory", "the process died")
        self._process.kill()
        self._process.join()
        self._start()
        return ended


@dataclass(frozen=True)
class Reader:
    """A command that reads a folder."""

    arguments: list[str]
    folders: tuple[str, ...]  # of which it reads files
    page: str = ""
    writes: str = ""  # a folder that is put back afterwards; "" if the command writes nothing there


def build(root: Path, worker: Worker) -> list[Reader]:
    """Makes a tokenizer, shards, a run and a fine-tuned run below `root`; returns the commands that read them."""
    random_words = random.Random(1)
    texts = [" ".join(random_words.choices(WORDS, k=random_words.randint(5, 40))) for _ in range(200)]
    (root / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    lines = [f"{text}\t{'many' if text.count('ba') > 2 else 'few'}\n" for text in texts[:60]]
    (root / "labels.tsv").write_text("text\tlabel\n" + "".join(lines))
    tok, shards, run, tuned = (str(root / name) for name in ("tokenizer", "shards", "run", "tuned"))
    corpus, labels = str(root / "corpus.jsonl"), str(root / "labels.tsv")
    pretrain = ["pretrain", "--config", "tiny", "--shards", shards, "--output", run, *SIZES, *STEPS]
    finetune = ["finetune", "classification", "--model", run, "--train", labels, "--validation", labels]
    finetune += ["--output", tuned, "--training.epochs", "1", "--training.precision", "float32"]
    for made in (
        ["tokenizer", corpus, "--output", tok, "--vocab-size", "80"],
        ["prepare", corpus, "--tokenizer", tok, "--output", shards, "--processes", "1"],
        pretrain,
        finetune,
    ):
        ended = worker.run(made)
        if ended.kind != "answered":
            raise SystemExit(f"{' '.join(made)}: {ended.shown}")
    text = texts[0]
    again = str(root / "again")
    networks = (f"{run}/model", f"{run}/generator", f"{run}/detector", run)
    return [
        Reader(["evaluate", "detection", "--model", run, "--data", shards, "--rows", "8"], (*networks, shards)),
        Reader(["predict", "detect", text, "--model", run], networks),
        Reader(["predict", "fill", f"{text} [MASK]", "--model", run], networks),
        Reader(["predict", "embed", text, "--model", run], (f"{run}/model",)),
        Reader(["report", "--run", run], (run,), page=f"{run}/report.html"),
        Reader(["prepare", corpus, "--tokenizer", tok, "--output", again, "--processes", "1"], (tok,), "", again),
        Reader([*pretrain, "--resume"], (run, f"{run}/checkpoints", shards, f"{run}/tokenizer"), "", run),
        Reader(["predict", "classify", text, "--model", tuned], (f"{tuned}/model", tuned)),
        Reader(["evaluate", "classification", "--model", tuned, "--data", labels], (f"{tuned}/model",)),
        Reader(["report", "--run", tuned], (tuned,), page=f"{tuned}/report.html"),
        Reader([*finetune, "--resume"], (tuned, f"{tuned}/checkpoints", f"{run}/model"), "", tuned),
    ]


def without_hashes(root: Path) -> None:
    """Removes what tells that a file changed, as folders of older versions lack it."""
    for path in list(root.rglob("SHA256SUMS")):
        path.unlink()
    for path in [*root.rglob("manifest.json"), *root.rglob("state.json")]:
        content = json.loads(path.read_text("utf-8"))
        content.pop("sha256", None)
        content.get("facts", {}).pop("hashes", None)
        path.write_text(json.dumps(content, indent=2), "utf-8")
    manifest = json.loads((root / "run/manifest.json").read_text("utf-8"))
    manifest["inputs"]["shards"] = hashlib.sha256((root / "shards/manifest.json").read_bytes()).hexdigest()
    (root / "run/manifest.json").write_text(json.dumps(manifest, indent=2), "utf-8")


def files_of(folder: Path) -> list[Path]:
    """The files of a folder that its reader reads: of `checkpoints` those of the newest one."""
    if folder.name == "checkpoints":
        folder = max(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".html")


def damage(path: Path, draw: random.Random) -> str:
    """Damages a file, and says how."""
    content = path.read_bytes()
    kinds = ["bit", "bit", "bits", "cut", "emptied", "removed", "swapped"]
    if path.suffix in (".json", ".jsonl"):
        kinds += ["key", "key", "type", "type", "type", "type"]
    kind = draw.choice(kinds)
    beside = [other for other in files_of(path.parent) if other != path]
    if kind in ("bit", "bits"):
        changed = bytearray(content)
        for _ in range(1 if kind == "bit" else 8):
            if changed:
                changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(max(1, len(content)))])
    elif kind == "removed":
        path.unlink()
    elif kind == "swapped" and beside:
        shutil.copyfile(draw.choice(beside), path)
    elif kind in ("key", "type"):
        path.write_text(_changed(content.decode("utf-8"), path.suffix, kind, draw), "utf-8")
    else:
        path.write_bytes(b"")
    return kind


def _changed(text: str, suffix: str, kind: str, draw: random.Random) -> str:
    """The text with a key removed, or a value of another type, anywhere in its JSON."""
    lines = text.splitlines() if suffix == ".jsonl" else [text]
    number = draw.randrange(len(lines))
    value = json.loads(lines[number])
    places = list(_places(value))
    inner, key = draw.choice(places)
    if kind == "key":
        del inner[key]
    else:
        others: list[Any] = [None, True, 0, -1, 3, 7.5, 1 << 40, 10**30, "", "x", [], [1], {}, {"x": 1}, float("nan")]
        inner[key] = draw.choice([other for other in others if type(other) is not type(inner[key]) or other == 1 << 40])
    lines[number] = json.dumps(value, indent=2 if suffix == ".json" else None)
    return "\n".join(lines) + "\n"


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def try_damages(root: Path, readers: list[Reader], worker: Worker, number: int, draw: random.Random) -> None:
    """Prints a line for each bad ending, then the table."""
    counts: dict[str, Counter[str]] = {}
    pairs = [(reader, Path(folder)) for reader in readers for folder in reader.folders if Path(folder).is_dir()]
    kept = root.with_name(root.name + "-kept")
    shutil.copytree(root, kept)
    usual: dict[int, Ended] = {}
    for trial in range(number):
        reader, folder = draw.choice(pairs)
        if id(reader) not in usual:
            usual[id(reader)] = worker.run(reader.arguments, reader.page)
            _put_back(root, kept, reader)
            if usual[id(reader)].kind != "answered":
                raise SystemExit(f"{' '.join(reader.arguments)}: {usual[id(reader)].shown}")
        path = draw.choice(files_of(folder))
        before = path.read_bytes()
        how = damage(path, draw)
        if path.exists() and path.read_bytes() == before:
            continue
        checked = worker.run(["check", str(root / path.relative_to(root).parts[0])])
        ended = worker.run(reader.arguments, reader.page)
        kind = ended.kind
        if kind == "answered":
            kind = "harmless" if ended.shown == usual[id(reader)].shown else "silent"
        name = f"{path.parent.parent.name}/{path.parent.name}" if path.parent.parent != root else path.parent.name
        row = f"{name if not name.split('/')[-1].startswith('step-') else 'checkpoints'}/{path.name}"
        row = row.replace("checkpoints/step-8/", "checkpoints/").replace("checkpoints/step-2/", "checkpoints/")
        counts.setdefault(row, Counter())[kind] += 1
        counts[row][CHECKED] += checked.kind == ENDINGS[0]
        if checked.kind not in (ENDINGS[0], "answered"):
            print(f"trial {trial}: check ends with {checked.kind}: {path.relative_to(root)} ({how}): {checked.shown}")
        if kind not in ("refused in one line", "harmless"):
            verb = " ".join(reader.arguments[:2])
            print(f"trial {trial}: {kind}: {path.relative_to(root)} ({how}), {verb}", flush=True)
            print("    " + ended.shown.strip()[-1500:].replace("\n", "\n    "), flush=True)
        if path.parent.is_dir():
            shutil.copyfile(kept / path.relative_to(root), path)
        _put_back(root, kept, reader)
    print_table(counts)


def _put_back(root: Path, kept: Path, reader: Reader) -> None:
    if reader.writes:
        folder = Path(reader.writes)
        shutil.rmtree(folder, ignore_errors=True)
        if (kept / folder.relative_to(root)).is_dir():
            shutil.copytree(kept / folder.relative_to(root), folder)


def print_table(counts: dict[str, Counter[str]]) -> None:
    """Prints a row of counts for each file, and their sums."""
    columns = ("damages", *ENDINGS, CHECKED)
    print("| file | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for one in counts.values():
        one["damages"] = sum(one[ending] for ending in ENDINGS)
    total: Counter[str] = Counter()
    for row in sorted(counts):
        total += counts[row]
        print(f"| {row} | " + " | ".join(str(counts[row][column]) for column in columns) + " |")
    print("| all | " + " | ".join(f"{total[column]:,}" for column in columns) + " |")


def main() -> None:
    """The command line of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damages", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-hashes", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="damage-") as folder:
        root = Path(folder) / "folders"
        root.mkdir()
        worker = Worker()
        readers = build(root, worker)
        if given.without_hashes:
            without_hashes(root)
        try_damages(root, readers, worker, given.damages, random.Random(given.seed))
        sys.stdout.flush()


if __name__ == "__main__":
    main()

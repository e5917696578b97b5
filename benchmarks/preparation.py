"""Rate and memory of `prepare`, beside the bare `tokenizers` library on the same text and cores.

    python benchmarks/preparation.py [--text FILE] [--tokenizer DIR] [--processes N] [--rounds N] [--memory]

Prints JSON lines. The rate is measured in rounds, each of one preparation and one bare run (`encode_batch_fast` in all
its threads, texts in memory already, no cleaning, nothing written), so that other work on the machine slows both. With
`--memory`, peak memory of preparing 10 MB and 500 MB: the parent and its children, each in a fresh process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from electrain.data.shards.prepare import prepare
from electrain.data.text.corpus import CorpusCounts, Document, read_documents
from electrain.data.tokenizer.tokenizer import load_tokenizer, plain_backend
from electrain.data.tokenizer.training import train_tokenizer

DEFAULT_TEXT = "builtin:documentation"


def main() -> None:
    """Measures what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default=DEFAULT_TEXT, help="a corpus, as for `electrain prepare`")
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer's folder; one is trained otherwise")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=20.0, help="of text, for the rate")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of the rate")
    parser.add_argument("--sizes", type=float, nargs="+", default=[10.0, 500.0], help="in MB, for the memory")
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.processes)
    with tempfile.TemporaryDirectory() as folder:
        texts = take(arguments.text, arguments.megabytes)
        tokenizer = arguments.tokenizer or trained(texts, Path(folder))
        if arguments.memory:
            measure_memory(texts, tokenizer, Path(folder), arguments.processes, arguments.sizes)
        else:
            measure_rate(texts, tokenizer, Path(folder), arguments.processes, arguments.rounds)


def take(source: str, megabytes: float) -> list[str]:
    """The first `megabytes` of text of a corpus."""
    texts, size = [], 0
    for document in read_documents([source], counts=CorpusCounts()):
        texts.append(document.text)
        size += len(document.text.encode())
        if size > megabytes * 1e6:
            break
    return texts


def trained(texts: list[str], folder: Path) -> Path:
    """A tokenizer of 16,384 words trained on the text."""
    train_tokenizer((Document(text, "") for text in texts), folder / "tokenizer", 16_384, False)
    return folder / "tokenizer"


def write_corpus(texts: list[str], path: Path, megabytes: float | None = None) -> float:
    """Writes the texts as JSON lines, again and again until there are `megabytes`; returns the MB of text."""
    size = 0
    with open(path, "w", encoding="utf-8") as file:
        while True:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                size += len(text.encode())
                if megabytes is not None and size >= megabytes * 1e6:
                    return size / 1e6
            if megabytes is None:
                return size / 1e6


def measure_rate(texts: list[str], tokenizer: Path, folder: Path, processes: int, rounds: int) -> None:
    """Prints MB per second, and processor seconds per MB, of both; then the medians of the rounds' ratios."""
    megabytes = write_corpus(texts, folder / "corpus.jsonl")
    backend = plain_backend(load_tokenizer(tokenizer))

    def bare() -> None:
        for first in range(0, len(texts), 1000):
            backend.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)

    results = []
    for number in range(rounds):
        corpus, output = [str(folder / "corpus.jsonl")], folder / f"shards-{number}"
        ours = timed(lambda: prepare(corpus, tokenizer, output, processes=processes))  # noqa: B023
        theirs = timed(bare)
        results.append((theirs[0] / ours[0], theirs[1] / ours[1]))
        row = {"prepare_mb_per_s": megabytes / ours[0], "bare_mb_per_s": megabytes / theirs[0]}
        row |= {"prepare_cpu_s_per_mb": ours[1] / megabytes, "bare_cpu_s_per_mb": theirs[1] / megabytes}
        print(json.dumps({"round": number} | {name: round(value, 3) for name, value in row.items()}), flush=True)
    wall, cpu = (median(ratios) for ratios in zip(*results, strict=True))
    print(json.dumps({"text_mb": megabytes, "processes": processes, "rate_ratio": wall, "cpu_ratio": cpu}))


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds, the latter with finished children's."""
    started = time.perf_counter(), processor_seconds()
    run()
    return time.perf_counter() - started[0], processor_seconds() - started[1]


def processor_seconds() -> float:
    """Used so far by this process, its threads and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


MEASURED = """
import json, os, sys, threading, time
from pathlib import Path
from electrain.data.shards.prepare import prepare
peaks = {}
def watch():
    while True:
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() + ["self"]:
            try:
                command = Path(f"/proc/{child}/cmdline").read_bytes()
                if child != "self" and b"electrain.data.shards.encoding" not in command:
                    continue
                lines = Path(f"/proc/{child}/status").read_text().splitlines()
                peaks[child] = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
            except (OSError, StopIteration):
                continue
        time.sleep(0.1)
threading.Thread(target=watch, daemon=True).start()
prepare([sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]), processes=int(sys.argv[4]))
print(json.dumps([peaks.pop("self"), max(peaks.values())]))
"""


def measure_memory(texts: list[str], tokenizer: Path, folder: Path, processes: int, sizes: list[float]) -> None:
    """Prints the peak resident memory, in MiB, of the parent and of its largest child, for each size of input."""
    peaks = []
    for size in sizes:
        corpus = folder / "corpus.jsonl"
        megabytes = write_corpus(texts, corpus, size)
        command = [
            sys.executable,
            "-c",
            MEASURED,
            str(corpus),
            str(tokenizer),
            str(folder / f"s{size}"),
            str(processes),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        parent, child = json.loads(done.stdout)
        peaks.append(parent + processes * child)
        print(json.dumps({"text_mb": megabytes, "parent_mib": parent, "largest_child_mib": child}), flush=True)
    print(json.dumps({"largest_over_smallest": peaks[-1] / peaks[0]}))


if __name__ == "__main__":
    main()

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
from pathlib import Path
from statistics import median

from electrain.data.corpus import CorpusCounts, read_documents
from electrain.data.parcels import Document
from electrain.data.prepare import prepare
from electrain.data.tokenizer import load_tokenizer, plain_backend, train_tokenizer

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
    """Prints MB/s of both, round by round, and the medians with their ratio."""
    megabytes = write_corpus(texts, folder / "corpus.jsonl")
    backend = plain_backend(load_tokenizer(tokenizer))
    ours, bare = [], []
    for number in range(rounds):
        started = time.perf_counter()
        prepare([str(folder / "corpus.jsonl")], tokenizer, folder / f"shards-{number}", processes=processes)
        ours.append(megabytes / (time.perf_counter() - started))
        started = time.perf_counter()
        for first in range(0, len(texts), 1000):
            backend.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False)
        bare.append(megabytes / (time.perf_counter() - started))
        print(json.dumps({"round": number, "prepare_mb_per_s": ours[-1], "bare_mb_per_s": bare[-1]}), flush=True)
    result = {
        "text_mb": megabytes,
        "processes": processes,
        "prepare_mb_per_s": median(ours),
        "bare_mb_per_s": median(bare),
        "ratio": median(one / other for one, other in zip(ours, bare, strict=True)),
    }
    print(json.dumps(result))


MEASURED = """
import json, resource, sys
from pathlib import Path
from electrain.data.prepare import prepare
prepare([sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3]), processes=int(sys.argv[4]))
parts = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps(parts))
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
    print(json.dumps({"largest_over_smallest": peaks[-1] / peaks[0], "page_bytes": resource.getpagesize()}))


if __name__ == "__main__":
    main()

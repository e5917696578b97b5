"""What machine this is, the text that the jobs share, and how fast rows are made; see `machine_check.py`."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electrain.data.shards.prepare import prepare
from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import open_shards
from electrain.data.text.corpus import CorpusFormat
from electrain.data.tokenizer.tokenizer import save_tokenizer, word_piece_tokenizer, wrap
from electrain.pretraining.build import micro_batches, vocabulary_of
from electrain.pretraining.configuration import load_configuration
from electrain.pretraining.objectives.rows import Rows
from electrain.training.arithmetic import choose_arithmetic, measure_matrix_rate, synchronize
from electrain.training.runtime import device_of
from machine_jobs import Task
from machine_steps import spread

VOCABULARY_SIZE = 30_522  # as published
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SYLLABLES = [first + second for first in "bdfghklmnprstvwz" for second in ("a", "e", "i", "o", "u", "an", "en", "or")]
DRAWN_WORDS = 2_000_000
DOCUMENT_WORDS = 500
# 32 million tokens are 2,000 steps of `small`, so that no measurement reaches the second epoch.
COPIES = {"cpu": 2, "cuda": 16}
ROWS_PER_BATCH = 256


def note_facts(task: Task) -> None:
    """The job: device, versions, memory, and the rates of matrix products."""
    device = device_of()
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_capability_asked": os.environ.get("ATEN_CPU_CAPABILITY", ""),
        "load_average": os.getloadavg()[0],
        "auto_precision": choose_arithmetic("auto", device).precision,
        **versions(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "capability": f"{properties.major}.{properties.minor}",
            "gpu_memory_gib": round(properties.total_memory / (1 << 30), 1),
            "multiprocessors": properties.multi_processor_count,
            "gpus": torch.cuda.device_count(),
        }
    task.note(", ".join(f"{name} {value}" for name, value in facts.items() if value != ""), event="facts", **facts)
    seconds = 0.2 if task.is_quick else 1.0
    rates = {}
    for name, dtype, precision in (
        ("float32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bfloat16", torch.bfloat16, "highest"),
        ("float16", torch.float16, "highest"),
    ):
        if name in ("tf32", "float16") and device.type == "cpu":
            continue  # the one is a GPU's, the other is emulated by most processors and takes minutes
        with task.guarded(f"matrix products, {name}"):
            torch.set_float32_matmul_precision(precision)
            turns = [measure_matrix_rate(device, dtype, seconds / 3) / 1e9 for _ in range(3)]
            rates[name] = spread(turns, 1)
    words = ", ".join(f"{name} {rate['median']:,.0f}" for name, rate in rates.items())
    task.note(f"{words} GFLOP/s", name="matrix products", event="matrix", gigaflops_per_second=rates)


def versions() -> dict[str, str]:
    """Of Python and of what the library uses; "missing" where it is not installed."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "tokenizers", "numpy", "triton"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.draw", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({type(error).__name__})"


def words_of(count: int) -> list[str]:
    """So many different invented words of one to three syllables."""
    size = len(SYLLABLES)
    words = list(SYLLABLES)
    words += [one + two for one in SYLLABLES for two in SYLLABLES]
    number = 0
    while len(words) < count:
        words.append(SYLLABLES[number % size] + SYLLABLES[number // size % size] + SYLLABLES[(7 * number + 3) % size])
        number += 1
    return list(dict.fromkeys(words))[:count]


def make_text(task: Task) -> None:
    """The job: a text file and `prepare`'s rate on it, and the shards that all jobs train on."""
    vocabulary = [*SPECIAL_TOKENS, *words_of(2 * VOCABULARY_SIZE)][:VOCABULARY_SIZE]
    tokenizer = task.work / "tokenizer"
    numbers = {token: number for number, token in enumerate(vocabulary)}
    save_tokenizer(wrap(word_piece_tokenizer(numbers, cased=False)), tokenizer)
    ids = zipf_ids(len(vocabulary), DRAWN_WORDS // (20 if task.is_quick else 1))
    copies = 1 if task.is_quick else COPIES[device_of().type]
    write_token_files(ids, task.work / "tokens", copies, separator=numbers["[SEP]"])
    prepare([str(task.work / "tokens")], tokenizer, task.work / "shards")
    text = task.work / "text.txt"
    documents = np.split(ids, range(DOCUMENT_WORDS, len(ids), DOCUMENT_WORDS))
    text.write_text("\n\n".join(" ".join(vocabulary[one] for one in document.tolist()) for document in documents))
    started = time.perf_counter()
    separated = CorpusFormat(document_separator="\\n\\n")
    manifest = prepare([str(text)], tokenizer, task.work / "prepared", corpus_format=separated)
    seconds = time.perf_counter() - started
    megabytes = text.stat().st_size / 1e6
    task.note(
        f"prepare: {megabytes:.1f} MB of text in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s",
        name="prepare",
        event="prepare",
        megabytes_per_second=round(megabytes / seconds, 2),
        megabytes=round(megabytes, 1),
        tokens=manifest.facts["tokens"],
    )


def zipf_ids(vocabulary_size: int, count: int) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """(count,) uint16: ids of words by Zipf's law, special tokens left out."""
    first = len(SPECIAL_TOKENS)
    chances = 1 / np.arange(1, vocabulary_size - first + 1)
    drawn = np.random.default_rng(0).choice(vocabulary_size - first, count, p=chances / chances.sum())
    return (drawn + first).astype(np.uint16)


def write_token_files(ids: np.ndarray[Any, np.dtype[np.uint16]], folder: Path, copies: int, *, separator: int) -> None:
    """Files as datatrove writes them, which `prepare` takes over: no tokenizer is needed for many tokens."""
    folder.mkdir()
    ends = np.arange(DOCUMENT_WORDS, len(ids) + 1, DOCUMENT_WORDS, dtype="<u8")
    tokens = ids[: int(ends[-1])].copy()
    tokens[ends.astype(np.int64) - 1] = separator
    for number in range(copies):
        path = folder / f"{number:05d}.ds"
        np.roll(tokens.reshape(-1, DOCUMENT_WORDS), number, axis=0).tofile(path)
        ends.tofile(f"{path}.index")
        Path(f"{path}.metadata").write_text(f"tokenizer|2\n{len(tokens)}\n", "utf-8")


def measure_rows(task: Task) -> None:
    """The job: rows per second of the row source in both epochs, and of whole micro-batches, on the CPU and the GPU."""
    shards, config = open_shards(task.work / "shards"), load_configuration("small")
    rows, device = RowSource(shards, config.data, 0), device_of()
    seconds = 0.2 if task.is_quick else 1.5
    for epoch in (0, 1):
        with task.guarded(f"rows, epoch {epoch}"):
            first = epoch * rows.rows_per_epoch
            rates = [_rows_per_second(rows, first + 10 * turn * ROWS_PER_BATCH, seconds / 3) for turn in range(3)]
            rate = spread(rates, 0)
            task.note(f"{rate['median']:,.0f} rows/s", name=f"rows, epoch {epoch}", event="rows", rows_per_second=rate)
    vocabulary = vocabulary_of(shards.tokenizer, shards.unigram_counts)
    made = {"CPU": micro_batches(rows, config, vocabulary, device=device)}
    if device.type != "cpu":
        made["GPU"] = micro_batches(rows.on(device, with_words=False), config, vocabulary, device=device)
    for place, of_step in made.items():
        name = f"micro-batches of small, on the {place}"
        with task.guarded(name):
            of_step(0)
            synchronize(device)
            started, steps = time.perf_counter(), 0
            while time.perf_counter() - started < seconds:
                steps += 1
                of_step(steps)
                synchronize(device)
            rate = round(steps * config.training.batch_rows / (time.perf_counter() - started))
            task.note(f"{rate:,} rows/s, packed and masked", name=name, event="rows", rows_per_second={"median": rate})
    if "GPU" in made:
        with task.guarded("the same rows on the GPU"):
            _require_same(*(of_step(step)[0].rows for step in (0, 3000) for of_step in made.values()))
            task.note("equal bit for bit to the CPU's", name="the same rows on the GPU", ok=True)


def _require_same(*rows: Rows) -> None:
    """Raises ValueError unless every second parcel of rows equals the one before it."""
    for one, other in zip(rows[::2], rows[1::2], strict=True):
        for name, here, there in zip(Rows._fields, one, other, strict=True):
            same = torch.equal(here.cpu(), there.cpu()) if isinstance(here, torch.Tensor) else here == there
            if not same:
                raise ValueError(f"{name} differs between the CPU and the GPU")


def _rows_per_second(rows: RowSource, first: int, seconds: float) -> float:
    numbers = np.arange(first, first + ROWS_PER_BATCH, dtype=np.int64)
    rows.batch(numbers)
    started, batches = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        batches += 1
        rows.batch(numbers + batches * ROWS_PER_BATCH)
    return batches * ROWS_PER_BATCH / (time.perf_counter() - started)

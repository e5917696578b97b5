"""Compares the memory that `plan` expects with what training steps really take on this machine's CPU.

    python benchmarks/memory.py RESULTS.jsonl [--only base]

Every case runs in a process of its own, which first takes a step of a very small model, so that libraries are loaded
and buffers of kernels exist. From there on the largest resident memory (VmHWM of /proc/self/status, reset through
clear_refs) is read after a step of two micro-batches. It holds all that the step takes, but not Python and the
libraries.

Each case is measured with two settings of glibc's allocator. By default training lets it keep all freed blocks and hand
out parts of them, so that some memory lies idle between tensors. "mapped" gives every tensor pages of its own, which
are returned when it is freed (MALLOC_MMAP_THRESHOLD_=65536): what the tensors themselves and the kernels take.

Cases that RESULTS.jsonl has are not measured again.
"""

import argparse
import gc
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from electrain.data.shards.rows import PackedBatch
from electrain.models.backbones import choose_attention
from electrain.pretraining.build import Vocabulary, build_objective, corrupted_micro_batch, with_compared_words
from electrain.pretraining.configuration import PretrainConfig, load_configuration
from electrain.pretraining.memory import SPECIAL_IDS, step_memory
from electrain.training.arithmetic import Arithmetic
from electrain.training.loop import TrainingRun, train
from electrain.training.optimizer import build_optimizers
from electrain.training.runtime import Runtime

VOCABULARY_SIZE = 30_522
SIZES = {"demo": (32,), "tiny": (32,), "article": (32,), "small": (8, 32), "base": (1, 2, 4)}


ALLOCATORS = {"default": {}, "mapped": {"MALLOC_MMAP_THRESHOLD_": "65536"}}


def cases() -> list[dict[str, Any]]:
    """What is compared."""
    found = []
    for name, counts in SIZES.items():
        for rows, precision, checkpointed in itertools.product(counts, ("float32", "bfloat16"), (False, True)):
            case = {"preset": name, "rows": rows, "precision": precision, "checkpointed": checkpointed}
            found.append({**case, "optimizer": "muon" if name in ("demo", "tiny", "article") else "adamw"})
    for name, rows in (("small", 8), ("base", 2)):
        case = {"preset": name, "rows": rows, "precision": "bfloat16", "checkpointed": False}
        found.append({**case, "optimizer": "muon"})
        found.append({**case, "optimizer": "adamw", "objective": "masked-language-modelling"})
    return [{**case, "allocator": allocator} for case in found for allocator in ALLOCATORS]


def configuration_of(case: dict[str, Any]) -> PretrainConfig:
    """One step of two micro-batches."""
    training = {
        "steps": 1,
        "warmup_steps": 0,
        "batch_rows": 2 * case["rows"],
        "micro_batch_rows": case["rows"],
        "gradient_checkpointing": case["checkpointed"],
        "optimizer": case["optimizer"],
        "precision": case["precision"],
        "objective": case.get("objective", "replaced-token-detection"),
    }
    return load_configuration(case["preset"], {"training": training})


def take_a_step(config: PretrainConfig, vocabulary_size: int, arithmetic: Arithmetic) -> None:
    """A step of the real loop, on random words. The optimizers' states exist before, as in any step but the first."""
    device, length = torch.device("cpu"), config.data.sequence_length
    random = torch.Generator().manual_seed(0)
    continues_word, by_frequency = torch.zeros(vocabulary_size, dtype=torch.bool), torch.arange(vocabulary_size)
    vocabulary = Vocabulary(vocabulary_size, SPECIAL_IDS.mask, continues_word, by_frequency)

    def batches(step: int) -> Any:
        made = []
        for first in range(0, config.training.batch_rows, config.training.micro_batch_rows):
            shape = (config.training.micro_batch_rows, length)
            ids = torch.randint(4, vocabulary_size, shape, generator=random)
            ones = torch.ones(shape, dtype=torch.bool)
            packed = PackedBatch(ids, torch.zeros_like(ids), ones, ~ones, torch.arange(first, first + len(ids)), ones)
            made.append(corrupted_micro_batch(packed, config, vocabulary, step))
        return with_compared_words(made, config, vocabulary, step)

    objective = build_objective(config, vocabulary_size=vocabulary_size, special_ids=SPECIAL_IDS)
    choose_attention(objective, device, length)
    optimizers = build_optimizers(objective, config.training, config.parity)
    for parameter in objective.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    run = TrainingRun(
        objective, optimizers, batches, config.training, Runtime(device, 0, 1, arithmetic), parity=config.parity
    )
    train(run, lambda _: False)


def resident(name: str) -> int:
    """Bytes: VmRSS now, or VmHWM, its largest value."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """The case with its measured and its expected bytes."""
    config = configuration_of(case)
    arithmetic = Arithmetic(case["precision"])
    expected = step_memory(config, case["rows"], arithmetic.dtype, torch.device("cpu"), vocabulary_size=VOCABULARY_SIZE)
    encoder = replace(config.encoder, layers=1, hidden_size=16, feed_forward_size=16, heads=2, embedding_size=16)
    take_a_step(replace(config, encoder=encoder), 50, arithmetic)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    take_a_step(config, VOCABULARY_SIZE, arithmetic)
    return {**case, "measured": resident("VmHWM") - before, "expected": expected.total}


def main() -> None:
    """Measures what is missing and prints all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--only", default="", help="name of a preset")
    parser.add_argument("--case", help="for the processes that this command starts")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measured(json.loads(arguments.case))))
        return
    known = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    for case in cases():
        if arguments.only not in case["preset"]:
            continue
        line = next((one for one in known if case.items() <= one.items() and len(one) == len(case) + 2), None)
        if line is None:
            command = [sys.executable, __file__, str(arguments.results), "--case", json.dumps(case)]
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env={**os.environ, **ALLOCATORS[case["allocator"]]},
            )
            line = json.loads(done.stdout)
            with open(arguments.results, "a") as file:
                file.write(json.dumps(line) + "\n")
        name = " ".join(str(value) for key, value in case.items() if key != "checkpointed")
        ratio = line["expected"] / line["measured"]
        sizes = f"measured {line['measured'] / 1e6:8,.0f} MB, expected {line['expected'] / 1e6:8,.0f} MB, {ratio:.2f}"
        print(f"{name}{' checkpointed' if case['checkpointed'] else '':13}: {sizes}", flush=True)


if __name__ == "__main__":
    main()

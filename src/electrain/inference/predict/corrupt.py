"""Shows each step of what pretraining does to a text."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from electrain.data.shards.rows import PackedBatch
from electrain.data.tokenizer.chinese_words import word_beginnings
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.tokenizer import load_tokenizer
from electrain.foundation.errors import CheckpointError, DataError
from electrain.foundation.output_folder import read_manifest
from electrain.foundation.progress import counted
from electrain.inference.corruption import Corruption, open_corruption
from electrain.inference.model import Source, load_language_model
from electrain.models.frozen_generator import FrozenGenerator
from electrain.pretraining.run_folder import open_run_folder


class CorruptionStep(TypedDict):
    """The text after one step, without special tokens; `changed` lists the positions that the step changed."""

    step: str
    tokens: list[str]
    changed: list[int]


class CorruptedText(TypedDict):
    """A text, the steps of its corruption, and for each token of the last step whether it counts as replaced."""

    text: str
    steps: list[CorruptionStep]
    is_replaced: list[bool]


def predict_corrupt(model: Source, texts: Iterable[str], *, seed: int = 0) -> Iterator[CorruptedText]:
    """For each text, in order, the corruption that the run applied to its rows at its last step.

    Args:
        model: a run folder.
        seed: decides masks and samples, together with the number of the text.
    Raises: CheckpointError: not a run of replaced token detection. DataError: a text without a word, or too long.
    """
    run = open_run_folder(model)
    if run.config is None:
        raise CheckpointError(f"{run}: is no run folder; give the folder that pretrain wrote, which holds its settings")
    if run.is_baseline:
        raise CheckpointError(f"{run}: a run of masked language modelling, which has no generator; give another run")
    sampler = None if run.config.generator.kind == "unigram" else load_language_model(run)
    tokenizer = load_tokenizer(Path(run.path) / "tokenizer") if sampler is None else sampler.tokenizer
    corruption = open_corruption(run, sampler, tokenizer, seed, run.config)
    # Shards that record where Chinese words begin say so in the run's manifest. Only noise on whole words reads it.
    takes_words = run.config.corruption.noise != "random" and bool(
        read_manifest(Path(run.path), "run").facts.get("has_words")
    )
    for number, text in enumerate(texts):
        packed = _packed(text, number, tokenizer, run.config.data.sequence_length, takes_words=takes_words)
        yield _steps(text, packed, corruption, tokenizer)


def _packed(
    text: str, number: int, tokenizer: PreTrainedTokenizerFast, longest: int, *, takes_words: bool
) -> PackedBatch:
    """The text as a row like those that are read from shards."""
    cleaned = cleaner_for(tokenizer)(text)
    encoded = encode_plain(tokenizer, [cleaned], add_special_tokens=False, return_offsets_mapping=True)
    ids = encoded["input_ids"][0]
    if not 0 < len(ids) <= longest - 2:
        raise DataError(
            f"text {number + 1} ('{text.strip()[:40]}'): has {counted(len(ids), 'token')}; "
            f"give one with 1 to {longest - 2}"
        )
    row = torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
    is_special = torch.zeros_like(row, dtype=torch.bool)
    is_special[:, [0, -1]] = True
    begins_word = None
    if takes_words:
        starts = [start for start, _ in encoded["offset_mapping"][0]]
        begins = word_beginnings(cleaned, tokenizer.convert_ids_to_tokens(ids), starts)
        begins_word = torch.from_numpy(np.pad(begins, 1, constant_values=True))[None]
    is_real = torch.ones_like(is_special)
    return PackedBatch(row, torch.zeros_like(row), is_real, is_special, torch.tensor([number]), begins_word)


def _steps(text: str, packed: PackedBatch, corruption: Corruption, tokenizer: PreTrainedTokenizerFast) -> CorruptedText:
    """The one row of `packed` as tokens after each step of its corruption."""
    masked = corruption.masked(packed)
    made = corruption.corrupted(masked)
    rows = made.rows
    shown: list[tuple[str, Tensor]] = [("the text", masked.token_ids)]
    if rows.is_written is not None and bool(rows.is_written.any()):
        shown.append(("written on by the generator", rows.token_ids))
    if rows.base_ids is not None:
        shown.append(("words moved", rows.base_ids))
    if isinstance(corruption.generator, FrozenGenerator) and corruption.generator.reads_masked_ids:
        shown.append(("what the generator reads", rows.masked_ids))
    shown.append(("what the discriminator reads", made.ids))
    steps: list[CorruptionStep] = [
        {
            "step": name,
            "tokens": tokenizer.convert_ids_to_tokens(ids[0, 1:-1].tolist()),
            "changed": torch.nonzero(ids[0, 1:-1] != before[0, 1:-1]).flatten().tolist(),
        }
        for (name, ids), (_, before) in zip(shown, [shown[0], *shown[:-1]], strict=True)
    ]
    return {"text": text, "steps": steps, "is_replaced": made.is_replaced[0, 1:-1].tolist()}

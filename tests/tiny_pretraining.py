"""Invented text, shards made of it, and configurations that train on it in a second."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from electrain.data.shards.prepare import prepare
from electrain.data.shards.rows import RowSource
from electrain.data.shards.shards import open_shards
from electrain.data.tokenizer.tokenizer import (
    SpecialIds,
    save_tokenizer,
    word_piece_tokenizer,
    wrap,
)
from electrain.foundation.configuration import build_configuration, merge_tables
from electrain.pretraining.build import build_objective, micro_batches, vocabulary_of
from electrain.pretraining.configuration import PretrainConfig

INVENTED_WORDS = [
    first + second
    for first in ("ba", "de", "fi", "go", "lu", "ma", "ne", "po", "ri", "su")
    for second in ("k", "l", "m", "n", "r", "s", "t", "v", "x", "z")
]
SPECIAL_IDS = SpecialIds(pad=0, cls=2, sep=3, mask=4)  # of the invented vocabulary
TINY_TABLES: dict[str, dict[str, Any]] = {
    "encoder": {"layers": 2, "hidden_size": 32, "feed_forward_size": 64, "heads": 2, "embedding_size": 16},
    "generator": {"size_fraction": 0.5},
    "data": {"sequence_length": 24},
    "training": {
        "steps": 10,
        "batch_rows": 8,
        "peak_learning_rate": 2e-3,
        "warmup_steps": 2,
        "checkpoint_every_steps": 5,
        "log_every_steps": 2,
        "precision": "float32",
        "compile": False,
    },
}


def invented_text(documents: int, seed: int) -> list[str]:
    """Documents of 3 to 60 invented words, in which each word suggests the next, so that much can be learned."""
    random = np.random.default_rng(seed)
    texts = []
    for length in random.integers(3, 60, documents).tolist():
        word, words = int(random.integers(100)), []
        for jump in random.choice([1, 2, 17], size=length, p=[0.6, 0.3, 0.1]).tolist():
            word = (7 * word + jump) % 100
            words.append(INVENTED_WORDS[word])
        texts.append(" ".join(words) + " .")
    return texts


def write_invented_shards(folder: Path, documents: int = 300) -> None:
    """Writes `corpus.jsonl`, `tokenizer` and `shards` into a folder; always the same ids."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *INVENTED_WORDS]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    save_tokenizer(wrap(word_piece_tokenizer(vocabulary, cased=False)), folder / "tokenizer")
    lines = [json.dumps({"text": text}) for text in invented_text(documents, seed=7)]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    prepare([str(folder / "corpus.jsonl")], folder / "tokenizer", folder / "shards", processes=1)


def write_invented_tags(folder: Path) -> Path:
    """Writes `tagged.conll` into a folder: sentences of invented words, whose tags are their last letters."""
    sentences = ["\n".join(f"{word}\t{word[-1]}" for word in text.split()) for text in invented_text(60, seed=3)]
    (folder / "tagged.conll").write_text("\n\n".join(sentences) + "\n")
    return folder / "tagged.conll"


def tiny_configuration(**sections: dict[str, Any]) -> PretrainConfig:
    """`TINY_TABLES` with fields replaced: `tiny_configuration(training={"steps": 20})`."""
    tables = merge_tables(TINY_TABLES, sections)
    if tables["encoder"].get("backbone", "electra") != "electra":
        tables["encoder"]["embedding_size"] = 0
    return build_configuration(PretrainConfig, tables, "test")


def objective_of(config: PretrainConfig, shards: Path, *, spread: float = 0.15) -> Any:
    """A fresh objective whose weights are `spread` further out, so that its outputs differ clearly."""
    stream = open_shards(shards)
    objective = build_objective(
        config,
        vocabulary_size=stream.vocabulary_size,
        special_ids=stream.special_ids,
        unigram_counts=stream.unigram_counts,
    )
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return objective


def batches_of(config: PretrainConfig, shards: Path) -> Any:
    """The function from a step to its micro-batches."""
    stream = open_shards(shards)
    rows = RowSource(stream, config.data, config.training.seed, reference_packing=config.parity.reference_packing)
    return micro_batches(rows, config, vocabulary_of(stream.tokenizer, stream.unigram_counts))


def as_tensors(batch: Any) -> Any:
    """A parcel of rows whose arrays are tensors; their memory is shared."""
    return _converted(batch, np.ndarray, torch.from_numpy)


def as_arrays(batch: Any) -> Any:
    """A parcel of rows whose tensors are arrays; their memory is shared."""
    return _converted(batch, torch.Tensor, torch.Tensor.numpy)


def _converted(batch: Any, kind: type, convert: Any) -> Any:
    fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return dataclasses.replace(batch, **{name: convert(x) for name, x in fields.items() if isinstance(x, kind)})

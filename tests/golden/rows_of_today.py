"""Writes the hashes of rows that the next change is compared with: `python tests/golden/rows_of_today.py`.

A row is a function of the shards, the configuration, the seed and its number. Runs made by older versions resume with
the rows of this one, so that these hashes never change. Only a new kind of row adds some.
"""

import hashlib
import json
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from electrain.data.shards.rows import RowSource  # noqa: E402
from electrain.data.shards.shards import Shards, open_shards  # noqa: E402
from electrain.pretraining.build import Vocabulary, corrupted_micro_batch, with_compared_words  # noqa: E402
from tiny_pretraining import SPECIAL_IDS, tiny_configuration, write_invented_shards  # noqa: E402

GOLDEN_ROWS = FOLDER / "rows.json"
REFERENCE = {"reference_packing": True}
BASELINE = {"objective": "masked-language-modelling"}
NOISES = ("random", "whole-word", "span", "deletion", "shuffle")
# Each kind of row: the sections of the configuration, and how its stream of tokens is stored.
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "published": ({}, {}),
    "one segment": ({"data": {"segments": 1}}, {}),
    "short": ({"data": {"sequence_length": 8}}, {}),
    "long": ({"data": {"sequence_length": 150}}, {}),
    "large seed": ({"training": {"seed": 2**63 - 5}}, {}),
    "ids above 32,767": ({}, {"vocabulary": 60_000}),
    "wide ids": ({}, {"vocabulary": 70_000}),
    "five files": ({}, {"files": 5}),
    "five files, words": ({"corruption": {"noise": "whole-word"}}, {"files": 5, "has_words": True}),
    "long documents": ({}, {"longest": 900}),
    "collisions": ({"parity": {"colliding_positions": True}}, {}),
    "collisions, large fraction": (
        {"parity": {"colliding_positions": True}, "corruption": {"masked_fraction": 0.6}},
        {},
    ),
    "reference": ({"parity": REFERENCE}, {}),
    "reference, one segment": ({"parity": REFERENCE, "data": {"segments": 1}}, {"files": 3}),
    "reference, words": ({"parity": REFERENCE, "corruption": {"noise": "span"}}, {"files": 3, "has_words": True}),
    "reference, collisions": ({"parity": {**REFERENCE, "colliding_positions": True}}, {}),
    "changing fraction": ({"corruption": {"masked_fraction": 0.1, "last_masked_fraction": 0.5}}, {}),
    "sampled words": ({"training": {"softmax_words": 60}}, {}),
    "sampled words, wide ids": ({"training": {"softmax_words": 3000}}, {"vocabulary": 70_000}),
    "missing": (
        {
            "corruption": {"missing_fraction": 0.4},
            "discriminator": {"heads": ["detection", "correction"], "correction_at": "missing"},
        },
        {},
    ),
    "electric": ({"discriminator": {"heads": ["detection", "electric"], "detection_at": "selected"}}, {}),
    "policy gradient": ({"generator": {"training": "policy-gradient"}, "corruption": {"missing_fraction": 0.2}}, {}),
    "written": (
        {
            "generator": {"kind": "causal"},
            "corruption": {"source": "generated", "missing_fraction": 1.0},
            "discriminator": {"heads": ["detection", "correction"], "correction_at": "missing"},
        },
        {},
    ),
    "baseline": ({"training": BASELINE}, {}),
    "baseline, reference": ({"training": BASELINE, "parity": {**REFERENCE, "colliding_positions": True}}, {}),
    "baseline, whole words": ({"training": BASELINE, "corruption": {"noise": "whole-word"}}, {}),
} | {
    f"{noise}{', words' if has_words else ''}{', reference' if parity else ''}": (
        {"corruption": {"noise": noise, "masked_fraction": 0.3}, "parity": parity, "data": {"sequence_length": 40}},
        {"has_words": has_words},
    )
    for noise in NOISES
    for has_words in (False, True)
    for parity in ({}, REFERENCE)
}


def stream_of(
    tokenizer: Shards, *, vocabulary: int = 300, files: int = 1, has_words: bool = False, longest: int = 90
) -> Shards:
    """A stream of random ids in documents of 1 to `longest` tokens, of which the last is [SEP]."""
    random = np.random.RandomState(files + longest)  # the generator whose numbers never change
    lengths = random.randint(1, longest, 8000 // longest)
    ids = random.randint(5, vocabulary, int(lengths.sum()))
    ends = np.cumsum(lengths)
    ids[ends - 1] = SPECIAL_IDS.sep
    begins = (random.random_sample(len(ids)) < 0.6).astype("u1")
    # A document ends with each file, as `prepare` writes them; rows go on from one into the next.
    cuts = [0, *ends[np.linspace(0, len(ends) - 1, files + 1).astype(int)[1:]].tolist()]
    dtype = "<u2" if vocabulary <= 1 << 16 else "<u4"
    pairs = list(pairwise(cuts))
    return Shards(
        tokenizer.manifest,
        tokenizer.tokenizer_directory,
        [ids[first:last].astype(dtype) for first, last in pairs],
        [(ends[(ends > first) & (ends <= last)] - first).astype("<u8") for first, last in pairs],
        np.bincount(ids, minlength=vocabulary),
        [begins[first:last] for first, last in pairs] if has_words else (),
    )


def row_numbers(per_epoch: int) -> list[list[int]]:
    """Batches in epochs 0, 1 and 2, on both sides of their borders, in no order, and far away."""
    return [
        list(range(24)),
        list(range(per_epoch - 9, per_epoch + 9)),
        list(range(2 * per_epoch - 3, 2 * per_epoch + 20)),
        [7, 3, 3 * per_epoch, 10_007, 3, per_epoch, 10**9],
        [5],
    ]


def made_rows(kind: str, tokenizer: Shards, device: str) -> list[dict[str, Any]]:
    """The arrays of each batch of a kind, by name, and the numbers of elements of its losses; made on the device."""
    sections, stored = KINDS[kind]
    config = tiny_configuration(**sections)
    stream = stream_of(tokenizer, **stored)
    size = stored.get("vocabulary", 300)
    numbers_of_words = torch.arange(size, device=device)
    vocabulary = Vocabulary(size, SPECIAL_IDS.mask, numbers_of_words % 5 == 0, numbers_of_words.flip(0))
    source = RowSource(stream, config.data, config.training.seed, reference_packing=config.parity.reference_packing)
    if device != "cpu":
        source = source.on(torch.device(device), with_words=stream.has_words)
    result = []
    for step, numbers in enumerate(row_numbers(source.rows_per_epoch)):
        packed = source.batch(np.array(numbers, np.int64))
        corrupted = corrupted_micro_batch(packed, config, vocabulary, 2 * step)
        (made,) = with_compared_words([corrupted], config, vocabulary, 2 * step)
        arrays = {"begins_word": packed.begins_word, "row_numbers": packed.row_numbers, **made.rows._asdict()}
        assert all(x.device.type == device for x in arrays.values() if isinstance(x, torch.Tensor))
        numbers_of = {name: int(count) for name, count in made.counts.items()}
        result.append({**arrays, "counts": numbers_of, "tokens": int(made.tokens)})
    return result


def hashes_of(kind: str, tokenizer: Shards, device: str = "cpu") -> dict[str, str]:
    """The first 16 hexadecimal digits of the SHA-256 of each field over all batches of a kind, by the field's name."""
    found: dict[str, Any] = {}
    for arrays in made_rows(kind, tokenizer, device):
        for name, value in arrays.items():
            if value is None or isinstance(value, (bool, int, dict)):
                content = repr(value).encode()
            else:
                array = np.ascontiguousarray(value.cpu())
                content = f"{array.dtype} {array.shape}".encode() + array.tobytes()
            found.setdefault(name, hashlib.sha256()).update(content)
    return {name: value.hexdigest()[:16] for name, value in found.items()}


def main() -> None:
    """Regenerates the file."""
    with tempfile.TemporaryDirectory() as folder:
        write_invented_shards(Path(folder))
        tokenizer = open_shards(Path(folder) / "shards")
        lines = [f"  {json.dumps(kind)}: {json.dumps(hashes_of(kind, tokenizer))}" for kind in KINDS]
    GOLDEN_ROWS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

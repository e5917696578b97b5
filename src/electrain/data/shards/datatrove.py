"""Copies files that datatrove tokenised elsewhere, after checking that they are what our own would be."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.writer import Integers, ShardWriter
from electrain.foundation.errors import DataError, TokenizerError
from electrain.foundation.output_folder import file_hash

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BLOCK_DOCUMENTS = 4096
_HOW = "give datatrove's DocumentTokenizer this tokenizer's tokenizer.json, and eos_token=\"[SEP]\""


def is_tokenised(sources: Sequence[str]) -> bool:
    """True if the corpus is one folder of datatrove's `.ds` files."""
    return len(sources) == 1 and any(Path(sources[0]).glob("*.ds"))


def adopt_files(directory: Path, writer: ShardWriter, tokenizer: "PreTrainedTokenizerFast") -> dict[str, str]:
    """Copies every `.ds` file of `directory`, in order of name, through `writer`; returns their hashes by name.

    Raises: DataError: a file is damaged. TokenizerError: the ids are not those of `tokenizer` with [SEP] at each end.
    """
    hashes = {}
    for path in sorted(directory.glob("*.ds")):
        tokens, ends = _open(path)
        _check(path, tokens, ends, tokenizer)
        start = 0
        # In blocks, because the file may be larger than memory.
        for first in range(0, len(ends), _BLOCK_DOCUMENTS):
            some = ends[first : first + _BLOCK_DOCUMENTS]
            writer.write(tokens[start : some[-1]], (some - start).tolist())
            writer.counts.documents += len(some)
            longest = int(np.diff(some, prepend=start).max())
            writer.longest_document_tokens = max(writer.longest_document_tokens, longest)
            start = int(some[-1])
        hashes[path.name] = file_hash(path)
    writer.close()
    return hashes


def _open(path: Path) -> tuple[Integers, NDArray[np.int64]]:
    try:
        lines = Path(f"{path}.metadata").read_text("utf-8").splitlines()
        token_bytes, token_count = int(lines[0].rpartition("|")[2]), int(lines[1])
        tokens = np.memmap(path, f"<u{token_bytes}", "r")
        ends = np.memmap(f"{path}.index", "<u8", "r").view(np.int64)
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: cannot be read with its .index and .metadata ({error}); copy them again") from error
    if len(tokens) != token_count or len(tokens) != ends[-1] or (np.diff(ends, prepend=0) <= 0).any():
        raise DataError(f"{path}: damaged, its index or metadata gives another size; copy it again")
    return tokens, ends


def _check(path: Path, tokens: Integers, ends: NDArray[np.int64], tokenizer: "PreTrainedTokenizerFast") -> None:
    # Rows are cut at [SEP], which must end every document, and get a [CLS] of their own. What cannot be checked is that
    # the ids mean the same tokens: datatrove writes down the tokenizer's name only.
    if (tokens[ends - 1] != tokenizer.sep_token_id).any():
        raise TokenizerError(f"{path}: documents do not end with {tokenizer.sep_token}; {_HOW}")
    if (tokens[np.concatenate([[0], ends[:-1]])] == tokenizer.cls_token_id).any():
        raise TokenizerError(f"{path}: documents begin with {tokenizer.cls_token}; {_HOW}")
    if int(tokens.max()) >= len(tokenizer):
        raise TokenizerError(f"{path}: holds ids beyond this tokenizer's {len(tokenizer):,}; {_HOW}")

"""What travels between the stages of the road before a model sees it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        text: cleaned Unicode, never empty.
        source: where it was read, for messages: `file.jsonl.gz:17`.
        continues: True: the next `Document` is a further piece of this one. Only texts of more than 64 Ki characters
            come in pieces, so that a file larger than memory can be one document.
    """

    text: str
    source: str
    continues: bool = False


@dataclass(frozen=True)
class PackedBatch:
    """Rows of token ids as the model takes them, before any corruption.

    Attributes:
        token_ids: (rows, length) int64: [CLS] segment [SEP] segment [SEP], then [PAD].
        token_type_ids: (rows, length) int64: 0 in the first segment, 1 in the second, 0 at padding.
        is_real: (rows, length) bool; False at padding.
        is_special: (rows, length) bool; True at [CLS], [SEP] and [PAD], which are never corrupted.
        row_numbers: (rows,) int64; the number of each row in the whole run, the key of everything random about it.
        begins_word: (rows, length) bool; True where a word begins; None: the vocabulary's ## tells.
    """

    token_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    is_real: NDArray[np.bool_]
    is_special: NDArray[np.bool_]
    row_numbers: NDArray[np.int64]
    begins_word: NDArray[np.bool_] | None = None

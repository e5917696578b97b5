"""Rows of token ids from shards: any row of any epoch by its number, packed to full length."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from electrain.data.shards.randomness import permuted, random_uniforms
from electrain.data.shards.shards import Shards
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import DataError

# Source of all three: google-research/electra, build_pretraining_dataset.py: `_create_example`, `add_line`.
ONE_SEGMENT_FRACTION = 0.1  # rows that hold one segment only, so that single texts are not foreign to the model
SHORT_ROW_FRACTION = 0.05  # rows cut to a random shorter length (reference packing only)
SHORTEST_ROW_TOKENS = 5
# The bits of a token id. The bit above them marks a token that begins a word: so the mark stays with its token while a
# row is cut and joined, instead of in a second array that every cut would have to repeat.
_IDS = (1 << 40) - 1


@dataclass(frozen=True)
class DataConfig:
    """The rows that are made from the shards.

    Attributes:
        sequence_length: Number of tokens in a row, including special tokens, at least 8. 128 (small) or 512 (base,
            large) in the paper.
        segments: Number of segments in a row. 2 splits nine of ten rows into two segments, as published, so that token
            types are trained; 1 never splits.
    """

    sequence_length: int = 128
    segments: int = 2

    def __post_init__(self) -> None:
        require_at_least("sequence_length", self.sequence_length, 8)
        if self.segments not in (1, 2):
            raise ValueError(f"segments = {self.segments}: must be 1 or 2")


@dataclass(frozen=True)
class PackedBatch:
    """Rows of token ids in the form that the model takes, before any corruption; (rows, length) but for the numbers.

    `begins_word` is True where a word begins. None: the shards do not say, and words begin wherever the vocabulary's
    piece has no "##".
    """

    token_ids: NDArray[np.int64]  # [CLS] segment [SEP] segment [SEP], then [PAD]
    token_type_ids: NDArray[np.int64]  # 0 in the first segment, 1 in the second, 0 at padding
    is_real: NDArray[np.bool_]  # False at padding
    is_special: NDArray[np.bool_]  # True at [CLS], [SEP] and [PAD], which are never corrupted
    row_numbers: NDArray[np.int64]  # (rows,): the number of each row in the whole run; its randomness follows from it
    begins_word: NDArray[np.bool_] | None = None


class RowSource:
    """Rows by their number in the run; a number beyond the last row of an epoch is a row of the next epoch.

    By default the corpus is one stream of documents, each ended by [SEP], and a row is a stretch of it. So every row is
    full and no computation goes into padding. Nine rows in ten are split into two segments: at the end of a document,
    or else at a random place.

    With `reference_packing` a row never crosses the end of a document, the last row of a document is padded, the split
    is in the middle, and one row in twenty is cut short, as in the reference implementation (which splits between
    sentences; shards do not know where sentences end).

    A row depends on the shards, the configuration, the seed and its number alone. A resumed run therefore needs only
    the number of its next row, and any number of processes reads the same rows.
    """

    def __init__(self, stream: Shards, config: DataConfig, seed: int, *, reference_packing: bool = False) -> None:
        self.stream = stream
        self.length = config.sequence_length
        self.segments = config.segments
        self.seed = seed
        self.reference_packing = reference_packing
        self.window = self.length - 3  # [CLS] and two [SEP] take three places
        if stream.token_count < self.length - 2:
            raise DataError(
                f"the shards hold {stream.token_count} tokens, too few for one row of {self.length}; "
                "add text or lower --data.sequence-length"
            )
        if reference_packing:
            lengths = np.diff(stream.document_ends, prepend=0) - 1  # without the [SEP] that ends it
            self._row_ends = np.cumsum(-(-np.maximum(lengths, 1) // self.window))  # rows of each document, rounded up
            self.rows_per_epoch = int(self._row_ends[-1])
        else:
            self.rows_per_epoch = max(1, (stream.token_count - 1) // self.window)

    def batch(self, row_numbers: NDArray[np.int64]) -> PackedBatch:
        """The rows with these numbers, in the order given.

        Args: row_numbers: (rows,) int64; of any epochs.
        """
        special, shape = self.stream.special_ids, (len(row_numbers), self.length)
        token_ids = np.full(shape, special.pad, np.int64)
        token_type_ids = np.zeros(shape, np.int64)
        is_real = np.zeros(shape, np.bool_)
        begins_word = np.ones(shape, np.bool_)
        epochs = row_numbers // self.rows_per_epoch
        chances = random_uniforms(self.seed, "packing", row_numbers, 4)
        places = np.empty_like(row_numbers)
        # Each epoch has an order of its own. A batch can hold the last rows of one epoch and the first of the next.
        for epoch in np.unique(epochs).tolist():
            within = row_numbers[epochs == epoch] - epoch * self.rows_per_epoch
            places[epochs == epoch] = permuted(self.seed, f"order {epoch}", within, self.rows_per_epoch)
        for row, (place, epoch) in enumerate(zip(places.tolist(), epochs.tolist(), strict=True)):
            first, second = self._segments_of(place, epoch, chances[row])
            parts = (first, [special.sep], second, [special.sep]) if len(second) else (first, [special.sep])
            ids = np.concatenate(([special.cls], *parts))
            if len(second):
                token_type_ids[row, len(first) + 2 : len(ids)] = 1
            token_ids[row, : len(ids)] = ids & _IDS
            begins_word[row, 1 : len(ids)] = ids[1:] > _IDS
            is_real[row, : len(ids)] = True
        is_special = (token_ids == special.cls) | (token_ids == special.sep) | (token_ids == special.pad)
        known = begins_word if self.stream.has_words else None
        return PackedBatch(token_ids, token_type_ids, is_real, is_special, row_numbers, known)

    def _read(self, start: int, count: int) -> NDArray[np.int64]:
        """(count,) int64: the tokens from `start` on, with the mark above `_IDS` where the stream knows words."""
        tokens = self.stream.read(start, count)
        if not self.stream.has_words:
            return tokens
        return tokens + np.where(self.stream.read_begins(start, count), _IDS + 1, 0)

    def _segments_of(
        self, place: int, epoch: int, chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and second segment of the row at `place` in the epoch's order; the second may be empty.

        Args: chances: (4,) float64 in [0, 1): for one segment or two, the split, a short row, its length.
        """
        if self.reference_packing:
            return self._document_row(place, chances)
        # From the second epoch on, rows begin some tokens later, so that texts are not cut at the same places again.
        shift = int(random_uniforms(self.seed, "shift", np.array([epoch]), 1)[0, 0] * self.window) if epoch else 0
        start = min(place * self.window + shift, self.stream.token_count - self.length + 2)
        tokens = self._read(start, self.length - 2)
        if self.segments == 1 or chances[0] < ONE_SEGMENT_FRACTION:
            return tokens, tokens[:0]
        ends = np.flatnonzero(tokens[1:-1] & _IDS == self.stream.special_ids.sep) + 1
        if len(ends):  # the [SEP] of the document that ends nearest to the middle becomes the row's own
            end = int(ends[np.argmin(np.abs(ends - len(tokens) // 2))])
            return tokens[:end], tokens[end + 1 :]
        tokens = tokens[:-1]  # makes room for the second [SEP]
        cut = 1 + int(chances[1] * (len(tokens) - 1))
        return tokens[:cut], tokens[cut:]

    def _document_row(self, place: int, chances: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As `_segments_of`, with reference packing: the row is a stretch of one document."""
        document = int(np.searchsorted(self._row_ends, place, side="right"))
        first_row = int(self._row_ends[document - 1]) if document else 0
        begin = int(self.stream.document_ends[document - 1]) if document else 0
        start = begin + (place - first_row) * self.window
        count = max(1, min(self.window, int(self.stream.document_ends[document]) - 1 - start))
        if chances[2] < SHORT_ROW_FRACTION:
            shortest = min(count, SHORTEST_ROW_TOKENS)
            count = shortest + int(chances[3] * (count - shortest + 1))
        tokens = self._read(start, count)
        if self.segments == 1 or count < 2 or chances[0] < ONE_SEGMENT_FRACTION:
            return tokens, tokens[:0]
        middle = min(count - 1, self.window // 2)
        return tokens[:middle], tokens[middle:]

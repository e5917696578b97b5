"""Rows of token ids from shards: any row of any epoch by its number, packed to full length."""

import copy
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from electrain.data.shards.row_hashes import permuted, random_uniforms
from electrain.data.shards.shards import Shards
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import DataError

# Source of all three: google-research/electra, build_pretraining_dataset.py: `_create_example`, `add_line`.
ONE_SEGMENT_FRACTION = 0.1  # rows that hold one segment only, so that single texts are not foreign to the model
SHORT_ROW_FRACTION = 0.05  # rows cut to a random shorter length (reference packing only)
SHORTEST_ROW_TOKENS = 5
# Rows whose places are computed at once. The number is a matter of speed; see docs/experiments.md, "Rows".
_BLOCK_ROWS = 4096


@dataclass(frozen=True)
class DataConfig:
    """The rows that are made from the shards.

    Attributes:
        sequence_length: Number of tokens in a row, including special tokens, at least 8. 128 (small) or 512 (base,
            large) in the paper.
        segments: Number of segments in a row. 2 splits nine of ten rows into two segments, as published, so that token
            types are trained; 1 never splits.
        rows_on_device: Where rows are packed and masked; they are the same everywhere. yes copies the shards' tokens to
            the GPU and makes them there; no makes them on the CPU, in a thread; auto decides by the GPU's free memory.
            A resumed run may change it.
    """

    sequence_length: int = 128
    segments: int = 2
    rows_on_device: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        require_at_least("sequence_length", self.sequence_length, 8)
        if self.segments not in (1, 2):
            raise ValueError(f"segments = {self.segments}: must be 1 or 2")


@dataclass(frozen=True)
class PackedBatch:
    """Rows of token ids in the form that the model takes, before any corruption; (rows, length) but for the numbers.

    All tensors lie on one device. `begins_word` is True where a word begins. None: the shards do not say, and words
    begin wherever the vocabulary's piece has no "##".
    """

    token_ids: Tensor  # int64; [CLS] segment [SEP] segment [SEP], then [PAD]
    token_type_ids: Tensor  # int64; 0 in the first segment, 1 in the second, 0 at padding
    is_real: Tensor  # bool; False at padding
    is_special: Tensor  # bool; True at [CLS], [SEP] and [PAD], which are never corrupted
    row_numbers: Tensor  # (rows,) int64; the number of each row in the whole run; its randomness follows from it
    begins_word: Tensor | None = None  # bool


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

    Attributes:
        device: where rows are made: the CPU, unless the source comes from `on`.
    """

    def __init__(self, stream: Shards, config: DataConfig, seed: int, *, reference_packing: bool = False) -> None:
        self.stream = stream
        self.length = config.sequence_length
        self.segments = config.segments
        self.seed = seed
        self.reference_packing = reference_packing
        self.window = self.length - 3  # [CLS] and two [SEP] take three places
        self.device = torch.device("cpu")
        self._has_words = stream.has_words
        self._read = stream.take
        self._latest_block = ((-1, -1), np.zeros((0, 3), np.int64))
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

    def on(self, device: torch.device, *, with_words: bool) -> "RowSource":
        """A source of the same rows on a device that has float64, from a copy of the whole stream there.

        Args: with_words: False leaves out where words begin, which takes half the memory of the ids again.
        """
        made = copy.copy(self)
        made.device, made._has_words = device, self.stream.has_words and with_words
        made._read = self.stream.copied_to(device, with_words=made._has_words)
        return made

    def batch(self, row_numbers: NDArray[np.int64]) -> PackedBatch:
        """The rows with these numbers, in the order given, on the source's device, which the CPU does not wait for.

        Args: row_numbers: (rows,) int64; of any epochs.
        """
        numbers, starts, counts, cuts = _sent(self._plan(row_numbers), self.device).unbind(1)
        width = self.window if self.reference_packing else self.length - 2
        within = torch.arange(width, device=self.device)
        if self.reference_packing:  # a row reads its own tokens only; behind its last one it reads that again
            within = torch.minimum(within, counts[:, None] - 1)
        tokens, begins = self._read(starts[:, None] + within, with_words=self._has_words)
        split, last, is_inserted = self._separators(tokens, counts, cuts)
        column = torch.arange(self.length, device=self.device)
        is_second = column > split
        is_separator = (column == split) | (column == last)
        is_real = (column <= last).expand(len(numbers), -1).contiguous()

        def laid_out(values: Tensor) -> Tensor:
            # An inserted [SEP] moves what follows it by one place.
            before = functional.pad(values, (1, self.length - 1 - width))
            behind = functional.pad(values, (2, self.length - 2 - width))
            return torch.where(is_second & is_inserted, behind, before)

        special = self.stream.special_ids
        token_ids = laid_out(tokens).masked_fill_(is_separator, special.sep).masked_fill_(~is_real, special.pad)
        token_ids[:, 0] = special.cls
        begins_word = None
        if begins is not None:
            begins_word = (laid_out(begins) & ~is_separator) | ~is_real
            begins_word[:, 0] = True
        is_special = (token_ids == special.cls) | (token_ids == special.sep) | (token_ids == special.pad)
        return PackedBatch(
            token_ids, (is_second & is_real).to(torch.int64), is_real, is_special, numbers.contiguous(), begins_word
        )

    def _separators(self, tokens: Tensor, counts: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places in the row of the inner and of the last [SEP], (rows, 1) int64, and whether the inner one is inserted.

        The inner place is behind the row in a row of one segment.
        """
        cuts = cuts[:, None]
        is_split = cuts > 0
        split = torch.where(is_split, cuts + 1, self.length)
        if self.reference_packing:
            return split, counts[:, None] + 1 + is_split, is_split
        # The [SEP] of the document that ends nearest to the middle becomes the row's own. Of two equally near ones the
        # first does: the place is part of the number of which the least is taken.
        count = tokens.shape[1]
        inner = torch.arange(1, count - 1, device=self.device)
        none = count * count
        ranks = (inner - count // 2).abs_().mul_(count).add_(inner)
        nearest = torch.where(tokens[:, 1:-1] == self.stream.special_ids.sep, ranks, none).amin(1, keepdim=True)
        has_end = (nearest < none) & is_split
        split = torch.where(has_end, nearest % count + 1, split)
        return split, torch.full_like(split, self.length - 1), is_split & ~has_end

    def _plan(self, row_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """(rows, 4) int64: each row's number, and its three numbers from `_block`."""
        epochs, within = np.divmod(row_numbers, self.rows_per_epoch)
        blocks_per_epoch = -(-self.rows_per_epoch // _BLOCK_ROWS)
        blocks = epochs * blocks_per_epoch + within // _BLOCK_ROWS
        plan = np.empty((len(row_numbers), 4), np.int64)
        plan[:, 0] = row_numbers
        # A batch can hold the last rows of one epoch and the first of the next.
        for block in sorted(set(blocks.tolist())):
            is_here = blocks == block
            plan[is_here, 1:] = self._block(*divmod(block, blocks_per_epoch))[within[is_here] % _BLOCK_ROWS]
        return plan

    def _block(self, epoch: int, part: int) -> NDArray[np.int64]:
        """(rows, 3) int64: of successive rows of an epoch, the place of the first token, the number of tokens, the cut.

        The cut is the number of tokens of the first segment, 0 in a row of one segment.
        """
        # Walking through a permutation takes many small operations. A block takes as many as a single row does.
        known, rows = self._latest_block
        if known != (epoch, part):
            within = np.arange(part * _BLOCK_ROWS, min((part + 1) * _BLOCK_ROWS, self.rows_per_epoch), dtype=np.int64)
            chances = random_uniforms(self.seed, "packing", epoch * self.rows_per_epoch + within, 4)
            places = permuted(self.seed, f"order {epoch}", within, self.rows_per_epoch)
            of_places = self._document_rows if self.reference_packing else self._stretches
            rows = np.stack(of_places(places, epoch, chances), 1)
            self._latest_block = (epoch, part), rows
        return rows

    def _stretches(
        self, places: NDArray[np.int64], epoch: int, chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Starts, numbers of tokens and cuts, (rows,) int64 each, of the rows at these places in the epoch's order.

        Args: chances: (rows, 4) float64 in [0, 1): for one segment or two, the split, a short row, its length.
        """
        # From the second epoch on, rows begin some tokens later, so that texts are not cut at the same places again.
        shift = int(random_uniforms(self.seed, "shift", np.array([epoch]), 1)[0, 0] * self.window) if epoch else 0
        starts = np.minimum(places * self.window + shift, self.stream.token_count - self.length + 2)
        # Where no document ends within the row, its last token makes room for the second [SEP].
        cuts = 1 + (chances[:, 1] * (self.length - 4)).astype(np.int64)
        is_one = (self.segments == 1) | (chances[:, 0] < ONE_SEGMENT_FRACTION)
        return starts, np.full_like(starts, self.length - 2), np.where(is_one, 0, cuts)

    def _document_rows(
        self, places: NDArray[np.int64], epoch: int, chances: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """As `_stretches`, with reference packing: each row is a stretch of one document."""
        del epoch
        ends = self.stream.document_ends
        documents = np.searchsorted(self._row_ends, places, side="right")
        first_rows = np.where(documents > 0, self._row_ends[documents - 1], 0)
        begins = np.where(documents > 0, ends[documents - 1], 0)
        starts = begins + (places - first_rows) * self.window
        counts = np.maximum(1, np.minimum(self.window, ends[documents] - 1 - starts))
        shortest = np.minimum(counts, SHORTEST_ROW_TOKENS)
        short = shortest + (chances[:, 3] * (counts - shortest + 1)).astype(np.int64)
        counts = np.where(chances[:, 2] < SHORT_ROW_FRACTION, short, counts)
        is_one = (self.segments == 1) | (counts < 2) | (chances[:, 0] < ONE_SEGMENT_FRACTION)
        return starts, counts, np.where(is_one, 0, np.minimum(counts - 1, self.window // 2))


def _sent(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """The numbers on the device. The CPU does not wait until they are there."""
    tensor = torch.from_numpy(numbers)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
